package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// FormatMax is the highest version of event bodies this binary reads. It writes each event with the lowest version that
// says it, so that nodes of the release before can go on with runs that hold nothing new.
const FormatMax = formatLanguage

const (
	formatFirst    = 1
	formatBudget   = 2 // a run may have a budget, and attempts may be held
	formatLanguage = 3 // steps may have instances, wait, and be done otherwise than written
)

// version is the lowest that binaries must know to read a body of a run of w rightly.
func version(w *workflow.Workflow, body any) int16 {
	switch b := body.(type) {
	case *Submitted:
		switch { // an older binary could not compile it, and would set the run aside
		case b.Parent != nil || saysLanguage(w):
			return formatLanguage
		case b.Budget != nil || saysNew(w):
			return formatBudget
		}
	case *AttemptFailed:
		switch {
		case b.Held != "": // an older binary would count it as an attempt
			return formatBudget
		case b.Duty != DutyWork || b.Afresh || b.Replan != nil || b.Child != nil:
			return formatLanguage
		}
	case *BudgetRaise, *BudgetWarned:
		return formatBudget
	case *ItemEnded, *IterationEnded, *Waiting, *Answered, *Planned, *Signal, *Degraded, *Reopening:
		return formatLanguage
	}
	return formatFirst
}

// saysLanguage: the definition says what came with the whole language.
func saysLanguage(w *workflow.Workflow) bool {
	return len(w.Degrade) > 0 || slices.ContainsFunc(w.Steps, func(s *workflow.Step) bool {
		switch s.Kind {
		case workflow.KindAgent:
			a := s.Agent
			return isGoverned(s) || a.By != nil || len(a.DifferentFamily) > 0 || a.Agent.Summary != nil || len(a.Agent.Delegates) > 0
		case workflow.KindTool, workflow.KindSet, workflow.KindGroup, workflow.KindSwitch:
			return isGoverned(s)
		default:
			return true
		}
	})
}

func isGoverned(s *workflow.Step) bool { return s.Gate != nil || len(s.OnError) > 0 || s.Budget != nil }

// saysNew: the definition says what binaries that read only the first version do not know.
func saysNew(w *workflow.Workflow) bool {
	for _, k := range w.Chains {
		if isNewChain(k) {
			return true
		}
	}
	for _, a := range w.Agents {
		if isNewAgent(a) {
			return true
		}
	}
	return slices.ContainsFunc(w.Steps, func(s *workflow.Step) bool { return s.Agent != nil && isNewAgent(&s.Agent.Agent) })
}

func isNewAgent(a *workflow.Agent) bool {
	return a.Route != "" || a.ContextTokens > 0 || a.Overflow != "" || isNewChain(&a.Chain)
}

func isNewChain(k *workflow.Chain) bool {
	return k.Hedge || k.AcceptBest || k.OnPolicy || k.LongerOnce || slices.ContainsFunc(k.Entries, func(e workflow.ChainEntry) bool {
		return e.Accept != nil || e.FirstToken > 0 || e.Idle > 0
	})
}

