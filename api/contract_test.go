package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/store"
)

// wild are values that no schema asks for.
var wild = []any{
	nil, "", "\x00", strings.Repeat("a", 5000), -1, 1e308, 9007199254740993, true,
	[]any{},
	map[string]any{},
	"😀",
	"../../etc", "' or 1=1", json.RawMessage(`1e999`), json.RawMessage(`{"a":1,"a":2}`),
}

// drawer draws requests from the spec. Everything is drawn in a fixed order, so that a failure shrinks.
type drawer struct {
	*rapid.T
	wild  bool
	known map[string][]string // by parameter: values that exist
}

// value draws a value for a schema; in wild requests, now and then any other.
func (d drawer) value(s *openapi3.Schema, depth int) any {
	if d.wild && rapid.IntRange(0, 9).Draw(d.T, "wild") == 0 {
		return rapid.SampledFrom(wild).Draw(d.T, "any")
	}
	if len(s.Enum) > 0 {
		return rapid.SampledFrom(s.Enum).Draw(d.T, "enum")
	}
	if s.Extensions["x-go-type"] == rawType {
		return drawJSON(d.T, depth)
	}
	kind := openapi3.TypeString
	if s.Type != nil {
		kind = rapid.SampledFrom(s.Type.Slice()).Draw(d.T, "type")
	}
	switch kind {
	case openapi3.TypeBoolean:
		return rapid.Bool().Draw(d.T, "bool")
	case openapi3.TypeInteger, openapi3.TypeNumber:
		low, high := -1000, 1000
		if s.Min != nil {
			low = int(*s.Min)
		}
		if s.Max != nil {
			high = int(*s.Max)
		}
		return rapid.IntRange(low, high).Draw(d.T, "number")
	case openapi3.TypeArray:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(d.T, "len") {
			list = append(list, d.value(s.Items.Value, depth+1))
		}
		return list
	case openapi3.TypeObject:
		return d.object(s, depth)
	}
	if s.Format == "date-time" {
		return time.Unix(rapid.Int64Range(0, 4e9).Draw(d.T, "time"), 0).UTC().Format(time.RFC3339)
	}
	if s.Pattern != "" {
		return rapid.StringMatching(strings.TrimSuffix(strings.TrimPrefix(s.Pattern, "^"), "$")).Draw(d.T, "pattern")
	}
	return rapid.String().Draw(d.T, "string")
}

func (d drawer) object(s *openapi3.Schema, depth int) any {
	o := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		if slices.Contains(s.Required, key) || rapid.Bool().Draw(d.T, key) {
			o[key] = d.value(s.Properties[key].Value, depth+1)
		}
	}
	if extra := s.AdditionalProperties.Schema; extra != nil {
		for range rapid.IntRange(0, 2).Draw(d.T, "extras") {
			o[rapid.StringMatching(`steps\.[a-z]{1,8}\.output|[a-z]{1,8}`).Draw(d.T, "extra")] = d.value(extra.Value, depth+1)
		}
	}
	if _, ok := s.Properties["id"]; ok && rapid.Bool().Draw(d.T, "of a breaker") {
		o["id"] = "simulated/gpt-4o"
	}
	if _, ok := s.Properties["definition"]; ok && rapid.IntRange(0, 2).Draw(d.T, "real") > 0 {
		definition := rapid.SampledFrom([]string{greeting, oneTool, contracted}).Draw(d.T, "definition")
		o["definition"] = json.RawMessage(definition)
		delete(o, "workflow")
	}
	return o
}

