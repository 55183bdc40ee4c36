package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// Two replies to one question make two conversations that know nothing of each other.
func TestTalkIsAValue(t *testing.T) {
	talk, _ := Open(&workflow.Agent{Output: workflow.Contract{JSON: true}}, "p", nil, "")
	talk, _ = Next(talk, "no")
	one, first := Next(talk, "one")
	two, second := Next(talk, "two")
	if got := first.(Ask).Messages[4].Content; got != "one" {
		t.Errorf("the first conversation says %q", got)
	}
	if got := second.(Ask).Messages[4].Content; got != "two" {
		t.Errorf("the second conversation says %q", got)
	}
	if _, end := Next(one, "no"); end.(Failed).Class != ClassInvalidOutput {
		t.Errorf("got %+v", end)
	}
	if _, end := Next(two, "{}"); string(end.(Done).Output) != "{}" {
		t.Errorf("got %+v", end)
	}
}

func TestSizes(t *testing.T) {
	text, _ := Open(&workflow.Agent{}, "p", nil, "")
	for _, c := range []struct {
		bytes int
		fails bool
	}{{workflow.OutputBytesMax - 2, false}, {workflow.OutputBytesMax - 1, true}, {ReplyBytesMax + 1, true}} {
		_, step := Next(text, strings.Repeat("x", c.bytes))
		failed, fails := step.(Failed)
		if fails != c.fails || fails && failed.Class != ClassInvalidOutput {
			t.Errorf("%d bytes: %T", c.bytes, step)
		}
	}
	any, _ := Open(&workflow.Agent{Output: workflow.Contract{JSON: true}}, "p", nil, "")
	if _, step := Next(any, `{"a":"`+strings.Repeat("x", workflow.OutputBytesMax)+`"}`); !strings.Contains(step.(Failed).Message, "the limit of an output") {
		t.Errorf("got %+v", step)
	}
	if _, step := Next(any, `{"a":"`+strings.Repeat(" ", 9)+`"`+strings.Repeat(" ", workflow.OutputBytesMax)+`}`); step.(Done).Repaired {
		t.Error("space between tokens does not count")
	}
}

func TestFeedbackIsBounded(t *testing.T) {
	_, ask := Open(&workflow.Agent{}, "p", nil, strings.Repeat("é", feedbackBytesMax))
	got := ask.Messages[0].Content
	if len(got) > feedbackBytesMax+200 || !utf8.ValidString(got) {
		t.Errorf("%d bytes, valid: %t", len(got), utf8.ValidString(got))
	}
}

func TestHash(t *testing.T) {
	hash := func(instructions, prompt string) string {
		_, ask := Open(&workflow.Agent{Instructions: instructions}, prompt, nil, "")
		return ask.Hash()
	}
	if a, b := hash("i", "p"), hash("i", "p"); a != b || len(a) != 32 {
		t.Errorf("%s, %s", a, b)
	}
	if hash("ab", "c") == hash("a", "bc") {
		t.Error("the parts run into each other")
	}
}

func TestMembersKeepTheirOrder(t *testing.T) {
	list, err := Members([]byte(`{"z": 1, "a": {"y": [1, 2], "b": "<"}, "z": 2}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"z":2,"a":{"y": [1, 2], "b": "<"}}`, string(Object(list))); diff != "" {
		t.Error(diff)
	}
	for _, raw := range []string{``, `[]`, `null`, `"{}"`, `{`, `{"a"}`, `{"a":}`} {
		if list, err := Members([]byte(raw)); err == nil {
			t.Errorf("%q is read as %v", raw, list)
		}
	}
}

// Whatever a model says: no panic, an end after two more questions, and what comes out is JSON that meets the contract.
func FuzzNext(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"text":"a","confidence":"85%"}`, "```json\n{\"text\":\"a\",}\n```", `{'a':'b'}`, "[1,2", "{\"text\":\"\x00\xff\\ud800\"}",
		`{"confidence":1e999}`, `{"unresolved":{"a":[null]}}`, strings.Repeat("[", 300), strings.Repeat(`{"a":`, 300), `{"a":"\`, `{/*`, `{//`,
		"text [1] {x} ```", "\"", `{"text":"a"}{"text":"b"}`, "\xef\xbb\xbf{}", `{"text":"\u12`, `{"confidence":-0}`,
	} {
		f.Add(s, uint8(0))
		f.Add(s, uint8(1))
		f.Add(s, uint8(2))
		f.Add(s, uint8(3))
	}
	object := contract(f, `{"type":"object","required":["text"],"properties":{"text":{"type":"string"}},"additionalProperties":false}`)
	contracts := []workflow.Contract{{}, {JSON: true}, object, contract(f, `{"type":"string"}`)}
	f.Fuzz(func(t *testing.T, reply string, which uint8) {
		c := contracts[int(which)%len(contracts)]
		talk, ask := Open(&workflow.Agent{Role: roleGrinder, Instructions: reply, Output: c}, reply, json.RawMessage(`{}`), reply)
		for asked := 0; ; asked++ {
			for _, m := range ask.Messages {
				if !utf8.ValidString(m.Content) || m.Content == "" {
					t.Fatalf("a message no provider takes: %q", m.Content)
				}
			}
			var step Step
			talk, step = Next(talk, reply)
			switch step := step.(type) {
			case Ask:
				if ask = step; asked >= AsksAgainMax {
					t.Fatalf("asked %d times", asked+2)
				}
				continue
			case Failed:
				if step.Class != ClassInvalidOutput || step.Message == "" {
					t.Fatalf("got %+v", step)
				}
			case Done:
				checkDone(t, c, step)
			}
			return
		}
	})
}

func checkDone(t *testing.T, c workflow.Contract, d Done) {
	t.Helper()
	if !json.Valid(d.Output) || !utf8.Valid(d.Output) || len(d.Output) > workflow.OutputBytesMax || strings.ContainsRune(string(d.Output), 0) {
		t.Fatalf("not fit to be kept: %q", d.Output)
	}
	if d.Confidence != nil && (*d.Confidence < 0 || *d.Confidence > 100) {
		t.Fatalf("confidence %v", *d.Confidence)
	}
	if c.Schema != nil && len(c.Schema.Check(d.Output)) > 0 {
		t.Fatalf("breaks the contract: %s", d.Output)
	}
	for _, u := range d.Unresolved {
		if !utf8.ValidString(u) || len(u) > unresolvedBytesMax {
			t.Fatalf("unresolved %q", u)
		}
	}
}
