package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/agent"
)

func prompt(text string) agent.Ask {
	return agent.Ask{Messages: []agent.Message{{Role: "system", Content: "You are a grinder."}, {Role: "user", Content: text}}}
}

const brief = `TASK Write a two-page decision paper for the board of Nordwind Logistics: should the company move its
regional warehouse from Bremen to Osnabrück? Consider rent, staff turnover, rail access and the lease that ends in March.`

func answer(t testing.TB, c Call) string {
	t.Helper()
	r, err := NewSimulated(SimulatedConfig{}).Complete(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r.Text
}

func TestSimulatedIsDeterministic(t *testing.T) {
	c := Call{Model: "gpt-4o", Ask: prompt(brief), MaxTokens: 4096, Seed: "a"}
	one := answer(t, c)
	if two := answer(t, c); one != two {
		t.Errorf("the same call gave\n%s\nand\n%s", one, two)
	}
	for name, other := range map[string]Call{
		"seed": {Model: "gpt-4o", Ask: prompt(brief), MaxTokens: 4096, Seed: "b"}, "model": {Model: "grok-3", Ask: prompt(brief), MaxTokens: 4096, Seed: "a"},
		"prompt": {Model: "gpt-4o", Ask: prompt(brief + "!"), MaxTokens: 4096, Seed: "a"},
	} {
		if answer(t, other) == one {
			t.Errorf("another %s gave the same answer", name)
		}
	}
}

func TestSimulatedWritesAboutThePrompt(t *testing.T) {
	text := answer(t, Call{Model: "gpt-4o", Ask: prompt(brief), MaxTokens: 4096, Seed: "a"})
	if !strings.HasPrefix(text, SimulatedMark) {
		t.Errorf("the answer does not say that it is simulated: %s", text)
	}
	found := 0
	for _, word := range []string{"Nordwind Logistics", "Bremen", "Osnabrück", "rail access", "staff turnover", "regional warehouse", "rent", "lease", "board"} {
		if strings.Contains(text, word) {
			found++
		}
	}
	if found < 4 {
		t.Errorf("only %d of the brief's words are in: %s", found, text)
	}
	if strings.Contains(strings.TrimPrefix(text, SimulatedMark), "[") || strings.Contains(text, "{a}") {
		t.Errorf("not prose: %s", text)
	}
}

// the contracts of the quality workflow, and what else people write.
var schemas = map[string]string{
	"draft":    `{"type":"object","required":["text","confidence"],"properties":{"text":{"type":"string"},"confidence":{"type":"number","minimum":0,"maximum":100},"unresolved":{"type":"array","items":{"type":"string"}}}}`,
	"review":   `{"type":"object","required":["accuracy","completeness","clarity","issues"],"properties":{"accuracy":{"type":"number"},"completeness":{"type":"number"},"clarity":{"type":"number"},"issues":{"type":"array","items":{"type":"string"}}}}`,
	"critique": `{"type":"object","required":["factual_errors","logical_gaps"],"properties":{"factual_errors":{"type":"array"},"logical_gaps":{"type":"array"}}}`,
	"bounds":   `{"type":"object","required":["a","b","c","d","e","f"],"additionalProperties":false,"properties":{"a":{"type":"integer","minimum":3,"maximum":3},"b":{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.01},"c":{"type":"integer","multipleOf":7,"minimum":100,"maximum":120},"d":{"type":"integer","exclusiveMinimum":5,"exclusiveMaximum":7},"e":{"type":"number","minimum":-3,"maximum":-2},"f":{"type":"number","maximum":-100}}}`,
	"strings":  `{"type":"object","required":["short","long","exact","code","tiny"],"properties":{"short":{"type":"string","maxLength":12},"long":{"type":"string","minLength":500,"maxLength":520},"exact":{"type":"string","minLength":5,"maxLength":5},"code":{"type":"string","pattern":"^[A-Z]{2}-\\d{3,5}(?:x|y)?$"},"tiny":{"type":"string","maxLength":1}}}`,
	"formats":  `{"type":"object","required":["a","b","c","d","e","f","g","h","i"],"properties":{"a":{"type":"string","format":"date-time"},"b":{"type":"string","format":"date"},"c":{"type":"string","format":"email"},"d":{"type":"string","format":"uri"},"e":{"type":"string","format":"uuid"},"f":{"type":"string","format":"ipv4"},"g":{"type":"string","format":"ipv6"},"h":{"type":"string","format":"hostname"},"i":{"type":"string","format":"duration"}}}`,
	"choices":  `{"type":"object","required":["e","c","n","o","a"],"properties":{"e":{"enum":["low","high",3,null]},"c":{"const":{"x":1}},"n":{"type":["null","integer"],"minimum":1,"maximum":9},"o":{"oneOf":[{"type":"null"},{"type":"string","minLength":3}]},"a":{"allOf":[{"type":"object","required":["p"],"properties":{"p":{"type":"integer","minimum":2,"maximum":4}}},{"required":["q"],"properties":{"q":{"type":"boolean"}}}]}}}`,
	"lists":    `{"type":"array","minItems":4,"maxItems":6,"items":{"type":"object","required":["id","kind"],"properties":{"id":{"type":"integer"},"kind":{"enum":["x","y"]}}}}`,
	"unique":   `{"type":"array","minItems":3,"maxItems":3,"uniqueItems":true,"items":{"enum":["a","b","c"]}}`,
	"tuple":    `{"type":"array","prefixItems":[{"type":"integer"},{"type":"boolean"}],"items":false,"minItems":2}`,
	"refs":     `{"$defs":{"node":{"type":"object","required":["name","children"],"properties":{"name":{"type":"string"},"children":{"type":"array","items":{"$ref":"#/$defs/node"}}}}},"$ref":"#/$defs/node"}`,
	"untyped":  `{"properties":{"a":{"minimum":4,"maximum":5},"b":{"items":{"type":"boolean"}}},"required":["a","b","z"]}`,
	"string":   `{"type":"string","minLength":1}`,
	"boolean":  `{"type":"boolean"}`,
	"anything": `{}`,
	"true":     `true`,
}

func compiled(t testing.TB, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("s.json")
	if err != nil {
		t.Fatalf("%v: %s", err, schema)
	}
	return s
}

func check(t testing.TB, s *jsonschema.Schema, text string) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return v
}

