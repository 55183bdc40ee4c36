package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fermata-run/fermata/api/client"
)

type approvalsCommand struct {
	Ls   approvalListCommand `cmd:"" default:"withargs" help:"List what people are asked, newest first."`
	Show approvalShowCommand `cmd:"" help:"Show one with what to look at and what may be answered."`
}

type approvalListCommand struct {
	remoteFlags
	Status   string `enum:"open,answered,expired,withdrawn,all" default:"open" placeholder:"open|answered|expired|withdrawn|all" help:"Only what stands there; open if not given."`
	RunID    string `name:"run" placeholder:"RUN" help:"Only of this run."`
	Workflow string `placeholder:"NAME" help:"Only of runs of this workflow."`
	Assignee string `placeholder:"WHO" help:"Only what this person or group is asked by name, and what anybody is asked."`
	Limit    int    `default:"50" placeholder:"N" help:"How many at most, 1 to 200."`
}

// Run lists approvals.
func (c *approvalListCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	params := client.ListApprovalsParams{Limit: &c.Limit, Run: given(c.RunID), Workflow: given(c.Workflow), Assignee: given(c.Assignee)}
	if c.Status != "all" {
		status := client.ApprovalStatus(c.Status)
		params.Status = &status
	}
	page, err := remote.Approvals(ctx, params)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(page.Data)
	}
	if len(page.Data) == 0 {
		s.say("nobody is asked anything")
		return nil
	}
	rows := make([][]string, len(page.Data))
	for i, a := range page.Data {
		rows[i] = []string{a.ID, cut(oneLine(a.Title), titleMax), s.moment(a.AskedAt), string(a.Status), a.Workflow, a.Step, strings.Join(a.Choices, "|")}
	}
	return s.table([]string{"APPROVAL", "TITLE", "ASKED", "STATUS", "WORKFLOW", "STEP", "CHOICES"}, rows)
}

// titleMax is how much of a title a list shows, in characters.
const titleMax = 60

// given is a flag that may be left out.
func given(flag string) *string {
	if flag == "" {
		return nil
	}
	return &flag
}

type approvalShowCommand struct {
	remoteFlags
	ID string `arg:"" name:"approval" help:"As in the list: apr_…"`
}

// Run shows an approval.
func (c *approvalShowCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	a, err := remote.Approval(ctx, c.ID)
	if err != nil {
		return err
	}
	return showApproval(s, remote, a)
}

func showApproval(s *screen, remote *remote, a *client.Approval) error {
	if s.json {
		return s.showJSON(a)
	}
	s.print("%s  %s", s.paint(colorBold, a.ID), oneLine(a.Title))
	s.print("%s · %s of %s · %s", a.Status, a.Step, a.Workflow, a.Run)
	if !a.ExpiresAt.IsZero() {
		s.print("until %s", a.ExpiresAt.Local().Format(time.DateTime))
	}
	if len(a.Assignees) > 0 {
		s.print("for %s", strings.Join(a.Assignees, ", "))
	}
	if len(a.Choices) > 0 {
		s.print("choices: %s", strings.Join(a.Choices, ", "))
	}
	for _, part := range []struct {
		name  string
		value json.RawMessage
	}{{"to look at", a.Show}, {"form", a.Form}, {"it begins with", a.Initial}} {
		if len(part.value) > 0 {
			s.print("\n%s:", part.name)
			showValue(s, part.value)
		}
	}
	if a.Status == client.ApprovalStatusOpen {
		s.say("\nanswer it:  %s", strings.Join(answersOf(a.ID, a.Choices, remote.flag()), "\n            "))
		return nil
	}
	if a.Answer.Choice != "" {
		s.print("\n%s", answerText(a.Answer))
	}
	return nil
}

func answerText(a client.ApprovalAnswer) string {
	by := a.By
	if !a.At.IsZero() {
		by += " at " + a.At.Local().Format(time.DateTime)
	}
	return joined(fmt.Sprintf("answered %s by %s", a.Choice, by), oneLine(a.Reason), string(a.Form))
}

