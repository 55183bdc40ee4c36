package worker

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/flow"
)

// handOut has the tasks of an answer done, all at the same time, and goes on with their results.
func (d *dialogue) handOut(turn flow.Turn, calls []agent.ToolCall) *noAnswer {
	if failed, exhausted := d.conversation.Exhausted(); exhausted {
		d.step = failed
		return nil
	}
	results, ends := make([]string, len(calls)), make([]*noAnswer, len(calls))
	var panics sync.Map
	var all sync.WaitGroup
	for i, call := range calls {
		if i >= agent.TasksMax {
			results[i] = fmt.Sprintf("Not done: at most %d tasks are done at a time.", agent.TasksMax)
			continue
		}
		place := d.tasks
		d.tasks++
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panics.Store(fmt.Sprintf("%v\n%s", p, debug.Stack()), true)
				}
			}()
			results[i], ends[i] = d.help(place, call)
		})
	}
	all.Wait()
	panics.Range(func(p, _ any) bool { panic(p) }) // where the attempt is ended for it
	for _, b := range ends {
		if b != nil {
			return b
		}
	}
	d.goOn(agent.Called(d.conversation, turn.Reply, calls, results))
	return nil
}

// help has one task done. Who handed it out is told the short form of the result, never how it came about; or why there
// is none.
func (d *dialogue) help(place int, call agent.ToolCall) (string, *noAnswer) {
	task, wrong := agent.ReadDelegation(d.spec, call)
	if wrong != "" {
		return wrong, nil
	}
	talk, first := agent.OpenDelegate(task)
	inner := d.within(fmt.Sprintf(whoHelper, place, task.To.Name), task.To, talk, first)
	inner.helper = true
	done, b := inner.answer()
	var summary string
	if b == nil {
		summary, b = inner.summary(done.Output)
	}
	switch {
	case b == nil:
		return agent.Result(summary, done.Unresolved), nil
	case b.whole:
		return "", b
	}
	return "Not done. " + told(*b.outcome.Failure), nil
}
