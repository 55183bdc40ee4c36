// Package peers tells the nodes of one service what each of them learned or was told: which providers' breakers opened,
// what operators hold, which attempts keep failing, and the prices that came through the API. It is news, not truth: a node that hears nothing goes by
// what it finds out by itself.
package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
)

const (
	period    = 2 * time.Second
	overlap   = 10 * time.Second // news is committed after it was dated: so much is read again each time
	tidyEvery = time.Minute
)

// Gateway takes what is heard.
type Gateway interface {
	Heard(news []gateway.BreakerNews)
	SetPrices(rows []gateway.PriceRow) error
}

// Incidents are told of and heard of in turn.
type Incidents interface {
	Exchange(ctx context.Context) error
}

// Config of Peers.
type Config struct {
	Store     *store.DB
	Node      uuid.UUID
	Gateway   Gateway
	Incidents Incidents    // nil: none are told of
	Log       *slog.Logger // silent
}

// Peers passes news on. It is safe for concurrent use.
type Peers struct {
	cfg  Config
	log  *slog.Logger
	work chan struct{}

	mu      sync.Mutex
	waiting map[about]gateway.BreakerNews // to be told

	since  time.Time           // of Run's goroutine that listens: news up to then was heard
	heard  map[about]time.Time // when what was heard was dated
	prices []store.PriceOverride
	priced bool // prices were handed over once
}

// about is what news is about: newer news about the same takes its place.
type about struct {
	id     string
	node   uuid.UUID
	byHand bool
}

// New makes Peers.
func New(c Config) *Peers {
	p := &Peers{cfg: c, log: c.Log, work: make(chan struct{}, 1), waiting: map[about]gateway.BreakerNews{}, heard: map[about]time.Time{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p
}

// Tell passes this node's news on. It does not block; of one breaker only the last is told.
func (p *Peers) Tell(n gateway.BreakerNews) {
	p.mu.Lock()
	p.waiting[about{id: n.ID, byHand: byHand(n.Action)}] = n
	p.mu.Unlock()
	select {
	case p.work <- struct{}{}:
	default:
	}
}

// byHand: an operator said so.
func byHand(action string) bool {
	return slices.Contains([]string{gateway.BreakerReset, gateway.BreakerHeld, gateway.BreakerReleased}, action)
}

// Run tells and listens until ctx is done.
func (p *Peers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { p.speak(ctx); return nil })
	group.Go(func() error { p.hear(ctx); return nil })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("talk to peers: %w", err)
	}
	return nil
}

// speak writes what is to be told. What cannot be written now is told later, unless there is newer news by then.
func (p *Peers) speak(ctx context.Context) {
	for {
		select {
		case <-p.work:
		case <-ctx.Done():
			return
		}
		for key, n := range p.take() {
			err := p.cfg.Store.PutBreaker(ctx, store.BreakerRow{
				ID: n.ID, Node: p.cfg.Node, ByHand: key.byHand, Action: n.Action, Reason: n.Reason, Until: n.Until, At: n.At,
			})
			if err != nil {
				p.keep(key, n)
				if ctx.Err() == nil {
					p.log.Warn("tell peers", "breaker", n.ID, "error", err)
				}
				pause(ctx, period)
			}
		}
	}
}

func (p *Peers) take() map[about]gateway.BreakerNews {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.waiting
	p.waiting = map[about]gateway.BreakerNews{}
	return taken
}

func (p *Peers) keep(key about, n gateway.BreakerNews) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, newer := p.waiting[key]; !newer {
		p.waiting[key] = n
	}
	select {
	case p.work <- struct{}{}:
	default:
	}
}

// hear reads news every 2 s.
func (p *Peers) hear(ctx context.Context) {
	var tidied time.Time
	for ctx.Err() == nil {
		if err := p.Listen(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("listen to peers", "error", err)
		}
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			p.tidy(ctx)
		}
		pause(ctx, period)
	}
}

// tidy deletes old news.
func (p *Peers) tidy(ctx context.Context) {
	for what, sweep := range map[string]func(context.Context) (int, error){
		"breakers": p.cfg.Store.SweepBreakers, "incidents": p.cfg.Store.SweepIncidents,
	} {
		if _, err := sweep(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("tidy "+what, "error", err)
		}
	}
}

// Listen reads the news once. It belongs to one goroutine. What cannot be heard of one thing keeps nothing of the others
// back.
func (p *Peers) Listen(ctx context.Context) error {
	return errors.Join(p.hearBreakers(ctx), p.hearPrices(ctx), p.hearIncidents(ctx))
}

func (p *Peers) hearIncidents(ctx context.Context) error {
	if p.cfg.Incidents == nil {
		return nil
	}
	return p.cfg.Incidents.Exchange(ctx)
}

// hearBreakers passes on what other nodes wrote since last time, each once, in the order it was written.
func (p *Peers) hearBreakers(ctx context.Context) error {
	var news []gateway.BreakerNews
	from, latest := p.since, p.since
	for more := true; more; { // page by page: one of them may hold less than is read again each time
		rows, err := p.cfg.Store.Breakers(ctx, from)
		if err != nil {
			return fmt.Errorf("hear breakers: %w", err)
		}
		more = false
		for _, row := range rows {
			more = more || row.ChangedAt.After(from)
			from, latest = maxTime(from, row.ChangedAt), maxTime(latest, row.ChangedAt.Add(-overlap))
			if n, isNews := p.hearRow(row); isNews {
				news = append(news, n)
			}
		}
	}
	p.since = latest
	for key, at := range p.heard { // it cannot be read again
		if at.Before(latest) {
			delete(p.heard, key)
		}
	}
	if len(news) > 0 {
		p.cfg.Gateway.Heard(news)
	}
	return nil
}

// hearRow notes what another node wrote; false: it was heard before, or said here.
func (p *Peers) hearRow(row store.BreakerRow) (gateway.BreakerNews, bool) {
	key := about{row.ID, row.Node, row.ByHand}
	if row.Node == p.cfg.Node || p.heard[key].Equal(row.ChangedAt) {
		return gateway.BreakerNews{}, false
	}
	p.heard[key] = row.ChangedAt
	return gateway.BreakerNews{
		ID: row.ID, Node: row.Node.String(), Action: row.Action, Reason: row.Reason, Until: row.Until, At: row.At,
	}, true
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// hearPrices hands the prices over when they have changed. A row that cannot be read is left out, and said so: it must
// not cost the others.
func (p *Peers) hearPrices(ctx context.Context) error {
	rows, err := p.cfg.Store.AllPrices(ctx)
	if err != nil {
		return fmt.Errorf("hear prices: %w", err)
	}
	if p.priced && slices.EqualFunc(rows, p.prices, samePrice) {
		return nil
	}
	list := make([]gateway.PriceRow, 0, len(rows))
	for _, row := range rows {
		var price gateway.PriceRow
		if err := json.Unmarshal(row.Body, &price); err != nil {
			p.log.Error("a price cannot be read", "model", row.Model, "error", err)
			continue
		}
		list = append(list, price)
	}
	if err := p.cfg.Gateway.SetPrices(list); err != nil {
		return fmt.Errorf("take prices over: %w", err)
	}
	p.prices, p.priced = rows, true
	return nil
}

func samePrice(a, b store.PriceOverride) bool {
	return a.Model == b.Model && a.UpdatedAt.Equal(b.UpdatedAt) && bytes.Equal(a.Body, b.Body)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
