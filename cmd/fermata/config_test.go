package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

func TestConfigIsRefusedWithItsReason(t *testing.T) {
	t.Setenv("A_KEY", "secret")
	for _, c := range []struct{ name, source, want string }{
		{"empty", "", ""},
		{"good", "providers:\n  - {name: mine, kind: openai, base_url: 'http://127.0.0.1:11434/v1', api_key_env: A_KEY}\n  - {name: fake, kind: simulated}\n", ""},
		{"unknown key", "providers:\n  - {name: mine, kind: openai, baseurl: x}\n", "field baseurl not found"},
		{"unknown top key", "provider: []\n", "field provider not found"},
		{"anthropic", "providers: [{name: a, kind: anthropic, cache_1h: true, count_tokens: true, subscription: max}]", ""},
		{"cache of openai", "providers: [{name: a, kind: openai, cache_1h: true}]", "of kind anthropic only"},
		{"limits", "providers: [{name: a, kind: openai, limits: {requests: 500, input_tokens: 10000, concurrency: 5}, first_token: 10s}]", ""},
		{"negative patience", "providers: [{name: a, kind: openai, idle: -1s}]", "must not be negative"},
		{"script", "providers: [{name: a, kind: simulated, script: [{contains: hi, answer: ho, tokens: {input: 5, output: 1}}]}]", ""},
		{"script of openai", "providers: [{name: a, kind: openai, script: [{contains: hi}]}]", "of kind simulated only"},
		{"prices", "prices: [{model: mine, input: '0.40', output: '1.60', source: our contract}]", ""},
		{"price that is none", "prices: [{model: mine, input: cheap, output: '1'}]", "input"},
		{"routing", "routing: [{id: drafts, when: {class: [production], stakes: [low]}, models: [claude-haiku-4-5]}]", ""},
		{"rule without an end", "routing: [{id: drafts, when: {class: [production]}}]", "drafts"},
		{"unknown kind", "providers: [{name: a, kind: bedrock}]", `kind "bedrock" is not known`},
		{"no kind", "providers: [{name: a}]", "kind is missing"},
		{"bad name", "providers: [{name: 'A B', kind: openai}]", `name "A B" is not of the form`},
		{"twice", "providers: [{name: a, kind: openai}, {name: a, kind: simulated}]", `name "a" is taken`},
		{"url with password", "providers: [{name: a, kind: openai, base_url: 'https://u:p@h/v1'}]", "is not an http or https URL"},
		{"file url", "providers: [{name: a, kind: openai, base_url: 'file:///etc/passwd'}]", "is not an http or https URL"},
		{"key not set", "providers: [{name: a, kind: openai, api_key_env: NO_SUCH_KEY}]", "NO_SUCH_KEY is not set"},
		{"simulated with url", "providers: [{name: a, kind: simulated, base_url: 'http://h'}]", "it calls nobody"},
		{"slow simulation", "providers: [{name: a, kind: simulated, fallback: true, latency: 2s, fail_rate: 0.1}]", ""},
		{"rate over 1", "providers: [{name: a, kind: simulated, fail_rate: 7}]", "shares from 0 to 1"},
		{"latency of openai", "providers: [{name: a, kind: openai, latency: 2s}]", "of kind simulated only"},
		{"not yaml", "providers: [", "did not find expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fermata.yaml")
			if err := os.WriteFile(path, []byte(c.source), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readConfig(path)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q in it", err, c.want)
			case err != nil && codeOf(t.Context(), err) != exitUsage:
				t.Errorf("exit code %d, want %d", codeOf(t.Context(), err), exitUsage)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the error tells a key: %v", err)
			}
		})
	}
}

func TestUnknownVariablesAreNamed(t *testing.T) {
	var talk bytes.Buffer
	warnUnknownEnv(newScreen(nil, &bytes.Buffer{}, &talk), []string{"FERMATA_LISTN=x", "FERMATA_LISTEN=x", "HOME=/", "FERMATA_QUUX=1"})
	want := "warning: FERMATA_LISTN is not a variable of fermata; did you mean FERMATA_LISTEN?\n" +
		"warning: FERMATA_QUUX is not a variable of fermata\n"
	if diff := cmp.Diff(want, talk.String()); diff != "" {
		t.Error(diff)
	}
}

