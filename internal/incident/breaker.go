package incident

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/store"
)

// When attempts failed often enough, and near enough to one another, to be an incident.
const (
	failuresToOpen = 3
	window         = 10 * time.Minute
)

// Of one kind of attempts so many failures are remembered, and so many kinds at once. The oldest are forgotten.
const (
	recentMax = 20
	linesMax  = 10_000
)

// messageMax bounds what a sample says, in bytes.
const messageMax = 500

// breaker finds out which attempts fail alike. It is told the time, and does nothing else than remember: what is open is
// made known by the Board. Attempts that succeed are counted only in that they end what failed before them: a model that
// gives something wrong once in a while is no incident, one that gives nothing else is.
type breaker struct {
	lines map[store.IncidentOf]*line
	moved uint64 // counts the changes, so that what was read before one is not taken for newer
}

// line is what is remembered of attempts of one kind.
type line struct {
	recent []failure // of one that is not open, in the order they came
	open   *opened   // nil: attempts are made
	last   time.Time // of the last failure
	moved  uint64    // when it was opened or closed last
}

// failure is the final failure of an attempt.
type failure struct {
	class, fingerprint string
	sample             store.IncidentSample
}

// opened is an incident that is open here.
type opened struct {
	id                 uuid.UUID // nil: it is not known to others yet
	class, fingerprint string
	count              int64 // as far as this node knows
	example            string
	probe              *attempt // at work here

	unwritten int64 // failures that are not written yet; all of them, as long as there is no id
	samples   []store.IncidentSample
	success   string // what ended it, which is not written yet; empty: nothing
}

// attempt names an attempt.
type attempt struct {
	run     uuid.UUID
	step    string
	gen, no int16
}

// failed notes a failure, and reports whether it opened an incident.
func (b *breaker) failed(of store.IncidentOf, f failure, now time.Time) (isNew bool) {
	l := b.lines[of]
	if l == nil {
		b.makeRoom()
		l = &line{}
		b.lines[of] = l
	}
	l.last = now
	if o := l.open; o != nil {
		if o.class == f.class && o.fingerprint == f.fingerprint {
			o.count++
			o.unwritten++
			o.keep(f.sample)
		}
		return false
	}
	l.recent = slices.DeleteFunc(l.recent, func(e failure) bool { // a step that fails again is no other one
		return now.Sub(e.sample.At) >= window || e.sample.Run == f.sample.Run && e.sample.Step == f.sample.Step
	})
	if len(l.recent) == recentMax {
		l.recent = slices.Delete(l.recent, 0, 1)
	}
	l.recent = append(l.recent, f)
	o := &opened{class: f.class, fingerprint: f.fingerprint, example: f.sample.Message}
	for _, e := range l.recent {
		if e.class == f.class && e.fingerprint == f.fingerprint {
			o.count++
			o.keep(e.sample)
		}
	}
	if o.count < failuresToOpen {
		return false
	}
	o.unwritten = o.count
	b.open(l, o)
	return true
}

func (o *opened) keep(s store.IncidentSample) {
	if len(o.samples) < store.IncidentSamplesMax {
		o.samples = append(o.samples, s)
	}
}

// makeRoom forgets the line whose last failure is the oldest, if there are too many. An incident is not forgotten.
func (b *breaker) makeRoom() {
	if len(b.lines) < linesMax {
		return
	}
	var oldest store.IncidentOf
	var at time.Time
	for of, l := range b.lines {
		if l.open == nil && (at.IsZero() || l.last.Before(at)) {
			oldest, at = of, l.last
		}
	}
	delete(b.lines, oldest)
}

// succeeded ends what failed before. An incident stays until others are told that it has ended; true: there is one.
func (b *breaker) succeeded(of store.IncidentOf, note string) (toTell bool) {
	l := b.lines[of]
	if l == nil {
		return false
	}
	if l.open == nil {
		b.close(of)
		return false
	}
	if l.open.success == "" {
		l.open.success = note
		b.moved++
		l.moved = b.moved
	}
	return true
}

// isOpen: attempts of this kind are to be held.
func (b *breaker) isOpen(of store.IncidentOf) bool {
	l := b.lines[of]
	return l != nil && l.open != nil && l.open.success == ""
}

func (b *breaker) open(l *line, o *opened) {
	b.moved++
	l.open, l.recent, l.moved = o, nil, b.moved
}

func (b *breaker) close(of store.IncidentOf) {
	b.moved++
	delete(b.lines, of)
}

// isQuiet: nothing of it has moved since, and there is nothing that others are still to be told.
func (l *line) isQuiet(since uint64) bool {
	return l.moved <= since && l.open != nil && l.open.id != uuid.Nil && l.open.success == ""
}

// heard takes over what is open by the table, as it was read when the breaker had moved so far. What has moved since is
// newer than what was read.
func (b *breaker) heard(rows []store.IncidentRow, since uint64) {
	known := make(map[store.IncidentOf]bool, len(rows))
	moved := b.moved > since
	for _, row := range rows {
		known[row.IncidentOf] = true
		if l := b.lines[row.IncidentOf]; moved && (l == nil || l.open == nil) { // it may have been closed here, after it was read
			continue
		}
		b.heardOpen(row, since)
	}
	if len(rows) >= store.IncidentsOpenMax { // there may be more: who is not among them is not known to be resolved
		return
	}
	for of, l := range b.lines {
		if !known[of] && l.isQuiet(since) { // resolved
			b.close(of)
		}
	}
}

func (b *breaker) heardOpen(row store.IncidentRow, since uint64) {
	l := b.lines[row.IncidentOf]
	switch {
	case l == nil:
		l = &line{}
		b.lines[row.IncidentOf] = l
	case l.open != nil && l.open.id == row.ID:
		l.open.count = max(l.open.count, row.Count+l.open.unwritten)
		return
	case l.open != nil && !l.isQuiet(since):
		return
	}
	o := &opened{id: row.ID, class: row.Class, fingerprint: row.Fingerprint, count: row.Count}
	if n := len(row.Samples); n > 0 {
		o.example = row.Samples[n-1].Message
	}
	b.open(l, o)
}

// sweep forgets failures that are too long ago to count.
func (b *breaker) sweep(now time.Time) {
	for of, l := range b.lines {
		if l.open == nil && now.Sub(l.last) >= window {
			delete(b.lines, of)
		}
	}
}
