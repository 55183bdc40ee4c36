package preview

import (
	"regexp"

	"github.com/fermata-run/fermata/internal/workflow"
)

// foreign is how expressions are written elsewhere: {{ input.x }} and ${ input.x }. What stands behind a $ and {{ was
// written to be text.
var foreign = regexp.MustCompile(`(?:(?:^|[^$])\{\{|\$\{)-?\s*((?:input|steps|run|iter)\.[^{}]*?)\s*-?\}`)

// notEvaluated fires at a text that holds what other languages take for an expression. It is handed on as it stands.
func (l *linter) notEvaluated() {
	for _, s := range l.w.Steps {
		for _, t := range texts(s) {
			if m := foreign.FindStringSubmatch(written(t)); m != nil {
				l.step(s, "${{ "+m[1]+" }}", "%s holds %s as plain text: only what stands in ${{ }} is evaluated", s.ID, m[1])
				break
			}
		}
	}
}

// texts are the templates of a step whose words somebody reads.
func texts(s *workflow.Step) []*workflow.Template {
	list := []*workflow.Template{s.Set}
	switch {
	case s.Agent != nil:
		list = append(list, s.Agent.Prompt, s.Agent.Input)
	case s.Tool != nil:
		list = append(list, s.Tool.Args)
	case s.Plan != nil:
		list = append(list, s.Plan.Goal, s.Plan.Input)
	case s.Workflow != nil:
		list = append(list, s.Workflow.Input)
	case s.Approval != nil:
		list = append(list, s.Approval.Title, s.Approval.Show)
	case s.Emit != nil:
		list = append(list, s.Emit.Data)
	}
	return list
}
