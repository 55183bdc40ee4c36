// Package flow is what a run is and what happens to it next. A run is the fold of its events: Apply folds and never
// fails, Decide is the only place that evaluates expressions, Pending says from state alone what should be going on.
// Pure: no context, clock, randomness or IO.
package flow

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Kind names what happened, in past tense.
type Kind string

// The kinds of event. The comment names the body.
const (
	KindRunSubmitted     Kind = "run_submitted"       // Submitted
	KindStepStarted      Kind = "step_started"        // Started; a container starts with attempt 0
	KindTurnAnswered     Kind = "turn_answered"       // Turn
	KindStepSucceeded    Kind = "step_succeeded"      // Succeeded
	KindAttemptFailed    Kind = "attempt_failed"      // AttemptFailed: another attempt follows at RetryAt
	KindStepFailed       Kind = "step_failed"         // Failed
	KindStepSkipped      Kind = "step_skipped"        // Skipped
	KindStepCancelled    Kind = "step_cancelled"      // Cancelled
	KindCaseChosen       Kind = "case_chosen"         // CaseChosen
	KindOutcomeDiscarded Kind = "outcome_discarded"   // Cancelled: a late outcome, kept for its cost
	KindRunFailing       Kind = "run_failing"         // Failing
	KindRunCancelling    Kind = "run_cancelling"      // Cancelling
	KindSectionEntered   Kind = "section_entered"     // SectionEntered
	KindRunSucceeded     Kind = "run_succeeded"       // Result
	KindRunFailed        Kind = "run_failed"          // Result
	KindRunCancelled     Kind = "run_cancelled"       // Result
	KindRunResumed       Kind = "run_resumed"         // Resumed
	KindRunBudgetRaised  Kind = "run_budget_raised"   // BudgetRaise
	KindOuterRaised      Kind = "outer_budget_raised" // BudgetRaise: of the budget of a run around
	KindBudgetWarned     Kind = "budget_warned"       // BudgetWarned
	KindItemEnded        Kind = "item_ended"          // ItemEnded: of a map
	KindIterationEnded   Kind = "iteration_ended"     // IterationEnded: of a loop
	KindStepWaiting      Kind = "step_waiting"        // Waiting
	KindApprovalAnswered Kind = "approval_answered"   // Answered: the step goes on from it
	KindPlanMade         Kind = "plan_made"           // Planned
	KindSignalReceived   Kind = "signal_received"     // Signal
	KindRunDegraded      Kind = "run_degraded"        // Degraded
	KindStepReopened     Kind = "step_reopened"       // Reopening
)

// Path names a step within its run: "review"; "build.3.review" is the one of item 3 (from 0), or of iteration 3 (from 1).
type Path = string

// RunName is a run's id as people and clients read it.
func RunName(id uuid.UUID) string { return "run_" + hex.EncodeToString(id[:]) }

// Event is one fact of a run. Seq counts from 1 without gaps.
type Event struct {
	Seq     int32
	At      time.Time // database time, microseconds
	Kind    Kind
	V       int16 // version of the body's shape
	Step    Path  // empty: the run itself
	Gen     int16 // generation of the step: raised by each resume that reopens it
	Attempt int16 // from 1; 0 where there is none
	Body    json.RawMessage
}

// Held reports whether the event is of an attempt that is held, and goes on later under its number.
func (e Event) Held() bool {
	return e.Kind == KindAttemptFailed && bytes.Contains(e.Body, []byte(`"held":"`)) // a key: in texts, quotes are escaped
}

// Submission is what a run starts from.
type Submission struct {
	ID              uuid.UUID // UUIDv7
	Tenant          uuid.UUID
	Workflow        *workflow.Workflow
	WorkflowVersion int             // of the published workflow; 0: submitted inline
	Input           json.RawMessage // defaults are filled in by Open
	Labels          map[string]string
	Stakes, Mode    string // override the definition's; empty: the definition's
	Priority        int    // 0–9; -1: the definition's
	// Budget lowers the definition's, or gives one where there is none; zero fields: the definition's, else the defaults.
	Budget *workflow.Budget
	Parent *Parent // nil: nobody's
}

// Parent is the attempt of a step that a run was started by.
type Parent struct {
	Run     uuid.UUID `json:"run"`
	Step    Path      `json:"step"`
	Gen     int16     `json:"gen"`
	Attempt int16     `json:"attempt"`
	Depth   int       `json:"depth"`             // of the child: runs around it
	Plans   int       `json:"plans,omitempty"`   // of the runs around it and itself, how many were planned
	Budgets []Budget  `json:"budgets,omitempty"` // of what is around: its calls count there too
}

