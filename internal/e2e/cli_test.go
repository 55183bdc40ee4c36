package e2e

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestHelpNamesTheCommands(t *testing.T) {
	r := fermata(t, "--help").want(t, 0)
	for _, name := range []string{"demo", "dev", "serve", "validate", "test", "run", "watch", "get", "list", "compare", "resume", "cancel", "migrate", "version"} {
		if !strings.Contains(r.out, "\n  "+name+" ") {
			t.Errorf("help does not name %s:\n%s", name, r.out)
		}
	}
	if alone := fermata(t).want(t, 0); alone.out != r.out {
		t.Errorf("fermata alone says something else than --help")
	}
}

func TestVersion(t *testing.T) {
	if r := fermata(t, "version").want(t, 0); !strings.HasPrefix(r.out, "fermata ") {
		t.Errorf("%q", r.out)
	}
	v := decode[map[string]string](t, fermata(t, "version", "-o", "json").want(t, 0).out)
	if v["version"] == "" || v["go"] == "" {
		t.Errorf("%v", v)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"unexpected argument", []string{"lst"}},
		{"unknown flag --stats", []string{"list", "--stats", "failed"}},
		{"--status must be one of", []string{"list", "--status", "broken"}},
		{"DATABASE_URL", []string{"serve"}},
		{"no API keys", []string{"serve", "--listen", "0.0.0.0:8080", "--database-url", "postgres://127.0.0.1:1/x"}},
		{"no such file", []string{"validate", "-f", "no/such/file.yaml"}},
		{"name either", []string{"run"}},
		{"not steps.STEP.output=JSON", []string{"resume", "run_x", "--set", "x=1"}},
		{"--url", []string{"list", "--url", "ftp://x"}},
	} {
		r := fermata(t, c.args...).want(t, 2)
		if !strings.Contains(r.err, c.want) || r.out != "" {
			t.Errorf("%v: stderr %q, stdout %q, want %q on stderr", c.args, r.err, r.out, c.want)
		}
	}
}

func TestServiceThatIsNotThere(t *testing.T) {
	r := fermata(t, "list", "--url", "http://127.0.0.1:1").want(t, 1)
	if !strings.Contains(r.err, "http://127.0.0.1:1") || !strings.Contains(r.err, "fermata dev") {
		t.Errorf("%s", r.err)
	}
}

// Every example is valid; a broken one is told line by line, all of it at once.
func TestValidate(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root(), "examples", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".config.yaml") || strings.HasSuffix(file, ".test.yaml") { // for the example of the same name
			continue
		}
		r := fermata(t, "validate", "-f", file)
		if r.code != 0 || !strings.Contains(r.out, ": ok: workflow ") {
			t.Errorf("%s: exit code %d\n%s%s", file, r.code, r.out, r.err)
		}
	}
}

func TestValidateShowsEveryProblem(t *testing.T) {
	broken := filepath.Join("internal", "e2e", "testdata", "broken.yaml")
	r := fermata(t, "validate", "-f", broken).want(t, 1)
	golden := filepath.Join("testdata", "broken.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(r.out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), r.out); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	v := decode[struct {
		Valid  bool
		Issues []struct {
			Code, Detail, Pointer string
			Line                  int
		}
	}](t, fermata(t, "validate", "-o", "json", "-f", broken).want(t, 1).out)
	if v.Valid || len(v.Issues) < 3 || v.Issues[0].Line == 0 || v.Issues[0].Code == "" {
		t.Errorf("%+v", v)
	}
	piped, err := os.ReadFile(filepath.Join("testdata", "broken.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if in := command(t, string(piped), nil, "validate", "-f", "-").want(t, 1); in.out != strings.ReplaceAll(r.out, broken, "-") {
		t.Errorf("from standard input:\n%s", in.out)
	}
}

// What the README shows must work as it stands there: it passes the validation without a warning, and runs to its end when
// the person it asks has answered.
func TestReadmeWorkflowRuns(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```yaml\nspec: workflow/v1\n")
	definition, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("the README shows no workflow")
	}
	definition = "spec: workflow/v1\n" + definition
	command(t, definition, nil, "validate", "--strict", "-").want(t, 0)
	s := serviceFor(t)
	env := []string{"FERMATA_URL=" + s.url}
	r := command(t, definition, env, "run", "-o", "json", "--detach", "-f", "-", "-i", `topics=["tides", "moons"]`).want(t, 0)
	id := decode[shownRun](t, r.out).ID
	asked := awaitApproval(t, env, id)
	command(t, "", env, "approve", asked, "--reason", "reads well").want(t, 0)
	command(t, "", env, "watch", id).want(t, 0)
	run := decode[shownRun](t, command(t, "", env, "get", "-o", "json", id).want(t, 0).out)
	output := decode[struct {
		Guide string
		By    string `json:"approved_by"`
	}](t, string(run.Output))
	if output.By != "operator" || output.Guide == "" {
		t.Errorf("%s", run.Output)
	}
}

// awaitApproval waits until a run asks somebody, and says which approval it is.
func awaitApproval(t *testing.T, env []string, run string) (id string) {
	t.Helper()
	await(t, "that the run asks somebody", func() bool {
		asked := decode[[]struct{ ID string }](t, command(t, "", env, "approvals", "-o", "json", "--run", run).want(t, 0).out)
		if len(asked) > 0 {
			id = asked[0].ID
		}
		return len(asked) > 0
	})
	return id
}

func TestReadmeNamesEveryCommand(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	help := fermata(t, "--help").want(t, 0).out
	for line := range strings.Lines(help) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "   ") || strings.HasPrefix(name, "-") || name == "version" {
			continue
		}
		if !strings.Contains(string(readme), "`fermata "+name) && !strings.Contains(string(readme), "`"+name) {
			t.Errorf("the README does not name `fermata %s`", name)
		}
	}
}

func TestMakeListsItsTargets(t *testing.T) {
	c := exec.CommandContext(t.Context(), "make", "--no-print-directory")
	c.Dir = root()
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	targets := strings.Count(string(out), "\n")
	if targets < 8 || targets > 15 || !strings.Contains(string(out), "demo ") || !strings.Contains(string(out), "test ") {
		t.Errorf("%d targets:\n%s", targets, out)
	}
}
