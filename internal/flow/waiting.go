package flow

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/workflow"
)

// kept is a signal that nobody has taken.
type kept struct {
	seq int32 // of its signal_received
	Signal
}

// residence is how long a run stays in memory that waits for one of its own: most end soon.
const residence = 30 * time.Second

// expiryGrace is how much later than people are told an approval expires: an answer that was taken in time comes first.
const expiryGrace = 2 * time.Second

// due is when the run must be looked at if no message comes; nil: never.
func (w *Waiting) due(since, now time.Time) *time.Time {
	stays := since.Add(residence)
	if w.Child != nil && stays.After(now) && (w.Until == nil || stays.Before(*w.Until)) {
		return &stays
	}
	return w.Until
}

func (w *Waiting) isUp(now time.Time) bool { return w.Until != nil && !w.Until.After(now) }

func (r *Run) applyWaiting(e Event, s *step, b *Waiting) {
	r.charge(s, b.Calls)
	r.leaveWork(s)
	r.moveStep(s, StepStatusWaiting)
	s.attempt = e.Attempt
	r.noteStart(e, s)
	s.waits, s.waitingSince, s.queued = b, e.At, false
	r.fixLimit(s)
	s.waits.Calls = nil
	if b.Child != nil {
		s.child = b.Child
		r.owes(b.Child.Run, s)
	}
	r.waiting = append(r.waiting, s)
}

// wait records that a step waits, and puts a question to people if it is for one.
func (r *Run) wait(s *step, b *Waiting) {
	r.emit(KindStepWaiting, s, b)
	if b.Asked != nil {
		ask := Ask{Asked: *b.Asked, Step: s.path(), Gen: s.gen}
		if b.Until != nil {
			expires := b.Until.Add(-expiryGrace)
			ask.Expires = &expires
		}
		r.effects.Asked = append(r.effects.Asked, ask)
	}
}

// stopWaiting withdraws what a step asked for, before it is settled otherwise.
func (r *Run) stopWaiting(s *step, expired bool) {
	switch w := s.waits; {
	case w.Asked != nil:
		r.effects.Withdrawn = append(r.effects.Withdrawn, Withdrawn{ID: w.Asked.Approval, Expired: expired})
	case w.Child != nil:
		r.tell(w.Child.Run, ToldCancel, &Cancelling{Reason: "its parent does not wait for it any more", Actor: "parent"})
	}
}

func (r *Run) tell(to uuid.UUID, kind string, body any) {
	r.effects.Told = append(r.effects.Told, Letter{To: to, Kind: kind, Body: encode(body)})
}

func (r *Run) until(d time.Duration) *time.Time {
	if d <= 0 {
		return nil
	}
	at := r.now.Add(d).Truncate(time.Microsecond)
	return &at
}

// timeIsUp is the end of a wait that has one.
func (r *Run) timeIsUp(s *step) {
	switch w := s.waits; w.For {
	case WaitingTimer:
		r.emit(KindStepSucceeded, s, &Succeeded{Output: null})
	case WaitingApproval:
		r.stopWaiting(s, true)
		r.fail(s, &Failed{Failure: Failure{Class: classExpired, Message: "nobody answered " + strconv.Quote(w.Asked.Title) + " in time"}})
	case WaitingSignal:
		r.fail(s, &Failed{Failure: Failure{Class: classTimeout, Message: fmt.Sprintf("the signal %s did not come within %s", w.Signal, s.def.Wait.Signal.Timeout)}})
	case WaitingChild:
		r.stopWaiting(s, false)
		r.retryChild(s, Failure{Class: classTimeout, Message: fmt.Sprintf("the run it started took longer than its timeout of %s", s.def.Timeout)}, nil)
	}
}

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

// beginWait waits for a time or a signal.
func (r *Run) beginWait(s *step) {
	w, scope := s.def.Wait, r.scope(s.frame)
	switch {
	case w.Signal != nil:
		r.beginSignal(s)
	case w.For != nil:
		text, err := w.For.Text(scope)
		if err != nil {
			r.failExpression(s, "for", err)
			return
		}
		d, ok := workflow.ParseDuration(text)
		if !ok || d > workflow.TimeoutMax {
			r.failExpression(s, "for", fmt.Errorf("%q is not a duration like 30s, 5m, 2h or 3d, of at most 30d", clipped(text)))
			return
		}
		r.waitUntil(s, r.now.Add(d))
	default:
		v, err := w.At.Eval(scope)
		if err != nil {
			r.failExpression(s, "at", err)
			return
		}
		at, err := timeOf(v)
		if err != nil {
			r.failExpression(s, "at", err)
			return
		}
		r.waitUntil(s, at)
	}
}

func timeOf(v any) (time.Time, error) {
	text, ok := v.(string)
	if !ok {
		return time.Time{}, fmt.Errorf("it gives %T, not a time", v)
	}
	return time.Parse(time.RFC3339, text)
}

