package store

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fermata-run/fermata/internal/flow"
)

// Limits of what one row of event holds: a reader of a page unpacks whole rows.
const (
	packEventsMax = 256
	packBytesMax  = 64 << 10
)

// packed says how many of the events, from the first on, go into one row: those of the same decision.
func packed(events []flow.Event) int {
	bytes := 0
	for i := 1; i < len(events); i++ {
		bytes += len(events[i].Body)
		if i >= packEventsMax || bytes > packBytesMax || events[i].V != events[0].V || !events[i].At.Equal(events[0].At) {
			return i
		}
	}
	return len(events)
}

// appendMore writes the events after the first as a JSON list of [kind, step, gen, attempt, data]; nothing for none.
func appendMore(out []byte, events []flow.Event) []byte {
	for i := range events {
		e := &events[i]
		if i == 0 {
			out = append(out, `[["`...)
		} else {
			out = append(out, `,["`...)
		}
		out = append(out, e.Kind...)
		out = append(out, `",`...)
		out, _ = jsontext.AppendQuote(out, e.Step) //nolint:errcheck // a path is ASCII
		out = strconv.AppendInt(append(out, ','), int64(e.Gen), 10)
		out = strconv.AppendInt(append(out, ','), int64(e.Attempt), 10)
		if len(e.Body) > 0 {
			out = append(append(out, ','), e.Body...)
		}
		out = append(out, ']')
	}
	if len(events) > 0 {
		out = append(out, ']')
	}
	return out
}

// unpack gives the events of a row: first is the one in its columns.
func unpack(list []flow.Event, first flow.Event, more string) ([]flow.Event, error) {
	list = append(list, first)
	if more == "" {
		return list, nil
	}
	var rows [][]json.RawMessage
	if err := json.Unmarshal([]byte(more), &rows); err != nil {
		return nil, fmt.Errorf("read the events after %d: %w", first.Seq, err)
	}
	for i, fields := range rows {
		e := flow.Event{Seq: first.Seq + int32(i) + 1, At: first.At, V: first.V} //nolint:gosec // bounded by packEventsMax
		if len(fields) == 5 {
			e.Body, fields = fields[4], fields[:4]
		}
		into := []any{&e.Kind, &e.Step, &e.Gen, &e.Attempt}
		if len(fields) != len(into) {
			return nil, fmt.Errorf("event %d has %d fields", e.Seq, len(fields))
		}
		for j, f := range fields {
			if err := json.Unmarshal(f, into[j]); err != nil {
				return nil, fmt.Errorf("read event %d: %w", e.Seq, err)
			}
		}
		list = append(list, e)
	}
	return list, nil
}
