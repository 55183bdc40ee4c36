// Package incident stops attempts that keep failing alike. Three final failures of one agent or tool of a workflow, of the
// same class and in the same words, within ten minutes and without a success between them, are an incident: no node makes
// further attempts of that kind, which wait instead, but for one a minute that probes whether it is mended. Its success
// ends the incident, and so does an operator. Each node counts for itself; what is open stands in Postgres.
package incident

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/telemetry"
	"github.com/fermata-run/fermata/internal/workflow"
)

// classIncident is why an attempt is refused.
const classIncident = "incident"

// writeMax is how long an attempt is kept waiting for what an incident has to write. The next exchange makes up for it.
const writeMax = 2 * time.Second

// Prefix stands before the id of an incident.
const Prefix = "inc_"

// Name is how people call an incident: Prefix and 32 hex digits.
func Name(id uuid.UUID) string { return Prefix + hex.EncodeToString(id[:]) }

// Store keeps incidents.
type Store interface {
	Opener
	AskIncident(ctx context.Context, of store.IncidentOf, ask bool) (row store.IncidentRow, open, probe bool, err error)
	OpenIncidents(ctx context.Context) ([]store.IncidentRow, error)
}

// Opener writes what becomes of incidents.
type Opener interface {
	OpenIncident(ctx context.Context, i store.IncidentRow) (row store.IncidentRow, opened bool, err error)
	CountIncident(ctx context.Context, id uuid.UUID, failures int64, more []store.IncidentSample) error
	ResolveIncident(ctx context.Context, tenant, id uuid.UUID, by, note string) (store.IncidentRow, error)
}

// Config of a Board.
type Config struct {
	Store   Store
	Node    string // its name, for people
	Metrics *telemetry.Metrics
	Log     *slog.Logger     // nil: silent
	Now     func() time.Time // nil: time.Now
}

// Board is where a node keeps what it knows of incidents. It is safe for concurrent use.
type Board struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	trouble atomic.Int32 // lines of the breaker: as long as there are none, nothing is asked of it
	asking  singleflight.Group
	writing sync.Mutex // whoever writes; it is only tried for, so that nobody waits behind a database that is away

	mu      sync.Mutex
	breaker breaker
}

// New makes a Board.
func New(c Config) *Board {
	b := &Board{cfg: c, log: c.Log, now: c.Now, breaker: breaker{lines: map[store.IncidentOf]*line{}}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.now == nil {
		b.now = time.Now
	}
	return b
}

// ofAttempt says what attempts an attempt is like: those of the same agent, or of the same tool, in the workflow.
func ofAttempt(a flow.Attempt) store.IncidentOf {
	of := store.IncidentOf{Tenant: a.Tenant, Workflow: a.Workflow}
	switch {
	case a.Step.Tool != nil:
		of.Tool = a.Step.Tool.Ref
	case a.Agent != nil && a.Agent.Name != "":
		of.Agent = a.Agent.Name
	default: // the step's own
		of.Agent = a.Path
	}
	return of
}

// Admit says why an attempt must not be made now, or nil. Where an incident is open the table is asked first: it may have
// been resolved on another node, and the attempt may be the probe.
func (b *Board) Admit(ctx context.Context, a flow.Attempt) *flow.Failure {
	if b.trouble.Load() == 0 {
		return nil
	}
	of := ofAttempt(a)
	b.mu.Lock()
	open := b.breaker.isOpen(of)
	b.mu.Unlock()
	if !open {
		return nil
	}
	b.settle(ctx, of)
	said := b.ask(ctx, of)
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.count()
	if said.known && !said.open && b.breaker.isOpen(of) && b.breaker.lines[of].isQuiet(said.since) {
		b.breaker.close(of)
	}
	if !b.breaker.isOpen(of) {
		return nil
	}
	o := b.breaker.lines[of].open
	if said.probe.CompareAndSwap(true, false) {
		o.probe = &attempt{a.Run, a.Path, a.Gen, a.No}
		return nil
	}
	return &flow.Failure{Class: classIncident, Message: refusal(of, o)}
}

// refusal is what a person reads who looks why a run waits.
func refusal(of store.IncidentOf, o *opened) string {
	who := "agent " + of.Agent
	if of.Tool != "" {
		who = "tool " + of.Tool
	}
	name := "an incident that is being recorded"
	if o.id != uuid.Nil {
		name = "incident " + Name(o.id)
	}
	return fmt.Sprintf("%s: %s failed %d times alike in workflow %s, last with %s: %s", name, who, o.count, of.Workflow, o.class, o.example)
}

// answer is what the table says of an incident. Several who ask at once share one.
type answer struct {
	known bool // there is an answer
	open  bool
	probe atomic.Bool // one of those who share it may go on
	since uint64
}

// ask looks at the table. Nobody's cancelling it takes the answer from the others.
func (b *Board) ask(ctx context.Context, of store.IncidentOf) *answer {
	key := strings.Join([]string{of.Tenant.String(), of.Workflow, of.Agent, of.Tool}, "\x00")
	said, _, _ := b.asking.Do(key, func() (any, error) { //nolint:errcheck // it has none: an answer says itself that it is not known
		b.mu.Lock()
		said := &answer{since: b.breaker.moved}
		l := b.breaker.lines[of]
		mayProbe := l != nil && l.open != nil && l.open.probe == nil
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeMax)
		defer cancel()
		_, open, probe, err := b.cfg.Store.AskIncident(ctx, of, mayProbe)
		if err != nil {
			b.log.Warn("ask for an incident", "workflow", of.Workflow, "agent", of.Agent, "tool", of.Tool, "error", err)
			return said, nil
		}
		said.known, said.open = true, open
		said.probe.Store(probe)
		return said, nil
	})
	return said.(*answer) //nolint:forcetypeassert // that is what Do gives
}

