package workflow

// workflowStep reads a step that runs another workflow.
func (c *compiler) workflowStep(d *draftStep) { c.notYet(d) }
