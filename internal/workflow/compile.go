package workflow

// Compile reads a definition (JSON, or YAML) and checks it as a whole. The error is a *fault.Error: malformed with one
// issue where the source cannot be read (json_syntax, yaml_syntax), else invalid (workflow_invalid) with every problem
// in the order of the document, up to fault.IssuesMax.
//
// The Source of the result carries the built-in chains that the definition names, so that its hash pins them.
func Compile(source []byte) (*Workflow, error) { return CompileWith(source, nil) }

// CompileWith is Compile for a definition that runs other workflows: they are found in the library, and the Source of the
// result carries them.
func CompileWith(source []byte, lib Library) (*Workflow, error) {
	p := &problems{}
	if len(source) > DefinitionBytesMax {
		p.add(spot{}, codeLimit, "the definition has %d bytes; the limit is %d", len(source), DefinitionBytesMax)
		return nil, p.err()
	}
	c := newCompiler(source, p)
	c.library = lib
	return c.compile(source)
}

// Load compiles a definition that was stored: the Source of a Workflow that this version or one before it compiled. It
// means what it meant then, and its hash is the same: what a run was pinned to never changes under it. Rules that
// came later do not refuse it, and where it names a built-in chain without carrying it, it is older than that custom
// and means the chains of that time.
func Load(source []byte) (*Workflow, error) {
	c := newCompiler(source, &problems{})
	c.stored = true
	return c.compile(source)
}

func newCompiler(source []byte, p *problems) *compiler {
	return &compiler{
		p:      p,
		lines:  newLineIndex(source),
		w:      &Workflow{byPath: map[string]*Step{}, Chains: map[string]*Chain{}},
		agents: map[string]*draftAgent{}, circular: map[*node]bool{},
		exprs:   map[exprKey]*draftExpr{},
		objects: newObjects(),
		envs:    map[view]*environment{},

		sharedEnvs: map[envKey]*environment{},
		causes:     map[[2]*draftStep]*draftStep{},
		body:       &draftBody{body: &Body{byID: map[string]*Step{}}},
	}
}

func (c *compiler) compile(source []byte) (*Workflow, error) {
	read := parse
	if c.stored && isJSON(source) {
		read = parseStored
	}
	root, err := read(source, c.p)
	if err != nil {
		return nil, err
	}
	c.root = root
	if c.stored {
		c.library = carriedLibrary{root.get(keyCarried).get(keyWorkflows)}
	}
	return c.whole()
}

// whole compiles the tree.
func (c *compiler) whole() (*Workflow, error) {
	c.definition()
	if err := c.p.err(); err != nil {
		return nil, err
	}
	c.w.Places = places(c.root)
	c.w.Source = c.root.canonical()
	c.w.Hash = hashOf(c.w.Source)
	return c.w, nil
}

// compiler holds what is known while a definition is compiled.
type compiler struct {
	p      *problems
	lines  *lineIndex
	opened map[*node]openings
	root   *node
	w      *Workflow

	stored  bool // it was compiled before: see Load
	planned bool // an agent planned it: its expressions read the input, steps, and what maps and loops give

	library Library // has the workflows that steps run; nil: there are none
	carried int     // bytes of those that are carried

	retry      Retry // of the defaults
	timeout    int64 // of the defaults, nanoseconds; 0: none
	chain      *Chain
	agents     map[string]*draftAgent
	circular   map[*node]bool // the extends of agents that extend each other in a circle
	drafts     []*draftStep   // in the order of Workflow.Steps
	body       *draftBody     // of the workflow itself
	sequential bool

	exprs map[exprKey]*draftExpr
	sites []*site // every place an expression stands

	exprBytes int
	exprsOver bool // a limit of the expressions is broken, and reported

	objects *objects
	envs    map[view]*environment

	sharedEnvs map[envKey]*environment
	causes     map[[2]*draftStep]*draftStep // a map or loop and what it waits for → the step inside that reads it
	omitted    map[int]string               // by index: the rung of the ladder that leaves a step out
}

// definition compiles the tree. The order is: names first, then steps, then what reads them.
func (c *compiler) definition() {
	keys := topKeys
	if c.stored {
		keys.known = append([]string{keyCarried}, keys.known...)
	}
	if !c.p.object(c.root, "the definition", keys) {
		return
	}
	c.head()
	c.contracts()
	c.chains()
	c.defaults()
	c.namedAgents()
	c.listedSteps()
	c.loneDefaults()
	c.ladder()
	c.link()
	c.typed()
	c.baseline()
	for _, a := range c.w.Agents {
		if a.Gate == noGate {
			a.Gate = nil
		}
	}
}

// What a stored definition carries stands under these keys: it is written when it is compiled, by nobody else.
const (
	keyCarried   = "carried"
	keyWorkflows = "workflows"
)

var topKeys = keySet{
	known: []string{
		"spec", "name", "description", "labels", "input", "output", "sequential", "stakes", "mode", "timeout",
		"max_parallel", "priority", "budget", "baseline_model", "contracts", "chains", "agents", "orchestrator", "defaults",
		"steps", "degrade", "on_failure", "finally",
	},
	later: []string{"fairness_key", "concurrency", "context_docs", "retention"},
}

