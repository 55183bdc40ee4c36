package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Whose words a turn is (flow.Turn.Who). The agent's own have no name. Who speaks within a delegate's conversation has the
// delegate's name before its own, with a slash.
const (
	whoPerson  = flow.TurnPerson
	whoDecider = "decider"
	whoSummary = "summary"
	whoJudge   = "judge.%d"       // the place of its check in the gate
	whoHelper  = "delegate.%d.%s" // counted in the conversation that hands out the task; the agent's name
)

// helpersCallsMax bounds the requests that all delegates of an attempt make together.
const helpersCallsMax = 200

// job is one attempt of an agent under way: the conversations it is made of, and their account. It can be taken up again
// after a crash: every answer but the last is reported by whose words it is, and each conversation first takes its own.
type job struct {
	w       *Worker
	outer   context.Context //nolint:containedctx // the engine's, for as long as the attempt is at work
	attempt flow.Attempt
	report  func(flow.Report)
	task    agent.Task // what the agent is asked to do
	hash    string     // of what it is sent first
	asked   int        // questions put to whoever decides

	mu       sync.Mutex // delegates work at the same time
	answered map[string][]flow.Turn
	answers  map[string]int // so far, by whose words
	last     *flow.Turn     // the last answer, not reported as long as the attempt may end with it
	calls    []usage.Call   // paid for since the last answer
	made     int            // requests of the step, but the turns that hand out tasks
	helped   int            // requests of delegates
	notes    []string
	clock    clock
}

// clock is the place and the time that an attempt has.
type clock struct {
	placed bool            // among the agents at work
	ctx    context.Context //nolint:containedctx // of the requests; nil: the time does not run
	cancel context.CancelFunc
	began  time.Time
	left   time.Duration
}

func (w *Worker) newJob(outer context.Context, a flow.Attempt, report func(flow.Report)) *job {
	j := &job{w: w, outer: outer, attempt: a, report: report, answered: map[string][]flow.Turn{}, answers: map[string]int{}, made: a.Made}
	j.clock.left = a.Step.Timeout
	for _, turn := range a.Turns {
		j.answered[turn.Who] = append(j.answered[turn.Who], turn)
	}
	return j
}

// do does the attempt.
func (j *job) do() *flow.Outcome {
	defer j.leave()
	var err error
	if j.task, err = taskOf(j.attempt); err != nil {
		return j.end(fail(classInternal, "read the rendered prompt: "+err.Error()))
	}
	switch {
	case j.attempt.Duty == flow.DutyDecide:
		return j.escalated()
	case j.attempt.Step.Kind == workflow.KindPlan:
		return j.plan()
	}
	return j.work()
}

// taskOf is what the agent of an attempt is asked to do. Of a step that is no agent's there is its input.
func taskOf(a flow.Attempt) (agent.Task, error) {
	switch a.Step.Kind { //nolint:exhaustive // the others are not prompted
	case workflow.KindAgent, workflow.KindMerge, workflow.KindPlan:
		var p flow.Prompted
		if err := json.Unmarshal(a.Input, &p); err != nil {
			return agent.Task{}, err
		}
		return agent.Task{Prompt: p.Prompt, Input: p.Input, Feedback: a.Feedback}, nil
	}
	return agent.Task{Input: a.Input, Feedback: a.Feedback}, nil
}

// end closes the account.
func (j *job) end(o *flow.Outcome) *flow.Outcome {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last != nil {
		o.Calls, j.last = j.last.Calls, nil
	}
	slices.Sort(j.notes) // delegates that work at the same time note in any order
	o.Calls, o.PromptHash, o.Notes = slices.Concat(o.Calls, j.calls), j.hash, j.notes
	return o
}

// note adds to what the run's quality has to say.
func (j *job) note(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Contains(j.notes, text) {
		j.notes = append(j.notes, text)
	}
}

// before takes the next answer that somebody gave before a crash, or before the attempt was held.
func (j *job) before(who string, helper bool) (flow.Turn, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	turns := j.answered[who]
	if len(turns) == 0 {
		return flow.Turn{}, false
	}
	j.answered[who] = turns[1:]
	j.count(&turns[0], helper)
	return turns[0], true
}

// count counts the requests that an answer took, and the answer. A turn that hands out tasks is not one that is repeated.
func (j *job) count(turn *flow.Turn, helper bool) {
	n := len(turn.Calls)
	switch {
	case helper:
		j.helped += n
	case len(turn.ToolCalls) > 0:
		j.made += max(n-1, 0)
	default:
		j.made += n
	}
	j.answers[turn.Who]++
}

// keep puts an answer into the account. That of a delegate is never the last, and is reported at once.
func (j *job) keep(turn flow.Turn, helper bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count(&turn, helper)
	if helper {
		j.tell(turn)
		return
	}
	turn.Calls = slices.Concat(j.calls, turn.Calls)
	j.calls, j.last = nil, &turn
}

// lose notes the requests that brought no answer.
func (j *job) lose(calls []usage.Call, helper bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = append(j.calls, calls...)
	if helper {
		j.helped += len(calls)
	} else {
		j.made += len(calls)
	}
}

// flush reports the last answer: the attempt goes on from it. A crash before it is committed buys it again; one after it
// does not.
func (j *job) flush() {
	if turn := j.last; turn != nil {
		j.last = nil // before the report: a panic in it must not have its calls counted twice
		j.tell(*turn)
	}
}

func (j *job) tell(turn flow.Turn) {
	a := &j.attempt
	j.report(flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Turn: &turn})
}

// admit lets a request be made: there are requests left, there is a place, and time.
func (j *job) admit(helper bool) (ctx context.Context, left int, b *noAnswer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	left = gateway.CallsMax - j.made
	if helper {
		left = min(gateway.CallsMax, helpersCallsMax-j.helped)
	}
	if left <= 0 {
		message := fmt.Sprintf("no answer passed within the %d requests of one step", gateway.CallsMax)
		if helper {
			message = fmt.Sprintf("the delegates of one attempt make at most %d requests", helpersCallsMax)
		}
		return nil, 0, &noAnswer{outcome: fail(classExhausted, message)}
	}
	if failure := j.run(); failure != nil {
		return nil, 0, &noAnswer{&flow.Outcome{Failure: failure}, true}
	}
	j.flush()
	return j.clock.ctx, left, nil
}

// run lets the clock run, once there is a place.
func (j *job) run() *flow.Failure {
	c := &j.clock
	if !c.placed {
		if failure := j.w.enter(j.outer, j.attempt); failure != nil {
			return failure
		}
		c.placed = true
	}
	if c.ctx == nil {
		c.ctx, c.cancel = j.w.limit(j.outer, j.attempt, c.left)
		c.began = time.Now()
	}
	return stopped(j.outer, c.ctx)
}

// stop lets the clock stand still, and says what is left of the timeout.
func (j *job) stop() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := &j.clock
	if c.ctx != nil {
		c.left -= time.Since(c.began)
		c.cancel()
		c.ctx = nil
	}
	return c.left
}

// rewind gives the attempt so much time from its next request on.
func (j *job) rewind(left time.Duration) {
	j.stop()
	j.clock.left = left
}

// leave gives the place back.
func (j *job) leave() {
	j.stop()
	if j.clock.placed {
		<-j.w.places
	}
}
