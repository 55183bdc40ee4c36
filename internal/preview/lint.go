// Package preview says what a workflow would do before it runs: what speaks against it, what it would use, how its steps
// hang together. Pure: no context, clock, randomness or IO.
package preview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Warning is one anti-pattern found in a definition. It does not keep the workflow from running.
type Warning struct {
	Code    string            // stable: one of LintCodes
	Detail  string            // one sentence: what is there, and what it leads to
	Suggest string            // what mends it, in the syntax of the format
	Pos     workflow.Position // the step, agent, contract or chain it is about; no pointer: the definition
}

// LintIgnore is the label that silences rules: their codes with commas between them. Of a workflow it holds for all of
// it, of a step for that step and all inside.
const LintIgnore = "lint.ignore"

// lintShownMax bounds the warnings of one code: whoever reads twenty has understood.
const lintShownMax = 20

// rule finds one anti-pattern.
type rule struct {
	code string
	find func(*linter)
}

// rules are all of them. When each one fires stands at its function. None counts the repeated calls of a step: three
// attempts of three answers each, what a step has without a word, are nine already. The estimate says them (CallsMax).
var rules = []rule{
	{"monolith_agent", (*linter).monolithAgent},
	{"context_explosion", (*linter).contextExplosion},
	{"needless_sequence", (*linter).needlessSequence},
	{"unverified_output", (*linter).unverifiedOutput},
	{"self_review_only", (*linter).selfReviewOnly},
	{"same_family_review", (*linter).sameFamilyReview},
	{"unbounded_retry", (*linter).unboundedRetry},
	{"parallel_without_contract", (*linter).parallelWithoutContract},
	{"expensive_for_trivial", (*linter).expensiveForTrivial},
	{"grinder_decides", (*linter).grinderDecides},
	{"orchestrator_grinds", (*linter).orchestratorGrinds},
	{"two_orchestrators", (*linter).twoOrchestrators},
	{"needless_agent", (*linter).needlessAgent},
	{"no_budget", (*linter).noBudget},
	{"no_timeout", (*linter).noTimeout},
	{"unused_step", (*linter).unusedStep},
	{"unused_contract", (*linter).unusedContract},
	{"unsafe_without_approval", (*linter).unsafeWithoutApproval},
	{"unreachable", (*linter).unreachable},
	{"micromanaged_agent", (*linter).micromanagedAgent},
	{"session_marathon", (*linter).sessionMarathon},
	{"duplicate_read", (*linter).duplicateRead},
	{"no_summary", (*linter).noSummary},
	{"not_evaluated", (*linter).notEvaluated},
}

// LintCodes are the codes of all warnings there can be.
func LintCodes() []string {
	codes := make([]string, len(rules))
	for i, r := range rules {
		codes[i] = r.code
	}
	return codes
}

// Lint looks for anti-patterns in a workflow. The warnings stand in the order of the document. A model that the roster
// does not know is nothing that speaks against a workflow.
func Lint(w *workflow.Workflow, roster workflow.Roster) []Warning {
	l := newLinter(w, roster)
	ignored := ignoredCodes(w.Labels)
	for _, r := range rules {
		if !slices.Contains(ignored, r.code) {
			l.code, l.count = r.code, 0
			r.find(l)
			l.sayMore()
		}
	}
	slices.SortStableFunc(l.found, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return l.found
}

func ignoredCodes(labels map[string]string) []string {
	return strings.FieldsFunc(labels[LintIgnore], func(r rune) bool { return r == ',' || r == ' ' })
}

// silenced reports whether a label of the step, or of one around it, silences the rule that is asked.
func (l *linter) silenced(s *workflow.Step) bool {
	for ; s != nil; s = around(s) {
		if slices.Contains(ignoredCodes(s.Labels), l.code) {
			return true
		}
	}
	return false
}

// step warns of a step.
func (l *linter) step(s *workflow.Step, suggest, format string, args ...any) {
	if !l.silenced(s) {
		l.warn(s.Pos, suggest, format, args...)
	}
}

// top warns of the definition itself, or of what stands in it under a pointer such as /agents/writer.
func (l *linter) top(pointer, suggest, format string, args ...any) {
	at, ok := l.w.Places[pointer]
	if !ok {
		at = workflow.Position{Line: 1, Col: 1}
	}
	l.warn(at, suggest, format, args...)
}

// agent warns of an agent: where it is defined, or at the step that has it inline.
func (l *linter) agent(a *workflow.Agent, s *workflow.Step, suggest, format string, args ...any) {
	if _, ok := l.w.Places["/agents/"+a.Name]; !ok || s != nil && l.silenced(s) {
		l.step(s, suggest, format, args...)
		return
	}
	l.top("/agents/"+a.Name, suggest, format, args...)
}

func (l *linter) warn(at workflow.Position, suggest, format string, args ...any) {
	if l.count++; l.count <= lintShownMax {
		l.found = append(l.found, Warning{Code: l.code, Detail: fmt.Sprintf(format, args...), Suggest: suggest, Pos: at})
	}
}

// sayMore tells of the warnings that are not shown.
func (l *linter) sayMore() {
	if more := l.count - lintShownMax; more > 0 {
		l.found[len(l.found)-1].Detail += fmt.Sprintf(" (%d more like it)", more)
	}
}

// names writes some names for a sentence: a, b and c.
func names(list []string) string {
	const shown = 5
	if len(list) > shown {
		return strings.Join(list[:shown], ", ") + fmt.Sprintf(" and %d more", len(list)-shown)
	}
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
