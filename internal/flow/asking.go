package flow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/workflow"
)

// beginApproval asks a person.
func (r *Run) beginApproval(s *step) {
	a, scope := s.def.Approval, r.scope(s.frame)
	asked := &Asked{About: AboutApproval, Choices: a.Choices, Assignees: a.Assignees}
	if len(asked.Choices) == 0 {
		asked.Choices = []string{ChoiceApprove, ChoiceReject}
	}
	var err error
	if asked.Title, err = a.Title.Text(scope); err != nil {
		r.failExpression(s, "title", err)
		return
	}
	if asked.Show, err = rendered(a.Show, scope); err != nil {
		r.failExpression(s, "show", err)
		return
	}
	if asked.Initial, err = rendered(a.Initial, scope); err != nil {
		r.failExpression(s, "initial", err)
		return
	}
	if a.Form != nil {
		asked.Form = a.Form.Raw
	}
	r.ask(s, asked, a.Expires, &Waiting{})
}

// The choices of an approval that names none of its own.
const (
	ChoiceApprove = "approve"
	ChoiceReject  = "reject"
)

// rendered is what an optional template gives, within the limit of what people are shown.
func rendered(t *workflow.Template, scope *workflow.Scope) (json.RawMessage, error) {
	if t == nil {
		return nil, nil
	}
	raw, err := t.Render(scope)
	if err == nil {
		err = checkOutput(raw)
	}
	return raw, err
}

// ask lets a step wait for a person.
func (r *Run) ask(s *step, asked *Asked, expires time.Duration, w *Waiting) {
	asked.Approval = r.derived(s, "approval/"+asked.About+"/"+strconv.Itoa(int(r.seq)))
	w.For, w.Asked = WaitingApproval, asked
	if expires > 0 {
		w.Until = r.until(expires + expiryGrace)
	}
	r.wait(s, w)
}

