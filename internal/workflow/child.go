package workflow

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
)

// Limits of workflows in workflows.
const (
	ChildrenDepthMax = 8
	// CarriedBytesMax bounds the sources of all the workflows that a definition carries.
	CarriedBytesMax = 8 << 20
)

// Library has the workflows that are published.
type Library interface {
	// Workflow finds one by its name and version (0: the latest). ref is name@version; source is the Source it compiled to.
	Workflow(name string, version int) (ref string, source []byte, ok bool)
}

var (
	workflowKeys = keySet{known: []string{"name", "input"}}
	refForm      = regexp.MustCompile(`^([a-zA-Z0-9][a-zA-Z0-9_.-]{0,99})(?:@([1-9][0-9]{0,8}))?$`)
)

// NamesOf answers the workflows (name or name@version) that a definition names and does not carry, sorted. A caller
// fetches them, so that CompileWith finds them.
func NamesOf(source []byte) []string {
	asked := asking{}
	_, _ = CompileWith(source, asked) //nolint:errcheck // what is wrong is said when it is compiled
	return slices.Sorted(slices.Values(keysOf(asked)))
}

// asking is a library that has nothing and notes what it is asked for.
type asking map[string]bool

// Workflow implements Library.
func (a asking) Workflow(name string, version int) (string, []byte, bool) {
	if version > 0 {
		name += "@" + strconv.Itoa(version)
	}
	a[name] = true
	return "", nil, false
}

// carriedLibrary has what a stored definition carries.
type carriedLibrary struct{ workflows *node }

// Workflow implements Library. The latest version that is carried was the latest when the definition was compiled.
func (l carriedLibrary) Workflow(name string, version int) (ref string, source []byte, ok bool) {
	if l.workflows == nil {
		return "", nil, false
	}
	var found *node
	for _, m := range l.workflows.members {
		parts := refForm.FindStringSubmatch(m.name)
		if parts == nil || parts[1] != name {
			continue
		}
		if v := atoi(parts[2]); v == version || version == 0 && (found == nil || v > atoi(refForm.FindStringSubmatch(found.name)[2])) {
			found = m.value
		}
	}
	if found == nil {
		return "", nil, false
	}
	return found.name, found.canonical(), true
}

// atoi reads digits that are few; none are 0.
func atoi(digits string) int {
	n, _ := strconv.Atoi(digits) //nolint:errcheck // a pattern has checked them
	return n
}

// workflowStep reads a step that runs another workflow.
func (c *compiler) workflowStep(d *draftStep) {
	s := &WorkflowStep{}
	d.step.Workflow = s
	n := d.node.get("workflow")
	if !c.p.object(n, "a workflow step", workflowKeys) {
		return
	}
	o := d.owner()
	o.volatile = true
	s.Input = c.objectTemplate(n.get("input"), o)
	name := c.p.need(n, "name", "a workflow step")
	switch {
	case !c.p.kind(name, nodeText):
	case isChosen(name):
		s.By = c.chooser(d, name)
	default:
		s.Ref = c.child(d, name, c.p.word(name))
	}
}

// workflowChoices settles which workflows a step may run whose name is chosen by an expression, once that is typed.
func (c *compiler) workflowChoices(d *draftStep) {
	s := d.step.Workflow
	if s.By == nil || d.settled || d.chooses == nil || d.chooses.draft.typed == nil {
		return
	}
	d.settled = true
	s.Refs = map[string]string{}
	for _, name := range c.chosen(d.chooses, "workflow") {
		s.Refs[name] = c.child(d, d.node.get("workflow").get("name"), name)
	}
}

// child finds a workflow that a step runs, and has the definition carry it. The answer is its reference, or empty.
func (c *compiler) child(d *draftStep, at *node, name string) string {
	parts := refForm.FindStringSubmatch(name)
	switch {
	case name == "":
		return ""
	case parts == nil:
		c.p.add(at.spot(), codeName, "%q is not the name of a workflow; write name or name@version", clip(name))
		return ""
	case parts[1] == c.w.Name:
		c.p.add(at.spot(), codeCycle, "a workflow cannot run itself: %s → %s", c.w.Name, name)
		return ""
	}
	ref, source, ok := "", []byte(nil), false
	if c.library != nil {
		ref, source, ok = c.library.Workflow(parts[1], atoi(parts[2]))
	}
	if !ok {
		c.p.add(at.spot(), codeUnknownChild, "there is no published workflow %q", clip(name))
		return ""
	}
	child := c.w.Children[ref]
	if child == nil {
		if child = c.adoptChild(at, ref, source); child == nil {
			return ""
		}
	}
	c.childInput(d, child, ref)
	return ref
}

// adoptChild compiles a workflow that is run, and writes it into what the definition carries.
func (c *compiler) adoptChild(at *node, ref string, source []byte) *Workflow {
	child, err := Load(source)
	if err != nil {
		c.p.add(at.spot(), codeUnknownChild, "the workflow %s cannot be run by this version: %v", ref, err)
		return nil
	}
	c.carried += len(child.Source)
	switch {
	case child.nesting() >= ChildrenDepthMax:
		c.p.add(at.spot(), codeLimit, "workflows run each other more than %d deep", ChildrenDepthMax)
		return nil
	case c.carried > CarriedBytesMax:
		c.p.add(at.spot(), codeLimit, "the workflows that are run have more than %d bytes together", CarriedBytesMax)
		return nil
	}
	if c.w.Children == nil {
		c.w.Children = map[string]*Workflow{}
	}
	c.w.Children[ref] = child
	if c.stored {
		return child
	}
	n, err := parseStored(child.Source, c.p)
	if err != nil { // a defect of this package: it was compiled
		c.p.add(at.spot(), codeUnknownChild, "the workflow %s cannot be carried: %v", ref, err)
		return nil
	}
	n.place(at.line, at.col)
	if c.root.get(keyCarried) == nil {
		c.root.insert(keyCarried, &node{kind: nodeObject, line: at.line, col: at.col})
	}
	c.root.get(keyCarried).set(keyWorkflows, ref, n)
	return child
}

// nesting is how deep a workflow runs others.
func (w *Workflow) nesting() int {
	depth := 0
	for _, child := range w.Children {
		depth = max(depth, 1+child.nesting())
	}
	return depth
}

// childInput checks what can be known of a child's input before it is rendered.
func (c *compiler) childInput(d *draftStep, child *Workflow, ref string) {
	n, t := d.node.get("workflow").get("input"), d.step.Workflow.Input
	if c.stored || child.Input == nil {
		return
	}
	if t == nil {
		n, t = d.node.get("workflow"), &Template{constant: []byte("{}")}
	}
	if t.constant != nil {
		c.meets(n, t, child.Input)
		return
	}
	schema, ok := child.Input.root.(map[string]any)
	if !ok {
		return
	}
	required, _ := schema["required"].([]any)              //nolint:errcheck // none
	properties, _ := schema["properties"].(map[string]any) //nolint:errcheck // none
	for _, name := range required {
		name, ok := name.(string)
		property, _ := properties[name].(map[string]any) //nolint:errcheck // none
		if _, filled := property["default"]; ok && !filled && n.get(name) == nil {
			c.p.add(cmp.Or(n, d.node).spot(), codeRequired, "the input of %s needs %q", ref, name)
		}
	}
}
