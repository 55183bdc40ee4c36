package provider

import (
	"hash/maphash"
	"regexp"
	"strings"
	"sync"
)

// quirk is how a model wants to be asked.
type quirk struct {
	format           format // the most that is asked for
	completionTokens bool   // takes max_completion_tokens, refuses max_tokens
	noSampling       bool   // takes neither temperature nor top_p
	noStreamOptions  bool
	noEffort         bool
	noStrictTools    bool // takes no strict in the definition of a tool
	cacheKey         bool // takes prompt_cache_key
}

// quirksByModel come on top of the vendor's, on whatever server. The first prefix that fits holds.
var quirksByModel = []struct {
	prefix string
	quirk  quirk
}{
	// Models of OpenAI that reason take neither max_tokens nor a temperature; the others take no effort.
	{"gpt-5", quirk{completionTokens: true, noSampling: true}},
	{"gpt-4", quirk{noEffort: true}},
	{"gpt-3", quirk{noEffort: true}},
	{"o1", quirk{completionTokens: true, noSampling: true}},
	{"o3", quirk{completionTokens: true, noSampling: true}},
	{"o4", quirk{completionTokens: true, noSampling: true}},
	// Of Grok only the small model of the third generation and those from 4.3 on can be told how much to think.
	{"grok-3-mini", quirk{}},
	{"grok-4.3", quirk{}},
	{"grok-4.5", quirk{}},
	{"grok-3", quirk{noEffort: true}},
	{"grok-4", quirk{noEffort: true}},
	{"grok-code", quirk{noEffort: true}},
}

// with lays what is known of a model over what is known of its vendor.
func (q quirk) with(model quirk) quirk {
	q.completionTokens = q.completionTokens || model.completionTokens
	q.noSampling = q.noSampling || model.noSampling
	q.noEffort = q.noEffort || model.noEffort
	return q
}

// lessonsMax bounds what is remembered; beyond it everything is learned anew.
const lessonsMax = 10_000

// lessons are what a server was found not to take, by model or by model and schema.
type lessons struct {
	vendor quirk
	mu     sync.RWMutex
	known  map[lessonKey]quirk
}

type lessonKey struct {
	model  string
	schema uint64 // 0: of the model with any schema
}

var schemaSeed = maphash.MakeSeed()

func schemaKey(c Call) lessonKey {
	return lessonKey{c.Model, maphash.Bytes(schemaSeed, c.Ask.Schema) | 1}
}

// quirk is how a call is best put: by the tables, then by experience.
func (l *lessons) quirk(c Call) quirk {
	q := l.vendor
	name := bareName(c.Model)
	for _, known := range quirksByModel {
		if strings.HasPrefix(name, known.prefix) {
			q = q.with(known.quirk)
			break
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if learned, ok := l.known[lessonKey{model: c.Model}]; ok {
		q = learned
	}
	if len(c.Ask.Schema) > 0 {
		if learned, ok := l.known[schemaKey(c)]; ok {
			q.format = min(q.format, learned.format)
		}
	}
	return q
}

// bareName is a model's name without the vendor that routers put before it.
func bareName(model string) string {
	return strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
}

var (
	aboutSchema     = regexp.MustCompile(`(?i)response_format|response mime type|json_schema|structured.?output|guided|grammar|schema`)
	aboutThisSchema = regexp.MustCompile(`(?i)invalid.{0,20}schema|schema.{0,40}(invalid|is not valid)|in context=|invalid_json_schema`)
	aboutSampling   = regexp.MustCompile(`(?i)temperature|top_p`)
	aboutEffort     = regexp.MustCompile(`(?i)reasoning.?effort|thinking.?(level|budget)`)
	aboutStrict     = regexp.MustCompile(`(?i)\bstrict\b`)
)

// learn draws a lesson from a refusal, if it is about something optional that was sent. It answers true if the next
// call of the kind will be put differently.
func (l *lessons) learn(c Call, s sent, status int, class Class, message string) bool {
	if status != 400 && status != 404 && status != 422 && status != 501 {
		return false
	}
	if class != ClassCapabilityMismatch && class != ClassInvalidRequest && status != 501 {
		return false
	}
	q := l.quirk(c)
	before := q
	key := lessonKey{model: c.Model}
	switch {
	case s.streamOptions && strings.Contains(message, "stream_options"):
		q.noStreamOptions = true
	case s.cacheKey && strings.Contains(message, "prompt_cache_key"):
		q.cacheKey = false
	case !s.completion && strings.Contains(message, "max_completion_tokens"):
		q.completionTokens = true
	case s.completion && strings.Contains(message, "max_completion_tokens"):
		q.completionTokens = false
	case s.effort && aboutEffort.MatchString(message):
		q.noEffort = true
	case s.sampling && aboutSampling.MatchString(message):
		q.noSampling = true
	case s.strictTools && aboutStrict.MatchString(message):
		q.noStrictTools = true
	case s.format > formatPrompt && aboutSchema.MatchString(message):
		q.format = s.format - 1
		if aboutThisSchema.MatchString(message) {
			key = schemaKey(c)
		}
	}
	if q == before {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= lessonsMax {
		l.known = map[lessonKey]quirk{}
	}
	l.known[key] = q
	return true
}
