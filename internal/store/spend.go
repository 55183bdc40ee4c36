package store

import "github.com/fermata-run/fermata/internal/usage"

// addSpend adds lines of the same key up: the upsert may touch a row only once.
func (b *batch) addSpend(l *SpendLine) {
	line := *l
	line.Workflow, line.Agent, line.Provider, line.Model = clean(l.Workflow), clean(l.Agent), clean(l.Provider), clean(l.Model)
	key := spendKey{l.Hour.UnixMicro(), l.Tenant, line.Workflow, line.Agent, line.Provider, line.Model, l.Simulated}
	i, ok := b.spend[key]
	if !ok {
		b.spend[key] = len(b.lines)
		b.lines = append(b.lines, line)
		return
	}
	sum := &b.lines[i]
	sum.Calls += l.Calls
	sum.Unpriced += l.Unpriced
	sum.Tokens = sum.Tokens.Add(l.Tokens)
	sum.Cost += l.Cost
	sum.Baseline += l.Baseline
	sum.CacheSaved += l.CacheSaved
}

func (b *batch) spendLine(l *SpendLine) { b.add(partSpend).spendLine(l) }

func (r *records) spendLine(l *SpendLine) {
	r.begin()
	r.time(l.Hour)
	r.uuid(l.Tenant)
	r.text(l.Workflow)
	r.text(l.Agent)
	r.text(l.Provider)
	r.text(l.Model)
	r.bool(l.Simulated)
	r.int8(l.Calls)
	r.int8(l.Unpriced)
	r.tokens(l.Tokens)
	r.int8(int64(l.Cost))
	r.int8(int64(l.Baseline))
	r.int8(int64(l.CacheSaved))
	r.end()
}

func (r *records) tokens(t usage.Tokens) {
	r.int8(t.Input)
	r.int8(t.CacheRead)
	r.int8(t.CacheWrite)
	r.int8(t.Output)
	r.int8(t.Reasoning)
}
