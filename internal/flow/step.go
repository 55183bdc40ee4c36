package flow

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Error classes that the rules themselves know.
const (
	classExpression     = "expression"
	classTimeout        = "timeout"
	classCancelled      = "cancelled"
	classOutcomeUnknown = "outcome_unknown"
	classLowConfidence  = "low_confidence"
)

// classGroups are the words of retry.classes that stand for several classes.
var classGroups = map[string][]string{
	"transient": {"rate_limited", "overloaded", "server", "network", "timeout", "stream_interrupted", "gateway_throttled", "unavailable"},
}

// begin takes up a ready step: for the first time, for another attempt, or to close a container whose inside is done.
func (r *Run) begin(s *step) {
	switch {
	case s.status == StepStatusRetrying:
		r.startAttempt(s)
	case s.status == StepStatusRunning && s.def.Switch != nil && s.chosen == caseUnchosen:
		r.choose(s)
	case s.status == StepStatusRunning && !s.isLeaf():
		r.closeContainer(s)
	case s.status == StepStatusPending && r.mayBegin(s): // else what is around it was closed while it waited for a place
		r.beginPending(s)
	}
}

func (r *Run) beginPending(s *step) {
	if s.def.When != nil {
		holds, err := s.def.When.Bool(r.scope())
		if err != nil {
			r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: "when: " + err.Error()}})
			return
		}
		if !holds {
			r.emit(KindStepSkipped, s, &Skipped{Reason: "when"})
			return
		}
	}
	switch s.def.Kind {
	case workflow.KindSet:
		r.evaluateSet(s)
	case workflow.KindGroup:
		r.emit(KindStepStarted, s, &Started{})
	case workflow.KindSwitch:
		r.emit(KindStepStarted, s, &Started{})
		r.choose(s)
	default:
		r.startAttempt(s)
	}
}

// startAttempt commits that an attempt is about to be made. The input is rendered once for all attempts.
func (r *Run) startAttempt(s *step) {
	if s.input == nil {
		if err := r.render(s); err != nil {
			r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: err.Error()}})
			return
		}
	}
	body := &Started{}
	if s.def.Volatile {
		body.Input = s.input
	}
	r.emit(KindStepStarted, s, body)
}

// render works out the input of an agent or tool step.
func (r *Run) render(s *step) error {
	if s.def.Tool != nil {
		if s.def.Tool.Args == nil {
			s.input = json.RawMessage("{}")
			return nil
		}
		args, err := s.def.Tool.Args.Render(r.scope())
		if err != nil {
			return fmt.Errorf("args: %w", err)
		}
		s.input = args
		return checkSize("args", args)
	}
	var p Prompted
	var err error
	if t := s.def.Agent.Prompt; t != nil {
		if p.Prompt, err = t.Text(r.scope()); err != nil {
			return fmt.Errorf("prompt: %w", err)
		}
	}
	if t := s.def.Agent.Input; t != nil {
		if p.Input, err = t.Render(r.scope()); err != nil {
			return fmt.Errorf("input: %w", err)
		}
	}
	if s.input, err = json.Marshal(p); err != nil {
		return fmt.Errorf("prompt: %w", err)
	}
	return checkSize("prompt and input", s.input)
}

func checkSize(what string, raw json.RawMessage) error {
	if len(raw) > workflow.InputBytesMax {
		return fmt.Errorf("%s: %d bytes; the limit is %d", what, len(raw), workflow.InputBytesMax)
	}
	return nil
}

func (r *Run) evaluateSet(s *step) {
	output, err := s.def.Set.Render(r.scope())
	if err != nil {
		r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: err.Error()}})
		return
	}
	if len(output) > workflow.OutputBytesMax {
		r.fail(s, &Failed{Failure: Failure{
			Class: classExpression, Message: fmt.Sprintf("the output has %d bytes; the limit is %d", len(output), workflow.OutputBytesMax),
		}})
		return
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output})
}

// choose picks the first case of a switch that holds.
func (r *Run) choose(s *step) {
	for i, c := range s.def.Switch.Cases {
		holds := c.When == nil
		if !holds {
			var err error
			if holds, err = c.When.Bool(r.scope()); err != nil {
				r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: fmt.Sprintf("case %d: when: %v", i, err)}})
				return
			}
		}
		if holds {
			r.emit(KindCaseChosen, s, &CaseChosen{Case: i})
			return
		}
	}
	r.emit(KindCaseChosen, s, &CaseChosen{Case: caseNone})
}

