package workflow

// loopStep reads a loop.
func (c *compiler) loopStep(d *draftStep, _ around) { c.notYet(d) }
