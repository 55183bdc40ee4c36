package api

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
)

//go:generate go tool oapi-codegen --config oapi-codegen.yaml openapi.yaml

// specSource is the contract: what is generated, validated and served comes from this one document.
//
//go:embed openapi.yaml
var specSource []byte

// operation is one operation of the spec with all that is needed to let a request in.
type operation struct {
	route
	spec         *routers.Route
	answers      []string                    // media types of what it answers on success
	bodies       map[string]*openapi3.Schema // by media type
	bodyRequired bool
	query        []string // names of the parameters it knows
	keyed        bool     // takes an Idempotency-Key
}

// loadSpec reads the embedded document.
func loadSpec() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(specSource)
	if err != nil {
		return nil, fmt.Errorf("load openapi.yaml: %w", err)
	}
	return doc, nil
}

// operations pairs the routes with the operations of the document, by method and path. The error names the first
// route without an operation or a policy.
func operations(doc *openapi3.T, routes []route) (map[string]*operation, error) {
	// For documents of version 3.1 the validator compiles a JSON Schema anew at every request (milliseconds). What the
	// requests of this document say means the same in 3.0, for which it works on the document itself; a test sees to
	// it that no request schema uses what only 3.1 has.
	fast := *doc
	fast.OpenAPI = "3.0.3"
	ops := map[string]*operation{}
	for _, rt := range routes {
		item := doc.Paths.Value(rt.path)
		if item == nil || item.GetOperation(rt.method) == nil {
			return nil, fmt.Errorf("route %s %s is not in openapi.yaml", rt.method, rt.path)
		}
		if rt.policy == "" {
			return nil, fmt.Errorf("route %s %s has no policy", rt.method, rt.path)
		}
		if rt.bodyMax == 0 {
			rt.bodyMax = bodyBytesMax
		}
		o := item.GetOperation(rt.method)
		op := &operation{
			route:  rt,
			spec:   &routers.Route{Spec: &fast, Path: rt.path, PathItem: item, Method: rt.method, Operation: o},
			bodies: map[string]*openapi3.Schema{}, keyed: rt.method == "POST" && !speaksOpenAI(rt.path),
		}
		op.describe(item, o)
		ops[rt.method+" "+rt.path] = op
	}
	return ops, nil
}

func (op *operation) describe(item *openapi3.PathItem, o *openapi3.Operation) {
	for code, response := range o.Responses.Map() {
		if !strings.HasPrefix(code, "2") {
			continue
		}
		for media := range response.Value.Content {
			if !slices.Contains(op.answers, media) {
				op.answers = append(op.answers, media)
			}
		}
	}
	slices.Sort(op.answers) // application/json stands before text/event-stream: the default
	for _, p := range slices.Concat(item.Parameters, o.Parameters) {
		if p.Value.In == openapi3.ParameterInQuery {
			op.query = append(op.query, p.Value.Name)
		}
	}
	if o.RequestBody == nil {
		return
	}
	op.bodyRequired = o.RequestBody.Value.Required
	for media, content := range o.RequestBody.Value.Content {
		op.bodies[media] = content.Schema.Value
	}
}
