package flow

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
)

// The kinds of message that steps wait for.
const (
	ToldApproval = "approval" // Answered
	ToldSignal   = "signal"   // Signal
	ToldChild    = "child"    // ChildEnded
	ToldShort    = "short"    // ChildShort
)

// What a step waits for: Waiting.For, and the first word of what a run waits for.
const (
	WaitingApproval = "approval"
	WaitingTimer    = "timer"
	WaitingSignal   = "signal"
	WaitingChild    = "child"
)

// The bodies that belong to waiting.
type (
	// Waiting is the body of step_waiting: nothing is at work for the step until a message or a time comes.
	Waiting struct {
		For    string       `json:"for"`             // one of WaitingXxx
		Until  *time.Time   `json:"until,omitempty"` // nil: for as long as it takes
		Asked  *Asked       `json:"asked,omitempty"` // of an approval
		Signal string       `json:"signal,omitempty"`
		Child  *Child       `json:"child,omitempty"`
		Calls  []usage.Call `json:"calls,omitempty"` // of the attempt that led here
	}
	// Asked is what a person is asked.
	Asked struct {
		Approval  uuid.UUID       `json:"approval"`
		About     string          `json:"about"` // approval, escalation, decision, plan
		Title     string          `json:"title"`
		Show      json.RawMessage `json:"show,omitempty"`
		Form      json.RawMessage `json:"form,omitempty"` // JSON Schema of what is sent with the answer
		Initial   json.RawMessage `json:"initial,omitempty"`
		Choices   []string        `json:"choices"`
		Assignees []string        `json:"assignees,omitempty"`
	}
	// Answered is the body of an approval message and of approval_answered.
	Answered struct {
		Approval uuid.UUID       `json:"approval"`
		Choice   string          `json:"choice"`
		Form     json.RawMessage `json:"form,omitempty"`
		Reason   string          `json:"reason,omitempty"`
		By       string          `json:"by,omitempty"`
	}
	// Signal is the body of a signal message and of signal_received. One that nobody waits for is kept.
	Signal struct {
		ID   string          `json:"id,omitempty"` // the same signal is taken once
		Name string          `json:"name"`
		Data json.RawMessage `json:"data,omitempty"`
		Lost bool            `json:"lost,omitempty"` // too many of the name are kept
	}
	// Child is a run that a step started.
	Child struct {
		Run      uuid.UUID `json:"run"`
		Workflow string    `json:"workflow"`
		Hash     string    `json:"hash"`
	}
	// ChildEnded is the body of a child message: how a run that the step started came to its end.
	ChildEnded struct {
		Step       Path                       `json:"step"`
		Gen        int16                      `json:"gen"`
		Attempt    int16                      `json:"attempt"`
		Run        uuid.UUID                  `json:"run"`
		Status     RunStatus                  `json:"status"`
		Output     json.RawMessage            `json:"output,omitempty"`
		Error      *Failure                   `json:"error,omitempty"`
		Sum        usage.Sum                  `json:"sum"`
		Done       map[string]json.RawMessage `json:"done,omitempty"` // of one that failed: what its steps made
		Unresolved []Unresolved               `json:"unresolved,omitempty"`
	}
	// ChildShort is the body of a short message: a run that a step started has spent what a budget around it has. It is
	// passed on to the run whose budget it is, which may go down its ladder.
	ChildShort struct {
		Run     uuid.UUID `json:"run"` // that the step started
		Budget  uuid.UUID `json:"budget"`
		Since   time.Time `json:"since"` // when the attempt began that was refused
		Message string    `json:"message"`
	}
)

// About what a person is asked.
const (
	AboutApproval   = "approval"
	AboutEscalation = "escalation"
	AboutDecision   = "decision"
	AboutPlan       = "plan"
)

// Effects are what a decision does beyond the run's own log. They are made durable with its events, in one commit.
type Effects struct {
	Children  []Submission // runs that begin
	Told      []Letter     // messages to other runs
	Asked     []Ask        // approvals that a person may answer now
	Withdrawn []Withdrawn  // approvals that nobody waits for any more
	Emitted   []Emitted    // to whoever waits for a signal of the name
}

// Withdrawn is an approval that can be answered no more.
type Withdrawn struct {
	ID      uuid.UUID
	Expired bool // its time was up; else what asked for it is over
}

// Letter is a message to another run.
type Letter struct {
	To   uuid.UUID
	Kind string
	Body json.RawMessage
}

// Ask is an approval as it is put to people.
type Ask struct {
	Asked
	Step    Path
	Gen     int16
	Expires *time.Time // nil: never
}

// ApprovalStatus is where an approval stands.
type ApprovalStatus string

// The statuses of an approval.
const (
	ApprovalOpen      ApprovalStatus = "open"
	ApprovalAnswered  ApprovalStatus = "answered"
	ApprovalExpired   ApprovalStatus = "expired"
	ApprovalWithdrawn ApprovalStatus = "withdrawn"
)

// Emitted is an event of the user's.
type Emitted struct {
	ID   string // the same after any crash
	Name string
	Data json.RawMessage
}
