package workflow

// mergeStep reads a merge.
func (c *compiler) mergeStep(d *draftStep) { c.notYet(d) }
