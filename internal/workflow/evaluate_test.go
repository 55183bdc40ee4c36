package workflow_test

import (
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// tried is what the expressions of these tests read.
func tried() (workflow.Names, *workflow.Scope) {
	steps := map[string]plainStep{
		"draft": {"status": "succeeded", "output": map[string]any{"text": "tides", "score": int64(8)}},
		"check": {"status": "pending"},
	}
	return workflow.Names{Steps: []string{"draft", "check"}, Roots: []string{"item"}}, &workflow.Scope{
		Input: map[string]any{"who": "world", "n": int64(3)},
		Run: func(field string) (any, bool) {
			return "failed", field == "status"
		},
		Steps: func(id string) (workflow.StepValue, bool) { s, ok := steps[id]; return s, ok },
		Local: func(name string) (any, bool) { return []any{"a"}, name == "item" },
	}
}

type plainStep map[string]any

func (s plainStep) Field(name string) (any, bool) { v, ok := s[name]; return v, ok }

func TestEvaluate(t *testing.T) {
	names, scope := tried()
	for source, want := range map[string]string{
		"1 + 2.5":                              "3.5",
		"input.n / 2":                          "1.5",
		"${{ input.who }}":                     `"world"`,
		"steps.draft.output.score >= 7":        "true",
		"has(steps.check.output)":              "false",
		"steps.check.?output.?text":            "null",
		"steps.check.?output.orValue('none')":  `"none"`,
		"steps.draft.output":                   `{"score":8,"text":"tides"}`,
		"run.status":                           `"failed"`,
		"item.map(x, x + '!')":                 `["a!"]`,
		"truncate(json(input), 10).size() > 2": "true",
	} {
		got, err := workflow.Evaluate(source, names, scope)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s %v, want %s", source, got, err, want)
		}
	}
}

func TestEvaluateTemplate(t *testing.T) {
	names, scope := tried()
	for source, want := range map[string]string{
		`["${{ input.n }}",1]`:               `[3,1]`,
		`{"b":"${{ steps.check.?output }}"}`: `{}`,
		`"hello ${{ input.who }}"`:           `"hello world"`,
		`"$${{ literal"`:                     `"${{ literal"`,
		`7`:                                  `7`,
	} {
		got, err := workflow.EvaluateTemplate([]byte(source), names, scope)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s %v, want %s", source, got, err, want)
		}
	}
}

// What cannot be evaluated says why, where, and what may have been meant.
func TestEvaluateRefuses(t *testing.T) {
	names, scope := tried()
	for _, c := range []struct {
		source, code, issue, detail, suggest string
		col                                  int
	}{
		{"steps.drft.output", "expression_invalid", "unknown_step", `no step "drft"`, "draft", 1},
		{"1 +", "expression_invalid", "expression_syntax", "ends too early", "", 4},
		{"true && itme.size() > 1", "expression_invalid", "unknown_name", `no "itme" here`, "item", 9},
		{"", "expression_invalid", "expression_syntax", "empty", "", 1},
		{"1 - 'a'", "expression_invalid", "expression_type", "cannot be applied", "", 3},
		{"steps.check.output", workflow.CodeEvaluation, workflow.CodeEvaluation, "no such key: output", "", 0},
		{"[1,2,3].map(a, [1,2,3].map(b, lists.range(10000).map(c, lists.range(10000).size()).size()))", workflow.CodeEvaluation, workflow.CodeEvaluation, "costs more than", "", 0},
	} {
		_, err := workflow.Evaluate(c.source, names, scope)
		f := fault.Of(err)
		if f == nil || f.Kind != fault.KindInvalid || f.Code != c.code || len(f.Issues) == 0 {
			t.Errorf("%s: got %v", c.source, err)
			continue
		}
		if i := f.Issues[0]; i.Code != c.issue || !strings.Contains(i.Detail, c.detail) || i.Suggest != c.suggest || i.Col != c.col {
			t.Errorf("%s: got %+v", c.source, i)
		}
	}
	if _, err := workflow.EvaluateTemplate([]byte(`{"a":{"b":"x ${{ nope }}"}}`), names, scope); fault.Of(err) == nil || fault.Of(err).Issues[0].Pointer != "/a/b" {
		t.Errorf("got %v", err)
	}
}

func TestRootName(t *testing.T) {
	for name, want := range map[string]bool{"item": true, "x1": true, "_a": true, "input": false, "loop": false, "": false, "a.b": false, "1a": false, "in": false} {
		if workflow.RootName(name) != want {
			t.Errorf("%q: want %t", name, want)
		}
	}
}
