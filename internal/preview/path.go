package preview

import (
	"math"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/workflow"
)

// moment is when something is settled, and by which way that is so late.
type moment struct {
	at  float64
	way *trail
}

// trail is a step behind others, the last one first.
type trail struct {
	step   *workflow.Step
	before *trail
	length int
}

func (t *trail) behind(s *workflow.Step) *trail {
	next := &trail{s, t, 1}
	if t != nil {
		next.length += t.length
	}
	return next
}

// longer reports whether it has more steps than another.
func (t *trail) longer(u *trail) bool { return t != nil && (u == nil || t.length > u.length) }

func (m moment) later(n moment) moment {
	if n.at > m.at || n.at == m.at && n.way.longer(m.way) {
		return n
	}
	return m
}

// clock goes through a workflow as if everything began the moment it can. It counts seconds, or steps.
type clock struct {
	*estimator

	high    bool // everything that may run does, and takes as long as it may
	seconds bool
	settled map[*workflow.Step]moment
	begin   map[*workflow.Body]moment
}

// path is the longest way through the workflow, in seconds and in steps. The time of containers is noted with their steps.
func (e *estimator) path() Path {
	low, high := e.run(false, true), e.run(true, true)
	fewest, most := e.run(false, false), e.run(true, false)
	p := Path{Steps: Span{int64(fewest.at), int64(most.at)}, Seconds: Seconds{low.at, high.at}, Names: []string{}}
	for t := high.way; t != nil; t = t.before {
		p.Names = append(p.Names, t.step.Path)
	}
	slices.Reverse(p.Names)
	return p
}

// run is when the whole workflow is done: what comes after a failure only at the high end.
func (e *estimator) run(high, seconds bool) moment {
	c := &clock{estimator: e, high: high, seconds: seconds, settled: map[*workflow.Step]moment{}, begin: map[*workflow.Body]moment{}}
	end := c.list(e.w.Main, moment{})
	if high {
		end = c.list(e.w.OnFailure, end)
	}
	return c.list(e.w.Finally, end)
}

// list is when all of a list of steps are settled that begin at a moment.
func (c *clock) list(steps []*workflow.Step, from moment) moment {
	if len(steps) == 0 {
		return from
	}
	c.begin[steps[0].Body] = from
	end := from
	for _, s := range steps {
		end = end.later(c.end(s))
	}
	return end
}

// start is when a step begins: all it waits for is settled, and what is around it has begun.
func (c *clock) start(s *workflow.Step) moment {
	from := c.begin[s.Body]
	if s.Parent != nil {
		from = from.later(c.start(s.Parent))
	}
	if !c.high && s.Merge != nil && s.Merge.Strategy == workflow.StrategyFirst {
		return c.first(s, from)
	}
	for _, edge := range s.Edges {
		from = from.later(c.seen(s.Body.Steps[edge.Slot], s))
	}
	return from
}

// first is when the first member of a merge is settled.
func (c *clock) first(s *workflow.Step, from moment) moment {
	var first moment
	for i, slot := range s.Merge.Of {
		if end := c.seen(s.Body.Steps[slot], s); i == 0 || end.at < first.at {
			first = end
		}
	}
	for _, edge := range s.Edges {
		if !slices.Contains(s.Merge.Of, edge.Slot) {
			from = from.later(c.seen(s.Body.Steps[edge.Slot], s))
		}
	}
	return from.later(first)
}

// seen is when a step is settled for another one. At the low end, what may be skipped with a container that the other is
// not in is settled when that begins.
func (c *clock) seen(s, by *workflow.Step) moment {
	if !c.high {
		for p := s.Parent; p != nil; p = p.Parent {
			if !within(by, p) && (p.When != nil || p.Kind == workflow.KindSwitch) {
				return c.start(p)
			}
		}
	}
	return c.end(s)
}

func within(s, container *workflow.Step) bool {
	for p := s.Parent; p != nil; p = p.Parent {
		if p == container {
			return true
		}
	}
	return false
}

// end is when a step is settled.
func (c *clock) end(s *workflow.Step) moment {
	if m, known := c.settled[s]; known {
		return m
	}
	m := c.start(s)
	if c.runs(s) {
		m = c.through(s, m)
	}
	c.settled[s] = m
	return m
}

// runs reports whether a step runs at this end of the range.
func (c *clock) runs(s *workflow.Step) bool {
	holds, known := c.holds(s.When, s.Body)
	if !known {
		return c.high
	}
	return holds
}

// through is when a step is settled that runs.
func (c *clock) through(s *workflow.Step, start moment) moment {
	var end moment
	switch s.Kind {
	case workflow.KindGroup:
		end = c.contents(s.Group.Steps, start)
	case workflow.KindSwitch:
		end = c.cases(s, start)
	case workflow.KindMap:
		n, at := c.mapItems(s).count, int64(max(1, min(s.Map.Concurrency, c.w.MaxParallel)))
		end = c.again(s.Map.Body, start, Span{(n.Low + at - 1) / at, (n.High + at - 1) / at})
	case workflow.KindLoop:
		end = c.again(s.Loop.Body, start, Span{1, int64(s.Loop.MaxIterations)})
	default:
		return moment{start.at + c.leafTime(s), start.way.behind(s)}
	}
	return c.note(s, start, end)
}

func (c *clock) leafTime(s *workflow.Step) float64 {
	took := c.out.Steps[s.Index].Seconds
	switch {
	case !c.seconds:
		return 1
	case c.high:
		return took.High
	}
	return took.Low
}

// note bounds the time of a container, and keeps it.
func (c *clock) note(s *workflow.Step, start, end moment) moment {
	if !c.seconds {
		return end
	}
	end.at = start.at + min(end.at-start.at, limit(s.Timeout))
	if took := &c.out.Steps[s.Index].Seconds; c.high {
		took.High = end.at - start.at
	} else {
		took.Low = end.at - start.at
	}
	return end
}

// limit is a timeout in seconds; 0 is none.
func limit(timeout time.Duration) float64 {
	if timeout > 0 {
		return timeout.Seconds()
	}
	return math.MaxFloat64
}

func (c *clock) contents(steps []*workflow.Step, start moment) moment {
	end := start
	for _, s := range steps {
		end = end.later(c.end(s))
	}
	return end
}

// cases is the longest of the cases, or the shortest at the low end.
func (c *clock) cases(s *workflow.Step, start moment) moment {
	end, first := start, true
	taken, complete := c.taken(s), false
	for i, k := range s.Switch.Cases {
		complete = complete || k.When == nil
		if taken >= noCase && taken != i {
			continue
		}
		one := c.contents(k.Steps, start)
		switch {
		case first, !c.high && one.at < end.at:
			end, first = one, false
		case c.high:
			end = end.later(one)
		}
	}
	if !c.high && taken == caseUnknown && !complete {
		return start
	}
	return end
}

// again is a body that runs so many times, one after another.
func (c *clock) again(b *workflow.Body, start moment, rounds Span) moment {
	n := rounds.Low
	if c.high {
		n = rounds.High
	}
	if n == 0 {
		return start
	}
	end := c.list(b.Main, start)
	return moment{start.at + float64(n)*(end.at-start.at), end.way}
}
