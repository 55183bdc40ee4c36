package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
)

func sameJSON(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		t.Fatalf("%s or %s is not JSON", a, b)
	}
	return cmp.Equal(x, y)
}

// wide maps a tool over a list; its steps stand behind it with the item in their path.
const wide = `{"spec":"workflow/v1","name":"wide","steps":[{"id":"build","map":{"items":"input.parts","max_items":1000,"concurrency":1000,"on_item_error":"keep","steps":[{"id":"make","tool":"builtin:noop","retry":"none"},{"id":"note","set":{"n":"${{ index }}"}}]}},{"id":"after","needs":["build"],"set":{"x":1}}]}`

func (s *service) submitWide(t fataler, items int) RunID {
	t.Helper()
	parts, err := json.Marshal(make([]int, items))
	if err != nil {
		t.Fatalf("%v", err)
	}
	var run RunAccepted
	s.send(t, "POST", "/v1/runs", fmt.Sprintf(`{"definition":%s,"input":{"parts":%s}}`, wide, parts)).want(http.StatusAccepted).json(&run)
	return run.ID
}

func pathsOf(steps []Step) []string {
	paths := make([]string, len(steps))
	for i, s := range steps {
		paths[i] = s.Path
	}
	return paths
}

func TestStepsOfItems(t *testing.T) {
	s := newService(t, nil)
	run := s.submitWide(t, 2)
	s.mem.report(t, run, "build.0.make", flow.Outcome{Output: []byte(`"a"`)})
	s.mem.report(t, run, "build.1.make", failed("server"))
	var page StepPage
	s.send(t, "GET", "/v1/runs/"+run+"/steps", nil).want(http.StatusOK).json(&page)
	if diff := cmp.Diff([]string{"build", "build.0.make", "build.0.note", "build.1.make", "build.1.note", "after"}, pathsOf(page.Data)); diff != "" || page.Truncated || page.NextCursor != "" {
		t.Error(diff, page.Truncated)
	}
	if in := page.Data[0].Inside; in.Total != 2 || in.Succeeded != 1 || in.Failed != 1 {
		t.Errorf("got %+v", in)
	}
	var step Step
	s.send(t, "GET", "/v1/runs/"+run+"/steps/build.1.make", nil).want(http.StatusOK).json(&step)
	if step.Status != StepStatusFailed || step.Error.Class != "server" || len(step.Failures) != 1 {
		t.Errorf("got %+v", step)
	}
	p := s.send(t, "GET", "/v1/runs/"+run+"/steps/build.7.make", nil).wantProblem(http.StatusNotFound, "step_not_found")
	if !strings.HasPrefix(p.Errors[0].Suggest, "build.") {
		t.Errorf("got %+v", p.Errors)
	}
}

// Long logs are folded a few at a time; whoever gives up while waiting leaves no trace, and short ones do not wait.
func TestLongLogsWait(t *testing.T) {
	s := newService(t, nil)
	short, long := s.submitWide(t, 1), s.submitWide(t, 900)
	for i := range 900 {
		s.mem.report(t, long, fmt.Sprintf("build.%d.make", i), failed("server"))
	}
	for range foldingMax {
		s.folding <- struct{}{}
	}
	rowOf := func(id RunID) store.RunRow {
		run, err := parseRunID(id)
		if err != nil {
			t.Fatal(err)
		}
		row, err := s.mem.Run(t.Context(), store.TenantDefault, run)
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := s.folded(gone, rowOf(short)); err != nil {
		t.Errorf("a short log: %v", err)
	}
	if _, err := s.folded(gone, rowOf(long)); !errors.Is(err, context.Canceled) {
		t.Errorf("a long log while others are folded: %v", err)
	}
	for range foldingMax {
		<-s.folding
	}
	if _, err := s.folded(t.Context(), rowOf(long)); err != nil || len(s.folding) != 0 {
		t.Errorf("a long log: %v, places taken %d", err, len(s.folding))
	}
	var run Run
	if s.send(t, "GET", "/v1/runs/"+s.submitWide(t, 300), nil).want(http.StatusOK).json(&run); len(run.Stage) > stageShownMax {
		t.Errorf("%d steps at work are named", len(run.Stage))
	}
}

// What is inside a map is listed in pages; the list of all steps shows the first of it, and says so.
func TestManyStepsAreTruncated(t *testing.T) {
	s := newService(t, nil)
	const items = 150
	run := s.submitWide(t, items)
	var page StepPage
	s.send(t, "GET", "/v1/runs/"+run+"/steps", nil).want(http.StatusOK).json(&page)
	if paths := pathsOf(page.Data); !page.Truncated || len(paths) != 2+expandedShownMax || paths[len(paths)-1] != "after" {
		t.Errorf("got %d, truncated %t", len(page.Data), page.Truncated)
	}
	var whole Run
	if s.send(t, "GET", "/v1/runs/"+run+"?include=steps", nil).want(http.StatusOK).json(&whole); !whole.StepsTruncated || len(whole.Steps) != len(page.Data) {
		t.Errorf("got %d, truncated %t", len(whole.Steps), whole.StepsTruncated)
	}
	seen, query := map[string]bool{}, ""
	for pages := 0; ; pages++ {
		var page StepPage
		s.send(t, "GET", "/v1/runs/"+run+"/steps?under=build&limit=70"+query, nil).want(http.StatusOK).json(&page)
		for _, path := range pathsOf(page.Data) {
			seen[path] = true
		}
		if page.NextCursor == "" {
			if pages != 2*items/70 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
		query = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
	if len(seen) != 2*items || !seen["build.149.note"] || seen["build"] || seen["after"] {
		t.Errorf("%d steps", len(seen))
	}
	s.send(t, "GET", "/v1/runs/"+run+"/steps?under=build.3", nil).want(http.StatusOK).json(&page)
	if diff := cmp.Diff([]string{"build.3.make", "build.3.note"}, pathsOf(page.Data)); diff != "" {
		t.Error(diff)
	}
	p := s.send(t, "GET", "/v1/runs/"+run+"/steps?under=bild", nil).wantProblem(http.StatusNotFound, "step_not_found")
	if p.Errors[0].Parameter != "under" || p.Errors[0].Suggest != "build" {
		t.Errorf("got %+v", p.Errors)
	}
	s.send(t, "GET", "/v1/runs/"+run+"/steps?under=build&cursor="+formatCursor("steps/other", "x"), nil).wantProblem(http.StatusBadRequest, "invalid_cursor")
	s.send(t, "GET", "/v1/runs/"+run+"/steps?cursor="+formatCursor("steps/build", "x"), nil).wantProblem(http.StatusBadRequest, "invalid_cursor")
}
