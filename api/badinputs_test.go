package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/incident"
	"github.com/fermata-run/fermata/internal/store"
)

const noRun = "run_0195f0a6b1c87d3e9a4f0c2b7d6e5f41"

// Bad inputs by their numbers in the list the service is held against. What is refused leaves nothing behind.
func TestBadInputs(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	before := len(s.mem.runs)
	big := strings.Repeat("x", bodyDefinitionBytesMax)
	deep := strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001)
	cases := []struct {
		row, method, path string
		body              any
		headers           []string
		status            int
		code              string
	}{
		{"B1", "POST", "/v1/runs", "", nil, 400, "body_required"},
		{"B1", "POST", "/v1/workflows", "", nil, 400, "body_required"},
		{"B2", "POST", "/v1/runs", `{"a":`, nil, 400, "json_syntax"},
		{"B3", "POST", "/v1/runs", `{}{}`, nil, 400, "json_trailing_data"},
		{"B4", "POST", "/v1/runs", `[]`, nil, 400, "json_type"},
		{"B4", "POST", "/v1/workflows", `"x"`, nil, 400, "json_type"},
		{"B4", "POST", "/v1/runs/" + run + "/cancel", `null`, nil, 400, "json_type"},
		{"B5", "POST", "/v1/runs", `{"input":1,"input":2}`, nil, 400, "duplicate_field"},
		{"B6", "POST", "/v1/runs", `{"Workflow":"greet"}`, nil, 400, "unknown_field"},
		{"B7", "POST", "/v1/runs", `{"workflow":"greet","budget":{"usd":"1","eur":"1"}}`, nil, 400, "unknown_field"},
		{"B7", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"1"},"spent":{"usd":"0"}}`, nil, 400, "unknown_field"},
		{"B7", "POST", "/v1/runs/" + run + "/resume", `{"from":"failed"}`, nil, 400, "unknown_field"},
		{"B7", "POST", "/v1/incidents/" + noIncident + ":resolve", `{"reason":"x"}`, nil, 400, "unknown_field"},
		{"B8", "POST", "/v1/runs", `{"workflow":"greet","input":` + deep + `}`, nil, 400, "json_too_deep"},
		{"B9", "POST", "/v1/runs", `{"workflow":7}`, nil, 400, "wrong_type"},
		{"B9", "POST", "/v1/runs", `{"workflow":"greet","labels":{"a":1}}`, nil, 400, "wrong_type"},
		{"B9", "POST", "/v1/runs", `{"workflow":"greet","priority":null}`, nil, 400, "wrong_type"},
		{"B9", "POST", "/v1/runs", `{"workflow":"greet","budget":{"usd":1}}`, nil, 400, "wrong_type"},
		{"B9", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":10}}`, nil, 400, "wrong_type"},
		{"B10", "PUT", "/v1/budgets/b", `{"scope":"galaxy","limit":{"usd":"10"}}`, nil, 400, "unknown_value"},
		{"B10", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"10"},"on_hard":"explode"}`, nil, 400, "unknown_value"},
		{"B10", "GET", "/v1/incidents?state=broken", nil, nil, 400, "invalid_parameter"},
		{"B11", "POST", "/v1/incidents/" + noIncident + ":resolve", `{"note":"` + strings.Repeat("n", 501) + `"}`, nil, 400, "too_long"},
		{"B10", "POST", "/v1/routes:explain", `{"route":"code","needs":["luck"]}`, nil, 400, "unknown_value"},
		{"B10", "POST", "/v1/runs", `{"workflow":"greet","stakes":"huge"}`, nil, 400, "unknown_value"},
		{"B11", "POST", "/v1/runs", `{"workflow":"greet","priority":10}`, nil, 400, "out_of_range"},
		{"B11", "POST", "/v1/runs", `{"workflow":"greet","priority":1.5}`, nil, 400, "wrong_type"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"tokens":0}}`, nil, 400, "out_of_range"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"tokens":1},"soft_percents":[0]}`, nil, 400, "out_of_range"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{}}`, nil, 400, "missing_field"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"-1"}}`, nil, 400, "invalid_format"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"0.0000000001"}}`, nil, 400, "invalid_format"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"1e3"}}`, nil, 400, "invalid_format"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"tenant","limit":{"usd":"0"}}`, nil, 422, "budget_invalid"},
		{"B11", "PUT", "/v1/budgets/b", `{"scope":"workflow","limit":{"usd":"1"}}`, nil, 422, "budget_invalid"},
		{"B11", "PUT", "/v1/budgets/run", `{"scope":"tenant","limit":{"usd":"1"}}`, nil, 422, "budget_name_taken"},
		{"B11", "PUT", "/v1/subscriptions/p", `{"monthly":"lots"}`, nil, 400, "invalid_format"},
		{"B11", "PUT", "/v1/subscriptions/p", `{"monthly":"1","from":"2026-13-45T00:00:00Z"}`, nil, 400, "invalid_format"},
		{"B12", "POST", "/v1/runs", `{"workflow":"greet","input":1e400000}`, nil, 400, "number_out_of_range"},
		{"B12", "POST", "/v1/runs", `{"workflow":"greet","input":NaN}`, nil, 400, "number_out_of_range"},
		{"B13", "POST", "/v1/runs", `{"workflow":"greet","input":"\u0000"}`, nil, 400, "nul_character"},
		{"B14", "POST", "/v1/runs", "\xef\xbb\xbf{}", nil, 400, "invalid_encoding"},
		{"B14", "POST", "/v1/runs", "\xff\xfe{\x00}\x00", nil, 400, "invalid_encoding"},
		{"B14", "POST", "/v1/workflows", "name: \xff", []string{"Content-Type: application/yaml"}, 400, "invalid_encoding"},
		{"B15", "POST", "/v1/runs", `{}`, []string{"Content-Type: text/plain"}, 415, "unsupported_media_type"},
		{"B15", "POST", "/v1/runs", `{}`, []string{"Content-Type: "}, 415, "unsupported_media_type"},
		{"B15", "POST", "/v1/runs", `{}`, []string{"Content-Type: application/json; charset=latin1"}, 415, "unsupported_media_type"},
		{"B15", "POST", "/v1/runs", `{}`, []string{"Content-Type: application/yaml"}, 415, "unsupported_media_type"},
		{"B15", "POST", "/v1/runs", `{}`, []string{"Content-Encoding: gzip"}, 415, "unsupported_media_type"},
		{"B16", "GET", "/v1/runs", nil, []string{"Accept: text/xml"}, 406, "not_acceptable"},
		{"B16", "GET", "/v1/runs", nil, []string{"Accept: application/json;q=0"}, 406, "not_acceptable"},
		{"B18", "POST", "/v1/runs", `{"input":"` + big + `"}`, nil, 413, "body_too_large"},
		{"B18", "POST", "/v1/runs/" + run + "/cancel", `{"reason":"` + big[:bodyBytesMax] + `"}`, nil, 413, "body_too_large"},
		{"B23", "GET", "/v1/nothing", nil, nil, 404, "route_not_found"},
		{"B23", "GET", "/v1/runs/", nil, nil, 404, "route_not_found"},
		{"B23", "DELETE", "/v1/runs", nil, nil, 405, "method_not_allowed"},
		{"B23", "POST", "/v1/runs/" + run, `{}`, nil, 405, "method_not_allowed"},
		{"B31", "GET", "/v1/runs/7", nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/" + strings.ToUpper(noRun), nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/" + strings.TrimPrefix(noRun, "run_"), nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/0195f0a6-b1c8-7d3e-9a4f-0c2b7d6e5f41", nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/run_0195f0a6b1c84d3e9a4f0c2b7d6e5f41", nil, nil, 400, "invalid_id"}, // version 4
		{"B31", "GET", "/v1/runs/" + strings.Repeat("a", 10_000), nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/run_0195f0a6b1c87d3e9a4f0c2b7d6e5f4%D1%81", nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/%00", nil, nil, 400, "invalid_id"},
		{"B31", "GET", "/v1/runs/..%2f..%2fetc/steps", nil, nil, 400, "invalid_id"},
		{"B31", "POST", "/v1/runs/none/cancel", `{}`, nil, 400, "invalid_id"},
		{"B31", "POST", "/v1/incidents/inc_7:resolve", `{}`, nil, 400, "invalid_id"},
		{"B31", "POST", "/v1/incidents/" + run + ":resolve", `{}`, nil, 400, "invalid_id"},
		{"B31", "POST", "/v1/incidents/" + noIncident + ":resolve", `{}`, nil, 404, "incident_not_found"},
		{"B31", "POST", "/v1/incidents/" + noIncident + ":reopen", `{}`, nil, 404, "route_not_found"},
		{"B31", "GET", "/v1/workflows/a%20b", nil, nil, 400, "invalid_parameter"},
		{"B31", "GET", "/v1/workflows/greet/versions/0", nil, nil, 400, "invalid_parameter"},
		{"B31", "GET", "/v1/workflows/greet/versions/99999999999999999999", nil, nil, 400, "invalid_parameter"},
		{"B31", "GET", "/v1/runs/" + run + "/steps/A%20B", nil, nil, 400, "invalid_parameter"},
		{"B33", "POST", "/v1/runs", `{}`, []string{"Idempotency-Key: " + strings.Repeat("k", 256)}, 400, "invalid_idempotency_key"},
		{"B33", "POST", "/v1/runs", `{}`, []string{"Idempotency-Key: a\x01"}, 400, "invalid_idempotency_key"},
		{"B33", "POST", "/v1/runs", `{"workflow":"greet"}`, []string{"Idempotency-Key: "}, 400, "invalid_idempotency_key"},
		{"B37", "GET", "/v1/runs?state=failed", nil, nil, 400, "unknown_parameter"},
		{"B37", "GET", "/v1/runs?sort=id;drop+table+run", nil, nil, 400, "invalid_query"},
		{"B37", "GET", "/v1/runs?sort=id--", nil, nil, 400, "unknown_parameter"},
		{"B37", "GET", "/v1/runs?status=broken", nil, nil, 400, "invalid_parameter"},
		{"B16", "GET", "/v1/spend", nil, []string{"Accept: application/pdf"}, 406, "not_acceptable"},
		{"B23", "POST", "/v1/budgets", `{}`, nil, 405, "method_not_allowed"},
		{"B31", "GET", "/v1/budgets/a%20b", nil, nil, 400, "invalid_parameter"},
		{"B31", "GET", "/v1/budgets/none", nil, nil, 404, "budget_not_found"},
		{"B31", "POST", "/v1/breakers:reset", `{"id":"gpt-4o"}`, nil, 400, "invalid_format"},
		{"B31", "DELETE", "/v1/prices", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?group_by=mood", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?group_by=model,model", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?interval=year", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?from=yesterday", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?from=2026-13-45T00:00:00Z", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/spend?per_day=0", nil, nil, 400, "invalid_parameter"},
		{"B23", "PUT", "/v1/incidents", `{}`, nil, 405, "method_not_allowed"},
		{"B23", "GET", "/v1/incidents/" + noIncident + ":resolve", nil, nil, 405, "method_not_allowed"},
		{"B37", "GET", "/v1/incidents?cursor=" + formatCursor("budgets", "a"), nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/budgets?cursor=abcd", nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/runs?limit=0", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs?limit=201", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs?limit=ten", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs?limit=1&limit=2", nil, nil, 400, "repeated_parameter"},
		{"B37", "GET", "/v1/runs?limit=%zz", nil, nil, 400, "invalid_query"},
		{"B37", "GET", "/v1/runs?cursor=!!", nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/runs?cursor=abcd", nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/runs?cursor=" + formatCursor("workflows", "greet"), nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/workflows?cursor=" + formatCursor("workflows", 7), nil, nil, 400, "invalid_cursor"},
		{"B37", "GET", "/v1/runs/" + run + "?include=everything", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs/" + run + "/events?after=-1", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs/" + run + "/events?wait=61", nil, nil, 400, "invalid_parameter"},
		{"B37", "GET", "/v1/runs/" + run + "/events", nil, []string{"Last-Event-ID: last"}, 400, "invalid_parameter"},
		{"B37", "POST", "/v1/runs", `{"workflow":"greet"}`, []string{"Prefer: wait=long"}, 400, "invalid_parameter"},
		{"B44", "POST", "/v1/runs/" + run + "/resume", `{}`, nil, 409, "run_not_failed"},
		{"B51", "POST", "/v1/workflows", `{"definition":[]}`, nil, 400, "wrong_type"},
		{"B51", "POST", "/v1/workflows", `{}`, nil, 400, "missing_field"},
		{"B53", "POST", "/v1/runs", `{"definition":{"spec":"workflow/v1","name":"x","steps":[{"id":"a","needs":["b"],"set":{"x":1}}]}}`, nil, 422, ""},
		{"B53", "POST", "/v1/workflows:validate", "spec: workflow/v1\nname: x\nsteps:\n  - {id: a, needs: [b], set: {x: 1}}\n", []string{"Content-Type: application/yaml"}, 422, ""},
		{"B72", "POST", "/v1/runs", `{"definition":{"spec":"workflow/v1","name":"x","input":{"type":"object","required":["n"]},"steps":[{"id":"a","set":{"x":1}}]}}`, nil, 422, "input_invalid"},
		{"B77", "POST", "/v1/runs", `{"workflow":"nobody"}`, nil, 404, "workflow_not_found"},
		{"B77", "POST", "/v1/runs", `{"workflow":"nobody@3"}`, nil, 404, "workflow_not_found"},
		{"B77", "POST", "/v1/runs", `{"workflow":"nobody@0"}`, nil, 400, "invalid_format"},
		{"B77", "POST", "/v1/runs", `{"workflow":"a","definition":` + greeting + `}`, nil, 422, "workflow_or_definition"},
		{"B77", "POST", "/v1/runs", `{}`, nil, 422, "workflow_or_definition"},
		{"B79", "TRACE", "/v1/runs", nil, nil, 405, "method_not_allowed"},
		{"B79", "BREW", "/v1/runs", nil, nil, 405, "method_not_allowed"},
		{"B84", "POST", "/v1/runs", `{"workflow":"gr\u200beet"}`, nil, 400, "invalid_format"},
		{"B84", "POST", "/v1/runs", `{"workflow":"greet","labels":{"` + strings.Repeat("ü", 40) + `":""}}`, nil, 400, "invalid_label"},
	}
	for i, c := range cases {
		t.Run(fmt.Sprintf("%s_%d", c.row, i), func(t *testing.T) {
			a := s.send(t, c.method, c.path, c.body, c.headers...).want(c.status)
			if got := a.problem().Code; c.code != "" && got != c.code {
				t.Fatalf("%s %s: got %s, want %s: %s", c.method, c.path, got, c.code, a.body)
			}
			if strings.Contains(string(a.body), "drop table") {
				t.Fatalf("the answer echoes what was sent: %s", a.body)
			}
		})
	}
	if len(s.mem.runs) != before || len(s.mem.workflows) != 0 || len(s.mem.keys) != 0 || len(s.mem.money.budgets) != 0 || len(s.mem.money.plans) != 0 {
		t.Errorf("something is left: %d runs more, %d workflows, %d keys", len(s.mem.runs)-before, len(s.mem.workflows), len(s.mem.keys))
	}
}

