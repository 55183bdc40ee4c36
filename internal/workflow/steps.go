package workflow

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
)

// draftStep is a step while the definition is compiled.
type draftStep struct {
	step    *Step
	node    *node
	body    *draftBody
	own     *draftBody   // of a map or loop: the body inside it
	needs   []*node      // the names it needs, checked to be text
	before  *draftStep   // the one listed before it in a sequential list
	parent  *draftStep   // the container around it
	inside  []*draftStep // of a container, all cases together
	hasWhen bool         // the key is there, whatever its value
	hasElse bool         // of a switch

	families []*node    // different_family: the names, checked to be text
	members  []*node    // of a merge: likewise
	merge    *draftStep // the merge that it is a member of; of several: the first

	gate     *Gate   // the default for who works at it
	errors   []*node // the entries of its on_error
	defaults bool    // its on_error is the default one
	chooses  *site   // the expression that chooses who works at it
	settled  bool    // it is known whom that may choose

	shape  *cel.Type // of the step as expressions see it
	fields map[string]*cel.Type
	output *cel.Type // nil: not known yet
	item   *cel.Type // of a map: one of its items
	iter   *cel.Type // of a loop: the root iter
}

var (
	stepKeys = []string{"id", "description", "needs", "when", "timeout", "retry", "gate", "on_error", "budget", "labels"}
	kindKeys = map[Kind][]string{
		KindAgent: {
			"prompt", "input", "output", "role", "model", "chain", "route", "instructions", "max_tokens", "temperature", "context", "different_family",
			"delegates", "max_turns",
		},
		KindTool: {"args", "output", "side_effect"},
	}
	// kinds are all kinds of step; the kind is the key.
	kinds = []Kind{
		KindAgent, KindTool, KindMap, KindLoop, KindGroup, KindSwitch, KindMerge, KindPlan, KindWorkflow, KindApproval,
		KindWait, KindEmit, KindSet,
	}
	// kindsAttempted are the kinds that make attempts. A merge by a judge does, too.
	kindsAttempted = []Kind{KindAgent, KindTool, KindWorkflow, KindPlan}
	// kindsInstant are the kinds that take no time.
	kindsInstant = []Kind{KindSet, KindEmit}
	stepLater    = []string{
		"cache", "concurrency", "sensitive",
		"context_docs", "session", "idempotency_key", "meter",
	}
	// keysElsewhere are what other systems call the keys of a step.
	keysElsewhere = map[string]string{
		"if": "when", "condition": "when", "depends_on": "needs", "dependsOn": "needs", "after": "needs", "requires": "needs",
		"foreach": "map", "for_each": "map", "forEach": "map", "with_items": "map", "parallel": "group", "retries": "retry",
		"signal": "wait", "sleep": "wait", "subworkflow": "workflow", "call": "workflow", "human": "approval", "vars": "set", "catch": "on_error",
	}
	groupKeys = keySet{known: []string{"steps", "sequential", "output"}}
	caseKeys  = keySet{known: []string{"when", "else", "steps", "output"}}
)

// tools are the tools of this version, with the side effect each has unless the step says otherwise.
var tools = map[string]SideEffect{
	"builtin:noop": SideEffectNone, "builtin:sleep": SideEffectNone, "builtin:fail": SideEffectNone,
}

// toolsLater are those that are part of the format and not of this version.
var toolsLater = regexp.MustCompile(`^(?:http|mcp:.*|builtin:(?:json|time|delegate|memory_get|memory_put|artifact_get|artifact_put))$`)

// around is where a list of steps stands.
type around struct {
	section    Section
	body       *draftBody
	parent     *draftStep
	kase       int
	depth      int
	sequential bool
}

func (c *compiler) listedSteps() {
	c.w.Body = c.body.body
	if n := c.p.need(c.root, "steps", "the definition"); n != nil {
		c.w.Main = c.stepList(n, around{section: SectionMain, body: c.body, sequential: c.sequential})
	}
	c.w.Body.Main = c.w.Main
	c.w.OnFailure = c.optionalList(c.root.get("on_failure"), SectionOnFailure)
	c.w.Finally = c.optionalList(c.root.get("finally"), SectionFinally)
	if n := c.root.get("output"); n != nil {
		c.w.Output = c.template(n, owner{place: placeMain, body: c.body, closing: true})
	}
	c.idsAlongNesting()
	for _, name := range keysOf(c.agents) {
		if d := c.agents[name]; d.bare && !d.used {
			c.reportBare(d)
		}
	}
}

func (c *compiler) optionalList(n *node, s Section) []*Step {
	if n == nil || n.kind == nodeList && len(n.items) == 0 {
		return nil
	}
	return c.stepList(n, around{section: s, body: c.body})
}

