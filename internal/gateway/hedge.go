package gateway

import (
	"context"
	"errors"
	"slices"
	"time"
)

// How long a slow entry is waited for before the next one is asked beside it, where the chain does not say.
const (
	hedgeSamplesMin = 20
	hedgeQuantile   = 0.95
	hedgeAfter      = 10 * time.Second // while there are too few samples
)

// errOvertaken cuts a call whose question another one has answered.
var errOvertaken = errors.New("another call has answered")

func overtaken(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errOvertaken) }

// ended is what came of one of two entries that are asked at the same time.
type ended struct {
	first   bool
	answer  Answer
	verdict verdict
}

// settles reports whether nothing of the other call can matter any more: an answer, or a failure of the first one that
// every model would meet. The second call is an extra: that it is wrong for its model, or a budget has no money for it,
// does not stop the first.
func (e ended) settles() bool {
	return e.verdict == verdictAnswered || e.first && e.verdict == verdictFinal
}

// hedged asks entry i and, if it is slow, the one after it beside it. The first good answer wins; the other call is cut,
// and settled before hedged returns. If neither answers, the second one's verdict counts, as if it had been asked after
// the first.
func (c *completion) hedged(ctx context.Context, i int) (Answer, verdict, int) {
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	results := make(chan ended, 2)
	ask := func(j int, t tries) {
		answer, v := c.tryEntry(ctx, c.entries[j], t)
		results <- ended{j == i, answer, v}
	}
	go ask(i, tries{})
	slow := time.NewTimer(c.hedgeAfter(c.entries[i]))
	defer slow.Stop()
	select {
	case r := <-results:
		return r.answer, r.verdict, 1
	case <-slow.C:
	}
	go ask(i+1, tries{hedged: true})
	one := <-results
	if one.settles() {
		cut(errOvertaken)
		<-results
		return one.answer, one.verdict, 2
	}
	two := <-results
	first, second := one, two
	if two.first {
		first, second = two, one
	}
	if two.settles() || first.verdict != verdictNext && second.verdict == verdictNext {
		return two.answer, two.verdict, 2
	}
	return second.answer, second.verdict, 2
}

// hedgeAfter is when the entry after e is asked beside it.
func (c *completion) hedgeAfter(e *entry) time.Duration {
	if d := c.req.Chain.HedgeAfter; d > 0 {
		return d
	}
	b := c.g.breakers.of(e.route, time.Now())
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.pace.quantile(hedgeQuantile); d > 0 && b.pace.n >= hedgeSamplesMin {
		return d
	}
	return hedgeAfter
}

// pace is how long the last answers took to begin. Those that were not waited for count with the time they were given.
type pace struct {
	last [64]time.Duration
	n    int
}

func (p *pace) add(d time.Duration) {
	p.last[p.n%len(p.last)] = d
	p.n++
}

// quantile of what has been seen; 0: nothing has.
func (p *pace) quantile(q float64) time.Duration {
	n := min(p.n, len(p.last))
	if n == 0 {
		return 0
	}
	sorted := slices.Clone(p.last[:n])
	slices.Sort(sorted)
	return sorted[int(q*float64(n-1)+0.5)]
}

func (b *breaker) began(after time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace.add(after)
}