// What is wrong is never shown back: it might be a secret.
func TestProblemsDoNotEcho(t *testing.T) {
	s := newService(t, nil)
	const canary = "sk-canary-7f3a"
	for _, body := range []string{
		`{"workflow":"` + canary + ` "}`, `{"stakes":"` + canary + `","workflow":"x"}`, `{"priority":"` + canary + `"}`,
		`{"input":"` + canary, `{"labels":"` + canary + `"}`,
	} {
		if a := s.send(t, "POST", "/v1/runs", body).want(400); strings.Contains(string(a.body), canary) {
			t.Errorf("%s comes back in %s", body, a.body)
		}
	}
	if strings.Contains(s.log.String(), canary) {
		t.Error("the canary is in the log")
	}
}

func TestAllParametersAreChecked(t *testing.T) {
	s := newService(t, nil)
	p := s.send(t, "GET", "/v1/runs?limit=0&status=none&workflow=%20", nil).wantProblem(400, "invalid_parameter")
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Parameter)
	}
	if d := cmp.Diff([]string{"limit", "status", "workflow"}, got); d != "" {
		t.Error(d)
	}
}

func TestIssuesPointIntoTheBody(t *testing.T) {
	s := newService(t, nil)
	p := s.send(t, "POST", "/v1/runs", "{\n  \"workflow\": \"greet\",\n  \"priority\": 12,\n  \"labels\": {\"a/b\": 7},\n  \"stakes\": \"huge\"\n}").wantProblem(400, "wrong_type")
	want := map[string][2]int{"/priority": {3, 15}, "/labels/a~1b": {4, 21}, "/stakes": {5, 13}}
	if len(p.Errors) != len(want) {
		t.Fatalf("got %+v", p.Errors)
	}
	for _, e := range p.Errors {
		if at := want[e.Pointer]; at != [2]int{e.Line, e.Col} {
			t.Errorf("%s at %d:%d, want %v", e.Pointer, e.Line, e.Col, at)
		}
	}
}

