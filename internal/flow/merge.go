package flow

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// merge looks whether the members have said enough. One that has to wait for more is looked at again with the next
// member that is settled.
func (r *Run) merge(s *step) {
	m := s.def.Merge
	v, err := r.votes(s)
	if err != nil {
		r.failExpression(s, "by", err)
		return
	}
	switch m.Strategy {
	case workflow.StrategyFirst:
		r.takeFirst(s, v)
	case workflow.StrategyMajority:
		r.takeMajority(s, v)
	case workflow.StrategyConsensus:
		r.takeConsensus(s, v)
	case workflow.StrategyCollect:
		if r.enough(s, v) {
			r.emit(KindStepSucceeded, s, &Succeeded{Assembled: true, Without: v.silent})
		}
	case workflow.StrategyJudge:
		if r.enough(s, v) {
			r.startAttempt(s)
		}
	}
	if s.def.When != nil && s.status == StepStatusPending { // it goes on waiting, and its condition is not asked again
		r.emit(KindStepStarted, s, &Started{})
	}
}

// votes are what the members of a merge have said so far.
type votes struct {
	answers []vote
	silent  []string // settled without an answer
	pending int
	total   int
}

// vote is the answer of one member.
type vote struct {
	step       *step
	value      any // what is compared
	confidence float64
}

func (r *Run) votes(s *step) (votes, error) {
	v := votes{total: len(s.def.Merge.Of)}
	for _, slot := range s.def.Merge.Of {
		member := &s.frame.steps[slot]
		switch {
		case !member.status.Settled():
			v.pending++
		case member.status == StepStatusSucceeded:
			answer := vote{step: member, value: member.outputValue(), confidence: surestConfidence}
			if member.last.Confidence != nil {
				answer.confidence = *member.last.Confidence
			}
			if by := s.def.Merge.By; by != nil {
				scope := r.scope(s.frame)
				scope.Extra = map[string]any{"output": answer.value}
				var err error
				if answer.value, err = by.Eval(scope); err != nil {
					return v, fmt.Errorf("of %s: %w", member.path(), err)
				}
			}
			v.answers = append(v.answers, answer)
		default:
			v.silent = append(v.silent, member.def.ID)
		}
	}
	return v, nil
}

// surestConfidence is that of an answer that does not say how sure it is.
const surestConfidence = 100

// takeFirst takes the first success.
func (r *Run) takeFirst(s *step, v votes) {
	if len(v.answers) == 0 {
		if v.pending == 0 {
			r.noQuorum(s, v, nil, "no member succeeded")
		}
		return
	}
	first := v.answers[0]
	for _, a := range v.answers {
		if a.step.endSeq < first.step.endSeq {
			first = a
		}
	}
	r.elect(s, v, []vote{first})
}

// takeMajority takes the commonest value as soon as nothing can change it, or the quorum is reached.
func (r *Run) takeMajority(s *step, v votes) {
	best := commonest(v.answers)
	switch quorum := s.def.Merge.Quorum; {
	case quorum > 0 && len(best) >= quorum, quorum == 0 && 2*len(best) > v.total:
		r.elect(s, v, best)
	case v.pending > 0:
	case quorum == 0 && 2*len(best) > len(v.answers):
		r.elect(s, v, best)
	case quorum > 0:
		r.noQuorum(s, v, best, fmt.Sprintf("%d equal answers of %d; the quorum is %d", len(best), len(v.answers), quorum))
	default:
		r.noQuorum(s, v, best, fmt.Sprintf("%d equal answers of %d are no majority", len(best), len(v.answers)))
	}
}

// takeConsensus needs all answers to be equal.
func (r *Run) takeConsensus(s *step, v votes) {
	if !r.enough(s, v) {
		return
	}
	if best := commonest(v.answers); len(best) < len(v.answers) {
		r.noQuorum(s, v, best, fmt.Sprintf("%d of %d answers agree; all have to", len(best), len(v.answers)))
	} else {
		r.elect(s, v, best)
	}
}

