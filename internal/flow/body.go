package flow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// FormatMax is the highest version of event bodies this binary reads. It writes each event with the lowest version that
// says it, so that nodes of the release before can go on with runs that hold nothing new.
const FormatMax = formatBudget

const (
	formatFirst  = 1
	formatBudget = 2 // a run may have a budget, and attempts may be held
)

// version is the lowest that binaries must know to read a body of a run of w rightly.
func version(w *workflow.Workflow, body any) int16 {
	switch b := body.(type) {
	case *Submitted:
		if b.Budget != nil || saysNew(w) { // an older binary could not compile it, and would set the run aside
			return formatBudget
		}
	case *AttemptFailed:
		if b.Held != "" { // an older binary would count it as an attempt
			return formatBudget
		}
	case *BudgetRaise, *BudgetWarned:
		return formatBudget
	}
	return formatFirst
}

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
	}
	// Started is the body of step_started. Input is kept only where it could not be rendered alike again.
	Started struct {
		Input json.RawMessage `json:"input,omitempty"`
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
	}
	// AttemptFailed is the body of attempt_failed. A held attempt goes on under its number, with its turns.
	AttemptFailed struct {
		Failure
		Held    string       `json:"held,omitempty"` // what it waits for: budget, incident
		RetryAt time.Time    `json:"retry_at"`
		Calls   []usage.Call `json:"calls,omitempty"`
	}
	// Failed is the body of step_failed.
	Failed struct {
		Failure
		Calls []usage.Call `json:"calls,omitempty"`
	}
	// Skipped is the body of step_skipped. A skipped container skips all inside.
	Skipped struct {
		Reason string `json:"reason"` // when
	}
	// Cancelled is the body of step_cancelled and outcome_discarded.
	Cancelled struct {
		Reason    string       `json:"reason"`
		Discarded bool         `json:"discarded,omitempty"` // an answer had come
		Calls     []usage.Call `json:"calls,omitempty"`
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
		if b.Input == nil {
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
	if b.Confidence == nil && b.Unresolved == nil && !b.Repaired && b.PromptHash == "" && !b.BelowGate && !b.ByHand && b.Calls == nil {
		return append(out, '}')
	}
	b.Output = nil
	rest, err := json.Marshal(b)
	if err != nil {
		panic(fmt.Sprintf("flow: encode %T: %v", b, err))
	}
	return append(append(out, ','), rest[len(`{"output":null,`):]...)
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
	case KindRunBudgetRaised:
		return new(BudgetRaise)
	case KindBudgetWarned:
		return new(BudgetWarned)
	}
	return nil
}
