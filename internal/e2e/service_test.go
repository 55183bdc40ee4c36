package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeper is a workflow that takes as long as it is told.
const sleeper = "internal/e2e/testdata/sleep.yaml"

func submitSleeper(t *testing.T, s *service, length string) string {
	t.Helper()
	r := s.fermata(t, "run", "--detach", "-o", "json", "-f", sleeper, "-i", "length="+length).want(t, 0)
	return decode[struct{ ID string }](t, r.out).ID
}

func TestExitCodesOfRuns(t *testing.T) {
	s := serviceFor(t)
	t.Run("not found", func(t *testing.T) {
		s.fermata(t, "get", "run_01950000000070008000000000000000").want(t, 3)
	})
	t.Run("timeout", func(t *testing.T) {
		id := submitSleeper(t, s, "1h")
		s.fermata(t, "watch", "--timeout", "500ms", id).want(t, 124)
		s.fermata(t, "cancel", id).want(t, 0)
	})
	t.Run("cancelled", func(t *testing.T) {
		id := submitSleeper(t, s, "1h")
		s.fermata(t, "cancel", id, "--reason", "a test").want(t, 0)
		if r := s.fermata(t, "watch", id).want(t, 11); !strings.Contains(r.out, "cancelled") {
			t.Errorf("%s", r.out)
		}
		s.fermata(t, "cancel", id).want(t, 5)
	})
	t.Run("interrupted", func(t *testing.T) {
		id := submitSleeper(t, s, "1h")
		watch := exec.Command(binary, "watch", id, "--url", s.url)
		watch.Env = environment()
		out, err := watch.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it is watching
			t.Fatal(err)
		}
		if err := watch.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = watch.Wait()
		if code := watch.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
		s.fermata(t, "cancel", id).want(t, 0)
	})
	t.Run("invalid input", func(t *testing.T) {
		r := s.fermata(t, "run", "-f", example("qc-deliverable.yaml"), "-i", "tusk=x").want(t, 1)
		if !strings.Contains(r.err, "tusk") && !strings.Contains(r.err, "task") {
			t.Errorf("%s", r.err)
		}
	})
}

func TestTheSameKeyIsTheSameRun(t *testing.T) {
	s := serviceFor(t)
	var ids []string
	for range 2 {
		r := s.fermata(t, "run", "--detach", "-o", "json", "--idempotency-key", "e2e-same-key", "-f", sleeper, "-i", "length=1ms").want(t, 0)
		ids = append(ids, decode[struct{ ID string }](t, r.out).ID)
	}
	if ids[0] != ids[1] || ids[0] == "" {
		t.Errorf("%v", ids)
	}
	s.fermata(t, "run", "--detach", "--idempotency-key", "e2e-same-key", "-f", sleeper, "-i", "length=2ms").want(t, 1)
}

func TestListAndGet(t *testing.T) {
	s := serviceFor(t)
	run := runExample(t, 0, "qc-deliverable.yaml", "task=Name the paint.", "stakes=low")
	list := decode[[]struct{ ID, Workflow, Status string }](t, s.fermata(t, "list", "-o", "json", "--workflow", "qc-deliverable", "--status", "succeeded", "--limit", "1").want(t, 0).out)
	if len(list) != 1 || list[0].ID != run.ID {
		t.Errorf("%+v, want the newest: %s", list, run.ID)
	}
	table := s.fermata(t, "list", "--all").want(t, 0).out
	if !strings.HasPrefix(table, "RUN ") || !strings.Contains(table, run.ID) || strings.Contains(table, "…") {
		t.Errorf("a table that is piped is not cut:\n%s", table)
	}
	shown := s.fermata(t, "get", run.ID).want(t, 0).out
	for _, want := range []string{run.ID, "✓ succeeded", "6/6 steps", "simulated", "cross_check", "skipped", `"deliverable"`} {
		if !strings.Contains(shown, want) {
			t.Errorf("get does not show %q:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "\x1b") {
		t.Errorf("colours in a pipe:\n%q", shown)
	}
}

func TestWatchSaysEachChangeInALine(t *testing.T) {
	out := serviceFor(t).fermata(t, "run", "-f", example("qc-deliverable.yaml"), "-i", "task=Name the paint.", "-i", "stakes=high").want(t, 0).out
	for _, want := range []string{"submitted", "produce          started", "produce          succeeded", "cross_check      succeeded", "run              succeeded"} {
		if !strings.Contains(out, want) {
			t.Errorf("no line with %q:\n%s", want, out)
		}
	}
}

func TestPagesForMachines(t *testing.T) {
	s := serviceFor(t)
	runExample(t, 0, "qc-deliverable.yaml", "task=Name the paint.", "stakes=low")
	for path, want := range map[string]string{
		"/livez": "ok", "/readyz?verbose": "[+]", "/openapi.yaml": "openapi: 3.1", "/": `"name":"fermata"`,
		"/metrics": `fermata_llm_tokens_total{agent="producer",model="claude-sonnet-4-6",provider="simulated",type="output"}`,
	} {
		if code, body := s.get(t, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, no %q in it", path, code, want)
		}
	}
	_, metrics := s.get(t, "/metrics")
	for _, want := range []string{
		`fermata_runs_finished_total{outcome="succeeded",workflow="qc-deliverable"}`, `fermata_llm_cost_usd_total{agent="producer"`,
		"fermata_event_append_duration_seconds_count", "fermata_build_info{", "go_goroutines",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
}

// The README's first command, as CI sees it: no terminal, so it ends by itself.
func TestDemo(t *testing.T) {
	serviceFor(t) // the demo joins its Postgres: there is one folder
	r := fermata(t, "demo", "--data-dir", dataDir, "--listen", "127.0.0.1:0").want(t, 0)
	for _, want := range []string{"simulated", "produce          succeeded", "DELIVERABLE", "CONFIDENCE", "of 100", "PROVENANCE", "claude-opus-4-6", "tokens:", "curl -s"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the demo does not show %q:\n%s", want, r.out)
		}
	}
	run := decode[shownRun](t, fermata(t, "demo", "-o", "json", "--data-dir", dataDir, "--listen", "127.0.0.1:0").want(t, 0).out)
	if run.Status != "succeeded" || len(run.Provenance) != 4 {
		t.Errorf("%+v", run)
	}
}

// A signal to stop ends a node in order: what it was doing is finished, or handed to the others; nothing is lost.
func TestSIGTERMDrains(t *testing.T) {
	other := serviceFor(t)
	node, err := startService(dataDir, "--drain-timeout", "1s")
	if err != nil {
		t.Fatal(err)
	}
	short, long := submitSleeper(t, node, "200ms"), submitSleeper(t, node, "3s")
	node.end(syscall.SIGTERM)
	if code := node.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, node.talk)
	}
	for _, id := range []string{short, long} {
		other.fermata(t, "watch", "--timeout", "60s", id).want(t, 0)
	}
}

