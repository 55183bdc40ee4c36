package workflow

// mapStep reads a map.
func (c *compiler) mapStep(d *draftStep, _ around) { c.notYet(d) }