// The bodies of events, by Kind. Fields are only ever added.
type (
	// Submitted is the body of run_submitted: everything the run starts from but the definition, which its hash names.
	Submitted struct {
		Workflow string            `json:"workflow"`
		Version  int               `json:"version,omitempty"`
		Hash     string            `json:"hash"`
		Stakes   string            `json:"stakes"`
		Mode     string            `json:"mode"`
		Priority int               `json:"priority"`
		Labels   map[string]string `json:"labels,omitempty"`
		Budget   *RunBudget        `json:"budget,omitempty"` // nil: none
		Input    json.RawMessage   `json:"input"`
		Parent   *Parent           `json:"parent,omitempty"` // nil: nobody's
	}
	// Started is the body of step_started. Input is kept only where it could not be rendered alike again.
	Started struct {
		Input json.RawMessage `json:"input,omitempty"`
		Items json.RawMessage `json:"items,omitempty"` // of a map: the list
		Count int             `json:"count,omitempty"` // of Items
		Agent string          `json:"agent,omitempty"` // who works at it, where the definition leaves that open
	}
	// ItemEnded is the body of item_ended. Without an output of its own an item's is that of the last listed step.
	ItemEnded struct {
		Item    int             `json:"item"`
		Output  json.RawMessage `json:"output,omitempty"`
		Failure *Failure        `json:"failure,omitempty"`
	}
	// IterationEnded is the body of iteration_ended.
	IterationEnded struct {
		Iteration int             `json:"iteration"`
		Output    json.RawMessage `json:"output,omitempty"` // as of an item
		Met       bool            `json:"met"`              // until holds, or there is none
		Unchanged bool            `json:"unchanged,omitempty"`
		Score     *float64        `json:"score,omitempty"` // by best_by
		Again     bool            `json:"again,omitempty"` // another one follows
	}
	// Degraded is the body of run_degraded: the run goes on at a lower level of the ladder.
	Degraded struct {
		Level  int    `json:"level"`
		Name   string `json:"name"`
		Step   Path   `json:"step,omitempty"` // that asked for it
		Reason string `json:"reason"`
	}
	// Reopening is the body of step_reopened: a loop that had come to its end goes on, because somebody decided so.
	Reopening struct {
		Notes string `json:"notes,omitempty"`
	}
	// Succeeded is the body of step_succeeded.
	Succeeded struct {
		Output     json.RawMessage `json:"output"`
		Confidence *float64        `json:"confidence,omitempty"`
		Unresolved []string        `json:"unresolved,omitempty"`
		Repaired   bool            `json:"repaired,omitempty"`
		PromptHash string          `json:"prompt_hash,omitempty"`
		BelowGate  bool            `json:"below_gate,omitempty"` // no entry's answer was accepted; this is the best one
		ByHand     bool            `json:"by_hand,omitempty"`    // set by an operator's resume
		Calls      []usage.Call    `json:"calls,omitempty"`

		Assembled bool         `json:"assembled,omitempty"` // the output is made of those of the steps inside, or of Winner's
		Winner    string       `json:"winner,omitempty"`    // of a merge: the member whose output it is
		Agreement *float64     `json:"agreement,omitempty"` // of a merge
		Dissent   []string     `json:"dissent,omitempty"`   // of a merge: members that said otherwise
		Without   []string     `json:"without,omitempty"`   // of a merge that collects: members that gave nothing
		Exhausted bool         `json:"exhausted,omitempty"` // of a loop: it ended without meeting its until
		Instead   string       `json:"instead,omitempty"`   // of the step's own outcome: fallback, escalation, degraded
		Failure   *Failure     `json:"failure,omitempty"`   // that led to it
		Summary   string       `json:"summary,omitempty"`
		Gate      *GateResult  `json:"gate,omitempty"`
		Notes     []string     `json:"notes,omitempty"` // for the run's quality
		Took      int32        `json:"took,omitempty"`  // number of the signal_received whose data it is
		Child     *ChildResult `json:"child,omitempty"`
	}
	// ChildResult is what a run that the step started has cost, and left open.
	ChildResult struct {
		Run        uuid.UUID    `json:"run"`
		Sum        usage.Sum    `json:"sum"`
		Unresolved []Unresolved `json:"unresolved,omitempty"`
	}
	// AttemptFailed is the body of attempt_failed. A held attempt goes on under its number, with its turns.
	AttemptFailed struct {
		Failure
		Held    string       `json:"held,omitempty"` // what it waits for: budget, incident
		RetryAt time.Time    `json:"retry_at"`
		Calls   []usage.Call `json:"calls,omitempty"`

		Duty    Duty            `json:"duty,omitempty"`    // of the next attempt
		Rule    int             `json:"rule,omitempty"`    // of on_error, from 1: that says so
		Refused json.RawMessage `json:"refused,omitempty"` // by the gate
		Afresh  bool            `json:"afresh,omitempty"`  // attempts are counted from here
		Notes   string          `json:"notes,omitempty"`   // of who decided that it is done again
		Child   *ChildResult    `json:"child,omitempty"`
		Replan  *Replan         `json:"replan,omitempty"`
	}
	// Failed is the body of step_failed.
	Failed struct {
		Failure
		Calls   []usage.Call    `json:"calls,omitempty"`
		Refused json.RawMessage `json:"refused,omitempty"` // by the gate
		Child   *ChildResult    `json:"child,omitempty"`
	}
	// Skipped is the body of step_skipped. A skipped container skips all inside.
	Skipped struct {
		Reason  string       `json:"reason"`            // when, error, degraded, merge
		Failure *Failure     `json:"failure,omitempty"` // of error
		Calls   []usage.Call `json:"calls,omitempty"`
		Child   *ChildResult `json:"child,omitempty"`
	}
	// Cancelled is the body of step_cancelled and outcome_discarded.
	Cancelled struct {
		Reason    string       `json:"reason"`
		Discarded bool         `json:"discarded,omitempty"` // an answer had come
		Calls     []usage.Call `json:"calls,omitempty"`
		Child     *ChildResult `json:"child,omitempty"`
	}
	// CaseChosen is the body of case_chosen; the steps of the other cases are skipped. Case is -1 where none holds.
	CaseChosen struct {
		Case int `json:"case"`
	}
	// Failing is the body of run_failing: no step of the main list starts any more.
	Failing struct {
		Failure
		Cut bool `json:"cut,omitempty"` // calls at work are cut (timeout of the run)
	}
	// Cancelling is the body of run_cancelling: no step starts any more, calls at work are cut.
	Cancelling struct {
		Reason string `json:"reason,omitempty"`
		Actor  string `json:"actor,omitempty"`
	}
	// SectionEntered is the body of section_entered.
	SectionEntered struct {
		Section string `json:"section"` // on_failure, finally
	}
	// Result is the body of the last event of a run. A run without an output of its own returns that of its last
	// listed step: the log names the step instead of repeating what it made; Output is filled in when it is folded.
	Result struct {
		Output     json.RawMessage `json:"output,omitempty"`
		OutputOf   Path            `json:"output_of,omitempty"`
		Error      *Failure        `json:"error,omitempty"`
		Savings    *Savings        `json:"savings,omitempty"` // nil: no model was called, or its price is not known
		Provenance []Provenance    `json:"provenance,omitempty"`
		Unresolved []Unresolved    `json:"unresolved,omitempty"`
		Quality    *Quality        `json:"quality,omitempty"` // nil: all was done as written
	}
	// Resumed is the body of run_resumed. What is reopened is listed, never recomputed.
	Resumed struct {
		Reopened []Reopened                 `json:"reopened,omitempty"`
		Set      map[string]json.RawMessage `json:"set,omitempty"` // outputs given by hand, by path
		Reason   string                     `json:"reason,omitempty"`
		Actor    string                     `json:"actor,omitempty"`
	}
	// Reopened is a step that may run again, in its new generation.
	Reopened struct {
		Step Path  `json:"step"`
		Gen  int16 `json:"gen"`
	}
	// Provenance says who made the output of an agent step.
	Provenance struct {
		Step          Path        `json:"step"`
		Agent         string      `json:"agent,omitempty"`
		Role          string      `json:"role,omitempty"`
		Provider      string      `json:"provider"`
		Model         string      `json:"model"`
		Simulated     bool        `json:"simulated,omitempty"`
		Attempt       int16       `json:"attempt"`
		FallbackDepth int         `json:"fallback_depth"`
		PromptHash    string      `json:"prompt_hash,omitempty"`
		Repaired      bool        `json:"repaired,omitempty"`
		BelowGate     bool        `json:"below_gate,omitempty"`
		Cost          usage.Money `json:"cost_nano"`
		Unpriced      bool        `json:"unpriced,omitempty"`
		Instead       string      `json:"instead,omitempty"` // of the step's own outcome: fallback, escalation
		Count         int         `json:"count,omitempty"`   // of instances that one line stands for; 0: one
	}
	// Savings is what a run cost, and what its tokens would have cost uncached on the baseline model.
	Savings struct {
		Baseline   usage.Money `json:"baseline_nano"`
		Cost       usage.Money `json:"cost_nano"`
		CacheSaved usage.Money `json:"cache_saved_nano"` // of the difference, what providers' caches took off
	}
	// Unresolved is something an agent could not settle.
	Unresolved struct {
		Step Path   `json:"step"`
		Text string `json:"text"`
	}
)

