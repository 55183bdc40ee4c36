package main

import (
	"context"
	"strconv"

	"github.com/fermata-run/fermata/api/client"
)

type incidentCommand struct {
	Ls      incidentListCommand    `cmd:"" help:"List incidents, the open ones first."`
	Resolve incidentResolveCommand `cmd:"" help:"Resolve an incident: the runs that wait for it go on."`
}

type incidentListCommand struct {
	remoteFlags
	State string `enum:",open,resolved" default:"" placeholder:"open|resolved" help:"Only incidents that stand there."`
	Limit int    `default:"20" placeholder:"N" help:"How many at most, 1 to 200."`
}

// Run lists incidents.
func (c *incidentListCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	params := client.ListIncidentsParams{Limit: &c.Limit}
	if c.State != "" {
		state := client.IncidentState(c.State)
		params.State = &state
	}
	page, err := remote.Incidents(ctx, params)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(page.Data)
	}
	if len(page.Data) == 0 {
		s.say("no incidents")
		return nil
	}
	return showIncidents(s, page.Data)
}

func showIncidents(s *screen, list []client.Incident) error {
	rows := make([][]string, len(list))
	for i, in := range list {
		who := in.Agent
		if in.Tool != "" {
			who = in.Tool
		}
		state := string(in.State)
		if in.ResolvedBy != "" {
			state = "resolved by " + string(in.ResolvedBy)
		}
		rows[i] = []string{in.ID, state, in.Workflow, who, strconv.FormatInt(in.Count, 10), in.Class, cut(oneLine(in.Fingerprint), 60)}
	}
	return s.table([]string{"INCIDENT", "STATE", "WORKFLOW", "AGENT/TOOL", "FAILED", "CLASS", "WHY"}, rows)
}

type incidentResolveCommand struct {
	remoteFlags
	ID   string `arg:"" name:"incident" help:"As in the list."`
	Note string `placeholder:"TEXT" help:"What was wrong; kept with the incident."`
}

// Run resolves an incident.
func (c *incidentResolveCommand) Run(ctx context.Context, s *screen) error {
	remote, err := c.remote(s)
	if err != nil {
		return err
	}
	resolved, err := remote.ResolveIncident(ctx, c.ID, c.Note)
	if err != nil {
		return err
	}
	if s.json {
		return s.showJSON(resolved)
	}
	return showIncidents(s, []client.Incident{*resolved})
}
