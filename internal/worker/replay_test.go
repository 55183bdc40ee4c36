package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// oracle answers every question by its name alone: whoever asks the same again, after a crash, is told the same.
type oracle struct {
	world uint64
	mu    sync.Mutex
	asked []string // names of the questions
}

func (o *oracle) Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", o.world, r.Seed)
	o.mu.Lock()
	o.asked = append(o.asked, r.Seed)
	o.mu.Unlock()
	return spoken(ctx, r, lineOf(whoOf(r), h.Sum64()>>7))
}

func lineOf(who string, draw uint64) string {
	own := who[strings.LastIndexByte(who, '/')+1:]
	kind, _, _ := strings.Cut(own, ".")
	lines := map[string][]string{
		"":         {text("tea"), text("green tea"), `{"text":"long and green tea","confidence":80}`, "nonsense", askingA, "same " + text("black tea"), "call explore: look; implement: build", "call implement: a", "!server"},
		"judge":    {verdict(9), verdict(8), verdict(3, "too short"), "nonsense", "same " + verdict(7.5), "!overloaded"},
		"decider":  {`{"decision":"green"}`, `{"decision":"black","reason":"why not"}`, "nonsense"},
		"person":   {"as you like"},
		"summary":  {"short", "!server", strings.Repeat("x", 100)},
		"delegate": {"found it", "found " + strings.Repeat("much ", 20), "!overloaded", text("built"), askingA, "call reader: read", "nonsense"},
	}[kind]
	return lines[draw%uint64(len(lines))]
}

// world is an attempt with everything that one may have.
func world(t *rapid.T, base flow.Attempt, gate *workflow.Gate) flow.Attempt {
	a := base
	step, by := *base.Step, *base.Agent
	a.Step, a.Agent = &step, &by
	if !rapid.Bool().Draw(t, "delegates") {
		by.Delegates = nil
	}
	by.Role = rapid.SampledFrom([]string{"grinder", "orchestrator"}).Draw(t, "role")
	by.Chain.Entries = make([]workflow.ChainEntry, rapid.IntRange(1, 2).Draw(t, "entries"))
	for i := range by.Chain.Entries {
		by.Chain.Entries[i].Model = fmt.Sprintf("model-%d", i)
	}
	if rapid.Bool().Draw(t, "gate") {
		step.Gate = gate
	}
	if rapid.Bool().Draw(t, "summary") {
		by.Summary = &workflow.Summary{MaxTokens: 4}
	}
	if rapid.Bool().Draw(t, "orchestrator") {
		a.Orchestrator = lead()
	}
	a.Avoid = []string{"p/x"}
	return a
}

// Wherever an attempt is cut, it goes on to the end that it would have come to, and what was answered and written down is
// not asked for again.
func TestCutAnywhere(t *testing.T) {
	base := delegating(t, 2)
	gate := &workflow.Gate{Revise: 2, Checks: []workflow.Check{
		{Assert: condition(t, "output.text.size() > 4"), Message: "too short"}, {Judge: judgeAgent(), MinScore: 7, DifferentFamily: true}, {Judge: lead()},
	}}
	rapid.Check(t, func(t *rapid.T) {
		a := world(t, base, gate)
		seed := rapid.Uint64().Draw(t, "world")
		turns, outcome := toTheEnd(t, a, seed, nil)
		for n := range turns {
			again, other := toTheEnd(t, a, seed, slices.Clone(turns[:n]))
			if diff := cmp.Diff(outcome, other, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("cut after %d of %d turns it ends otherwise:\n%s", n, len(turns), diff)
			}
			if diff := cmp.Diff(namesOf(turns), namesOf(again)); diff != "" {
				t.Fatalf("cut after %d of %d turns it goes another way:\n%s", n, len(turns), diff)
			}
		}
	})
}

// namesOf is what is in the log, in an order that does not depend on who of those at work at the same time was first.
func namesOf(turns []flow.Turn) []string {
	var names []string
	for _, turn := range turns {
		failed := ""
		if turn.Failure != nil {
			failed = "failed " + turn.Failure.Class
		}
		names = append(names, turn.Who+" "+turn.Reply+string(turn.ToolCalls)+failed)
	}
	slices.Sort(names)
	return names
}

// toTheEnd does an attempt, and answers what it asks of people, until it ends. What is in the log must not be asked for.
func toTheEnd(t *rapid.T, a flow.Attempt, seed uint64, log []flow.Turn) ([]flow.Turn, *flow.Outcome) {
	for {
		known := map[string]bool{}
		for _, turn := range log {
			for _, call := range turn.Calls {
				known[call.RequestID] = true
			}
		}
		all := &oracle{world: seed}
		a.Turns = slices.Clone(log)
		var outcome *flow.Outcome
		var mu sync.Mutex
		New(Config{Gateway: all}).Do(context.Background(), a, func(r flow.Report) {
			mu.Lock()
			defer mu.Unlock()
			if r.Turn != nil {
				raw, err := json.Marshal(r.Turn) // as the log keeps it
				var kept flow.Turn
				if err != nil || json.Unmarshal(raw, &kept) != nil {
					t.Fatalf("%+v cannot be kept: %v", r.Turn, err)
				}
				log = append(log, kept)
			}
			if r.Outcome != nil {
				outcome = r.Outcome
			}
		})
		for _, name := range all.asked {
			if known[name] {
				t.Fatalf("%s was bought twice", name)
			}
			known[name] = true
		}
		if outcome.Held != flow.HeldDecision {
			return log, outcome
		}
		log = append(log, flow.Turn{Who: whoPerson, Reply: "as you like"})
	}
}
