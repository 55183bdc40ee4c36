package rehearsal

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/gateway/provider"
	"github.com/fermata-run/fermata/internal/worker"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Result is what came of a case.
type Result struct {
	Case     string        `json:"case"`
	Skipped  string        `json:"skipped,omitempty"` // why it was left out
	Failures []Failure     `json:"failures,omitempty"`
	Notes    []string      `json:"notes,omitempty"`   // what is no failure, but most likely not meant
	Account  *Account      `json:"account,omitempty"` // nil: it did not come to that
	Compared *Comparison   `json:"compared,omitempty"`
	Story    []string      `json:"-"` // what happened, a line an event
	Golden   *Golden       `json:"-"` // nil: it has none
	Took     time.Duration `json:"took_real_ns"`
}

// Golden is the story of a case as a file that a later one is held against.
type Golden struct {
	Path   string
	Differ bool // from what the file says
	Source []byte
}

// Passed reports whether nothing went otherwise than the case expects.
func (r *Result) Passed() bool { return len(r.Failures) == 0 }

// Accept takes the story as it went for the golden one.
func (r *Result) Accept() {
	r.Golden.Differ = false
	r.Failures = slices.DeleteFunc(r.Failures, func(f Failure) bool { return strings.HasSuffix(f.Pointer, goldenKey) })
}

const goldenKey = "/expect/golden"

// Run plays a case, and holds what came of it against what it expects. The error is that ctx was done.
func (c *Case) Run(ctx context.Context) (*Result, error) {
	r := &Result{Case: c.Name, Skipped: c.Skip}
	if c.Skip != "" {
		return r, nil
	}
	began := time.Now()
	p := c.play(ctx, nil)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.Account, r.Story = p.account, p.story
	r.Failures = c.judge(p)
	unused := p.unused
	if c.Expect.Golden != "" && p.account != nil {
		c.golden(r)
	}
	if c.Compare != nil && p.account != nil {
		also := c.compare(ctx, r)
		unused = slices.DeleteFunc(also, func(line string) bool {
			return !strings.HasPrefix(line, "compare/") && !slices.Contains(p.unused, line)
		})
	}
	for _, line := range unused {
		r.Notes = append(r.Notes, line+" of the case answered nothing")
	}
	for i := range r.Failures {
		at := c.suite.Position(r.Failures[i].Pointer)
		r.Failures[i].Line, r.Failures[i].Col = at.Line, at.Col
	}
	r.Took = time.Since(began)
	return r, ctx.Err()
}

// judge lists what went otherwise than expected.
func (c *Case) judge(p played) []Failure {
	v := &verdict{c: c, a: p.account, calls: p.calls, stuck: p.stuck, failures: p.missed}
	if p.err != nil {
		v.add(c.pointer, p.err.Error(), "", "")
	}
	if p.account != nil && p.err == nil {
		v.check()
	}
	return v.failures
}

// played is what a case was seen to do.
type played struct {
	account *Account // nil: it could not begin
	story   []string
	stuck   []vain
	missed  []Failure
	unused  []string
	calls   map[string]callCount
	err     error
}

// play plays a case once. watch, if there is one, is called after every decision.
func (c *Case) play(outer context.Context, watch func(*actor)) (p played) {
	w := c.compiled
	if len(c.Replace) > 0 {
		if w, p.err = replaced(w, c.Replace); p.err != nil {
			return p
		}
	}
	priced := time.Now() // from here on no clock but the bubble's counts
	if !c.suite.file.At.IsZero() {
		priced = c.at
	}
	s := newScript(c)
	err := inBubble(func(ctx context.Context) {
		stage := newStage(ctx, c, s)
		stage.watch = watch
		stage.node = c.node(s, func() time.Time { return priced.Add(time.Since(stage.began)) })
		p.err = stage.play(outer, c.submission(w))
		p.story, p.stuck = stage.story, stage.stuck
		switch refused := fault.Of(p.err); {
		case len(stage.actors) > 0:
			p.account = stage.account()
		case refused != nil: // its input: that may be what the case is about
			p.account, p.err = &Account{Status: string(flow.RunStatusFailed), Error: &flow.Failure{Class: refused.Code, Message: refused.Error()}}, nil
		}
	})
	if err != nil {
		p.err = err
	}
	p.missed, p.unused, p.calls = s.missed, s.unused(), s.calls
	return p
}

func (c *Case) submission(w *workflow.Workflow) flow.Submission {
	sub := flow.Submission{
		ID: runID(c.at, c.Name), Workflow: w, Input: c.Input, Labels: c.Labels, Stakes: c.Stakes, Mode: c.Mode, Priority: -1,
	}
	if b := c.Budget; b != nil {
		sub.Budget = &workflow.Budget{Cost: dollars(b.USD), Tokens: b.Tokens}
	}
	return sub
}

