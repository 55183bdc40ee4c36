package flow_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

var update = flag.Bool("update", false, "rewrite what the plays say happened")

// TestPlays performs the scripts of testdata: a command, then after ---- what happened. After every command the log
// so far is folded anew and must give the same run.
func TestPlays(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no plays: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := (&stage{t: t, defined: library{}}).perform(string(script))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(script), got); diff != "" {
				t.Errorf("the play went otherwise (-script +played); -update rewrites it:\n%s", diff)
			}
		})
	}
}

// stage is where a play is performed.
type stage struct {
	t       *testing.T
	w       *workflow.Workflow
	defined library
	run     *flow.Run
	log     []flow.Event
	now     time.Time
	begun   map[string]uuid.UUID // runs that steps started, by step and attempt
}

// library are the definitions of a play so far: a later one may run an earlier one.
type library map[string]*workflow.Workflow

func (l library) Workflow(name string, _ int) (ref string, source []byte, ok bool) {
	if w := l[name]; w != nil {
		return name + "@1", w.Source, true
	}
	return "", nil, false
}

var (
	playStart = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	playRun   = uuid.MustParse("01890000-0000-7000-8000-000000000001")
)

func (s *stage) perform(script string) string {
	s.now = playStart
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(script, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		command, _, isCommand := strings.Cut(block, "\n----")
		if !isCommand {
			out.WriteString(block + "\n") // a remark
			continue
		}
		out.WriteString(command + "\n----\n" + s.command(command))
	}
	return out.String()
}

func (s *stage) command(text string) string {
	var lines []string // without remarks
	for _, l := range strings.Split(text, "\n") {
		if !strings.HasPrefix(l, "# ") {
			lines = append(lines, l)
		}
	}
	verb, rest, _ := strings.Cut(lines[0], " ")
	body := strings.Join(lines[1:], "\n")
	switch verb {
	case "define":
		w, err := workflow.CompileWith([]byte(body), s.defined)
		if err != nil {
			s.t.Fatalf("define: %v", err)
		}
		s.w, s.defined[w.Name] = w, w
		return ""
	case "submit":
		return s.submit(rest)
	case "report":
		return s.decide(flow.Reported{Report: s.report(rest)})
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		return s.decide(flow.Fired{})
	case "cancel", "resume", "budget", "incident":
		if rest == "" {
			rest = "{}"
		}
		return s.decide(flow.Told{Kind: verb, Body: json.RawMessage(rest)})
	case "answer", "child", "signal", "short":
		return s.message(verb, rest)
	case "crash":
		s.fold()
		return s.decide(flow.Claimed{})
	case "claim": // of a run that was sent a message: as crash, but the message is applied first
		kind, body, _ := strings.Cut(rest, " ")
		s.fold()
		return s.decide(flow.Told{Kind: kind, Body: json.RawMessage(body)}) + s.decide(flow.Claimed{})
	case "pending":
		return s.pending()
	case "rest":
		wake, ok := s.run.Rest(s.now)
		said := fmt.Sprintf("park=%v due=+%s\n", ok, s.run.Due().Sub(playStart).Round(time.Second))
		if ok {
			said += "wake=+" + wake.Sub(playStart).Round(time.Second).String() + "\n"
		}
		if waiting := s.run.View().WaitingFor; waiting == flow.HeldBudget || waiting == flow.HeldIncident {
			said += "waiting_for=" + waiting + "\n"
		}
		return said
	case "steps":
		return s.steps()
	case "can-raise":
		var b flow.BudgetRaise
		if err := json.Unmarshal([]byte(rest), &b); err != nil {
			s.t.Fatal(err)
		}
		return fmt.Sprintf("%v\n", s.run.CanRaise(b))
	case "made":
		for start := range s.run.Pending {
			if a := s.run.Attempt(start); a.Path == rest {
				return fmt.Sprintf("%d\n", a.Made)
			}
		}
		return "not at work\n"
	case "format":
		return fmt.Sprintf("%d\n", s.run.Format())
	case "can-resume":
		set := map[string]json.RawMessage{}
		if rest != "" {
			if err := json.Unmarshal([]byte(rest), &set); err != nil {
				s.t.Fatal(err)
			}
		}
		return fmt.Sprintf("%v\n", s.run.CanResume(set))
	}
	s.t.Fatalf("unknown command %q", verb)
	return ""
}

