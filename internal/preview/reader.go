package preview

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/fermata-run/fermata/internal/workflow"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// What is assumed of an input whose schema leaves it open.
const (
	inputTextTokens = 4_000
	inputEntriesMax = 100
)

// reader knows how large what a workflow's expressions read may be, and what of it is known already.
type reader struct {
	w       *workflow.Workflow
	roster  workflow.Roster
	facts   map[string]workflow.ModelFacts
	input   *shape
	given   any // the input, decoded; nil: it was not given
	isGiven bool
	assume  func(about, what string)

	children *children

	outputs map[*workflow.Step]*shape
	lists   map[*workflow.Step]*shape // that maps go through
	known   map[*workflow.Step]*value // of set steps
	schemas map[*workflow.Schema]*shape
	words   map[string]any // run.stakes, run.mode, run.workflow
}

// value is a value, if it is known.
type value struct {
	of    any
	known bool
}

func newReader(w *workflow.Workflow, roster workflow.Roster, input json.RawMessage, known *children, assume func(about, what string)) *reader {
	r := &reader{
		w: w, roster: roster, facts: map[string]workflow.ModelFacts{}, children: known, assume: assume,
		outputs: map[*workflow.Step]*shape{}, lists: map[*workflow.Step]*shape{}, known: map[*workflow.Step]*value{}, schemas: map[*workflow.Schema]*shape{},
	}
	r.readInput(input)
	r.words = map[string]any{"workflow": w.Name}
	for name, t := range map[string]*workflow.Template{"stakes": w.Stakes, "mode": w.Mode} {
		if t == nil {
			r.words[name] = map[string]string{"stakes": "normal", "mode": "batch"}[name]
		} else if v, ok := r.rendered(t.Parts(), w.Body); ok {
			r.words[name] = v
		}
	}
	return r
}

// readInput fills in the defaults, as a run would. What is no value at all counts as not given.
func (r *reader) readInput(input json.RawMessage) {
	if len(input) > 0 {
		if s := r.w.Input; s != nil {
			if filled, err := s.Fill(input); err == nil {
				input = filled
			}
		}
		if v, err := workflow.Decode(input); err == nil {
			r.given, r.isGiven, r.input = v, true, valueShape(v)
			return
		}
	}
	if r.w.Input == nil {
		r.input = &shape{tokens: Span{0, inputTextTokens}}
		return
	}
	read := schemaReader{text: Span{0, inputTextTokens}, entries: inputEntriesMax, unbound: func(at, why string) {
		r.assume(at, why+fmt.Sprintf("; texts of up to %s tokens and lists of up to %d entries are assumed", grouped(inputTextTokens), inputEntriesMax))
	}}
	r.input = read.of(decoded(r.w.Input), "input", 0)
}

func decoded(s *workflow.Schema) any {
	v, err := workflow.Decode(s.Raw)
	if err != nil { // a compiled schema is JSON
		return nil
	}
	return v
}

// schema is the shape of an answer that meets a schema: whatever it leaves open, an output has its limit.
func (r *reader) schema(s *workflow.Schema) *shape {
	if known := r.schemas[s]; known != nil {
		return known
	}
	known := schemaReader{text: Span{0, outputTokensMax}, entries: outputTokensMax}.of(decoded(s), "output", 0).atMost(outputTokensMax)
	r.schemas[s] = known
	return known
}

// template is the shape of what a template renders to, read in a body.
func (r *reader) template(t *workflow.Template, in *workflow.Body) *shape {
	if t == nil {
		return &shape{}
	}
	return r.part(t.Parts(), in)
}

func (r *reader) part(p workflow.TemplatePart, in *workflow.Body) *shape {
	switch {
	case p.Const != nil:
		return constShape(p.Const)
	case p.Expr != nil:
		return r.expr(p.Expr, in)
	case p.Text != nil:
		s, text := &shape{}, 0
		for _, piece := range p.Text {
			if piece.Expr == nil {
				text += len(piece.Text)
			} else {
				s.tokens = s.tokens.plus(r.expr(piece.Expr, in).tokens)
			}
		}
		s.tokens = s.tokens.plus(textTokens(exactly(text)))
		return s
	case p.Items != nil:
		return r.items(p.Items, in)
	}
	o := &shape{tokens: Span{0, 1}}
	for _, m := range p.Members {
		o.member(m.Name, r.part(m.Part, in), true)
	}
	return o
}

func (r *reader) items(items []workflow.TemplatePart, in *workflow.Body) *shape {
	s := &shape{tokens: Span{0, 1}, count: exactly(len(items))}
	for _, item := range items {
		entry := r.part(item, in)
		s.tokens = s.tokens.plus(entry.tokens).plus(Span{0, 1})
		if s.entry == nil {
			s.entry = entry
		} else {
			s.entry = s.entry.either(entry)
		}
	}
	return s
}

