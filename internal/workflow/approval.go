package workflow

// approvalStep reads a question to a person.
func (c *compiler) approvalStep(d *draftStep) { c.notYet(d) }