func TestSimulatedHonoursSchemas(t *testing.T) {
	for name, schema := range schemas {
		t.Run(name, func(t *testing.T) {
			s := compiled(t, schema)
			for seed := range 30 {
				ask := prompt(brief)
				ask.JSON, ask.Schema = true, json.RawMessage(schema)
				check(t, s, answer(t, Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096, Seed: fmt.Sprint(seed)}))
			}
		})
	}
}

func TestSimulatedConfidenceAndMark(t *testing.T) {
	for seed := range 50 {
		for _, name := range []string{"draft", "review", "lists", "critique"} {
			ask := prompt(brief)
			ask.JSON, ask.Schema = true, json.RawMessage(schemas[name])
			text := answer(t, Call{Model: "gpt-4o", Ask: ask, MaxTokens: 4096, Seed: fmt.Sprint(seed)})
			if name != "lists" && !strings.Contains(text, SimulatedMark) { // lists hold no free text
				t.Fatalf("%s: no mark: %s", name, text)
			}
			if name != "draft" {
				continue
			}
			var v struct {
				Text       string
				Confidence float64
			}
			if err := json.Unmarshal([]byte(text), &v); err != nil || v.Confidence < 70 || v.Confidence > 95 || len(v.Text) < 300 {
				t.Fatalf("%v: %s", err, text)
			}
		}
	}
}

