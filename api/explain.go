package api

import (
	"context"
	"slices"
	"strings"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// ExplainRoute says where a call would go, and calls nobody.
func (a *API) ExplainRoute(_ context.Context, req ExplainRouteRequestObject) (ExplainRouteResponseObject, error) {
	if a.models == nil {
		return nil, errNoModels()
	}
	q, err := questionOf(req.Body)
	if err != nil {
		return nil, err
	}
	return ExplainRoute200JSONResponse(explanationOf(a.models.Explain(q))), nil
}

func questionOf(body *RouteQuestion) (gateway.Question, error) {
	if body.Route == "" && body.Chain == "" && len(body.Models) == 0 {
		e := fault.New(fault.KindInvalid, "route_chain_or_models", "give a route, a chain or models")
		e.Issues = []fault.Issue{{Pointer: "/route", Code: e.Code, Detail: e.Detail}}
		return gateway.Question{}, e
	}
	if body.Route != "" && !slices.Contains(workflow.Routes(), body.Route) {
		e := fault.New(fault.KindInvalid, "unknown_route", "there is no task class %q; there are %s", clip(body.Route), strings.Join(workflow.Routes(), ", "))
		e.Issues = []fault.Issue{{Pointer: "/route", Code: e.Code, Detail: e.Detail, Suggest: fault.Nearest(body.Route, workflow.Routes())}}
		return gateway.Question{}, e
	}
	q := gateway.Question{
		Route: body.Route, Chain: body.Chain, Models: body.Models, Workflow: body.Workflow, Agent: body.Agent, Labels: body.Labels,
		Text: body.Text, CallsPerDay: body.CallsPerDay,
		Stakes: string(body.Stakes), Mode: string(body.Mode), InputTokens: body.InputTokens, MaxTokens: body.MaxTokens,
	}
	for _, need := range body.Needs {
		q.Needs = append(q.Needs, string(need))
	}
	if body.AtMost == "" {
		return q, nil
	}
	var err error
	q.AtMost, err = parseDollars(body.AtMost)
	return q, err
}

func explanationOf(x gateway.Explanation) RouteExplanation {
	out := RouteExplanation{
		By: x.By, Rule: x.Rule, Why: x.Why, Class: x.Class, Chain: append([]string{}, x.Models...), Candidates: []RouteCandidate{},
		InputTokens: x.InputTokens, MaxTokens: x.MaxTokens, CostLow: moneyOf(x.Low), CostHigh: moneyOf(x.High), Unpriced: x.Unpriced, Error: x.Error,
	}
	for _, s := range x.Scores {
		out.Scores = append(out.Scores, ClassScore{Class: s.Class, Score: s.Score, Words: s.Words})
	}
	for _, p := range x.Passed {
		out.Passed = append(out.Passed, PassedRule{Rule: p.Rule, Reason: p.Reason})
	}
	if x.Classify != nil {
		out.AsksFirst = namesIn(x.Classify.Chain.Entries)
	}
	for _, c := range x.Candidates {
		out.Candidates = append(out.Candidates, candidateOf(c))
	}
	return out
}

func candidateOf(c gateway.Candidate) RouteCandidate {
	out := RouteCandidate{
		Model: c.Model, Provider: c.Provider, Simulated: c.Simulated, Subscription: c.Subscription, Tier: c.Tier, Speed: c.Speed,
		Accepted: c.Accepted, Rank: c.Rank, Breaker: c.Breaker, Reasons: append([]string{}, c.Reasons...), Score: c.Score,
		FirstTokenMs: c.FirstMS, Unpriced: c.Unpriced,
	}
	if c.Accepted && !c.Unpriced {
		out.CostLow, out.CostExpected, out.CostHigh = moneyOf(c.Low), moneyOf(c.Expected), moneyOf(c.High)
	}
	return out
}