func TestInput(t *testing.T) {
	dir := t.TempDir()
	text, whole := filepath.Join(dir, "brief.txt"), filepath.Join(dir, "in.json")
	for path, content := range map[string]string{text: "line 1\n\"line\" 2\n", whole: `{"task":"x","n":3}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	types := map[string]string{"task": "string", "n": "integer", "fast": "boolean"}
	for _, c := range []struct {
		flags []string
		want  string // JSON, or the text an error must have
	}{
		{nil, `{}`},
		{[]string{"task=2024", "n=3", "fast=true"}, `{"task":"2024","n":3,"fast":true}`},
		{[]string{"task=@" + text}, `{"task":"line 1\n\"line\" 2\n"}`},
		{[]string{"unknown=3"}, `{"unknown":"3"}`},
		{[]string{"unknown:=3", "list:=[1,2]"}, `{"unknown":3,"list":[1,2]}`},
		{[]string{"task=a=b"}, `{"task":"a=b"}`},
		{[]string{"task="}, `{"task":""}`},
		{[]string{"task=@-"}, `{"task":"piped"}`},
		{[]string{"@" + whole}, `{"task":"x","n":3}`},
		{[]string{"n=three"}, `"three" is no integer`},
		{[]string{"x:={"}, `is no JSON`},
		{[]string{"task"}, "not name=value"},
		{[]string{"=x"}, "not name=value"},
		{[]string{"task=a", "task=b"}, "given twice"},
		{[]string{"@" + whole, "task=a"}, "goes with no other"},
		{[]string{"@" + text}, "not JSON"},
		{[]string{"task=@" + filepath.Join(dir, "none")}, "no such file"},
	} {
		s := newScreen(strings.NewReader("piped"), &bytes.Buffer{}, &bytes.Buffer{})
		got, err := readInput(s, "-i", c.flags, types)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || codeOf(t.Context(), err) != exitUsage {
				t.Errorf("%q: %v (exit %d), want %q", c.flags, err, codeOf(t.Context(), err), c.want)
			}
			continue
		}
		var a, b any
		if json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(c.want), &b) != nil || !cmp.Equal(a, b) {
			t.Errorf("%q: %s, want %s", c.flags, got, c.want)
		}
	}
}

func TestSet(t *testing.T) {
	s := newScreen(nil, &bytes.Buffer{}, &bytes.Buffer{})
	got, err := readSet(s, []string{`steps.publish.output={"url":"u=v"}`, `steps.a.output="text"`})
	want := map[string]json.RawMessage{"steps.publish.output": json.RawMessage(`{"url":"u=v"}`), "steps.a.output": json.RawMessage(`"text"`)}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"publish={}", "steps.publish={}", "steps.publish.output", "steps.publish.output=text"} {
		if _, err := readSet(s, []string{bad}); err == nil || codeOf(t.Context(), err) != exitUsage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestNothingThatMovesACursorIsShown(t *testing.T) {
	if got, want := oneLine("a\x1b[2J\r\nb\tc\u009bd  e"), "a [2J b c d e"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A flag that has a variable must be known to the warning, and the other way round.
func TestEnvKnownIsWhatTheFlagsRead(t *testing.T) {
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	var visit func(n *kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			for _, env := range f.Envs {
				if name, ok := strings.CutPrefix(env, envPrefix); ok {
					read[name] = true
				}
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
	if got := slices.Sorted(maps.Keys(read)); !slices.Equal(got, envKnown) {
		t.Errorf("flags read %v, the warning knows %v", got, envKnown)
	}
}

// The configuration among the examples is one.
func TestExampleConfig(t *testing.T) {
	path := filepath.Join("..", "..", "examples", "providers.config.yaml")
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`api_key_env: (\w+)`).FindAllStringSubmatch(string(source), -1) {
		t.Setenv(name[1], "x")
	}
	c, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(c.Providers); err != nil || len(c.Prices) == 0 || len(c.Routing) == 0 {
		t.Errorf("%d providers, %d prices, %d rules: %v", len(c.Providers), len(c.Prices), len(c.Routing), err)
	}
}
