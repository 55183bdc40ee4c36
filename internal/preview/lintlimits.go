package preview

import (
	"fmt"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// noBudget fires where something of the workflow calls a model and nothing bounds what a run may spend.
func (l *linter) noBudget() {
	if l.w.Budget == nil && slices.ContainsFunc(l.w.Steps, paying) {
		l.top("", "budget: {usd: 1}", "nothing bounds what a run may spend: one that goes astray goes on until its time is over")
	}
}

// noTimeout fires where the definition leaves the time of a run to the service, though it has work that takes time; and
// at each approval without expires and each wait for a signal without timeout: who forgets them keeps the run until its
// own time is over, and then it fails as a whole, with nothing to catch it.
func (l *linter) noTimeout() {
	_, written := l.w.Places["/timeout"]
	if !written && slices.ContainsFunc(l.w.Steps, func(s *workflow.Step) bool { return paying(s) || acting(s) || s.Tool != nil }) {
		l.top("", "timeout: 30m", "nothing says how long a run may take: one that hangs is noticed after %s, the service's limit", hours(workflow.TimeoutDefault))
	}
	for _, s := range l.w.Steps {
		switch {
		case s.Approval != nil && s.Approval.Expires == 0:
			l.step(s, "expires: 24h", "%s waits for a person without end: if nobody answers, the whole run times out instead of this step", s.ID)
		case s.Wait != nil && s.Wait.Signal != nil && s.Wait.Signal.Timeout == 0:
			l.step(s, "timeout: 1h", "%s waits for the signal %s without end: if it never comes, the whole run times out instead of this step", s.ID, s.Wait.Signal.Name)
		}
	}
}

func hours(d time.Duration) string { return fmt.Sprintf("%g hours", d.Hours()) }

// retriesMax is how often the same is tried again before somebody else should decide.
const retriesMax = 3

// unboundedRetry fires where the same is asked more than three times over: retry.max_attempts above 4 (the first attempt
// is none of the three), retries of a chain's entry above 3, and loops of more than 3 rounds with calls of models in
// them. Loops in which something is waited for (a wait, a person) are a rhythm, not a retry; loops of tools alone poll,
// and cost nothing.
func (l *linter) unboundedRetry() {
	for _, name := range sortedKeys(l.w.Chains) {
		l.entryRetries(l.w.Chains[name], func(e workflow.ChainEntry) {
			l.top("/chains/"+name, "retries: 3", "%s is asked %d times before the chain %s goes on: what failed four times fails a fifth time", e.Model, e.Retries+1, name)
		})
	}
	for _, s := range l.w.Steps {
		if s.Retry.MaxAttempts > retriesMax+1 {
			l.step(s, "retry: {max_attempts: 4}", "%s is tried %d times: after %d retries the cause has to change, not the attempt; let on_error escalate", s.ID, s.Retry.MaxAttempts, retriesMax)
		}
		if s.Agent != nil && s.Agent.Agent.Chain.Name == "" {
			l.entryRetries(&s.Agent.Agent.Chain, func(e workflow.ChainEntry) {
				l.step(s, "retries: 3", "%s is asked %d times by %s before another model is: what failed four times fails a fifth time", e.Model, e.Retries+1, s.ID)
			})
		}
		waits := func(s *workflow.Step) bool { return s.Wait != nil || s.Approval != nil }
		if s.Loop != nil && s.Loop.MaxIterations > retriesMax && l.anyInside(s, paying) && !l.anyInside(s, waits) {
			l.step(s, "max_iterations: 3", "%s goes round up to %d times: what is not good after %d rounds is for somebody else to decide; escalate, or take the best with best_by", s.ID, s.Loop.MaxIterations, retriesMax)
		}
	}
}

func (l *linter) entryRetries(c *workflow.Chain, warn func(workflow.ChainEntry)) {
	for _, e := range c.Entries {
		if e.Retries > retriesMax {
			warn(e)
		}
	}
}

// unsafeWithoutApproval fires at each tool with side_effect unsafe in the main steps that no approval comes before, and
// at each plan that may use tools and needs no approval: what cannot be taken back should not hang on what a model said.
// Steps after a failure or at the end act in an emergency and ask nobody.
func (l *linter) unsafeWithoutApproval() {
	for _, s := range l.w.Steps {
		switch {
		case s.Section != workflow.SectionMain:
		case s.Tool != nil && s.Tool.SideEffect == workflow.SideEffectUnsafe && !l.approved(s):
			l.step(s, fmt.Sprintf("- {id: %s_ok, approval: {title: \"Go on with %s?\", expires: 24h}}\nneeds: [%[1]s_ok]", s.ID, s.ID),
				"%s does what cannot be taken back (%s is unsafe) and no person is asked before; or say side_effect: idempotent, if doing it twice is harmless", s.ID, s.Tool.Ref)
		case s.Plan != nil && len(s.Plan.Allow.Tools) > 0 && !s.Plan.NeedsOK:
			l.step(s, "approval: {when: estimate.tools.size() > 0}", "a model decides in %s which of the tools %s are used, and no person sees the plan", s.ID, names(s.Plan.Allow.Tools))
		}
	}
}

// approved reports whether an approval is settled before the step begins.
func (l *linter) approved(s *workflow.Step) bool {
	before := l.before(s)
	return slices.ContainsFunc(l.w.Steps, func(other *workflow.Step) bool { return other.Approval != nil && before.has(other.Index) })
}