// Attempt is all a worker needs to do one attempt of a step.
type Attempt struct {
	Run      uuid.UUID
	Tenant   uuid.UUID
	Workflow string             // its name, for metrics and logs
	Within   *workflow.Workflow // the definition that Step is of
	Step     *workflow.Step
	Path     Path
	Gen, No  int16
	Start    int32           // number of the event that ordered it: its name within the run
	Input    json.RawMessage // rendered: Prompted for an agent, the args object for a tool
	Turns    []Turn          // answered before a crash, in order: not to be bought again
	Feedback string          // why the attempt before failed, if the step's retry tells it
	Key      string          // idempotency key of the step's side effects: the same across attempts
	Deadline time.Time       // of what surrounds the step (container, run), by the clock of the machine that works on it; Step.Timeout comes besides

	Labels       map[string]string // of the run
	Stakes, Mode string            // of the run
	Budget       *Budget           // of the run; nil: none
	Around       []Budget          // of steps with one of their own and of the runs around; the run's own is not among them

	Made int // requests of the step's attempts before, in this generation; those of delegates are not counted

	Duty  Duty
	Agent *workflow.Agent // who works at it; nil: no agent does
	// Scope is what the asserts of the step's gate read besides the answer. It is a copy that nobody changes.
	Scope        *workflow.Scope
	Avoid        []string // models whose families are passed over
	Escalated    *Escalated
	Contract     workflow.Contract // of DutyDecide: what the output of the step must be
	Replan       *Replan           // of a plan step: what became of the plan before; nil: there was none
	Depth        int               // of plans, the one to be made included
	Orchestrator *workflow.Agent   // of the workflow: answers needs_decision; nil: a person does
}

// Duty is what an attempt is for.
type Duty string

// The duties.
const (
	DutyWork     Duty = ""           // what the step says
	DutyFallback Duty = "fallback"   // the same, by who its on_error names
	DutyDecide   Duty = "escalation" // to decide what becomes of a failure: see Escalated
)

// Escalated is a failure that somebody has to decide about.
type Escalated struct {
	Failure Failure         `json:"failure"`
	Refused json.RawMessage `json:"refused,omitempty"` // the output that did not pass the gate; empty: there is none
	History []Failure       `json:"history,omitempty"` // of the attempts before
}

// Decision is what became of an escalation.
type Decision struct {
	Decision string          `json:"decision"`         // accept, replace, redo, fail
	Output   json.RawMessage `json:"output,omitempty"` // of replace
	Notes    string          `json:"notes,omitempty"`  // of redo: told to who does it again
}

// The decisions.
const (
	DecisionAccept  = "accept"
	DecisionReplace = "replace"
	DecisionRedo    = "redo"
	DecisionFail    = "fail"
)

// Question is what an agent cannot decide itself.
type Question struct {
	Question       string   `json:"question"`
	Options        []string `json:"options,omitempty"`
	Recommendation string   `json:"recommendation,omitempty"`
}

// Replan is what a planner is told of its plan that failed.
type Replan struct {
	Plan    json.RawMessage            `json:"plan"`
	Failure Failure                    `json:"failure"`
	Done    map[string]json.RawMessage `json:"done,omitempty"` // outputs of the steps that succeeded, by path
}

// Planned is a plan that was checked: the body of plan_made.
type Planned struct {
	Definition json.RawMessage `json:"definition"` // whole: a workflow of its own
	Hash       string          `json:"hash"`
	Estimate   PlanEstimate    `json:"estimate"`
	Warnings   []string        `json:"warnings,omitempty"` // of the lint
	Calls      []usage.Call    `json:"calls,omitempty"`
}

// PlanEstimate is what a plan's approval.when reads.
type PlanEstimate struct {
	CostMax usage.Money `json:"cost_max_nano"`
	Steps   int         `json:"steps"`
	Tools   []string    `json:"tools,omitempty"`
}

// GateResult says how an output passed its gate.
type GateResult struct {
	Score  *float64 `json:"score,omitempty"` // the smallest of the judges; nil: nobody judged
	Rounds int      `json:"rounds"`          // revisions
}

// Budget is what may be spent, as it stands when an attempt starts.
type Budget struct {
	ID     uuid.UUID   `json:"id"`                  // of the run, or of the step within it
	Run    uuid.UUID   `json:"run"`                 // it is the run's, or of a step of it
	Name   string      `json:"name,omitempty"`      // of the step; empty: a run's
	Cost   usage.Money `json:"cost_nano,omitempty"` // 0: no limit in money
	Tokens int64       `json:"tokens,omitempty"`    // 0: no limit in tokens
	Spent  usage.Sum   `json:"spent"`               // by what is in the log; of what is around the run, at least so much

	OnExceeded workflow.OnExceeded `json:"on_exceeded,omitempty"` // empty: the attempt fails
}

