package workflow

import (
	"encoding/json"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

// MapStep runs its body once for each item of a list. Its output is the list of their outputs, in order of the items;
// null where an item failed.
type MapStep struct {
	Items       *Template // renders to a list
	As          string    // the name that expressions inside call the item by, besides item; empty: none
	Body        *Body
	Output      *Template // of one item; nil: the output of the last listed step
	MaxItems    int
	Concurrency int  // items at work at once
	KeepErrors  bool // a failed item does not fail the map, unless fewer than MinSuccess succeed
	MinSuccess  int
}

// LoopStep runs its body again and again. Its output is that of the last iteration, or of the best.
type LoopStep struct {
	Body            *Body
	Output          *Template // of one iteration; nil: the output of the last listed step
	Until           *Expr     // over output and what is in the body; true: it was the last iteration
	MaxIterations   int
	BestBy          *Expr // a number over output: the higher the better; nil: the last iteration is taken
	StopIfUnchanged bool  // an output like the one before ends it
}

// MergeStep joins the outputs of other steps. It may be done before all of them are.
type MergeStep struct {
	Of       []int // slots
	Strategy Strategy
	By       *Expr      // over output: what of it is compared; nil: all of it
	Quorum   int        // answers needed; majority: equal ones; 0: the strategy's own
	Agent    *AgentStep // who judges; nil: another strategy
}

// Strategy is how a merge makes one output of many.
type Strategy string

// The strategies.
const (
	StrategyCollect   Strategy = "collect"   // the list of all, in order of the steps; null where one failed
	StrategyFirst     Strategy = "first"     // the first success; the others are cancelled
	StrategyMajority  Strategy = "majority"  // the commonest value; its most confident output
	StrategyConsensus Strategy = "consensus" // all are equal
	StrategyJudge     Strategy = "judge"     // an agent reads all and answers
)

// PlanStep lets an agent plan steps while the workflow runs, and runs them as a workflow of their own.
type PlanStep struct {
	Planner    Agent
	Goal       *Template
	Input      *Template // a JSON object: the input of the planned workflow; nil: {}
	Output     *Template // over the planned run's output (root output); nil: that output
	Allow      Allow
	NeedsOK    bool  // a person must approve the plan, if OKWhen holds
	OKWhen     *Expr // over estimate{usd_max, steps, tools}; nil: always
	Replan     int   // times a failed plan is made anew
	Vocabulary Vocabulary
}

// Allow bounds a plan.
type Allow struct {
	Kinds    []Kind
	Agents   []string
	Tools    []string
	MaxSteps int // maps and loops counted by what is in them once
	MaxDepth int // of plans in plans, counted from the run that nobody planned
	MaxCost  usage.Money
}

// Vocabulary is what a planned definition may name, as it stands in the canonical source of the definition around: a
// plan carries a copy of what it names, and has nothing of its own.
type Vocabulary struct {
	Agents, Contracts, Chains map[string]json.RawMessage
}

// WorkflowStep runs another workflow as a run of its own.
type WorkflowStep struct {
	Ref   string            // key of Workflow.Children: name@version; empty: By chooses
	By    *Template         // renders to one of Refs
	Refs  map[string]string // what By may render to → key of Workflow.Children
	Input *Template         // a JSON object; nil: {}
}

// ApprovalStep asks a person.
type ApprovalStep struct {
	Title     *Template
	Show      *Template // a JSON object; nil: nothing
	Form      *Schema   // of what is sent with the answer; nil: none
	Initial   *Template // what the form begins with; nil: nothing
	Choices   []string  // empty: approve and reject, and reject fails the step
	Assignees []string
	Expires   time.Duration // 0: never
}

// WaitStep waits for a time or a signal. Exactly one of For, At and Signal is set.
type WaitStep struct {
	For    *Template // renders to a duration
	At     *Expr     // a timestamp, or text that is one
	Signal *SignalWait
}

// SignalWait is a signal that a step waits for.
type SignalWait struct {
	Name    string
	Match   *Expr         // over event{name, data}; nil: any of the name
	Timeout time.Duration // 0: none
}

// EmitStep says that something happened: to runs that wait for a signal of the name, and to webhooks.
type EmitStep struct {
	Event string
	Data  *Template // nil: null
}

// Gate is what an output must pass before anybody builds on it.
type Gate struct {
	Checks []Check
	Revise int // times the author is told what is wrong and answers again
}

// Check is one check of a gate: Assert, or Judge.
type Check struct {
	Assert  *Expr // over output, confidence and all that the step may read
	Message string

	Judge           *Agent
	Rubric          []Criterion
	MinScore        float64 // 0–10; the smallest score of the judges counts
	DifferentFamily bool    // than the model that made the output
}

// Criterion is one line of a rubric.
type Criterion struct{ Name, Text string }

// OnError says what becomes of a failure of certain classes.
type OnError struct {
	Classes []string // error classes and groups
	Do      Action

	Agent *Agent    // fallback: who does it instead; nil: Chain or Value
	Chain *Chain    // fallback: who is asked instead
	Value *Template // fallback: the output
	To    *Agent    // escalate: who decides; nil: a person
	Level int       // degrade: to this level; 0: the next one
}

// Action is what becomes of a failure.
type Action string

// The actions.
const (
	ActionFallback Action = "fallback"
	ActionEscalate Action = "escalate"
	ActionDegrade  Action = "degrade"
	ActionSkip     Action = "skip"
	ActionFail     Action = "fail"
)

// Rung is one level of the ladder of degradation. It is complete in itself.
type Rung struct {
	Name string
	Omit []int           // Step.Index of what is left out
	Set  map[int]RungSet // by Step.Index: what is done otherwise
	Note string
}

// RungSet is what a level changes of a step: exactly one of the fields is set.
type RungSet struct {
	Agent *Agent
	Chain *Chain
	Value *Template
}

// StepBudget bounds what a step, and all inside it, may spend. One of the fields is set.
type StepBudget struct {
	Cost  usage.Money
	Share float64 // of the limit around it
}