// stepList reads the steps of one list. A container is entered into Workflow.Steps before its contents.
func (c *compiler) stepList(n *node, a around) []*Step {
	if !c.p.kind(n, nodeList) {
		return nil
	}
	if len(n.items) == 0 {
		c.p.add(n.spot(), codeRequired, "there must be at least one step")
	}
	var steps []*Step
	var before *draftStep
	for _, item := range n.items {
		if len(c.drafts) >= StepsMax {
			c.p.add(item.spot(), codeLimit, "there are more than %d steps", StepsMax)
			return steps
		}
		if !c.p.kind(item, nodeObject) {
			continue
		}
		d := c.step(item, a)
		if a.sequential {
			d.before, before = before, d
		}
		steps = append(steps, d.step)
	}
	return steps
}

func (c *compiler) step(n *node, a around) *draftStep {
	s := &Step{
		Index: len(c.drafts), Section: a.section, Case: a.kase, Body: a.body.body, Slot: len(a.body.drafts), Pos: n.position(),
	}
	d := &draftStep{step: s, node: n, body: a.body, parent: a.parent}
	if a.parent != nil {
		if a.parent != a.body.owner {
			s.Parent = a.parent.step
		}
		a.parent.inside = append(a.parent.inside, d)
	}
	c.drafts, c.w.Steps = append(c.drafts, d), append(c.w.Steps, s)
	a.body.drafts, a.body.body.Steps = append(a.body.drafts, d), append(a.body.body.Steps, s)
	c.stepID(d)
	s.Kind = c.stepKind(n)
	c.stepKeys(n, s.Kind)
	c.p.text(n.get("description"))
	s.Labels = c.labels(n.get("labels"))
	d.needs = c.namesIn(n.get("needs"))
	if w := n.get("when"); w != nil {
		d.hasWhen = true
		s.When = c.condition(w, d.owner())
	}
	c.stepTimes(d)
	c.kindStep(d, a)
	c.stepGate(d)
	c.stepOnError(d)
	c.stepBudget(d)
	return d
}

// kindStep reads what is the kind's own.
func (c *compiler) kindStep(d *draftStep, a around) {
	switch d.step.Kind {
	case KindAgent:
		c.agentStep(d)
	case KindTool:
		c.toolStep(d)
	case KindMap:
		c.mapStep(d, a)
	case KindLoop:
		c.loopStep(d, a)
	case KindGroup:
		c.groupStep(d, a)
	case KindSwitch:
		c.switchStep(d, a)
	case KindMerge:
		c.mergeStep(d)
	case KindPlan:
		c.planStep(d)
	case KindWorkflow:
		c.workflowStep(d)
	case KindApproval:
		c.approvalStep(d)
	case KindWait:
		c.waitStep(d)
	case KindEmit:
		c.emitStep(d)
	case KindSet:
		if v := d.node.get("set"); c.p.kind(v, nodeObject) {
			d.step.Set = c.template(v, d.owner())
		}
	}
}

// owner is the place of the step's own expressions.
func (d *draftStep) owner() owner {
	return owner{place: placeOf(d.step.Section), body: d.body, step: d, inside: d.parent, kase: d.step.Case}
}

func (c *compiler) stepID(d *draftStep) {
	id := c.p.need(d.node, "id", "a step")
	if id == nil || !c.p.id(id) {
		return
	}
	d.step.ID, d.step.Path = id.text, d.body.prefix+id.text
	if other := d.step.Body.byID[id.text]; other != nil {
		c.idTaken(d, c.drafts[other.Index], "ids are unique in the workflow, and in each map and loop")
		return
	}
	c.w.byPath[d.step.Path] = d.step
	d.step.Body.byID[id.text] = d.step
}

func (c *compiler) idTaken(d, other *draftStep, why string) {
	first := other.node.get("id")
	c.p.add(d.node.get("id").spot(), codeDuplicateID, "the id %q is taken by %s (line %d); %s", d.step.ID, first.pointer(), first.line, why)
}

func (c *compiler) stepKind(n *node) Kind {
	var found []string
	for _, k := range kinds {
		if n.get(string(k)) != nil {
			found = append(found, string(k))
		}
	}
	switch len(found) {
	case 0:
		c.p.add(n.spot(), codeRequired, "a step needs exactly one of %s", strings.Join(wordsOf(kinds), ", "))
		return ""
	case 1:
	default:
		c.p.add(n.spot(), codeConflict, "a step has exactly one kind; this one has %s", strings.Join(found, " and "))
	}
	return Kind(found[0])
}

