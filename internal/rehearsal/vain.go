package rehearsal

import (
	"fmt"

	"github.com/fermata-run/fermata/internal/flow"
)

// vain is a step that waits for what never comes.
type vain struct {
	step string
	why  string // a sentence, and what would help
}

// idleMax is how often a run without money may ask for it in vain before it is taken to wait for it.
const idleMax = 2

// waitsInVain lists what is waited for that never comes: nothing is at work, nothing is on its way, and no run has named a
// time but its end.
func (s *stage) waitsInVain() []vain {
	if s.c.WaitOut || len(s.letters) > 0 {
		return nil
	}
	var list []vain
	for _, a := range s.actors {
		switch {
		case a.run.Status().Ended():
			continue
		case len(a.hands) > 0:
			return nil
		}
		v := a.run.View()
		held := v.WaitingFor == flow.HeldBudget
		if a.idle++; !held {
			a.idle = 0
		}
		if held && a.idle <= idleMax || !held && a.run.Due().Before(v.CreatedAt.Add(a.run.Workflow().Timeout)) {
			return nil
		}
		for i := range v.Steps {
			if why := whyInVain(&v.Steps[i], a.prefix+v.Steps[i].Path); why != "" {
				list = append(list, vain{a.prefix + v.Steps[i].Path, why})
			}
		}
	}
	return list
}

func whyInVain(v *flow.StepView, path string) string {
	w := v.Waiting
	switch {
	case v.Status == flow.StepStatusRetrying && v.Held == flow.HeldBudget:
		return fmt.Sprintf("step %s waits for money: %s; raise the budget with steer: [{do: budget, usd: …}]", path, v.Refusal.Message)
	case v.Status != flow.StepStatusWaiting || w == nil || w.Until != nil:
		return ""
	case w.For == flow.WaitingSignal:
		return fmt.Sprintf("step %s waits for the signal %q: send it with signals: [{name: %s}]", path, w.Signal, w.Signal)
	case w.For == flow.WaitingApproval && w.Asked != nil:
		return fmt.Sprintf("step %s waits for a person (%s: %q, choices %v): answer with approvals: [{step: %s, choice: …}]", path, w.Asked.About, w.Asked.Title, w.Asked.Choices, path)
	case w.For == flow.WaitingChild: // what the run it started waits for is told
		return ""
	}
	return fmt.Sprintf("step %s waits for %s", path, w.For)
}
