package provider

import (
	"crypto/sha256"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// thinks is how a model is told how much to think.
type thinks uint8

const (
	thinksNot      thinks = iota
	thinksBudget          // up to a number of tokens
	thinksAdaptive        // as it finds fit, under an effort
)

// anthropicQuirk is how a model of Anthropic wants to be asked.
type anthropicQuirk struct {
	thinks  thinks
	unasked bool // it thinks unless it is told not to
	always  bool // and cannot be told not to

	noSampling bool // refuses temperature and top_p
	schema     bool // can be held to a schema, in answers and in arguments of tools

	maxTokens int // the most that may be asked for; 0: not known
	noDisplay bool
	noEffort  bool
	noTopP    bool
	noStrict  bool
	noHour    bool // caches for five minutes alone
	noCache   bool
}

// anthropicQuirks are known by prefix; the first that fits holds. The source is Anthropic's documentation of thinking,
// effort and structured outputs and its guides of migration, as of 2026.
var anthropicQuirks = []struct {
	prefix string
	anthropicQuirk
}{
	{"claude-fable", anthropicQuirk{thinks: thinksAdaptive, unasked: true, always: true, noSampling: true, schema: true}},
	{"claude-mythos", anthropicQuirk{thinks: thinksAdaptive, unasked: true, always: true, noSampling: true, schema: true}},
	{"claude-opus-4-8", anthropicQuirk{thinks: thinksAdaptive, noSampling: true, schema: true}},
	{"claude-opus-4-7", anthropicQuirk{thinks: thinksAdaptive, noSampling: true, schema: true}},
	{"claude-opus-4-6", anthropicQuirk{thinks: thinksAdaptive, schema: true}},
	{"claude-sonnet-4-6", anthropicQuirk{thinks: thinksAdaptive, schema: true}},
	{"claude-opus-4-5", anthropicQuirk{thinks: thinksBudget, schema: true}},
	{"claude-sonnet-4-5", anthropicQuirk{thinks: thinksBudget, schema: true}},
	{"claude-haiku-4-5", anthropicQuirk{thinks: thinksBudget, schema: true}},
	{"claude-opus-4-1", anthropicQuirk{thinks: thinksBudget, schema: true}},
	{"claude-opus-4", anthropicQuirk{thinks: thinksBudget}},
	{"claude-sonnet-4", anthropicQuirk{thinks: thinksBudget}},
	{"claude-3-7", anthropicQuirk{thinks: thinksBudget}},
	{"claude-3", anthropicQuirk{}},
	{"claude-2", anthropicQuirk{}},
	{"claude-instant", anthropicQuirk{}},
	// Opus 5, Sonnet 5, and what comes after them.
	{"claude", anthropicQuirk{thinks: thinksAdaptive, unasked: true, noSampling: true, schema: true}},
	// Other vendors' models behind the same API.
	{"", anthropicQuirk{thinks: thinksBudget}},
}

// anthropicModel is a model's name without what proxies put before it, and with dots as Anthropic writes them.
func anthropicModel(model string) string {
	name := strings.ToLower(model)
	if at := strings.Index(name, "claude"); at >= 0 {
		name = name[at:]
	}
	return strings.ReplaceAll(name, ".", "-")
}

// anthropicLessons are what a server was found not to take.
type anthropicLessons struct {
	mu      sync.RWMutex
	known   map[string]anthropicQuirk      // by model
	refused map[[sha256.Size]byte]struct{} // schemas, and thinking that was sent back
}

// quirk is how a model is best asked: by experience, else by the table.
func (l *anthropicLessons) quirk(model string) anthropicQuirk {
	l.mu.RLock()
	learned, ok := l.known[model]
	l.mu.RUnlock()
	if ok {
		return learned
	}
	name := anthropicModel(model)
	for _, known := range anthropicQuirks {
		if strings.HasPrefix(name, known.prefix) {
			return known.anthropicQuirk
		}
	}
	return anthropicQuirk{}
}

// refuses reports whether the server has refused just this from the model's caller before.
func (l *anthropicLessons) refuses(model string, what json.RawMessage) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.refused[refusalKey(model, what)]
	return ok
}

