package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/examples"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/rehearsal"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// testCommand rehearses workflows as test files say.
type testCommand struct {
	Files  []string `arg:"" optional:"" name:"file" help:"Test files, YAML or JSON."`
	File   []string `short:"f" sep:"none" placeholder:"FILE" help:"A test file; the same as naming it without -f. Repeatable."`
	Only   string   `name:"run" placeholder:"NAME" help:"Only cases whose name holds this text."`
	Update bool     `help:"Write the golden files anew, as it went."`
	JUnit  string   `name:"junit" placeholder:"FILE" help:"Write a JUnit report, too."`
	Story  bool     `help:"Show what happened in every case, not only in those that fail."`
	Schema bool     `help:"Print the JSON Schema of test files, for editors, and do nothing else."`
}

// Run plays the cases of all files.
func (c *testCommand) Run(ctx context.Context, s *screen) error {
	if c.Schema {
		_, err := s.out.Write(rehearsal.Schema)
		return err
	}
	files := append(c.File, c.Files...)
	if len(files) == 0 {
		return usageError("name a test file: fermata test FILE")
	}
	var suites []rehearsal.SuiteResult
	for _, file := range files {
		suite, err := readTests(file)
		if err != nil {
			return err
		}
		result, err := c.play(ctx, s, suite)
		if err != nil {
			return err
		}
		suites = append(suites, result)
	}
	if c.JUnit != "" {
		if err := writeJUnit(c.JUnit, suites); err != nil {
			return err
		}
	}
	return showTests(s, suites)
}

// readTests reads a test file and everything it names.
func readTests(file string) (*rehearsal.Suite, error) {
	source, err := readFile(file, rehearsal.FileBytesMax)
	if err != nil {
		return nil, usageError("read the tests: %w", err)
	}
	suite, err := rehearsal.Read(file, source, beside(filepath.Dir(file)))
	var wrong *rehearsal.WorkflowError
	if errors.As(err, &wrong) {
		return nil, definitionError(wrong.File, wrong.Err)
	}
	return suite, definitionError(file, err)
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	source, err := readAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return source, nil
}

// beside finds what a test file names in its folder, and the workflows that come with the program.
type beside string

// File reads a file by its path beside the test file.
func (b beside) File(name string) ([]byte, error) {
	source, err := readFile(b.path(name), workflow.DefinitionBytesMax)
	if err != nil {
		return nil, usageError("%w", err)
	}
	return source, nil
}

func (b beside) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(string(b), name)
}

// Template reads a workflow that comes with the program: a template, or one of the examples.
func (b beside) Template(name string) ([]byte, error) {
	known := map[string]string{} // file by name
	for _, pattern := range []string{"*.yaml", "templates/*.yaml"} {
		files, _ := fs.Glob(examples.FS, pattern) //nolint:errcheck // the patterns are right
		for _, file := range files {
			if name := strings.TrimSuffix(path.Base(file), ".yaml"); !strings.HasSuffix(name, ".test") {
				known[name] = file
			}
		}
	}
	if file, ok := known[name]; ok {
		return examples.FS.ReadFile(file)
	}
	hint := ""
	if near := fault.Nearest(name, slices.Collect(maps.Keys(known))); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, usageError("there is no template %q%s", name, hint)
}

// play plays the cases of a file, and shows each as it ends.
func (c *testCommand) play(ctx context.Context, s *screen, suite *rehearsal.Suite) (rehearsal.SuiteResult, error) {
	all := rehearsal.SuiteResult{File: suite.Name, Results: []*rehearsal.Result{}}
	began := time.Now()
	if !s.json {
		s.print("%s", suite.Name)
	}
	for _, k := range suite.Cases {
		if !strings.Contains(k.Name, c.Only) {
			continue
		}
		r, err := k.Run(ctx)
		if err != nil {
			return all, err
		}
		if c.Update && r.Golden != nil && r.Golden.Differ {
			if err := writeGolden(suite.Name, r); err != nil {
				return all, err
			}
		}
		all.Results = append(all.Results, r)
		if !s.json {
			if err := c.show(s, suite.Name, r); err != nil {
				return all, err
			}
		}
	}
	all.Took = time.Since(began)
	return all, nil
}

