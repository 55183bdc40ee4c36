package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fermata-run/fermata/internal/flow"
)

// What is packed is unpacked alike, whatever the events are, and a row holds one decision only.
func TestPackRoundTrip(t *testing.T) {
	body := rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`{"output":"a\u0000\ud800"}`), json.RawMessage(`[1,[2,"]]"]]`)})
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var events []flow.Event
		for i := range rapid.IntRange(1, 600).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 5}).Draw(t, "later")) * time.Microsecond)
			events = append(events, flow.Event{
				Seq: int32(i + 1), At: at, V: 1, Kind: flow.KindStepStarted, Step: fmt.Sprintf("s%d", i%7),
				Gen: int16(i % 3), Attempt: int16(i % 5), Body: body.Draw(t, "body"),
			})
		}
		var again []flow.Event
		for left := events; len(left) > 0; {
			n := packed(left)
			row := left[:n]
			if n > packEventsMax || !slices.IsSortedFunc(row, bySeq) || !row[0].At.Equal(row[n-1].At) {
				t.Fatalf("a row of %d events from %s to %s", n, row[0].At, row[n-1].At)
			}
			var err error
			if again, err = unpack(again, row[0], string(appendMore(nil, row[1:]))); err != nil {
				t.Fatal(err)
			}
			left = left[n:]
		}
		if diff := cmp.Diff(events, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A page may begin and end in the middle of a row; the view shows what the pages show.
func TestPagesOfPackedEvents(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	var list []flow.Event
	for i := range int32(12) {
		at := time.UnixMicro(1_000_000 + int64(i/5)).UTC() // rows of 5, 5 and 2
		list = append(list, flow.Event{Seq: i + 2, At: at, V: 1, Kind: flow.KindStepStarted, Step: "a", Gen: 1, Attempt: 1, Body: json.RawMessage(fmt.Sprint(i))})
	}
	if err := s.commit(t.Context(), Change{Run: run, Events: list}); err != nil {
		t.Fatal(err)
	}
	for after := int32(0); after <= 14; after++ {
		for limit := 1; limit <= 14; limit++ {
			page, err := db.Events(t.Context(), TenantDefault, run, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if want := min(limit, int(max(13-after, 0))); len(page) != want {
				t.Fatalf("after %d, limit %d: %d events, want %d", after, limit, len(page), want)
			}
			for i, e := range page {
				if e.Seq != after+int32(i)+1 {
					t.Fatalf("after %d: event %d is number %d", after, i, e.Seq)
				}
			}
		}
	}
	for seq, want := range map[int32]bool{1: true, 2: true, 6: true, 13: true, 14: false} {
		if got, err := db.HasEvent(t.Context(), run, seq); err != nil || got != want {
			t.Errorf("event %d: %v %v", seq, got, err)
		}
	}
	last, err := db.LastEvent(t.Context(), TenantDefault, run)
	if err != nil || last.Seq != 13 {
		t.Errorf("the last event is %d, %v", last.Seq, err)
	}
	conn := direct(t, db)
	if n := ask[int](t, conn, `select count(*) from event_log where run_id = $1`, run); n != 13 {
		t.Errorf("the view shows %d events", n)
	}
	if data := ask[string](t, conn, `select string_agg(data, ',' order by seq) from event_log where run_id = $1 and seq > 1`, run); data != "0,1,2,3,4,5,6,7,8,9,10,11" {
		t.Errorf("the view shows %s", data)
	}
}
