package provider

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/fermata-run/fermata/internal/agent"
	"github.com/fermata-run/fermata/internal/usage"
)

// The simulated prompt cache, as the vendors have it.
const (
	cacheTime        = 5 * time.Minute
	cachedTokensMin  = 1_024 // a shorter beginning is not cached
	cachedPromptsMax = 10_000
)

// cachers are the models whose vendors cache prompts, by the beginning of their names; the first that fits holds.
var cachers = []struct {
	prefix string
	writes bool // and charge for what they put into the cache
}{
	{"claude", true},
	{"gpt-5.6", true},
	{"gpt-4o", false},
	{"gpt-4.1", false},
	{"gpt-5", false},
	{"o1", false},
	{"o3", false},
	{"o4", false},
	{"gemini", false},
	{"grok", false},
	{"deepseek", false},
	{"kimi", false},
}

// promptCache remembers which beginnings of prompts a simulated vendor has seen, and until when it keeps them.
type promptCache struct {
	mu   sync.Mutex
	kept map[[sha256.Size]byte]time.Time
}

// input is the input of a call: its stable beginning is read from the cache if it was seen in the last five minutes,
// and else written to it.
func (p *promptCache) input(c Call, now time.Time) usage.Tokens {
	t := usage.Tokens{Input: CountAsk(c.Ask, c.Model)}
	stable := 0
	for stable < len(c.Ask.Messages) && c.Ask.Messages[stable].Stable {
		stable++
	}
	caches, writes := caching(c.Model)
	if stable == 0 || !caches {
		return t
	}
	beginning := agent.Ask{Messages: c.Ask.Messages[:stable], Tools: c.Ask.Tools}
	cached := CountAsk(beginning, c.Model) - tokensPerExchange
	switch {
	case cached < cachedTokensMin:
	case p.seen(c.Model, beginning, now):
		t.Input, t.CacheRead = t.Input-cached, cached
	case writes:
		t.Input, t.CacheWrite = t.Input-cached, cached
	}
	return t
}

func caching(model string) (caches, writes bool) {
	name := bareName(model)
	for _, c := range cachers {
		if strings.HasPrefix(name, c.prefix) {
			return true, c.writes
		}
	}
	return false, false
}

// seen reports whether a beginning is in the cache, and keeps it there from now on.
func (p *promptCache) seen(model string, beginning agent.Ask, now time.Time) bool {
	h := sha256.New()
	part := func(s string) {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	part(model)
	for _, t := range beginning.Tools {
		part(t.Name)
		part(string(t.Parameters))
	}
	for _, m := range beginning.Messages {
		part(m.Role)
		part(m.Content)
	}
	key := [sha256.Size]byte(h.Sum(nil))

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil || len(p.kept) >= cachedPromptsMax {
		p.kept = map[[sha256.Size]byte]time.Time{}
	}
	until := p.kept[key]
	p.kept[key] = now.Add(cacheTime)
	return now.Before(until)
}

// minuteLimit is a limit of requests a minute, as a provider keeps a credential to it.
type minuteLimit struct {
	max  int64
	mu   sync.Mutex
	used int64
	ends time.Time
}

// take counts a request in, or answers false, and tells how it stands.
func (l *minuteLimit) take(now time.Time) (Limits, bool) {
	if l.max <= 0 {
		return Limits{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.ends) {
		l.used, l.ends = 0, now.Add(time.Minute)
	}
	ok := l.used < l.max
	if ok {
		l.used++
	}
	return Limits{Requests: Limit{Max: l.max, Left: l.max - l.used, Reset: l.ends.Sub(now)}}, ok
}
