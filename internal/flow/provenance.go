package flow

import "strings"

// provenanceMax is how many steps a result names one by one. Beyond it, those of items and iterations are told together:
// a line for each step of the definition and model.
const provenanceMax = 200

// provenance says of each agent step that succeeded who made its output.
func (r *Run) provenance() []Provenance {
	var list []Provenance
	for s := range r.each {
		if p, ok := s.provenance(); ok {
			list = append(list, p)
		}
	}
	if len(list) <= provenanceMax {
		return list
	}
	return gathered(list)
}

func (s *step) provenance() (Provenance, bool) {
	call, ok := s.answered()
	a := s.worker()
	byNoModel := s.last.ByHand || s.last.Instead == InsteadDegraded || s.last.Instead == InsteadFallback && s.duty != DutyFallback
	if a == nil || s.def.Plan != nil || s.status != StepStatusSucceeded || byNoModel || !ok {
		return Provenance{}, false
	}
	total := s.sum
	return Provenance{
		Step: s.path(), Agent: a.Name, Role: a.Role,
		Provider: call.Provider, Model: call.Model, Simulated: call.Simulated, Attempt: s.attempt,
		FallbackDepth: call.Depth, PromptHash: s.last.PromptHash, Repaired: s.last.Repaired, BelowGate: s.last.BelowGate,
		Cost: total.Cost, Unpriced: total.Unpriced > 0, Instead: s.last.Instead,
	}, true
}

// gathered makes one line of those that differ in the item or iteration only.
func gathered(list []Provenance) []Provenance {
	type key struct {
		step, model string
		depth       int
	}
	at := map[key]int{}
	var out []Provenance
	for _, p := range list {
		name := anyItem(p.Step)
		if name == p.Step {
			out = append(out, p)
			continue
		}
		k := key{name, p.Model, p.FallbackDepth}
		i, known := at[k]
		if !known {
			at[k] = len(out)
			p.Step, p.PromptHash, p.Count = name, "", 1
			out = append(out, p)
			continue
		}
		all := &out[i]
		all.Count++
		all.Cost += p.Cost
		all.Unpriced = all.Unpriced || p.Unpriced
		all.Repaired = all.Repaired || p.Repaired
		all.BelowGate = all.BelowGate || p.BelowGate
		all.Attempt = max(all.Attempt, p.Attempt)
	}
	return out
}

// anyItem is a path without the numbers of its items and iterations: build.*.make.
func anyItem(path Path) Path {
	parts := strings.Split(path, ".")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "*"
	}
	return strings.Join(parts, ".")
}

// unresolvedMax bounds what a result says was left open.
const unresolvedMax = 1_000

// unresolved is what agents could not settle, what merges did not take, what was skipped for an error, and what tools may
// or may not have done.
func (r *Run) unresolved() []Unresolved {
	var list []Unresolved
	for s := range r.each {
		if len(list) >= unresolvedMax {
			break
		}
		switch f := s.lastFailure(); {
		case s.status == StepStatusSkipped && s.skipped == SkippedError && f != nil: // else it stood in what was skipped
			list = append(list, Unresolved{Step: s.path(), Text: "skipped: " + f.Class + ": " + f.Message})
		case s.status == StepStatusFailed && f.Class == classOutcomeUnknown:
			list = append(list, Unresolved{Step: s.path(), Text: f.Class + ": " + f.Message})
		case s.status == StepStatusSucceeded:
			for _, text := range s.last.Unresolved {
				list = append(list, Unresolved{Step: s.path(), Text: text})
			}
			for _, id := range s.last.Dissent {
				list = append(list, Unresolved{Step: s.member(id).path(), Text: "dissents: " + Preview(s.member(id).output())})
			}
			if s.last.Child != nil {
				list = append(list, inChild(s, s.last.Child.Unresolved)...)
			}
		}
	}
	return list[:min(len(list), unresolvedMax)]
}

// inChild names what a run that the step started left open: the step, then its step.
func inChild(s *step, of []Unresolved) []Unresolved {
	var list []Unresolved
	for _, u := range of {
		list = append(list, Unresolved{Step: s.path() + "/" + u.Step, Text: u.Text})
	}
	return list
}
