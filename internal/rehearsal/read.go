package rehearsal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// FileBytesMax bounds a test file.
const FileBytesMax = 4 << 20

// Suite is a test file that was read and checked, with the workflows it names.
type Suite struct {
	Name  string // of the file
	Cases []*Case

	file     *file
	doc      *workflow.Document
	library  Library
	compiled map[string]*workflow.Workflow // by source
}

// Library finds what a test file names.
type Library interface {
	// File reads a file by its path beside the test file.
	File(path string) ([]byte, error)
	// Template gives the source of a workflow that comes with the program.
	Template(name string) ([]byte, error)
}

// WorkflowError is what is wrong with a workflow that a test file names.
type WorkflowError struct {
	File string // or template
	Err  error  // a *fault.Error
}

func (e *WorkflowError) Error() string { return e.File + ": " + e.Err.Error() }
func (e *WorkflowError) Unwrap() error { return e.Err }

// Read reads a test file and compiles what it names. The error is a *fault.Error with every problem of the file and its
// place, or a *WorkflowError.
func Read(name string, source []byte, library Library) (*Suite, error) {
	if len(source) > FileBytesMax {
		return nil, fault.New(fault.KindTooLarge, "file_too_large", "the file has %d bytes; the limit is %d", len(source), FileBytesMax)
	}
	doc, err := workflow.ReadDocument(source)
	if err != nil {
		return nil, err
	}
	s := &Suite{Name: name, file: &file{}, doc: doc, library: library, compiled: map[string]*workflow.Workflow{}}
	c := &checker{doc: doc}
	c.shape()
	if err := c.err(); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc.JSON(), s.file); err != nil { // a whole number spelled 1e3, or one that no int holds
		return nil, fault.New(fault.KindInvalid, "tests_invalid", "the test file cannot be read: %v", err)
	}
	s.Cases = s.file.Cases
	c.file(s)
	if err := c.err(); err != nil {
		return nil, err
	}
	for _, k := range s.Cases {
		if k.compiled, err = s.workflowOf(k.pointer+"/workflow", k.Workflow, k.Template); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// workflowOf compiles the workflow that is named at a place of the file; nothing: the one for all cases.
// opened are the workflows that are being compiled around it, by name.
func (s *Suite) workflowOf(pointer string, named json.RawMessage, template string, opened ...string) (*workflow.Workflow, error) {
	if len(named) == 0 && template == "" {
		pointer, named, template = "/workflow", s.file.Workflow, s.file.Template
	}
	from, err := s.source(pointer, named, template)
	if err != nil {
		return nil, err
	}
	if w := s.compiled[string(from.text)]; w != nil {
		return w, nil
	}
	children := &shelf{suite: s, open: opened}
	w, err := workflow.CompileWith(from.text, children)
	if children.err != nil {
		return nil, children.err
	}
	if err != nil {
		return nil, s.refused(from, err)
	}
	s.compiled[string(from.text)] = w
	return w, nil
}

// shelf finds the workflows that steps run among those of the file.
type shelf struct {
	suite *Suite
	open  []string
	err   error // what is wrong with one of them
}

// Workflow finds one by its name. A test file knows one version of each.
func (s *shelf) Workflow(name string, version int) (ref string, text []byte, ok bool) {
	known, ok := s.suite.file.Workflows[name]
	if !ok || slices.Contains(s.open, name) { // one that runs itself is not carried by itself
		return "", nil, false
	}
	w, err := s.suite.workflowOf("/workflows/"+escaped(name), known, "", append(s.open, name)...)
	if err != nil {
		s.err = cmp.Or(s.err, err)
		return "", nil, false
	}
	return fmt.Sprintf("%s@%d", name, max(version, 1)), w.Source, true
}

// source is the text of a workflow, and where it stands.
type source struct {
	text    []byte
	file    string // or template; empty: it stands in the test file itself
	pointer string // there
}

// source finds a workflow: by the name of a template, a name from workflows, the path of a file, or as it stands here.
func (s *Suite) source(pointer string, named json.RawMessage, template string) (source, error) {
	if template != "" {
		text, err := s.library.Template(template)
		return source{text: text, file: "template " + template}, err
	}
	if known, ok := s.file.Workflows[textOf(named)]; ok {
		pointer, named = "/workflows/"+escaped(textOf(named)), known
	}
	if bytes.HasPrefix(named, []byte("{")) {
		return source{text: named, pointer: pointer}, nil
	}
	path := textOf(named)
	text, err := s.library.File(path)
	return source{text: text, file: path}, err
}

// refused says what is wrong with a workflow, by its places in the file it stands in.
func (s *Suite) refused(from source, err error) error {
	f := fault.Of(err)
	if f == nil || from.file != "" {
		return &WorkflowError{from.file, err}
	}
	for i := range f.Issues {
		issue := &f.Issues[i]
		issue.Pointer = from.pointer + issue.Pointer
		at := s.doc.Position(issue.Pointer)
		issue.Line, issue.Col = at.Line, at.Col
	}
	return f
}

// Position is where a part of the file stands, by its JSON pointer.
func (s *Suite) Position(pointer string) workflow.Position { return s.doc.Position(pointer) }

// checker gathers what is wrong with a test file.
type checker struct {
	doc    *workflow.Document
	issues []fault.Issue
}

func (c *checker) add(pointer, code, edit, format string, args ...any) {
	at := c.doc.Position(pointer)
	c.issues = append(c.issues, fault.Issue{
		Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...), Line: at.Line, Col: at.Col, Suggest: edit,
	})
}

