package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

// holding is a run in memory. It is disposable: the log is the truth.
type holding struct {
	run       *flow.Run
	durable   int32 // events up to here are committed
	batch     *batch
	at        int
	hands     map[int32]context.CancelFunc // attempts at work, by the events that ordered them
	told      map[int64]struct{}           // messages applied, whose deletion is not durable yet
	crashes   int16
	leaving   bool      // its last change releases it; everything else is left to the next claim
	scheduled time.Time // the earliest timer set for it
	counted   int32     // events up to here are in the metrics
	format    int16     // that the row says it has, or will
}

func newHolding(run *flow.Run) *holding {
	return &holding{run: run, hands: map[int32]context.CancelFunc{}}
}

// take takes up one arrival.
func (s *shard) take(a arrival) {
	switch {
	case a.report != nil:
		s.takeReport(a.report)
	case a.submit != nil:
		s.takeSubmission(a.submit)
	case a.loaded != nil:
		for _, l := range a.loaded {
			s.takeLoaded(l)
		}
	case a.read != nil && !a.read.stale():
		for _, m := range a.read.messages {
			if !s.eaten.has(m.ID) {
				s.takeMessage(m)
			}
		}
	case a.missing != nil:
		a.missing.answer <- s.notHeld(a.missing.runs)
	}
}

func (s *shard) takeReport(r *report) {
	if r.epoch != s.reign.Load() {
		s.metrics.StaleWrites(1) // of an attempt started under a lease that is gone
		return
	}
	h := r.by
	if r.report.Outcome != nil {
		s.atWork--
		h.drop(r.report.Start)
	}
	if h.leaving {
		return
	}
	s.decide(h, flow.Reported{Report: r.report})
	if h.crashes > 0 && r.report.Outcome != nil && !h.leaving { // it got over what may have broken a node
		s.acquit(h)
		s.touchRow(h)
	}
}

// leavePlaceOf gives up the place of a suspect that is not held after all.
func (s *shard) leavePlaceOf(l *loaded) {
	if (store.Claimed{Crashes: l.crashes}).Suspect() {
		s.leavePlace()
	}
}

// acquit forgets the nodes that died over a run.
func (s *shard) acquit(h *holding) {
	if suspected(h) {
		s.leavePlace()
	}
	h.crashes = 0
}

func suspected(h *holding) bool { return store.Claimed{Crashes: h.crashes}.Suspect() }

// takeSubmission opens a run. Where there is no room, or others wait already, only its submission is recorded: a
// claim starts it. So it is with runs of a full batch: those that start others would fill it without end.
func (s *shard) takeSubmission(sub *submission) {
	if h := s.runs[sub.sub.ID]; h != nil {
		sub.answer(h.submitted())
		return
	}
	owned := int(s.held.Load()) < s.room() && !s.backlog.Load() && !s.isDraining() && !s.batch.full()
	run, events, err := s.open(*sub.sub, owned)
	if err != nil {
		sub.answer(err)
		return
	}
	h := newHolding(run)
	if !owned {
		h.leaving = true
		s.backlog.Store(true)
	}
	change := s.batch.add(h, events)
	change.New = newRun(sub.sub, run, events, owned)
	h.format = change.New.Format
	if sub.done != nil {
		s.batch.waiting = append(s.batch.waiting, waiting{done: sub.done, at: h.at})
	}
	if !owned {
		return
	}
	s.hold(h)
	s.after(h, change)
}

// submitted is what to say to who submits a run again.
func (h *holding) submitted() error {
	if h.durable > 0 {
		return nil
	}
	return fmt.Errorf("run %s was submitted before, and is not durable yet", h.run.ID)
}

// open is flow.Open, or flow.Accept; a panic in the rules costs the submission, not the shard.
func (s *shard) open(sub flow.Submission, start bool) (run *flow.Run, events []flow.Event, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("open run: panic in the rules: %v", p)
			s.log.Error("submission", "error", err)
		}
	}()
	if !start {
		return flow.Accept(sub, s.now)
	}
	return flow.Open(sub, s.now)
}

