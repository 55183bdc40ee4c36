package rehearsal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/flow"
)

// carryOut does what a decision does beyond the run's own log.
func (s *stage) carryOut(a *actor) {
	e := a.run.TakeEffects()
	for _, sub := range e.Children {
		s.begin(a, sub)
	}
	for _, l := range e.Told {
		s.post(letter{at: s.now(), to: l.To, told: flow.Told{Kind: l.Kind, Body: l.Body}})
	}
	for i := range e.Asked {
		s.answer(a, &e.Asked[i])
	}
	for _, w := range e.Withdrawn {
		s.letters = slices.DeleteFunc(s.letters, func(l letter) bool { return l.ask == w.ID })
	}
	for _, m := range e.Emitted {
		s.emitted(a, m)
	}
}

// begin starts a run that a step runs.
func (s *stage) begin(parent *actor, sub flow.Submission) {
	if err := s.open(sub, parent.prefix+sub.Parent.Step+"/"); err != nil { // its input was checked by who started it
		s.fail(err)
	}
}

// answer puts the answer of the person on its way that the script names for an approval.
func (s *stage) answer(a *actor, ask *flow.Ask) {
	path := a.prefix + ask.Step
	i := s.script.line("approval "+ask.Approval.String(), len(s.c.Approvals), func(i int) (string, int, bool) {
		l := &s.c.Approvals[i]
		return l.pointer, l.Times, matches(l.Step, path) && (l.About == "" || l.About == ask.About)
	})
	if i == noLine {
		return
	}
	l := &s.c.Approvals[i]
	body := flow.Answered{Approval: ask.Approval, Choice: l.Choice, Form: l.Form, Reason: l.Reason, By: l.By}
	if body.Choice == "" {
		body.Choice = ask.Choices[0]
	}
	if !slices.Contains(ask.Choices, body.Choice) {
		s.script.miss(l.pointer+"/choice", fmt.Sprintf("step %s does not offer this choice", path), strings.Join(ask.Choices, ", "), body.Choice)
		return
	}
	if body.Form == nil {
		body.Form = ask.Initial
	}
	s.post(letter{at: s.after(l.After), to: a.run.ID, told: told(flow.ToldApproval, body), ask: ask.Approval})
}

// emitted passes an event on to whoever may wait for a signal of its name.
func (s *stage) emitted(from *actor, m flow.Emitted) {
	signal := told(flow.ToldSignal, flow.Signal{ID: m.ID, Name: m.Name, Data: m.Data})
	for _, a := range s.actors {
		if a != from && slices.Contains(a.run.Workflow().Signals, m.Name) {
			s.post(letter{at: s.now(), to: a.run.ID, told: signal})
		}
	}
}