// Issues of a definition point into what was sent, with the lines of the request where the definition is JSON.
func TestIssuesOfADefinition(t *testing.T) {
	s := newService(t, nil)
	p := s.send(t, "POST", "/v1/runs", "{\"input\": {},\n \"definition\": {\"spec\": \"workflow/v1\", \"name\": \"x\",\n  \"steps\": [{\"id\": \"a\", \"needs\": [\"hello\"], \"set\": {\"x\": 1}}, {\"id\": \"helo\", \"set\": {\"x\": 1}}]}}").want(422).problem()
	if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Pointer, "/definition/steps/0/needs") || p.Errors[0].Line != 3 {
		t.Errorf("JSON: got %+v", p.Errors)
	}
	text := "spec: workflow/v1\nname: x\nsteps:\n  - {id: a, needs: [b], set: {x: 1}}\n"
	p = s.send(t, "POST", "/v1/runs", map[string]any{"definition": text}).want(422).problem()
	if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Pointer, "/definition/steps/0/needs") || p.Errors[0].Line != 4 {
		t.Errorf("YAML inside JSON: got %+v", p.Errors)
	}
	p = s.send(t, "POST", "/v1/workflows:validate", text, "Content-Type: application/yaml").want(422).problem()
	if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Pointer, "/steps/0/needs") || p.Errors[0].Line != 4 {
		t.Errorf("YAML: got %+v", p.Errors)
	}
}

