package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fermata-run/fermata/internal/preview"
	"github.com/fermata-run/fermata/internal/workflow"
)

// drawing is a workflow as lines: time goes down, steps that branch off one line do not wait for each other, and what
// is in a container stands below it.
type drawing struct {
	w     *workflow.Workflow
	nodes map[string]preview.Node
	costs map[string]preview.StepEstimate
	waits map[string][]preview.Edge // by the step that waits
	edges bool
	rows  []drawn
}

// drawn is one line of a drawing: of a step, or a remark that goes through all columns.
type drawn struct {
	tree, what, models, cost, calls, worst string
	remark                                 bool
}

func newDrawing(plan planned, edges bool) *drawing {
	d := &drawing{
		w: plan.workflow, nodes: map[string]preview.Node{}, costs: map[string]preview.StepEstimate{}, waits: map[string][]preview.Edge{}, edges: edges,
	}
	for _, n := range plan.Graph.Nodes {
		d.nodes[n.Path] = n
	}
	for _, e := range plan.Estimate.Steps {
		d.costs[e.Path] = e
	}
	for _, e := range plan.Graph.Edges {
		d.waits[e.To] = append(d.waits[e.To], e)
	}
	d.list("", d.w.Main)
	d.section("after a failure", d.w.OnFailure)
	d.section("at the end", d.w.Finally)
	return d
}

func (d *drawing) section(name string, steps []*workflow.Step) {
	if len(steps) > 0 {
		d.remark(name)
		d.list("", steps)
	}
}

func (d *drawing) remark(text string) { d.rows = append(d.rows, drawn{tree: text, remark: true}) }

// list draws steps that stand side by side, layer by layer.
func (d *drawing) list(indent string, steps []*workflow.Step) {
	ordered := slices.Clone(steps)
	level := func(s *workflow.Step) int { return d.nodes[s.Path].Level }
	slices.SortStableFunc(ordered, func(a, b *workflow.Step) int { return cmp.Compare(level(a), level(b)) })
	for i, s := range ordered {
		first := i == 0 || level(ordered[i-1]) != level(s)
		last := i == len(ordered)-1 || level(ordered[i+1]) != level(s)
		end := level(s) == level(ordered[len(ordered)-1])
		branch, below := branchOf(first, last, end)
		d.step(indent+branch, indent+below, s)
	}
}

// branchOf draws how a step hangs on the line: the first, the last or both of its layer; end: of the last layer.
func branchOf(first, last, end bool) (branch, below string) {
	line := "│"
	if end {
		line = " "
	}
	switch {
	case first && last && end:
		return "└─ ", "   "
	case first && last:
		return "├─ ", "│  "
	case first && end:
		return "└┬ ", " │ "
	case first:
		return "├┬ ", "││ "
	case last:
		return line + "└ ", line + "  "
	}
	return line + "├ ", line + "│ "
}

func (d *drawing) step(branch, below string, s *workflow.Step) {
	n, e := d.nodes[s.Path], d.costs[s.Path]
	row := drawn{tree: branch + s.ID, what: whatOf(n), models: strings.Join(n.Models, " → ")}
	if e.Calls.High > 0 || e.Cost.High > 0 {
		row.cost, row.calls, row.worst = costText(e), spanText(e.Calls), shortCount(e.CallsMax)
	}
	d.rows = append(d.rows, row)
	if d.edges {
		for _, w := range d.waits[s.Path] {
			d.remark(below + "  ← " + edgeText(w))
		}
	}
	switch s.Kind {
	case workflow.KindGroup:
		d.list(below, s.Group.Steps)
	case workflow.KindMap:
		d.list(below, s.Map.Body.Main)
	case workflow.KindLoop:
		d.list(below, s.Loop.Body.Main)
	case workflow.KindSwitch:
		d.cases(below, s.Switch.Cases)
	default:
	}
}

func (d *drawing) cases(indent string, cases []workflow.SwitchCase) {
	for i, k := range cases {
		branch, below := branchOf(true, true, i == len(cases)-1)
		when := "else"
		if k.When != nil {
			when = "if " + oneLine(k.When.Source)
		}
		d.remark(indent + branch + when)
		d.list(indent+below, k.Steps)
	}
}

