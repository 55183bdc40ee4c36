package workflow_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/workflow"
)

func BenchmarkRenderValue(b *testing.B) { benchmarkRender(b, `"${{ steps.s1.output.text }}"`) }
func BenchmarkRenderText(b *testing.B) {
	benchmarkRender(b, `"TASK ${{ input.task }}\nDRAFT ${{ steps.s1.output.text }}"`)
}
func BenchmarkRenderWhole(b *testing.B) { benchmarkRender(b, `"${{ steps.s1.output }}"`) }
func BenchmarkRenderCall(b *testing.B) {
	benchmarkRender(b, `"${{ steps.s1.output.text.upperAscii() + '!' }}"`)
}
func BenchmarkRenderConstant(b *testing.B) { benchmarkRender(b, `"nothing to evaluate"`) }

// benchmarkRender renders {text: template} beside an output of 1 KB.
func benchmarkRender(b *testing.B, template string) {
	w, err := workflow.Compile(fmt.Appendf(nil, `{"spec":"workflow/v1","name":"bench","input":{"type":"object","properties":{"task":{"type":"string"}}},
		"steps":[{"id":"s1","tool":"builtin:noop"},{"id":"s2","set":{"text":%s}}]}`, template))
	if err != nil {
		b.Fatal(err)
	}
	scope := newScope(b, `{"task":"write"}`, map[string]string{"s1": fmt.Sprintf(`{"text":%q,"n":1}`, strings.Repeat("word ", 200))})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Steps[1].Set.Render(scope); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCondition(b *testing.B) {
	w, err := workflow.Compile([]byte(`{"spec":"workflow/v1","name":"bench","steps":[{"id":"s1","tool":"builtin:noop"},
		{"id":"s2","when":"steps.s1.output.score >= 7 && steps.s1.output.ok","set":{}}]}`))
	if err != nil {
		b.Fatal(err)
	}
	scope := newScope(b, `{}`, map[string]string{"s1": `{"score":8,"ok":true}`})
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := w.Steps[1].When.Bool(scope); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := json.RawMessage(fmt.Sprintf(`{"text":%q,"score":8,"tags":["a","b"],"inner":{"x":1.5,"ok":true}}`, strings.Repeat("word ", 200)))
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := workflow.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	s, err := workflow.ParseSchema([]byte(`{"type":"object","required":["text"],"properties":{"text":{"type":"string","minLength":1},"score":{"type":"integer"}}}`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if issues := s.Check([]byte(`{"text":"hello","score":8}`)); issues != nil {
			b.Fatal(issues)
		}
	}
}

func BenchmarkCompileExample(b *testing.B) {
	source, err := os.ReadFile("testdata/good/qc.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := workflow.Compile(source); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile200(b *testing.B) {
	source := chain(200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := workflow.Compile(source); err != nil {
			b.Fatal(err)
		}
	}
}

// chain is a definition of n steps, each of which reads two others and has a condition.
func chain(n int) []byte {
	var b strings.Builder
	b.WriteString("spec: workflow/v1\nname: chain\ninput: {type: object, properties: {task: {type: string}}}\n" +
		"contracts:\n  draft: {type: object, required: [text], properties: {text: {type: string}, score: {type: number}}}\n" +
		"agents:\n  writer: {chain: production, output: {contract: draft}}\nsteps:\n  - {id: s0, agent: writer, prompt: \"${{ input.task }}\"}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  - id: s%d\n    agent: writer\n    when: steps.s0.output.score > %d\n    prompt: \"TASK ${{ input.task }} DRAFT ${{ steps.s%d.?output.?text }}\"\n", i, i, i-1)
	}
	return []byte(b.String())
}
