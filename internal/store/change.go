package store

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Lease is the right to write to the runs bound to it, as long as its epoch holds.
type Lease struct {
	ID    uuid.UUID
	Epoch int64
}

// Change is what a commit writes of one run. A batch holds at most one per run.
type Change struct {
	Run      uuid.UUID
	Tenant   uuid.UUID // of the run; those of New hold for a run that is submitted
	Workflow string
	New      *NewRun
	Events   []flow.Event
	Row      *Row        // nil: the row stays
	Eaten    []int64     // messages whose effect is in Events
	Told     []Message   // to other runs; their ID and At are given here
	Spend    []SpendLine // lines of the same key are added up

	Asked     []flow.Ask       // approvals that people may answer from now on; what is there already stays
	Withdrawn []flow.Withdrawn // approvals that are not to be answered any more; an answer that came before stays
	// Emitted are told to the runs that wait for them, each once for its ID. Those are the runs whose submission was
	// durable before the batch was sent: one that is submitted in the same batch is not told.
	Emitted []flow.Emitted
}

// NewRun is a run as it is submitted.
type NewRun struct {
	Tenant       uuid.UUID
	Workflow     string
	Version      int // 0: submitted inline
	Hash         workflow.Hash
	Status       flow.RunStatus
	Stakes, Mode string
	Priority     int
	Labels       map[string]string
	Preview      string
	StepsTotal   int
	Format       int16
	Owned        bool // false: queued for any node
	At           time.Time
	Parent       uuid.UUID // the run whose step started it; zero: nobody's
	ParentStep   string
	Depth        int      // runs around it
	Signals      []string // see Row
	Definition   []byte   // canonical source, kept with the run; nil: it is known to be kept
}

// Row is the summary of a run as it is now; it replaces the former one.
type Row struct {
	Status                     flow.RunStatus
	Stage, WaitingFor, Preview string
	Error                      *flow.Failure
	Sum                        usage.Sum
	StepsDone                  int
	StepsTotal                 int // 0: as it was
	WakeAt                     *time.Time
	Release                    bool // the run is nobody's from now on
	Crashes                    int16
	Format                     int16
	StartedAt, FinishedAt      *time.Time
	Signals                    []string // names that the run is told of, until a row says that it ended
}

// Kinds of message.
const (
	MessageCancel   = "cancel"
	MessageResume   = "resume"
	MessageBudget   = "budget"   // try again: there may be money now
	MessageIncident = "incident" // try again: an incident was resolved
)

// Message is something said to a run.
type Message struct {
	ID   int64
	Run  uuid.UUID
	Kind string
	Body json.RawMessage
	At   time.Time
}

// SpendLine adds to what was spent in an hour.
type SpendLine struct {
	Hour                             time.Time
	Tenant                           uuid.UUID
	Workflow, Agent, Provider, Model string
	Simulated                        bool
	Calls, Unpriced                  int64
	Tokens                           usage.Tokens
	Cost                             usage.Money
	Baseline, CacheSaved             usage.Money
}
