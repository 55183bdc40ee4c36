package store

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// The oids of the built-in types.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidTextArray   = 1009
	oidTimestamptz = 1184
	oidUUID        = 2950
	oidJSONB       = 3802
)

// records builds one parameter in Postgres' binary format: an array of rows of a composite type. (An array for each
// column would do as well, but taking them apart costs Postgres 3 µs a column and statement.) The buffer is kept from
// batch to batch.
type records struct {
	buf    []byte
	n      uint32
	row    int // where the row at hand begins
	fields uint32
}

// An array begins with: number of dimensions, whether there are nulls, type of its elements, length, lower bound.
const (
	arrayHeader   = 20
	arrayElements = 8
	arrayLength   = 12
)

func (r *records) reset() {
	var header [arrayHeader]byte
	header[3] = 1  // dimension
	header[19] = 1 // lower bound
	r.buf, r.n = append(r.buf[:0], header[:]...), 0
}

// param is the finished parameter; the oid is that of the composite type. It is valid until the next reset.
func (r *records) param(oid uint32) []byte {
	binary.BigEndian.PutUint32(r.buf[arrayElements:], oid)
	binary.BigEndian.PutUint32(r.buf[arrayLength:], r.n)
	return r.buf
}

// begin starts a row: its length and the number of its fields, both filled in by end.
func (r *records) begin() {
	r.row, r.fields = len(r.buf), 0
	r.buf = append(r.buf, 0, 0, 0, 0, 0, 0, 0, 0)
}

func (r *records) end() {
	r.n++
	binary.BigEndian.PutUint32(r.buf[r.row:], uint32(len(r.buf)-r.row-4)) //nolint:gosec // bounded by batchBytesMax
	binary.BigEndian.PutUint32(r.buf[r.row+4:], r.fields)
}

// field starts a field: its type and its length; -1 is null.
func (r *records) field(oid uint32, length int) {
	r.fields++
	r.buf = binary.BigEndian.AppendUint32(r.buf, oid)
	r.buf = binary.BigEndian.AppendUint32(r.buf, uint32(length)) //nolint:gosec // bounded by batchBytesMax; two's complement
}

func (r *records) null(oid uint32) { r.field(oid, -1) }

func (r *records) uuid(v uuid.UUID) {
	r.field(oidUUID, 16)
	r.buf = append(r.buf, v[:]...)
}

// postgresEpoch is where Postgres counts its microseconds from, in Unix microseconds: the year 2000.
const postgresEpoch = 946_684_800_000_000

func (r *records) time(v time.Time) {
	r.field(oidTimestamptz, 8)
	r.buf = binary.BigEndian.AppendUint64(r.buf, uint64(v.UnixMicro()-postgresEpoch)) //nolint:gosec // two's complement
}

func (r *records) optionalTime(v *time.Time) {
	if v == nil {
		r.null(oidTimestamptz)
		return
	}
	r.time(*v)
}

func (r *records) int8(v int64) {
	r.field(oidInt8, 8)
	r.buf = binary.BigEndian.AppendUint64(r.buf, uint64(v)) //nolint:gosec // two's complement
}

// int4 takes counts, which are bounded far below.
func (r *records) int4(v int) {
	r.field(oidInt4, 4)
	r.buf = binary.BigEndian.AppendUint32(r.buf, uint32(v)) //nolint:gosec // two's complement
}

func (r *records) int2(v int16) {
	r.field(oidInt2, 2)
	r.buf = binary.BigEndian.AppendUint16(r.buf, uint16(v)) //nolint:gosec // two's complement
}

func (r *records) bool(v bool) {
	r.field(oidBool, 1)
	if v {
		r.buf = append(r.buf, 1)
	} else {
		r.buf = append(r.buf, 0)
	}
}

func (r *records) bytea(v []byte) {
	r.field(oidBytea, len(v))
	r.buf = append(r.buf, v...)
}

// text appends what Postgres takes of it.
func (r *records) text(v string) {
	v = clean(v)
	r.field(oidText, len(v))
	r.buf = append(r.buf, v...)
}

// texts appends an array of text. The array of none has no dimension.
func (r *records) texts(list []string) {
	start := len(r.buf) + 4
	r.field(oidTextArray, 0)
	if len(list) == 0 {
		r.buf = append(r.buf, make([]byte, 8)...)
		r.buf = binary.BigEndian.AppendUint32(r.buf, oidText)
	} else {
		for _, v := range []uint32{1, 0, oidText, uint32(len(list)), 1} { //nolint:gosec // bounded by batchBytesMax
			r.buf = binary.BigEndian.AppendUint32(r.buf, v)
		}
	}
	for _, v := range list {
		v = clean(v)
		r.buf = binary.BigEndian.AppendUint32(r.buf, uint32(len(v))) //nolint:gosec // bounded by batchBytesMax
		r.buf = append(r.buf, v...)
	}
	binary.BigEndian.PutUint32(r.buf[start:], uint32(len(r.buf)-start-4)) //nolint:gosec // bounded by batchBytesMax
}

// json appends JSON as text, byte for byte: valid JSON holds neither NUL nor half a rune, and what Postgres does not
// take it refuses.
func (r *records) json(v []byte) {
	r.field(oidText, len(v))
	r.buf = append(r.buf, v...)
}

// jsonb appends JSON without NUL escapes; nil is null.
func (r *records) jsonb(v []byte) {
	if v == nil {
		r.null(oidJSONB)
		return
	}
	const version = 1
	r.field(oidJSONB, len(v)+1)
	r.buf = append(append(r.buf, version), v...)
}

// clean makes text that Postgres takes: valid UTF-8 without NUL.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}
