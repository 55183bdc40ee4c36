package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/store"
)

// load is a batch with those who wait for it.
type load struct {
	booking store.Booking
	waiting []*reservation // as booking.Holds
	again   []*reservation // to be tried once more
	oldest  time.Time
}

func (b *load) empty() bool {
	return len(b.waiting)+len(b.booking.Ends)+len(b.booking.Voids)+len(b.booking.Calls) == 0
}

// flush books what comes, batch by batch, until ctx is done and nothing is left.
func (l *Ledger) flush(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-l.work:
		case <-ctx.Done():
		}
		l.flushAll(ctx)
	}
	l.drain(ctx)
}

// flushAll books until there is nothing, or Postgres does not take it.
func (l *Ledger) flushAll(ctx context.Context) {
	for ctx.Err() == nil {
		b := l.take()
		if b.empty() {
			return
		}
		if err := l.book(ctx, b); err != nil && ctx.Err() == nil {
			l.log.Warn("book", "error", err)
			pause(ctx, retryWait)
		}
	}
}

// drain writes what is left when the node stops. What cannot be written is held until the node's leases are gone, and
// then taken as spent.
func (l *Ledger) drain(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	waiting := l.reserve
	l.reserve = nil
	l.mu.Unlock()
	for _, r := range waiting {
		r.answer(unavailable("ledger_closed", "the node is stopping"))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	l.flushAll(ctx)
	if b := l.take(); !b.empty() {
		for _, r := range b.waiting {
			r.answer(unavailable("ledger_closed", "the node is stopping"))
		}
		l.log.Error("the ledger could not be written to its end", "settled", len(b.booking.Ends), "calls", len(b.booking.Calls))
	}
}

// take makes a batch of what came meanwhile, in the order it came. What gives money back goes first.
func (l *Ledger) take() *load {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &load{booking: store.Booking{Node: l.cfg.Node}, oldest: l.oldest}
	l.ends, b.booking.Ends = cut(l.ends, store.BookMax)
	l.voids, b.booking.Voids = cut(l.voids, store.BookMax)
	l.calls, b.booking.Calls = cut(l.calls, store.BookMax)
	for needs := 0; len(l.reserve) > 0 && len(b.waiting) < store.BookMax && needs < needsMax; {
		r := l.reserve[0]
		l.reserve[0], l.reserve = nil, l.reserve[1:]
		if !r.left.Load() {
			b.waiting = append(b.waiting, r)
			needs += r.needs()
		}
	}
	if len(l.ends)+len(l.calls) == 0 {
		l.oldest = time.Time{}
	}
	b.prepare()
	return b
}

// cut takes the first of a list off.
func cut[T any](list []T, most int) (rest, first []T) {
	if len(list) <= most {
		return nil, list
	}
	return list[most:], slices.Clone(list[:most])
}

// prepare lists the budgets that the reservations are about, each once, by id. The limit of one that runs bring along is
// the highest that came: it is only ever raised, and attempts that began before a raise go by the former one.
func (b *load) prepare() {
	needs := map[uuid.UUID]store.Need{}
	for _, r := range b.waiting {
		for _, row := range r.budgets {
			needs[row.ID] = store.Need{ID: row.ID}
		}
		for _, own := range r.own {
			n := needs[own.ID]
			needs[own.ID] = store.Need{
				ID: own.ID, Run: own.Run, Limit: max(n.Limit, own.Cost), LimitTokens: max(n.LimitTokens, own.Tokens),
				Spent: max(n.Spent, own.Spent), SpentTokens: max(n.SpentTokens, own.SpentTokens),
			}
		}
	}
	for _, n := range needs {
		b.booking.Needs = append(b.booking.Needs, n)
	}
	slices.SortFunc(b.booking.Needs, func(a, c store.Need) int { return slices.Compare(a.ID[:], c.ID[:]) })
	place := make(map[uuid.UUID]int16, len(needs))
	for i, n := range b.booking.Needs {
		place[n.ID] = int16(i) //nolint:gosec // bounded by needsMax and the budgets of one call
	}
	for _, r := range b.waiting {
		hold := r.hold
		for _, own := range r.own {
			hold.Needs = append(hold.Needs, place[own.ID])
		}
		for _, row := range r.budgets {
			hold.Needs = append(hold.Needs, place[row.ID])
		}
		b.booking.Holds = append(b.booking.Holds, hold)
	}
}

// book carries a batch out. What was settled goes back into the line unless it is written; those who wait to reserve
// are told that they cannot: whether there is money is not known.
func (l *Ledger) book(ctx context.Context, b *load) error {
	booked, err := l.booker.Book(ctx, &b.booking)
	var refused *store.RefusedError
	switch {
	case err == nil:
		l.answer(b, booked)
		return nil
	case errors.As(err, &refused):
		return l.divide(ctx, b, err)
	case errors.Is(err, store.ErrUnknown):
		// They may have been made, or still be: they are not wanted any more.
		for _, h := range b.booking.Holds {
			b.booking.Voids = append(b.booking.Voids, h.ID)
		}
	}
	b.keepUntried(errors.Is(err, store.ErrUnknown))
	failure := unavailable("budgets_unavailable", "whether there is money left cannot be found out: the database does not answer")
	for _, r := range b.waiting {
		r.answer(fmt.Errorf("reserve: %w", errors.Join(failure, err)))
	}
	l.giveBack(b)
	return err
}

// keepUntried parts those who wait: what was certainly not written is tried once more before its caller is told.
func (b *load) keepUntried(unknown bool) {
	if unknown {
		return
	}
	b.again = slices.DeleteFunc(slices.Clone(b.waiting), func(r *reservation) bool { return r.tried })
	b.waiting = slices.DeleteFunc(b.waiting, func(r *reservation) bool { return !r.tried })
	for _, r := range b.again {
		r.tried = true
	}
}

// giveBack puts what is settled back at the head of the line. It may be sent twice: each is done once.
func (l *Ledger) giveBack(b *load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(b.booking.Ends, l.ends...)
	l.voids = append(b.booking.Voids, l.voids...)
	l.calls = append(b.booking.Calls, l.calls...)
	l.reserve = append(b.again, l.reserve...)
	if !b.oldest.IsZero() && (l.oldest.IsZero() || b.oldest.Before(l.oldest)) {
		l.oldest = b.oldest
	}
	nudge(l.work)
}

// divide finds what Postgres refuses for its content by sending each alone. That one is given up, so that the others
// are not held up for ever by it.
func (l *Ledger) divide(ctx context.Context, b *load, err error) error {
	parts := b.parts()
	if len(parts) == 1 {
		l.log.Error("a booking was refused for what is in it, and is given up", "error", err)
		for _, r := range b.waiting {
			r.answer(fmt.Errorf("reserve: %w", err))
		}
		return nil
	}
	var failed error
	for _, part := range parts {
		if err := l.book(ctx, part); err != nil {
			failed = err
		}
	}
	return failed
}

// parts are the bookings of a batch, each for itself.
func (b *load) parts() []*load {
	var parts []*load
	alone := func(edit func(*load)) {
		part := &load{booking: store.Booking{Node: b.booking.Node}, oldest: b.oldest}
		edit(part)
		part.prepare()
		parts = append(parts, part)
	}
	for _, e := range b.booking.Ends {
		alone(func(p *load) { p.booking.Ends = []store.HoldEnd{e} })
	}
	for _, v := range b.booking.Voids {
		alone(func(p *load) { p.booking.Voids = []uuid.UUID{v} })
	}
	for _, c := range b.booking.Calls {
		alone(func(p *load) { p.booking.Calls = []store.CallLine{c} })
	}
	for _, r := range b.waiting {
		alone(func(p *load) { p.waiting = []*reservation{r} })
	}
	return parts
}

// answer tells those who wait what came of it. Who has left meanwhile is settled with nothing spent.
func (l *Ledger) answer(b *load, booked store.Booked) {
	roster := l.roster.Load()
	var left []store.HoldEnd
	for i, r := range b.waiting {
		f, isRefused := booked.Refused[i]
		if !isRefused {
			if !r.answer(nil) {
				left = append(left, store.HoldEnd{ID: r.hold.ID})
			}
			continue
		}
		e := r.refusal(f, roster)
		l.metrics.BudgetDenied(scopeOf(e), string(e.OnHard))
		r.answer(e)
	}
	l.report(booked.Crossed, roster)
	if len(left) > 0 {
		l.giveBack(&load{booking: store.Booking{Ends: left}, oldest: time.Now()})
	}
}

// scopeOf is the kind of what the budget limits, without its name.
func scopeOf(e *gateway.BudgetError) string {
	scope, _, _ := strings.Cut(e.Scope, " ")
	return scope
}

// report tells of soft limits that were passed: each is reported once a window, wherever it happens.
func (l *Ledger) report(crossed []store.Crossing, roster *roster) {
	for _, c := range crossed {
		name, scope := c.Budget.String(), ""
		if b := roster.byID[c.Budget]; b != nil {
			name, scope = b.Name, b.Scope
		}
		l.log.Warn("budget passed a soft limit", "budget", name, "scope", scope, "percent", c.Percent, "spent_usd", c.Spent, "spent_tokens", c.SpentTokens)
		l.metrics.BudgetNoted(NoteSoft, 1)
	}
}
