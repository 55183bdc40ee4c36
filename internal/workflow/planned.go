package workflow

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

var (
	plannedKeys = keySet{known: []string{"steps", "output"}}
	// agentOwnKeys say who an agent is: a plan says what it is to do.
	agentOwnKeys = []string{"role", "model", "chain", "route", "instructions", "delegates"}
)

// CompilePlan compiles what a planner answered, {"steps": […], "output": template?}, to a whole definition of its own,
// and holds it against what is allowed. It has copies of the agents, contracts and chains that it names, and can spend
// what the plan may. depth is that of the plan, counted from the run that nobody planned: 1 and up. The error is a
// *fault.Error as that of Compile; its problems point into what was planned.
func CompilePlan(p *PlanStep, w *Workflow, planned json.RawMessage, depth int) (*Workflow, error) {
	c := newCompiler(planned, &problems{})
	c.planned = true
	if len(planned) > DefinitionBytesMax {
		c.p.add(spot{}, codeLimit, "the plan has %d bytes; the limit is %d", len(planned), DefinitionBytesMax)
		return nil, c.p.err()
	}
	if err := checkEncoding(planned, jsonSyntax); err != nil {
		return nil, err
	}
	answer, err := parseJSON(planned, c.p)
	if err != nil {
		return nil, err
	}
	if !c.p.object(answer, "a plan", plannedKeys) {
		return nil, c.p.err()
	}
	if depth > p.Allow.MaxDepth {
		c.p.add(answer.spot(), codeNotAllowed, "plans may stand %d deep in each other; this one is at %d", p.Allow.MaxDepth, depth)
	}
	steps := answer.get("steps")
	(&allowance{c.p, p, depth}).steps(steps)
	if c.root, err = p.whole(w, answer); err != nil {
		return nil, err
	}
	plan, err := c.whole()
	if n := len(c.w.Steps); n > p.Allow.MaxSteps {
		c.p.add(steps.spot(), codeNotAllowed, "the plan has %s, counting those inside others; it may have %d", count(n, "step"), p.Allow.MaxSteps)
		return nil, c.p.err()
	}
	return plan, err
}

// whole is the definition that a plan is.
func (p *PlanStep) whole(w *Workflow, answer *node) (*node, error) {
	from := &lexicon{}
	var err error
	for _, part := range []struct {
		to   **node
		from map[string]json.RawMessage
	}{{&from.agents, p.Vocabulary.Agents}, {&from.contracts, p.Vocabulary.Contracts}, {&from.chains, p.Vocabulary.Chains}} {
		if *part.to, err = objectOf(part.from); err != nil {
			return nil, err
		}
	}
	root := &node{kind: nodeObject, line: 1, col: 1}
	root.insert("spec", textNode("workflow/v1"))
	root.insert("name", textNode(p.nameIn(w)))
	budget := &node{kind: nodeObject, line: 1, col: 1}
	budget.insert("usd", textNode(p.Allow.MaxCost.String()))
	budget.insert("on_exceeded", textNode(string(OnExceededFail)))
	root.insert("budget", budget)
	for _, m := range answer.members {
		if slices.Contains(plannedKeys.known, m.name) {
			root.insert(m.name, m.value)
		}
	}
	for _, name := range textsUnder(answer, agentNamingKeys...) {
		from.agent(name)
	}
	for name, n := range from.named {
		root.set("agents", name, n)
	}
	root.copyNamed("contracts", "contract", from.contracts)
	root.copyNamed("chains", "chain", from.chains)
	return root, nil
}

// copyNamed copies what is named under a key anywhere in a definition.
func (n *node) copyNamed(to, key string, from *node) {
	for _, name := range textsUnder(n, key) {
		if v := from.get(name); v != nil && n.get(to).get(name) == nil {
			n.set(to, name, v)
		}
	}
}

func textNode(text string) *node { return &node{kind: nodeText, text: text, line: 1, col: 1} }

// objectOf reads the parts of a vocabulary; what is in them was compiled before.
func objectOf(parts map[string]json.RawMessage) (*node, error) {
	object := &node{kind: nodeObject, line: 1, col: 1}
	for name, raw := range parts {
		n, err := parseJSON(raw, &problems{})
		if err != nil {
			return nil, err
		}
		n.place(1, 1)
		object.put(name, n)
	}
	object.adopt()
	return object, nil
}

// nameIn is the name of the plan: that of the workflow and of the step.
func (p *PlanStep) nameIn(w *Workflow) string {
	name := w.Name
	for _, s := range w.Steps {
		if s.Plan == p {
			name += "." + s.ID
		}
	}
	return name[:min(len(name), nameBytesMax)]
}

// allowance holds the steps of a plan against what it may use.
type allowance struct {
	p     *problems
	plan  *PlanStep
	depth int
}

