package workflow_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/workflow"
)

// dumpLadder writes what a run may go down to, who decides, and what it waits for.
func dumpLadder(b *strings.Builder, w *workflow.Workflow) {
	if w.Orchestrator != nil {
		fmt.Fprintf(b, "orchestrator %s\n", w.Orchestrator.Name)
	}
	for i, r := range w.Degrade {
		fmt.Fprintf(b, "level %d %s omit=%s %q\n", i+1, r.Name, paths(w, r.Omit), r.Note)
		for _, index := range slices.Sorted(maps.Keys(r.Set)) {
			set := r.Set[index]
			fmt.Fprintf(b, "  set %s%s\n", w.Steps[index].Path, instead(set.Agent, set.Chain, set.Value))
		}
	}
	if len(w.Signals) > 0 {
		fmt.Fprintf(b, "signals %v\n", w.Signals)
	}
	for _, ref := range slices.Sorted(maps.Keys(w.Children)) {
		fmt.Fprintf(b, "child %s is %s\n", ref, w.Children[ref].Name)
	}
}

func paths(w *workflow.Workflow, indexes []int) string {
	var list []string
	for _, i := range indexes {
		list = append(list, w.Steps[i].Path)
	}
	return "[" + strings.Join(list, " ") + "]"
}

func instead(a *workflow.Agent, k *workflow.Chain, t *workflow.Template) string {
	switch {
	case a != nil:
		return " agent " + describe(a) + gate(a.Gate)
	case k != nil:
		return " chain " + k.Name + describeChain(*k)
	case t != nil:
		return " value " + string(t.Source)
	}
	return ""
}

// dumpCare writes what is checked of a step, and what becomes of its failures.
func dumpCare(b *strings.Builder, indent string, s *workflow.Step) {
	if s.Gate != nil {
		fmt.Fprintf(b, "%sgate%s\n", indent, gate(s.Gate))
	}
	for _, e := range s.OnError {
		fmt.Fprintf(b, "%son_error %v %s%s", indent, e.Classes, e.Do, instead(e.Agent, e.Chain, e.Value))
		if e.To != nil {
			fmt.Fprintf(b, " to=%s", e.To.Name)
		}
		if e.Level > 0 {
			fmt.Fprintf(b, " level=%d", e.Level)
		}
		b.WriteString("\n")
	}
	if k := s.Budget; k != nil {
		fmt.Fprintf(b, "%sbudget %s share=%v\n", indent, k.Cost, k.Share)
	}
}

func gate(g *workflow.Gate) string {
	if g == nil {
		return ""
	}
	text := fmt.Sprintf(" revise=%d", g.Revise)
	for _, k := range g.Checks {
		if k.Assert != nil {
			text += fmt.Sprintf(" assert %q %q", k.Assert.Source, k.Message)
		} else {
			text += fmt.Sprintf(" judge %s %v min_score=%v different_family=%v", k.Judge.Name, k.Rubric, k.MinScore, k.DifferentFamily)
		}
	}
	return text
}

// dumpWaiting writes the steps that wait: for a run, a person, a time or a signal.
func dumpWaiting(b *strings.Builder, indent string, s *workflow.Step) {
	template := func(what string, t *workflow.Template) {
		if t != nil {
			fmt.Fprintf(b, "%s%s %s\n", indent, what, t.Source)
		}
	}
	switch {
	case s.Plan != nil:
		p := s.Plan
		fmt.Fprintf(b, "%splanner %s\n", indent, describe(&p.Planner))
		template("goal", p.Goal)
		template("input", p.Input)
		template("output", p.Output)
		fmt.Fprintf(b, "%sallow %+v approval=%v when=%s replan=%d\n", indent, p.Allow, p.NeedsOK, source(p.OKWhen), p.Replan)
		for _, part := range []map[string]string{texts(p.Vocabulary.Agents), texts(p.Vocabulary.Contracts), texts(p.Vocabulary.Chains)} {
			fmt.Fprintf(b, "%svocabulary %v\n", indent, part)
		}
	case s.Workflow != nil:
		fmt.Fprintf(b, "%sworkflow %q %v\n", indent, s.Workflow.Ref, s.Workflow.Refs)
		template("chosen by", s.Workflow.By)
		template("input", s.Workflow.Input)
	case s.Approval != nil:
		a := s.Approval
		fmt.Fprintf(b, "%sapproval choices=%q assignees=%q expires=%s\n", indent, a.Choices, a.Assignees, a.Expires)
		template("title", a.Title)
		template("show", a.Show)
		if a.Form != nil {
			fmt.Fprintf(b, "%sform %s\n", indent, a.Form.Raw)
		}
		template("initial", a.Initial)
	case s.Wait != nil:
		template("for", s.Wait.For)
		if s.Wait.At != nil {
			fmt.Fprintf(b, "%sat %s\n", indent, source(s.Wait.At))
		}
		if k := s.Wait.Signal; k != nil {
			fmt.Fprintf(b, "%ssignal %s match=%s timeout=%s\n", indent, k.Name, source(k.Match), k.Timeout)
		}
	case s.Emit != nil:
		fmt.Fprintf(b, "%semit %s\n", indent, s.Emit.Event)
		template("data", s.Emit.Data)
	}
}

func texts[V ~[]byte](parts map[string]V) map[string]string {
	all := map[string]string{}
	for name, raw := range parts {
		all[name] = string(raw)
	}
	return all
}
