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
	noTemperature    bool
	noStreamOptions  bool
}

// quirksByPrefix: reasoning models of OpenAI take neither max_tokens nor a temperature.
var quirksByPrefix = []struct {
	prefix string
	quirk
}{
	{"gpt-5", quirk{completionTokens: true, noTemperature: true}},
	{"o1", quirk{completionTokens: true, noTemperature: true}},
	{"o3", quirk{completionTokens: true, noTemperature: true}},
	{"o4", quirk{completionTokens: true, noTemperature: true}},
}

// lessonsMax bounds what is remembered; beyond it everything is learned anew.
const lessonsMax = 10_000

// lessons are what a server was found not to take, by model or by model and schema.
type lessons struct {
	mu    sync.RWMutex
	known map[lessonKey]quirk
}

type lessonKey struct {
	model  string
	schema uint64 // 0: of the model with any schema
}

var schemaSeed = maphash.MakeSeed()

func schemaKey(c Call) lessonKey {
	return lessonKey{c.Model, maphash.Bytes(schemaSeed, c.Ask.Schema) | 1}
}

// quirk is how a call is best put: by the table, then by experience.
func (l *lessons) quirk(c Call) quirk {
	q := quirk{format: formatSchema}
	name := c.Model[strings.LastIndexByte(c.Model, '/')+1:]
	for _, known := range quirksByPrefix {
		if strings.HasPrefix(name, known.prefix) {
			q.completionTokens, q.noTemperature = known.completionTokens, known.noTemperature
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

var (
	aboutSchema     = regexp.MustCompile(`(?i)response_format|json_schema|structured.?output|guided|grammar|schema`)
	aboutThisSchema = regexp.MustCompile(`(?i)invalid.{0,20}schema|schema.{0,40}(invalid|is not valid)|in context=|invalid_json_schema`)
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
	case !s.completion && strings.Contains(message, "max_completion_tokens"):
		q.completionTokens = true
	case s.completion && strings.Contains(message, "max_completion_tokens"):
		q.completionTokens = false
	case s.temperature && strings.Contains(strings.ToLower(message), "temperature"):
		q.noTemperature = true
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
