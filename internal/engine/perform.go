package engine

import (
	"context"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// committed goes on from a batch that is durable: answers, counts, and what the runs order now.
func (s *shard) committed(work context.Context, done flushed) {
	s.flushing = false
	b := done.batch
	s.metrics.Committed(done.took, len(b.changes), b.events)
	s.answer(done)
	told := false // somebody else has a message now
	for i, h := range b.of {
		if err := done.refused[i]; err != nil {
			s.refuse(h, err)
			continue
		}
		events := b.changes[i].Events
		if len(events) > 0 {
			h.durable = events[len(events)-1].Seq
			s.count(h, events)
			s.watch.notify(h.run.ID)
		}
		s.eaten.add(b.changes[i].Eaten)
		told = told || len(b.changes[i].Told)+len(b.changes[i].Emitted) > 0
		for _, id := range b.changes[i].Eaten {
			delete(h.told, id)
		}
		switch {
		case !h.leaving:
			s.perform(work, h)
		case h.batch == b: // nothing of it is still to be written
			s.release(h)
			delete(s.refused, h.run.ID)
			if row := b.changes[i].Row; s.cfg.Finished != nil && row != nil && row.Status.Ended() {
				s.cfg.Finished(h.run.ID, row.Status)
			}
		}
	}
	if told {
		s.Look()
	}
	s.quarantineBroken()
	if s.backlog.Load() && int(s.held.Load()) <= s.room()/2 {
		nudge(s.claimNudge)
	}
	s.busy.Store(int32(s.atWork)) //nolint:gosec // bounded by what fits in memory
	s.gauge()
}

// gauge sums up over the shards of the node.
func (e *Engine) gauge() {
	held, busy := 0, 0
	for _, s := range e.shards {
		held += int(s.held.Load())
		busy += int(s.busy.Load())
	}
	e.metrics.RunsOwned(held)
	e.metrics.WorkersBusy(busy)
}

// refuse evicts a run whose data Postgres did not take. It is loaded again once, from what is durable; refused
// again, it is set aside.
func (s *shard) refuse(h *holding, err error) {
	s.log.Error("commit of a run refused", "run", h.run.ID, "error", err)
	if h.durable == 0 { // its submission: there is nothing to go on with
		s.evict(h)
		return
	}
	if s.refused[h.run.ID] {
		delete(s.refused, h.run.ID)
		s.setAside(h, "refused by the database: "+err.Error())
		return
	}
	s.refused[h.run.ID] = true
	s.evict(h)
	s.checked.Store(0) // look at the table now
	nudge(s.claimNudge)
}

// perform does what the run orders: attempts that should be at work and are not are started, attempts that are and
// should not be are stopped. Only what is durable counts; the run may have been decided further.
func (s *shard) perform(work context.Context, h *holding) {
	if h.leaving {
		return
	}
	s.stopUnwanted(h)
	for start := range h.run.Pending {
		if start.Seq > h.durable || h.hands[start.Seq] != nil {
			continue
		}
		switch {
		case h.run.Cutting():
			s.decide(h, flow.Reported{Report: cancelledReport(h.run.Attempt(start))})
			s.perform(work, h)
			return
		case s.isDraining():
			return
		case !s.trusted():
			s.deferred = true
			return
		}
		s.start(work, h, start)
	}
}

// startDeferred starts what was held back while the lease was not trusted.
func (s *shard) startDeferred(work context.Context) {
	if !s.deferred {
		return
	}
	s.deferred = false
	for _, h := range s.runs {
		s.perform(work, h)
	}
}

func cancelledReport(a flow.Attempt) flow.Report {
	return flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: &flow.Outcome{
		Unbegun: true, Failure: &flow.Failure{Class: "cancelled", Message: "cancelled before it began"},
	}}
}

func (s *shard) stopUnwanted(h *holding) {
	if len(h.hands) == 0 {
		return
	}
	wanted := map[int32]bool{}
	if !h.run.Cutting() {
		for start := range h.run.Pending {
			wanted[start.Seq] = true
		}
	}
	for seq, cancel := range h.hands {
		if !wanted[seq] {
			cancel()
		}
	}
}

// start puts an attempt to work in a goroutine of its own.
func (s *shard) start(work context.Context, h *holding, start flow.Start) {
	ctx, cancel := context.WithCancel(work)
	h.hands[start.Seq] = cancel
	s.atWork++
	a := h.run.Attempt(start)
	a.Deadline = time.Now().Add(a.Deadline.Sub(s.clock.now())) // workers go by this machine's clock
	epoch := s.reign.Load()
	go s.cfg.Worker.Do(ctx, a, func(r flow.Report) {
		r.Start = start.Seq
		s.signal(arrival{report: &report{by: h, report: r, epoch: epoch}})
	})
}

