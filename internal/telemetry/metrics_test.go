package telemetry

import (
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/fermata-run/fermata/internal/usage"
)

var update = flag.Bool("update", false, "rewrite testdata")

// everything uses each metric once, so that all of them have a series.
func everything(m *Metrics) {
	m.RunAccepted("qc", "api")
	m.RunStarted(time.Millisecond)
	m.RunFinished("qc", "succeeded", time.Second)
	m.RunsRecovered("startup", 2)
	m.Intervention("resume")
	m.RunsByState(map[string]int{"running": 3})
	m.RunDegraded("w")
	m.ApprovalsOpen(1, time.Unix(1, 0))
	m.GateReached("w", true)
	m.StepFinished("agent", "succeeded", time.Second)
	m.AttemptFinished("producer", "ok")
	m.StepQueued(time.Millisecond)
	m.IncidentOpened("invalid_output")
	m.IncidentsOpen(1)
	m.Committed(time.Millisecond, 3, 9)
	m.StaleWrites(1)
	m.LeaseExpired(1)
	m.Leases(4)
	m.TxRetried("deadlock")
	m.RunsOwned(7)
	m.WorkersBusy(5)
	m.ModelsKnown([]string{"gpt-4o"})
	m.ModelCalls("producer", calls())
	m.ModelCalls("producer", []usage.Call{{Provider: "openai", Model: "gpt-4o", Class: "server"}, {Provider: "openai", Model: "gpt-4o", Try: 2}})
	m.ModelPassedOver("gpt-4o", "claude-sonnet-4-6", "unavailable")
	m.ModelInFlight("openai", 1)
	m.ModelAsked("production", time.Millisecond, true)
	m.ModelQueued("openai", time.Millisecond)
	m.RetryRefused("openai")
	m.BreakerChanged("openai/gpt-4o", "opened", "open")
	m.BudgetDenied("tenant", "reject")
	m.BudgetNoted("soft", 1)
	m.BudgetLevels([]BudgetLevel{{Name: "monthly", Limit: 10, Spent: 5, Reserved: 1}}, time.Millisecond)
	m.HTTPRequest("GET", "/v1/runs/{run}", 200, time.Millisecond)
	m.HTTPInFlight(1)
	m.StreamsOpen("run", 1)
	m.Idempotency("replay")
}

func calls() []usage.Call {
	return []usage.Call{
		{Provider: "openai", Model: "gpt-4o", Class: "rate_limited", Millis: 20},
		{
			Provider: "anthropic", Model: "claude-sonnet-4-6", Depth: 1, Millis: 900, FirstMillis: 200, Cost: 12_500_000,
			Baseline: 20_000_000, CacheSaved: 1_000_000,
			Tokens: usage.Tokens{Input: 100, CacheRead: 40, CacheWrite: 5, Output: 30, Reasoning: 7},
		},
		{Provider: "local", Model: "tiny", Depth: 1, Millis: 5, Unpriced: true, Tokens: usage.Tokens{Input: 1}},
		{Provider: "openai", Model: "gpt-4o", Simulated: true, Millis: 1, Cost: 1_000_000, Tokens: usage.Tokens{Output: 3}},
	}
}

func newMetrics() (*Metrics, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return New(reg, Build{Version: "dev", Revision: "abc", GoVersion: "go1.26"}), reg
}

// The list of metrics is an interface that dashboards and alerts stand on: a change of it must be seen in review.
func TestNamesAreTheReviewedOnes(t *testing.T) {
	m, reg := newMetrics()
	everything(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		labels := map[string]bool{}
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		names := make([]string, 0, len(labels))
		for l := range labels {
			names = append(names, l)
		}
		sort.Strings(names)
		kind := strings.ToLower(f.GetType().String())
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.GetName(), kind, strings.Join(names, ","))))
	}
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("metrics changed; run with -update if that is meant (-want +got):\n%s", diff)
	}
}