func (a *allowance) steps(list *node) {
	if list == nil {
		return
	}
	for _, n := range list.items {
		if n.kind == nodeObject && !a.p.full() {
			a.step(n)
		}
	}
}

func (a *allowance) step(n *node) {
	for _, k := range kinds {
		if v := n.get(string(k)); v != nil && !slices.Contains(a.plan.Allow.Kinds, k) {
			a.refuse(v, "a step of the kind %q", string(k), wordsOf(a.plan.Allow.Kinds))
		}
	}
	a.agent(n.get("agent"))
	if n.get("agent") != nil {
		for _, key := range agentOwnKeys {
			if v := n.get(key); v != nil {
				a.p.add(v.spot(), codeNotAllowed, "a plan says what an agent is to do, not who it is; leave out %q", key)
			}
		}
	}
	if tool := n.get("tool"); tool != nil && tool.kind == nodeText && tools[tool.text] != "" && !slices.Contains(a.plan.Allow.Tools, tool.text) {
		a.refuse(tool, "the tool %q", tool.text, a.plan.Allow.Tools)
	}
	a.agent(n.get("merge").get("agent"))
	a.besides(n)
	for _, key := range []string{"map", "loop", "group"} {
		a.steps(n.get(key).get("steps"))
	}
	if cases := n.get("switch"); cases != nil {
		for _, k := range cases.items {
			a.steps(k.get("steps"))
		}
	}
	if plan := n.get("plan"); plan != nil {
		a.inner(plan)
	}
}

// besides holds who judges, stands in and decides against what is allowed.
func (a *allowance) besides(n *node) {
	if checks := n.get("gate").get("checks"); checks != nil {
		for _, k := range checks.items {
			a.agent(k.get("judge"))
		}
	}
	entries := n.get("on_error")
	if entries == nil {
		return
	}
	for _, e := range entries.items {
		a.agent(e.get("agent"))
		if to := e.get("to"); to != nil && to.text != toPerson {
			a.agent(to)
		}
		if chain := e.get("chain"); chain != nil && chain.kind != nodeText {
			a.p.add(chain.spot(), codeNotAllowed, "a plan has no chains of its own; name one")
		}
	}
}

func (a *allowance) agent(n *node) {
	switch {
	case n == nil:
	case n.kind == nodeObject:
		a.p.add(n.spot(), codeNotAllowed, "a plan has no agents of its own; name one of %s", strings.Join(a.plan.Allow.Agents, ", "))
	case n.kind == nodeText && !slices.Contains(a.plan.Allow.Agents, n.text):
		a.refuse(n, "the agent %q", n.text, a.plan.Allow.Agents)
	}
}

func (a *allowance) refuse(n *node, format, name string, allowed []string) {
	tail, edit := didYouMean(name, allowed)
	a.p.suggest(n.spot(), edit, codeNotAllowed, format+" is not allowed in this plan%s", clip(name), tail)
}

// inner holds a plan in the plan against what is allowed: it may not allow more.
func (a *allowance) inner(n *node) {
	if a.depth >= a.plan.Allow.MaxDepth {
		a.p.add(n.spot(), codeNotAllowed, "plans may stand %d deep in each other; one in this plan would be deeper", a.plan.Allow.MaxDepth)
	}
	if planner := n.get("agent"); planner != nil && planner.text != a.plan.Planner.Name {
		a.agent(planner)
	}
	allow := n.get("allow")
	for _, list := range []struct {
		key, format string
		allowed     []string
	}{
		{"kinds", "the kind %q", wordsOf(a.plan.Allow.Kinds)},
		{"agents", "the agent %q", a.plan.Allow.Agents},
		{"tools", "the tool %q", a.plan.Allow.Tools},
	} {
		if named := allow.get(list.key); named != nil {
			for _, item := range named.items {
				if item.kind == nodeText && !slices.Contains(list.allowed, item.text) {
					a.refuse(item, list.format, item.text, list.allowed)
				}
			}
		}
	}
	a.most(allow.get("max_steps"), float64(a.plan.Allow.MaxSteps))
	a.most(allow.get("max_depth"), float64(a.plan.Allow.MaxDepth))
	if usd := allow.get("max_usd"); usd != nil {
		if m, err := parseMoney(usd.text); err == nil && m > a.plan.Allow.MaxCost {
			a.p.add(usd.spot(), codeNotAllowed, "a plan in this plan may spend %s dollars at most, as this one", a.plan.Allow.MaxCost)
		}
	}
}

// most refuses a limit that is above the plan's own.
func (a *allowance) most(n *node, limit float64) {
	if n == nil || n.kind != nodeNumber {
		return
	}
	if f, err := strconv.ParseFloat(n.text, 64); err == nil && f > limit {
		a.p.add(n.spot(), codeNotAllowed, "%s of a plan in this plan is %v at most, as its own", n.name, limit)
	}
}
