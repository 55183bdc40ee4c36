package workflow_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

// TestRules: testdata/bad/rules.txt has the rules of the format in its order, each with a definition that breaks it and
// nothing else: the first line says the rule, TestProblems holds what is said. Here: every rule is enforced, and its problem
// says where it is.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range strings.Split(read(t, "testdata/bad/rules.txt"), "\n====\n") {
		definition, _, _ := strings.Cut(c, "\n----\n")
		first, _, _ := strings.Cut(definition, "\n")
		rule, ok := strings.CutPrefix(first, "# ")
		if !ok || seen[rule] {
			t.Errorf("%q is no rule, or stands twice", first)
		}
		seen[rule] = true
		_, err := workflow.Compile([]byte(definition))
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("%s: not enforced: %v", rule, err)
			continue
		}
		for _, i := range f.Issues {
			if i.Line == 0 || i.Col == 0 || i.Code == "" || i.Detail == "" {
				t.Errorf("%s: what is wrong, and where? %+v", rule, i)
			}
		}
	}
}

// TestEveryCode: each code of a problem is the code of one in the tables of wrong definitions and plans.
func TestEveryCode(t *testing.T) {
	var tables strings.Builder
	for _, pattern := range []string{"testdata/bad/*.txt", "testdata/plans/*.txt"} {
		for _, file := range golden(t, pattern) {
			tables.WriteString(read(t, file))
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "problems.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "code") {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		code, err := strconv.Unquote(literal.Value)
		if codes++; err != nil || !strings.Contains(tables.String(), " "+code+": ") {
			t.Errorf("no table has a problem with the code %s", literal.Value)
		}
		return true
	})
	if codes < 30 {
		t.Errorf("only %d codes were found", codes)
	}
}
