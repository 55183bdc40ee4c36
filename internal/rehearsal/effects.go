package rehearsal

import (
	"slices"

	"github.com/fermata-run/fermata/internal/flow"
)

// carryOut does what a decision does beyond the run's own log.
func (s *stage) carryOut(a *actor) {
	taker, ok := any(a.run).(interface{ TakeEffects() flow.Effects })
	if !ok {
		return
	}
	e := taker.TakeEffects()
	for _, sub := range e.Children {
		s.begin(a, sub)
	}
	for _, l := range e.Told {
		s.post(letter{at: s.now(), to: l.To, told: flow.Told{Kind: l.Kind, Body: l.Body}})
	}
	for i := range e.Asked {
		s.answer(a, &e.Asked[i])
	}
	for _, id := range e.Withdrawn {
		s.letters = slices.DeleteFunc(s.letters, func(l letter) bool { return l.ask == id })
	}
	for _, m := range e.Emitted {
		s.emitted(a, m)
	}
}

// begin starts a run that a step runs. One that is refused has failed for its parent.
func (s *stage) begin(parent *actor, sub flow.Submission) {
	path := ""
	if sub.Parent != nil {
		path = sub.Parent.Step
	}
	err := s.open(sub, parent.prefix+path+"/")
	if err == nil || sub.Parent == nil {
		return
	}
	p := sub.Parent
	s.post(letter{at: s.now(), to: parent.run.ID, told: told(flow.ToldChild, flow.ChildEnded{
		Step: p.Step, Gen: p.Gen, Attempt: p.Attempt, Run: sub.ID, Status: flow.RunStatusFailed,
		Error: &flow.Failure{Class: "invalid_request", Message: err.Error()},
	})})
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
	if body.Choice == "" && len(ask.Choices) > 0 {
		body.Choice = ask.Choices[0]
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
