package rehearsal

import (
	"encoding/json"
	"time"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Account is what came of a run.
type Account struct {
	Status     string          `json:"status"` // waiting: for what never comes
	Output     json.RawMessage `json:"output,omitempty"`
	Error      *flow.Failure   `json:"error,omitempty"`
	Calls      int             `json:"calls"` // requests to models
	Tokens     int64           `json:"tokens"`
	Cost       usage.Money     `json:"cost_nano"`
	Unpriced   int             `json:"unpriced_calls,omitempty"`
	Took       time.Duration   `json:"took_ns"` // in the time of the case
	Quality    *flow.Quality   `json:"quality,omitempty"`
	Unresolved []string        `json:"unresolved,omitempty"`
	Steps      []StepAccount   `json:"steps"`
}

// StepAccount is what came of a step. Those of runs that a step started stand behind it, with its path before theirs.
type StepAccount struct {
	Path       string          `json:"path"`
	Kind       string          `json:"kind"`
	Status     string          `json:"status"`
	Attempts   int             `json:"attempts"`
	Agent      string          `json:"agent,omitempty"`
	Model      string          `json:"model,omitempty"` // that answered
	Calls      int             `json:"calls"`
	Tokens     int64           `json:"tokens"`
	Cost       usage.Money     `json:"cost_nano"`
	Unpriced   int             `json:"unpriced_calls,omitempty"`
	Confidence *float64        `json:"confidence,omitempty"`
	Score      *float64        `json:"score,omitempty"` // of its gate
	Output     json.RawMessage `json:"output,omitempty"`
	Error      *flow.Failure   `json:"error,omitempty"`
	Began      time.Duration   `json:"began_ns"` // since the run did; 0 where it did not
	Took       time.Duration   `json:"took_ns"`

	first, last int // events of the case: its first one, and the one that settled it; 0: there is none
}

func (s *stage) account() *Account {
	first := s.actors[0].run.View()
	a := &Account{
		Status: string(first.Status), Error: first.Error, Calls: first.Sum.Calls, Tokens: first.Sum.Tokens.Total(), Cost: first.Sum.Cost,
		Unpriced: first.Sum.Unpriced, Took: s.now().Sub(first.CreatedAt), Quality: first.Quality,
	}
	if !first.EndedAt.IsZero() {
		a.Took = first.EndedAt.Sub(first.CreatedAt)
	}
	if len(s.stuck) > 0 {
		a.Status = string(flow.RunStatusWaiting)
	}
	if r := first.Result; r != nil {
		a.Output = r.Output
		for _, u := range r.Unresolved {
			a.Unresolved = append(a.Unresolved, u.Text)
		}
	}
	for _, actor := range s.actors {
		v := actor.run.View()
		for i := range v.Steps {
			a.Steps = append(a.Steps, s.stepAccount(actor, &v.Steps[i], first.CreatedAt))
		}
	}
	return a
}

func (s *stage) stepAccount(of *actor, v *flow.StepView, began time.Time) StepAccount {
	a := StepAccount{
		Path: of.prefix + v.Path, Kind: string(v.Kind), Status: string(v.Status), Attempts: int(v.Attempt), Agent: v.Agent,
		Calls: v.Sum.Calls, Tokens: v.Sum.Tokens.Total(), Cost: v.Sum.Cost, Unpriced: v.Sum.Unpriced,
		Confidence: v.Confidence, Output: v.Output, Error: v.Error,
	}
	if m := s.marks[a.Path]; m != nil && v.Status != flow.StepStatusSkipped {
		a.first, a.last = m.first, m.last
	}
	if def := of.run.Workflow().Step(v.Path); a.Agent == "" && def != nil && def.Agent != nil {
		a.Agent = def.Agent.Agent.Name
	}
	for _, c := range v.Calls {
		if c.Class == "" && c.Who == "" { // not of its judges, or who else works at it
			a.Model = c.Model
		}
	}
	if v.Gate != nil {
		a.Score = v.Gate.Score
	}
	if !v.StartedAt.IsZero() {
		a.Began = v.StartedAt.Sub(began)
		if v.Status.Settled() {
			a.Took = v.EndedAt.Sub(v.StartedAt)
		}
	}
	return a
}

// The roots of a case's expressions.
var (
	assertRoots = []string{
		"output", "status", "error", "steps", "calls", "cost_usd", "tokens", "duration_s", "quality", "unresolved",
	}
	compareRoots = []string{"a", "b"}
	valueRoots   = []string{"value"}
)

// values is the account as expressions read it.
func (a *Account) values() map[string]any {
	steps := make(map[string]any, len(a.Steps))
	for i := range a.Steps {
		steps[a.Steps[i].Path] = a.Steps[i].values()
	}
	quality := map[string]any{"level": int64(0), "name": "", "omitted": []any{}, "reasons": []any{}}
	if q := a.Quality; q != nil {
		quality = map[string]any{"level": int64(q.Level), "name": q.Name, "omitted": texts(q.Omitted), "reasons": texts(q.Reasons)}
	}
	return map[string]any{
		"status": a.Status, "output": decoded(a.Output), "error": failureValue(a.Error), "steps": steps, "calls": int64(a.Calls),
		"cost_usd": usd(a.Cost), "tokens": a.Tokens, "duration_s": a.Took.Seconds(), "quality": quality, "unresolved": texts(a.Unresolved),
	}
}

func (a *StepAccount) values() map[string]any {
	v := map[string]any{
		"status": a.Status, "kind": a.Kind, "attempts": int64(a.Attempts), "calls": int64(a.Calls), "tokens": a.Tokens,
		"cost_usd": usd(a.Cost), "duration_s": a.Took.Seconds(),
	}
	for name, text := range map[string]string{"agent": a.Agent, "model": a.Model} {
		if text != "" {
			v[name] = text
		}
	}
	for name, number := range map[string]*float64{"confidence": a.Confidence, "score": a.Score} {
		if number != nil {
			v[name] = *number
		}
	}
	if len(a.Output) > 0 {
		v["output"] = decoded(a.Output)
	}
	if a.Error != nil {
		v["error"] = failureValue(a.Error)
	}
	return v
}

func failureValue(f *flow.Failure) any {
	if f == nil {
		return nil
	}
	return map[string]any{"class": f.Class, "message": f.Message, "step": f.Step}
}

func usd(m usage.Money) float64 { return float64(m) / float64(usage.USD) }

func texts(list []string) []any {
	values := make([]any, len(list))
	for i, text := range list {
		values[i] = text
	}
	return values
}

func decoded(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	v, _ := workflow.Decode(raw) //nolint:errcheck // was checked to be JSON where it was made
	return v
}