func newRun(sub *flow.Submission, run *flow.Run, events []flow.Event, owned bool) *store.NewRun {
	v := run.Submitted()
	status := flow.RunStatusQueued
	if owned {
		status = flow.RunStatusRunning
	}
	fresh := &store.NewRun{
		Tenant: sub.Tenant, Workflow: v.Workflow, Version: v.Version, Hash: sub.Workflow.Hash, Status: status,
		Stakes: v.Stakes, Mode: v.Mode, Priority: v.Priority, Labels: v.Labels, Preview: flow.Preview(v.Input),
		StepsTotal: len(sub.Workflow.Steps), Format: run.Format(), Owned: owned, At: events[0].At,
		Signals: sub.Workflow.Signals,
	}
	if p := sub.Parent; p != nil {
		fresh.Parent, fresh.ParentStep, fresh.Depth = p.Run, p.Step, p.Depth
		fresh.Definition = sub.Workflow.Source // a planned one is known to nobody else
	}
	return fresh
}

func (s *shard) takeLoaded(l *loaded) {
	if l.epoch != s.reign.Load() || s.runs[l.run.ID] != nil {
		s.leavePlaceOf(l)
		return
	}
	h := newHolding(l.run)
	h.durable, h.counted, h.crashes, h.format = l.run.Seq(), l.run.Seq(), l.crashes, l.run.Format()
	if !l.run.AtWork() { // nothing of it was at work when its node died
		h.crashes = max(0, h.crashes-1)
	}
	if !suspected(h) {
		s.leavePlaceOf(l)
	}
	s.hold(h)
	for _, m := range l.messages { // first: a resume is what makes a failed run one to go on with
		s.takeMessage(m)
	}
	if !h.leaving {
		s.decide(h, flow.Claimed{})
	}
	if !h.leaving { // the row says queued or waiting until now
		s.touchRow(h)
	}
}

// takeMessage applies a message in the batch that records what it causes. One that comes while its run leaves stays
// in the inbox, where the next claim finds it.
func (s *shard) takeMessage(m store.Message) {
	h := s.runs[m.Run]
	if h == nil || h.leaving {
		return
	}
	if _, again := h.told[m.ID]; again {
		return
	}
	if h.told == nil {
		h.told = map[int64]struct{}{}
	}
	h.told[m.ID] = struct{}{}
	s.batch.change(h).Eaten = append(s.batch.change(h).Eaten, m.ID)
	s.decide(h, flow.Told{Kind: m.Kind, Body: m.Body})
	if !h.leaving {
		s.touchRow(h)
	}
}

// decide asks the rules, and records what they say. A panic in the rules sets the run aside; it never takes the
// shard with it.
func (s *shard) decide(h *holding, c flow.Cause) {
	events, err := s.ask(h.run, c)
	if err != nil {
		s.setAside(h, err.Error())
		return
	}
	change := s.batch.change(h)
	if len(events) > 0 {
		change = s.batch.add(h, events)
	}
	s.after(h, change)
}

func (s *shard) ask(run *flow.Run, c flow.Cause) (events []flow.Event, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the rules: %v", p)
		}
	}()
	events = run.Decide(c, s.now)
	return events, run.Err()
}

// after notes what a decision means beyond its events: what it does to others, money, the run's row, and when to look again.
func (s *shard) after(h *holding, change *store.Change) {
	effects := h.run.TakeEffects()
	for _, l := range effects.Told {
		change.Told = append(change.Told, store.Message{Run: l.To, Kind: l.Kind, Body: l.Body})
	}
	change.Asked = append(change.Asked, effects.Asked...)
	change.Withdrawn = append(change.Withdrawn, effects.Withdrawn...)
	change.Emitted = append(change.Emitted, effects.Emitted...)
	s.account(h, change)
	for i := range effects.Children { // last: each has a change of its own, which may move this one
		s.takeSubmission(&submission{sub: &effects.Children[i]})
	}
}