// request draws a request to an operation.
func (d drawer) request(path string, item *openapi3.PathItem, method string) (target string, body any, headers []string) {
	query := url.Values{}
	o := item.GetOperation(method)
	for _, p := range slices.Concat(item.Parameters, o.Parameters) {
		p := p.Value
		if !p.Required && !rapid.Bool().Draw(d.T, "has "+p.Name) {
			continue
		}
		text := fmt.Sprint(d.value(p.Schema.Value, 0))
		if known := d.known[p.Name]; len(known) > 0 && rapid.IntRange(0, 3).Draw(d.T, "known") > 0 {
			text = rapid.SampledFrom(known).Draw(d.T, p.Name)
		}
		switch p.In {
		case openapi3.ParameterInPath:
			if text == "" || text == "." || text == ".." { // another path
				text = "none"
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(text))
		case openapi3.ParameterInQuery:
			query.Set(p.Name, strings.Trim(text, "[]"))
		case openapi3.ParameterInHeader:
			headers = append(headers, p.Name+": "+text)
		}
	}
	if o.RequestBody != nil {
		switch rapid.IntRange(0, 9).Draw(d.T, "body") {
		case 0:
			body = rapid.StringMatching(`[{}\[\]":,a-z0-9 ]{0,30}`).Draw(d.T, "garbage")
		case 1:
		default:
			body = d.value(o.RequestBody.Value.Content[mediaJSON].Schema.Value, 0)
		}
	}
	if rapid.IntRange(0, 9).Draw(d.T, "accept") == 0 {
		headers = append(headers, "Accept: "+rapid.SampledFrom([]string{"*/*", "text/html", "application/*;q=0.1", "nonsense", "application/json"}).Draw(d.T, "media"))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path, body, headers
}

// Whatever is sent, the service answers as its spec says: never a 5xx, never a panic, never an undeclared status, media
// type or shape. Ids that the service gave out are used again. A failure prints the smallest request and its seed.
func TestContract(t *testing.T) {
	models := withModels(t)
	s := newService(t, func(c *Config) { models(c); c.Templates = oneTemplate() })
	s.Drain() // streams and waits end at once
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		s.mem.forget() // so that a failure repeats
		for _, definition := range []string{greeting, oneTool, contracted} {
			s.submit(t, definition)
		}
		s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).want(http.StatusCreated)
		s.send(t, "PUT", "/v1/budgets/all", `{"scope":"tenant","limit":{"usd":"5"}}`).want(http.StatusCreated)
		s.send(t, "PUT", "/v1/subscriptions/max", `{"monthly":"200"}`).want(http.StatusCreated)
		s.send(t, "PUT", "/v1/prices", `{"model":"gpt-4o","rows":[{"input":"1","output":"2"}]}`).want(http.StatusOK)
		for range rapid.IntRange(1, 40).Draw(t, "requests") {
			s.anyRequest(t, seen)
		}
	})
	if testing.Verbose() {
		for _, r := range routes {
			t.Logf("%-22s 2xx %4d  4xx %4d", r.operation, seen[r.operation+" 2"]+seen[r.operation+" 3"], seen[r.operation+" 4"])
		}
	}
}

// anyRequest draws a request, sends it and checks the answer.
func (s *service) anyRequest(t *rapid.T, seen map[string]int) {
	d := drawer{T: t, wild: rapid.Bool().Draw(t, "wild request"), known: s.known()}
	paths := s.doc.Paths.InMatchingOrder()
	if rapid.IntRange(0, 9).Draw(t, "for machines") > 0 {
		paths = slices.DeleteFunc(paths, func(path string) bool { return !strings.HasPrefix(path, "/v1/") })
	}
	path := rapid.SampledFrom(paths).Draw(t, "path")
	item := s.doc.Paths.Value(path)
	method := rapid.SampledFrom(slices.Sorted(maps.Keys(item.Operations()))).Draw(t, "method")
	target, body, headers := d.request(path, item, method)
	if _, err := json.Marshal(body); err != nil || !sendable(target, headers) {
		return // JSON or HTTP cannot say it
	}
	if rapid.IntRange(0, 39).Draw(t, "fail something") == 0 {
		s.mem.failAll()
	}
	a := s.send(t, method, target, body, headers...)
	if a.status >= 500 && path != "/readyz" {
		t.Fatalf("%s %s %v %v: %d %s", method, target, body, headers, a.status, a.body)
	}
	seen[fmt.Sprint(item.GetOperation(method).OperationID, " ", a.status/100)]++
}

// forget empties the store; definitions stay, as the API remembers which it has stored.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.runs)
	clear(m.workflows)
	clear(m.keys)
	m.money, m.incidents = newMemoryMoney(), []store.IncidentRow{brokenContract(1), brokenContract(2)}
	m.people = memoryPeople{approvals: []store.ApprovalRow{articleQuestion(1), articleQuestion(2)}, told: map[string]int{}}
}

// known are the names of what exists, by parameter.
func (s *service) known() map[string][]string {
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	known := map[string][]string{"step": {"work", "after", "hello"}, "If-Match": {"*"}}
	for id := range s.mem.runs {
		known["id"] = append(known["id"], formatRunID(id))
	}
	for _, i := range s.mem.incidents {
		known["id"] = append(known["id"], incident.Name(i.ID))
	}
	for _, q := range s.mem.people.approvals {
		known["id"] = append(known["id"], formatApprovalID(q.Approval))
	}
	slices.Sort(known["id"])
	known["name"] = slices.Concat(slices.Sorted(maps.Keys(s.mem.workflows)), slices.Sorted(maps.Keys(s.mem.money.budgets)), slices.Sorted(maps.Keys(s.mem.money.plans)), []string{"loop"})
	known["model"] = slices.Sorted(maps.Keys(s.mem.money.prices))
	return known
}

// sendable reports whether a request can stand on a line of HTTP.
func sendable(target string, headers []string) bool {
	if _, err := url.ParseRequestURI(target); err != nil {
		return false
	}
	for _, h := range headers {
		_, value, _ := strings.Cut(h, ": ")
		if strings.ContainsAny(value, "\r\n\x00") || value != strings.TrimSpace(value) {
			return false
		}
	}
	return true
}

// failAll fails every open attempt.
func (m *memory) failAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		for start := range r.run.Pending {
			a := r.run.Attempt(start)
			outcome := failed("server")
			m.record(r, r.run.Decide(flow.Reported{Report: flow.Report{Path: a.Path, Gen: a.Gen, No: a.No, Start: a.Start, Outcome: &outcome}}, time.Now()))
			break
		}
	}
}
