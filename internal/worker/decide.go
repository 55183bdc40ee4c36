package worker

import (
	"fmt"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
)

// decide has a question of the agent's answered: by the workflow's orchestrator in a conversation of its own, where there is
// none by a person, for whom the attempt waits. A delegate's question goes back to who handed out the task.
func (d *dialogue) decide(q agent.Question) *noAnswer {
	j := d.job
	if d.helper {
		return &noAnswer{outcome: fail(classNeedsDecision, asked(q))}
	}
	if j.asked++; j.asked > agent.DecisionsMax {
		return &noAnswer{outcome: fail(classNeedsDecision, fmt.Sprintf("it asks for a decision more than %d times; the last: %s", agent.DecisionsMax, asked(q)))}
	}
	answer, b := j.decision(d, q)
	if b != nil {
		return b
	}
	d.goOn(agent.Decided(d.conversation, d.last.Reply, answer))
	return nil
}

func (j *job) decision(d *dialogue, q agent.Question) (string, *noAnswer) {
	by := j.attempt.Orchestrator
	if by == nil {
		if turn, ok := j.before(whoPerson, false); ok {
			return turn.Reply, nil
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.flush() // the attempt goes on from the question
		o := fail(classNeedsDecision, asked(q))
		question := flow.Question(q)
		o.Held, o.Question = flow.HeldDecision, &question
		return "", &noAnswer{o, true}
	}
	left := j.stop() // nobody's time runs while somebody else decides
	j.rewind(j.attempt.Step.Timeout)
	talk, first := agent.OpenDecider(by, d.spec.Name, q, j.task)
	done, b := d.within(whoDecider, by, talk, first).answer()
	j.rewind(left)
	if b != nil {
		return "", b.by("the orchestrator " + by.Name + ", asked for a decision")
	}
	return agent.Decision(done.Output), nil
}

// asked is a question in one text.
func asked(q agent.Question) string {
	text := "it needs a decision: " + q.Question
	if len(q.Options) > 0 {
		text += "\n" + agent.Listed(q.Options)
	}
	if q.Recommendation != "" {
		text += "\nit recommends: " + q.Recommendation
	}
	return text
}

// escalated has the agent decide what becomes of a failure.
func (j *job) escalated() *flow.Outcome {
	a := &j.attempt
	e := agent.Escalation{Step: a.Path, Task: j.task, Contract: a.Contract}
	e.Task.Feedback = ""
	if said := a.Escalated; said != nil {
		e.Failure, e.Refused = told(said.Failure), said.Refused
		for _, f := range said.History {
			e.History = append(e.History, told(f))
		}
	}
	talk, first := agent.OpenEscalation(a.Agent, e)
	done, b := j.open("", a.Agent, talk, first).answer()
	if b != nil {
		return j.end(b.outcome)
	}
	r, err := agent.ReadResolution(done.Output)
	if err != nil { // it met the contract
		return j.end(fail(classInternal, "read the decision: "+err.Error()))
	}
	if r.Decision != flow.DecisionReplace {
		r.Output = nil
	}
	return j.end(&flow.Outcome{Decision: &flow.Decision{Decision: r.Decision, Output: r.Output, Notes: r.Notes}})
}

func told(f flow.Failure) string { return f.Class + ": " + f.Message }
