package schema_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow/schema"
)

func TestExplain(t *testing.T) {
	topic, err := schema.Explain("steps.map.concurrency")
	if err != nil {
		t.Fatal(err)
	}
	want := &schema.Topic{
		Path: "steps.map.concurrency", Type: "whole number", Description: "How many items are at work at once.",
		Default: []byte("10"), Limits: "1 to 1000",
	}
	if diff := cmp.Diff(want, topic); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct{ path, want string }{
		{"stps", "the format has no key \"stps\"; did you mean steps?"},
		{"steps.map.concurency", "steps.map has no key \"concurency\"; did you mean steps.map.concurrency?"},
		{"max_iterations", "the format has no key \"max_iterations\"; it stands at steps.loop.max_iterations"},
		{"budget.foo", "budget has no key \"foo\"; known: usd, tokens, warn_at, on_exceeded"},
		{"steps.map.as.x", "steps.map.as has no key \"x\"; it has no keys at all"},
		{"steps..map", `steps has no key ""`},
	} {
		if _, err := schema.Explain(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
}

// TestEveryKey: every key can be asked for by the path that is shown, and has something to say; at some depth they repeat,
// because steps stand in steps.
func TestEveryKey(t *testing.T) {
	seen := 0
	var visit func(path string, depth int)
	visit = func(path string, depth int) {
		topic, err := schema.Explain(path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if topic.Path != path || topic.Description == "" || topic.Type == "" {
			t.Errorf("%s: %+v", path, topic)
		}
		for _, k := range topic.Keys {
			if seen++; depth < 5 && !strings.HasSuffix(k.Path, ".steps") {
				visit(k.Path, depth+1)
			}
		}
	}
	visit("", 0)
	if seen < 500 {
		t.Errorf("only %d keys were seen", seen)
	}
}
