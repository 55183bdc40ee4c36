package flow_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
)

// goldenLog is a log as a binary of that time wrote it, and what it folded to.
type goldenLog struct {
	Definition string        `json:"definition"`
	Events     []goldenEvent `json:"events"`
	Status     string        `json:"status"`
	Steps      []string      `json:"steps"` // path status generation.attempt
	Output     string        `json:"output"`
	Money      []string      `json:"money,omitempty"` // since version 2: the budget, what is held, what was spent and saved
	Facts      []string      `json:"facts,omitempty"` // since version 3: what else is to be seen of the steps, what is at work, what is waited for
}

type goldenEvent struct {
	Seq     int32           `json:"seq"`
	At      time.Time       `json:"at"`
	Kind    flow.Kind       `json:"kind"`
	V       int16           `json:"v"`
	Step    string          `json:"step,omitempty"`
	Gen     int16           `json:"gen,omitempty"`
	Attempt int16           `json:"attempt,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// TestGoldenLogs: logs written by earlier versions fold to what they folded to then. The files are never rewritten; a
// new version of a body gets a new file: with -update, the play of its name is performed for it.
func TestGoldenLogs(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden logs: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var golden goldenLog
		if err := json.Unmarshal(raw, &golden); err != nil {
			t.Fatal(err)
		}
		var log []flow.Event
		for _, e := range golden.Events {
			log = append(log, flow.Event(e))
		}
		run, err := flow.Fold(playRun, uuid.Nil, compile(t, golden.Definition), log)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got := goldenOf(run)
		got.Definition, got.Events = golden.Definition, golden.Events
		if diff := cmp.Diff(golden, got, compactJSON()); diff != "" {
			t.Errorf("%s (-then +now):\n%s", file, diff)
		}
	}
}

// writeGolden performs the plays that have no log yet.
func writeGolden(t *testing.T) {
	plays, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, play := range plays {
		file := strings.TrimSuffix(play, ".txt") + ".json"
		if _, err := os.Stat(file); err == nil {
			continue
		}
		script, err := os.ReadFile(play)
		if err != nil {
			t.Fatal(err)
		}
		s := &stage{t: t, defined: library{"child": compile(t, childDefinition)}}
		s.perform(string(script))
		golden := goldenOf(s.run)
		_, definition, _ := strings.Cut(string(script), "define\n")
		golden.Definition, _, _ = strings.Cut(definition, "----")
		for _, e := range s.log {
			golden.Events = append(golden.Events, goldenEvent(e))
		}
		raw, err := json.MarshalIndent(golden, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func goldenOf(run *flow.Run) goldenLog {
	v := run.View()
	g := goldenLog{Status: string(v.Status)}
	for _, s := range v.Steps {
		g.Steps = append(g.Steps, s.Path+" "+string(s.Status)+" "+string(rune('0'+s.Gen))+"."+string(rune('0'+s.Attempt)))
	}
	if v.Budget != nil {
		g.Money = append(g.Money, fmt.Sprintf("limits $%s %d warned=%v format=%d", v.Budget.Cost, v.Budget.Tokens, v.Budget.Warned, run.Format()))
		for _, s := range v.Steps {
			if s.Held != "" || s.BelowGate {
				g.Money = append(g.Money, fmt.Sprintf("%s held=%s below_gate=%v", s.Path, s.Held, s.BelowGate))
			}
		}
		g.Money = append(g.Money, fmt.Sprintf("spent $%s %d in %d calls", v.Sum.Cost, v.Sum.Tokens.Total(), v.Sum.Calls))
	}
	if run.Format() >= 3 {
		g.Facts = factsOf(run)
	}
	if v.Result != nil {
		if v.Result.Savings != nil {
			g.Money = append(g.Money, fmt.Sprintf("baseline $%s cost $%s cache $%s", v.Result.Savings.Baseline, v.Result.Savings.Cost, v.Result.Savings.CacheSaved))
		}
		var output bytes.Buffer // the file is indented
		if json.Compact(&output, v.Result.Output) == nil {
			g.Output = output.String()
		}
	}
	return g
}

// factsOf says what is to be seen of a run of version 3.
func factsOf(run *flow.Run) []string {
	v := run.View()
	facts := []string{fmt.Sprintf("%d of %d done, waits for %q until %s", v.StepsDone, v.Total, v.WaitingFor, run.Due().UTC().Format(time.RFC3339Nano))}
	if q := v.Quality; q != nil {
		facts = append(facts, fmt.Sprintf("level %d %q omitted=%q reasons=%q", q.Level, q.Name, q.Omitted, q.Reasons))
	}
	for start := range run.Pending {
		a := run.Attempt(start)
		facts = append(facts, fmt.Sprintf("at work %s#%d.%d by %s duty=%q turns=%d feedback=%q around=%s", a.Path, a.Gen, a.No, agentName(a), a.Duty, len(a.Turns), a.Feedback, asJSON(a.Around)))
	}
	for _, s := range v.Steps {
		seen := asJSON(map[string]any{
			"inside": s.Inside, "waiting": s.Waiting, "answer": s.Answer, "child": s.Child, "gate": s.Gate, "agreement": s.Agreement,
			"dissent": s.Dissent, "failures": s.Failures, "skipped": s.Skipped,
		})
		facts = append(facts, fmt.Sprintf("%s agent=%q instead=%q duty=%q summary=%q spent=$%s output=%s %s", s.Path, s.Agent, s.Instead, s.Duty, s.Summary, s.Sum.Cost, asJSON(s.Output), seen))
	}
	return facts
}

func agentName(a flow.Attempt) string {
	if a.Agent == nil {
		return "nobody"
	}
	return a.Agent.Name
}

func asJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
