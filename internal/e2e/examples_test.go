package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shownRun is what these tests read of a run.
type shownRun struct {
	ID, Status string
	Output     json.RawMessage
	Error      struct{ Class, Step string }
	Simulated  bool
	Cost       struct {
		NanoUSD       int64 `json:"nano_usd"`
		UnpricedCalls int   `json:"unpriced_calls"`
	}
	Usage struct {
		Calls  int
		Tokens map[string]int64
	}
	Steps []struct {
		Path, Kind, Status string
		Attempt            int
	}
	Provenance []struct {
		Step, Model, Role string
		Simulated         bool
	}
}

// statuses lists the steps that stand somewhere.
func (r shownRun) statuses(status string) []string {
	var paths []string
	for _, s := range r.Steps {
		if s.Status == status {
			paths = append(paths, s.Path)
		}
	}
	return paths
}

// shownEvent is what these tests read of an event.
type shownEvent struct {
	Seq     int
	Kind    string
	Step    string
	Attempt int
}

func example(name string) string { return filepath.Join("examples", name) }

// runExample runs an example to its end.
func runExample(t *testing.T, code int, name string, inputs ...string) shownRun {
	t.Helper()
	args := []string{"run", "-o", "json", "--wait", "-f", example(name)}
	for _, in := range inputs {
		args = append(args, "-i", in)
	}
	return decode[shownRun](t, serviceFor(t).fermata(t, args...).want(t, code).out)
}

// logOf reads a run's log through `watch -o json`.
func logOf(t *testing.T, id string, code int) []shownEvent {
	t.Helper()
	var events []shownEvent
	for line := range strings.Lines(serviceFor(t).fermata(t, "watch", "-o", "json", id).want(t, code).out) {
		events = append(events, decode[shownEvent](t, line))
	}
	return events
}

// when finds the place of an event in a log.
func when(t *testing.T, log []shownEvent, kind, step string) int {
	t.Helper()
	i := slices.IndexFunc(log, func(e shownEvent) bool { return e.Kind == kind && e.Step == step })
	if i < 0 {
		t.Fatalf("no %s of %s in the log", kind, step)
	}
	return i
}

const brief = "task=@examples/briefs/cold-chain.txt"

// Mission row M6: the five steps, with a confidence and a provenance trail; and each of the skip rules.
func TestQCDeliverable(t *testing.T) {
	run := runExample(t, 0, "qc-deliverable.yaml", brief, "stakes=high")
	result := decode[struct {
		Deliverable    string
		Confidence     *float64
		StepsCompleted int `json:"steps_completed"`
	}](t, string(run.Output))
	if result.Deliverable == "" || result.StepsCompleted != 5 {
		t.Errorf("result %s", run.Output)
	}
	if result.Confidence == nil || *result.Confidence < 0 || *result.Confidence > 100 {
		t.Errorf("confidence in %s", run.Output)
	}
	if !run.Simulated || run.Usage.Calls < 4 || run.Cost.NanoUSD <= 0 || run.Cost.UnpricedCalls != 0 {
		t.Errorf("simulated %t, %d calls, %d nano-USD, %d unpriced", run.Simulated, run.Usage.Calls, run.Cost.NanoUSD, run.Cost.UnpricedCalls)
	}
	if run.Usage.Tokens["input"] <= 0 || run.Usage.Tokens["output"] <= 0 {
		t.Errorf("tokens %v", run.Usage.Tokens)
	}
	var makers []string
	for _, p := range run.Provenance {
		makers = append(makers, p.Step+" "+p.Model)
		if !p.Simulated {
			t.Errorf("%s does not say that it is simulated", p.Step)
		}
	}
	want := []string{"produce claude-sonnet-4-6", "self_review claude-sonnet-4-6", "cross_check gpt-4o", "incorporate claude-opus-4-6"}
	if !slices.Equal(makers, want) {
		t.Errorf("provenance %v, want %v", makers, want)
	}
}

func TestQCSkipsWhatIsNotWorthIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		inputs  []string
		skipped []string
	}{
		{"normal stakes", nil, nil},
		{"low stakes", []string{"stakes=low"}, []string{"cross_check", "incorporate"}},
		{"in a hurry", []string{"seconds=10"}, []string{"self_review", "cross_check", "incorporate"}},
		{"has tests", []string{"has_tests=true"}, []string{"cross_check"}},
		{"creative", []string{"creative=true"}, []string{"cross_check"}},
		{"high stakes in a hurry", []string{"stakes=high", "seconds=10", "creative=true"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := runExample(t, 0, "qc-deliverable.yaml", append([]string{"task=Name the paint."}, c.inputs...)...)
			if got := run.statuses("skipped"); !slices.Equal(got, c.skipped) {
				t.Errorf("skipped %v, want %v", got, c.skipped)
			}
			result := decode[struct {
				Deliverable    string
				StepsCompleted int `json:"steps_completed"`
			}](t, string(run.Output))
			if result.StepsCompleted != 5-len(c.skipped) || result.Deliverable == "" {
				t.Errorf("%s", run.Output)
			}
		})
	}
}