// stepKeys checks that every key belongs on a step of its kind.
func (c *compiler) stepKeys(n *node, kind Kind) {
	known := slices.Concat(stepKeys, wordsOf(kinds), kindKeys[kind])
	for _, m := range n.members {
		switch {
		case slices.Contains(known, m.name):
		case slices.Contains(stepLater, m.name):
			c.p.add(m.spot(), codeNotSupported, "%q of a step is part of the format but this version does not run it", m.name)
		case kindOfKey(m.name) != "" && kind != "":
			c.p.add(m.spot(), codeConflict, "%q belongs to the kind %s, this step is of the kind %s", m.name, kindOfKey(m.name), kind)
		case kindOfKey(m.name) == "":
			tail, edit := didYouMean(cmp.Or(keysElsewhere[m.name], m.name), known)
			c.p.suggest(m.spot(), edit, codeUnknownKey, "a step has no key %q%s", m.name, tail)
		}
	}
}

// aStep names a step of a kind in a sentence.
func aStep(k Kind) string {
	if strings.Contains("aeiou", string(k[:1])) {
		return "an " + string(k)
	}
	return "a " + string(k)
}

func wordsOf[T ~string](list []T) []string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return words
}

func kindOfKey(key string) Kind {
	for _, k := range kinds {
		if slices.Contains(kindKeys[k], key) {
			return k
		}
	}
	return ""
}

// namesIn reads a list of names of steps.
func (c *compiler) namesIn(n *node) []*node {
	if !c.p.kind(n, nodeList) {
		return nil
	}
	var names []*node
	for _, item := range n.items {
		if c.p.word(item) != "" {
			names = append(names, item)
		}
	}
	return names
}

// stepTimes reads timeout and retry.
func (c *compiler) stepTimes(d *draftStep) {
	s, timeout, retry := d.step, d.node.get("timeout"), d.node.get("retry")
	judged := s.Kind == KindMerge && d.node.get("merge").get("agent") != nil
	attempted := judged || slices.Contains(kindsAttempted, s.Kind)
	if retry != nil && !attempted && s.Kind != "" {
		c.p.add(retry.spot(), codeConflict, "%s has no attempts of its own; write retry on the steps that call agents and tools", aStep(s.Kind))
	}
	if timeout != nil && slices.Contains(kindsInstant, s.Kind) {
		c.p.add(timeout.spot(), codeConflict, "%s takes no time; it has no timeout", aStep(s.Kind))
	}
	fallback := time.Duration(0)
	if attempted {
		s.Retry = c.retryOver(c.retry, retry)
	}
	if judged || s.Kind == KindAgent || s.Kind == KindTool {
		switch fallback = time.Duration(c.timeout); {
		case fallback > 0:
		case s.Kind != KindTool:
			fallback = TimeoutAgentDefault
		default:
			fallback = TimeoutToolDefault
		}
	}
	s.Timeout = c.p.duration(timeout, TimeoutMax, fallback)
}

func (c *compiler) agentStep(d *draftStep) {
	a := &AgentStep{}
	d.step.Agent = a
	if n := d.node.get("agent"); isChosen(n) {
		a.By = c.chooser(d, n)
	} else if draft := c.agentAt(n, d.step.ID); draft != nil {
		a.Agent = c.laidOver(d, draft)
		c.chainFits(d, &a.Agent, n)
	}
	o := d.owner()
	o.volatile = true
	if n := d.node.get("prompt"); n != nil && c.p.kind(n, nodeText) {
		a.Prompt = c.template(n, o)
	}
	if n := d.node.get("input"); n != nil && c.p.kind(n, nodeObject) {
		a.Input = c.template(n, o)
	}
	d.families = c.namesIn(d.node.get("different_family"))
	if d.node.get("prompt") == nil && d.node.get("input") == nil && a.Agent.Instructions == "" && a.By == nil {
		c.p.add(d.node.get("agent").spot(), codeRequired, `nothing says what the agent is to do; give the step a "prompt" or an "input"`)
	}
}

// chainFits: an attempt that ends before the first entry of its chain may is given up while it waits for an answer that
// is still in time.
func (c *compiler) chainFits(d *draftStep, a *Agent, named *node) {
	chain, limit := &a.Chain, d.step.Timeout
	if c.stored || limit == 0 || len(chain.Entries) == 0 || chain.Entries[0].Timeout <= limit { // a plan has no limit of its own
		return
	}
	at, edit := named.spot(), ""
	for _, n := range []*node{c.root.get("defaults").get("timeout"), d.node.get("timeout")} {
		if n != nil {
			at, edit = n.spot(), formatDuration(chain.Entries[0].Timeout)
		}
	}
	c.p.suggest(at, edit, codeValue,
		"an attempt ends after %s, but the first entry of its chain (%s) may take %s; give the attempt more time, or the entry less",
		formatDuration(limit), clip(chain.Entries[0].Model), formatDuration(chain.Entries[0].Timeout))
}