// Short is what a held attempt has no money from.
type Short struct {
	Budget uuid.UUID // a Budget of the attempt; zero: one that does not come with it
	Aside  bool      // the money is not spent, only set aside for calls in flight
}

// BudgetOf is the budget of an id that the attempt brings along, or nil.
func (a *Attempt) BudgetOf(id uuid.UUID) *Budget {
	if a.Budget != nil && a.Budget.ID == id {
		return a.Budget
	}
	for i := range a.Around {
		if a.Around[i].ID == id {
			return &a.Around[i]
		}
	}
	return nil
}

// Prompted is the rendered input of an agent step.
type Prompted struct {
	Prompt string          `json:"prompt"`
	Input  json.RawMessage `json:"input,omitempty"`
}

// Turn is one answered exchange with a model that the conversation goes on from, or an answer from elsewhere.
type Turn struct {
	Who    string          `json:"who,omitempty"` // whose words they are; empty: the agent's. See package worker
	Reply  string          `json:"reply"`
	Hidden json.RawMessage `json:"hidden,omitempty"` // what the provider wants back with it: an agent.Hidden
	Calls  []usage.Call    `json:"calls,omitempty"`  // the last one answered

	ToolCalls  json.RawMessage `json:"tool_calls,omitempty"`  // asked for with the reply: a list of agent.ToolCall
	BelowGate  bool            `json:"below_gate,omitempty"`  // no model's answer was accepted; this is the best one
	SameFamily bool            `json:"same_family,omitempty"` // of a family that was to be avoided
	Failure    *Failure        `json:"failure,omitempty"`     // instead of a reply: nobody answered, and the attempt goes on without
}

// Failure is why something did not succeed. Class is one of the error classes of the workflow format.
type Failure struct {
	Class   string   `json:"class"`
	Message string   `json:"message"`
	Step    Path     `json:"step,omitempty"`  // of a run's failure: where it came from
	Cause   *Failure `json:"cause,omitempty"` // of a child run
}

// Outcome ends an attempt: a success with an output, or a failure.
type Outcome struct {
	Output     json.RawMessage
	Confidence *float64 // 0–100
	Unresolved []string
	Repaired   bool         // the answer was mended before it met its contract
	Calls      []usage.Call // since the last reported turn
	PromptHash string       // of what the model was sent first; empty for tools
	BelowGate  bool         // no model's answer was accepted; this is the best one
	Failure    *Failure     // nil: success
	// Held is what the attempt waits for, and the failure what holds it: budget, a budget refused a call and may be raised;
	// incident, attempts of its kind are not made now. Such an attempt goes on under its number and is not counted as one.
	// decision: a person has to answer Question; it goes on with that as a turn.
	Held     string
	Short    Short // of budget
	Question *Question

	Summary  string          // the short form of the output; empty: none was asked for
	Gate     *GateResult     // nil: there is none, or it was not reached
	Refused  json.RawMessage // with the failure gate_failed: the output that did not pass
	Notes    []string        // what the run's quality has to say of it, like "judged by the author's own family"
	Decision *Decision       // of DutyDecide, instead of Output
	Planned  *Planned        // of a plan step, instead of Output
	// Unbegun: the attempt was cut before it asked anything of anybody, so that nothing can have come of it.
	Unbegun bool
}

// Report is what a worker says of an attempt: a turn to be checkpointed, or the outcome. Exactly one is set.
type Report struct {
	Path    Path
	Gen, No int16
	Start   int32 // the attempt's Start
	Turn    *Turn
	Outcome *Outcome
}

// RunStatus is where a run stands.
type RunStatus string

// The statuses of a run.
const (
	RunStatusQueued      RunStatus = "queued"      // accepted; no node works on it yet
	RunStatusRunning     RunStatus = "running"     // owned by a node
	RunStatusWaiting     RunStatus = "waiting"     // parked until a time or a message
	RunStatusCancelling  RunStatus = "cancelling"  // no attempt starts; calls are being cut
	RunStatusSucceeded   RunStatus = "succeeded"   // final
	RunStatusFailed      RunStatus = "failed"      // moves only by a resume
	RunStatusCancelled   RunStatus = "cancelled"   // final
	RunStatusQuarantined RunStatus = "quarantined" // set aside for an operator: its log or its steps break the service
)

// StepStatus is where a step stands.
type StepStatus string

// The statuses of a step.
const (
	StepStatusPending   StepStatus = "pending"
	StepStatusRunning   StepStatus = "running"
	StepStatusRetrying  StepStatus = "retrying" // between attempts
	StepStatusWaiting   StepStatus = "waiting"  // for a person, a time, a signal or a run of its own
	StepStatusSucceeded StepStatus = "succeeded"
	StepStatusFailed    StepStatus = "failed"
	StepStatusSkipped   StepStatus = "skipped"
	StepStatusCancelled StepStatus = "cancelled"
)
