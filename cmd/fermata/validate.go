package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

// definitionFlag is the file a definition is read from, named with or without -f.
type definitionFlag struct {
	Path string `arg:"" optional:"" name:"file" help:"The workflow definition, YAML or JSON; - is standard input."`
	File string `short:"f" placeholder:"FILE" help:"The same, named with a flag."`
}

// AfterApply sees to it that one file is named, once.
func (d *definitionFlag) AfterApply() error {
	if (d.Path == "") == (d.File == "") {
		return errors.New("name one definition: FILE, or -f FILE")
	}
	d.File = d.Path + d.File
	return nil
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
	remoteFlags
	Strict bool `help:"Warnings are errors."`
}

// validation is the result of validate, as JSON.
type validation struct {
	Valid    bool          `json:"valid"`
	File     string        `json:"file"`
	Name     string        `json:"name,omitempty"`
	Hash     string        `json:"hash,omitempty"`
	Steps    int           `json:"steps"`
	Issues   []fault.Issue `json:"issues"`
	Warnings []fault.Issue `json:"warnings"`
}

// Run compiles the definition here, without a service, and shows everything that is wrong with it, or not wise.
func (v *validateCommand) Run(ctx context.Context, s *screen) error {
	source, err := v.read(s)
	if err != nil {
		return err
	}
	w, err := compile(ctx, s, v.remoteFlags, source)
	if err != nil {
		return v.refuse(s, err)
	}
	roster, err := knownModels(time.Now)
	if err != nil {
		return err
	}
	warnings := warningsOf(w, roster)
	if v.Strict && len(warnings) > 0 {
		err = &exitErr{exitError, fmt.Errorf("%s: %s, and --strict", v.File, counted(len(warnings), "warning"))}
	}
	if s.json {
		result := validation{
			Valid: err == nil, File: v.File, Name: w.Name, Hash: w.Hash.String(), Steps: len(w.Steps), Issues: []fault.Issue{}, Warnings: warnings,
		}
		return cmp.Or(s.showJSON(result), err)
	}
	for _, i := range warnings {
		s.print("%s", formatWarning(v.File, i))
	}
	if err == nil {
		s.print("%s: ok: workflow %s, %d steps, %s", v.File, w.Name, len(w.Steps), w.Hash)
	}
	return err
}

// warningsOf is what speaks against a definition that could run.
func warningsOf(w *workflow.Workflow, roster workflow.Roster) []fault.Issue {
	list := []fault.Issue{}
	for _, l := range preview.Lint(w, roster) {
		list = append(list, fault.Issue{Pointer: l.Pos.Pointer, Code: l.Code, Detail: l.Detail, Line: l.Pos.Line, Col: l.Pos.Col, Suggest: l.Suggest})
	}
	return list
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
		if err := s.showJSON(validation{File: v.File, Issues: issues, Warnings: []fault.Issue{}}); err != nil {
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
	detail, _, _ := strings.Cut(i.Detail, "; did you mean") // it is told below
	text := placed(file, "error", i) + oneLine(detail)
	if i.Suggest != "" {
		meant := i.Suggest
		if !strings.HasPrefix(meant, `"`) {
			meant = strconv.Quote(meant)
		}
		text += "\n  help: did you mean " + meant + "?"
	}
	return text
}

// formatWarning renders a warning likewise, and below the edit that mends it.
func formatWarning(file string, i fault.Issue) string {
	text := placed(file, "warning", i) + oneLine(i.Detail)
	if i.Suggest != "" {
		text += "\n  help: " + strings.ReplaceAll(i.Suggest, "\n", "\n        ")
	}
	return text
}

// placed says where an issue is, and of what kind.
func placed(file, kind string, i fault.Issue) string {
	var b strings.Builder
	b.WriteString(file)
	if i.Line > 0 {
		fmt.Fprintf(&b, ":%d", i.Line)
		if i.Col > 0 {
			fmt.Fprintf(&b, ":%d", i.Col)
		}
	}
	fmt.Fprintf(&b, ": %s[%s] ", kind, i.Code)
	if where := i.Pointer + i.Parameter; where != "" && i.Line == 0 {
		b.WriteString(where + ": ")
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
