package flow_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
// new version of a body gets a new file.
func TestGoldenLogs(t *testing.T) {
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
