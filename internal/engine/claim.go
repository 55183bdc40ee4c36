package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// loaded is a run read back from its log, with the messages that wait for it.
type loaded struct {
	run      *flow.Run
	messages []store.Message
	crashes  int16
	epoch    *reign
}

// missing asks the loop which of these runs it does not hold.
type missing struct {
	runs   []uuid.UUID
	answer chan []uuid.UUID
}

// aside is a run to be quarantined.
type aside struct {
	run    uuid.UUID
	reason string
}

// claims takes runs that nobody owns, as there is room, and loads them. It is the only goroutine of the shard that
// loads, so a run is never on its way twice.
func (s *shard) claims(ctx context.Context, r *reign) {
	for ctx.Err() == nil {
		if err := s.quarantineAll(ctx, r); err != nil {
			s.log.Warn("quarantine run", "error", err)
		}
		if err := s.claim(ctx, r); err != nil && ctx.Err() == nil {
			s.log.Warn("claim runs", "error", err)
			pause(ctx, retryWaitMax)
		}
		if now := time.Now().UnixNano(); now-s.checked.Load() > int64(reconcileTime) {
			s.checked.Store(now)
			if err := s.reconcile(ctx, r); err != nil && ctx.Err() == nil {
				s.log.Warn("compare runs with the table", "error", err)
			}
		}
		select {
		case <-s.claimNudge:
		case <-time.After(jittered(claimEvery)):
		case <-ctx.Done():
		}
	}
}

func (s *shard) claim(ctx context.Context, r *reign) error {
	for !s.isDraining() && r.trusted() {
		room := min(s.room()-int(s.held.Load()), claimMax)
		if room <= 0 {
			return nil
		}
		lease := r.current()
		place := s.takePlace()
		claimed, err := s.cfg.Store.Claim(ctx, lease, room, flow.FormatMax, place)
		if place && !slices.ContainsFunc(claimed, store.Claimed.Suspect) {
			s.suspect.CompareAndSwap(s, nil) // and nobody is nudged: there was no suspect to claim
		}
		if errors.Is(err, store.ErrLeaseLost) && !r.gone(lease) {
			return nil // its epoch was raised meanwhile
		}
		if err != nil {
			return err
		}
		s.backlog.Store(len(claimed) == room)
		if len(claimed) == 0 {
			return nil
		}
		if err := s.load(ctx, r, claimed); err != nil {
			return err
		}
	}
	return nil
}

// A run that saw several nodes die may be what kills them. Those are worked on one at a time by a node, until their next
// outcome: if the node dies again, that one is known to have done it, and no other run is counted among the guilty.
func (s *shard) takePlace() bool { return s.suspect.CompareAndSwap(nil, s) }

func (s *shard) leavePlace() {
	if s.suspect.CompareAndSwap(s, nil) {
		s.nudgeClaims()
	}
}

// reconcile loads the runs that the table says are ours and memory does not hold. The table is asked a second time
// after the loop has answered: what is ours then, and was not in memory, cannot be on its way out.
func (s *shard) reconcile(ctx context.Context, r *reign) error {
	owned, err := s.cfg.Store.Owned(ctx, r.current())
	if err != nil {
		return err
	}
	ask := &missing{answer: make(chan []uuid.UUID, 1)}
	for _, c := range owned {
		ask.runs = append(ask.runs, c.Run)
	}
	if err := s.arrive(ctx, arrival{missing: ask}); err != nil {
		return err
	}
	lost := map[uuid.UUID]bool{}
	select {
	case runs := <-ask.answer:
		for _, id := range runs {
			lost[id] = true
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if len(lost) == 0 {
		return nil
	}
	if owned, err = s.cfg.Store.Owned(ctx, r.current()); err != nil {
		return err
	}
	var again []store.Claimed
	for _, c := range owned {
		if lost[c.Run] {
			again = append(again, c)
		}
	}
	for len(again) > 0 {
		n := min(len(again), claimMax)
		if err := s.load(ctx, r, again[:n]); err != nil {
			return err
		}
		again = again[n:]
	}
	return nil
}

// load reads claimed runs back and hands them to the loop. Runs that cannot be read are set aside; a failure to read
// at all leaves them to the next reconciliation.
func (s *shard) load(ctx context.Context, r *reign, claimed []store.Claimed) error {
	claimed = slices.DeleteFunc(slices.Clone(claimed), func(c store.Claimed) bool {
		if c.Crashes >= crashesMax {
			s.quarantineClaimed(c, fmt.Sprintf("its attempts were at work in %d nodes that died", c.Crashes))
		}
		return c.Crashes >= crashesMax
	})
	if len(claimed) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(claimed))
	for i, c := range claimed {
		ids[i] = c.Run
	}
	messages, err := s.cfg.Store.RunInbox(ctx, ids)
	if err != nil {
		return err
	}
	logs, err := s.cfg.Store.Logs(ctx, ids)
	switch {
	case err == nil:
	case ctx.Err() != nil || fault.Is(err, fault.KindUnavailable):
		return err
	case len(ids) == 1:
		s.quarantineClaimed(claimed[0], err.Error())
		return nil
	default: // one of them cannot be read: find out which
		return s.loadEach(ctx, r, claimed)
	}
	told := map[uuid.UUID][]store.Message{}
	for _, m := range messages {
		told[m.Run] = append(told[m.Run], m)
	}
	var list []*loaded
	for _, c := range claimed {
		run, err := s.fold(ctx, c, logs[c.Run])
		var unreadable *unreadableError
		switch {
		case errors.As(err, &unreadable):
			s.quarantineClaimed(c, unreadable.Error())
		case err != nil:
			return err
		default:
			list = append(list, &loaded{run: run, messages: told[c.Run], crashes: c.Crashes, epoch: r})
		}
	}
	return s.arrive(ctx, arrival{loaded: list})
}

func (s *shard) loadEach(ctx context.Context, r *reign, claimed []store.Claimed) error {
	for i := range claimed {
		if err := s.load(ctx, r, claimed[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// fold reads one run; a panic over a strange log is an unreadable log.
func (s *shard) fold(ctx context.Context, c store.Claimed, log []flow.Event) (run *flow.Run, err error) {
	w, err := s.definitions.get(ctx, c.Tenant, c.Hash)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			run, err = nil, &unreadableError{fmt.Errorf("panic while folding: %v", p)}
		}
	}()
	if run, err = flow.Fold(c.Run, c.Tenant, w, log); err != nil {
		return nil, &unreadableError{err}
	}
	return run, nil
}

// quarantineClaimed sets a run aside that was claimed and will not be held.
func (s *shard) quarantineClaimed(c store.Claimed, reason string) {
	if c.Suspect() {
		s.leavePlace()
	}
	s.toQuarantine(c.Run, reason)
}

// toQuarantine notes a run for the claimer; a full list is no loss, since the run is found again by reconciliation.
func (s *shard) toQuarantine(run uuid.UUID, reason string) {
	select {
	case s.asides <- aside{run: run, reason: reason}:
		nudge(s.claimNudge)
	default:
	}
}

func (s *shard) quarantineAll(ctx context.Context, r *reign) error {
	for {
		select {
		case a := <-s.asides:
			s.log.Error("run quarantined", "run", a.run, "reason", a.reason)
			if err := s.cfg.Store.Quarantine(ctx, r.current(), a.run, a.reason); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}