// Ended is told how each attempt ended that was admitted.
func (b *Board) Ended(ctx context.Context, a flow.Attempt, o *flow.Outcome) {
	counts := o.Failure != nil && isOfTheWork(o.Failure.Class) && isFinal(a, o.Failure.Class)
	if !counts && b.trouble.Load() == 0 {
		return
	}
	of := ofAttempt(a)
	b.mu.Lock()
	write := false
	switch {
	case o.Failure == nil:
		write = b.breaker.succeeded(of, "step "+a.Path+" of run run_"+hex.EncodeToString(a.Run[:])+" succeeded")
	case counts:
		write = b.breaker.failed(of, failureOf(a, o.Failure, b.now()), b.now())
	}
	if l := b.breaker.lines[of]; l != nil && l.open != nil && l.open.probe != nil && *l.open.probe == (attempt{a.Run, a.Path, a.Gen, a.No}) {
		l.open.probe = nil
	}
	b.count()
	b.mu.Unlock()
	if write {
		b.settle(ctx, of)
	}
}

func failureOf(a flow.Attempt, f *flow.Failure, now time.Time) failure {
	return failure{
		class: f.Class, fingerprint: fingerprintOf(f.Message),
		sample: store.IncidentSample{Run: a.Run, Step: a.Path, Message: cut(f.Message, messageMax), At: now.UTC().Truncate(time.Microsecond)},
	}
}

// isOfTheWork: the failure points at what was asked for and how, not at who was asked. Providers have breakers of their
// own; a budget, an operator and a node that died say nothing of the work.
func isOfTheWork(class string) bool {
	switch class {
	case "invalid_output", "tool_error", "gate_failed", "low_confidence", "content_policy", "context_length", "output_truncated",
		"invalid_request", "capability_mismatch", "timeout", "internal", "exhausted":
		return true
	}
	return false
}

// isFinal: no attempt follows.
func isFinal(a flow.Attempt, class string) bool {
	return int(a.No) >= a.Step.Retry.MaxAttempts || !workflow.Covers(a.Step.Retry.Classes, class)
}

// count notes, under the lock, whether there is any trouble.
func (b *Board) count() { b.trouble.Store(int32(len(b.breaker.lines))) } //nolint:gosec // at most linesMax and what is open

// settle writes now what is to be written of an incident, unless somebody is writing; the next exchange makes up for what
// is left.
func (b *Board) settle(ctx context.Context, of store.IncidentOf) {
	b.mu.Lock()
	l := b.breaker.lines[of]
	due := l != nil && l.open != nil && (l.open.id == uuid.Nil || l.open.success != "")
	b.mu.Unlock()
	if !due || !b.writing.TryLock() {
		return
	}
	defer b.writing.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeMax)
	defer cancel()
	if err := b.write(ctx, of); err != nil {
		b.log.Warn("write an incident, later again", "workflow", of.Workflow, "agent", of.Agent, "tool", of.Tool, "error", err)
	}
}

