package api

import (
	"net/http"

	"github.com/google/uuid"
)

// The limits of request bodies.
const (
	bodyBytesMax           = 1 << 20
	bodyDefinitionBytesMax = 3 << 20  // a definition may come along, with an input
	bodyChatBytesMax       = 20 << 20 // pictures come inside
)

// scope is what a caller must hold to use a route.
type scope string

// The scopes.
const (
	scopePublic         scope = "public" // nothing: for machines that hold no key
	scopeRunsRead       scope = "runs:read"
	scopeRunsWrite      scope = "runs:write"
	scopeApprovalsRead  scope = "approvals:read"
	scopeApprovalsWrite scope = "approvals:write"
	scopeWorkflowsRead  scope = "workflows:read"
	scopeWorkflowsWrite scope = "workflows:write"
	scopeModelsRead     scope = "models:read"
	scopeModelsUse      scope = "models:use"
	scopeModelsWrite    scope = "models:write" // their prices
	scopeSpendRead      scope = "spend:read"
	scopeBudgetsRead    scope = "budgets:read"
	scopeBudgetsWrite   scope = "budgets:write" // and flat plans
	scopeOperations     scope = "operations:write"
)

// route is one operation of the spec: where it is, who may use it, how much it reads.
type route struct {
	method, path string
	operation    string
	policy       scope
	bodyMax      int64 // 0: bodyBytesMax
}

