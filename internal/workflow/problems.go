package workflow

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fermata-run/fermata/internal/fault"
)

// The codes of the problems of a definition. They are stable.
const (
	codeType          = "type"
	codeRequired      = "required"
	codeUnknownKey    = "unknown_key"
	codeNotSupported  = "not_supported"
	codeValue         = "value"
	codeLimit         = "limit"
	codeName          = "name"
	codeDuplicateKey  = "duplicate_key"
	codeDuplicateID   = "duplicate_id"
	codeYAMLTag       = "yaml_tag"
	codeYAMLMerge     = "yaml_merge"
	codeYAMLAlias     = "yaml_alias"
	codeNumber        = "number"
	codeNUL           = "nul_character"
	codeDepth         = "too_deep"
	codeConflict      = "conflict"
	codeUnknownAgent  = "unknown_agent"
	codeUnknownChain  = "unknown_chain"
	codeUnknownTool   = "unknown_tool"
	codeUnknownStep   = "unknown_step"
	codeUnknownChild  = "unknown_workflow"
	codeNotAllowed    = "not_allowed" // to a plan
	codeUnknownField  = "unknown_field"
	codeUnknownName   = "unknown_name"
	codeUnknownSchema = "unknown_contract"
	codeNoModel       = "no_model"
	codeSchema        = "schema"
	codeCycle         = "cycle"
	codeContainer     = "own_container"
	codeSection       = "other_section"
	codeMaybeMissing  = "maybe_missing"
	codeExprSyntax    = "expression_syntax"
	codeExprType      = "expression_type"
	codeExprPlace     = "expression_place"
)

// spot is a place a problem is shown at: the node it is about, and where in the source to look.
type spot struct {
	node      *node
	line, col int
}

func (n *node) spot() spot { return spot{n, n.line, n.col} }

// spot is the place of the member's name.
func (m member) spot() spot { return spot{m.value, m.line, m.col} }

// collectedMax bounds the problems that are kept to be sorted; what is shown is bounded by fault.IssuesMax.
const collectedMax = 1_000

// problems gathers everything that is wrong with a definition.
type problems struct {
	list []problem
}

// problem has its pointer worked out last: while a tree is read, a node does not know yet where it stands.
type problem struct {
	issue fault.Issue
	node  *node
}

// full says that whatever else is wrong will not be kept.
func (p *problems) full() bool { return len(p.list) >= collectedMax }

func (p *problems) add(at spot, code, format string, args ...any) {
	p.suggest(at, "", code, format, args...)
}

// suggest adds a problem together with the text that mends it.
func (p *problems) suggest(at spot, edit, code, format string, args ...any) {
	if p.full() {
		return
	}
	one := problem{fault.Issue{Line: at.line, Col: at.col, Code: code, Detail: fmt.Sprintf(format, args...), Suggest: edit}, at.node}
	if !slices.Contains(p.list, one) {
		p.list = append(p.list, one)
	}
}

// err is nil when nothing is wrong; otherwise all problems, in the order of the document.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.issue.Line, b.issue.Line), cmp.Compare(a.issue.Col, b.issue.Col))
	})
	e := fault.New(fault.KindInvalid, "workflow_invalid", "the definition has %s", count(len(p.list), "problem"))
	if len(p.list) > fault.IssuesMax {
		e.Detail += fmt.Sprintf("; the first %d are listed", fault.IssuesMax)
	}
	for _, one := range p.list[:min(len(p.list), fault.IssuesMax)] {
		one.issue.Pointer = one.node.pointer()
		e.Issues = append(e.Issues, one.issue)
	}
	return e
}

// countAre is count with its verb.
func countAre(n int, what string) string {
	if n == 1 {
		return count(n, what) + " is"
	}
	return count(n, what) + " are"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// malformed is the error of a source that cannot be read at all.
func malformed(code string, at spot, issueCode, format string, args ...any) *fault.Error {
	e := fault.New(fault.KindMalformed, code, format, args...)
	where := ""
	if at.line > 0 {
		where = fmt.Sprintf("line %d: ", at.line)
		if at.col > 0 {
			where = fmt.Sprintf("line %d, column %d: ", at.line, at.col)
		}
	}
	e.Issues = []fault.Issue{{Pointer: at.node.pointer(), Line: at.line, Col: at.col, Code: issueCode, Detail: e.Detail}}
	e.Detail = where + e.Detail
	return e
}