func refusalKey(model string, what json.RawMessage) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(model), 0), what...))
}

var (
	refusedTokens   = regexp.MustCompile(`max_tokens: \d+ > (\d+)`)
	refusedThinking = regexp.MustCompile("(?i)signature.{0,20}thinking|thinking.{0,60}(signature|cannot be modified)")
	refusedStrict   = regexp.MustCompile(`(?i)\bstrict\b`)
	refusedTool     = regexp.MustCompile(`(?i)tools\.\d|input_schema`)
	refusedFormat   = regexp.MustCompile(`(?i)output.?format|output_config\.format|json_schema|structured.?output|grammar|schema`)
	refusedSchema   = regexp.MustCompile(`(?i)schema`)
	refusedAtAll    = regexp.MustCompile(`(?i)(not|n't) (support|available)|unsupported|extra inputs`)
)

// learn draws a lesson from a refusal, if it is about something optional that was sent. It answers true if the next
// call of the kind will be put differently.
func (l *anthropicLessons) learn(c Call, p anthropicSent, status int, class Class, message string) bool {
	if status != 400 && status != 404 && status != 422 || class != ClassCapabilityMismatch && class != ClassInvalidRequest {
		return false
	}
	if refusedThinking.MatchString(message) {
		return l.refuse(c.Model, p.hidden...)
	}
	before := l.quirk(c.Model)
	q := before
	switch m := refusedTokens.FindStringSubmatch(message); {
	case m != nil:
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 && n < p.maxTokens {
			q.maxTokens = n
		}
	case p.hour && strings.Contains(message, "ttl"):
		q.noHour = true
	case p.cached && strings.Contains(message, "cache_control"):
		q.noCache = true
	case p.strict && (refusedStrict.MatchString(message) || refusedTool.MatchString(message)):
		q.noStrict = true
	case p.format != nil && !refusedTool.MatchString(message) && refusedFormat.MatchString(message):
		if refusedSchema.MatchString(message) && !refusedAtAll.MatchString(message) || strings.Contains(message, "format.schema") {
			return l.refuse(c.Model, p.format)
		}
		q.schema = false
	default:
		q.learnThinking(p, strings.ToLower(message))
	}
	if q == before {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= lessonsMax {
		l.known = map[string]anthropicQuirk{}
	}
	l.known[c.Model] = q
	return true
}

// learnThinking draws a lesson about thinking, and about the sampling that thinking rules out.
func (q *anthropicQuirk) learnThinking(p anthropicSent, message string) {
	switch t := p.thinking; {
	case t != nil && t.Display != "" && strings.Contains(message, "display"):
		q.noDisplay = true
	case t != nil && t.Type == "disabled" && strings.Contains(message, "thinking"):
		q.unasked, q.always = true, true
	case t != nil && t.Type == "enabled" && strings.Contains(message, "adaptive"):
		q.thinks = thinksAdaptive
	case t != nil && t.Type == "enabled" && (strings.Contains(message, "thinking") || strings.Contains(message, "budget_tokens")):
		q.thinks = thinksNot
	case t != nil && t.Type == "adaptive" && strings.Contains(message, "thinking"):
		q.thinks, q.unasked, q.always = thinksBudget, false, false
	case p.effort && strings.Contains(message, "effort"):
		q.noEffort = true
	case p.temperature && strings.Contains(message, "temperature"):
		q.noSampling = true
	case p.topP && strings.Contains(message, "top_p"):
		q.noTopP = true
	}
}

// refuse notes what the server will have from nobody.
func (l *anthropicLessons) refuse(model string, what ...json.RawMessage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == nil || len(l.refused)+len(what) > lessonsMax {
		l.refused = map[[sha256.Size]byte]struct{}{}
	}
	before := len(l.refused)
	for _, w := range what {
		l.refused[refusalKey(model, w)] = struct{}{}
	}
	return len(l.refused) > before
}