// agentAt reads who works: the name of an agent, or one written out, which has the name of its step.
func (c *compiler) agentAt(n *node, step string) *draftAgent {
	switch {
	case n == nil || n.kind == nodeBad:
		return nil
	case n.kind == nodeObject:
		draft := c.draftAgent(n, step)
		c.settle(draft)
		return draft
	case n.kind != nodeText:
		c.p.add(n.spot(), codeType, "must be the name of an agent or an agent written out, not %s", n.kind)
		return nil
	}
	return c.knownAgent(n)
}

// knownTool finds a tool by the name that stands at n, or reports that there is none.
func (c *compiler) knownTool(n *node) (ref string, effect SideEffect) {
	ref = c.p.word(n)
	effect, ok := tools[ref]
	switch {
	case ok || ref == "":
	case toolsLater.MatchString(ref):
		c.p.add(n.spot(), codeNotSupported, "the tool %s is part of the format but this version does not run it; it has %s",
			clip(ref), strings.Join(slices.Sorted(maps.Keys(tools)), ", "))
	default:
		tail, edit := didYouMean(ref, keysOf(tools))
		c.p.suggest(n.spot(), edit, codeUnknownTool, "this version has no tool %q%s", clip(ref), tail)
	}
	return ref, effect
}

func (c *compiler) toolStep(d *draftStep) {
	t := &ToolStep{}
	d.step.Tool = t
	if n := d.node.get("tool"); n != nil {
		t.Ref, t.SideEffect = c.knownTool(n)
	}
	if n := d.node.get("side_effect"); n != nil {
		t.SideEffect = SideEffect(c.p.oneOf(n, string(SideEffectNone), string(SideEffectIdempotent), string(SideEffectUnsafe)))
	}
	o := d.owner()
	o.volatile = true
	if n := d.node.get("args"); n != nil && c.p.kind(n, nodeObject) {
		t.Args = c.template(n, o)
	}
	t.Output = c.contract(d.node.get("output"), "output of step "+d.step.Path, contractKeys)
}

// deeper is the place of the lists inside a container.
func (c *compiler) deeper(d *draftStep, a around) (around, bool) {
	a = around{section: a.section, body: a.body, parent: d, depth: a.depth + 1}
	if a.depth >= NestingMax {
		c.p.add(d.node.spot(), codeLimit, "steps are nested more than %d deep", NestingMax)
		return a, false
	}
	return a, true
}

func (c *compiler) groupStep(d *draftStep, a around) {
	g := &GroupStep{}
	d.step.Group = g
	n := d.node.get("group")
	a, ok := c.deeper(d, a)
	if !ok || !c.p.object(n, "a group", groupKeys) {
		return
	}
	a.sequential = c.p.boolean(n.get("sequential"))
	if list := c.p.need(n, "steps", "a group"); list != nil {
		g.Steps = c.stepList(list, a)
	}
	if output := n.get("output"); output != nil {
		g.Output = c.template(output, owner{place: placeOf(a.section), body: a.body, step: d, inside: d, closing: true})
	}
}

func (c *compiler) switchStep(d *draftStep, a around) {
	s := &SwitchStep{}
	d.step.Switch = s
	n := d.node.get("switch")
	a, ok := c.deeper(d, a)
	if !ok || !c.p.kind(n, nodeList) {
		return
	}
	if len(n.items) == 0 {
		c.p.add(n.spot(), codeRequired, "a switch needs at least one case")
	}
	for i, item := range n.items {
		a.kase = i
		if c.p.object(item, "a case", caseKeys) {
			s.Cases = append(s.Cases, c.switchCase(d, item, a, i == len(n.items)-1))
		} else {
			s.Cases = append(s.Cases, SwitchCase{})
		}
	}
}

func (c *compiler) switchCase(d *draftStep, n *node, a around, last bool) SwitchCase {
	var k SwitchCase
	when, otherwise := n.get("when"), n.get("else")
	switch {
	case when != nil && otherwise != nil:
		c.p.add(otherwise.spot(), codeConflict, `a case has "when" or "else", not both`)
	case when == nil && otherwise == nil:
		c.p.add(n.spot(), codeRequired, `a case needs "when", or "else: true" if it is the last`)
	case otherwise != nil && c.p.kind(otherwise, nodeBool):
		d.hasElse = true
		if otherwise.text != "true" {
			c.p.suggest(otherwise.spot(), "true", codeValue, `"else" is true or is not there`)
		} else if !last {
			c.p.add(otherwise.spot(), codeValue, "else must be the last case; those after it could never run")
		}
	case when != nil:
		k.When = c.condition(when, d.owner())
	}
	if list := c.p.need(n, "steps", "a case"); list != nil {
		k.Steps = c.stepList(list, a)
	}
	if output := n.get("output"); output != nil {
		k.Output = c.template(output, owner{place: placeOf(a.section), body: a.body, step: d, inside: d, kase: a.kase, closing: true})
	}
	return k
}