// closeContainer gives a container whose inside is settled its output.
func (r *Run) closeContainer(s *step) {
	output, err := r.containerOutput(s)
	if err != nil {
		r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: "output: " + err.Error()}})
		return
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output})
}

func (r *Run) containerOutput(s *step) (json.RawMessage, error) {
	if s.def.Group != nil {
		if s.def.Group.Output != nil {
			return s.def.Group.Output.Render(r.scope())
		}
		byID := make(map[string]json.RawMessage, len(s.def.Group.Steps))
		for _, def := range s.def.Group.Steps {
			if inner := &r.steps[def.Index]; inner.status == StepStatusSucceeded {
				byID[def.ID] = inner.last.Output
			}
		}
		return json.Marshal(byID)
	}
	if s.chosen < 0 {
		return json.RawMessage("null"), nil
	}
	c := s.def.Switch.Cases[s.chosen]
	if c.Output != nil {
		return c.Output.Render(r.scope())
	}
	return r.lastOutput(c.Steps), nil
}

// renderOutput is what the run returns.
func (r *Run) renderOutput() (json.RawMessage, error) {
	if r.w.Output != nil {
		output, err := r.w.Output.Render(r.scope())
		if err == nil && len(output) > workflow.InputBytesMax {
			err = fmt.Errorf("%d bytes; the limit is %d", len(output), workflow.InputBytesMax)
		}
		return output, err
	}
	return r.lastOutput(r.w.Main), nil
}

// lastOutput is the output of the last listed step; null where it has none.
func (r *Run) lastOutput(steps []*workflow.Step) json.RawMessage {
	if len(steps) > 0 {
		if s := &r.steps[steps[len(steps)-1].Index]; s.status == StepStatusSucceeded && s.last.Output != nil {
			return s.last.Output
		}
	}
	return json.RawMessage("null")
}

func (r *Run) mayRetry(s *step, class string) bool {
	return int(s.attempt) < s.def.Retry.MaxAttempts && r.mayGoOn() && RetriesClass(s.def.Retry.Classes, class)
}

// mayGoOn: a main list that is decided waits for what is at work, and for nothing else.
func (r *Run) mayGoOn() bool { return r.section != workflow.SectionMain || r.fate == "" }

// isUnsafe: what it did to the world, if anything, must be known and not be done twice.
func (s *step) isUnsafe() bool {
	return s.def.Tool != nil && s.def.Tool.SideEffect == workflow.SideEffectUnsafe
}

// RetriesClass reports whether a list of classes and groups covers an error class.
func RetriesClass(classes []string, class string) bool {
	if class == classCancelled || class == classOutcomeUnknown {
		return false
	}
	for _, c := range classes {
		if c == class || c == "any" || slices.Contains(classGroups[c], class) {
			return true
		}
	}
	return false
}

// backoff is exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"). The rules know
// no randomness: the jitter is drawn from the attempt's name, so that runs spread and a replay does not.
func (r *Run) backoff(s *step) time.Duration {
	retry := s.def.Retry
	limit := float64(retry.Initial) * math.Pow(max(retry.Factor, 1), float64(s.attempt-1))
	if retry.Max > 0 {
		limit = min(limit, float64(retry.Max))
	}
	if retry.Jitter {
		limit *= r.draw(s, 0)
	}
	return time.Duration(limit).Truncate(time.Microsecond)
}

// draw gives a number from 0 to 1 by the name of an attempt, and how often it was held.
func (r *Run) draw(s *step, holds int) float64 {
	h := fnv.New64a()
	h.Write(r.ID[:])
	name := s.def.Path + "/" + strconv.Itoa(int(s.gen)) + "/" + strconv.Itoa(int(s.attempt))
	if holds > 0 {
		name += "/" + strconv.Itoa(holds)
	}
	h.Write([]byte(name))
	return float64(mix(h.Sum64())>>11) / (1 << 53)
}

// mix spreads a hash over all its bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
