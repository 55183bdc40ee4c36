package flow

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
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
	classExhausted      = "exhausted"
	classTooFew         = "too_few"
	classNoQuorum       = "no_quorum"
	classRejected       = "rejected"
	classExpired        = "expired"
	classChildFailed    = "child_failed"
	classGateFailed     = "gate_failed"
	classBudgetExceeded = "budget_exceeded"
)

// begin takes up a ready step: for the first time, for another attempt, or to close a container whose inside is done.
func (r *Run) begin(s *step) {
	switch {
	case s.status == StepStatusRetrying && !r.mayGoOn(s): // what is around it was closed while it waited for a place
		r.emit(KindStepCancelled, s, &Cancelled{Reason: "run_ending"})
	case s.status == StepStatusRetrying:
		r.startAttempt(s)
	case s.status == StepStatusRunning && isEarly(s.def) && s.duty == DutyWork && r.mayGoOn(s):
		r.merge(s)
	case s.status == StepStatusRunning && s.def.Switch != nil && s.chosen == caseUnchosen:
		r.choose(s)
	case s.status == StepStatusRunning && s.isContainer() && s.duty == DutyWork:
		r.closeContainer(s)
	case s.status == StepStatusPending && r.mayGoOn(s):
		r.beginPending(s)
	}
}

func (r *Run) beginPending(s *step) {
	if r.rungDecides(s) || !r.when(s) {
		return
	}
	switch s.def.Kind {
	case workflow.KindSet:
		r.evaluateSet(s)
	case workflow.KindGroup, workflow.KindLoop:
		r.emit(KindStepStarted, s, &Started{})
	case workflow.KindSwitch:
		r.emit(KindStepStarted, s, &Started{})
		r.choose(s)
	case workflow.KindMap:
		r.beginMap(s)
	case workflow.KindMerge:
		r.merge(s)
	case workflow.KindApproval:
		r.beginApproval(s)
	case workflow.KindWait:
		r.beginWait(s)
	case workflow.KindEmit:
		r.beginEmit(s)
	case workflow.KindWorkflow:
		r.beginChild(s)
	case workflow.KindAgent, workflow.KindTool, workflow.KindPlan:
		r.startAttempt(s)
	}
}

// when evaluates the step's condition, if it has one; false: the step is settled.
func (r *Run) when(s *step) bool {
	if s.def.When == nil {
		return true
	}
	holds, err := s.def.When.Bool(r.scope(s.frame))
	if err != nil {
		r.failExpression(s, "when", err)
		return false
	}
	if !holds {
		r.emit(KindStepSkipped, s, &Skipped{Reason: "when"})
	}
	return holds
}

// startAttempt commits that an attempt is about to be made. The input is rendered once for all attempts.
func (r *Run) startAttempt(s *step) {
	if s.def.Workflow != nil && s.duty == DutyWork {
		r.beginChild(s)
		return
	}
	body := &Started{}
	if s.duty != DutyDecide {
		if err := r.choice(s, body); err != nil {
			r.failExpression(s, "agent", err)
			return
		}
		if s.input == nil {
			if err := r.render(s); err != nil {
				r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: err.Error()}})
				return
			}
		}
		if s.def.Volatile {
			body.Input = s.input
		}
	}
	r.emit(KindStepStarted, s, body)
}

// choice works out who does a step whose agent is chosen while it runs.
func (r *Run) choice(s *step, body *Started) error {
	if s.def.Agent == nil || s.def.Agent.By == nil || s.agent != "" {
		return nil
	}
	name, err := s.def.Agent.By.Text(r.scope(s.frame))
	if err != nil {
		return err
	}
	if s.def.Agent.Choices[name] == nil {
		return fmt.Errorf("there is no agent %q", name)
	}
	body.Agent = name
	return nil
}

// render works out the input of an attempt.
func (r *Run) render(s *step) error {
	scope := r.scope(s.frame)
	switch {
	case s.def.Tool != nil:
		return s.renderArgs(scope)
	case s.def.Merge != nil:
		return s.renderPrompt(s.def.Merge.Agent.Prompt, nil, s.candidates(), scope)
	case s.def.Plan != nil:
		return s.renderPrompt(s.def.Plan.Goal, s.def.Plan.Input, nil, scope)
	}
	return s.renderPrompt(s.def.Agent.Prompt, s.def.Agent.Input, nil, scope)
}

