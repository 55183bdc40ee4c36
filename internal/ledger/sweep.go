package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
)

const (
	sweepEvery = 5 * time.Second
	tidyEvery  = time.Minute
	sweepMax   = 500 // reservations of one batch
	tidyMax    = 1_000
)

// sweep settles what dead nodes had reserved, and forgets what is long over. It has a booker of its own: the node's
// calls must not wait for it.
func (l *Ledger) sweep(ctx context.Context) {
	booker := l.cfg.Store.Booker()
	defer booker.Close()
	var tidied time.Time
	for ctx.Err() == nil {
		if err := l.recover(ctx, booker); err != nil && ctx.Err() == nil {
			l.log.Warn("settle for dead nodes", "error", err)
		}
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			if err := l.tidy(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("tidy budgets", "error", err)
			}
		}
		pause(ctx, sweepEvery)
	}
}

// recover settles the reservations of nodes that have no lease any more. Of each it looks for the call in the run's
// log: with the cost that was recorded there it is settled; else it is lost and taken as spent in full, for it may have
// been made. If its node lives after all, what that settles corrects it.
func (l *Ledger) recover(ctx context.Context, booker *store.Booker) error {
	for ctx.Err() == nil {
		held, err := l.cfg.Store.DeadHolds(ctx, sweepMax)
		if err != nil || len(held) == 0 {
			return err
		}
		for len(held) > 0 {
			n := 1
			for n < len(held) && held[n].Node == held[0].Node {
				n++
			}
			if err := l.recoverOf(ctx, booker, held[:n]); err != nil {
				return err
			}
			held = held[n:]
		}
	}
	return nil
}

// recoverOf settles for one dead node.
func (l *Ledger) recoverOf(ctx context.Context, booker *store.Booker, held []store.Held) error {
	booking := store.Booking{Node: held[0].Node}
	lost := 0
	for _, h := range held {
		end := store.HoldEnd{ID: h.ID, Lost: true}
		call, found, err := l.recorded(ctx, h)
		if err != nil && (ctx.Err() != nil || fault.Is(err, fault.KindUnavailable)) {
			return err
		}
		if err != nil { // waiting does not mend it, and the others must not wait for it
			l.log.Error("the log of a run cannot be read: what was set aside is taken as spent", "run", h.Run, "hold", h.ID, "error", err)
		}
		if found {
			end = store.HoldEnd{ID: h.ID, Spent: call.Cost, Tokens: call.Tokens.Total()}
		} else {
			lost++
		}
		booking.Ends = append(booking.Ends, end)
	}
	booked, err := booker.Book(ctx, &booking)
	if err != nil {
		return err
	}
	l.log.Warn("settled for a dead node", "node", booking.Node, "recovered", len(held)-lost, "lost", lost)
	l.metrics.BudgetNoted(NoteLost, lost)
	l.metrics.BudgetNoted(NoteRecovered, len(held)-lost)
	if roster := l.roster.Load(); roster != nil {
		l.report(booked.Crossed, roster)
	}
	return nil
}

// recorded finds the call that was made under a reservation in the log of its run.
func (l *Ledger) recorded(ctx context.Context, h store.Held) (usage.Call, bool, error) {
	if h.Run == uuid.Nil {
		return usage.Call{}, false, nil
	}
	events, err := l.cfg.Store.EventsNaming(ctx, h.Run, h.ID.String())
	if err != nil {
		return usage.Call{}, false, err
	}
	call, found := callUnder(events, h.ID)
	return call, found, nil
}

// callUnder finds the call of a reservation wherever in the events it stands.
func callUnder(events []flow.Event, hold uuid.UUID) (usage.Call, bool) {
	name := []byte(hold.String())
	for _, e := range events {
		if bytes.Contains(e.Body, name) {
			if call, found := callIn(e.Body, hold, name); found {
				return call, true
			}
		}
	}
	return usage.Call{}, false
}

// callIn goes down into the values that hold the name, to the innermost one that is a call.
func callIn(value json.RawMessage, hold uuid.UUID, name []byte) (usage.Call, bool) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		var fields map[string]json.RawMessage
		if json.Unmarshal(value, &fields) != nil {
			return usage.Call{}, false
		}
		var call usage.Call
		if fields["hold"] != nil && json.Unmarshal(value, &call) == nil && call.Hold == hold {
			return call, true
		}
		for _, v := range fields {
			list = append(list, v)
		}
	}
	for _, v := range list {
		if bytes.Contains(v, name) {
			if call, found := callIn(v, hold, name); found {
				return call, true
			}
		}
	}
	return usage.Call{}, false
}

// tidy forgets what is long over.
func (l *Ledger) tidy(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := l.cfg.Store.SweepHolds(ctx, tidyMax)
		if err != nil || n < tidyMax {
			return err
		}
	}
	return nil
}