// derived makes an id of the time and of what it is for: the rules know no randomness, and ids are ordered by time.
func (r *Run) derived(s *step, what string) uuid.UUID {
	mac := hmac.New(sha256.New, r.ID[:])
	fmt.Fprintf(mac, "%s/%d/%d/%s", s.path(), s.gen, s.attempt, what)
	var id uuid.UUID
	copy(id[:], mac.Sum(nil))
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(r.now.UnixMilli())) //nolint:gosec // after 1970
	copy(id[:6], ms[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80 // version 7 (RFC 9562)
	return id
}

// askPerson puts an agent's question to a person: nobody else was named to answer it.
func (r *Run) askPerson(s *step, o *Outcome) {
	q := o.Question
	if q == nil || !r.mayGoOn(s) {
		r.fail(s, &Failed{Failure: *o.Failure, Calls: o.Calls})
		return
	}
	choices := q.Options
	if len(choices) == 0 || len(choices) > choicesMax || slices.ContainsFunc(choices, isNoChoice) {
		choices = []string{ChoiceAnswer}
	}
	show, err := json.Marshal(q)
	if err != nil {
		show = nil
	}
	r.ask(s, &Asked{
		About: AboutDecision, Title: clipped(q.Question), Show: show, Choices: distinct(choices),
		Form: json.RawMessage(`{"type":"object","properties":{"answer":{"type":"string"}}}`),
	}, 0, &Waiting{Calls: o.Calls})
}

// isNoChoice: nobody could name such an option as a choice; it is shown, and the answer is given in words.
func isNoChoice(option string) bool {
	return strings.TrimSpace(option) == "" || len(option) > workflow.ChoiceBytesMax || strings.ContainsRune(option, 0)
}

// ChoiceAnswer is the choice where an agent's question has no options that can be chosen: the answer stands in the form, or in the reason.
const ChoiceAnswer = "answer"

const choicesMax = 20

func distinct(list []string) []string {
	var once []string
	for _, x := range list {
		if !slices.Contains(once, x) {
			once = append(once, x)
		}
	}
	return once
}

// askAboutFailure lets a person decide what becomes of a failure.
func (r *Run) askAboutFailure(s *step) {
	e := s.escalation()
	var choices []string
	if e.Refused != nil {
		choices = append(choices, DecisionAccept)
	}
	choices = append(choices, DecisionReplace)
	if s.canRedo() {
		choices = append(choices, DecisionRedo)
	}
	show, err := json.Marshal(e)
	if err != nil {
		show = nil
	}
	form := `{"type":"object","properties":{"output":{},"notes":{"type":"string"}}}`
	if contract := s.contract(); contract.Schema != nil {
		form = `{"type":"object","properties":{"output":` + string(contract.Schema.Raw) + `,"notes":{"type":"string"}}}`
	}
	r.ask(s, &Asked{
		About: AboutEscalation, Title: s.path() + " failed: " + e.Failure.Class + ": " + clipped(e.Failure.Message),
		Show: show, Form: json.RawMessage(form), Choices: append(choices, DecisionFail),
	}, 0, &Waiting{})
}

const titleBytesMax = 200

func clipped(s string) string {
	if len(s) <= titleBytesMax {
		return s
	}
	return Preview(json.RawMessage(s))
}

// contract is what an output of the step has to be.
func (s *step) contract() workflow.Contract {
	switch {
	case s.def.Tool != nil:
		return s.def.Tool.Output
	case s.worker() != nil && s.def.Plan == nil:
		return s.worker().Output
	}
	return workflow.Contract{}
}

func (r *Run) applyAnswered(e Event, s *step, b *Answered) {
	if s.status != StepStatusWaiting || s.waits.Asked == nil {
		r.broken = fmt.Errorf("step %s has asked nobody", s.path())
		return
	}
	about := s.waits.Asked.About
	s.answer = b
	r.leaveWork(s)
	if about != AboutDecision {
		r.moveStep(s, StepStatusRunning)
		s.waits = nil
		return
	}
	r.moveStep(s, StepStatusRetrying)
	s.turns = append(s.turns, Turn{Who: TurnPerson, Reply: b.text()})
	s.held, s.retryAt, s.waits = HeldDecision, e.At, nil
	r.retrying = append(r.retrying, s)
}

// TurnPerson is who speaks in a turn that a person's answer has made.
const TurnPerson = "person"

// text is the answer as an agent is told it.
func (b *Answered) text() string {
	var form struct{ Answer string }
	_ = json.Unmarshal(b.Form, &form) //nolint:errcheck // then there is none
	switch {
	case form.Answer != "":
		return form.Answer
	case b.Choice != ChoiceAnswer && b.Reason != "":
		return b.Choice + ": " + b.Reason
	case b.Choice != ChoiceAnswer:
		return b.Choice
	}
	return b.Reason
}

// toldApproval takes a person's answer.
func (r *Run) toldApproval(body json.RawMessage) {
	var b Answered
	if json.Unmarshal(body, &b) != nil || r.status.Ended() {
		return
	}
	at := slices.IndexFunc(r.waiting, func(s *step) bool { return s.waits.Asked != nil && s.waits.Asked.Approval == b.Approval })
	if at < 0 {
		return
	}
	s := r.waiting[at]
	about := s.waits.Asked.About
	r.emit(KindApprovalAnswered, s, &b)
	switch about {
	case AboutDecision: // the attempt goes on at once
		s.queued = true
		r.ready = append(r.ready, todo{step: s})
	case AboutApproval:
		r.approved(s, b)
	case AboutPlan:
		if b.Choice == ChoiceApprove {
			r.startPlan(s)
		} else {
			r.fail(s, &Failed{Failure: rejected(b)})
		}
	case AboutEscalation:
		var form struct {
			Output json.RawMessage
			Notes  string
		}
		_ = json.Unmarshal(b.Form, &form) //nolint:errcheck // then there is none
		d := Decision{Decision: b.Choice, Output: form.Output, Notes: form.Notes}
		if d.Notes == "" {
			d.Notes = b.Reason
		}
		if d.Output == nil {
			d.Output = null
		}
		r.decided(s, d, nil)
	}
}

func (r *Run) approved(s *step, b Answered) {
	if len(s.def.Approval.Choices) == 0 && b.Choice == ChoiceReject {
		r.fail(s, &Failed{Failure: rejected(b)})
		return
	}
	output := b.Form
	if output == nil {
		output = null
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output})
}

func rejected(b Answered) Failure {
	message := "rejected"
	if b.By != "" {
		message += " by " + b.By
	}
	if b.Reason != "" {
		message += ": " + b.Reason
	}
	return Failure{Class: classRejected, Message: message}
}
