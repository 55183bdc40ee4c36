package rehearsal

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// beside finds files in a folder.
type beside string

func (b beside) File(path string) ([]byte, error)     { return os.ReadFile(filepath.Join(string(b), path)) }
func (b beside) Template(name string) ([]byte, error) { return b.File(name + ".yaml") }

// The examples pass their own tests, and their logs fold as they go.
func TestExamples(t *testing.T) {
	var paths []string
	for pattern, least := range map[string]int{"../../examples/*.test.yaml": 2, "../../examples/templates/*.test.yaml": 16} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < least {
			t.Fatalf("%s: %d test files, %v", pattern, len(found), err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Read(path, source, beside(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Cases {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".test.yaml")+"/"+c.Name, func(t *testing.T) {
				r, err := c.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if said := tell(r); said != "" {
					t.Errorf("%s%s", said, strings.Join(r.Story, "\n"))
				}
				play(t, c)
			})
		}
	}
}

func TestGolden(t *testing.T) {
	source := []byte(writer + "cases:\n  - name: one\n    input: {topic: tea}\n    models: [{step: write, answer: Tea.}, {step: review, answer: {pass: true}}]\n    expect: {golden: one.json}\n")
	run := func(library files) *Result {
		s, err := Read("a.test.yaml", source, library)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Cases[0].Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := run(files{})
	if said := tell(r); !strings.Contains(said, "the golden file cannot be read") || !r.Golden.Differ {
		t.Errorf("got %s", said)
	}
	if r.Accept(); !r.Passed() {
		t.Errorf("an accepted story is no failure: %s", tell(r))
	}
	golden := string(r.Golden.Source)
	if r := run(files{"one.json": golden}); !r.Passed() || r.Golden.Differ {
		t.Errorf("the same story differs: %s", tell(r))
	}
	if r := run(files{"one.json": strings.Replace(golden, `"Tea."`, `"Coffee."`, 1)}); r.Passed() || !strings.Contains(tell(r), `the story differs at /output/text; --update takes the new one | "Coffee." | "Tea."`) {
		t.Errorf("got %s", tell(r))
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	err := WriteJUnit(&b, []SuiteResult{{File: "a.test.yaml", Results: []*Result{
		{Case: "good"},
		{Case: "later", Skipped: "not yet"},
		{Case: "bad", Failures: []Failure{{Line: 3, Col: 4, What: "it <differs>\x00", Expected: "a", Got: "b"}}, Story: []string{"+0s run"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var read junitSuites
	if err := xml.Unmarshal(b.Bytes(), &read); err != nil {
		t.Fatalf("%v\n%s", err, b.Bytes())
	}
	if read.Tests != 3 || read.Failures != 1 || read.Suites[0].Skipped != 1 {
		t.Errorf("got %+v", read)
	}
	if text := read.Suites[0].Cases[2].Failures[0].Text; !strings.HasPrefix(text, "a.test.yaml:3:4: it <differs>") || !strings.HasSuffix(text, "expected: a\ngot:      b") {
		t.Errorf("got %q", text)
	}
}

func TestCompare(t *testing.T) {
	c := suite(t, writer+`
cases:
  - name: by a cheaper author
    input: {topic: tea}
    models: [{step: review, answer: {pass: true}}, {model: gpt-4o-mini, answer: Short.}, {step: write, answer: Long and dear.}]
    compare:
      with: {models_replace: {author: gpt-4o-mini}}
      assert: ["b.cost_usd < a.cost_usd", "a.steps.write.model != b.steps.write.model", "a.output == b.output"]
`).Cases[0]
	r, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if said := tell(r); !strings.HasPrefix(said, "24:89 the condition does not hold | a.output == b.output") || strings.Count(said, "\n") != 1 {
		t.Errorf("got %s", said)
	}
	if d := r.Compared.Output; len(d) != 1 || d[0].Pointer != "/text" || string(d[0].A) != `"Long and dear."` || string(d[0].B) != `"Short."` {
		t.Errorf("got %+v", d)
	}
	if s := r.Compared.Steps; len(s) != 3 || s[0].A.Model != "claude-sonnet-4-6" || s[0].B.Model != "gpt-4o-mini" || len(s[1].Output) != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want []string
	}{
		{`{"a":1,"b":[1,2]}`, `{"b":[1.0,2],"a":1}`, nil},
		{`{"a":1}`, `{"b/c":1}`, []string{"/a 1 ", "/b~1c  1"}},
		{`[1,2,3]`, `[1,3]`, []string{"/1 2 3", "/2 3 "}},
		{`"x"`, `{"x":null}`, []string{` "x" {"x":null}`}},
		{``, `1`, []string{"  1"}},
		{`{"a":null}`, `{}`, []string{"/a null "}},
	} {
		var got []string
		for _, d := range Diff([]byte(c.a), []byte(c.b)) {
			got = append(got, d.Pointer+" "+string(d.A)+" "+string(d.B))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s and %s: got %q, want %q", c.a, c.b, got, c.want)
		}
	}
}

// The test that the README shows of its workflow passes.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := func(begin string) string {
		_, rest, ok := strings.Cut(string(readme), "```yaml\n"+begin)
		if !ok {
			t.Fatalf("the README does not show %q", begin)
		}
		text, _, _ := strings.Cut(rest, "```")
		return begin + text
	}
	s, err := Read("guide.test.yaml", []byte(shown("# guide.test.yaml\n")), files{"guide.yaml": shown("spec: workflow/v1\n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Cases {
		r, err := c.Run(t.Context())
		if err != nil || !r.Passed() {
			t.Errorf("%s: %v %+v", c.Name, err, r)
		}
	}
}