// The choices of an approval that names none of its own.
const (
	choiceApprove = "approve"
	choiceReject  = "reject"
)

// answersOf are the command lines that answer an approval.
func answersOf(id string, choices []string, flag string) []string {
	lines := make([]string, len(choices))
	for i, choice := range choices {
		switch choice {
		case choiceApprove:
			lines[i] = program() + " approve " + id
		case choiceReject:
			lines[i] = program() + " reject " + id + " --reason TEXT"
		default:
			lines[i] = program() + " answer " + id + " " + choice
		}
		lines[i] += flag
	}
	return lines
}

// answerFlags are what the commands that answer have in common.
type answerFlags struct {
	remoteFlags
	ID   string   `arg:"" name:"approval" help:"As in the list: apr_…"`
	Form []string `sep:"none" placeholder:"NAME=VALUE" help:"What the form is sent with: name=text, name=@file, name:=json over what it begins with, or @file for all of it. Repeatable."`
}

func (f *answerFlags) send(ctx context.Context, s *screen, choice, reason string) error {
	remote, err := f.remote(s)
	if err != nil {
		return err
	}
	answer := client.ApprovalAnswerRequest{Choice: choice, Reason: reason}
	if len(f.Form) > 0 {
		asked, err := remote.Approval(ctx, f.ID)
		if err != nil {
			return err
		}
		if answer.Form, err = readForm(s, f.Form, asked); err != nil {
			return err
		}
	}
	answered, err := remote.Answer(ctx, f.ID, answer)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(answered)
	}
	s.print("%s  %s", answered.ID, answerText(answered.Answer))
	s.say("follow the run:  %s watch %s%s", program(), answered.Run, remote.flag())
	return nil
}

// readForm lays what the flags say over what the form begins with.
func readForm(s *screen, flags []string, asked *client.Approval) (json.RawMessage, error) {
	sent, err := readInput(s, "--form", flags, inputTypes(asked.Form))
	if err != nil || strings.HasPrefix(flags[0], "@") {
		return sent, err
	}
	form, over := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if json.Unmarshal(asked.Initial, &form) != nil { // nothing, or no object: there is nothing to lay over
		return sent, nil
	}
	if err := json.Unmarshal(sent, &over); err != nil {
		return nil, err
	}
	maps.Copy(form, over)
	return json.Marshal(form)
}

type approveCommand struct {
	answerFlags
	Reason string `placeholder:"TEXT" help:"Why; kept with the answer."`
}

// Run approves.
func (c *approveCommand) Run(ctx context.Context, s *screen) error {
	return c.send(ctx, s, choiceApprove, c.Reason)
}

type rejectCommand struct {
	answerFlags
	Reason string `required:"" placeholder:"TEXT" help:"Why; kept with the answer, and told to who goes on from it."`
}

// Run rejects.
func (c *rejectCommand) Run(ctx context.Context, s *screen) error {
	return c.send(ctx, s, choiceReject, c.Reason)
}

type answerCommand struct {
	answerFlags
	Choice string `arg:"" help:"One of the choices that are shown with it."`
	Reason string `placeholder:"TEXT" help:"Why; kept with the answer."`
}

// Run answers with one of the choices.
func (c *answerCommand) Run(ctx context.Context, s *screen) error {
	return c.send(ctx, s, c.Choice, c.Reason)
}

// waitingAnswers are the command lines that let a run go on which waits for people, one for each choice.
func waitingAnswers(steps []client.Step, flag string) []string {
	var lines []string
	for _, step := range steps {
		if w := step.Waiting; w.Approval != "" {
			lines = append(lines, answersOf(w.Approval, w.Choices, flag)...)
		}
	}
	const shownMax = 12
	return slices.Clip(lines[:min(len(lines), shownMax)])
}