// writeGolden writes the golden file of a case; what differed from it is no failure any more.
func writeGolden(file string, r *rehearsal.Result) error {
	golden := beside(filepath.Dir(file)).path(r.Golden.Path)
	if err := os.WriteFile(golden, r.Golden.Source, 0o644); err != nil {
		return fmt.Errorf("write the golden file: %w", err)
	}
	r.Accept()
	return nil
}

// storyLines is how much of what happened is shown of a case that fails.
const storyLines = 30

func (c *testCommand) show(s *screen, file string, r *rehearsal.Result) error {
	sign, color := signOf(statusOfCase(r))
	line := s.paint(color, sign) + " " + r.Case
	switch {
	case r.Skipped != "":
		line += "  " + s.paint(colorDim, "left out: "+r.Skipped)
	case r.Account != nil:
		line += "  " + s.paint(colorDim, accountLine(r))
	}
	s.print("  %s", line)
	for _, f := range r.Failures {
		s.print("      %s:%d:%d: %s", file, f.Line, f.Col, f.What)
		if f.Expected != "" || f.Got != "" {
			s.print("        %s %s", s.paint(colorGreen, "expected"), f.Expected)
			s.print("        %s      %s", s.paint(colorRed, "got"), f.Got)
		}
	}
	for _, n := range r.Notes {
		s.print("      %s", s.paint(colorYellow, "note: "+n))
	}
	if c.Story || !r.Passed() {
		story := r.Story
		if n := len(story) - storyLines; n > 0 && !c.Story {
			s.print("      … %s before", counted(n, "event"))
			story = story[n:]
		}
		for _, l := range story {
			s.print("      %s", s.paint(colorDim, l))
		}
	}
	if r.Compared != nil {
		return showComparison(s, r.Compared, func(path string) bool { return c.Story || !r.Passed() && depth(path) == 0 })
	}
	return nil
}

func statusOfCase(r *rehearsal.Result) string {
	switch {
	case r.Skipped != "":
		return "skipped"
	case r.Passed():
		return "succeeded"
	}
	return "failed"
}

// accountLine is what a case took: of the machine's time, of its own, and of simulated money.
func accountLine(r *rehearsal.Result) string {
	a := r.Account
	parts := []string{took(r.Took)}
	if a.Took > 0 {
		parts = append(parts, "as if "+took(a.Took))
	}
	if a.Calls > 0 {
		parts = append(parts, counted(a.Calls, "call"), money(a.Cost, a.Unpriced, a.Calls)+" simulated")
	}
	return strings.Join(parts, " · ")
}

// showTests sums up, and fails if a case has.
func showTests(s *screen, suites []rehearsal.SuiteResult) error {
	var passed, failed, skipped, calls, unpriced int
	var cost usage.Money
	var d time.Duration
	for _, suite := range suites {
		d += suite.Took
		for _, r := range suite.Results {
			switch statusOfCase(r) {
			case "skipped":
				skipped++
			case "succeeded":
				passed++
			default:
				failed++
			}
			if r.Account != nil {
				calls, unpriced, cost = calls+r.Account.Calls, unpriced+r.Account.Unpriced, cost+r.Account.Cost
			}
		}
	}
	if s.json {
		if err := s.showJSON(suites); err != nil {
			return err
		}
	} else {
		line := fmt.Sprintf("%s: %d passed, %d failed", counted(passed+failed+skipped, "case"), passed, failed)
		if skipped > 0 {
			line += fmt.Sprintf(", %d left out", skipped)
		}
		line += " in " + took(d)
		if calls > 0 {
			line += fmt.Sprintf(" · %s, %s simulated", counted(calls, "call"), money(cost, unpriced, calls))
		}
		s.print("%s", line)
	}
	switch {
	case passed+failed+skipped == 0:
		return usageError("no case has that name")
	case failed > 0:
		return &exitErr{exitError, fmt.Errorf("%s failed", counted(failed, "case"))}
	}
	return nil
}

func writeJUnit(path string, suites []rehearsal.SuiteResult) error {
	var report bytes.Buffer
	if err := rehearsal.WriteJUnit(&report, suites); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	if err := os.WriteFile(path, report.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}