// While Postgres is away the service is alive and not ready, and it ends when it is told to.
func TestServeWithoutPostgres(t *testing.T) {
	c := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--database-url", "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable")
	c.Dir, c.Env = root(), environment()
	talk := &tailBuffer{}
	c.Stderr = talk
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s := &service{cmd: c, done: make(chan struct{}), talk: talk}
	go func() { _ = c.Wait(); close(s.done) }()
	defer s.end(syscall.SIGKILL)

	s.url = "http://" + awaitLogged(t, s, "listening", "address")
	if code, body := s.get(t, "/livez"); code != 200 || body != "ok\n" {
		t.Errorf("/livez: %d %s", code, body)
	}
	code, body := s.get(t, "/readyz")
	if p := decode[struct{ Code string }](t, body); code != 503 || p.Code != "starting" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if r := s.fermata(t, "list").want(t, 1); !strings.Contains(r.err, "starting") {
		t.Errorf("%s", r.err)
	}
	s.end(syscall.SIGTERM)
	if code := c.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, talk)
	}
}

// awaitLogged waits for a line of the log and gives one of its values.
func awaitLogged(t *testing.T, s *service, message, key string) string {
	t.Helper()
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); {
		for line := range strings.Lines(s.talk.String()) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message {
				text, _ := entry[key].(string)
				return text
			}
		}
		select {
		case <-s.done:
			t.Fatalf("it ended\n%s", s.talk)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("nothing logged %q\n%s", message, s.talk)
	return ""
}

func TestMigrateSaysWhereTheSchemaStands(t *testing.T) {
	serviceFor(t)
	url := "postgres:///fermata?host=" + filepath.Join(dataDir, "postgres", "run") + "&port=5432&user=postgres"
	if _, err := os.Stat(filepath.Join(dataDir, "postgres", "run")); err != nil {
		t.Skip("the socket is elsewhere, its path was too long")
	}
	status := decode[struct{ Current, Wanted int64 }](t, command(t, "", []string{"DATABASE_URL=" + url}, "migrate", "status", "-o", "json").want(t, 0).out)
	if status.Current == 0 || status.Current != status.Wanted {
		t.Errorf("%+v", status)
	}
	command(t, "", []string{"DATABASE_URL=" + url}, "migrate", "up").want(t, 0)
	command(t, "", nil, "migrate", "status").want(t, 2)
}

// Who signals twice does not want to wait for the drain.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	other := serviceFor(t)
	node, err := startService(dataDir, "--drain-timeout", "1h")
	if err != nil {
		t.Fatal(err)
	}
	id := submitSleeper(t, node, "1h")
	if err := node.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLogged(t, node, "draining", "limit")
	if code, _ := node.get(t, "/readyz"); code != 503 {
		t.Errorf("/readyz of a node that drains: %d", code)
	}
	node.end(syscall.SIGTERM)
	if status, ok := node.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended as %v", node.cmd.ProcessState)
	}
	other.fermata(t, "cancel", id).want(t, 0)
}
