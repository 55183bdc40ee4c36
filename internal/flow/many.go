package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

// openItems lets items begin as long as there is a place for them. After a failure that is the map's, none does.
func (r *Run) openItems(s *step) {
	m := s.many
	for m.next < len(m.frames) && m.active < s.def.Map.Concurrency && !s.isStopping() {
		f := r.newFrame(s.def.Map.Body, s, m.next)
		m.frames[m.next] = f
		m.next++
		m.active++
		r.openFrame(f)
	}
	if m.active == 0 {
		r.ready = append(r.ready, todo{step: s})
	}
}

// isStopping: an item of a map has failed, and that is not kept.
func (s *step) isStopping() bool { return s.many.failed > 0 && !s.def.Map.KeepErrors }

// openIteration lets the next iteration of a loop begin.
func (r *Run) openIteration(s *step) {
	f := r.newFrame(s.def.Loop.Body, s, len(s.many.frames)+1)
	s.many.frames = append(s.many.frames, f)
	s.many.active++
	r.expanded += len(f.steps)
	r.openFrame(f)
}

func (r *Run) applyItem(s *step, b *ItemEnded) {
	if s.instance(b.Item) == nil || s.instance(b.Item).ended {
		r.broken = fmt.Errorf("step %s has no item %d at work", s.path(), b.Item)
		return
	}
	f := s.instance(b.Item)
	f.ended, f.output, f.failure = true, b.Output, b.Failure
	s.many.active--
	if b.Failure != nil {
		s.many.failed++
	}
	r.openItems(s)
}

func (r *Run) applyIteration(s *step, b *IterationEnded) {
	f := s.instance(b.Iteration)
	if f == nil || f.ended {
		r.broken = fmt.Errorf("step %s has no iteration %d at work", s.path(), b.Iteration)
		return
	}
	m := s.many
	f.ended, f.output = true, b.Output
	m.active--
	m.met = b.Met
	if b.Score != nil && (m.best < 0 || *b.Score > m.score) {
		m.best, m.score = b.Iteration-1, *b.Score
	}
	if b.Again {
		r.openIteration(s)
	} else {
		r.ready = append(r.ready, todo{step: s})
	}
}

// applyReopened lets a loop go on that had come to its end: with as many iterations again. An iteration that failed is
// not gone on with.
func (r *Run) applyReopened(e Event, s *step) {
	r.leaveWork(s)
	if s.status != StepStatusRunning {
		r.moveStep(s, StepStatusRunning)
	}
	s.duty, s.waits, s.startedAt = DutyWork, nil, e.At
	if last := s.many.frames[len(s.many.frames)-1]; !last.ended {
		last.ended, last.failure = true, &s.failures[s.about]
	}
	s.many.base, s.many.met, s.many.active = len(s.many.frames), false, 0
	if s.def.Timeout > 0 {
		r.timed = append(r.timed, s)
	}
	r.openIteration(s)
}

// reopenMany lets the items and iterations go on that were not done when the run ended.
func (r *Run) reopenMany(s *step) {
	m := s.many
	m.active, m.failed = 0, 0
	for _, f := range m.frames {
		if f == nil || f.ended && f.failure == nil || f.isPast() {
			continue
		}
		f.ended, f.failure, f.decoded = false, nil, false
		m.active++
		if f.undone = f.openTop(); f.undone == 0 { // its output could not be worked out
			r.ready = append(r.ready, todo{frame: f})
			continue
		}
		r.openFrame(f)
	}
	switch {
	case s.def.Map != nil:
		r.openItems(s)
	case m.active > 0:
	case m.met || len(m.frames) == 0:
		r.ready = append(r.ready, todo{step: s})
	default: // it had come to its end without its until
		m.base = len(m.frames)
		r.openIteration(s)
	}
}

// isPast: a later iteration has taken its place.
func (f *frame) isPast() bool {
	return f.owner != nil && f.owner.def.Loop != nil && f != f.owner.many.frames[len(f.owner.many.frames)-1]
}

// openTop counts the top-level steps of a frame that are not settled.
func (f *frame) openTop() int {
	n := 0
	for _, def := range f.body.Main {
		if !f.steps[def.Slot].status.Settled() {
			n++
		}
	}
	return n
}

