package workflow

import "slices"

// Limits of approvals.
const (
	ApprovalChoicesMax   = 20
	ApprovalAssigneesMax = 50
	ChoiceBytesMax       = 100
)

var (
	approvalKeys = keySet{known: []string{"title", "show", "form", "choices", "assignees", "expires"}}
	formKeys     = keySet{known: []string{"schema", "initial"}}
)

// approvalStep reads a question to a person.
func (c *compiler) approvalStep(d *draftStep) {
	a := &ApprovalStep{}
	d.step.Approval = a
	n := d.node.get("approval")
	if !c.p.object(n, "an approval", approvalKeys) {
		return
	}
	if title := c.p.need(n, "title", "an approval"); c.p.kind(title, nodeText) {
		a.Title = c.template(title, d.owner())
		if a.Title.constant != nil {
			c.p.word(title)
		}
	}
	a.Show = c.objectTemplate(n.get("show"), d.owner())
	if form := n.get("form"); form != nil && c.p.object(form, "a form", formKeys) {
		a.Form = c.schema(c.p.need(form, "schema", "a form"), "the form of step "+d.step.ID)
		if v := form.get("initial"); v != nil && v.kind != nodeBad {
			a.Initial = c.template(v, d.owner())
		}
	}
	if v := n.get("choices"); v != nil {
		a.Choices = c.wordList(v, "choice", ApprovalChoicesMax)
	}
	a.Assignees = c.wordList(n.get("assignees"), "assignee", ApprovalAssigneesMax)
	a.Expires = c.p.duration(n.get("expires"), TimeoutMax, 0)
	if v := d.node.get("timeout"); v != nil {
		c.p.add(v.spot(), codeConflict, `the time a person takes is bounded by "expires" of the approval, not by a timeout`)
	}
}

// objectTemplate reads a template that renders to an object.
func (c *compiler) objectTemplate(n *node, o owner) *Template {
	if !c.p.kind(n, nodeObject) {
		return nil
	}
	return c.template(n, o)
}

// wordList reads a list of different words that is not empty.
func (c *compiler) wordList(n *node, what string, most int) []string {
	if !c.p.kind(n, nodeList) {
		return nil
	}
	if len(n.items) == 0 || len(n.items) > most {
		c.p.add(n.spot(), codeLimit, "there are 1 to %d %ss, not %d", most, what, len(n.items))
	}
	var words []string
	for _, item := range n.items {
		switch w := c.p.word(item); {
		case w == "":
		case slices.Contains(words, w):
			c.p.add(item.spot(), codeConflict, "the %s %q is there twice", what, clip(w))
		case len(w) > ChoiceBytesMax:
			c.p.add(item.spot(), codeLimit, "the %s has %d bytes; the limit is %d", what, len(w), ChoiceBytesMax)
		default:
			words = append(words, w)
		}
	}
	return words
}
