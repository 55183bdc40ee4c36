package workflow

// emitStep reads an event that is told.
func (c *compiler) emitStep(d *draftStep) { c.notYet(d) }