func (s *stage) submit(input string) string {
	run, events, err := flow.Open(flow.Submission{ID: playRun, Workflow: s.w, Input: json.RawMessage(input), Priority: -1}, s.now)
	if err != nil {
		return err.Error() + "\n"
	}
	s.run, s.log, s.begun = run, events, map[string]uuid.UUID{}
	s.check()
	return show(events) + s.effects()
}

// report reads "step[#gen.no] ok <json>", "… best <json>" below the gate, "… fail <class> <message>", "… turn <text>", "… refused <message>" by a budget,
// "… held <message>" by an incident, "… unbegun".
func (s *stage) report(text string) flow.Report {
	words := strings.SplitN(text, " ", 3)
	path, name, named := strings.Cut(words[0], "#")
	rep := flow.Report{Path: path}
	at := s.stepOf(path)
	rep.Gen, rep.No = at.Gen, at.Attempt
	if named {
		if _, err := fmt.Sscanf(name, "%d.%d", &rep.Gen, &rep.No); err != nil {
			s.t.Fatal(err)
		}
	}
	rest := ""
	if len(words) > 2 {
		rest = words[2]
	}
	call := usage.Call{Provider: "test", Model: "m", Try: 1, Tokens: usage.Tokens{Input: 10, Output: 5}, Cost: 1_000}
	switch words[1] {
	case "ok":
		rep.Outcome = &flow.Outcome{Output: json.RawMessage(rest)}
	case "best":
		rep.Outcome = &flow.Outcome{Output: json.RawMessage(rest), BelowGate: true}
	case "fail":
		class, message, _ := strings.Cut(rest, " ")
		rep.Outcome = &flow.Outcome{Failure: &flow.Failure{Class: class, Message: message}}
	case "refused":
		rep.Outcome = &flow.Outcome{Held: flow.HeldBudget, Short: flow.Short{Budget: s.run.ID}, Failure: &flow.Failure{Class: "budget_exceeded", Message: rest}}
		return rep
	case "held":
		rep.Outcome = &flow.Outcome{Held: flow.HeldIncident, Failure: &flow.Failure{Class: "incident", Message: rest}}
		return rep
	case "refused_by_gate":
		message, output, _ := strings.Cut(rest, "|")
		rep.Outcome = &flow.Outcome{Refused: json.RawMessage(output), Failure: &flow.Failure{Class: "gate_failed", Message: message}}
	case "asks":
		rep.Outcome = &flow.Outcome{
			Held: flow.HeldDecision, Failure: &flow.Failure{Class: "needs_decision", Message: rest},
			Question: &flow.Question{Question: rest, Options: []string{"left", "right"}},
		}
	case "says": // all of an outcome
		rep.Outcome = new(flow.Outcome)
		s.read(rest, rep.Outcome)
	case "decides":
		rep.Outcome = &flow.Outcome{Decision: new(flow.Decision)}
		s.read(rest, rep.Outcome.Decision)
	case "plans":
		rep.Outcome = &flow.Outcome{Planned: s.planned(rest)}
	case "unbegun":
		rep.Outcome = &flow.Outcome{Unbegun: true, Failure: &flow.Failure{Class: "cancelled", Message: "before it began"}}
		return rep
	case "turn":
		rep.Turn = &flow.Turn{Reply: rest, Calls: []usage.Call{call}}
	default:
		s.t.Fatalf("report what? %q", text)
	}
	if rep.Outcome != nil && s.stepOf(path).Agent != "" {
		rep.Outcome.Calls = []usage.Call{call}
		if words[1] == "best" { // of three, the second
			rep.Outcome.Calls = rejected(call, 20, 28, 25)
		}
	}
	return rep
}

func (s *stage) stepOf(path string) flow.StepView {
	for _, v := range s.run.View().Steps {
		if v.Path == path {
			return v
		}
	}
	return flow.StepView{}
}

func (s *stage) read(text string, into any) {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
}