// drawn schemas: whatever can be asked for within what it understands is met.
func TestSimulatedHonoursDrawnSchemas(t *testing.T) {
	var schema func(*rapid.T, int) map[string]any
	schema = func(r *rapid.T, depth int) map[string]any {
		kinds := []string{"string", "integer", "number", "boolean", "enum", "array", "object"}
		if depth > 3 {
			kinds = kinds[:5]
		}
		switch kind := rapid.SampledFrom(kinds).Draw(r, "kind"); kind {
		case "string":
			low := rapid.IntRange(0, 80).Draw(r, "minLength")
			return map[string]any{"type": "string", "minLength": low, "maxLength": low + rapid.IntRange(0, 200).Draw(r, "room")}
		case "integer", "number":
			low := rapid.IntRange(-1000, 1000).Draw(r, "minimum")
			return map[string]any{"type": kind, "minimum": low, "maximum": low + rapid.IntRange(0, 50).Draw(r, "span")}
		case "enum":
			return map[string]any{"enum": rapid.SliceOfN(rapid.SampledFrom([]any{"a", 1, nil, true, "<b>"}), 1, 4).Draw(r, "enum")}
		case "array":
			low := rapid.IntRange(0, 4).Draw(r, "minItems")
			return map[string]any{"type": "array", "items": schema(r, depth+1), "minItems": low, "maxItems": low + rapid.IntRange(0, 3).Draw(r, "more")}
		case "object":
			properties := map[string]any{}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"text", "score", "issues", "ok", "title", "n", "tags"}), 0, 5, rapid.ID).Draw(r, "names") {
				properties[name] = schema(r, depth+1)
			}
			names := make([]string, 0)
			for name := range properties {
				names = append(names, name)
			}
			slices.Sort(names)
			return map[string]any{"type": "object", "properties": properties, "required": names, "additionalProperties": false}
		default:
			return map[string]any{"type": "boolean"}
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		raw, err := json.Marshal(schema(r, 0))
		if err != nil {
			r.Fatal(err)
		}
		ask := prompt(brief)
		ask.JSON, ask.Schema = true, raw
		check(t, compiled(t, string(raw)), answer(t, Call{Model: "m", Ask: ask, MaxTokens: math.MaxInt32, Seed: rapid.String().Draw(r, "seed")}))
	})
}

func FuzzSimulatedSchema(f *testing.F) {
	for _, s := range schemas {
		f.Add([]byte(s), brief)
	}
	f.Add([]byte(`{"$ref":"#"}`), "")
	f.Add([]byte(`{"type":"object","required":["a"],"properties":{"a":{"$ref":"#"}}}`), "x")
	f.Add([]byte(`{"minItems":1e9,"items":{"$ref":"#"}}`), "x")
	f.Add([]byte(`{"type":"string","pattern":"(((((a{1000}){1000}"}`), "\x00\xff")
	f.Add([]byte(`{"allOf":[{"$ref":"#"},{"$ref":"#"}]}`), "x")
	f.Fuzz(func(t *testing.T, schema []byte, text string) {
		ask := prompt(text)
		ask.JSON, ask.Schema = true, schema
		if !json.Valid(schema) {
			return // compiled contracts are JSON
		}
		if out := answer(t, Call{Model: "m", Ask: ask, MaxTokens: math.MaxInt32}); !json.Valid([]byte(out)) {
			t.Errorf("not JSON: %s", out)
		}
	})
}