// Mission row M1: each agent works on what the ones before it made.
func TestPipeline(t *testing.T) {
	run := runExample(t, 0, "pipeline.yaml", "request=A rate limiter, please")
	log := logOf(t, run.ID, 0)
	steps := []string{"generate", "review", "fix", "test", "document"}
	for i := 1; i < len(steps); i++ {
		if when(t, log, "step_started", steps[i]) < when(t, log, "step_succeeded", steps[i-1]) {
			t.Errorf("%s began before %s was done", steps[i], steps[i-1])
		}
	}
}

// Mission rows M2 and M3: specialists at once, then one who joins, then one who checks.
func TestFanout(t *testing.T) {
	run := runExample(t, 0, "fanout.yaml", "subject=@examples/briefs/cold-chain.txt")
	log := logOf(t, run.ID, 0)
	first := slices.IndexFunc(log, func(e shownEvent) bool { return e.Kind == "step_succeeded" })
	for _, specialist := range []string{"performance", "security", "operations", "usability", "cost"} {
		if when(t, log, "step_started", specialist) > first {
			t.Errorf("%s began only after another had finished", specialist)
		}
		if when(t, log, "step_started", "integrate") < when(t, log, "step_succeeded", specialist) {
			t.Errorf("integrate did not wait for %s", specialist)
		}
	}
	if when(t, log, "step_started", "verify") < when(t, log, "step_succeeded", "integrate") {
		t.Error("verify did not wait for integrate")
	}
}

// Mission row M8: which agents run depends on what was found before.
func TestSwitch(t *testing.T) {
	run := runExample(t, 0, "switch.yaml", "ticket=I was charged twice this month")
	var asked []string
	for _, path := range run.statuses("succeeded") {
		if strings.HasPrefix(path, "ask_") {
			asked = append(asked, path)
		}
	}
	result := decode[struct{ Topic, Answer string }](t, string(run.Output))
	want := map[string]string{"billing": "ask_billing", "outage": "ask_operations", "question": "ask_guide"}[result.Topic]
	if !slices.Equal(asked, []string{want}) || result.Answer == "" {
		t.Errorf("topic %q was handled by %v: %s", result.Topic, asked, run.Output)
	}
}

// Mission row M41: after a failure the run goes on from its checkpoints, and nothing already paid for is paid again.
func TestResume(t *testing.T) {
	s := serviceFor(t)
	run := runExample(t, 10, "resume.yaml", "topic=Tides")
	if run.Status != "failed" || run.Error.Step != "publish" || run.Error.Class != "tool_error" {
		t.Fatalf("%+v", run)
	}
	spent := run.Cost.NanoUSD

	t.Run("without a mended cause it fails again", func(t *testing.T) {
		s.fermata(t, "resume", run.ID).want(t, 10)
	})
	t.Run("an output that nobody asked for is refused", func(t *testing.T) {
		r := s.fermata(t, "resume", run.ID, "--set", `steps.publihs.output={"url":"x"}`)
		if r.code == 0 || !strings.Contains(r.err, "publihs") {
			t.Errorf("%d: %s", r.code, r.err)
		}
	})
	s.fermata(t, "resume", run.ID, "--set", `steps.publish.output={"url":"https://example.org/tides"}`, "--reason", "published by hand").want(t, 0)

	after := decode[shownRun](t, s.fermata(t, "get", "-o", "json", run.ID).want(t, 0).out)
	if after.Status != "succeeded" || !strings.Contains(string(after.Output), "https://example.org/tides") {
		t.Errorf("%s: %s", after.Status, after.Output)
	}
	log := logOf(t, run.ID, 0)
	for _, paid := range []string{"write", "edit"} {
		starts := 0
		for _, e := range log {
			if e.Kind == "step_started" && e.Step == paid {
				starts++
			}
		}
		if starts != 1 {
			t.Errorf("%s was started %d times", paid, starts)
		}
	}
	if after.Cost.NanoUSD <= spent || after.Usage.Calls != run.Usage.Calls+1 {
		t.Errorf("%d calls for %d nano-USD after %d for %d: only the announcement is new", after.Usage.Calls, after.Cost.NanoUSD, run.Usage.Calls, spent)
	}
	if r := s.fermata(t, "resume", run.ID).want(t, 5); !strings.Contains(r.err, "succeeded") {
		t.Errorf("resume of a run that succeeded: %s", r.err)
	}
}
