package peers_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/fermata-run/fermata/internal/pgtest"
)

// An outage of everything makes more news in a moment than fits a page: what comes after it is heard all the same.
func TestMoreNewsThanAPage(t *testing.T) {
	url := pgtest.New(t)
	db := open(t, url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const many = 2500
	_, err = conn.Exec(t.Context(), `insert into breaker (id, node, by_hand, action, reason, at, changed_at)
		select 'p/m' || n, $1, false, 'opened', '', now(), now() - interval '1 s' + n * interval '1 us' from generate_series(1, $2::int) n`, uuid.New(), many)
	if err != nil {
		t.Fatal(err)
	}
	p, heard := newPeers(db)
	for range 3 {
		if err := p.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := heard.actions()
	if len(got) != many || got[many-1] != "p/m2500 opened" {
		t.Errorf("%d of %d were heard", len(got), many)
	}
}
