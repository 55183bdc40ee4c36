package rehearsal

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Failure is one thing that went otherwise than a case expects.
type Failure struct {
	Pointer  string `json:"pointer"` // into the test file
	Line     int    `json:"line"`
	Col      int    `json:"col"`
	What     string `json:"what"` // a sentence
	Expected string `json:"expected,omitempty"`
	Got      string `json:"got,omitempty"`
}

// verdict gathers what is wrong with what came of a case.
type verdict struct {
	c        *Case
	a        *Account
	calls    map[string]callCount
	stuck    []vain
	failures []Failure
}

func (v *verdict) add(pointer, what, expected, got string) {
	v.failures = append(v.failures, Failure{Pointer: pointer, What: what, Expected: expected, Got: got})
}

// check holds what came of the case against what it expects.
func (v *verdict) check() {
	e, at := &v.c.Expect, v.c.pointer+"/expect"
	v.status(e, at)
	if e.Error != nil {
		v.runError(e.Error, at+"/error")
	}
	if len(e.Output) > 0 {
		v.value(at+"/output", "the output", e.Output, v.a.Output)
	}
	for _, glob := range slices.Sorted(maps.Keys(e.Steps)) {
		v.steps(at+"/steps/"+escaped(glob), glob, e.Steps[glob])
	}
	for i := 1; i < len(e.Order); i++ {
		v.order(fmt.Sprintf("%s/order/%d", at, i), e.Order[i-1], e.Order[i])
	}
	for _, name := range slices.Sorted(maps.Keys(e.Calls)) {
		v.callsOf(at+"/calls/"+escaped(name), name, e.Calls[name])
	}
	for i, source := range e.Assert {
		v.assert(fmt.Sprintf("%s/assert/%d", at, i), source, assertRoots, v.a.values())
	}
	for i, glob := range e.Waiting {
		if !slices.ContainsFunc(v.stuck, func(w vain) bool { return matches(glob, w.step) }) {
			v.add(fmt.Sprintf("%s/waiting/%d", at, i), "no such step waits at the end", glob, listed(v.waiting()))
		}
	}
}

func (v *verdict) waiting() []string {
	var list []string
	for _, w := range v.stuck {
		list = append(list, w.step)
	}
	return list
}

// status: a case that says nothing of it expects success, unless it expects an error. Who waits for what never comes fails,
// unless that is expected.
func (v *verdict) status(e *expect, at string) {
	want := e.Status
	switch {
	case want != "":
		at += "/status"
	case e.Error != nil:
		want = "failed"
	case len(e.Waiting) > 0:
		want = "waiting"
	default:
		want = "succeeded"
	}
	if v.a.Status == want {
		return
	}
	got := v.a.Status
	if f := v.a.Error; f != nil {
		got = fmt.Sprintf("%s: %s at step %q: %s", got, f.Class, f.Step, f.Message)
	}
	v.add(at, "the run ended otherwise", want, got)
	for _, w := range v.stuck {
		v.add(v.c.pointer, w.why, "", "")
	}
}

func (v *verdict) runError(e *errorExpect, at string) {
	f := v.a.Error
	if f == nil {
		v.add(at, "the run has no error", e.Class, "")
		return
	}
	if e.Class != "" && e.Class != f.Class {
		v.add(at+"/class", "the run failed with another class", e.Class, f.Class+": "+f.Message)
	}
	if !matches(e.Step, f.Step) {
		v.add(at+"/step", "another step made the run fail", e.Step, f.Step)
	}
	if !strings.Contains(f.Message, e.Message) {
		v.add(at+"/message", "the error says something else", e.Message, f.Message)
	}
}

// value holds an expected value against the one that is there: given names are equal, others may be there.
func (v *verdict) value(at, what string, want, got json.RawMessage) {
	v.within(at, "", what, decoded(want), present(got))
}

// within compares what stands at a place of the value.
func (v *verdict) within(base, place, what string, want, got any) {
	at := base + place
	if text, ok := want.(string); ok {
		if source, ok := condition(text); ok {
			v.assert(at, source, valueRoots, map[string]any{"value": orNull(got)})
			return
		}
	}
	switch x := want.(type) {
	case map[string]any:
		if y, ok := got.(map[string]any); ok {
			for _, name := range slices.Sorted(maps.Keys(x)) {
				v.within(base, place+"/"+escaped(name), what, x[name], member(y, name))
			}
			return
		}
	case []any:
		if y, ok := got.([]any); ok && len(x) == len(y) {
			for i := range x {
				v.within(base, fmt.Sprintf("%s/%d", place, i), what, x[i], y[i])
			}
			return
		}
	}
	if !equal(want, got) {
		if place != "" {
			place = " at " + place
		}
		v.add(at, what+" differs"+place, string(rawOf(want)), shown(got))
	}
}

func orNull(v any) any {
	if v == (absent{}) {
		return nil
	}
	return v
}

func shown(v any) string {
	if v == (absent{}) {
		return "nothing"
	}
	return string(rawOf(v))
}

