package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
)

func TestSpecIsValid(t *testing.T) {
	doc, err := loadSpec()
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			if o.OperationID == "" || o.Summary == "" || len(o.Tags) != 1 || o.Responses.Default() == nil {
				t.Errorf("%s %s lacks an id, a summary, a tag or a default response", method, path)
			}
			for code, r := range o.Responses.Map() {
				for media, content := range r.Value.Content {
					if content.Example == nil && len(content.Examples) == 0 && path != "/metrics" {
						t.Errorf("%s %s %s %s has no example", method, path, code, media)
					}
				}
			}
			if o.RequestBody == nil {
				continue
			}
			for media, content := range o.RequestBody.Value.Content {
				if content.Example == nil {
					t.Errorf("%s %s: the body as %s has no example", method, path, media)
				}
			}
		}
	}
}

// The router, the spec and the policies know the same operations: each is compared with each.
func TestRoutesAreOperationsArePolicies(t *testing.T) {
	s := newService(t, nil)
	var routed, specified, guarded []string
	if err := chi.Walk(s.router, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routed = append(routed, method+" "+path)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for path, item := range s.doc.Paths.Map() {
		for method, o := range item.Operations() {
			specified = append(specified, method+" "+path)
			ids[method+" "+path] = o.OperationID
		}
	}
	for _, r := range routes {
		at := r.method + " " + r.path
		if guarded = append(guarded, at); ids[at] != r.operation {
			t.Errorf("%s is %s in the spec, %s in the routes", at, ids[at], r.operation)
		}
	}
	for _, list := range [][]string{routed, specified, guarded} {
		slices.Sort(list)
	}
	if d := cmp.Diff(specified, routed); d != "" {
		t.Errorf("spec and router differ:\n%s", d)
	}
	if d := cmp.Diff(specified, guarded); d != "" {
		t.Errorf("spec and policies differ:\n%s", d)
	}
}

func TestRouteWithoutPolicyDoesNotStart(t *testing.T) {
	doc, err := loadSpec()
	if err != nil {
		t.Fatal(err)
	}
	list := slices.Clone(routes)
	list[3].policy = ""
	if _, err := operations(doc, list); err == nil || !strings.Contains(err.Error(), "has no policy") {
		t.Fatalf("got %v", err)
	}
	list[3] = route{"GET", "/v1/secrets", "listSecrets", scopeRunsRead, 0}
	if _, err := operations(doc, list); err == nil || !strings.Contains(err.Error(), "is not in openapi.yaml") {
		t.Fatalf("got %v", err)
	}
}

// Every operation asks for its scope: a caller without it is refused before anything else is looked at.
func TestScopeIsNeeded(t *testing.T) {
	s := newService(t, nil)
	for _, r := range routes {
		if r.policy == scopePublic {
			continue
		}
		op := s.operations[r.method+" "+r.path]
		without := scopes{}
		for have := range allScopes {
			if have != r.policy {
				without[have] = true
			}
		}
		if err := admit(caller{tenant: s.tenant, scopes: without}, op); err == nil {
			t.Errorf("%s %s lets in without %s", r.method, r.path, r.policy)
		}
		if err := admit(caller{tenant: s.tenant, scopes: scopes{r.policy: true}}, op); err != nil {
			t.Errorf("%s %s refuses %s: %v", r.method, r.path, r.policy, err)
		}
	}
}

// Requests are validated by the 3.0 validator, which must not meet what it does not know.
func TestRequestSchemasMeanTheSameIn30(t *testing.T) {
	doc, err := loadSpec()
	if err != nil {
		t.Fatal(err)
	}
	check := func(where string, schema *openapi3.SchemaRef) {
		err := schema.WalkSubtree(func(at string, ref *openapi3.SchemaRef) error {
			s := ref.Value
			if s.Const != nil || s.PrefixItems != nil || s.Contains != nil || s.PatternProperties != nil || s.PropertyNames != nil ||
				s.If != nil || s.DependentRequired != nil || s.DependentSchemas != nil || s.Defs != nil || s.OneOf != nil || s.AnyOf != nil {
				t.Errorf("%s%s uses what only 3.1 has, or a union", where, at)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			for _, p := range slices.Concat(item.Parameters, o.Parameters) {
				check(method+" "+path+" "+p.Value.Name, p.Value.Schema)
			}
			if o.RequestBody == nil {
				continue
			}
			for media, content := range o.RequestBody.Value.Content {
				check(method+" "+path+" "+media, content.Schema)
			}
		}
	}
}