// expr is the shape of what an expression gives.
func (r *reader) expr(x *workflow.Expr, in *workflow.Body) *shape {
	if x == nil {
		return unknownShape
	}
	if x.Plain() && x.Refs()[0].Root == "input" { // measured once, however often it is read
		if known, ok := r.input.find(x.Refs()[0].Names); ok {
			return known
		}
	}
	if v, ok := r.eval(x, in); ok {
		return valueShape(v)
	}
	if x.Small() {
		return smallShape
	}
	s := &shape{tokens: textTokens(Span{0, int64(len(x.Source))})} // what is written out in it
	for _, ref := range x.Refs() {
		read := r.ref(ref, in)
		if x.Plain() {
			return read
		}
		s.tokens = s.tokens.plus(read.tokens.maybe())
	}
	return s.atMost(outputTokensMax)
}

// ref is the shape of what is read.
func (r *reader) ref(ref workflow.Ref, in *workflow.Body) *shape {
	switch ref.Root {
	case "input":
		return r.input.at(ref.Names)
	case "steps":
		if s := find(in, ref); s != nil && len(ref.Names) > 1 {
			return r.field(s, ref.Names[1], ref.Names[2:])
		}
		return unknownShape
	case "run":
		return phraseShape
	case "index":
		return smallShape
	case "contracts":
		return valueShape(r.w.ContractValues).at(ref.Names)
	}
	for b := in; b != nil && b.Owner != nil; b = b.Owner.Body {
		switch o := b.Owner; {
		case ref.Root == "iter" && o.Loop != nil:
			if len(ref.Names) > 0 && ref.Names[0] == "last" {
				return r.output(o).at(ref.Names[1:]).maybe()
			}
			return smallShape
		case o.Map != nil && (ref.Root == "item" || ref.Root == o.Map.As):
			return r.mapItems(o).entry.at(ref.Names)
		}
	}
	return unknownShape
}

// find finds the step that is read, in the body or in those around it.
func find(in *workflow.Body, ref workflow.Ref) *workflow.Step {
	if ref.Root != "steps" || len(ref.Names) == 0 {
		return nil
	}
	for b := in; b != nil; b = b.Owner.Body {
		if s := b.Step(ref.Names[0]); s != nil || b.Owner == nil {
			return s
		}
	}
	return nil
}

// field is the shape of a field of a settled step.
func (r *reader) field(s *workflow.Step, field string, names []string) *shape {
	var of *shape
	switch field {
	case "output":
		of = r.output(s).at(names)
	case "summary":
		of = &shape{tokens: Span{1, outputTokensMax}}
		if a := workerOf(s); a != nil && a.Summary != nil {
			of = &shape{tokens: Span{1, int64(a.Summary.MaxTokens)}}
		}
	case "error", "errors", "unresolved", "dissent", "artifacts":
		of = phraseShape
	default:
		of = smallShape
	}
	if mayMiss(s) {
		return of.maybe()
	}
	return of
}

func workerOf(s *workflow.Step) *workflow.Agent {
	switch {
	case s.Agent != nil:
		return &s.Agent.Agent
	case s.Merge != nil && s.Merge.Agent != nil:
		return &s.Merge.Agent.Agent
	}
	return nil
}

// mayMiss reports whether a step may be without an output: it is skipped, or fails and a merge takes that.
func mayMiss(s *workflow.Step) bool {
	if s.Member {
		return true
	}
	for ; s != nil; s = s.Parent {
		if s.When != nil || s.Parent != nil && s.Parent.Kind == workflow.KindSwitch {
			return true
		}
	}
	return false
}

// output is the shape of a step's output. One that is made of itself has any size.
func (r *reader) output(s *workflow.Step) *shape {
	if known, ok := r.outputs[s]; ok {
		return known
	}
	r.outputs[s] = unknownShape
	of := r.outputOf(s).atMost(outputTokensMax)
	r.outputs[s] = of
	return of
}

func (r *reader) outputOf(s *workflow.Step) *shape {
	switch s.Kind {
	case workflow.KindAgent:
		return r.agentOutput(s.Agent)
	case workflow.KindTool:
		if s.Tool.Output.Schema != nil {
			return r.schema(s.Tool.Output.Schema)
		}
		r.assume(s.Path, fmt.Sprintf("what the tool answers is not known; at most %d KB", workflow.OutputBytesMax>>10))
	case workflow.KindSet:
		return r.template(s.Set, s.Body)
	case workflow.KindGroup:
		return r.groupOutput(s)
	case workflow.KindSwitch:
		return r.switchOutput(s)
	case workflow.KindMap:
		return listOf(r.bodyOutput(s.Map.Body, s.Map.Output), r.mapItems(s).count)
	case workflow.KindLoop:
		return r.bodyOutput(s.Loop.Body, s.Loop.Output)
	case workflow.KindMerge:
		return r.mergeOutput(s)
	case workflow.KindApproval:
		if s.Approval.Form != nil {
			return r.schema(s.Approval.Form)
		}
		return smallShape
	case workflow.KindWorkflow:
		return r.childOutput(s)
	case workflow.KindPlan, workflow.KindWait, workflow.KindEmit:
	}
	return unknownShape
}

