package agent

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/workflow"
)

var rewrite = flag.Bool("rewrite", false, "write what happened into the plays")

// A play is a conversation in a text file: what is said (open with its settings, reply with the text, quoted with Go's
// escapes), a line of dashes, what the conversation came to, a line of equals signs.
func TestPlays(t *testing.T) {
	files, err := filepath.Glob("testdata/plays/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no plays: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var played []string
			var stage stage
			for scene := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\n====\n"), "\n====\n") {
				said, _, ok := strings.Cut(scene, "\n----")
				if !ok {
					t.Fatalf("no dashes in %q", scene)
				}
				played = append(played, said+"\n----\n"+stage.play(t, said))
			}
			got := strings.Join(played, "\n====\n") + "\n====\n"
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(raw), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type stage struct{ talk Talk }

func (s *stage) play(t *testing.T, said string) string {
	t.Helper()
	lines := strings.Split(said, "\n")
	for len(lines) > 1 && strings.HasPrefix(lines[0], "#") {
		lines = lines[1:]
	}
	body := strings.Join(lines[1:], "\n")
	switch lines[0] {
	case "open":
		return s.open(t, lines[1:])
	case "reply":
		return s.reply(body)
	case "quoted":
		text, err := strconv.Unquote(body)
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return s.reply(text)
	}
	t.Fatalf("unknown line %q", lines[0])
	return ""
}

func (s *stage) open(t *testing.T, settings []string) string {
	t.Helper()
	var a workflow.Agent
	var prompt, input, feedback string
	var staffed bool
	for _, line := range settings {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "role":
			a.Role = value
		case "instructions":
			a.Instructions = value
		case "json":
			a.Output.JSON = true
		case "schema":
			a.Output = contract(t, value)
		case "prompt":
			prompt = value
		case "input":
			input = value
		case "staffed":
			staffed = true
		case "feedback":
			feedback = value
		default:
			t.Fatalf("unknown setting %q", line)
		}
	}
	var ask Ask
	s.talk, ask = Open(&a, Task{Prompt: prompt, Input: json.RawMessage(input), Feedback: feedback, Staffed: staffed})
	return show(ask)
}

func (s *stage) reply(text string) string {
	before := len(s.talk.ask.Messages)
	var step Step
	s.talk, step = Next(s.talk, text)
	switch step := step.(type) {
	case Ask:
		step.Messages, step.Schema = step.Messages[before:], nil
		return show(step)
	case Done:
		out := "done"
		if step.Repaired {
			out += " repaired"
		}
		if step.Confidence != nil {
			out += fmt.Sprintf(" confidence=%v", *step.Confidence)
		}
		if step.Unresolved != nil {
			out += fmt.Sprintf(" unresolved=%q", step.Unresolved)
		}
		return out + "\n" + string(step.Output)
	case Undecided:
		return fmt.Sprintf("undecided %q options=%q recommendation=%q", step.Question.Question, step.Options, step.Recommendation)
	case Failed:
		return "failed " + step.Class + ": " + step.Message
	default:
		return fmt.Sprintf("%T", step)
	}
}

func show(a Ask) string {
	var out strings.Builder
	for _, m := range a.Messages {
		fmt.Fprintf(&out, "%s> %s\n", m.Role, strings.ReplaceAll(m.Content, "\n", "\n  "))
	}
	if a.Schema != nil {
		fmt.Fprintf(&out, "schema> %s\n", a.Schema)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func contract(t testing.TB, schema string) workflow.Contract {
	t.Helper()
	s, err := workflow.ParseSchema(json.RawMessage(schema))
	if err != nil {
		t.Fatal(err)
	}
	return workflow.Contract{Schema: s, JSON: true}
}