// drop takes an attempt that has come to its end out of hand.
func (h *holding) drop(start int32) {
	if cancel := h.hands[start]; cancel != nil {
		cancel()
		delete(h.hands, start)
	}
}

// cutAll stops all attempts at work: the node is going down. They run again elsewhere under their number.
func (s *shard) cutAll() {
	for _, h := range s.runs {
		for _, cancel := range h.hands {
			cancel()
		}
	}
}

// count feeds the metrics from events that are durable, each once.
func (s *shard) count(h *holding, events []flow.Event) {
	for _, e := range events {
		if e.Seq <= h.counted {
			continue
		}
		h.counted = e.Seq
		s.countEvent(h.run, e)
	}
}

func (s *shard) countEvent(run *flow.Run, e flow.Event) {
	switch e.Kind {
	case flow.KindRunSubmitted:
		source := "api"
		if run.Submitted().Parent != nil {
			source = "step"
		}
		s.metrics.RunAccepted(run.Workflow().Name, source)
	case flow.KindStepStarted:
		if e.Seq == run.FirstStart() {
			s.metrics.RunStarted(e.At.Sub(run.CreatedAt()))
		}
	case flow.KindStepSucceeded:
		s.countStep(run, e, "succeeded")
	case flow.KindStepFailed:
		s.countStep(run, e, "failed")
	case flow.KindStepCancelled:
		s.countStep(run, e, "cancelled")
	case flow.KindStepSkipped:
		s.countStep(run, e, "skipped")
	case flow.KindAttemptFailed:
		if e.Held() { // it goes on: no attempt has ended
			return
		}
		s.metrics.AttemptFinished(run.Stat(e.Step).Agent, run.LastClass(e.Step))
		s.countGate(run, e)
	case flow.KindRunDegraded:
		s.metrics.RunDegraded(run.Workflow().Name)
	case flow.KindRunSucceeded, flow.KindRunFailed, flow.KindRunCancelled:
		s.metrics.RunFinished(run.Workflow().Name, outcome(run, e.Kind), e.At.Sub(run.CreatedAt()))
	case flow.KindTurnAnswered, flow.KindCaseChosen, flow.KindOutcomeDiscarded, flow.KindRunFailing,
		flow.KindRunCancelling, flow.KindSectionEntered, flow.KindRunResumed, flow.KindRunBudgetRaised, flow.KindOuterRaised,
		flow.KindBudgetWarned, flow.KindItemEnded, flow.KindIterationEnded, flow.KindStepWaiting, flow.KindApprovalAnswered,
		flow.KindPlanMade, flow.KindSignalReceived, flow.KindStepReopened: // nothing is counted of these
	}
}

func (s *shard) countStep(run *flow.Run, e flow.Event, how string) {
	stat := run.Stat(e.Step)
	took := time.Duration(0)
	if !stat.StartedAt.IsZero() {
		took = e.At.Sub(stat.StartedAt)
	}
	s.metrics.StepFinished(string(stat.Kind), how, took)
	s.countGate(run, e)
	if e.Attempt == 0 || stat.Agent == "" && stat.Kind != workflow.KindTool {
		return
	}
	class := "ok"
	if how == "failed" {
		class = run.LastClass(e.Step)
	} else if how == "cancelled" {
		class = "cancelled"
	}
	s.metrics.AttemptFinished(stat.Agent, class)
}

// countGate counts what came to a gate: it passed, or that is why the attempt failed.
func (s *shard) countGate(run *flow.Run, e flow.Event) {
	if !run.Stat(e.Step).Gated {
		return
	}
	passed := e.Kind == flow.KindStepSucceeded
	if passed || run.LastClass(e.Step) == "gate_failed" && e.Kind != flow.KindStepCancelled {
		s.metrics.GateReached(run.Workflow().Name, passed)
	}
}

func outcome(run *flow.Run, k flow.Kind) string {
	switch {
	case k == flow.KindRunSucceeded:
		return "succeeded"
	case k == flow.KindRunCancelled:
		return "cancelled"
	case run.Summary().Error != nil && run.Summary().Error.Class == "timeout" && run.Summary().Error.Step == "":
		return "timed_out"
	case run.Summary().Error != nil && run.Summary().Error.Class == "budget_exceeded":
		return "budget_exceeded"
	default:
		return "failed"
	}
}
