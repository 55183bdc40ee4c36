package api

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/usage"
)

// Here domain types become wire types; nothing of the wire goes the other way.

func costOf(m usage.Money, unpriced int) Cost {
	return Cost{USD: m.String(), NanoUSD: int64(m), UnpricedCalls: unpriced}
}

func usageOf(s usage.Sum) Usage {
	return Usage{Calls: s.Calls, SimulatedCalls: s.Simulated, Tokens: tokensOf(s.Tokens)}
}

func tokensOf(t usage.Tokens) Tokens {
	return Tokens{Input: t.Input, CacheRead: t.CacheRead, CacheWrite: t.CacheWrite, Output: t.Output, Reasoning: t.Reasoning}
}

func failureOf(f *flow.Failure) Failure {
	if f == nil {
		return Failure{}
	}
	out := Failure{Class: f.Class, Message: f.Message, Step: f.Step}
	if f.Cause != nil {
		cause := failureOf(f.Cause)
		out.Cause = &cause
	}
	return out
}

func callOf(c usage.Call) Call {
	out := Call{
		Provider: c.Provider, Model: c.Model, Simulated: c.Simulated, Outcome: "ok", Message: c.Message, Depth: c.Depth,
		Try: c.Try, Ms: c.Millis, Tokens: tokensOf(c.Tokens), Cost: costOf(c.Cost, count(c.Unpriced)), Estimated: c.Estimated,
	}
	if c.Class != "" {
		out.Outcome = c.Class
	}
	return out
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func provenanceOf(p flow.Provenance) Provenance {
	return Provenance{
		Step: p.Step, Agent: p.Agent, Role: p.Role, Provider: p.Provider, Model: p.Model, Simulated: p.Simulated,
		Attempt: int(p.Attempt), FallbackDepth: p.FallbackDepth, Degraded: p.FallbackDepth > 0 || p.BelowGate, PromptHash: p.PromptHash, Repaired: p.Repaired,
		Instead: p.Instead, Count: p.Count, Cost: costOf(p.Cost, count(p.Unpriced)),
	}
}

// billed are the kinds of event that may carry model calls.
var billed = map[flow.Kind]bool{
	flow.KindTurnAnswered: true, flow.KindStepSucceeded: true, flow.KindAttemptFailed: true, flow.KindStepFailed: true,
	flow.KindStepCancelled: true, flow.KindOutcomeDiscarded: true, flow.KindStepSkipped: true, flow.KindStepWaiting: true, flow.KindPlanMade: true,
}

// eventOf shows an event; what its model calls and the run that it ended cost is added up beside its body.
func eventOf(run uuid.UUID, e flow.Event) Event {
	out := Event{
		RunID: formatRunID(run), Seq: e.Seq, At: e.At.UTC(), Kind: string(e.Kind), Step: e.Step,
		Gen: int(e.Gen), Attempt: int(e.Attempt), Data: nameIDs(e),
	}
	if !billed[e.Kind] {
		return out
	}
	var body struct {
		Calls []usage.Call `json:"calls"`
		Child struct {
			Sum usage.Sum `json:"sum"`
		} `json:"child"`
	}
	if json.Unmarshal(e.Body, &body) != nil {
		return out // an older shape of the body, perhaps: it is shown as it is
	}
	sum := body.Child.Sum
	for _, c := range body.Calls {
		sum.Add(c)
	}
	if sum.Calls == 0 {
		return out
	}
	out.Usage, out.Cost, out.Simulated = usageOf(sum), costOf(sum.Cost, sum.Unpriced), sum.Simulated > 0
	return out
}

// namedIDs are the ids that stand bare in bodies of events: the key, the key within it, and how the API writes them
// everywhere else.
var namedIDs = []struct {
	key, within string
	format      func(uuid.UUID) string
}{
	{"child", "run", formatRunID}, {"parent", "run", formatRunID}, {"asked", "approval", formatApprovalID}, {"approval", "", formatApprovalID},
}

// nameIDs is the body of an event with the ids of runs and approvals as they are in paths.
func nameIDs(e flow.Event) json.RawMessage {
	body := e.Body
	if !billed[e.Kind] && e.Kind != flow.KindRunSubmitted && e.Kind != flow.KindApprovalAnswered {
		return body
	}
	for _, id := range namedIDs {
		body = withNamed(body, id.key, func(value json.RawMessage) json.RawMessage {
			if id.within != "" {
				return withNamed(value, id.within, func(v json.RawMessage) json.RawMessage { return nameID(v, id.format) })
			}
			return nameID(value, id.format)
		})
	}
	return body
}

// withNamed changes one key of an object; what has no such key, or is no object, stays as it is.
func withNamed(object json.RawMessage, key string, change func(json.RawMessage) json.RawMessage) json.RawMessage {
	if !bytes.Contains(object, []byte(`"`+key+`":`)) {
		return object
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(object, &keys) != nil || keys[key] == nil {
		return object
	}
	keys[key] = change(keys[key])
	changed, err := json.Marshal(keys)
	if err != nil {
		return object
	}
	return changed
}

func nameID(text json.RawMessage, format func(uuid.UUID) string) json.RawMessage {
	var id uuid.UUID
	if json.Unmarshal(text, &id) != nil {
		return text
	}
	return json.RawMessage(strconv.Quote(format(id)))
}

// linksOf goes by where a run stands and, where that is waiting, for what.
func linksOf(id uuid.UUID, status flow.RunStatus, waitingFor string) RunLinks {
	self := "/v1/runs/" + formatRunID(id)
	links := RunLinks{
		Self: self, Events: self + "/events", Steps: self + "/steps", Cost: self + "/cost", Graph: self + "/graph",
		Children: "/v1/runs?parent=" + formatRunID(id), Approvals: "/v1/approvals?run=" + formatRunID(id),
	}
	for _, action := range actionsOf(status, waitingFor) {
		switch action {
		case actionCancel:
			links.Cancel = self + "/cancel"
		case actionResume:
			links.Resume = self + "/resume"
		}
	}
	return links
}

// What can be done with a run.
const (
	actionCancel = "cancel"
	actionResume = "resume"
)

// actionsOf lists what can be done with a run that stands there. One that waits for money can be given some.
func actionsOf(status flow.RunStatus, waitingFor string) []string {
	if status == flow.RunStatusWaiting && waitingFor == flow.HeldBudget {
		return []string{actionResume, actionCancel}
	}
	switch status {
	case flow.RunStatusQueued, flow.RunStatusRunning, flow.RunStatusWaiting, flow.RunStatusCancelling:
		return []string{actionCancel}
	case flow.RunStatusFailed, flow.RunStatusQuarantined:
		return []string{actionResume}
	default:
		return []string{}
	}
}