// Exchange writes what is to be written and reads what is open. It is to be called every few seconds.
func (b *Board) Exchange(ctx context.Context) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	b.breaker.sweep(b.now())
	var due []store.IncidentOf
	for of, l := range b.breaker.lines {
		if o := l.open; o != nil && (o.id == uuid.Nil || o.unwritten > 0 || o.success != "") {
			due = append(due, of)
		}
	}
	b.count()
	b.mu.Unlock()
	for _, of := range due {
		if err := b.write(ctx, of); err != nil {
			return fmt.Errorf("write incident: %w", err)
		}
	}
	b.mu.Lock()
	since := b.breaker.moved
	b.mu.Unlock()
	rows, err := b.cfg.Store.OpenIncidents(ctx)
	if err != nil {
		return fmt.Errorf("hear incidents: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaker.heard(rows, since)
	b.count()
	b.cfg.Metrics.IncidentsOpen(len(rows))
	return nil
}

// write brings an incident's row up to what is known here. Whoever calls it holds writing, so that no other does.
func (b *Board) write(ctx context.Context, of store.IncidentOf) error {
	b.mu.Lock()
	var o opened
	if l := b.breaker.lines[of]; l != nil && l.open != nil {
		o = *l.open
		o.samples = slices.Clone(o.samples)
	}
	b.mu.Unlock()
	switch {
	case o.class == "": // it has ended by itself
		return nil
	case o.id == uuid.Nil && o.success != "": // before anybody heard of it
		b.closed(of, o.id)
		return nil
	case o.id == uuid.Nil:
		return b.writeOpened(ctx, of, o)
	case o.success != "":
		return b.writeResolved(ctx, of, o)
	}
	if err := b.cfg.Store.CountIncident(ctx, o.id, o.unwritten, o.samples); err != nil {
		return err
	}
	b.written(of, o, o.id)
	return nil
}

func (b *Board) writeOpened(ctx context.Context, of store.IncidentOf, o opened) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("name incident: %w", err)
	}
	row, isNew, err := b.cfg.Store.OpenIncident(ctx, store.IncidentRow{
		ID: id, IncidentOf: of, Class: o.class, Fingerprint: o.fingerprint, Count: o.count, Samples: o.samples, Node: b.cfg.Node,
	})
	if err != nil {
		return err
	}
	if isNew {
		b.cfg.Metrics.IncidentOpened(o.class)
		b.log.Warn("incident opened: attempts are held", "incident", Name(row.ID), "workflow", of.Workflow, "agent", of.Agent, "tool", of.Tool,
			"class", o.class, "failures", o.count)
	}
	b.written(of, o, row.ID)
	return nil
}

// written notes what is in the table now.
func (b *Board) written(of store.IncidentOf, o opened, id uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.breaker.lines[of]; l != nil && l.open != nil {
		l.open.id = id
		l.open.unwritten -= o.unwritten
		l.open.samples = l.open.samples[min(len(o.samples), len(l.open.samples)):]
		b.breaker.moved++
		l.moved = b.breaker.moved
	}
}

func (b *Board) writeResolved(ctx context.Context, of store.IncidentOf, o opened) error {
	_, err := b.cfg.Store.ResolveIncident(ctx, of.Tenant, o.id, store.ResolvedByProbe, o.success)
	if err != nil && !isDone(err) {
		return err
	}
	b.log.Info("incident resolved: an attempt succeeded", "incident", Name(o.id), "workflow", of.Workflow, "agent", of.Agent, "tool", of.Tool)
	b.closed(of, o.id)
	return nil
}

// isDone: somebody else has resolved it.
func isDone(err error) bool {
	return fault.Is(err, fault.KindConflict) || fault.Is(err, fault.KindNotFound)
}

// closed forgets an incident that has ended.
func (b *Board) closed(of store.IncidentOf, id uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.breaker.lines[of]; l != nil && l.open != nil && l.open.id == id {
		b.breaker.close(of)
	}
	b.count()
}