func TestSimulatedManners(t *testing.T) {
	s := NewSimulated(SimulatedConfig{})
	for model, class := range map[string]Class{
		"fail": ClassServer, "rate-limited": ClassRateLimited, "overloaded": ClassOverloaded, "truncated": ClassOutputTruncated, "refuse": ClassContentPolicy,
	} {
		_, err := s.Complete(t.Context(), Call{Model: model, Ask: prompt("x"), MaxTokens: 10})
		if e := failure(t, err); e.Class != class {
			t.Errorf("%s ends in %s", model, e)
		}
	}
	ask := prompt(brief)
	ask.JSON, ask.Schema = true, json.RawMessage(schemas["draft"])
	if text := answer(t, Call{Model: "prose", Ask: ask}); json.Valid([]byte(text)) {
		t.Errorf("prose is JSON: %s", text)
	}
	if text := answer(t, Call{Model: "fenced", Ask: ask}); !strings.Contains(text, "```json\n{") {
		t.Errorf("no fence: %s", text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Complete(ctx, Call{Model: "timeout", Ask: prompt("x")})
	if e := failure(t, err); e.Class != ClassCancelled || e.Tokens.Input == 0 {
		t.Errorf("got %+v", e)
	}
	_, err = s.Complete(t.Context(), Call{Model: "m", Ask: prompt(brief), MaxTokens: 5})
	if e := failure(t, err); e.Class != ClassOutputTruncated || e.Tokens.Output != 5 {
		t.Errorf("got %+v", e)
	}
}

func TestSimulatedRates(t *testing.T) {
	s := NewSimulated(SimulatedConfig{FailRate: 0.2, RateLimitRate: 0.1})
	count := map[Class]int{}
	for i := range 2000 {
		_, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x"), Seed: fmt.Sprint(i)})
		if err != nil {
			e := failure(t, err)
			count[e.Class]++
			if e.Class == ClassRateLimited && e.RetryAfter <= 0 {
				t.Error("a 429 without Retry-After")
			}
		}
	}
	if f, r := count[ClassServer], count[ClassRateLimited]; f < 300 || f > 500 || r < 130 || r > 270 || len(count) != 2 {
		t.Errorf("of 2000: %v", count)
	}
}

func TestSimulatedRespond(t *testing.T) {
	s := NewSimulated(SimulatedConfig{Respond: func(_ context.Context, c Call) *Scripted {
		switch c.Seed {
		case "text":
			return &Scripted{Text: "as told"}
		case "error":
			return &Scripted{Class: ClassAuth, Text: "no"}
		case "slow":
			return &Scripted{Improvised: true, Latency: time.Nanosecond}
		case "silence":
			return &Scripted{Hangs: true}
		}
		return nil
	}})
	if r, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x"), Seed: "text"}); err != nil || r.Text != "as told" || r.Tokens.Output != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
	_, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x"), Seed: "error"})
	if e := failure(t, err); e.Class != ClassAuth || e.Message != "no" {
		t.Errorf("got %+v", e)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = s.Complete(short, Call{Model: "m", Ask: prompt("x"), Seed: "silence"})
	if e := failure(t, err); e.Class != ClassTimeout {
		t.Errorf("got %+v", e)
	}
	if r, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x"), Seed: "slow"}); err != nil || !strings.Contains(r.Text, SimulatedMark) {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err := s.Complete(t.Context(), Call{Model: "m", Ask: prompt("x")}); err != nil || !strings.Contains(r.Text, SimulatedMark) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Ten thousand calls that wait cost a timer each: no goroutine of their own, and little memory.
func TestSimulatedWaitsCheaply(t *testing.T) {
	const calls = 10_000
	synctest.Test(t, func(t *testing.T) {
		s := NewSimulated(SimulatedConfig{Latency: time.Minute, LatencyJitter: time.Minute})
		before := runtime.NumGoroutine()
		var all sync.WaitGroup
		ask := prompt("x")
		began := time.Now()
		for i := range calls {
			all.Go(func() {
				if _, err := s.Complete(t.Context(), Call{Model: "m", Ask: ask, Seed: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait for their timer
		if n := runtime.NumGoroutine() - before; n > calls+10 {
			t.Errorf("%d goroutines for %d calls", n, calls)
		}
		all.Wait()
		if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

func TestTopics(t *testing.T) {
	got := topicsOf("Write a market analysis of the European heat pump sector. \"Heat Pumps\" (2026) are cheap; RISKS: supply chains.")
	want := []string{"market analysis", "European heat pump", "sector", "Heat Pumps", "cheap", "RISKS", "supply chains"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := topicsOf(strings.Repeat("\xff{}[]<>,;:. ", 5000)); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestMatching(t *testing.T) {
	for _, p := range []string{`^\d{4}-\d{2}$`, `^(foo|bar)+$`, `^[^a-z]{3}$`, `^.{2,5}$`, `^#[0-9a-fA-F]{6}$`, `^[a-z][a-z0-9_]*$`} {
		re := regexp.MustCompile(p)
		for seed := range uint64(50) {
			if s := matching(p, draws(Call{Seed: fmt.Sprint(seed)})); !re.MatchString(s) || !utf8.ValidString(s) {
				t.Errorf("%q does not match %s", s, p)
			}
		}
	}
}
