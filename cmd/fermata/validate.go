package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// definitionFlag is the file a definition is read from.
type definitionFlag struct {
	File string `short:"f" required:"" placeholder:"FILE" help:"The workflow definition, YAML or JSON; - is standard input."`
}

func (d definitionFlag) read(s *screen) ([]byte, error) {
	if d.File == "-" {
		source, err := readAll(s.in, workflow.DefinitionBytesMax)
		if err != nil {
			return nil, fmt.Errorf("read the definition: %w", err)
		}
		return source, nil
	}
	f, err := os.Open(d.File)
	if err != nil {
		return nil, usageError("read the definition: %w", err)
	}
	defer f.Close()
	source, err := readAll(f, workflow.DefinitionBytesMax)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.File, err)
	}
	return source, nil
}

type validateCommand struct {
	definitionFlag
}

// validation is the result of validate, as JSON.
type validation struct {
	Valid  bool          `json:"valid"`
	File   string        `json:"file"`
	Name   string        `json:"name,omitempty"`
	Hash   string        `json:"hash,omitempty"`
	Steps  int           `json:"steps"`
	Issues []fault.Issue `json:"issues"`
}

// Run compiles the definition here, without a service, and shows everything that is wrong with it.
func (v *validateCommand) Run(s *screen) error {
	source, err := v.read(s)
	if err != nil {
		return err
	}
	w, err := workflow.Compile(source)
	if err != nil {
		return v.refuse(s, err)
	}
	if s.json {
		return s.showJSON(validation{Valid: true, File: v.File, Name: w.Name, Hash: w.Hash.String(), Steps: len(w.Steps), Issues: []fault.Issue{}})
	}
	s.print("%s: ok: workflow %s, %d steps, %s", v.File, w.Name, len(w.Steps), w.Hash)
	return nil
}

func (v *validateCommand) refuse(s *screen, err error) error {
	f := fault.Of(err)
	if f == nil {
		return fmt.Errorf("compile %s: %w", v.File, err)
	}
	issues := f.Issues
	if len(issues) == 0 {
		issues = []fault.Issue{{Code: f.Code, Detail: f.Detail}}
	}
	refused := &exitErr{exitError, fmt.Errorf("%s: %s", v.File, counted(len(issues), "problem"))}
	if s.json {
		if err := s.showJSON(validation{File: v.File, Issues: issues}); err != nil {
			return err
		}
		return refused
	}
	for _, i := range issues {
		s.print("%s", formatIssue(v.File, i))
	}
	return refused
}

// formatIssue renders an issue as compilers do: file:line:col: error[code] detail, and below what may have been meant.
func formatIssue(file string, i fault.Issue) string {
	var b strings.Builder
	b.WriteString(file)
	if i.Line > 0 {
		fmt.Fprintf(&b, ":%d", i.Line)
		if i.Col > 0 {
			fmt.Fprintf(&b, ":%d", i.Col)
		}
	}
	fmt.Fprintf(&b, ": error[%s] ", i.Code)
	if where := i.Pointer + i.Parameter; where != "" && i.Line == 0 {
		b.WriteString(where + ": ")
	}
	detail, _, _ := strings.Cut(i.Detail, "; did you mean") // it is told below
	b.WriteString(oneLine(detail))
	if i.Suggest != "" {
		fmt.Fprintf(&b, "\n  help: did you mean %q?", i.Suggest)
	}
	return b.String()
}

// counted says how many of a thing there are.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