// planned is the checked plan of what a planner answers.
func (s *stage) planned(answer string) *flow.Planned {
	var step *workflow.PlanStep
	for _, def := range s.w.Steps {
		if def.Plan != nil {
			step = def.Plan
		}
	}
	w, err := workflow.CompilePlan(step, s.w, json.RawMessage(answer), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	return &flow.Planned{
		Definition: w.Source, Hash: w.Hash.String(), Estimate: flow.PlanEstimate{CostMax: 1_500_000_000, Steps: len(w.Steps)},
	}
}

// message reads "answer <step> <choice> [<form>]", "signal <name> [<data>]", "child <step>[#gen.no] <status> <output or class message>" and
// "short <step> <time since>".
func (s *stage) message(verb, rest string) string {
	words := strings.SplitN(rest, " ", 3)
	words = append(words, "", "")
	var body any
	switch verb {
	case "signal":
		sig := flow.Signal{Name: words[0]}
		if data := strings.TrimSpace(words[1] + " " + words[2]); data != "" {
			sig.Data = json.RawMessage(data)
		}
		body = sig
	case "answer":
		a := flow.Answered{Choice: words[1], By: "jane"}
		if w := s.stepOf(words[0]).Waiting; w != nil && w.Asked != nil {
			a.Approval = w.Asked.Approval
		}
		if words[2] != "" {
			a.Form = json.RawMessage(words[2])
		}
		body = a
	case "short":
		since, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		body = flow.ChildShort{Run: s.stepOf(words[0]).Child.Run, Budget: s.run.ID, Since: s.now.Add(since), Message: "nothing is left"}
	case "child":
		v := s.stepOf(words[0])
		c := flow.ChildEnded{Step: v.Path, Gen: v.Gen, Attempt: v.Attempt, Status: flow.RunStatus(words[1]), Sum: usage.Sum{Calls: 2, Cost: 5_000}}
		if c.Run = s.begun[words[0]]; v.Child != nil { // else it is named with its attempt
			c.Run = v.Child.Run
		}
		if c.Status == flow.RunStatusSucceeded {
			c.Output = json.RawMessage(words[2])
		} else {
			class, message, _ := strings.Cut(words[2], " ")
			c.Error = &flow.Failure{Class: class, Message: message}
			c.Done = map[string]json.RawMessage{"done": json.RawMessage(`"this"`)}
		}
		body = c
	}
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.decide(flow.Told{Kind: map[string]string{
		"answer": flow.ToldApproval, "child": flow.ToldChild, "signal": flow.ToldSignal, "short": flow.ToldShort,
	}[verb], Body: raw})
}

// rejected are calls at the entries of a chain whose answers were not accepted.
func rejected(call usage.Call, confidences ...float64) []usage.Call {
	var calls []usage.Call
	for depth, confidence := range confidences {
		c := call
		c.Class, c.Depth, c.Confidence, c.Model = "low_confidence", depth, &confidence, fmt.Sprint("m", depth)
		c.Baseline, c.CacheSaved = 3_000, 10
		calls = append(calls, c)
	}
	return calls
}

func (s *stage) decide(c flow.Cause) string {
	events := s.run.Decide(c, s.now)
	s.log = append(s.log, events...)
	s.check()
	return show(events) + s.effects()
}

// effects tells what is committed with the events.
func (s *stage) effects() string {
	e := s.run.TakeEffects()
	var out strings.Builder
	for _, c := range e.Children {
		s.begun[fmt.Sprintf("%s#%d.%d", c.Parent.Step, c.Parent.Gen, c.Parent.Attempt)] = c.ID
		fmt.Fprintf(&out, "→ run of %s input=%s depth=%d plans=%d budgets=%d\n", c.Workflow.Name, c.Input, c.Parent.Depth, c.Parent.Plans, len(c.Parent.Budgets))
	}
	for _, l := range e.Told {
		fmt.Fprintf(&out, "→ tell %s %s\n", l.Kind, ids.ReplaceAllString(string(l.Body), "…"))
	}
	for _, a := range e.Asked {
		fmt.Fprintf(&out, "→ ask %s: %q %v", a.About, a.Title, a.Choices)
		if a.Expires != nil {
			fmt.Fprintf(&out, " until +%s", a.Expires.Sub(playStart))
		}
		out.WriteString("\n")
	}
	for _, w := range e.Withdrawn {
		fmt.Fprintf(&out, "→ withdraw an approval (expired: %v)\n", w.Expired)
	}
	for _, m := range e.Emitted {
		fmt.Fprintf(&out, "→ emit %s %s\n", m.Name, m.Data)
	}
	return out.String()
}

var ids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|run_[0-9a-f]{32}`)

// check: fold(events) = state, and no move that the tables forbid.
func (s *stage) check() {
	s.t.Helper()
	if err := s.run.Err(); err != nil {
		s.t.Fatal(err)
	}
	again, err := flow.Fold(s.run.ID, s.run.Tenant, s.w, s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := diffViews(s.run.View(), again.View()); diff != "" {
		s.t.Fatalf("the fold of the log differs from the state (-state +fold):\n%s", diff)
	}
}

// diffViews compares all but the rendered inputs, which live in memory alone.
func diffViews(a, b flow.View) string {
	return cmp.Diff(a, b, cmpopts.IgnoreFields(flow.StepView{}, "Input"), cmpopts.EquateEmpty(), compactJSON())
}

// compactJSON takes two spellings of the same JSON as equal: a body is spliced when written and decoded when read.
func compactJSON() cmp.Option {
	return cmp.FilterValues(func(a, b json.RawMessage) bool { return len(a) > 0 || len(b) > 0 }, cmp.Comparer(func(a, b json.RawMessage) bool {
		var x, y bytes.Buffer
		if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
			return bytes.Equal(a, b)
		}
		return x.String() == y.String()
	}))
}

func (s *stage) fold() {
	run, err := flow.Fold(s.run.ID, s.run.Tenant, s.w, s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.run = run
}

func (s *stage) pending() string {
	var out strings.Builder
	for start := range s.run.Pending {
		a := s.run.Attempt(start)
		fmt.Fprintf(&out, "%s#%d.%d after=%d input=%s", a.Path, a.Gen, a.No, start.Seq, a.Input)
		if a.Budget != nil {
			fmt.Fprintf(&out, " budget=$%s/$%s,%d/%d", a.Budget.Spent.Cost, a.Budget.Cost, a.Budget.Spent.Tokens.Total(), a.Budget.Tokens)
		}
		for _, b := range a.Around {
			fmt.Fprintf(&out, " %s=$%s/$%s", b.Name, b.Spent.Cost, b.Cost)
		}
		if len(a.Turns) > 0 {
			fmt.Fprintf(&out, " turns=%d", len(a.Turns))
		}
		if a.Feedback != "" {
			fmt.Fprintf(&out, " feedback=%q", a.Feedback)
		}
		if s.run.Cutting() {
			out.WriteString(" cut")
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (s *stage) steps() string {
	var out strings.Builder
	v := s.run.View()
	fmt.Fprintf(&out, "run %s %s\n", v.Status, v.Section)
	for _, st := range v.Steps {
		fmt.Fprintf(&out, "%s %s %d.%d %s", st.Path, st.Status, st.Gen, st.Attempt, st.Output)
		if st.Held != "" {
			fmt.Fprintf(&out, "held for %s: %s", st.Held, st.Refusal.Message)
		}
		out.WriteString("\n")
	}
	return out.String()
}

var hashes = regexp.MustCompile(`"hash":"[0-9a-f]{64}"`)

func show(events []flow.Event) string {
	var out strings.Builder
	for _, e := range events {
		fmt.Fprintf(&out, "%d %s", e.Seq, e.Kind)
		if e.Step != "" {
			fmt.Fprintf(&out, " %s#%d.%d", e.Step, e.Gen, e.Attempt)
		}
		if e.V > 1 && (e.V < 3 || e.Seq == 1) { // of the third, all that follow are
			fmt.Fprintf(&out, " v%d", e.V)
		}
		if len(e.Body) > 0 {
			fmt.Fprintf(&out, " %s", ids.ReplaceAllString(hashes.ReplaceAllString(string(e.Body), `"hash":"…"`), "…"))
		}
		out.WriteString("\n")
	}
	return out.String()
}
