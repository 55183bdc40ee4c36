package workflow

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"cel.dev/cel-go/cel"

	"github.com/fermata-run/fermata/internal/fault"
)

// Names are what an expression that stands in no definition may read beside input and run.
type Names struct {
	Steps []string
	Roots []string // item, output and the like: what Scope.Local or Scope.Extra has
}

// CodeEvaluation is the code of an expression that was understood and failed on the values it met.
const CodeEvaluation = "evaluation_failed"

// Evaluate tries one expression, written as it stands in `when`, against values. Nothing is known of their types, so what a
// definition would be refused for may only show when it meets a value. What it gives is JSON; an empty optional is null.
// The error is a *fault.Error of kind invalid, its issues with line and column in the expression.
func Evaluate(expression string, names Names, s *Scope) (json.RawMessage, error) {
	return evaluate([]byte(expression), names, s, func(c *compiler, o owner) (*Template, error) {
		n := &node{kind: nodeText, text: expression, line: 1, col: 1}
		return &Template{root: exprPart{c.bare(n, o, wantAny)}}, nil
	})
}

// EvaluateTemplate tries one template, as Evaluate tries an expression.
func EvaluateTemplate(template json.RawMessage, names Names, s *Scope) (json.RawMessage, error) {
	return evaluate(template, names, s, func(c *compiler, o owner) (*Template, error) {
		n, err := parseJSON(template, c.p)
		if err != nil || len(c.p.list) > 0 {
			return nil, err
		}
		return c.template(n, o), nil
	})
}

// evaluate compiles something by itself and renders it.
func evaluate(source []byte, names Names, s *Scope, read func(*compiler, owner) (*Template, error)) (json.RawMessage, error) {
	c := newCompiler(source, &problems{})
	o := owner{place: placeAccept} // it knows of no steps: names says which there are
	c.envs[o.view()] = looseEnvironment(append([]string{"input", "run", "steps"}, names.Roots...))
	t, err := read(c, o)
	if err != nil {
		return nil, err
	}
	for _, site := range c.sites {
		site.draft.checkSteps(names.Steps)
		c.checkSite(site)
	}
	if err := c.p.err(); err != nil {
		return nil, unreadable(err)
	}
	value, err := t.Render(s)
	if err != nil {
		e := fault.New(fault.KindInvalid, CodeEvaluation, "%s", err)
		e.Issues = []fault.Issue{{Code: e.Code, Detail: e.Detail}}
		return nil, e
	}
	return value, nil
}

// checkSteps looks up the steps that an expression reads among those that are known.
func (d *draftExpr) checkSteps(known []string) {
	for _, r := range d.reads.steps {
		if !d.checked && !slices.Contains(known, r.id) {
			tail, edit := didYouMean(r.id, known)
			d.fault(d.offsetOf(r.at), codeUnknownStep, fmt.Sprintf("there is no step %q%s", r.id, tail), edit)
		}
	}
}

// unreadable says of an expression what the compiler says of a definition.
func unreadable(err error) error {
	e := fault.Of(err)
	if e == nil {
		return err
	}
	found := *e
	found.Code, found.Detail = "expression_invalid", count(len(e.Issues), "problem")+" in what was sent"
	return &found
}

// looseEnvironment is where the roots are there and nothing is known of their types.
func looseEnvironment(roots []string) *environment {
	e := &environment{roots: roots}
	var declared []cel.EnvOption
	for _, name := range roots {
		declared = append(declared, cel.Variable(name, cel.DynType))
	}
	env, err := baseEnv().Extend(declared...)
	if err != nil { // a root that is no name: a defect of the caller
		panic(fmt.Errorf("declare the roots of an expression: %w", err))
	}
	e.env = env
	return e
}

var rootForm = regexp.MustCompile(`^[a-z_][A-Za-z0-9_]{0,62}$`)

// reservedRoots are words that no root can be called by: those of CEL, and the roots that are always there.
var reservedRoots = map[string]bool{
	"input": true, "run": true, "steps": true, "in": true, "null": true, "true": true, "false": true, "as": true, "break": true, "const": true,
	"continue": true, "else": true, "for": true, "function": true, "if": true, "import": true, "let": true, "loop": true,
	"package": true, "namespace": true, "return": true, "var": true, "void": true, "while": true,
}

// RootName reports whether a further root can be called so.
func RootName(name string) bool { return rootForm.MatchString(name) && !reservedRoots[name] }

// CompileSchema compiles a JSON Schema that stands in no definition. The error is a *fault.Error.
func CompileSchema(source json.RawMessage) (*Schema, error) {
	c := newCompiler(source, &problems{})
	n, err := parseJSON(source, c.p)
	if err != nil {
		return nil, err
	}
	s := c.schema(n, "the schema")
	if err := c.p.err(); err != nil {
		return nil, err
	}
	return s, nil
}
