package peers_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/peers"
	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
)

// listener is a gateway that remembers what it is told.
type listener struct {
	mu     sync.Mutex
	news   []gateway.BreakerNews
	prices [][]gateway.PriceRow
	refuse error
}

func (l *listener) Heard(news []gateway.BreakerNews) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news = append(l.news, news...)
}

func (l *listener) SetPrices(rows []gateway.PriceRow) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	l.prices = append(l.prices, rows)
	return nil
}

// actions are what was heard, emptied.
func (l *listener) actions() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, n := range l.news {
		list = append(list, n.ID+" "+n.Action)
	}
	l.news = nil
	return list
}

func open(t *testing.T, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func newPeers(db *store.DB) (*peers.Peers, *listener) {
	l := &listener{}
	return peers.New(peers.Config{Store: db, Node: uuid.Must(uuid.NewV7()), Gateway: l}), l
}

// What one node finds out the others hear, once and in order; a node that starts later hears what still holds.
func TestBreakersAreHeard(t *testing.T) {
	url := pgtest.New(t)
	db := open(t, url)
	clock, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer clock.Close(context.Background())
	one, self := newPeers(db)
	two, other := newPeers(db)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- one.Run(ctx) }()
	now := time.Now().UTC().Truncate(time.Microsecond)
	tell := func(id, action string) {
		t.Helper()
		one.Tell(gateway.BreakerNews{ID: id, Action: action, Reason: "why", Until: now.Add(time.Minute), At: now})
		for range 2_000 {
			if _, err := clock.Exec(t.Context(), `select pg_sleep(0.005)`); err != nil {
				t.Fatal(err)
			}
			rows, err := db.Breakers(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				if row.ID == id && row.Action == action {
					return
				}
			}
		}
		t.Fatalf("%s %s was not told", id, action)
	}
	hears := func(p *peers.Peers, l *listener, want ...string) {
		t.Helper()
		if err := p.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, l.actions()); diff != "" {
			t.Error(diff)
		}
	}
	tell("p/m", gateway.BreakerOpened)
	tell("p/m", gateway.BreakerHeld)
	hears(two, other, "p/m opened", "p/m held")
	hears(two, other)
	tell("p/m", gateway.BreakerThrottled)
	tell("q/m", gateway.BreakerDisabled)
	hears(two, other, "p/m throttled", "q/m disabled")
	third, late := newPeers(db)
	hears(third, late, "p/m held", "p/m throttled", "q/m disabled")
	tell("p/m", gateway.BreakerReset)
	hears(third, late, "p/m reset")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if heard := self.actions(); len(heard) != 0 {
		t.Errorf("a node heard itself: %v", heard)
	}
}

// exchanged counts how often incidents were told of and heard of.
type exchanged struct {
	times int
	err   error
}

func (e *exchanged) Exchange(context.Context) error {
	e.times++
	return e.err
}

// Incidents are exchanged each time, and what goes wrong with them keeps no prices back.
func TestIncidentsAreExchanged(t *testing.T) {
	db := open(t, pgtest.New(t))
	l, e := &listener{}, &exchanged{err: errors.New("away")}
	p := peers.New(peers.Config{Store: db, Node: uuid.Must(uuid.NewV7()), Gateway: l, Incidents: e})
	if err := p.Listen(t.Context()); !errors.Is(err, e.err) || len(l.prices) != 1 {
		t.Errorf("%v, prices %v", err, l.prices)
	}
	e.err = nil
	if err := p.Listen(t.Context()); err != nil || e.times != 2 {
		t.Errorf("%v after %d times", err, e.times)
	}
}

// Prices are handed over at first, and when they have changed; what the gateway refused is tried again.
func TestPricesAreHandedOver(t *testing.T) {
	db := open(t, pgtest.New(t))
	p, l := newPeers(db)
	listen := func(want ...gateway.PriceRow) {
		t.Helper()
		if err := p.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []gateway.PriceRow
		if len(l.prices) > 0 {
			got = l.prices[0]
		}
		if diff := cmp.Diff(want, got); diff != "" || len(l.prices) > 1 {
			t.Errorf("%d times: %s", len(l.prices), diff)
		}
		l.prices = nil
	}
	if err := p.Listen(t.Context()); err != nil || len(l.prices) != 1 || len(l.prices[0]) != 0 {
		t.Fatalf("at first: %v %v", l.prices, err)
	}
	l.prices = nil
	put := func(body string) {
		t.Helper()
		if err := db.PutPrices(t.Context(), store.TenantDefault, "m", []store.PriceOverride{{Model: "m", Body: []byte(body)}}); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"model":"m","input":"2.50"}`)
	l.refuse = errors.New("no such model")
	if err := p.Listen(t.Context()); !errors.Is(err, l.refuse) {
		t.Error(err)
	}
	l.refuse = nil
	listen(gateway.PriceRow{Model: "m", Input: "2.50"})
	listen()
	put(`{"model":"m","input":"3.00"}`)
	listen(gateway.PriceRow{Model: "m", Input: "3.00"})
	if err := db.DeletePrices(t.Context(), store.TenantDefault, "m"); err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil || len(l.prices) != 1 || len(l.prices[0]) != 0 {
		t.Errorf("deleted: %v %v", l.prices, err)
	}
}