func (r *reader) agentOutput(a *workflow.AgentStep) *shape {
	if a.By == nil {
		return r.answered(&a.Agent)
	}
	var of *shape
	for _, name := range sortedKeys(a.Choices) {
		one := r.answered(a.Choices[name])
		if of == nil {
			of = one
		} else {
			of = of.either(one)
		}
	}
	return of
}

// answered is the shape of an agent's answer: as its contract says, and as long as it may be.
func (r *reader) answered(a *workflow.Agent) *shape {
	of := &shape{tokens: Span{1, outputTokensMax}}
	if a.Output.Schema != nil {
		of = r.schema(a.Output.Schema)
	}
	return of.atMost(r.answerMax(a))
}

// model is what is known of a model.
func (r *reader) model(name string) workflow.ModelFacts {
	f, known := r.facts[name]
	if !known && r.roster != nil {
		f, _ = r.roster.Model(name)
		r.facts[name] = f
	}
	return f
}

// answerMax is how many tokens an answer of an agent has at most.
func (r *reader) answerMax(a *workflow.Agent) int64 {
	if a.MaxTokens > 0 {
		return int64(a.MaxTokens)
	}
	most := int64(0)
	for _, e := range a.Chain.Entries {
		most = max(most, r.model(e.Model).AnswerTokens)
	}
	if most == 0 {
		most = answerTokensDefault
	}
	r.assume(a.Name, fmt.Sprintf("no max_tokens; answers of up to %s tokens are assumed", grouped(most)))
	return most
}

func (r *reader) groupOutput(s *workflow.Step) *shape {
	if s.Group.Output != nil {
		return r.template(s.Group.Output, s.Body)
	}
	o := &shape{tokens: Span{0, 1}}
	for _, in := range s.Group.Steps {
		o.member(in.ID, r.output(in), !mayMiss(in))
	}
	return o
}

func (r *reader) switchOutput(s *workflow.Step) *shape {
	var of *shape
	for _, k := range s.Switch.Cases {
		one := r.last(k.Steps, k.Output, s.Body)
		if of == nil {
			of = one
		} else {
			of = of.either(one)
		}
	}
	if of == nil {
		return smallShape
	}
	return of
}

func (r *reader) bodyOutput(b *workflow.Body, output *workflow.Template) *shape {
	return r.last(b.Main, output, b)
}

// last is the output of a list of steps: as its template says, else that of the last step.
func (r *reader) last(steps []*workflow.Step, output *workflow.Template, in *workflow.Body) *shape {
	switch {
	case output != nil:
		return r.template(output, in)
	case len(steps) > 0:
		return r.output(steps[len(steps)-1])
	}
	return smallShape
}

func (r *reader) mergeOutput(s *workflow.Step) *shape {
	if s.Merge.Agent != nil {
		return r.agentOutput(s.Merge.Agent)
	}
	var one *shape
	list := &shape{tokens: Span{0, 1}, count: exactly(len(s.Merge.Of))}
	for _, slot := range s.Merge.Of {
		member := r.output(s.Body.Steps[slot])
		list.tokens = list.tokens.plus(member.tokens.maybe()).plus(Span{1, 2})
		if one == nil {
			one = member
		} else {
			one = one.either(member)
		}
	}
	if s.Merge.Strategy != workflow.StrategyCollect && one != nil {
		return one
	}
	list.entry = one
	return list
}

// childOutput is the output of another workflow, whatever its input.
func (r *reader) childOutput(s *workflow.Step) *shape {
	var of *shape
	for _, ref := range childrenOf(s) {
		child := r.w.Children[ref]
		if child == nil {
			return unknownShape
		}
		one := r.children.outputs[child]
		if one == nil {
			one = newReader(child, r.roster, nil, r.children, func(string, string) {}).last(child.Main, child.Output, child.Body)
			r.children.outputs[child] = one
		}
		if of == nil {
			of = one
		} else {
			of = of.either(one)
		}
	}
	if of == nil {
		return unknownShape
	}
	return of
}

// childrenOf are the workflows that a step may run.
func childrenOf(s *workflow.Step) []string {
	if s.Workflow.By == nil {
		return []string{s.Workflow.Ref}
	}
	refs := slices.Collect(maps.Values(s.Workflow.Refs))
	slices.Sort(refs)
	return slices.Compact(refs)
}

// mapItems is the shape of the list that a map goes through. Its count is within the map's limit.
func (r *reader) mapItems(s *workflow.Step) *shape {
	if known := r.lists[s]; known != nil {
		return known
	}
	most := int64(s.Map.MaxItems)
	r.lists[s] = &shape{entry: unknownShape, count: Span{min(1, most), most}} // of a list that is made of itself
	list := *r.template(s.Map.Items, s.Body)
	if list.entry == nil { // nothing is known of it, or it is empty
		list.entry, list.count = &shape{tokens: list.tokens.maybe()}, Span{min(1, most), most}
		if list.tokens.High <= 1 {
			list.count = Span{}
		}
	}
	list.count = list.count.atMost(most)
	r.lists[s] = &list
	return &list
}