func (s *step) renderArgs(scope *workflow.Scope) error {
	if s.def.Tool.Args == nil {
		s.input = json.RawMessage("{}")
		return nil
	}
	args, err := s.def.Tool.Args.Render(scope)
	if err != nil {
		return fmt.Errorf("args: %w", err)
	}
	s.input = args
	return checkSize("args", args)
}

// renderPrompt renders what an agent is asked; the input is given, or a template's.
func (s *step) renderPrompt(prompt, input *workflow.Template, given json.RawMessage, scope *workflow.Scope) error {
	p := Prompted{Input: given}
	var err error
	if prompt != nil {
		if p.Prompt, err = prompt.Text(scope); err != nil {
			return fmt.Errorf("prompt: %w", err)
		}
	}
	if input != nil {
		if p.Input, err = input.Render(scope); err != nil {
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

func checkOutput(output json.RawMessage) error {
	if len(output) > workflow.OutputBytesMax {
		return fmt.Errorf("it has %d bytes; the limit is %d", len(output), workflow.OutputBytesMax)
	}
	return nil
}

// failExpression fails a step one of whose expressions cannot be evaluated, or gives what cannot be used.
func (r *Run) failExpression(s *step, key string, err error) {
	r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: key + ": " + err.Error()}})
}

func (r *Run) evaluateSet(s *step) {
	output, err := s.def.Set.Render(r.scope(s.frame))
	if err != nil {
		r.fail(s, &Failed{Failure: Failure{Class: classExpression, Message: err.Error()}})
		return
	}
	if err := checkOutput(output); err != nil {
		r.failExpression(s, "output", err)
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
			if holds, err = c.When.Bool(r.scope(s.frame)); err != nil {
				r.failExpression(s, fmt.Sprintf("case %d: when", i), err)
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
	if s.many != nil {
		r.closeMany(s)
		return
	}
	output, err := r.containerOutput(s)
	if err != nil {
		r.failExpression(s, "output", err)
		return
	}
	r.emit(KindStepSucceeded, s, &Succeeded{Output: output})
}

func (r *Run) containerOutput(s *step) (json.RawMessage, error) {
	if s.def.Group != nil {
		if s.def.Group.Output != nil {
			return s.def.Group.Output.Render(r.scope(s.frame))
		}
		byID := make(map[string]json.RawMessage, len(s.def.Group.Steps))
		for _, def := range s.def.Group.Steps {
			if inner := &s.frame.steps[def.Slot]; inner.status == StepStatusSucceeded {
				byID[def.ID] = inner.output()
			}
		}
		return json.Marshal(byID)
	}
	if s.chosen < 0 {
		return null, nil
	}
	c := s.def.Switch.Cases[s.chosen]
	if c.Output != nil {
		return c.Output.Render(r.scope(s.frame))
	}
	return s.frame.lastOutput(c.Steps), nil
}

// renderOutput is what the run returns.
func (r *Run) renderOutput() (json.RawMessage, error) {
	if r.w.Output != nil {
		output, err := r.w.Output.Render(r.scope(r.root))
		if err == nil && len(output) > workflow.InputBytesMax {
			err = fmt.Errorf("%d bytes; the limit is %d", len(output), workflow.InputBytesMax)
		}
		return output, err
	}
	return r.root.lastOutput(r.w.Main), nil
}

func (r *Run) mayRetry(s *step, class string) bool {
	return int(s.attempt-s.base) < s.def.Retry.MaxAttempts && r.mayGoOn(s) && workflow.Covers(s.def.Retry.Classes, class)
}

// isUnsafe: what it did to the world, if anything, must be known and not be done twice.
func (s *step) isUnsafe() bool {
	return s.def.Tool != nil && s.def.Tool.SideEffect == workflow.SideEffectUnsafe && s.duty == DutyWork
}

// backoff is exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"). The rules know
// no randomness: the jitter is drawn from the attempt's name, so that runs spread and a replay does not.
func (r *Run) backoff(s *step) time.Duration {
	retry := s.def.Retry
	limit := float64(retry.Initial) * math.Pow(max(retry.Factor, 1), float64(s.attempt-s.base-1))
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
	name := s.path() + "/" + strconv.Itoa(int(s.gen)) + "/" + strconv.Itoa(int(s.attempt))
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
