package workflow

var loopKeys = keySet{known: []string{"steps", "output", "until", "max_iterations", "best_by", "stop_if_unchanged"}}

func (c *compiler) loopStep(d *draftStep, a around) {
	l := &LoopStep{StopIfUnchanged: true}
	d.step.Loop = l
	n := d.node.get("loop")
	a, ok := c.bodyOf(d, a)
	if !ok || !c.p.object(n, "a loop", loopKeys) {
		return
	}
	l.Body = a.body.body
	l.MaxIterations = c.mostTimes(n, "max_iterations", "a loop", LoopIterationsMax, 3)
	if v := n.get("stop_if_unchanged"); v != nil {
		l.StopIfUnchanged = c.p.boolean(v)
	}
	c.bodySteps(n, "a loop", a)
	l.Output = c.bodyOutput(n, a)
	// They read the output: it is registered first, and typed first.
	judge := a.closing()
	judge.further = furtherOutput
	if v := n.get("until"); v != nil {
		l.Until = c.condition(v, judge)
	}
	if v := n.get("best_by"); v != nil {
		l.BestBy = c.bare(v, judge, wantNumber)
	}
	if n.get("until") == nil && n.get("best_by") == nil {
		c.p.add(n.spot(), codeRequired, `a loop needs "until", which says when its output is good enough, or "best_by", which chooses one`)
	}
}