// Limits of labels.
const (
	LabelsMax     = 64
	LabelBytesMax = 256
)

func (c *compiler) head() {
	top := c.root
	if spec := c.p.need(top, "spec", "the definition"); c.p.kind(spec, nodeText) && spec.text != "workflow/v1" {
		c.p.suggest(spec.spot(), "workflow/v1", codeValue, "%q is not a format this version reads; it reads workflow/v1", clip(spec.text))
	}
	if name := c.p.need(top, "name", "the definition"); c.p.kind(name, nodeText) && c.p.name(name.spot(), "a workflow", name.text) {
		c.w.Name = name.text
	}
	c.w.Description = c.p.text(top.get("description"))
	c.w.Labels = c.labels(top.get("labels"))
	c.w.Input = c.schema(top.get("input"), objectInput)
	c.sequential = c.p.boolean(top.get("sequential"))
	c.w.Stakes = c.submissionWord(top.get("stakes"), "low", "normal", "high")
	c.w.Mode = c.submissionWord(top.get("mode"), "interactive", "batch")
	c.w.Timeout = c.p.duration(top.get("timeout"), TimeoutMax, TimeoutDefault)
	c.w.MaxParallel = c.p.integer(top.get("max_parallel"), 1, MaxParallelMax, MaxParallelDefault)
	c.w.Priority = c.p.integer(top.get("priority"), 0, 9, PriorityDefault)
	c.w.Budget = c.budget(top.get("budget"))
	c.w.BaselineModel = c.p.word(top.get("baseline_model"))
}

func (c *compiler) labels(n *node) map[string]string {
	if n == nil || !c.p.kind(n, nodeObject) {
		return nil
	}
	if len(n.members) > LabelsMax {
		c.p.add(n.spot(), codeLimit, "there are %d labels; the limit is %d", len(n.members), LabelsMax)
	}
	labels := make(map[string]string, len(n.members))
	for _, m := range n.members {
		labels[m.name] = c.p.text(m.value)
		if len(m.name) > LabelBytesMax || len(labels[m.name]) > LabelBytesMax {
			c.p.add(m.spot(), codeLimit, "a label's name and value have at most %d bytes each", LabelBytesMax)
		}
	}
	return labels
}

// submissionWord reads stakes or mode: one of the words, or a template over the input.
func (c *compiler) submissionWord(n *node, words ...string) *Template {
	if n == nil || !c.p.kind(n, nodeText) {
		return nil
	}
	t := c.template(n, owner{place: placeSubmission})
	if t != nil && t.constant != nil {
		c.p.oneOf(n, words...)
	}
	return t
}

// contracts compiles the named contracts.
func (c *compiler) contracts() {
	n := c.root.get("contracts")
	if n == nil || !c.p.kind(n, nodeObject) {
		return
	}
	c.w.Contracts = make(map[string]*Schema, len(n.members))
	c.w.ContractValues = make(map[string]any, len(n.members))
	for _, m := range n.members {
		c.p.name(m.spot(), "a contract", m.name)
		s := c.schema(m.value, "contract "+m.name)
		c.w.Contracts[m.name] = s
		if s == nil {
			continue
		}
		if value, err := Decode(s.Raw); err == nil {
			c.w.ContractValues[m.name] = value
		}
	}
}

var contractKeys = keySet{known: []string{"contract", "schema", "format"}}

// contract reads what an answer must be: a named contract or a schema, and the format.
func (c *compiler) contract(n *node, typeName string, keys keySet) Contract {
	var k Contract
	if n == nil || !c.p.object(n, "output", keys) {
		return k
	}
	name, schema := n.get("contract"), n.get("schema")
	if name != nil && schema != nil {
		c.p.add(schema.spot(), codeConflict, `"contract" and "schema" exclude each other`)
	}
	switch {
	case c.p.kind(name, nodeText):
		s, ok := c.w.Contracts[name.text]
		if !ok {
			tail, edit := didYouMean(name.text, keysOf(c.w.Contracts))
			c.p.suggest(name.spot(), edit, codeUnknownSchema, "there is no contract %q%s", clip(name.text), tail)
			break
		}
		k = Contract{Name: name.text, Schema: s, JSON: true}
	case schema != nil:
		k.Schema = c.schema(schema, typeName)
		k.JSON = true
	}
	format := n.get("format")
	if format == nil {
		return k
	}
	if format.kind == nodeText && (format.text == "files" || format.text == "file") {
		c.p.add(format.spot(), codeNotSupported, "the format %s is part of the format but this version does not run it", format.text)
		return k
	}
	switch c.p.oneOf(format, "json", "text") {
	case "json":
		k.JSON = true
	case "text":
		if k.JSON {
			c.p.add(format.spot(), codeConflict, "an answer that must meet a schema is JSON, not text")
		}
	}
	return k
}

func keysOf[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	return names
}