// whatOf says what a step does, and what to look out for.
func whatOf(n preview.Node) string {
	what := string(n.Kind)
	switch {
	case n.Kind == workflow.KindAgent || n.Kind == workflow.KindTool:
		what = n.Label
	case n.Label != "":
		what += ": " + n.Label
	}
	for _, flag := range n.Flags {
		if flag != string(n.Kind) && flag != preview.FlagWaits {
			what += ", " + flag
		}
	}
	if n.When != "" {
		what += ", if " + n.When
	}
	return oneLine(what)
}

func edgeText(e preview.Edge) string {
	why := map[string]string{
		workflow.EdgeNeeds: "needed", workflow.EdgeReads: "read", workflow.EdgeMember: "merged", workflow.EdgeFamily: "by another family of models",
		workflow.EdgeSequence: "listed before",
	}[e.Why]
	if len(e.Fields) > 0 {
		why += ": " + strings.Join(e.Fields, ", ")
	}
	return fmt.Sprintf("%s (%s)", e.From, why)
}

// costText never shows an unknown price as none.
func costText(e preview.StepEstimate) string {
	switch {
	case len(e.Unpriced) == 0:
		return priceRange(e.Cost)
	case e.Cost.High == 0:
		return "not priced"
	}
	return priceRange(e.Cost) + " +?"
}

// The narrowest columns of texts that are cut.
const (
	whatMin   = 10
	modelsMin = 12
	gap       = 2 // between columns
)

// show prints the drawing in columns, cut to the screen.
func (d *drawing) show(s *screen) {
	head := drawn{tree: "STEP", what: "WHAT", models: "MODELS", cost: "COST", calls: "CALLS", worst: "WORST"}
	all := append([]drawn{head}, d.rows...)
	widths := widthsOf(all, s.width())
	for i, r := range all {
		if r.remark {
			s.print("%s", s.paint(colorDim, fitted(r.tree, s.width())))
			continue
		}
		cells := r.cells()
		var line strings.Builder
		for c, cell := range cells {
			cell = fitted(cell, widths[c])
			space := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell))
			if c >= rightColumns {
				cell = space + cell
			} else {
				cell += space
			}
			if line.Len() > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			line.WriteString(s.paintCell(i, c, cell))
		}
		s.print("%s", strings.TrimRight(line.String(), " "))
	}
}

// rightColumns are numbers: they stand at the right of their columns.
const rightColumns = 3

func (r drawn) cells() []string { return []string{r.tree, r.what, r.models, r.cost, r.calls, r.worst} }

func (s *screen) paintCell(row, column int, cell string) string {
	switch {
	case row == 0 || column == 2:
		return s.paint(colorDim, cell)
	case column == 3:
		return s.paint(colorGreen, cell)
	}
	return cell
}

// widthsOf makes columns as wide as what is in them. Where the screen is too narrow, models are cut first, then what
// steps do, then the tree.
func widthsOf(rows []drawn, screen int) []int {
	widths := make([]int, len(drawn{}.cells()))
	total := gap * (len(widths) - 1)
	for _, r := range rows {
		if r.remark {
			continue
		}
		for c, cell := range r.cells() {
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	for _, w := range widths {
		total += w
	}
	if screen <= 0 {
		return widths
	}
	for _, c := range []struct{ column, least int }{{2, modelsMin}, {1, whatMin}, {0, whatMin}} {
		spare := min(max(total-screen, 0), max(widths[c.column]-c.least, 0))
		widths[c.column] -= spare
		total -= spare
	}
	return widths
}

// fitted cuts a text to a width; of a chain that is too long, the first model and the number of the others stay.
func fitted(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	if models := strings.Split(text, " → "); len(models) > 1 {
		more := fmt.Sprintf(" +%d", len(models)-1)
		return cut(models[0], max(1, width-len(more))) + more
	}
	return cut(text, width)
}
