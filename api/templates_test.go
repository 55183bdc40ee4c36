package api

import (
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const loopTemplate = `# Says hello, and nothing else.
spec: workflow/v1
name: hello_loop
description: Says hello. And nothing else.
labels: {template.for: 'M7, M13'}
input: {type: object, required: [who], properties: {who: {type: string}}}
steps:
  - id: hello
    set: {text: 'hello ${{ input.who }}'}
`

// oneTemplate is a directory with one template, and what is none.
func oneTemplate() fs.FS {
	return fstest.MapFS{
		"loop.yaml": {Data: []byte(loopTemplate)}, "loop.input.json": {Data: []byte(`{"who":"world"}` + "\n")},
		"loop.test.yaml": {Data: []byte("workflow: loop.yaml\ncases: [{name: x}]\n")}, "README.md": {Data: []byte("x")},
	}
}

func TestTemplates(t *testing.T) {
	s := newService(t, func(c *Config) { c.Templates = oneTemplate() })
	var page TemplatePage
	s.send(t, "GET", "/v1/templates", nil).want(http.StatusOK).json(&page)
	summary := TemplateSummary{Name: "loop", Title: "Says hello", For: []string{"M7", "M13"}, Links: TemplateLinks{Self: "/v1/templates/loop"}}
	if diff := cmp.Diff([]TemplateSummary{summary}, page.Data); diff != "" {
		t.Error(diff)
	}
	var got Template
	s.send(t, "GET", "/v1/templates/loop", nil).want(http.StatusOK).json(&got)
	if got.Definition != loopTemplate || string(got.Input) != `{"who":"world"}` || !strings.Contains(string(got.Parameters), `"who"`) || got.Title != "Says hello" {
		t.Errorf("got %+v", got)
	}
	p := s.send(t, "GET", "/v1/templates/lop", nil).wantProblem(http.StatusNotFound, "template_not_found")
	if p.Errors[0].Suggest != "loop" {
		t.Errorf("got %+v", p.Errors)
	}
}

func TestTemplateIsRun(t *testing.T) {
	s := newService(t, func(c *Config) { c.Templates = oneTemplate() })
	var run Run
	s.send(t, "POST", "/v1/runs", `{"template":"loop","input":{"who":"world"}}`, "Prefer: wait=5").want(http.StatusOK).json(&run)
	if string(run.Output) != `{"text":"hello world"}` || run.Workflow != "hello_loop" || run.Version != 0 {
		t.Errorf("got %+v", run)
	}
	p := s.send(t, "POST", "/v1/runs", `{"template":"loup"}`).wantProblem(http.StatusNotFound, "template_not_found")
	if p.Errors[0].Pointer != "/template" || p.Errors[0].Suggest != "loop" {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "POST", "/v1/runs", `{"template":"loop","workflow":"greet"}`).wantProblem(http.StatusUnprocessableEntity, "workflow_or_definition")
	s.send(t, "POST", "/v1/runs", `{"template":"loop","input":{}}`).want(http.StatusUnprocessableEntity)
}

// A template may run others, in whatever order they are read.
func TestTemplatesRunEachOther(t *testing.T) {
	outer := "spec: workflow/v1\nname: outer\nsteps:\n  - {id: a, workflow: {name: middle}}\n"
	middle := "spec: workflow/v1\nname: middle\nsteps:\n  - {id: a, workflow: {name: hello_loop, input: {who: x}}}\n"
	list, err := loadTemplates(fstest.MapFS{"a.yaml": {Data: []byte(outer)}, "b.yaml": {Data: []byte(middle)}, "c.yaml": {Data: []byte(loopTemplate)}})
	if err != nil {
		t.Fatal(err)
	}
	if w := list[0].compiled.workflow; w.Children["middle@1"] == nil || w.Children["middle@1"].Children["hello_loop@1"] == nil {
		t.Errorf("got %+v", w.Children)
	}
	if _, err := loadTemplates(fstest.MapFS{"a.yaml": {Data: []byte(outer)}, "c.yaml": {Data: []byte(loopTemplate)}}); err == nil || !strings.Contains(err.Error(), `"middle"`) {
		t.Errorf("got %v", err)
	}
}

// Templates come with the program: one that does not compile does not start it.
func TestBrokenTemplate(t *testing.T) {
	for name, source := range map[string]string{"syntax": "steps: [", "meaning": "spec: workflow/v1\nname: x\nsteps: []\n"} {
		if _, err := loadTemplates(fstest.MapFS{"bad.yaml": {Data: []byte(source)}}); err == nil || !strings.Contains(err.Error(), "template bad") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