// Of a switch: no case is chosen yet; none holds.
const (
	caseNone     = -1
	caseUnchosen = -2
)

// encode renders a body. A step's output is spliced in as it is: it was checked where it was made, and re-reading it
// here would cost the shard's loop more than everything else it does for the event.
func encode(body any) json.RawMessage {
	switch b := body.(type) {
	case *Started:
		if b.Input == nil && b.Items == nil && b.Agent == "" {
			return nil
		}
	case *Succeeded:
		return encodeSucceeded(*b)
	}
	raw, err := json.Marshal(body)
	if err != nil { // only a RawMessage that is not JSON: a defect of whoever made it
		panic(fmt.Sprintf("flow: encode %T: %v", body, err))
	}
	return raw
}

func encodeSucceeded(b Succeeded) json.RawMessage {
	output := b.Output
	if output == nil {
		output = json.RawMessage("null")
	}
	out := make([]byte, 0, len(output)+16)
	out = append(out, `{"output":`...)
	out = append(out, output...)
	if b.isBare() {
		return append(out, '}')
	}
	b.Output = nil
	rest, err := json.Marshal(b)
	if err != nil {
		panic(fmt.Sprintf("flow: encode %T: %v", b, err))
	}
	return append(append(out, ','), rest[len(`{"output":null,`):]...)
}

