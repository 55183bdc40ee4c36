package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fermata-run/fermata/internal/usage"
)

// providerSimulated is the provider of every call that reached no real model, whatever name it went by: no sum over
// real providers can contain it by accident.
const providerSimulated = "simulated"

// triplet is who answered whom.
type triplet struct{ provider, model, agent string }

// modelSeries are the series of one triplet.
type modelSeries struct {
	answered                                        prometheus.Counter
	input, cacheRead, cacheWrite, output, reasoning prometheus.Counter
	cost, baseline                                  prometheus.Counter
	saved                                           prometheus.Counter
}

type modelMetrics struct {
	names     *names
	series    *cache[triplet, modelSeries]
	failed    *cache[[4]string, prometheus.Counter] // provider, model, agent, class
	took      *cache[[2]string, prometheus.Observer]
	unpriced  *cache[string, prometheus.Counter]
	fallbacks *cache[[3]string, prometheus.Counter] // from, to, class
	retries   *cache[[3]string, prometheus.Counter] // provider, model, class
	inFlight  *cache[string, prometheus.Gauge]

	// The same under OpenTelemetry's names for generative AI, for dashboards that know those.
	genDuration *cache[[3]string, prometheus.Observer] // provider, model, error type
	genTokens   *cache[[3]string, prometheus.Observer] // provider, model, token type
	genFirst    *cache[[2]string, prometheus.Observer] // provider, model
}

