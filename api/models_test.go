package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fermata-run/fermata/internal/gateway"
)

const published = `{"spec":"workflow/v1","name":"qc","description":"checks","agents":{"reviewer":{"model":"gpt-4o","instructions":"look"}},"steps":[{"id":"a","agent":"reviewer","prompt":"x"}]}`

// Everything that can be asked is listed in OpenAI's shape, with its price and where that is from.
func TestModels(t *testing.T) {
	s := newService(t, withModels(t))
	s.send(t, "POST", "/v1/workflows", `{"definition":`+published+`}`).want(http.StatusCreated)
	var list ModelList
	s.send(t, "GET", "/v1/models", nil).want(http.StatusOK).json(&list)
	by := map[string]Model{}
	for _, m := range list.Data {
		if by[m.ID].ID != "" || m.Object != ModelObjectModel || m.OwnedBy == "" {
			t.Errorf("%+v", m)
		}
		by[m.ID] = m
	}
	sonnet := by["claude-sonnet-4-6"]
	if sonnet.OwnedBy != "anthropic" || sonnet.Provider != "simulated" || !sonnet.Simulated || sonnet.Price.Source == "" || sonnet.Price.Checked == "" ||
		len(sonnet.Price.Tiers) == 0 || sonnet.Tier == 0 || sonnet.Speed == "" || len(sonnet.Capabilities) == 0 || sonnet.Health.State != HealthStateUnused {
		t.Errorf("got %+v", sonnet)
	}
	if by["chain/reasoning"].Kind != ModelKindChain || len(by["chain/production"].Chain) < 2 {
		t.Errorf("got %+v", by["chain/reasoning"])
	}
	if w := by["workflow/qc"]; w.Version != 1 || w.Created == 0 || w.Description != "checks" {
		t.Errorf("got %+v", w)
	}
	if a := by["agent/qc/reviewer"]; a.Kind != ModelKindAgent || len(a.Chain) != 1 || a.Chain[0] != "gpt-4o" {
		t.Errorf("got %+v", a)
	}
	var chains ChainPage
	s.send(t, "GET", "/v1/chains", nil).want(http.StatusOK).json(&chains)
	for _, c := range chains.Data {
		if c.Name == "reasoning" && (len(c.Entries) == 0 || c.Entries[0].Provider != "simulated" || c.Entries[0].Timeout == "") {
			t.Errorf("got %+v", c)
		}
	}
}

// A node without a gateway lists what it can, and says of the rest that it has none.
func TestWithoutModels(t *testing.T) {
	s := newService(t, nil)
	for _, path := range []string{"/v1/models", "/v1/chains", "/v1/prices", "/v1/breakers", "/v1/spend"} {
		s.send(t, "GET", path, nil).want(http.StatusOK)
	}
	s.send(t, "POST", "/v1/routes:explain", `{"route":"code"}`).wantProblem(http.StatusServiceUnavailable, "no_models")
	s.send(t, "POST", "/v1/breakers:reset", `{"id":"a/b"}`).wantProblem(http.StatusServiceUnavailable, "no_models")
	s.send(t, "PUT", "/v1/prices", `{"model":"m","rows":[{"input":"1","output":"1"}]}`).wantProblem(http.StatusServiceUnavailable, "no_models")
	s.send(t, "DELETE", "/v1/prices?model=m", nil).wantProblem(http.StatusServiceUnavailable, "no_models")
}

func TestExplainRoute(t *testing.T) {
	s := newService(t, withModels(t))
	var x RouteExplanation
	s.send(t, "POST", "/v1/routes:explain", `{"chain":"reasoning","input_tokens":1000,"max_tokens":100,"stakes":"high"}`).want(http.StatusOK).json(&x)
	if len(x.Chain) < 2 || x.By == "" || len(x.Candidates) < len(x.Chain) || x.Candidates[0].Rank != 1 || x.CostHigh.NanoUSD == 0 || x.CostLow.NanoUSD > x.CostHigh.NanoUSD {
		t.Errorf("got %+v", x)
	}
	var none RouteExplanation
	s.send(t, "POST", "/v1/routes:explain", `{"chain":"nobody"}`).want(http.StatusOK).json(&none)
	if none.Error == "" || len(none.Chain) != 0 {
		t.Errorf("got %+v", none)
	}
	s.send(t, "POST", "/v1/routes:explain", `{"stakes":"high"}`).wantProblem(http.StatusUnprocessableEntity, "route_chain_or_models")
}

