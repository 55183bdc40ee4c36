package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/workflow"
)

// batchBytesMax bounds what one commit sends: Postgres takes messages up to 1 GB.
const batchBytesMax = 256 << 20

// batch encodes changes into the parameters of the commit statement. Its buffers are kept from batch to batch.
type batch struct {
	more  []byte // of the row at hand
	have  parts
	of    [partsCount]records
	lease [16]byte
	epoch [8]byte

	rows  map[uuid.UUID]placed // the runs with a summary or a submission in this batch
	order []uuid.UUID          // of rows, as they came
	spend map[spendKey]int     // index into lines
	lines []SpendLine
	known map[definitionKey]bool // definitions in this batch
}

// placed is what a batch holds of one run's row, whichever changes it came in.
type placed struct {
	tenant uuid.UUID
	fresh  *NewRun
	row    *Row
}

// spendKey is the key of a spend row but for the lease.
type spendKey struct {
	hour                             int64
	tenant                           uuid.UUID
	workflow, agent, provider, model string
	simulated                        bool
}

// definitionKey is whose definition it is, and which.
type definitionKey struct {
	tenant uuid.UUID
	hash   workflow.Hash
}

func newBatch() *batch {
	return &batch{rows: map[uuid.UUID]placed{}, spend: map[spendKey]int{}, known: map[definitionKey]bool{}}
}

// encode takes a batch in.
func (b *batch) encode(lease Lease, changes []Change) error {
	b.reset(lease)
	for i := range changes {
		c := &changes[i]
		if c.New != nil || c.Row != nil {
			b.place(c)
		}
		b.events(c.Run, c.Events)
		for _, id := range c.Eaten {
			b.eaten(id)
		}
		for j := range c.Told {
			b.told(&c.Told[j])
		}
		for j := range c.Spend {
			b.addSpend(&c.Spend[j])
		}
		if err := b.effects(c); err != nil {
			return refusedOf(c.Run, err)
		}
	}
	for _, run := range b.order {
		if err := b.run(run, b.rows[run]); err != nil {
			return refusedOf(run, err)
		}
	}
	for i := range b.lines {
		b.spendLine(&b.lines[i])
	}
	if total := b.bytes(); total > batchBytesMax {
		return &RefusedError{Err: fmt.Errorf("it has %d bytes; the limit is %d", total, batchBytesMax)}
	}
	return nil
}

func (b *batch) reset(lease Lease) {
	b.have = 0
	b.lease = lease.ID
	binary.BigEndian.PutUint64(b.epoch[:], uint64(lease.Epoch)) //nolint:gosec // two's complement
	clear(b.rows)
	clear(b.spend)
	clear(b.known)
	b.lines, b.order = b.lines[:0], b.order[:0]
}

func (b *batch) bytes() int {
	total := 0
	for p := range partsCount {
		if b.have.has(p) {
			total += len(b.of[p].buf)
		}
	}
	return total
}

// params appends the parameters, with the oids that the connection's database gave the composite types. They are
// valid until the next encode.
func (b *batch) params(params [][]byte, oids *[partsCount]uint32) [][]byte {
	params = append(params, b.lease[:], b.epoch[:])
	for p := range partsCount {
		if b.have.has(p) {
			params = append(params, b.of[p].param(oids[p]))
		}
	}
	return params
}

// add gives the records of a part, emptied when the batch comes to need it.
func (b *batch) add(p part) *records {
	if !b.have.has(p) {
		b.have |= 1 << p
		b.of[p].reset()
	}
	return &b.of[p]
}

// events adds the events of a run: a row for each decision, which is told by its instant.
func (b *batch) events(run uuid.UUID, events []flow.Event) {
	for len(events) > 0 {
		first := &events[0]
		n := packed(events)
		r := b.add(partEvent)
		r.begin()
		r.uuid(run)
		r.time(first.At)
		r.int4(int(first.Seq))
		r.int2(first.Gen)
		r.int2(first.Attempt)
		r.int2(first.V)
		r.text(string(first.Kind))
		r.text(first.Step)
		r.json(first.Body)
		b.more = appendMore(b.more[:0], events[1:n])
		r.json(b.more)
		r.end()
		events = events[n:]
	}
}

func (b *batch) eaten(id int64) {
	r := b.add(partEaten) // a plain array: elements without fields
	r.n++
	r.buf = binary.BigEndian.AppendUint32(r.buf, 8)
	r.buf = binary.BigEndian.AppendUint64(r.buf, uint64(id)) //nolint:gosec // two's complement
}

