// Package workflow is the language: a definition (JSON or YAML) is parsed with its positions, checked as a whole and
// compiled into a Workflow. Pure: no context, clock, randomness or IO.
package workflow

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
)

// Hash identifies a definition: SHA-256 of its canonical JSON.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Workflow is a compiled definition. It is immutable and safe for concurrent use.
type Workflow struct {
	Name        string
	Description string
	Labels      map[string]string
	Hash        Hash
	Source      json.RawMessage // canonical JSON: sorted keys, no insignificant space

	Input         *Schema   // of the run's input; nil: any JSON value
	Output        *Template // of the run's result; nil: the output of the last listed main step
	Stakes        *Template // renders to low, normal or high; nil: normal
	Mode          *Template // renders to interactive or batch; nil: batch
	Timeout       time.Duration
	MaxParallel   int
	Priority      int
	BaselineModel string   // savings are against it; empty: the dearest of Models
	Budget        *Budget  // nil: none
	Models        []string // every model that the chain of a step names, sorted

	Contracts map[string]*Schema
	Agents    map[string]*Agent
	Chains    map[string]*Chain // its own, and the built-in ones it names

	Orchestrator   *Agent               // answers escalations and needs_decision; nil: a person does
	Degrade        []Rung               // the ladder: level 1 first
	Signals        []string             // names of the signals that its steps wait for, sorted
	Children       map[string]*Workflow // by reference (name@version): the workflows its steps may run
	ContractValues map[string]any       // the schemas of Contracts, decoded: the root contracts

	// Places says where what stands: by pointer, the top-level keys that were written, and each agent, chain and contract.
	Places map[string]Position

	Body                     *Body   // all that is in no map and no loop
	Steps                    []*Step // every step; a container stands before its contents; Step.Index is the place here
	Main, OnFailure, Finally []*Step // the top-level lists, in listed order

	byPath map[string]*Step
}

// Step finds a step by its path in the definition, or nil.
func (w *Workflow) Step(path string) *Step { return w.byPath[path] }

// Body is a set of steps that share their names and begin together: those of the workflow, of a map or of a loop. While
// a workflow runs, there is one instance of it for each item or iteration.
type Body struct {
	Owner *Step   // the map or loop it belongs to; nil: the workflow itself
	Steps []*Step // every step in it; groups and switches stand before their contents; Step.Slot is the place here
	Main  []*Step // its top-level steps, in listed order; of the workflow: Workflow.Main

	byID map[string]*Step
}

// Step finds a step of the body by its id, or nil.
func (b *Body) Step(id string) *Step { return b.byID[id] }

// Kind is the one kind key of a step.
type Kind string

// The kinds of step.
const (
	KindAgent    Kind = "agent"
	KindTool     Kind = "tool"
	KindMap      Kind = "map"
	KindLoop     Kind = "loop"
	KindGroup    Kind = "group"
	KindSwitch   Kind = "switch"
	KindMerge    Kind = "merge"
	KindPlan     Kind = "plan"
	KindWorkflow Kind = "workflow"
	KindApproval Kind = "approval"
	KindWait     Kind = "wait"
	KindEmit     Kind = "emit"
	KindSet      Kind = "set"
)

// Section is the top-level list a step belongs to, itself or through its containers.
type Section uint8

// The sections, in the order they run.
const (
	SectionMain Section = iota
	SectionOnFailure
	SectionFinally
)