// beginMap works out the items.
func (r *Run) beginMap(s *step) {
	items, err := s.def.Map.Items.Render(r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "items", err)
		return
	}
	var list []json.RawMessage
	switch err := json.Unmarshal(items, &list); {
	case err != nil || list == nil:
		r.failExpression(s, "items", fmt.Errorf("a map goes over a list, not over %s", kindOf(items)))
	case len(list) > s.def.Map.MaxItems:
		r.failExpression(s, "items", fmt.Errorf("there are %d items; max_items is %d", len(list), s.def.Map.MaxItems))
	case r.expanded+len(list)*len(s.def.Map.Body.Steps) > workflow.ExpandedStepsMax:
		r.failExpression(s, "items", fmt.Errorf("with %d items the run would have more than %d steps", len(list), workflow.ExpandedStepsMax))
	case len(items) > workflow.InputBytesMax:
		r.failExpression(s, "items", fmt.Errorf("the items have %d bytes; the limit is %d", len(items), workflow.InputBytesMax))
	default:
		r.emit(KindStepStarted, s, &Started{Items: items, Count: len(list)})
	}
}

// kindOf says what a JSON value is.
func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "text"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// closeFrame works out what an item or an iteration gives.
func (r *Run) closeFrame(f *frame) {
	s := f.owner
	if f.ended || s.status != StepStatusRunning || s.duty != DutyWork || !r.mayGoOn(s) {
		return
	}
	template := s.template()
	var output json.RawMessage
	if template != nil {
		var err error
		if output, err = template.Render(r.scope(f)); err == nil {
			err = checkOutput(output)
		}
		if err != nil {
			r.failFrame(f, Failure{Class: classExpression, Message: "output: " + err.Error(), Step: s.path()})
			return
		}
	}
	if s.def.Map != nil {
		r.emit(KindItemEnded, s, &ItemEnded{Item: f.n, Output: output})
		return
	}
	r.closeIteration(s, f, output)
}

func (s *step) template() *workflow.Template {
	if s.def.Map != nil {
		return s.def.Map.Output
	}
	return s.def.Loop.Output
}

// closeIteration decides whether another one follows.
func (r *Run) closeIteration(s *step, f *frame, output json.RawMessage) {
	loop, b := s.def.Loop, &IterationEnded{Iteration: f.n, Output: output, Met: s.def.Loop.Until == nil}
	f.output, f.decoded = output, false // the expressions read it before it is recorded
	scope := r.scope(f)
	scope.Extra = map[string]any{"output": f.outputValue()}
	if loop.Until != nil {
		met, err := loop.Until.Bool(scope)
		if err != nil {
			r.failIteration(f, "until", err)
			return
		}
		b.Met = met
	}
	if loop.BestBy != nil {
		score, err := number(loop.BestBy.Eval(scope))
		if err != nil {
			r.failIteration(f, "best_by", err)
			return
		}
		b.Score = &score
	}
	if f.n > 1 && loop.StopIfUnchanged {
		b.Unchanged = equal(f.outputValue(), s.many.frames[f.n-2].outputValue())
	}
	done := b.Met && loop.Until != nil
	if b.Again = !done && !b.Unchanged && f.n-s.many.base < loop.MaxIterations; b.Again {
		b.Met = false
	}
	if b.Again && r.expanded+len(f.steps) > workflow.ExpandedStepsMax {
		r.failIteration(f, "max_iterations", fmt.Errorf("with another one the run would have more than %d steps", workflow.ExpandedStepsMax))
		return
	}
	r.emit(KindIterationEnded, s, b)
}

func (r *Run) failIteration(f *frame, key string, err error) {
	f.output, f.decoded = nil, false
	r.failFrame(f, Failure{Class: classExpression, Message: key + ": " + err.Error(), Step: f.owner.path()})
}

func number(v any, err error) (float64, error) {
	if err != nil {
		return 0, err
	}
	switch n := v.(type) {
	case int64:
		return float64(n), nil
	case float64:
		return n, nil
	}
	return 0, fmt.Errorf("it gives %T, not a number", v)
}