func (s *shard) account(h *holding, change *store.Change) {
	charges := h.run.TakeCharges()
	if len(charges) > 0 {
		hour := s.clock.now().Truncate(time.Hour)
		for _, c := range charges {
			change.Spend = append(change.Spend, spendLine(hour, h.run, c))
		}
	}
	if h.run.Status().Ended() {
		change.Row = s.row(h, true)
		h.leaving = true
		return
	}
	if wake, ok := h.run.Rest(s.clock.now()); ok && len(h.hands) == 0 {
		change.Row = s.row(h, true)
		change.Row.Status, change.Row.WaitingFor, change.Row.WakeAt = flow.RunStatusWaiting, h.run.WaitingFor(), &wake
		h.leaving = true
		return
	}
	if h.run.Format() > h.format { // with the events that raise it: a node that cannot read them must never claim the run
		change.Row = s.row(h, false)
	}
	s.schedule(h)
}

func spendLine(hour time.Time, run *flow.Run, c flow.Charge) store.SpendLine {
	line := store.SpendLine{
		Hour: hour, Tenant: run.Tenant, Workflow: run.Workflow().Name, Agent: c.Agent, Provider: c.Call.Provider,
		Model: c.Call.Model, Simulated: c.Call.Simulated, Calls: 1, Tokens: c.Call.Tokens.Coarse(), Cost: c.Call.Cost,
		Baseline: c.Call.Baseline, CacheSaved: c.Call.CacheSaved,
	}
	if c.Call.Unpriced {
		line.Unpriced = 1
	}
	return line
}

// touchRow lets the row say what the run is doing now.
func (s *shard) touchRow(h *holding) {
	s.batch.change(h).Row = s.row(h, false)
}

func (s *shard) row(h *holding, release bool) *store.Row {
	sum := h.run.Summary()
	h.format = h.run.Format()
	row := &store.Row{
		Status: sum.Status, Stage: sum.Stage, Preview: sum.Preview, Error: sum.Error, Sum: sum.Sum,
		StepsDone: sum.StepsDone, StepsTotal: sum.StepsTotal, Release: release, Crashes: h.crashes, Format: h.format,
		StartedAt: optional(sum.StartedAt), FinishedAt: optional(sum.FinishedAt),
		Signals: h.run.Workflow().Signals,
	}
	row.Sum.Tokens = row.Sum.Tokens.Coarse()
	if release {
		row.Crashes = 0
	}
	return row
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *shard) hold(h *holding) {
	s.runs[h.run.ID] = h
	s.held.Add(1)
}

func (s *shard) release(h *holding) {
	if s.runs[h.run.ID] == h {
		delete(s.runs, h.run.ID)
		s.held.Add(-1)
		s.acquit(h)
	}
	for _, cancel := range h.hands { // cut and not yet back
		cancel()
	}
}

func (s *shard) room() int { return max(1, s.cfg.RunsMax/s.cfg.Shards) }

func (s *shard) notHeld(runs []uuid.UUID) []uuid.UUID {
	var not []uuid.UUID
	for _, id := range runs {
		if s.runs[id] == nil {
			not = append(not, id)
		}
	}
	return not
}

// setAside takes a run out of work for an operator: its log or the rules are broken, and a loop would break more.
// What of it is on its way to Postgres gets there first: nothing is added to a run that is nobody's.
func (s *shard) setAside(h *holding, reason string) {
	s.evict(h)
	s.broken = append(s.broken, aside{run: h.run.ID, reason: reason})
	if !s.flushing {
		s.quarantineBroken()
	}
}

func (s *shard) quarantineBroken() {
	for _, a := range s.broken {
		s.toQuarantine(a.run, a.reason)
	}
	s.broken = nil
}

// evict forgets a run: what of it is durable is read again by the next reconciliation.
func (s *shard) evict(h *holding) {
	for i := range s.batch.changes { // what its steps started since the last commit never was
		if c := &s.batch.changes[i]; c.New != nil && c.New.Parent == h.run.ID && h.run.ID != c.Run {
			s.evict(s.batch.of[i])
		}
	}
	s.batch.without(h)
	h.leaving = true
	s.release(h)
}

// refusal is what the sender of a run hears whose data Postgres did not take.
func refusal(err error) error {
	e := fault.New(fault.KindInvalid, "refused", "the database refused the run's data")
	e.Err = err
	return e
}