// isBare: the output is all it says.
func (b *Succeeded) isBare() bool {
	return b.Confidence == nil && b.Unresolved == nil && !b.Repaired && b.PromptHash == "" && !b.BelowGate && !b.ByHand && b.Calls == nil &&
		!b.Assembled && b.Winner == "" && b.Agreement == nil && b.Dissent == nil && !b.Exhausted && b.Instead == "" && b.Failure == nil &&
		b.Summary == "" && b.Gate == nil && b.Notes == nil && b.Took == 0 && b.Child == nil
}

// decode reads a body back; an error means the log is unreadable.
func decode(e Event) (any, error) {
	if e.V > FormatMax {
		return nil, fmt.Errorf("event %d (%s): version %d is newer than this binary reads", e.Seq, e.Kind, e.V)
	}
	body := newBody(e.Kind)
	if body == nil {
		return nil, fmt.Errorf("event %d: unknown kind %q", e.Seq, e.Kind)
	}
	if len(e.Body) == 0 {
		return body, nil
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return nil, fmt.Errorf("event %d (%s): %w", e.Seq, e.Kind, err)
	}
	return body, nil
}

func newBody(k Kind) any {
	switch k {
	case KindRunSubmitted:
		return new(Submitted)
	case KindStepStarted:
		return new(Started)
	case KindTurnAnswered:
		return new(Turn)
	case KindStepSucceeded:
		return new(Succeeded)
	case KindAttemptFailed:
		return new(AttemptFailed)
	case KindStepFailed:
		return new(Failed)
	case KindStepSkipped:
		return new(Skipped)
	case KindStepCancelled, KindOutcomeDiscarded:
		return new(Cancelled)
	case KindCaseChosen:
		return new(CaseChosen)
	case KindRunFailing:
		return new(Failing)
	case KindRunCancelling:
		return new(Cancelling)
	case KindSectionEntered:
		return new(SectionEntered)
	case KindRunSucceeded, KindRunFailed, KindRunCancelled:
		return new(Result)
	case KindRunResumed:
		return new(Resumed)
	case KindRunBudgetRaised, KindOuterRaised:
		return new(BudgetRaise)
	case KindBudgetWarned:
		return new(BudgetWarned)
	case KindItemEnded:
		return new(ItemEnded)
	case KindIterationEnded:
		return new(IterationEnded)
	case KindStepWaiting:
		return new(Waiting)
	case KindApprovalAnswered:
		return new(Answered)
	case KindPlanMade:
		return new(Planned)
	case KindSignalReceived:
		return new(Signal)
	case KindRunDegraded:
		return new(Degraded)
	case KindStepReopened:
		return new(Reopening)
	}
	return nil
}
