package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/usage"
)

const oidInt2Array = 1005

// bookingBatch encodes a booking into the parameters of its statements. Its buffers are kept from batch to batch.
type bookingBatch struct {
	node                             [16]byte
	books                            bool // there is more than calls
	needs, holds, ends, voids, calls records
}

// encode takes a booking in.
func (b *bookingBatch) encode(from *Booking) error {
	b.node = from.Node
	b.books = len(from.Holds)+len(from.Ends)+len(from.Voids) > 0
	for _, r := range []*records{&b.needs, &b.holds, &b.ends, &b.voids, &b.calls} {
		r.reset()
	}
	for i := range from.Needs {
		b.needs.need(&from.Needs[i])
	}
	for i := range from.Holds {
		b.holds.hold(&from.Holds[i])
	}
	for i := range from.Ends {
		b.ends.holdEnd(&from.Ends[i])
	}
	for _, id := range from.Voids {
		b.voids.element(id)
		b.ends.holdEnd(&HoldEnd{ID: id}) // of one that was made
	}
	for i := range from.Calls {
		if err := b.calls.call(from.Node, &from.Calls[i]); err != nil {
			return err
		}
	}
	return nil
}

// bookParams are valid until the next encode.
func (b *bookingBatch) bookParams(oids *[bookTypesCount]uint32) [][]byte {
	return [][]byte{b.node[:], b.needs.param(oids[typeNeed]), b.holds.param(oids[typeHold]), b.ends.param(oids[typeEnd]), b.voids.param(oidUUID)}
}

// callParams are valid until the next encode.
func (b *bookingBatch) callParams(oids *[bookTypesCount]uint32) [][]byte {
	return [][]byte{b.node[:], b.calls.param(oids[typeCall])}
}

func (r *records) need(n *Need) {
	r.begin()
	r.uuid(n.ID)
	r.optionalUUID(n.Run)
	r.int8(amount(n.Limit))
	r.int8(amount(n.LimitTokens))
	r.int8(amount(n.Spent))
	r.int8(amount(n.SpentTokens))
	r.end()
}

func (r *records) hold(h *HoldNew) {
	r.begin()
	r.uuid(h.ID)
	r.uuid(h.Tenant)
	r.optionalUUID(h.Run)
	r.text(h.Step)
	r.int2(h.Gen)
	r.int2(h.Attempt)
	r.int8(amount(h.Amount))
	r.int8(amount(h.Tokens))
	r.bool(h.Unpriced)
	r.places(h.Needs)
	r.end()
}

func (r *records) holdEnd(e *HoldEnd) {
	r.begin()
	r.uuid(e.ID)
	r.int8(amount(e.Spent))
	r.int8(amount(e.Tokens))
	r.bool(e.Lost)
	r.end()
}

// amount keeps an amount within what can be added up.
func amount[N ~int64](n N) int64 { return int64(min(max(n, 0), amountMax)) }

// element appends to an array of plain ids: elements without fields.
func (r *records) element(id uuid.UUID) {
	r.n++
	r.buf = binary.BigEndian.AppendUint32(r.buf, 16)
	r.buf = append(r.buf, id[:]...)
}

func (r *records) optionalUUID(v uuid.UUID) {
	if v == uuid.Nil {
		r.null(oidUUID)
		return
	}
	r.uuid(v)
}

// places appends an array of int2 as a field: places in a list, from 0 here and from 1 there. The array of none has no
// dimension.
func (r *records) places(list []int16) {
	const element = 4 + 2
	if len(list) == 0 {
		r.field(oidInt2Array, 12)
		r.buf = append(r.buf, make([]byte, 8)...)
		r.buf = binary.BigEndian.AppendUint32(r.buf, oidInt2)
		return
	}
	r.field(oidInt2Array, arrayHeader+element*len(list))
	for _, v := range []uint32{1, 0, oidInt2, uint32(len(list)), 1} { //nolint:gosec // a handful
		r.buf = binary.BigEndian.AppendUint32(r.buf, v)
	}
	for _, place := range list {
		r.buf = binary.BigEndian.AppendUint32(r.buf, 2)
		r.buf = binary.BigEndian.AppendUint16(r.buf, uint16(place+1)) //nolint:gosec // bounded by BookMax
	}
}

// readNotes reads what a booking answered.
func readNotes(rows [][][]byte) (Booked, error) {
	var booked Booked
	for _, row := range rows {
		if len(row) != 12 || len(row[1]) != 16 {
			return Booked{}, fmt.Errorf("read booking: %d columns", len(row))
		}
		budget := uuid.UUID(row[1])
		if row[0] == nil {
			booked.Crossed = append(booked.Crossed, Crossing{
				Budget: budget, Percent: int(int16(binary.BigEndian.Uint16(row[2]))), //nolint:gosec // two's complement
				Spent: usage.Money(int8Of(row[6])), SpentTokens: int8Of(row[9]),
			})
			continue
		}
		if booked.Refused == nil {
			booked.Refused = map[int]Refusal{}
		}
		booked.Refused[int(binary.BigEndian.Uint32(row[0]))-1] = Refusal{
			Budget: budget, Unpriced: row[3][0] != 0, InTokens: row[4][0] != 0,
			Limit: usage.Money(int8Of(row[5])), Spent: usage.Money(int8Of(row[6])), Reserved: usage.Money(int8Of(row[7])),
			LimitTokens: int8Of(row[8]), SpentTokens: int8Of(row[9]), ReservedTokens: int8Of(row[10]),
			Resets: sinceEpoch(time.UnixMicro(int8Of(row[11]) + postgresEpoch)),
		}
	}
	return booked, nil
}

func int8Of(raw []byte) int64 { return int64(binary.BigEndian.Uint64(raw)) } //nolint:gosec // two's complement
