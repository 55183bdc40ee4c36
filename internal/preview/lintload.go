package preview

import (
	"github.com/fermata-run/fermata/internal/workflow"
)

// What an output is taken for where its definition does not say.
const (
	answerTokens  = 4_096 // the service's own limit of an answer
	toolTokens    = 1_000
	summaryTokens = 200
	smallTokens   = 20 // a word, a number, a truth value
	// largeTokens: an answer that may be longer than this is worth a summary. Two pages of text.
	largeTokens = 1_000
)

// load is how much a prompt takes on with an output.
type load struct {
	tokens int64
	large  int // whole answers of agents in it that may be large
}

func (a load) plus(b load) load { return load{a.tokens + b.tokens, a.large + b.large} }

func (a load) times(n int) load { return load{a.tokens * int64(n), a.large * n} }

func (a load) most(b load) load { return load{max(a.tokens, b.tokens), max(a.large, b.large)} }

// loadOf is how much the whole output of a step may be, as far as its definition bounds it.
func (l *linter) loadOf(s *workflow.Step) load {
	if l.loads[s.Index] == nil {
		l.loads[s.Index] = &load{} // of a loop that is asked while it is worked out
		found := l.work(s)
		l.loads[s.Index] = &found
	}
	return *l.loads[s.Index]
}

func (l *linter) work(s *workflow.Step) load {
	switch s.Kind {
	case workflow.KindAgent:
		var k load
		for _, a := range l.agents(s) {
			k = k.most(l.answerLoad(a))
		}
		return k
	case workflow.KindMap:
		return l.handedLoad(s).times(s.Map.MaxItems)
	case workflow.KindLoop, workflow.KindGroup, workflow.KindSwitch, workflow.KindSet:
		return l.handedLoad(s)
	case workflow.KindMerge:
		return l.merged(s)
	case workflow.KindTool:
		return load{tokens: toolTokens}
	case workflow.KindPlan, workflow.KindWorkflow:
		return load{answerTokens, 1}
	default:
		return load{tokens: smallTokens}
	}
}

func (l *linter) answerLoad(a *workflow.Agent) load {
	n := l.answerMax(a)
	if n > largeTokens {
		return load{n, 1}
	}
	return load{tokens: n}
}

// answerMax is how many tokens an answer may have: by max_tokens, and by its contract where that leaves nothing open.
func (l *linter) answerMax(a *workflow.Agent) int64 {
	n := int64(answerTokens)
	if a.MaxTokens > 0 {
		n = int64(a.MaxTokens)
	}
	if a.Output.Schema != nil {
		n = min(n, l.schema(a.Output.Schema).tokens)
	}
	return n
}

// handedLoad is what the output of a container or a set is made of.
func (l *linter) handedLoad(s *workflow.Step) load {
	var k load
	for _, in := range l.handedOut(s) {
		if s.Switch != nil {
			k = k.most(l.loadOf(in))
		} else {
			k = k.plus(l.loadOf(in))
		}
	}
	for _, r := range s.Reads {
		if r.Place == "output" || r.Place == "set" {
			k = k.plus(l.readLoad(r))
		}
	}
	return k
}

func (l *linter) merged(s *workflow.Step) load {
	if a := s.Merge.Agent; a != nil {
		return l.answerLoad(&a.Agent)
	}
	var k load
	for _, slot := range s.Merge.Of {
		one := l.loadOf(s.Body.Steps[slot])
		if s.Merge.Strategy == workflow.StrategyCollect {
			k = k.plus(one)
		} else {
			k = k.most(one)
		}
	}
	return k
}

// readLoad is how much of a step's output is read: of a field, its part.
func (l *linter) readLoad(r workflow.Read) load {
	switch {
	case r.Field == "summary":
		if a := workerOf(r.Step); a != nil && a.Summary != nil && a.Summary.MaxTokens > 0 {
			return load{tokens: int64(a.Summary.MaxTokens)}
		}
		return load{tokens: summaryTokens}
	case r.Field != "output":
		return load{tokens: smallTokens}
	case l.isWhole(r):
		return l.loadOf(r.Step)
	}
	whole := l.loadOf(r.Step)
	if r.Step.Map != nil { // one item
		return load{tokens: whole.tokens / int64(max(r.Step.Map.MaxItems, 1))}
	}
	return load{tokens: whole.tokens / int64(max(l.fields(r.Step), 1))}
}

// isWhole reports whether all of an output is read: the one field that an answer has is all of it, too.
func (l *linter) isWhole(r workflow.Read) bool {
	return r.Field == "output" && (r.Whole || r.Step.Agent != nil && l.fields(r.Step) == 1)
}

// fields is how many names the output of a step has; 0: not known.
func (l *linter) fields(s *workflow.Step) int {
	members := func(t *workflow.Template) int {
		if t == nil {
			return 0
		}
		return len(t.Parts().Members)
	}
	switch {
	case s.Agent != nil && s.Agent.Agent.Output.Schema != nil:
		return l.schema(s.Agent.Agent.Output.Schema).fields
	case s.Set != nil:
		return members(s.Set)
	case s.Loop != nil:
		return members(s.Loop.Output)
	case s.Group != nil && s.Group.Output != nil:
		return members(s.Group.Output)
	case s.Group != nil:
		return len(s.Group.Steps)
	}
	return 0
}

// seen is what a JSON Schema says of the size of a value.
type seen struct {
	tokens int64 // at most, with answerTokens for what it leaves open
	fields int   // of an object
	of     map[string]any
}

func (l *linter) schema(s *workflow.Schema) seen {
	if known, ok := l.schemas[s]; ok {
		return known
	}
	var k seen
	k.of, _ = decoded(s).(map[string]any) //nolint:errcheck // a schema may be true
	if properties, ok := k.of["properties"].(map[string]any); ok {
		k.fields = len(properties)
	}
	k.tokens = schemaReader{text: Span{0, answerTokens}, entries: answerTokens}.of(k.of, "", 0).tokens.High
	l.schemas[s] = k
	return k
}

// trivial answers choose among a few words, or are a number: nothing is made, and nothing but the choice can be wrong.
func (l *linter) trivial(a *workflow.Agent) bool {
	const most = 60 // a handful of such fields with their names
	return a.Output.Schema != nil && l.schema(a.Output.Schema).tokens <= most
}