// Step is one compiled step. Exactly one of Agent … Set is set, by Kind.
type Step struct {
	ID      string
	Path    string // unique in the workflow: the ids of the maps and loops around it, then its own, with dots between
	Index   int
	Body    *Body // it stands in
	Slot    int   // place in Body.Steps
	Kind    Kind
	Section Section
	Parent  *Step // the group or switch around it; nil at the top
	Case    int   // which case of its parent switch it belongs to

	Edges      []Edge // steps to be settled before this one is ready, by slot; without duplicates
	Dependants []int  // slots of the steps that have an edge to it
	Member     bool   // a merge reads it: its failure is not the run's

	When    *Expr
	Timeout time.Duration // of one attempt; of a container: of everything inside; 0: none
	Retry   Retry         // of agent, tool, workflow and plan steps, and of merges by a judge
	Gate    *Gate         // of agent and tool steps; nil: that of the agent that works, if it has one
	OnError []OnError     // the first that names the class of a failure says what becomes of it
	Budget  *StepBudget   // nil: none of its own

	Labels map[string]string
	Pos    Position
	Reads  []Read // by all its expressions but those of the steps inside

	// Volatile: the input reads the clock or the running cost, so it cannot be rendered again later
	// and is kept in the log.
	Volatile bool

	Agent    *AgentStep
	Tool     *ToolStep
	Map      *MapStep
	Loop     *LoopStep
	Group    *GroupStep
	Switch   *SwitchStep
	Merge    *MergeStep
	Plan     *PlanStep
	Workflow *WorkflowStep
	Approval *ApprovalStep
	Wait     *WaitStep
	Emit     *EmitStep
	Set      *Template // a JSON object
}

// Edge says that a step waits for another of its body, and why.
type Edge struct {
	Slot int
	Why  string // one of the EdgeXxx: the first that holds
}

// Why one step waits for another.
const (
	EdgeNeeds    = "needs"
	EdgeReads    = "reads"
	EdgeMember   = "member" // merge.of
	EdgeFamily   = "family" // different_family
	EdgeSequence = "sequence"
)

// AgentStep is one agent at work: the agent's definition with the step's own keys laid over it. Where By chooses, Agent has
// only what all who may be chosen have in common: their contract.
type AgentStep struct {
	Agent   Agent
	By      *Template         // renders to the name of one of Choices, which works instead of Agent; nil: Agent does
	Choices map[string]*Agent // with the step's own keys laid over each
	Prompt  *Template         // nil: none
	Input   *Template         // a JSON object shown to the agent after the prompt; nil: none

	DifferentFamily []int // slots of the steps whose models' families are passed over
}

// Agent has one clear task each. Either Chain has entries (a bare model becomes a chain of one) or Route is set.
type Agent struct {
	Name         string
	Role         string // orchestrator, grinder, validator or empty
	Instructions string
	Chain        Chain
	Output       Contract
	MaxTokens    int      // of one answer; 0: the service's default
	Temperature  *float64 // nil: the provider's default

	Route         string   // task class that chooses the chain when it is called, or auto; empty: Chain
	Baseline      []string // savings are against the dearest of these
	ContextTokens int64    // the most that a prompt may have; 0: the model's window
	Overflow      Overflow // what becomes of a longer one; empty: OverflowFail

	Summary   *Summary // a short form of its output is made for who builds on it; nil: none
	Delegates []*Agent // it may hand them scoped tasks, and gets their summary back
	MaxTurns  int      // answers with requests to delegates, before it must come to an end
	Gate      *Gate    // of every step it works at that has none of its own

	Pos Position
}

// Summary says how the short form of an output is made.
type Summary struct {
	MaxTokens int
	Model     string // empty: the one that made the output
}

// Overflow says what becomes of a prompt that is longer than it may be.
type Overflow string

// What becomes of a prompt that is longer than it may be.
const (
	OverflowFail Overflow = "fail" // context_length; the default
	// OverflowTrim leaves out the middle of the longest message that is not stable, until it fits, and says so in its place
	// and in the record of the call.
	OverflowTrim Overflow = "trim"
)

// Contract is what an answer must be. The zero value is free text.
type Contract struct {
	Name   string  // of a named contract; empty: inline or none
	Schema *Schema // nil: any
	JSON   bool    // the answer must be JSON (always true when Schema is set)
}

// Chain is the order in which models are asked until one answers.
type Chain struct {
	Name    string // empty: made of a bare model
	Entries []ChainEntry

	Hedge      bool          // a slow entry is not waited for: the next one is asked beside it, and the first good answer wins
	HedgeAfter time.Duration // how long it is waited for; 0: the 95th percentile of the time its answers took to begin
	AcceptBest bool          // where no entry's answer is accepted, the surest one is taken, and marked
	OnPolicy   bool          // an answer withheld for its content is asked for at the next entry
	LongerOnce bool          // an answer cut at its token limit is asked for once more with twice the limit
}

