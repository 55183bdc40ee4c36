package rehearsal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// send puts on its way what the case says will come from outside.
func (s *stage) send(run uuid.UUID) {
	for i, l := range s.c.Signals {
		s.post(letter{at: s.after(l.After), told: told(flow.ToldSignal, flow.Signal{ID: fmt.Sprintf("signals/%d", i), Name: l.Name, Data: l.Data})})
	}
	for _, l := range s.c.Steer {
		s.post(letter{at: s.after(l.After), to: run, told: l.told()})
	}
}

func (s *stage) after(d span) time.Time { return s.now().Add(time.Duration(d)) }

// post puts a letter among those that are on their way: what comes at one time comes in the order it was sent.
func (s *stage) post(l letter) {
	s.sent++
	l.n = s.sent
	s.letters = append(s.letters, l)
	slices.SortFunc(s.letters, func(a, b letter) int { return cmp.Or(a.at.Compare(b.at), a.n-b.n) })
}

func told(kind string, body any) flow.Told {
	raw, err := json.Marshal(body)
	if err != nil { // only raw JSON that is none, and what is in a test file was read as JSON
		panic(fmt.Sprintf("rehearsal: write a message: %v", err))
	}
	return flow.Told{Kind: kind, Body: raw}
}

// told is the message that an operator's command sends.
func (l *steerLine) told() flow.Told {
	const actor = "rehearsal"
	switch l.Do {
	case "cancel":
		return told(flow.ToldCancel, flow.Cancelling{Reason: l.Reason, Actor: actor})
	case "resume":
		return told(flow.ToldResume, flow.Resume{Set: l.Set, Reason: l.Reason, Actor: actor})
	}
	return told(flow.ToldBudget, flow.BudgetRaise{Cost: dollars(l.USD), Tokens: l.Tokens, Reason: l.Reason, Actor: actor})
}

func dollars(usd float64) usage.Money { return usage.Money(math.Round(usd * float64(usage.USD))) }

// deliver hands a letter over.
func (s *stage) deliver(l letter) {
	if l.to != uuid.Nil {
		if a := s.byRun[l.to]; a != nil && s.allowed(a, l.told) {
			s.decide(a, l.told)
		}
		return
	}
	var signal flow.Signal
	if err := json.Unmarshal(l.told.Body, &signal); err != nil {
		s.fail(fmt.Errorf("read a signal: %w", err))
		return
	}
	for _, a := range slices.Clone(s.actors) {
		if slices.Contains(a.run.Workflow().Signals, signal.Name) {
			s.decide(a, l.told)
		}
	}
}

// allowed: a resume that the service would refuse is a mistake of the test.
func (s *stage) allowed(a *actor, t flow.Told) bool {
	var resume flow.Resume
	if t.Kind != flow.ToldResume || json.Unmarshal(t.Body, &resume) != nil {
		return true
	}
	err := a.run.CanResume(resume.Set)
	if err != nil {
		s.fail(fmt.Errorf("resume: %w", err))
	}
	return err == nil
}
