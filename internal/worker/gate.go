package worker

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// confidenceNone is the confidence of an answer that gives none, as expressions see it.
const confidenceNone = 100

// gateOf is the gate of an attempt's answers: the step's own, else that of whoever works at it. Nil: none.
func gateOf(a *flow.Attempt) *workflow.Gate {
	gate := a.Step.Gate
	if gate == nil && a.Agent != nil {
		gate = a.Agent.Gate
	}
	if gate == nil || len(gate.Checks) == 0 {
		return nil
	}
	return gate
}

// refusedOutput is the best output that did not pass: of those that were scored the one with the highest score, else the
// last.
type refusedOutput struct {
	output json.RawMessage
	score  *float64
}

func (r *refusedOutput) see(output json.RawMessage, score *float64) {
	if r.score == nil || score != nil && *score >= *r.score {
		r.output, r.score = output, score
	}
}

// passed lets the author answer until its answer passes the gate. What is wrong is told to it in its own conversation, as
// often as the gate lets it revise; each time it has the step's timeout anew.
func (j *job) passed(d *dialogue) (agent.Done, *flow.GateResult, *noAnswer) {
	gate := gateOf(&j.attempt)
	var best refusedOutput
	for round := 0; ; round++ {
		done, b := d.answer()
		if b != nil || gate == nil {
			return done, nil, b
		}
		score, wrong, b := j.check(gate, d, done, round < gate.Revise)
		switch {
		case b != nil:
			return done, nil, b
		case len(wrong) == 0:
			return done, &flow.GateResult{Score: score, Rounds: round}, nil
		}
		best.see(done.Output, score)
		if round >= gate.Revise {
			o := fail(classGateFailed, gateFailure(wrong, round))
			o.Refused, o.Confidence, o.Unresolved = best.output, done.Confidence, done.Unresolved
			return done, nil, &noAnswer{outcome: o}
		}
		j.rewind(j.attempt.Step.Timeout)
		d.goOn(agent.Revise(d.conversation, d.last.Reply, wrong))
	}
}

func gateFailure(wrong []string, revisions int) string {
	switch revisions {
	case 0:
		return "the output does not pass its gate:\n" + agent.Listed(wrong)
	case 1:
		return "after a revision the output does not pass its gate:\n" + agent.Listed(wrong)
	}
	return fmt.Sprintf("after %d revisions the output does not pass its gate:\n%s", revisions, agent.Listed(wrong))
}

// check holds an answer against all checks of a gate, once: the asserts, then the judges. The smallest score counts. An
// answer that fails an assert and will not be revised is not judged: nobody would be told.
func (j *job) check(gate *workflow.Gate, d *dialogue, done agent.Done, revises bool) (score *float64, wrong []string, b *noAnswer) {
	call := answering(d.last.Calls)
	wrong = asserts(gate, j.attempt.Scope, done.Output, done.Confidence, call.Tokens, call.Cost, time.Duration(call.Millis)*time.Millisecond)
	if len(wrong) > 0 && !revises {
		return nil, wrong, nil
	}
	for i := range gate.Checks {
		if gate.Checks[i].Judge == nil {
			continue
		}
		v, said, b := j.judged(i, &gate.Checks[i], d, done.Output)
		if b != nil {
			return nil, nil, b
		}
		if score == nil || v.Score < *score {
			score = &v.Score
		}
		wrong = append(wrong, said...)
	}
	return score, wrong, nil
}

// judged has one judge look at an answer, in a conversation of its own.
func (j *job) judged(place int, c *workflow.Check, author *dialogue, output json.RawMessage) (agent.Verdict, []string, *noAnswer) {
	talk, first := agent.OpenJudge(c, j.task, output)
	d := author.within(fmt.Sprintf(whoJudge, place), c.Judge, talk, first)
	if call := answering(author.last.Calls); c.DifferentFamily && call.Model != "" {
		d.avoid, d.shared = []string{call.Provider + "/" + call.Model}, "judged by %s, of the author's own family"
	}
	done, b := d.answer()
	if b != nil {
		return agent.Verdict{}, nil, b.by("the judge " + c.Judge.Name)
	}
	v, wrong := agent.ReadVerdict(c, done.Output)
	return v, wrong, nil
}

// asserts says which asserts of a gate do not hold of an output. One that cannot be evaluated does not hold.
func asserts(
	gate *workflow.Gate, around *workflow.Scope, output json.RawMessage, confidence *float64, tokens usage.Tokens, cost usage.Money, took time.Duration,
) (wrong []string) {
	value, err := workflow.Decode(output)
	if err != nil {
		return []string{"the output cannot be read: " + err.Error()}
	}
	sure := float64(confidenceNone)
	if confidence != nil {
		sure = *confidence
	}
	scope := workflow.AnswerScope(value, sure, tokens, cost, took)
	if around != nil {
		inner := *around
		inner.Extra = maps.Clone(scope.Extra)
		maps.Copy(inner.Extra, around.Extra)
		maps.Copy(inner.Extra, scope.Extra)
		scope = &inner
	}
	for i := range gate.Checks {
		c := &gate.Checks[i]
		if c.Assert == nil {
			continue
		}
		holds, err := c.Assert.Bool(scope)
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("it cannot be said whether %s: %v", c.Assert.Source, err))
		case !holds && c.Message != "":
			wrong = append(wrong, c.Message)
		case !holds:
			wrong = append(wrong, "it must hold that "+c.Assert.Source)
		}
	}
	return wrong
}
