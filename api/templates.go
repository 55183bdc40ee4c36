package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Labels of a definition that say what is told of it as a template.
const (
	labelTemplateTitle = "template.title" // empty: the first sentence of its description
	labelTemplateFor   = "template.for"   // what it shows, separated by commas or spaces
)

// template is a workflow that comes with the service.
type template struct {
	name     string
	source   []byte
	compiled *compiled
	input    json.RawMessage // an example; nil: there is none
}

// loadTemplates reads every <name>.yaml of a directory, with the example input that stands in <name>.input.json, by name;
// <name>.test.yaml are its tests. A template may run others by the names of their definitions. The error is of those that
// do not compile: they come with the program.
func loadTemplates(dir fs.FS) ([]*template, error) {
	if dir == nil {
		return nil, nil
	}
	files, err := fs.Glob(dir, "*.yaml")
	if err != nil { // the pattern is right
		return nil, err
	}
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, ".test.yaml") })
	list := make([]*template, 0, len(files))
	for _, file := range files {
		t := &template{name: strings.TrimSuffix(file, ".yaml")}
		if t.source, err = fs.ReadFile(dir, file); err != nil {
			return nil, fmt.Errorf("read template %s: %w", file, err)
		}
		if input, err := fs.ReadFile(dir, t.name+".input.json"); err == nil {
			t.input = bytes.TrimSpace(input)
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *template) int { return strings.Compare(a.name, b.name) })
	return list, compileTemplates(list)
}

// compileTemplates compiles again and again what names others, until all have been there before it.
func compileTemplates(list []*template) error {
	lib := workflow.Fetched{}
	for done := -1; done < len(lib); {
		done = len(lib)
		var wrong []error
		for _, t := range list {
			if t.compiled != nil {
				continue
			}
			w, err := workflow.CompileWith(t.source, lib)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("compile template %s: %w", t.name, unkind{err}))
				continue
			}
			t.compiled = &compiled{workflow: w, stored: map[uuid.UUID]bool{}}
			lib[w.Name] = workflow.Published{Ref: workflow.Versioned(w.Name, 1), Source: w.Source}
		}
		if len(wrong) == 0 || len(lib) == done {
			return errors.Join(wrong...)
		}
	}
	return nil
}

// template finds a template by its name. The error suggests what may have been meant.
func (a *API) template(name string) (*template, error) {
	names := make([]string, len(a.templates))
	for i, t := range a.templates {
		if t.name == name {
			return t, nil
		}
		names[i] = t.name
	}
	e := fault.New(fault.KindNotFound, "template_not_found", "there is no template %s", clip(name))
	e.Issues = []fault.Issue{{Parameter: "name", Code: e.Code, Detail: e.Detail, Suggest: fault.Nearest(name, names)}}
	return nil, e
}

// ListTemplates lists the templates, by name.
func (a *API) ListTemplates(context.Context, ListTemplatesRequestObject) (ListTemplatesResponseObject, error) {
	page := TemplatePage{Data: []TemplateSummary{}}
	for _, t := range a.templates {
		page.Data = append(page.Data, TemplateSummary{Name: t.name, Title: t.title(), For: t.shows(), Links: t.links()})
	}
	return ListTemplates200JSONResponse(page), nil
}

// GetTemplate shows a template with its definition.
func (a *API) GetTemplate(_ context.Context, req GetTemplateRequestObject) (GetTemplateResponseObject, error) {
	t, err := a.template(req.Name)
	if err != nil {
		return nil, err
	}
	return GetTemplate200JSONResponse(Template{
		Name: t.name, Title: t.title(), Description: t.compiled.workflow.Description, For: t.shows(), Parameters: t.parameters(),
		Input: t.input, Definition: string(t.source), Links: t.links(),
	}), nil
}

func (t *template) links() TemplateLinks { return TemplateLinks{Self: "/v1/templates/" + t.name} }

func (t *template) title() string {
	w := t.compiled.workflow
	if title := w.Labels[labelTemplateTitle]; title != "" {
		return title
	}
	first, _, _ := strings.Cut(strings.TrimSpace(w.Description), "\n")
	first, _, _ = strings.Cut(first, ". ")
	if first == "" {
		return t.name
	}
	return strings.TrimSuffix(first, ".")
}

func (t *template) shows() []string {
	split := func(r rune) bool { return r == ',' || r == ' ' }
	return append([]string{}, strings.FieldsFunc(t.compiled.workflow.Labels[labelTemplateFor], split)...)
}

// parameters is the schema of its input; nil: it takes any.
func (t *template) parameters() json.RawMessage {
	if schema := t.compiled.workflow.Input; schema != nil {
		return schema.Raw
	}
	return nil
}