func (r *Run) waitUntil(s *step, at time.Time) {
	if !at.After(r.now) {
		r.emit(KindStepSucceeded, s, &Succeeded{Output: null})
		return
	}
	at = at.UTC().Truncate(time.Microsecond)
	r.wait(s, &Waiting{For: WaitingTimer, Until: &at})
}

// beginSignal takes a signal that came before, or waits for one.
func (r *Run) beginSignal(s *step) {
	for _, k := range r.signals {
		matches, err := r.matches(s, k.Signal)
		if err != nil {
			r.failExpression(s, "match", err)
			return
		}
		if matches {
			r.emit(KindStepSucceeded, s, &Succeeded{Output: orNull(k.Data), Took: k.seq})
			return
		}
	}
	r.wait(s, &Waiting{For: WaitingSignal, Signal: s.def.Wait.Signal.Name, Until: r.until(s.def.Wait.Signal.Timeout)})
}

func orNull(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return null
	}
	return raw
}

func (r *Run) matches(s *step, signal Signal) (bool, error) {
	w := s.def.Wait.Signal
	if w.Name != signal.Name || w.Match == nil {
		return w.Name == signal.Name, nil
	}
	data, err := workflow.Decode(orNull(signal.Data))
	if err != nil {
		return false, fmt.Errorf("read its data: %w", err)
	}
	scope := r.scope(s.frame)
	scope.Extra = map[string]any{"event": map[string]any{"name": signal.Name, "data": data}}
	return w.Match.Bool(scope)
}

// toldSignal takes a signal: it is given to the step that has waited for it longest, or kept. One that there is no room for
// is lost; that is recorded once, until there is room again.
func (r *Run) toldSignal(body json.RawMessage) {
	var b Signal
	if json.Unmarshal(body, &b) != nil || r.status.Ended() || !slices.Contains(r.w.Signals, b.Name) || b.ID != "" && r.heard[b.ID] {
		return
	}
	taker, wrong := r.takerOf(b)
	if b.Lost = taker == nil && len(wrong) == 0 && r.keptOf(b.Name) >= workflow.SignalsKeptMax; b.Lost {
		if b.Data = nil; r.full[b.Name] {
			return
		}
	}
	r.emit(KindSignalReceived, nil, &b)
	seq := r.seq
	for _, w := range wrong {
		if w.step.status == StepStatusWaiting { // the one before may have ended it
			r.failExpression(w.step, "match", w.err)
		}
	}
	if taker != nil && taker.status == StepStatusWaiting {
		r.emit(KindStepSucceeded, taker, &Succeeded{Output: orNull(b.Data), Took: seq})
	}
}

// mismatch is a step that cannot say whether a signal is the one it waits for.
type mismatch struct {
	step *step
	err  error
}

// takerOf is the step that takes a signal; nil: none does. Wrong are those before it that cannot say whether they do.
func (r *Run) takerOf(b Signal) (taker *step, wrong []mismatch) {
	for _, s := range r.waiting {
		if s.waits.For != WaitingSignal {
			continue
		}
		matches, err := r.matches(s, b)
		if err != nil {
			wrong = append(wrong, mismatch{s, err})
			continue
		}
		if matches {
			return s, wrong
		}
	}
	return nil, wrong
}

// keptOf counts the signals of a name that nobody has taken.
func (r *Run) keptOf(name string) int {
	n := 0
	for _, k := range r.signals {
		if k.Name == name {
			n++
		}
	}
	return n
}

func (r *Run) keepSignal(seq int32, b *Signal) {
	if b.ID != "" {
		if r.heard == nil {
			r.heard = map[string]bool{}
		}
		r.heard[b.ID] = true
	}
	if b.Lost {
		if r.full == nil {
			r.full = map[string]bool{}
		}
		r.full[b.Name] = true
		return
	}
	r.signals = append(r.signals, kept{seq: seq, Signal: *b})
}

func (r *Run) takeSignal(seq int32) {
	r.signals = slices.DeleteFunc(r.signals, func(k kept) bool {
		if k.seq == seq {
			delete(r.full, k.Name)
		}
		return k.seq == seq
	})
}

// beginEmit says that something happened. The id is the same after any crash: it is made of the step's name.
func (r *Run) beginEmit(s *step) {
	data, err := rendered(s.def.Emit.Data, r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "data", err)
		return
	}
	mac := hmac.New(sha256.New, r.ID[:])
	fmt.Fprintf(mac, "emit/%s/%d", s.path(), s.gen)
	id := "evt_" + hex.EncodeToString(mac.Sum(nil)[:16])
	r.effects.Emitted = append(r.effects.Emitted, Emitted{ID: id, Name: s.def.Emit.Event, Data: orNull(data)})
	r.emit(KindStepSucceeded, s, &Succeeded{Output: json.RawMessage(`{"event_id":"` + id + `"}`)})
}
