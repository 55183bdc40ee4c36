package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/workflow"
)

// Completer makes one logical model call; gateway.Gateway is one. Its error is a *gateway.FailedError.
type Completer interface {
	Complete(ctx context.Context, r gateway.Request) (gateway.Answer, error)
}

const (
	// chatTimeMax bounds one answer of a model, with all its retries and fallbacks.
	chatTimeMax = 10 * time.Minute
	// bareRetries are those of a model that is asked for by its own name. Chains bring theirs.
	bareRetries = 2

	headerMode     = "Fermata-Mode"
	headerRestart  = "Fermata-Restart"
	headerProgress = "Fermata-Progress"
	headerModel    = "Fermata-Model"
	headerCost     = "Fermata-Cost-Usd"
	headerDepth    = "Fermata-Fallback-Depth"
	headerSim      = "Fermata-Simulated"
	headerRun      = "Fermata-Run"
)

// chat is one request of an OpenAI client under way.
type chat struct {
	a    *API
	w    http.ResponseWriter
	r    *http.Request
	x    *exchange
	req  *chatRequest
	id   string // chatcmpl-…
	from time.Time

	labels map[string]string
	mode   string // empty: the caller does not say
}

// chatCompletions answers POST /v1/chat/completions. It stands outside of the generated code: its answers, streams and
// errors have OpenAI's shape.
func (a *API) chatCompletions(w http.ResponseWriter, r *http.Request) {
	if err := a.chat(w, r); err != nil {
		a.fail(w, r, err)
	}
}

func (a *API) chat(w http.ResponseWriter, r *http.Request) error {
	x := exchangeOf(r.Context())
	req, err := readChat(x.body)
	if err != nil {
		return err
	}
	c := &chat{a: a, w: w, r: r, x: x, req: req, from: time.Now()}
	if c.labels, err = req.labels(); err != nil {
		return err
	}
	if c.mode, err = req.mode(r.Header.Get(headerMode)); err != nil {
		return err
	}
	x.stream = req.Stream // what the body says counts, not what the caller accepts: clients say one thing and want the other
	if ref, ok := strings.CutPrefix(req.Model, prefixWorkflow); ok {
		return c.workflow(ref)
	}
	call, err := c.call()
	switch {
	case err != nil:
		return err
	case a.gateway == nil:
		return noModel("this node asks no models")
	case req.Stream:
		return c.stream(call)
	case len(r.Header.Values(headerIdempotencyKey)) > 0:
		a.once(w, r, x, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.w, c.r = w, r
			if err := c.whole(call); err != nil {
				a.fail(w, r, err)
			}
		}))
		return nil
	}
	return c.whole(call)
}

// call is what a model is asked for a chat.
type call struct {
	request gateway.Request
	talk    *agent.Talk // nil: the answer has no contract to meet
	opening int         // messages of talk that stand for those of the request
}

// call finds out who is meant by the request's model, and what they are asked.
func (c *chat) call() (*call, error) {
	ask, err := c.req.ask()
	if err != nil {
		return nil, err
	}
	c.id = chatID(uuid.New())
	k := &call{request: gateway.Request{
		Ask: ask, Seed: "chat/" + c.id, Session: c.req.PromptCacheKey,
		Caller: gateway.Caller{Tenant: c.x.tenant, Labels: c.labels, Mode: cmp.Or(c.mode, modeInteractive), Stakes: "normal"},
	}}
	if seed := c.req.Seed; seed != nil { // simulated models answer alike for it
		k.request.Seed = fmt.Sprintf("chat/%d", *seed)
	}
	return k, c.choose(k)
}

// choose fills in who is asked. What is no chain, class or agent is the name of a model, for the gateway to know.
func (c *chat) choose(k *call) error {
	model := c.req.Model
	if class, ok := strings.CutPrefix(model, prefixRoute); ok || model == routeAuto {
		if !ok {
			class = routeAuto
		}
		k.request.Route, k.request.Caller.Agent = class, prefixRoute+class
		return nil
	}
	if ref, ok := strings.CutPrefix(model, prefixAgent); ok {
		return c.agent(k, ref)
	}
	name, prefixed := strings.CutPrefix(model, prefixChain)
	chains := workflow.BuiltinChains()
	if chain := chains[name]; chain != nil {
		k.request.Chain, k.request.Caller.Agent = *chain, prefixChain+name
		return nil
	}
	if prefixed {
		return noModel("there is no chain %q; there are %s", clip(name), strings.Join(slices.Sorted(maps.Keys(chains)), ", "))
	}
	k.request.Chain = workflow.Chain{Entries: []workflow.ChainEntry{{Model: model, Retries: bareRetries}}}
	return nil
}

// The ids of models that are not one model; those of chains, agents and workflows are in models.go.
const (
	prefixRoute = "route/"
	routeAuto   = "auto"
)

func chatID(id uuid.UUID) string { return "chatcmpl-" + hex.EncodeToString(id[:]) }

// complete makes one logical call. When the caller is gone, that is the error, whatever the models said.
func (c *chat) complete(ctx context.Context, r gateway.Request) (gateway.Answer, error) {
	answer, err := c.a.gateway.Complete(ctx, r)
	if err != nil && c.r.Context().Err() != nil {
		return answer, fmt.Errorf("complete: %w", c.r.Context().Err())
	}
	return answer, err
}

// published finds a published workflow: `name`, or `name@version`.
func (c *chat) published(ref string) (*workflow.Workflow, int, error) {
	if !isWorkflowRef(ref) {
		return nil, 0, noModel("%q is not the name of a workflow: it is name, or name@version", clip(ref))
	}
	sub, _, err := c.a.submission(c.r.Context(), c.x, &RunRequest{Workflow: ref})
	if f := fault.Of(err); f != nil && f.Kind == fault.KindNotFound {
		return nil, 0, noModel("%s", f.Detail)
	}
	if err != nil {
		return nil, 0, err
	}
	return sub.Workflow, sub.WorkflowVersion, nil
}
