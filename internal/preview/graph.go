package preview

import (
	"github.com/fermata-run/fermata/internal/workflow"
)

// Graph is a workflow to be drawn. Nodes are in the order of Workflow.Steps, edges in that of the steps that wait.
type Graph struct {
	Nodes []Node `json:"nodes"`
	Edges []Edge `json:"edges"`
}

// Node is a step.
type Node struct {
	Path      string        `json:"path"`
	ID        string        `json:"id"`
	Kind      workflow.Kind `json:"kind"`
	Label     string        `json:"label"`               // what it does, in a few words
	Container string        `json:"container,omitempty"` // path of the step it stands in; empty: it stands at the top
	Case      *int          `json:"case,omitempty"`      // of the switch it stands in, from 0
	Section   string        `json:"section"`             // main, on_failure or finally
	// Level is its layer among the steps that stand where it stands (in the same case): it waits for one of the layer
	// before. Steps of one layer do not wait for each other.
	Level  int      `json:"level"`
	Agent  string   `json:"agent,omitempty"`
	Tool   string   `json:"tool,omitempty"`
	Models []string `json:"models,omitempty"` // in the order they are asked
	When   string   `json:"when,omitempty"`
	Flags  []string `json:"flags,omitempty"` // one of FlagXxx each
}

// Edge says that a step waits for another one.
type Edge struct {
	From string `json:"from"` // path of the step that is waited for
	To   string `json:"to"`
	Why  string `json:"why"` // one of workflow.EdgeXxx
	// Fields are what is read of it, by the waiting step or something in it: output, summary, status …
	Fields []string `json:"fields,omitempty"`
}

// What a drawing should show of a step.
const (
	FlagApproval = "approval" // a person may be asked
	FlagUnsafe   = "unsafe"   // it does to the world what cannot be repeated
	FlagGate     = "gate"     // its output is checked before anybody builds on it
	FlagWaits    = "waits"    // for a time or a signal
)

// GraphOf shows what hangs on what.
func GraphOf(w *workflow.Workflow) Graph {
	g := Graph{Nodes: make([]Node, len(w.Steps)), Edges: []Edge{}}
	for i, s := range w.Steps {
		g.Nodes[i] = nodeOf(s)
	}
	for _, list := range listsOf(w) {
		for s, level := range levels(list) {
			g.Nodes[s.Index].Level = level
		}
	}
	read := fieldsRead(w)
	for _, s := range w.Steps {
		for _, e := range s.Edges {
			on := s.Body.Steps[e.Slot]
			g.Edges = append(g.Edges, Edge{From: on.Path, To: s.Path, Why: e.Why, Fields: sortedKeys(read[[2]*workflow.Step{on, s}])})
		}
	}
	return g
}

func nodeOf(s *workflow.Step) Node {
	n := Node{
		Path: s.Path, ID: s.ID, Kind: s.Kind, Label: labelOf(s), Flags: flagsOf(s),
		Section: [...]string{workflow.SectionMain: "main", workflow.SectionOnFailure: "on_failure", workflow.SectionFinally: "finally"}[s.Section],
	}
	if c := containerOf(s); c != nil {
		n.Container = c.Path
		if c.Switch != nil {
			n.Case = &s.Case
		}
	}
	if s.When != nil {
		n.When = s.When.Source
	}
	if s.Tool != nil {
		n.Tool = s.Tool.Ref
	}
	if a := askedOf(s); a != nil {
		n.Agent, n.Models = a.Name, modelsOf(a)
	}
	return n
}

// askedOf is the agent that works at a step; of several that may, the one it falls back to.
func askedOf(s *workflow.Step) *workflow.Agent {
	if s.Plan != nil {
		return &s.Plan.Planner
	}
	return workerOf(s)
}

func modelsOf(a *workflow.Agent) []string {
	var models []string
	for _, e := range a.Chain.Entries {
		models = append(models, e.Model)
	}
	if a.Route != "" {
		models = append(models, "route "+a.Route)
	}
	return models
}

// containerOf is the step that another one stands in, or nil.
func containerOf(s *workflow.Step) *workflow.Step {
	if s.Parent != nil {
		return s.Parent
	}
	return s.Body.Owner
}

func flagsOf(s *workflow.Step) []string {
	var flags []string
	asks := s.Approval != nil || s.Plan != nil && s.Plan.NeedsOK
	for _, h := range s.OnError {
		asks = asks || h.Do == workflow.ActionEscalate && h.To == nil
	}
	if asks {
		flags = append(flags, FlagApproval)
	}
	if s.Tool != nil && s.Tool.SideEffect == workflow.SideEffectUnsafe {
		flags = append(flags, FlagUnsafe)
	}
	if a := workerOf(s); s.Gate != nil || a != nil && a.Gate != nil {
		flags = append(flags, FlagGate)
	}
	if s.Wait != nil {
		flags = append(flags, FlagWaits)
	}
	return flags
}

// listsOf are the lists of steps that stand side by side: those of the workflow, and those of each container.
func listsOf(w *workflow.Workflow) [][]*workflow.Step {
	lists := [][]*workflow.Step{w.Main, w.OnFailure, w.Finally}
	for _, s := range w.Steps {
		switch s.Kind {
		case workflow.KindGroup:
			lists = append(lists, s.Group.Steps)
		case workflow.KindSwitch:
			for _, k := range s.Switch.Cases {
				lists = append(lists, k.Steps)
			}
		case workflow.KindMap:
			lists = append(lists, s.Map.Body.Main)
		case workflow.KindLoop:
			lists = append(lists, s.Loop.Body.Main)
		default:
		}
	}
	return lists
}

// levels puts steps that stand side by side into layers: each right behind the last one it waits for, itself or through
// what is in it.
func levels(list []*workflow.Step) map[*workflow.Step]int {
	waits := waitsOf(list)
	of := map[*workflow.Step]int{}
	var level func(s *workflow.Step) int
	level = func(s *workflow.Step) int {
		if n, known := of[s]; known {
			return n
		}
		n := 0
		for _, on := range waits[s] {
			n = max(n, level(on)+1)
		}
		of[s] = n
		return n
	}
	for _, s := range list {
		level(s)
	}
	return of
}

// waitsOf says which steps of a list wait for which others of it, themselves or through what is in them.
func waitsOf(list []*workflow.Step) map[*workflow.Step][]*workflow.Step {
	waits := map[*workflow.Step][]*workflow.Step{}
	if len(list) == 0 {
		return waits
	}
	beside := map[*workflow.Step]bool{}
	for _, s := range list {
		beside[s] = true
	}
	listed := func(s *workflow.Step) *workflow.Step {
		for s != nil && !beside[s] {
			s = s.Parent
		}
		return s
	}
	body := list[0].Body
	for _, in := range body.Steps {
		s := listed(in)
		if s == nil {
			continue
		}
		for _, e := range in.Edges {
			if on := listed(body.Steps[e.Slot]); on != nil && on != s {
				waits[s] = append(waits[s], on)
			}
		}
	}
	return waits
}

// fieldsRead gathers what steps read of others of their body, themselves or through what is in them.
func fieldsRead(w *workflow.Workflow) map[[2]*workflow.Step]map[string]bool {
	read := map[[2]*workflow.Step]map[string]bool{}
	for _, s := range w.Steps {
		for _, r := range s.Reads {
			by := s
			for by.Body != r.Step.Body && by.Body.Owner != nil {
				by = by.Body.Owner
			}
			edge := [2]*workflow.Step{r.Step, by}
			if read[edge] == nil {
				read[edge] = map[string]bool{}
			}
			read[edge][r.Field] = true
		}
	}
	return read
}