func newModelMetrics(f factory, n *names) modelMetrics {
	requests := f.counters("llm_requests_total", "Requests to model providers: ok or the class of the error.", "provider", "model", "agent", "outcome")
	tokens := f.counters("llm_tokens_total", "Tokens by disjoint type: their sum is what was processed. Input is what no cache served; output is what could be seen, reasoning what could not.", "provider", "model", "agent", "type")
	cost := f.counters("llm_cost_usd_total", "Cost of requests with a known price. Under provider \"simulated\": what the real model would have cost.", "provider", "model", "agent")
	took := f.histograms("llm_request_duration_seconds", "Time of a request to a model provider, answered or not.", bucketsModel(), "provider", "model")
	baseline := f.counters("llm_baseline_usd_total", "What the answered requests would have cost on the baseline model, without caching.", "provider", "model", "agent")
	saved := f.counters("llm_cache_saved_usd_total", "What the providers' prompt caches took off; what writing to them cost is taken off where it is less.", "provider", "model", "agent")
	genDuration := f.semantic("gen_ai_client_operation_duration_seconds", "Duration of a request to a model (OpenTelemetry gen_ai.client.operation.duration).", bucketsModel(), "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type")
	genTokens := f.semantic("gen_ai_client_token_usage", "Tokens of a request (OpenTelemetry gen_ai.client.token.usage).", bucketsTokens(), "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type")
	genFirst := f.semantic("gen_ai_client_operation_time_to_first_chunk_seconds", "Time until an answer began (OpenTelemetry gen_ai.client.operation.time_to_first_chunk).", bucketsModel(), "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
	unpriced := f.counters("llm_unpriced_requests_total", "Requests whose price is unknown; they are not in llm_cost_usd_total.", "model")
	fallbacks := f.counters("llm_fallbacks_total", "Times a chain went on to its next model, and why.", "from_model", "to_model", "reason")
	retries := f.counters("llm_retries_total", "Requests to the model that had just failed, and why it had.", "provider", "model", "reason")
	inFlight := f.gauges("llm_requests_in_flight", "Requests that wait for their model provider.", "provider")
	other := triplet{labelOther, labelOther, labelOther}
	m := modelMetrics{
		names: n,
		series: newCache(func(k triplet) modelSeries {
			of := func(kind string) prometheus.Counter {
				return tokens.WithLabelValues(k.provider, k.model, k.agent, kind)
			}
			return modelSeries{
				answered: requests.WithLabelValues(k.provider, k.model, k.agent, attemptOK),
				input:    of("input"), cacheRead: of("cache_read"), cacheWrite: of("cache_write"),
				output: of("output"), reasoning: of("reasoning"),
				cost:     cost.WithLabelValues(k.provider, k.model, k.agent),
				baseline: baseline.WithLabelValues(k.provider, k.model, k.agent),
				saved:    saved.WithLabelValues(k.provider, k.model, k.agent),
			}
		}).bounded(tripletsMax, other, n.triplets),
		failed: newCache(func(k [4]string) prometheus.Counter { return requests.WithLabelValues(k[:]...) }).
			bounded(tripletsMax, [4]string{labelOther, labelOther, labelOther, labelOther}, n.triplets),
		took: newCache(func(k [2]string) prometheus.Observer { return took.WithLabelValues(k[:]...) }).
			bounded(pairsMax, [2]string{labelOther, labelOther}, n.triplets),
		unpriced: newCache(func(model string) prometheus.Counter { return unpriced.WithLabelValues(model) }),
		fallbacks: newCache(func(k [3]string) prometheus.Counter { return fallbacks.WithLabelValues(k[:]...) }).
			bounded(pairsMax, [3]string{labelOther, labelOther, labelOther}, n.pairs),
		genDuration: newCache(func(k [3]string) prometheus.Observer { return genDuration.WithLabelValues("chat", k[0], k[1], k[2]) }).
			bounded(tripletsMax, [3]string{labelOther, labelOther, labelOther}, n.triplets),
		genTokens: newCache(func(k [3]string) prometheus.Observer { return genTokens.WithLabelValues("chat", k[0], k[1], k[2]) }).
			bounded(tripletsMax, [3]string{labelOther, labelOther, labelOther}, n.triplets),
		genFirst: newCache(func(k [2]string) prometheus.Observer { return genFirst.WithLabelValues("chat", k[0], k[1]) }).
			bounded(pairsMax, [2]string{labelOther, labelOther}, n.triplets),
		retries: newCache(func(k [3]string) prometheus.Counter { return retries.WithLabelValues(k[:]...) }).
			bounded(tripletsMax, [3]string{labelOther, labelOther, labelOther}, n.triplets),
		inFlight: newCache(func(provider string) prometheus.Gauge { return inFlight.WithLabelValues(provider) }),
	}
	m.inFlight.of(n.providers.value(providerSimulated))
	return m
}

// ModelsKnown keeps a place for the names of models that are known beforehand.
func (m *Metrics) ModelsKnown(names []string) {
	if m == nil {
		return
	}
	for _, name := range names {
		m.models.names.models.value(name)
	}
}

// ModelCalls counts the requests of one attempt, in the order they were made.
func (m *Metrics) ModelCalls(agent string, calls []usage.Call) {
	if m == nil {
		return
	}
	agent = m.models.names.agents.value(agent)
	for i := range calls {
		m.models.count(agent, &calls[i])
		if i > 0 && calls[i].Depth > calls[i-1].Depth {
			m.models.fellThrough(&calls[i-1], &calls[i])
		}
		if i > 0 && calls[i].Depth == calls[i-1].Depth && calls[i-1].Class != "" {
			m.models.askedAgain(&calls[i], calls[i-1].Class)
		}
	}
}

func (m *modelMetrics) count(agent string, c *usage.Call) {
	provider := c.Provider
	if c.Simulated {
		provider = providerSimulated
	}
	provider = m.names.providers.value(provider)
	// Whoever asks names the model: one that never answered is not given a series of its own.
	model := m.names.models.seen(c.Model)
	if c.Class == "" {
		model = m.names.models.value(c.Model)
	}
	s := m.series.of(triplet{provider, model, agent})
	if c.Class == "" {
		s.answered.Inc()
	} else {
		m.failed.of([4]string{provider, model, agent, m.names.classes.value(c.Class)}).Inc()
	}
	t := c.Tokens.Coarse()
	add(s.input, t.Input)
	add(s.cacheRead, t.CacheRead)
	add(s.cacheWrite, t.CacheWrite)
	add(s.output, t.Output)
	add(s.reasoning, t.Reasoning)
	m.semantic(provider, model, c)
	m.took.of([2]string{provider, model}).Observe(float64(c.Millis) / 1000)
	if c.Unpriced {
		m.unpriced.of(model).Inc()
		return
	}
	if c.Cost > 0 {
		s.cost.Add(float64(c.Cost) / float64(usage.USD))
	}
	if c.Baseline > 0 {
		s.baseline.Add(float64(c.Baseline) / float64(usage.USD))
	}
	if c.CacheSaved > 0 {
		s.saved.Add(float64(c.CacheSaved) / float64(usage.USD))
	}
}

// semantic counts a request under OpenTelemetry's names.
func (m *modelMetrics) semantic(provider, model string, c *usage.Call) {
	errorType := ""
	if c.Class != "" {
		errorType = m.names.classes.value(c.Class)
	}
	m.genDuration.of([3]string{provider, model, errorType}).Observe(float64(c.Millis) / 1000)
	if c.Tokens.Total() > 0 {
		m.genTokens.of([3]string{provider, model, "input"}).Observe(float64(c.Tokens.InputTotal()))
		m.genTokens.of([3]string{provider, model, "output"}).Observe(float64(c.Tokens.OutputTotal()))
	}
	if c.FirstMillis > 0 {
		m.genFirst.of([2]string{provider, model}).Observe(float64(c.FirstMillis) / 1000)
	}
}

func (m *modelMetrics) askedAgain(c *usage.Call, why string) {
	provider := c.Provider
	if c.Simulated {
		provider = providerSimulated
	}
	m.retries.of([3]string{m.names.providers.value(provider), m.names.models.seen(c.Model), m.names.classes.value(why)}).Inc()
}

func (m *modelMetrics) fellThrough(from, to *usage.Call) {
	reason := from.Class
	if reason == "" {
		reason = "not_accepted"
	}
	k := [3]string{m.names.models.seen(from.Model), m.names.models.seen(to.Model), m.names.classes.value(reason)}
	m.fallbacks.of(k).Inc()
}

// ModelPassedOver counts a model that was not asked because it was shut, for the one that answered instead.
func (m *Metrics) ModelPassedOver(from, to, class string) {
	if m == nil {
		return
	}
	n := m.models.names
	m.models.fallbacks.of([3]string{n.models.seen(from), n.models.seen(to), n.classes.value(class)}).Inc()
}

// add passes over what a counter must not be given: a negative count is a provider's nonsense.
func add(c prometheus.Counter, n int64) {
	if n > 0 {
		c.Add(float64(n))
	}
}

// ModelInFlight moves the number of requests that wait for a provider: +1 before, -1 after.
func (m *Metrics) ModelInFlight(provider string, delta int) {
	if m == nil {
		return
	}
	m.models.inFlight.of(m.models.names.providers.value(provider)).Add(float64(delta))
}
