package api

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Models is what the API needs of the gateway of this node.
type Models interface {
	workflow.Roster
	Roster
	PriceBook
	Breakers
}

// Roster knows the models and where a call would go.
type Roster interface {
	Models() []gateway.Model
	Chains() map[string]workflow.Chain
	Explain(q gateway.Question) gateway.Explanation
}

// PriceBook knows what models cost.
type PriceBook interface {
	Prices() []gateway.PriceRow
	// SetPrices replaces the rows that came through the API.
	SetPrices(rows []gateway.PriceRow) error
}

// Breakers knows how the models fare. Unknown ids give false.
type Breakers interface {
	Breakers() []gateway.Breaker
	ResetBreaker(id string) bool
	HoldBreaker(id string, hold bool, reason string) bool
}

// workflowModelsMax bounds the published workflows that are listed as models.
const workflowModelsMax = 200

// What an id begins with that is no model's name.
const (
	prefixChain    = "chain/"
	prefixWorkflow = "workflow/"
	prefixAgent    = "agent/"
)

// errNoModels is told where this node has no gateway.
func errNoModels() error {
	return fault.New(fault.KindUnavailable, "no_models", "this node calls no models")
}

// ListModels lists what can be asked: models, chains, workflows and agents.
func (a *API) ListModels(ctx context.Context, _ ListModelsRequestObject) (ListModelsResponseObject, error) {
	list, err := a.allModels(ctx)
	if err != nil {
		return nil, err
	}
	return ListModels200JSONResponse(ModelList{Object: ModelListObjectList, Data: list}), nil
}

// GetModel shows one of what ListModels lists. Its id may hold slashes, encoded.
func (a *API) GetModel(ctx context.Context, req GetModelRequestObject) (GetModelResponseObject, error) {
	id, err := url.PathUnescape(req.Model)
	if err != nil {
		id = req.Model
	}
	list, err := a.allModels(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if m.ID == id || slices.Contains(m.Aliases, id) {
			return GetModel200JSONResponse(m), nil
		}
	}
	return nil, noModel("there is no model %q; GET /v1/models lists them", clip(id))
}

func (a *API) allModels(ctx context.Context) ([]Model, error) {
	list := []Model{}
	if a.models != nil {
		health := a.fares()
		for _, m := range a.models.Models() {
			list = append(list, modelOf(m, health))
		}
	}
	list = append(list, a.chainModels()...)
	for _, class := range workflow.Routes() {
		id := prefixRoute + class
		if class == routeAuto {
			id = class
		}
		list = append(list, Model{ID: id, Object: ModelObjectModel, OwnedBy: "fermata", Kind: ModelKindRoute})
	}
	published, err := a.workflowModels(ctx, exchangeOf(ctx).tenant)
	return append(list, published...), err
}

func modelOf(m gateway.Model, health map[string]Health) Model {
	out := Model{
		ID: m.Name, Object: ModelObjectModel, OwnedBy: m.Vendor, Kind: ModelKindModel, Family: m.Family, Provider: m.Provider,
		Simulated: m.Simulated, ContextTokens: m.ContextTokens, OutputTokens: m.OutputTokens, Reasoning: m.Reasoning, Aliases: m.Aliases,
		Zone: m.Zone, Capabilities: m.Capabilities, Tier: m.Tier, Speed: m.Speed, Strengths: m.Strengths, Subscription: m.Subscription,
	}
	if m.Price != nil {
		out.Price = priceOf(m.Price)
	}
	if m.Provider != "" {
		out.Health = healthIn(health, m.Provider, m.Name)
	}
	if m.Health != nil {
		out.Health.FirstTokenMs = m.Health.FirstMS
	}
	return out
}

func healthIn(health map[string]Health, provider, model string) Health {
	if h, ok := health[provider+"/"+model]; ok {
		return h
	}
	return Health{State: HealthStateUnused}
}

// fares tells how every model fares that was called from this node, by provider/model.
func (a *API) fares() map[string]Health {
	all := map[string]Health{}
	for _, b := range a.models.Breakers() {
		all[b.ID] = healthOf(b, time.Now())
	}
	return all
}

// healthOf names the one thing that keeps a model from being asked, the longest-lasting first.
func healthOf(b gateway.Breaker, now time.Time) Health {
	switch {
	case b.Held:
		return Health{State: HealthStateHeld, Reason: b.Reason}
	case b.DisabledUntil.After(now):
		return Health{State: HealthStateDisabled, Until: b.DisabledUntil.UTC(), Reason: b.Reason}
	case b.State == "open":
		return Health{State: HealthStateOpen, Until: b.Until.UTC(), Reason: b.Reason}
	case b.ThrottledUntil.After(now):
		return Health{State: HealthStateThrottled, Until: b.ThrottledUntil.UTC(), Reason: b.Reason}
	case b.State == "half_open":
		return Health{State: HealthStateProbing}
	}
	return Health{State: HealthStateOk}
}

