package workflow

var emitKeys = keySet{known: []string{"event", "data"}}

// emitStep reads an event that is told.
func (c *compiler) emitStep(d *draftStep) {
	e := &EmitStep{}
	d.step.Emit = e
	n := d.node.get("emit")
	if !c.p.object(n, "an emit", emitKeys) {
		return
	}
	e.Event = c.signalName(c.p.need(n, "event", "an emit"))
	if v := n.get("data"); v != nil && v.kind != nodeBad {
		e.Data = c.template(v, d.owner())
	}
}
