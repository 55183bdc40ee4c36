package ledger_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/flow"
	"github.com/fermata-run/fermata/internal/gateway"
	"github.com/fermata-run/fermata/internal/ledger"
	"github.com/fermata-run/fermata/internal/store"
	"github.com/fermata-run/fermata/internal/usage"
	"github.com/fermata-run/fermata/internal/workflow"
)

// lease registers a node and gives it a lease.
func (n *node) lease() store.Lease {
	n.t.Helper()
	if err := n.db.Register(n.t.Context(), store.Node{ID: n.id, Name: n.id.String(), Address: "127.0.0.1:1", Version: "test", Capacity: 1}); err != nil {
		n.t.Fatal(err)
	}
	lease, _, err := n.db.Grant(n.t.Context(), n.id, 15*time.Second)
	if err != nil {
		n.t.Fatal(err)
	}
	return lease
}

func (n *node) reserve(c gateway.Charge) gateway.Hold {
	n.t.Helper()
	hold, err := n.Reserve(n.t.Context(), c)
	if err != nil {
		n.t.Fatal(err)
	}
	return hold
}

// record writes a call to the log of a new run, deep in what followed from an event, as a turn's calls stand there.
func (n *node) record(lease store.Lease, run uuid.UUID, call usage.Call) {
	n.t.Helper()
	body, err := json.Marshal(map[string]any{"turn": 1, "calls": []usage.Call{{Try: 1, Hold: uuid.New(), Cost: 999}, call}})
	if err != nil {
		n.t.Fatal(err)
	}
	now := time.Now()
	c := n.db.Committer()
	defer c.Close()
	err = c.Commit(n.t.Context(), lease, []store.Change{{
		Run: run,
		New: &store.NewRun{
			Tenant: store.TenantDefault, Workflow: "wf", Version: 1, Hash: workflow.Hash{1}, Status: flow.RunStatusRunning, Stakes: "normal",
			Mode: "batch", Preview: "{}", Format: 1, Owned: true, At: now,
		},
		Events: []flow.Event{
			{Seq: 1, At: now, Kind: flow.KindStepStarted, V: 1, Step: "s", Gen: 1, Attempt: 1},
			{Seq: 2, At: now, Kind: flow.KindTurnAnswered, V: 1, Step: "s", Gen: 1, Attempt: 1, Body: body},
		},
	}})
	if err != nil {
		n.t.Fatal(err)
	}
}

// A node dies with three calls under way: of one the cost is in the log, the others are lost and count in full. It lives
// after all: what it settles then corrects the one and changes nothing of the other.
func TestDeadNode(t *testing.T) {
	h := newHouse(t)
	h.budget("b", nil)
	frozen := h.open(nil)
	lease := frozen.lease()
	c := charge(100)
	c.Caller.Run = uuid.Must(uuid.NewV7())
	logged, lost, late := frozen.reserve(c), frozen.reserve(charge(200)), frozen.reserve(charge(400))
	frozen.record(lease, c.Caller.Run, usage.Call{Try: 1, Cost: 30, Tokens: usage.Tokens{Input: 3, Output: 4}, Hold: logged.ID})
	if level, err := h.db.RunLevel(t.Context(), store.TenantDefault, c.Caller.Run); err != nil || level != (store.RunLevel{Reserved: 100, ReservedTokens: 100}) {
		t.Errorf("the run: %+v, %v", level, err)
	}
	h.do(`update reservation set created_at = created_at - interval '1 minute'`)

	h.open(nil).stop() // sweeps once: the lease is open
	if b := h.state("b"); b.Reserved != 700 || b.Spent != 0 {
		t.Fatalf("the node lives; reserved %d, spent %d", b.Reserved, b.Spent)
	}
	h.do(`update lease set closed_at = now(), epoch = epoch + 1`)
	counted := newNotes()
	sweeper := h.open(counted)
	eventually(h, 0, `select reserved_nano::int from budget_window`)
	sweeper.stop()
	if b := h.state("b"); b.Spent != 30+200+400 || b.SpentTokens != 7+200+400 || b.ReservedTokens != 0 {
		t.Errorf("spent %d, %d tokens", b.Spent, b.SpentTokens)
	}
	if counted.of(ledger.NoteLost) != 2 || counted.of(ledger.NoteRecovered) != 1 {
		t.Errorf("counted %v", counted.noted)
	}

	frozen.Settle(settlement(charge(400), late, 150))
	frozen.Settle(settlement(c, logged, 30))
	frozen.stop()
	if b := h.state("b"); b.Spent != 30+200+150 || b.Reserved != 0 {
		t.Errorf("corrected: spent %d, reserved %d", b.Spent, b.Reserved)
	}
	if left := ask[uuid.UUID](h, `select id from reservation where state = 'lost'`); left != lost.ID {
		t.Errorf("%s is kept as lost, want %s", left, lost.ID)
	}
}

// Two nodes that sweep at once settle once.
func TestSweepTogether(t *testing.T) {
	h := newHouse(t)
	h.budget("b", nil)
	dead := h.open(nil)
	for range 60 {
		dead.reserve(charge(10))
	}
	dead.stop()
	h.do(`update reservation set created_at = created_at - interval '1 minute'`)
	nodes := []*node{h.open(nil), h.open(nil), h.open(nil)}
	eventually(h, 0, `select count(*)::int from reservation where state = 'held'`)
	for _, n := range nodes {
		n.stop()
	}
	if b := h.state("b"); b.Spent != 600 || b.Reserved != 0 {
		t.Errorf("spent %d, reserved %d", b.Spent, b.Reserved)
	}
}