func TestNamesFollowTheConventions(t *testing.T) {
	m, reg := newMetrics()
	everything(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestKnownSeriesStartAtZero(t *testing.T) {
	m, reg := newMetrics()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, f := range families {
		seen[f.GetName()] = len(f.GetMetric())
	}
	for name, want := range map[string]int{
		"fermata_runs": 5, "fermata_steps_finished_total": 52, "fermata_idempotency_results_total": 4,
		"fermata_runs_recovered_total": 3, "fermata_run_interventions_total": 2, "fermata_run_start_delay_seconds": 1,
		"fermata_stale_writes_rejected_total": 1, "fermata_event_append_duration_seconds": 1,
	} {
		if seen[name] != want {
			t.Errorf("%s has %d series before its first use, want %d", name, seen[name], want)
		}
	}
	m.RunAccepted("qc", "api")
	for _, outcome := range runOutcomes {
		if got := value(t, reg, "fermata_runs_finished_total", "outcome="+outcome, "workflow=qc"); got != 0 {
			t.Errorf("an accepted workflow has %v runs that %s, want 0 and not absent", got, outcome)
		}
	}
}

func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			var have []string
			for _, l := range s.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			if cmp.Equal(have, labels) || len(have) == 0 && len(labels) == 0 {
				return s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func TestModelCallsAreCountedOnceEach(t *testing.T) {
	m, reg := newMetrics()
	m.ModelsKnown([]string{"gpt-4o"})
	m.ModelCalls("producer", calls())
	for _, c := range []struct {
		name   string
		want   float64
		labels []string
	}{
		{"fermata_llm_requests_total", 1, []string{"agent=producer", "model=gpt-4o", "outcome=rate_limited", "provider=openai"}},
		{"fermata_llm_requests_total", 0, []string{"agent=producer", "model=gpt-4o", "outcome=ok", "provider=openai"}},
		{"fermata_llm_requests_total", 1, []string{"agent=producer", "model=claude-sonnet-4-6", "outcome=ok", "provider=anthropic"}},
		{"fermata_llm_tokens_total", 100, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic", "type=input"}},
		{"fermata_llm_tokens_total", 40, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic", "type=cache_read"}},
		{"fermata_llm_tokens_total", 5, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic", "type=cache_write"}},
		{"fermata_llm_tokens_total", 30, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic", "type=output"}},
		{"fermata_llm_tokens_total", 7, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic", "type=reasoning"}},
		{"fermata_llm_cost_usd_total", 0.0125, []string{"agent=producer", "model=claude-sonnet-4-6", "provider=anthropic"}},
		{"fermata_llm_cost_usd_total", 0, []string{"agent=producer", "model=tiny", "provider=local"}},
		{"fermata_llm_cost_usd_total", 0.001, []string{"agent=producer", "model=gpt-4o", "provider=simulated"}},
		{"fermata_llm_unpriced_requests_total", 1, []string{"model=tiny"}},
		{"fermata_llm_fallbacks_total", 1, []string{"from_model=gpt-4o", "reason=rate_limited", "to_model=claude-sonnet-4-6"}},
		{"fermata_llm_request_duration_seconds", 1, []string{"model=tiny", "provider=local"}},
	} {
		if got := value(t, reg, c.name, c.labels...); got != c.want {
			t.Errorf("%s%v = %v, want %v", c.name, c.labels, got, c.want)
		}
	}
}

// A thousand invented names must cost neither memory nor the truth of the sums.
func TestNamesWithoutRoomGoToOther(t *testing.T) {
	m, reg := newMetrics()
	const invented = 1000
	for i := range invented {
		name := fmt.Sprintf("w%d", i)
		m.RunAccepted(name, "api")
		m.RunFinished(name, "failed", time.Second)
		m.AttemptFinished(name, "ok")
		m.ModelCalls(name, []usage.Call{{Provider: name, Model: name, Cost: 1}})
		m.HTTPRequest("GET", name, 404, 0)
		m.HTTPRequest(name, "unmatched", 405, 0)
	}
	if got := value(t, reg, "fermata_runs_accepted_total", "source=api", "workflow=other"); got != invented-workflowsMax {
		t.Errorf("accepted under other: %v, want %d", got, invented-workflowsMax)
	}
	if got := value(t, reg, "fermata_step_attempts_total", "agent=other", "outcome=ok"); got != invented-agentsMax {
		t.Errorf("attempts under other: %v, want %d", got, invented-agentsMax)
	}
	if got := value(t, reg, "fermata_http_requests_total", "code=405", "method=other", "route=unmatched"); got != invented {
		t.Errorf("requests of invented methods: %v, want %d", got, invented)
	}
	if got := value(t, reg, "fermata_metric_label_overflow_total", "metric=model"); got != invented-modelsMax {
		t.Errorf("models without room counted: %v, want %d", got, invented-modelsMax)
	}
}

// Every combination of allowed names, and more: the llm series stay under their limit and no request is lost.
func TestCombinationsAreBounded(t *testing.T) {
	m, reg := newMetrics()
	requests := 0
	for p := range 10 {
		for model := range 10 {
			for agent := range 10 {
				c := usage.Call{Provider: fmt.Sprint("p", p), Model: fmt.Sprint("m", model)}
				m.ModelCalls(fmt.Sprint("a", agent), []usage.Call{c})
				requests++
			}
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, series := 0.0, 0
	for _, f := range families {
		if f.GetName() == "fermata_llm_requests_total" {
			series = len(f.GetMetric())
			for _, s := range f.GetMetric() {
				sum += s.GetCounter().GetValue()
			}
		}
	}
	if sum != float64(requests) || series != tripletsMax+1 {
		t.Errorf("%v requests in %d series, want %d in %d", sum, series, requests, tripletsMax+1)
	}
}

// A lively service must stay within what one scrape of a Prometheus may cost.
func TestSeriesBudget(t *testing.T) {
	const budget = 5_000
	m, _ := newMetrics()
	for w := range 40 {
		for _, outcome := range runOutcomes {
			m.RunAccepted(fmt.Sprint("workflow", w), "api")
			m.RunFinished(fmt.Sprint("workflow", w), outcome, time.Second)
		}
	}
	for a := range 30 {
		agent := fmt.Sprint("agent", a)
		for i := range 5 { // an agent has a chain of a few models, not all of them
			model := fmt.Sprint("model", (a+i)%12)
			m.ModelCalls(agent, []usage.Call{{Provider: "openai", Model: model}, {Provider: "openai", Model: model, Class: "timeout"}})
		}
		for _, class := range []string{"ok", "rate_limited", "timeout", "invalid_output", "server"} {
			m.AttemptFinished(agent, class)
		}
	}
	for r := range 25 {
		for _, code := range []int{200, 400, 404, 503} {
			m.HTTPRequest("GET", fmt.Sprint("/v1/", r), code, time.Millisecond)
		}
	}
	everything(m)
	page := httptest.NewRecorder()
	m.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	series := 0
	for line := range strings.Lines(page.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if page.Code != 200 || series > budget || series < 1_000 {
		t.Errorf("answered %d with %d series, want 200 with at most %d", page.Code, series, budget)
	}
}

func TestNilDoesNothing(t *testing.T) {
	var m *Metrics
	everything(m)
	m.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	// everything must know every method: one that is forgotten there is not tested here.
	const tested = 36
	exported := reflect.TypeFor[*Metrics]().NumMethod() - 1 // Handler
	if exported != tested {
		t.Errorf("*Metrics has %d methods besides Handler, everything() uses %d: add the new one", exported, tested)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	m, _ := newMetrics()
	line := calls()
	hot := func() {
		m.RunAccepted("qc", "api")
		m.RunFinished("qc", "succeeded", time.Second)
		m.StepFinished("agent", "succeeded", time.Second)
		m.AttemptFinished("producer", "ok")
		m.StepQueued(time.Millisecond)
		m.Committed(time.Millisecond, 3, 9)
		m.ModelCalls("producer", line)
		m.ModelInFlight("openai", 1)
		m.ModelAsked("production", time.Millisecond, true)
		m.ModelQueued("openai", time.Millisecond)
		m.HTTPRequest("POST", "/v1/runs", 202, time.Millisecond)
		m.RunsOwned(1)
	}
	hot()
	if n := testing.AllocsPerRun(100, hot); n > 0 {
		t.Errorf("the hot path allocates %v times", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	m, reg := newMetrics()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				m.RunAccepted(fmt.Sprint("w", i), "api")
				everything(m)
			}
		})
	}
	wg.Wait()
	if got := value(t, reg, "fermata_runs_recovered_total", "reason=startup"); got != 8*100*2 {
		t.Errorf("recovered %v, want %d", got, 8*100*2)
	}
}

// Whoever asks names the model: ten thousand names that nobody answers to make no series of their own.
func TestMadeUpModelsMakeNoSeries(t *testing.T) {
	m, reg := newMetrics()
	count := func() (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	ask := func(i int) {
		name := fmt.Sprint("made-up-", i)
		m.ModelCalls("", []usage.Call{{Provider: "openai", Model: name, Class: "not_found"}, {Provider: "openai", Model: name, Class: "not_found", Depth: 1}})
		m.BreakerChanged("openai/"+name, "disabled", "open")
		m.ModelPassedOver(name, name, "unavailable")
	}
	ask(0)
	before := count()
	for i := range 10_000 {
		ask(i)
	}
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}