func (b *batch) told(m *Message) {
	r := b.add(partTold)
	r.begin()
	r.uuid(m.Run)
	r.text(m.Kind)
	r.text(string(m.Body))
	r.end()
}

// place notes a run's row. The statement may touch a row only once: a run submitted and finished in one batch is one
// insert.
func (b *batch) place(c *Change) {
	p, known := b.rows[c.Run]
	if !known {
		b.order = append(b.order, c.Run)
	}
	p.tenant = c.tenant()
	if c.New != nil {
		p.fresh = c.New
	}
	if c.Row != nil {
		p.row = c.Row
	}
	b.rows[c.Run] = p
}

func (b *batch) run(run uuid.UUID, p placed) error {
	if p.fresh == nil {
		b.row(run, p.row)
		return b.signals(run, p.tenant, p.row.Signals, p.row.Status, false)
	}
	labels, err := labelsJSON(p.fresh.Labels)
	if err != nil {
		return err
	}
	row := Row{Status: p.fresh.Status, Preview: p.fresh.Preview, Format: p.fresh.Format}
	if p.row != nil {
		row = *p.row
	}
	if row.StepsTotal == 0 {
		row.StepsTotal = p.fresh.StepsTotal
	}
	r := b.add(partNew)
	r.begin()
	r.uuid(run)
	r.uuid(p.fresh.Tenant)
	r.time(p.fresh.At)
	r.int4(p.fresh.Version)
	r.int2(int16(p.fresh.Priority)) //nolint:gosec // 0 to 9, and SQL checks
	r.text(p.fresh.Workflow)
	r.bytea(p.fresh.Hash[:])
	r.text(p.fresh.Stakes)
	r.text(p.fresh.Mode)
	r.jsonb(labels)
	r.bool(p.fresh.Owned && !row.Release)
	r.optionalUUID(p.fresh.Parent)
	r.text(p.fresh.ParentStep)
	r.int2(int16(p.fresh.Depth)) //nolint:gosec // bounded by the rules
	r.summary(&row)
	r.end()
	b.definition(p.fresh)
	return b.signals(run, p.tenant, p.fresh.Signals, row.Status, true)
}

// definition adds what a run needs that may be known to nobody else, once for all runs of the batch.
func (b *batch) definition(fresh *NewRun) {
	key := definitionKey{fresh.Tenant, fresh.Hash}
	if fresh.Definition == nil || b.known[key] {
		return
	}
	b.known[key] = true
	r := b.add(partDefinition)
	r.begin()
	r.uuid(fresh.Tenant)
	r.bytea(fresh.Hash[:])
	r.text(string(fresh.Definition))
	r.end()
}

func (b *batch) row(run uuid.UUID, row *Row) {
	r := b.add(partRow)
	r.begin()
	r.uuid(run)
	r.bool(row.Release)
	r.summary(row)
	r.end()
}

// summary appends the fields that stand at the end of both run_new_3 and run_row_3.
func (r *records) summary(row *Row) {
	r.text(string(row.Status))
	r.int2(row.Format)
	r.text(row.Stage)
	r.text(row.WaitingFor)
	r.text(row.Preview)
	if row.Error == nil {
		r.null(oidText)
		r.null(oidText)
		r.null(oidText)
	} else {
		r.text(row.Error.Class)
		r.text(row.Error.Message)
		r.text(row.Error.Step)
	}
	r.int8(int64(row.Sum.Cost))
	r.tokens(row.Sum.Tokens)
	r.int4(row.Sum.Calls)
	r.int4(row.Sum.Unpriced)
	r.int4(row.Sum.Simulated)
	r.int4(row.StepsDone)
	r.optionalTime(row.WakeAt)
	r.int2(row.Crashes)
	r.optionalTime(row.StartedAt)
	r.optionalTime(row.FinishedAt)
	r.int8(int64(row.Sum.Baseline))
	r.int8(int64(row.Sum.CacheSaved))
	r.int4(row.StepsTotal)
}

// labelsJSON is nil without labels. jsonb takes no NUL, so there is none in it.
func labelsJSON(labels map[string]string) ([]byte, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	cleaned := make(map[string]string, len(labels))
	for k, v := range labels {
		cleaned[clean(k)] = clean(v)
	}
	raw, err := json.Marshal(cleaned)
	if err != nil {
		return nil, fmt.Errorf("encode labels: %w", err)
	}
	return raw, nil
}