// Another tenant's run does not exist, on every operation with its id, and neither does its incident or approval. (B30)
func TestOtherTenantsRunsDoNotExist(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	id, err := parseRunID(run)
	if err != nil {
		t.Fatal(err)
	}
	s.mem.runs[id].row.Tenant = uuid.MustParse("00000000-0000-7000-8000-000000000002")
	for _, r := range routes {
		if !strings.HasPrefix(r.path, "/v1/runs/{id}") {
			continue
		}
		path := strings.NewReplacer("{id}", run, "{step}", "work", "{name}", "go").Replace(r.path)
		var body any
		if r.method == "POST" {
			body = `{}`
		}
		s.send(t, r.method, path, body).wantProblem(404, "run_not_found")
		s.send(t, r.method, path, body, "Accept: application/json, text/event-stream").wantProblem(404, "run_not_found")
	}
	var page RunPage
	if s.send(t, "GET", "/v1/runs", nil).want(200).json(&page); len(page.Data) != 0 {
		t.Errorf("it is listed: %+v", page.Data)
	}
	s.mem.incidents = []store.IncidentRow{brokenContract(1)}
	s.mem.incidents[0].Tenant = s.mem.runs[id].row.Tenant
	s.send(t, "POST", "/v1/incidents/"+incident.Name(s.mem.incidents[0].ID)+":resolve", `{}`).wantProblem(404, "incident_not_found")
	s.send(t, "POST", "/v1/expressions:evaluate", `{"expression":"1","run":"`+run+`"}`).wantProblem(404, "run_not_found")
	s.mem.people.approvals = []store.ApprovalRow{articleQuestion(1)}
	s.mem.people.approvals[0].Tenant = s.mem.runs[id].row.Tenant
	for _, method := range []string{"GET", "POST"} {
		s.send(t, method, "/v1/approvals/"+formatApprovalID(s.mem.people.approvals[0].Approval), `{"choice":"approve"}`).wantProblem(404, "approval_not_found")
	}
	var incidents IncidentPage
	if s.send(t, "GET", "/v1/incidents", nil).want(200).json(&incidents); len(incidents.Data) != 0 {
		t.Errorf("it is listed: %+v", incidents.Data)
	}
}

// What only shows on a connection: lengths that lie, bodies without end, headers without end. (B18, B19)
func TestBadConnections(t *testing.T) {
	s := newService(t, nil)
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(ServerConfig{}, s.handler)
	server.Start()
	defer server.Close()
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat("a", 1<<20))
	cases := []struct {
		name, request string
		status        int
	}{
		{"both lengths", "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		{"no host", "GET /v1/runs HTTP/1.1\r\n\r\n", 400},
		{"chunks without end", "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 4), 413},
		{"announced too large", "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n", 413},
		{"headers too large", "GET /livez HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 100_000) + "\r\n\r\n", 431},
		{"CONNECT", "CONNECT /v1/runs HTTP/1.1\r\nHost: x\r\n\r\n", 405},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, c.request) }() // it may be cut off in the middle
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Fatalf("got %s, want %d", resp.Status, c.status)
			}
			if c.status == 413 && !resp.Close {
				t.Error("the connection stays open")
			}
		})
	}
	if len(s.mem.runs) != 0 {
		t.Error("something is left")
	}
}