// routes is the table of contents of the API. A route without a policy does not start the service.
var routes = []route{
	{"GET", "/v1/workflows", "listWorkflows", scopeWorkflowsRead, 0},
	{"POST", "/v1/workflows", "publishWorkflow", scopeWorkflowsWrite, bodyDefinitionBytesMax},
	{"POST", "/v1/workflows:validate", "validateWorkflow", scopeWorkflowsWrite, bodyDefinitionBytesMax},
	{"GET", "/v1/workflows/{name}", "getWorkflow", scopeWorkflowsRead, 0},
	{"PUT", "/v1/workflows/{name}", "putWorkflow", scopeWorkflowsWrite, bodyDefinitionBytesMax},
	{"GET", "/v1/workflows/{name}/versions", "listWorkflowVersions", scopeWorkflowsRead, 0},
	{"GET", "/v1/workflows/{name}/versions/{version}", "getWorkflowVersion", scopeWorkflowsRead, 0},
	{"GET", "/v1/workflows/{name}/graph", "getWorkflowGraph", scopeWorkflowsRead, 0},
	{"GET", "/v1/templates", "listTemplates", scopeWorkflowsRead, 0},
	{"GET", "/v1/templates/{name}", "getTemplate", scopeWorkflowsRead, 0},
	{"POST", "/v1/expressions:evaluate", "evaluateExpression", scopeRunsRead, 0},

	{"POST", "/v1/runs", "submitRun", scopeRunsWrite, bodyDefinitionBytesMax},
	{"GET", "/v1/runs", "listRuns", scopeRunsRead, 0},
	{"GET", "/v1/runs/{id}", "getRun", scopeRunsRead, 0},
	{"GET", "/v1/runs/{id}/steps", "listSteps", scopeRunsRead, 0},
	{"GET", "/v1/runs/{id}/steps/{step}", "getStep", scopeRunsRead, 0},
	{"GET", "/v1/runs/{id}/events", "listEvents", scopeRunsRead, 0},
	{"POST", "/v1/runs/{id}/cancel", "cancelRun", scopeRunsWrite, 0},
	{"POST", "/v1/runs/{id}/resume", "resumeRun", scopeRunsWrite, 0},
	{"GET", "/v1/runs/{id}/cost", "getRunCost", scopeRunsRead, 0},
	{"GET", "/v1/runs/{id}/graph", "getRunGraph", scopeRunsRead, 0},
	{"POST", "/v1/runs/{id}/signals/{name}", "signalRun", scopeRunsWrite, 0},
	{"POST", "/v1/signals/{name}", "signalAll", scopeRunsWrite, 0},

	{"GET", "/v1/approvals", "listApprovals", scopeApprovalsRead, 0},
	{"GET", "/v1/approvals/{id}", "getApproval", scopeApprovalsRead, 0},
	{"POST", "/v1/approvals/{id}", "answerApproval", scopeApprovalsWrite, 0},

	{"GET", "/v1/models", "listModels", scopeModelsRead, 0},
	{"GET", "/v1/models/{model}", "getModel", scopeModelsRead, 0},
	{"GET", "/v1/chains", "listChains", scopeModelsRead, 0},
	{"POST", "/v1/routes:explain", "explainRoute", scopeModelsRead, 0},
	{"POST", "/v1/chat/completions", "createChatCompletion", scopeModelsUse, bodyChatBytesMax},
	{"GET", "/v1/prices", "listPrices", scopeModelsRead, 0},
	{"PUT", "/v1/prices", "putPrices", scopeModelsWrite, 0},
	{"DELETE", "/v1/prices", "deletePrices", scopeModelsWrite, 0},
	{"GET", "/v1/breakers", "listBreakers", scopeModelsRead, 0},
	{"POST", "/v1/breakers:reset", "resetBreaker", scopeOperations, 0},
	{"POST", "/v1/breakers:hold", "holdBreaker", scopeOperations, 0},
	{"POST", "/v1/breakers:release", "releaseBreaker", scopeOperations, 0},

	{"GET", "/v1/incidents", "listIncidents", scopeRunsRead, 0},
	{"POST", "/v1/incidents/{id}:resolve", "resolveIncident", scopeOperations, 0},

	{"GET", "/v1/spend", "getSpend", scopeSpendRead, 0},
	{"GET", "/v1/budgets", "listBudgets", scopeBudgetsRead, 0},
	{"GET", "/v1/budgets/{name}", "getBudget", scopeBudgetsRead, 0},
	{"PUT", "/v1/budgets/{name}", "putBudget", scopeBudgetsWrite, 0},
	{"DELETE", "/v1/budgets/{name}", "deleteBudget", scopeBudgetsWrite, 0},
	{"GET", "/v1/subscriptions", "listSubscriptions", scopeBudgetsRead, 0},
	{"GET", "/v1/subscriptions/{name}", "getSubscription", scopeBudgetsRead, 0},
	{"PUT", "/v1/subscriptions/{name}", "putSubscription", scopeBudgetsWrite, 0},
	{"DELETE", "/v1/subscriptions/{name}", "deleteSubscription", scopeBudgetsWrite, 0},

	{"GET", "/", "index", scopePublic, 0},
	{"GET", "/livez", "livez", scopePublic, 0},
	{"GET", "/healthz", "healthz", scopePublic, 0},
	{"GET", "/readyz", "readyz", scopePublic, 0},
	{"GET", "/metrics", "metrics", scopePublic, 0},
	{"GET", "/openapi.yaml", "openapi", scopePublic, 0},
	{"GET", "/schemas/workflow-v1.json", "workflowSchema", scopePublic, 0},
}

// scopes are what a caller holds.
type scopes map[scope]bool

// allScopes is what a caller holds as long as there are no keys.
var allScopes = scopes{
	scopeRunsRead: true, scopeRunsWrite: true, scopeWorkflowsRead: true, scopeWorkflowsWrite: true,
	scopeModelsRead: true, scopeModelsUse: true, scopeModelsWrite: true, scopeSpendRead: true,
	scopeBudgetsRead: true, scopeBudgetsWrite: true, scopeOperations: true,
	scopeApprovalsRead: true, scopeApprovalsWrite: true,
}

// caller is who sends a request.
type caller struct {
	tenant uuid.UUID
	scopes scopes
}

// authenticate says who sends a request. There are no keys yet: everybody is the default tenant and may do everything.
func (a *API) authenticate(*http.Request) (caller, error) {
	return caller{tenant: a.tenant, scopes: allScopes}, nil
}

// admit lets a caller in by the policy of an operation.
func admit(who caller, op *operation) error {
	if op.policy == scopePublic {
		return nil
	}
	if op.policy == "" || !who.scopes[op.policy] {
		return refuse(http.StatusForbidden, "insufficient_scope", "this needs the scope %q", op.policy)
	}
	return nil
}