func priceOf(p *gateway.Price) Price {
	out := Price{EffectiveFrom: p.EffectiveFrom.UTC(), Source: p.Source, Checked: p.Checked, Tiers: []Tier{}}
	for _, t := range p.Tiers {
		out.Tiers = append(out.Tiers, Tier{
			ContextOver: t.ContextOver, Input: t.Input.String(), CacheRead: t.CacheRead.String(), CacheWrite: t.CacheWrite.String(),
			CacheWrite1H: t.CacheWrite1h.String(), Output: t.Output.String(), Reasoning: t.Reasoning.String(),
		})
	}
	return out
}

func (a *API) chainModels() []Model {
	var list []Model
	for _, c := range a.namedChains() {
		list = append(list, Model{
			ID: prefixChain + c.Name, Object: ModelObjectModel, OwnedBy: "fermata", Kind: ModelKindChain, Chain: namesIn(c.Entries),
		})
	}
	return list
}

// namedChains are the chains that every workflow and every rule can name, by name.
func (a *API) namedChains() []workflow.Chain {
	var list []workflow.Chain
	if a.models != nil {
		for name, c := range a.models.Chains() {
			c.Name = name
			list = append(list, c)
		}
	} else {
		for _, c := range workflow.BuiltinChains() {
			list = append(list, *c)
		}
	}
	slices.SortFunc(list, func(x, y workflow.Chain) int { return strings.Compare(x.Name, y.Name) })
	return list
}

func namesIn(entries []workflow.ChainEntry) []string {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Model
	}
	return names
}

// workflowModels shows published workflows and their agents as models.
func (a *API) workflowModels(ctx context.Context, tenant uuid.UUID) ([]Model, error) {
	rows, err := a.shelf.Workflows(ctx, tenant, "", workflowModelsMax)
	if err != nil {
		return nil, fmt.Errorf("list workflows as models: %w", err)
	}
	var list []Model
	for _, row := range rows {
		w, err := a.stored(ctx, tenant, row.Hash)
		if err != nil {
			return nil, err
		}
		created := row.CreatedAt.Unix()
		list = append(list, Model{
			ID: prefixWorkflow + row.Name, Object: ModelObjectModel, Created: created, OwnedBy: "fermata", Kind: ModelKindWorkflow,
			Version: int32(row.Version), Description: w.Description,
		})
		for _, agent := range agentsIn(w) {
			list = append(list, Model{
				ID: prefixAgent + row.Name + "/" + agent.Name, Object: ModelObjectModel, Created: created, OwnedBy: "fermata",
				Kind: ModelKindAgent, Version: int32(row.Version), Chain: namesIn(agent.Chain.Entries),
			})
		}
	}
	return list, nil
}

func agentsIn(w *workflow.Workflow) []*workflow.Agent {
	var list []*workflow.Agent
	for _, agent := range w.Agents {
		list = append(list, agent)
	}
	slices.SortFunc(list, func(x, y *workflow.Agent) int { return strings.Compare(x.Name, y.Name) })
	return list
}

// ListChains lists the chains that every workflow can name.
func (a *API) ListChains(context.Context, ListChainsRequestObject) (ListChainsResponseObject, error) {
	known, health := map[string]gateway.Model{}, map[string]Health{}
	if a.models != nil {
		health = a.fares()
		for _, m := range a.models.Models() {
			known[m.Name] = m
		}
	}
	page := ChainPage{Data: []Chain{}}
	for _, c := range a.namedChains() {
		out := Chain{Name: c.Name, Entries: []ChainEntry{}, Hedge: c.Hedge, AcceptBest: c.AcceptBest}
		for _, e := range c.Entries {
			out.Entries = append(out.Entries, chainEntryOf(e, known[e.Model], health))
		}
		page.Data = append(page.Data, out)
	}
	return ListChains200JSONResponse(page), nil
}

func chainEntryOf(e workflow.ChainEntry, m gateway.Model, health map[string]Health) ChainEntry {
	out := ChainEntry{Model: e.Model, Provider: m.Provider, Simulated: m.Simulated, Retries: e.Retries}
	if e.Timeout > 0 {
		out.Timeout = e.Timeout.String()
	}
	if e.Accept != nil {
		out.Accept = e.Accept.Source
	}
	if m.Provider != "" {
		out.Health = healthIn(health, m.Provider, m.Name)
	}
	return out
}
