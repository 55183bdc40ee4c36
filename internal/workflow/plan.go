package workflow

// planStep reads a plan.
func (c *compiler) planStep(d *draftStep) { c.notYet(d) }
