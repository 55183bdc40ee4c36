// Package flow is what a run is and what happens to it next. A run is the fold of its events: Apply folds and never
// fails, Decide is the only place that evaluates expressions, Pending says from state alone what should be going on.
// Pure: no context, clock, randomness or IO.
package flow

import (
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
	KindRunSubmitted     Kind = "run_submitted"     // Submitted
	KindStepStarted      Kind = "step_started"      // Started; a container starts with attempt 0
	KindTurnAnswered     Kind = "turn_answered"     // Turn
	KindStepSucceeded    Kind = "step_succeeded"    // Succeeded
	KindAttemptFailed    Kind = "attempt_failed"    // AttemptFailed: another attempt follows at RetryAt
	KindStepFailed       Kind = "step_failed"       // Failed
	KindStepSkipped      Kind = "step_skipped"      // Skipped
	KindStepCancelled    Kind = "step_cancelled"    // Cancelled
	KindCaseChosen       Kind = "case_chosen"       // CaseChosen
	KindOutcomeDiscarded Kind = "outcome_discarded" // Cancelled: a late outcome, kept for its cost
	KindRunFailing       Kind = "run_failing"       // Failing
	KindRunCancelling    Kind = "run_cancelling"    // Cancelling
	KindSectionEntered   Kind = "section_entered"   // SectionEntered
	KindRunSucceeded     Kind = "run_succeeded"     // Result
	KindRunFailed        Kind = "run_failed"        // Result
	KindRunCancelled     Kind = "run_cancelled"     // Result
	KindRunResumed       Kind = "run_resumed"       // Resumed
	KindRunBudgetRaised  Kind = "run_budget_raised" // BudgetRaise
	KindBudgetWarned     Kind = "budget_warned"     // BudgetWarned
)

// Path names a step within its run: "review"; steps inside maps and loops will read "map.3.review".
type Path = string

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
func (e Event) Held() bool { return e.Kind == KindAttemptFailed && e.V >= formatBudget }

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
}

// Attempt is all a worker needs to do one attempt of a step.
type Attempt struct {
	Run      uuid.UUID
	Tenant   uuid.UUID
	Workflow string // its name, for metrics and logs
	Step     *workflow.Step
	Path     Path
	Gen, No  int16
	Input    json.RawMessage // rendered: Prompted for an agent, the args object for a tool
	Turns    []Turn          // answered before a crash, in order: not to be bought again
	Feedback string          // why the attempt before failed, if the step's retry tells it
	Key      string          // idempotency key of the step's side effects: the same across attempts
	Deadline time.Time       // of what surrounds the step (container, run), by the clock of the machine that works on it; Step.Timeout comes besides

	Labels       map[string]string // of the run
	Stakes, Mode string            // of the run
	Budget       *Budget           // of the run; nil: none
}

// Budget is what a run may spend, as it stands when an attempt starts.
type Budget struct {
	Cost   usage.Money // 0: no limit in money
	Tokens int64       // 0: no limit in tokens
	Spent  usage.Sum   // by what is in the log

	OnExceeded workflow.OnExceeded
}

// Prompted is the rendered input of an agent step.
type Prompted struct {
	Prompt string          `json:"prompt"`
	Input  json.RawMessage `json:"input,omitempty"`
}

// Turn is one answered exchange with a model that the conversation goes on from.
type Turn struct {
	Reply  string          `json:"reply"`
	Hidden json.RawMessage `json:"hidden,omitempty"` // what the provider wants back with it: an agent.Hidden
	Calls  []usage.Call    `json:"calls,omitempty"`  // the last one answered
}

// Failure is why something did not succeed. Class is one of the error classes of the workflow format.
type Failure struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Step    Path   `json:"step,omitempty"` // of a run's failure: where it came from
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
	Held string
	// Unbegun: the attempt was cut before it asked anything of anybody, so that nothing can have come of it.
	Unbegun bool
}

// Report is what a worker says of an attempt: a turn to be checkpointed, or the outcome. Exactly one is set.
type Report struct {
	Path    Path
	Gen, No int16
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
	StepStatusSucceeded StepStatus = "succeeded"
	StepStatusFailed    StepStatus = "failed"
	StepStatusSkipped   StepStatus = "skipped"
	StepStatusCancelled StepStatus = "cancelled"
)