// assert evaluates a condition.
func (v *verdict) assert(at, source string, roots []string, values map[string]any) {
	e, err := workflow.ParseExpr(source, roots...)
	if err != nil { // it was read with the file
		v.add(at, err.Error(), "", "")
		return
	}
	switch ok, err := e.Bool(&workflow.Scope{Extra: values}); {
	case err != nil:
		v.add(at, "the condition cannot be evaluated: "+err.Error(), e.Source, v.known(err, values))
	case !ok:
		v.add(at, "the condition does not hold", e.Source, v.readBy(e.Source, values))
	}
}

// known names what there is where an expression reads something that is not.
func (v *verdict) known(err error, values map[string]any) string {
	if !strings.Contains(err.Error(), "no such key") || values["steps"] == nil {
		return ""
	}
	return "steps: " + listed(v.paths())
}

// readBy shows the values that an expression may have read.
func (v *verdict) readBy(source string, values map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name != "steps" && strings.Contains(source, name) {
			parts = append(parts, name+" = "+clip(shown(values[name]), noteMax))
		}
	}
	for i := range v.a.Steps {
		s := &v.a.Steps[i]
		if _, reads := values["steps"]; reads && strings.Contains(source, s.Path) {
			parts = append(parts, fmt.Sprintf("steps[%q] = %s", s.Path, clip(shown(s.values()), 2*noteMax)))
		}
	}
	return strings.Join(parts, "; ")
}

func (v *verdict) paths() []string {
	paths := make([]string, len(v.a.Steps))
	for i := range v.a.Steps {
		paths[i] = v.a.Steps[i].Path
	}
	return paths
}

// found lists the steps that a glob fits.
func (v *verdict) found(glob string) []*StepAccount {
	var list []*StepAccount
	for i := range v.a.Steps {
		if matches(glob, v.a.Steps[i].Path) {
			list = append(list, &v.a.Steps[i])
		}
	}
	return list
}

func (v *verdict) steps(at, glob string, e stepExpect) {
	list := v.found(glob)
	if e.Count != nil && len(list) != *e.Count {
		v.add(at+"/count", "another number of steps fits "+glob, fmt.Sprint(*e.Count), fmt.Sprint(len(list)))
	}
	if len(list) == 0 && e.Count == nil {
		v.add(at, "there is no such step"+v.meant(glob), glob, listed(v.paths()))
	}
	for _, s := range list {
		v.step(at, s, e)
	}
}

// meant names the step that was most likely meant.
func (v *verdict) meant(name string) string {
	if near := fault.Nearest(name, v.paths()); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

func (v *verdict) step(at string, s *StepAccount, e stepExpect) {
	what := "step " + s.Path
	if e.Status != "" && s.Status != e.Status {
		got := s.Status
		if s.Error != nil {
			got += ": " + s.Error.Class + ": " + s.Error.Message
		}
		v.add(at, what+" ended otherwise", e.Status, got)
	}
	if e.Attempts != nil && s.Attempts != *e.Attempts {
		v.add(at+"/attempts", what+" took another number of attempts", fmt.Sprint(*e.Attempts), fmt.Sprint(s.Attempts))
	}
	if !matches(e.Model, s.Model) {
		v.add(at+"/model", what+" was answered by another model", e.Model, s.Model)
	}
	if !matches(e.Agent, s.Agent) {
		v.add(at+"/agent", what+" was worked at by another agent", e.Agent, s.Agent)
	}
	if e.Error != "" && (s.Error == nil || s.Error.Class != e.Error) {
		got := "none"
		if s.Error != nil {
			got = s.Error.Class + ": " + s.Error.Message
		}
		v.add(at+"/error", what+" has another error", e.Error, got)
	}
	if len(e.Output) > 0 {
		v.value(at+"/output", "the output of "+what, e.Output, s.Output)
	}
}

// order: every step that fits the first was settled before any that fits the second one started.
func (v *verdict) order(at, before, after string) {
	first, second := v.found(before), v.found(after)
	for _, side := range []struct {
		glob string
		list []*StepAccount
	}{{before, first}, {after, second}} {
		if !slices.ContainsFunc(side.list, func(s *StepAccount) bool { return s.first > 0 }) {
			v.add(at, "no such step started"+v.meant(side.glob), before+" before "+after, "")
			return
		}
	}
	for _, a := range first {
		for _, b := range second {
			if a.first > 0 && b.first > 0 && (a.last == 0 || a.last > b.first) {
				v.add(at, "the order is another", a.Path+" is settled before "+b.Path+" starts", b.Path+" starts before "+a.Path+" is settled")
			}
		}
	}
}

// callsOf counts the requests of a step, or of an agent.
func (v *verdict) callsOf(at, name string, want int) {
	bySteps, byAgents := 0, 0
	for _, c := range v.calls {
		if matches(name, c.step) {
			bySteps += c.requests
		}
		if matches(name, c.agent) && c.agent != "" {
			byAgents += c.requests
		}
	}
	got, what := bySteps, "step "
	if len(v.found(name)) == 0 {
		got, what = byAgents, "agent "
	}
	if got != want {
		v.add(at, what+name+" made another number of requests to models", fmt.Sprint(want), fmt.Sprint(got))
	}
}

// listedMax bounds the names that a message lists.
const listedMax = 20

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if len(names) > listedMax {
		return strings.Join(names[:listedMax], ", ") + fmt.Sprintf(" and %d more", len(names)-listedMax)
	}
	return strings.Join(names, ", ")
}