// Budget bounds what a run may spend.
type Budget struct {
	Cost       usage.Money // 0: no limit in money
	Tokens     int64       // of all types; 0: no limit in tokens
	WarnAt     float64     // share of either at which the log says so; 0.8
	OnExceeded OnExceeded
}

// OnExceeded says what becomes of a run whose budget refuses a call.
type OnExceeded string

// What becomes of a run whose budget refuses a call.
const (
	OnExceededPause   OnExceeded = "pause"   // it waits until the budget is raised
	OnExceededDegrade OnExceeded = "degrade" // it goes down the ladder; at its end, as pause
	OnExceededFail    OnExceeded = "fail"
)

// ChainEntry is one model of a chain.
type ChainEntry struct {
	Model         string        `json:"model"`   // `claude-sonnet-4-6`, or `provider/model` for a configured provider
	Timeout       time.Duration `json:"timeout"` // of one call; 0: the attempt's
	Retries       int           `json:"retries"`
	RetryTimeouts bool          `json:"retry_timeouts"` // a timeout, too, is retried on the same entry
	FirstToken    time.Duration `json:"ttft,omitempty"` // until an answer begins; 0: the provider's limit
	Idle          time.Duration `json:"idle,omitempty"` // between its parts; 0: the provider's limit
	// Accept judges an answer (roots output, confidence, usage, latency_ms: see AnswerScope); nil: every answer that came
	// whole.
	Accept *Expr `json:"-"`
}

// ToolStep calls one tool.
type ToolStep struct {
	Ref        string    // builtin:noop, builtin:sleep, builtin:fail
	Args       *Template // a JSON object; nil: {}
	Output     Contract
	SideEffect SideEffect
}

// SideEffect says what a repeated call of a tool may do to the world.
type SideEffect string

// The side effects.
const (
	SideEffectNone       SideEffect = "none"
	SideEffectIdempotent SideEffect = "idempotent"
	SideEffectUnsafe     SideEffect = "unsafe"
)

// GroupStep holds steps under one name.
type GroupStep struct {
	Steps  []*Step
	Output *Template // nil: {id: output} of the steps inside
}

// SwitchStep runs the steps of the first case whose When holds.
type SwitchStep struct {
	Cases []SwitchCase
}

// SwitchCase is one case; When is nil for else.
type SwitchCase struct {
	When   *Expr
	Steps  []*Step
	Output *Template // nil: the output of the last listed step of the case
}

// Retry says how often and when a failed attempt is followed by another.
type Retry struct {
	MaxAttempts int // the first included; 1: no retry
	Initial     time.Duration
	Factor      float64
	Max         time.Duration
	Jitter      bool     // full jitter
	Classes     []string // error classes and groups (any, transient) that are retried
	Feedback    bool     // the failure is told to the next attempt
}

// Limits of a definition. Each is named in the problem of a definition that breaks it.
const (
	DefinitionBytesMax = 1 << 20
	StepsMax           = 1_000
	NestingMax         = 8
	ChainEntriesMax    = 8
	ExpressionBytesMax = 16 << 10
	InputBytesMax      = 1 << 20
	OutputBytesMax     = 64 << 10
	AttemptsMax        = 24
	AsksAgainMax       = 2 // times an answer that breaks its contract is sent back
	MapItemsMax        = 10_000
	LoopIterationsMax  = 100
	ConcurrencyMax     = 1_000 // of a map
	ReviseMax          = 3
	ReplanMax          = 3
	TurnsMax           = 50
	DelegateTasksMax   = 8        // tasks that one answer may hand out
	DelegateCallsMax   = 200      // requests that all delegates of an attempt make together
	ExpandedStepsMax   = 100_000  // of a run
	SignalsKeptMax     = 100      // of a name, before somebody waits for them
	RunBytesMax        = 64 << 20 // of what a run's log holds
	TimeoutMax         = 30 * 24 * time.Hour
	MaxParallelMax     = 1_000
)

// Defaults of a definition.
const (
	TimeoutDefault      = 24 * time.Hour
	TimeoutAgentDefault = 10 * time.Minute
	TimeoutToolDefault  = time.Minute
	MaxParallelDefault  = 50
	PriorityDefault     = 5
)