// closeMany gives a map or loop its output, or its failure.
func (r *Run) closeMany(s *step) {
	if s.def.Map != nil {
		r.closeMap(s)
		return
	}
	m := s.many
	switch {
	case m.met:
		r.emit(KindStepSucceeded, s, &Succeeded{Assembled: true})
	case m.best >= 0:
		r.emit(KindStepSucceeded, s, &Succeeded{
			Assembled: true, Exhausted: true,
			Notes: []string{fmt.Sprintf("ended after %d iterations without meeting its until; the best one, %d, is taken", len(m.frames), m.best+1)},
		})
	default:
		message := fmt.Sprintf("until does not hold after iteration %d", len(m.frames))
		if len(m.frames)-m.base < s.def.Loop.MaxIterations {
			message += ", whose output is that of the one before"
		}
		r.fail(s, &Failed{Failure: Failure{Class: classExhausted, Message: message}, Refused: m.frames[len(m.frames)-1].raw()})
	}
}

func (r *Run) closeMap(s *step) {
	m := s.many
	if s.isStopping() {
		for _, f := range m.frames {
			if f != nil && f.failure != nil {
				r.fail(s, &Failed{Failure: Failure{
					Class: f.failure.Class, Message: fmt.Sprintf("item %d: %s", f.n, f.failure.Message), Step: f.failure.Step,
				}})
				return
			}
		}
	}
	if ok := len(m.frames) - m.failed; ok < s.def.Map.MinSuccess && len(m.frames)+s.def.Map.MinSuccess > 1 {
		r.fail(s, &Failed{Failure: Failure{
			Class: classTooFew, Message: fmt.Sprintf("%d of %d items succeeded; min_success is %d", ok, len(m.frames), s.def.Map.MinSuccess),
		}})
		return
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Assembled: true})
}

// raw is the output of an item or iteration.
func (f *frame) raw() json.RawMessage {
	if f.failure != nil {
		return null
	}
	if f.output != nil {
		return f.output
	}
	return f.lastOutput(f.body.Main)
}

var null = json.RawMessage("null")

// lastOutput is the output of the last listed step; null where it has none.
func (f *frame) lastOutput(steps []*workflow.Step) json.RawMessage {
	if len(steps) > 0 {
		if s := &f.steps[steps[len(steps)-1].Slot]; s.status == StepStatusSucceeded {
			return s.output()
		}
	}
	return null
}

func (f *frame) outputValue() any {
	if !f.decoded {
		f.value, _ = workflow.Decode(f.raw()) //nolint:errcheck // was checked to be JSON where it was made
		f.decoded = true
	}
	return f.value
}

// output is what a succeeded step made. What is made of other outputs is put together when it is first asked for.
func (s *step) output() json.RawMessage {
	if s.raw == nil {
		s.raw = null
		if s.last.Assembled {
			s.raw = s.assemble()
		}
	}
	return s.raw
}

func (s *step) assemble() json.RawMessage {
	switch {
	case s.def.Map != nil:
		list := make([]json.RawMessage, len(s.many.frames))
		for i, f := range s.many.frames {
			list[i] = f.raw()
		}
		return joined(list)
	case s.def.Loop != nil:
		return s.taken().raw()
	case s.last.Winner != "":
		return s.frame.steps[s.frame.body.Step(s.last.Winner).Slot].output()
	case s.def.Merge != nil:
		list := make([]json.RawMessage, 0, len(s.def.Merge.Of))
		for _, slot := range s.def.Merge.Of {
			output := null
			if member := &s.frame.steps[slot]; !slices.Contains(s.last.Without, member.def.ID) {
				output = member.output()
			}
			list = append(list, output)
		}
		return joined(list)
	}
	return null
}

// taken is the iteration whose output is the loop's.
func (s *step) taken() *frame {
	if s.many.best >= 0 {
		return s.many.frames[s.many.best]
	}
	return s.many.frames[len(s.many.frames)-1]
}

func joined(list []json.RawMessage) json.RawMessage {
	size := 2
	for _, item := range list {
		size += len(item) + 1
	}
	out := append(make([]byte, 0, size), '[')
	for i, item := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(out, ']')
}
