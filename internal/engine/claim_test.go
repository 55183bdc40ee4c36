package engine

import (
	"testing"

	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/pgtest"
	"github.com/fermata-run/fermata/internal/store"
)

// Claimers that find nothing leave each other alone. When an empty search for a suspect nudged the others, they searched
// in their turn, and idle nodes claimed without end.
func TestClaimsInVainNudgeNobody(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{URL: pgtest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	e := New(Config{Store: db, Shards: 3, Node: store.Node{ID: uuid.Must(uuid.NewV7()), Name: "idle"}})
	if err := db.Register(t.Context(), e.cfg.Node); err != nil {
		t.Fatal(err)
	}
	for _, s := range e.shards {
		if err := s.grant(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range append(e.shards, e.shards...) {
		if err := s.claim(t.Context(), s.reign.Load()); err != nil {
			t.Fatal(err)
		}
		for _, other := range e.shards {
			if len(other.claimNudge) > 0 {
				t.Fatalf("shard %d found nothing to claim, and shard %d is to look again", s.no, other.no)
			}
		}
		if holder := e.suspect.Load(); holder != nil {
			t.Fatalf("shard %d keeps the place of a suspect it did not find", holder.no)
		}
	}
}
