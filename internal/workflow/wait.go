package workflow

// waitStep reads what is waited for.
func (c *compiler) waitStep(d *draftStep) { c.notYet(d) }