// node makes nodes: a worker as the service has it, on a gateway that asks the script alone. What a gateway has learned is
// lost with its node; what was spent, and what providers have cached, is not.
func (c *Case) node(s *script, now func() time.Time) func() (performer, error) {
	models, budgets := provider.NewSimulated(provider.SimulatedConfig{Respond: s.respond}), newPurse()
	return func() (performer, error) {
		g, err := gateway.New(gateway.Config{
			Providers: []gateway.Provider{{Provider: models, Simulated: true, Fallback: true}}, Budgets: budgets, Now: now,
			Draw: func() float64 { return 0.5 }, // pauses are the same each time
		})
		if err != nil {
			return nil, fmt.Errorf("make the gateway: %w", err)
		}
		return worker.New(worker.Config{Gateway: door{g, s}, Tools: s, Roster: g}), nil
	}
}

// golden holds the story of a case against the one in its file.
func (c *Case) golden(r *Result) {
	g := &Golden{Path: c.Expect.Golden, Source: story(r)}
	r.Golden = g
	pointer := c.pointer + goldenKey
	known, err := c.suite.library.File(g.Path)
	if err != nil {
		g.Differ = true
		r.Failures = append(r.Failures, Failure{Pointer: pointer, What: "the golden file cannot be read; --update writes it: " + err.Error()})
		return
	}
	for i, d := range Diff(known, g.Source) {
		if g.Differ = true; i < missedMax {
			r.Failures = append(r.Failures, Failure{
				Pointer: pointer, What: "the story differs at " + d.Pointer + "; --update takes the new one", Expected: orNothing(d.A), Got: orNothing(d.B),
			})
		}
	}
}

func orNothing(raw json.RawMessage) string {
	if raw == nil {
		return "nothing"
	}
	return string(raw)
}

// story is what a golden file holds: all but money, which follows the price list.
func story(r *Result) []byte {
	type step struct {
		Path     string          `json:"path"`
		Status   string          `json:"status"`
		Attempts int             `json:"attempts,omitempty"`
		Agent    string          `json:"agent,omitempty"`
		Model    string          `json:"model,omitempty"`
		Calls    int             `json:"calls,omitempty"`
		Output   json.RawMessage `json:"output,omitempty"`
		Error    *flow.Failure   `json:"error,omitempty"`
	}
	told := struct {
		Status  string          `json:"status"`
		Output  json.RawMessage `json:"output,omitempty"`
		Error   *flow.Failure   `json:"error,omitempty"`
		Quality *flow.Quality   `json:"quality,omitempty"`
		Steps   []step          `json:"steps"`
		Events  []string        `json:"events"`
	}{r.Account.Status, r.Account.Output, r.Account.Error, r.Account.Quality, nil, r.Story}
	for i := range r.Account.Steps {
		s := &r.Account.Steps[i]
		told.Steps = append(told.Steps, step{s.Path, s.Status, s.Attempts, s.Agent, s.Model, s.Calls, s.Output, s.Error})
	}
	source, err := json.MarshalIndent(told, "", "  ")
	if err != nil { // all of it came from JSON
		panic(fmt.Sprintf("rehearsal: write a story: %v", err))
	}
	return append(source, '\n')
}

// compare plays the case otherwise, and lays both side by side. It answers which lines that left unused.
func (c *Case) compare(ctx context.Context, r *Result) []string {
	other, err := c.otherwise()
	pointer := c.pointer + "/compare"
	if err != nil {
		r.Failures = append(r.Failures, Failure{Pointer: pointer + "/with", What: err.Error()})
		return nil
	}
	p := other.play(ctx, nil)
	if p.account == nil {
		r.Failures = append(r.Failures, Failure{Pointer: pointer, What: p.err.Error()})
		return nil
	}
	r.Compared = Compare("as it stands", r.Account, "otherwise", p.account)
	v := &verdict{c: c, a: r.Account}
	for i, source := range c.Compare.Assert {
		v.assert(fmt.Sprintf("%s/assert/%d", pointer, i), source, compareRoots, map[string]any{"a": r.Account.values(), "b": p.account.values()})
	}
	r.Failures = append(r.Failures, v.failures...)
	return p.unused
}

// otherwise is the case as compare says.
func (c *Case) otherwise() (*Case, error) {
	with := &c.Compare.With
	other := *c
	if with.Workflow != nil {
		var err error
		if other.compiled, err = c.suite.workflowOf(c.pointer+"/compare/with/workflow", with.Workflow, ""); err != nil {
			return nil, err
		}
	}
	if with.Input != nil {
		other.Input = with.Input
	}
	if with.Replace != nil {
		other.Replace = with.Replace
	}
	if with.Stakes != "" {
		other.Stakes = with.Stakes
	}
	if with.Mode != "" {
		other.Mode = with.Mode
	}
	other.Models, other.Tools = slices.Concat(with.Models, c.Models), slices.Concat(with.Tools, c.Tools)
	return &other, nil
}