func (c *checker) err() error {
	if len(c.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(c.issues, func(a, b fault.Issue) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	e := fault.New(fault.KindInvalid, "tests_invalid", "the test file has %d problems", len(c.issues))
	if len(c.issues) == 1 {
		e.Detail = "the test file has a problem"
	}
	e.Issues = c.issues[:min(len(c.issues), fault.IssuesMax)]
	return e
}

var fileSchema = sync.OnceValues(func() (*workflow.Schema, error) { return workflow.ParseSchema(Schema) })

// shape holds the file against its schema.
func (c *checker) shape() {
	schema, err := fileSchema()
	if err != nil { // a defect, seen by every test
		panic(fmt.Sprintf("rehearsal: %v", err))
	}
	for _, issue := range schema.Check(c.doc.JSON()) {
		edit := ""
		if issue.Code == "unknown_property" {
			at := strings.LastIndexByte(issue.Pointer, '/')
			edit = fault.Nearest(issue.Pointer[at+1:], keysAt(issue.Pointer[:at]))
		}
		c.add(issue.Pointer, issue.Code, edit, "%s", issue.Detail)
	}
}

// keysAt lists the keys that the schema knows at a place of the file.
func keysAt(pointer string) []string {
	type node struct {
		Ref        string                     `json:"$ref"`
		Properties map[string]json.RawMessage `json:"properties"`
		Additional json.RawMessage            `json:"additionalProperties"`
		Items      json.RawMessage            `json:"items"`
		Defs       map[string]json.RawMessage `json:"$defs"`
	}
	read := func(raw json.RawMessage) (n node) {
		if json.Unmarshal(raw, &n) != nil { // true or false
			return node{}
		}
		return n
	}
	root := read(Schema)
	at := root
	for _, p := range strings.Split(pointer, "/")[1:] {
		next, ok := at.Properties[p]
		switch {
		case ok:
		case len(at.Items) > 0:
			next = at.Items
		default:
			next = at.Additional
		}
		if at = read(next); at.Ref != "" {
			at = read(root.Defs[strings.TrimPrefix(at.Ref, "#/$defs/")])
		}
	}
	return slices.Collect(maps.Keys(at.Properties))
}

// startDefault is when a case begins whose file does not say.
var startDefault = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// file checks what a schema cannot say, and tells the cases where they stand and what the file says for all of them.
func (c *checker) file(s *Suite) {
	f := s.file
	if f.Template != "" && f.Workflow != nil {
		c.add("/template", "conflict", "", `"workflow" and "template" exclude each other`)
	}
	c.lines("", f.Models, f.Tools, f.Approvals)
	names := map[string]bool{}
	for i, k := range f.Cases {
		k.suite, k.pointer, k.at = s, fmt.Sprintf("/cases/%d", i), f.At
		if k.at.IsZero() {
			k.at = startDefault
		}
		if names[k.Name] {
			c.add(k.pointer+"/name", "conflict", "", "two cases are named %q", k.Name)
		}
		names[k.Name] = true
		c.oneCase(k, f)
		k.Models, k.Tools, k.Approvals = append(k.Models, f.Models...), append(k.Tools, f.Tools...), append(k.Approvals, f.Approvals...)
		if k.Unscripted == "" {
			k.Unscripted = f.Unscripted
		}
	}
}

func (c *checker) oneCase(k *Case, f *file) {
	switch {
	case k.Template != "" && k.Workflow != nil:
		c.add(k.pointer+"/template", "conflict", "", `"workflow" and "template" exclude each other`)
	case k.Template == "" && k.Workflow == nil && f.Template == "" && f.Workflow == nil:
		c.add(k.pointer, "required", "", `neither the case nor the file says which "workflow" is tested`)
	}
	c.lines(k.pointer, k.Models, k.Tools, k.Approvals)
	for i, l := range k.Steer {
		if l.Do == "budget" && l.USD == 0 && l.Tokens == 0 {
			c.add(fmt.Sprintf("%s/steer/%d", k.pointer, i), "required", "", `a budget needs "usd" or "tokens"`)
		}
	}
	for i, source := range k.Expect.Assert {
		c.expr(fmt.Sprintf("%s/expect/assert/%d", k.pointer, i), source, assertRoots)
	}
	c.conditions(k.pointer+"/expect/output", k.Expect.Output)
	for path, e := range k.Expect.Steps {
		c.conditions(k.pointer+"/expect/steps/"+escaped(path)+"/output", e.Output)
	}
	if k.Compare != nil {
		c.lines(k.pointer+"/compare/with", k.Compare.With.Models, k.Compare.With.Tools, nil)
		for i, source := range k.Compare.Assert {
			c.expr(fmt.Sprintf("%s/compare/assert/%d", k.pointer, i), source, compareRoots)
		}
	}
}

// lines checks the lines of a script, and tells them where they stand.
func (c *checker) lines(pointer string, models []modelLine, tools []toolLine, approvals []approvalLine) {
	for i := range models {
		l := &models[i]
		l.pointer = fmt.Sprintf("%s/models/%d", pointer, i)
		switch {
		case (l.Answer != nil || l.Calls != nil) && l.Error != "":
			c.add(l.pointer+"/error", "conflict", "", `an answer and an "error" exclude each other`)
		case l.Answer == nil && l.Calls == nil && l.Error == "" && l.Latency == 0:
			c.add(l.pointer, "required", "", `the line says nothing: it needs "answer", "calls", "error" or "latency"`)
		case l.Message != "" && l.Error == "":
			c.add(l.pointer+"/message", "conflict", "", `"message" belongs to an "error"`)
		}
	}
	for i := range tools {
		l := &tools[i]
		l.pointer = fmt.Sprintf("%s/tools/%d", pointer, i)
		switch {
		case l.Output != nil && l.Error != "":
			c.add(l.pointer+"/error", "conflict", "", `"output" and "error" exclude each other`)
		case l.Output == nil && l.Error == "":
			c.add(l.pointer, "required", "", `the line says nothing: it needs "output" or "error"`)
		}
	}
	for i := range approvals {
		approvals[i].pointer = fmt.Sprintf("%s/approvals/%d", pointer, i)
	}
}

// expr checks that an expression can be read.
func (c *checker) expr(pointer, source string, roots []string) {
	_, err := workflow.ParseExpr(source, roots...)
	if f := fault.Of(err); f != nil {
		c.add(pointer, f.Code, f.Issues[0].Suggest, "%s", f.Detail)
	}
}

// conditions checks the expressions among the values of an expected output.
func (c *checker) conditions(pointer string, raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	v, err := workflow.Decode(raw)
	if err != nil {
		c.add(pointer, "value", "", "%v", err)
		return
	}
	walkText(pointer, v, func(at, text string) {
		if source, ok := condition(text); ok {
			c.expr(at, source, valueRoots)
		}
	})
}

// walkText visits every text in a value, with its pointer.
func walkText(at string, v any, visit func(at, text string)) {
	switch v := v.(type) {
	case string:
		visit(at, v)
	case []any:
		for i, inner := range v {
			walkText(fmt.Sprintf("%s/%d", at, i), inner, visit)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			walkText(at+"/"+escaped(name), v[name], visit)
		}
	}
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escaped is a name as it stands in a JSON pointer.
func escaped(name string) string { return pointerEscapes.Replace(name) }

// condition is the expression of a text that is one: ${{ … }}.
func condition(text string) (string, bool) {
	source, ok := strings.CutPrefix(text, "${{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(source, "}}")
}
