package workflow

import (
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
)

func TestDocument(t *testing.T) {
	d, err := ReadDocument([]byte("cases:\n  - name: one\n    \"a/b\": [1, 2.50]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(d.JSON()); got != `{"cases":[{"a/b":[1,2.50],"name":"one"}]}` {
		t.Errorf("got %s", got)
	}
	for pointer, want := range map[string]Position{
		"": {"", 1, 1}, "/cases": {"/cases", 1, 1}, "/cases/0/name": {"/cases/0/name", 2, 5}, "/cases/0/a~1b/1": {"/cases/0/a~1b/1", 3, 16},
		"/cases/0/nothing/there": {"/cases/0", 2, 5}, "/cases/7": {"/cases", 1, 1},
	} {
		if got := d.Position(pointer); got != want {
			t.Errorf("%s: got %+v, want %+v", pointer, got, want)
		}
	}
	_, err = ReadDocument([]byte("a: 1\na: 2\nb: !tag x\n"))
	if f := fault.Of(err); f == nil || len(f.Issues) != 2 || f.Issues[0].Line != 2 || strings.Contains(f.Detail, "definition") {
		t.Errorf("got %v", err)
	}
}

func TestParseExpr(t *testing.T) {
	scope := &Scope{Extra: map[string]any{"calls": int64(3), "steps": map[string]any{"a.0.b": map[string]any{"status": "failed"}}, "cost": 0.5}}
	for source, want := range map[string]bool{
		"calls <= 3 && cost < 1": true, "steps['a.0.b'].status == 'failed'": true, "steps.all(s, steps[s].status == 'succeeded')": false,
		"cost * 2 == calls - 2": true, "has(steps.x)": false,
	} {
		e, err := ParseExpr(source, "calls", "steps", "cost")
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := e.Bool(scope); err != nil || got != want {
			t.Errorf("%s: got %t, %v", source, got, err)
		}
	}
	for source, want := range map[string]string{
		"": "an expression has 1 to", "call > 1": `did you mean "calls"?`, "calls >": "ends too early", "steps.x == 'a' + 1": "cannot be applied",
		strings.Repeat("x", ExpressionBytesMax+1): "an expression has 1 to",
	} {
		if _, err := ParseExpr(source, "calls", "steps"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: got %v, want %s", source, err, want)
		}
	}
	e, err := ParseExpr("steps.x.status == 'a'", "steps")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Bool(scope); err == nil || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("got %v", err)
	}
}