// A price of one's own goes before the built-in one, and leaves it as it was when it is taken back.
func TestPrices(t *testing.T) {
	s := newService(t, withModels(t))
	price := func() Price {
		var list ModelList
		s.send(t, "GET", "/v1/models", nil).want(http.StatusOK).json(&list)
		for _, m := range list.Data {
			if m.ID == "gpt-4o" {
				return m.Price
			}
		}
		return Price{}
	}
	before := price()
	var page PricePage
	s.send(t, "PUT", "/v1/prices", `{"model":"gpt-4o","rows":[{"input":"1","output":"2","source":"contract"},{"context_over":1000,"input":"3","output":"4"}]}`).want(http.StatusOK).json(&page)
	origins := map[PriceRowOrigin]int{}
	for _, r := range page.Data {
		origins[r.Origin]++
	}
	if origins[PriceRowOriginAPI] != 2 || origins[PriceRowOriginBuiltIn] == 0 {
		t.Errorf("got %+v", page.Data)
	}
	if now := price(); len(now.Tiers) != 2 || now.Tiers[0].Input != "1" || now.Tiers[1].Output != "4" || now.Source != "contract" {
		t.Errorf("got %+v", now)
	}
	p := s.send(t, "PUT", "/v1/prices", `{"model":"gpt-4o","rows":[{"input":"much","output":"2"},{"context_over":5,"output":"1"}]}`).wantProblem(http.StatusUnprocessableEntity, "prices_invalid")
	if len(p.Errors) < 2 || p.Errors[0].Pointer != "/rows/0/input" || strings.Contains(p.Detail, "much") {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "PUT", "/v1/prices", `{"model":"o9","rows":[{"provider":"mine","input":"1","output":"1"}]}`).want(http.StatusOK)
	s.send(t, "PUT", "/v1/prices", `{"model":"mine/o9","rows":[{"input":"1","output":"1"}]}`).wantProblem(http.StatusConflict, "prices_conflict")
	s.send(t, "DELETE", "/v1/prices?model=gpt-4o", nil).want(http.StatusNoContent)
	s.send(t, "DELETE", "/v1/prices?model=gpt-4o", nil).wantProblem(http.StatusNotFound, "price_not_found")
	if now := price(); now.Tiers[0].Input != before.Tiers[0].Input || now.Source != before.Source {
		t.Errorf("got %+v, was %+v", now, before)
	}
}

func TestBreakers(t *testing.T) {
	s := newService(t, withModels(t))
	var b Breaker
	s.send(t, "POST", "/v1/breakers:hold", `{"id":"simulated/gpt-4o","reason":"it drifts"}`).want(http.StatusOK).json(&b)
	if !b.Held || b.Provider != "simulated" || b.Model != "gpt-4o" {
		t.Errorf("got %+v", b)
	}
	var list ModelList
	s.send(t, "GET", "/v1/models", nil).want(http.StatusOK).json(&list)
	for _, m := range list.Data {
		if m.ID == "gpt-4o" && m.Health.State != HealthStateHeld {
			t.Errorf("got %+v", m.Health)
		}
	}
	s.send(t, "POST", "/v1/breakers:release", `{"id":"simulated/gpt-4o"}`).want(http.StatusOK).json(&b)
	var page BreakerPage
	s.send(t, "GET", "/v1/breakers", nil).want(http.StatusOK).json(&page)
	if len(page.Data) != 1 || page.Data[0].ID != "simulated/gpt-4o" {
		t.Errorf("got %+v", page)
	}
	s.send(t, "POST", "/v1/breakers:reset", `{"id":"nobody/gpt-4o"}`).wantProblem(http.StatusNotFound, "breaker_not_found")
	if log := s.log.String(); !strings.Contains(log, "breaker_ordered") || !strings.Contains(log, "it drifts") {
		t.Error("who held it is not in the log")
	}
}

func TestHealthSaysWhatKeepsAModelAway(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Minute)
	for want, b := range map[HealthState]gateway.Breaker{
		HealthStateHeld:      {Held: true, State: "open", Until: later},
		HealthStateDisabled:  {DisabledUntil: later, ThrottledUntil: later, State: "closed"},
		HealthStateOpen:      {State: "open", Until: later, ThrottledUntil: later},
		HealthStateThrottled: {State: "closed", ThrottledUntil: later},
		HealthStateProbing:   {State: "half_open"},
		HealthStateOk:        {State: "closed", ThrottledUntil: now.Add(-time.Minute)},
	} {
		if got := healthOf(b, now); got.State != want {
			t.Errorf("%+v: got %s, want %s", b, got.State, want)
		}
	}
}

// OpenAI's clients send null for what they leave out, ask for one model by its id, and read only errors in their own shape.
func TestWhatOpenAIClientsSend(t *testing.T) {
	s, _ := newChat(t, nil)
	optional := []string{
		"stream", "stream_options", "temperature", "top_p", "n", "stop", "max_tokens", "max_completion_tokens", "user", "seed", "tools",
		"tool_choice", "response_format", "metadata", "reasoning_effort", "prompt_cache_key",
	}
	for _, name := range optional {
		s.chatting(t, `{"model":"gpt-4o","`+name+`":null,"messages":[{"role":"user","content":"hi"}]}`).want(200)
	}
	var m Model
	s.send(t, "GET", "/v1/models/chain%2Fproduction", "").want(200).json(&m)
	if m.ID != "chain/production" || m.Kind != ModelKindChain {
		t.Errorf("got %+v", m)
	}
	if e := openAIErrorIn(t, s.send(t, "GET", "/v1/models/nobody", "").want(404)); *e.Code != "model_not_found" || *e.Param != "model" {
		t.Errorf("got %+v", e)
	}
	for _, path := range []string{"/v1/embeddings", "/v1/responses", "/v1/completions"} {
		if e := openAIErrorIn(t, s.send(t, "POST", path, `{}`).want(404)); !strings.Contains(e.Message, "/v1/chat/completions") {
			t.Errorf("%s: %+v", path, e)
		}
	}
}
