package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const yamlBody = "Content-Type: application/yaml"

func TestPublish(t *testing.T) {
	s := newService(t, nil)
	a := s.send(t, "POST", "/v1/workflows", `{"definition":`+greeting+`}`).want(201)
	var first Workflow
	a.json(&first)
	if first.Name != "greet" || first.Version != 1 || a.header.Get("Location") != "/v1/workflows/greet/versions/1" {
		t.Errorf("got %+v %v", first, a.header)
	}
	same := s.send(t, "POST", "/v1/workflows", greeting, yamlBody).want(200)
	if same.header.Get("ETag") != a.header.Get("ETag") {
		t.Error("the same definition has another ETag")
	}
	s.send(t, "POST", "/v1/workflows", greeting2("other"), yamlBody).wantProblem(409, "workflow_exists")
	var shown Workflow
	s.send(t, "GET", "/v1/workflows/greet", nil).want(200).json(&shown)
	if d := cmp.Diff(first, shown); d != "" {
		t.Error(d)
	}
	s.send(t, "GET", "/v1/workflows/greet", nil, "If-None-Match: "+a.header.Get("ETag")).want(304)
	s.send(t, "GET", "/v1/workflows/greet/versions/1", nil, "If-None-Match: "+a.header.Get("ETag")).want(304)
	s.send(t, "GET", "/v1/workflows/greet/versions/2", nil).wantProblem(404, "workflow_not_found")
	s.send(t, "GET", "/v1/workflows/nobody", nil).wantProblem(404, "workflow_not_found")
	s.send(t, "GET", "/v1/workflows/nobody/versions", nil).wantProblem(404, "workflow_not_found")
}

// B38: without If-Match 428, with a stale one 412; a new name needs none.
func TestReplaceNeedsIfMatch(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("one"), yamlBody, `If-Match: "7-x"`).wantProblem(412, "precondition_failed")
	v1 := s.send(t, "PUT", "/v1/workflows/greet", greeting2("one"), yamlBody).want(201).header.Get("ETag")
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("two"), yamlBody).wantProblem(428, "precondition_required")
	v2 := s.send(t, "PUT", "/v1/workflows/greet", greeting2("two"), yamlBody, "If-Match: "+v1).want(200).header.Get("ETag")
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("three"), yamlBody, "If-Match: "+v1).wantProblem(412, "precondition_failed")
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("three"), yamlBody, `If-Match: "9-x", `+v2).want(200)
	s.send(t, "PUT", "/v1/workflows/greet", greeting2("four"), yamlBody, "If-Match: *").want(200)
	p := s.send(t, "PUT", "/v1/workflows/other", `{"definition":`+greeting+`}`).wantProblem(422, "name_mismatch")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/definition/name" || p.Errors[0].Suggest != "other" {
		t.Errorf("got %+v", p.Errors)
	}
	var page WorkflowPage
	s.send(t, "GET", "/v1/workflows/greet/versions?limit=3", nil).want(200).json(&page)
	var rest WorkflowPage
	s.send(t, "GET", "/v1/workflows/greet/versions?limit=3&cursor="+page.NextCursor, nil).want(200).json(&rest)
	var got []int32
	for _, w := range append(page.Data, rest.Data...) {
		got = append(got, w.Version)
	}
	if d := cmp.Diff([]int32{4, 3, 2, 1}, got); d != "" || rest.NextCursor != "" {
		t.Errorf("%s, then %q", d, rest.NextCursor)
	}
	s.send(t, "GET", "/v1/workflows/other/versions?cursor="+page.NextCursor, nil).wantProblem(400, "invalid_cursor")
}

func TestValidateStoresNothing(t *testing.T) {
	s := newService(t, nil)
	var v Validation
	s.send(t, "POST", "/v1/workflows:validate", greeting2("one"), yamlBody).want(200).json(&v)
	if !v.Valid || v.Name != "greet" || v.Steps != 1 || len(v.Hash) != 64 {
		t.Errorf("got %+v", v)
	}
	if len(s.mem.workflows)+len(s.mem.definitions) != 0 {
		t.Error("something was stored")
	}
	for _, broken := range []string{"name: x", "spec: workflow/v1\nname: x\nsteps: [{id: a}]"} {
		s.send(t, "POST", "/v1/workflows:validate", broken, yamlBody).want(422)
	}
	onValidate := s.send(t, "POST", "/v1/workflows:validate", "name: [", yamlBody).want(400).problem()
	onPublish := s.send(t, "POST", "/v1/workflows", "name: [", yamlBody).want(400).problem()
	if d := cmp.Diff(onPublish.Errors, onValidate.Errors); d != "" || onPublish.Code != onValidate.Code {
		t.Errorf("validate and publish say different things: %s, %s\n%s", onPublish.Code, onValidate.Code, d)
	}
}

func TestListWorkflows(t *testing.T) {
	s := newService(t, nil)
	for _, name := range []string{"b", "a", "c"} {
		s.send(t, "PUT", "/v1/workflows/"+name, "spec: workflow/v1\nname: "+name+"\nsteps: [{id: x, set: {a: 1}}]\n", yamlBody).want(201)
	}
	var got []string
	for path := "/v1/workflows?limit=2"; path != ""; {
		var page WorkflowPage
		s.send(t, "GET", path, nil).want(200).json(&page)
		for _, w := range page.Data {
			got = append(got, w.Name)
		}
		path = ""
		if page.NextCursor != "" {
			path = "/v1/workflows?limit=2&cursor=" + page.NextCursor
		}
	}
	if d := cmp.Diff([]string{"a", "b", "c"}, got); d != "" {
		t.Error(d)
	}
}