// enough fails a merge that has fewer answers than it needs; all members are settled.
func (r *Run) enough(s *step, v votes) bool {
	need := max(s.def.Merge.Quorum, 1)
	if len(v.answers) < need {
		r.noQuorum(s, v, nil, fmt.Sprintf("%d of %d members succeeded; %d are needed", len(v.answers), v.total, need))
		return false
	}
	return true
}

// commonest is the largest group of equal values; of those as large, the one that stands first.
func commonest(answers []vote) []vote {
	var best []vote
	var groups [][]vote
	for _, a := range answers {
		at := slices.IndexFunc(groups, func(g []vote) bool { return equal(g[0].value, a.value) })
		if at < 0 {
			at, groups = len(groups), append(groups, nil)
		}
		groups[at] = append(groups[at], a)
	}
	for _, group := range groups {
		if len(group) > len(best) {
			best = group
		}
	}
	return best
}

// equal: two JSON values are the same. 1 and 1.0 are, as in an expression.
func equal(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, equal)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case int64:
		if y, ok := b.(float64); ok {
			return float64(x) == y
		}
	case float64:
		if y, ok := b.(int64); ok {
			return x == float64(y)
		}
	}
	return reflect.DeepEqual(a, b)
}

// winner is the most confident of a group.
func winner(group []vote) *step {
	best := group[0]
	for _, a := range group {
		if a.confidence > best.confidence {
			best = a
		}
	}
	return best.step
}

// elect settles a merge with the output of the most confident of those that agree. Who has not answered is not waited for.
func (r *Run) elect(s *step, v votes, group []vote) {
	agreement := float64(len(group)) / float64(len(v.answers))
	b := &Succeeded{Assembled: true, Winner: winner(group).def.ID, Agreement: &agreement}
	agreed := map[*step]bool{}
	for _, a := range group {
		agreed[a.step] = true
	}
	for _, a := range v.answers {
		if !agreed[a.step] && s.def.Merge.Strategy != workflow.StrategyFirst {
			b.Dissent = append(b.Dissent, a.step.def.ID)
		}
	}
	r.emit(KindStepSucceeded, s, b)
	for _, slot := range s.def.Merge.Of {
		if member := &s.frame.steps[slot]; !member.isAwaited() {
			r.dismiss(member)
		}
	}
}

// isAwaited reports whether a merge that is not settled counts on the step.
func (s *step) isAwaited() bool {
	return slices.ContainsFunc(s.def.Dependants, func(slot int) bool {
		m := &s.frame.steps[slot]
		return m.def.Merge != nil && !m.status.Settled() && slices.Contains(m.def.Merge.Of, s.def.Slot)
	})
}

// dismiss ends a member that nobody waits for any more.
func (r *Run) dismiss(s *step) {
	switch {
	case s.status.Settled():
	case s.status == StepStatusPending:
		r.emit(KindStepSkipped, s, &Skipped{Reason: SkippedMerge})
	default:
		r.cutInside(s, "merge")
		if !s.status.Settled() {
			r.cutOff(s, false, &Cancelled{Reason: "merge"})
		}
	}
}

// noQuorum fails a merge; the most confident answer of the largest group is what somebody may accept all the same.
func (r *Run) noQuorum(s *step, v votes, best []vote, why string) {
	b := &Failed{Failure: Failure{Class: classNoQuorum, Message: why}}
	if len(best) > 0 {
		b.Refused = winner(best).output()
	}
	r.fail(s, b)
}

// candidates are what a judge reads.
func (s *step) candidates() json.RawMessage {
	type candidate struct {
		Step       string          `json:"step"`
		Output     json.RawMessage `json:"output"`
		Confidence *float64        `json:"confidence,omitempty"`
	}
	var list []candidate
	for _, slot := range s.def.Merge.Of {
		if member := &s.frame.steps[slot]; member.status == StepStatusSucceeded {
			list = append(list, candidate{member.def.ID, member.output(), member.last.Confidence})
		}
	}
	raw, err := json.Marshal(map[string]any{"candidates": list})
	if err != nil { // outputs are JSON
		panic(fmt.Sprintf("flow: candidates of %s: %v", s.path(), err))
	}
	return raw
}
