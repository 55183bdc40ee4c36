package store

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/workflow"
)

func body(s string) json.RawMessage { return json.RawMessage(`{"name":"` + s + `\u0000"}`) }

func TestDefinitions(t *testing.T) {
	db := open(t)
	for range 2 {
		if err := db.PutDefinition(t.Context(), TenantDefault, workflow.Hash{1}, body("a")); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(db.Definition(t.Context(), TenantDefault, workflow.Hash{1}))(t); string(got) != string(body("a")) {
		t.Errorf("read %s", got)
	}
	for tenant, hash := range map[uuid.UUID]workflow.Hash{TenantDefault: {2}, uuid.New(): {1}} {
		if _, err := db.Definition(t.Context(), tenant, hash); !fault.Is(err, fault.KindNotFound) {
			t.Errorf("%v, want not found", err)
		}
	}
}

func TestPublish(t *testing.T) {
	db := open(t)
	publish := func(hash byte, expect int) (WorkflowRow, bool, error) {
		return db.Publish(t.Context(), TenantDefault, "wf", workflow.Hash{hash}, body(fmt.Sprint(hash)), expect)
	}
	for _, step := range []struct {
		hash    byte
		expect  int
		version int // 0: a conflict
		created bool
	}{
		{1, 3, 0, false}, {1, 0, 1, true}, {1, 0, 1, false}, {1, 7, 1, false}, // the same again, whatever is expected
		{2, 0, 0, false}, {2, 2, 0, false}, {2, 1, 2, true}, {1, -1, 3, true}, {1, -1, 3, false},
	} {
		row, created, err := publish(step.hash, step.expect)
		if step.version == 0 {
			if f := fault.Of(err); f == nil || f.Kind != fault.KindConflict || f.Code != "version_mismatch" {
				t.Errorf("%+v: %v", step, err)
			}
			continue
		}
		if err != nil || row.Version != step.version || created != step.created || row.Hash != (workflow.Hash{step.hash}) || row.CreatedAt.IsZero() {
			t.Errorf("%+v: %+v %t %v", step, row, created, err)
		}
	}
	latest := must(db.Workflow(t.Context(), TenantDefault, "wf", 0))(t)
	if latest.Version != 3 || string(latest.Body) != string(body("1")) {
		t.Errorf("latest: %+v", latest)
	}
	if second := must(db.Workflow(t.Context(), TenantDefault, "wf", 2))(t); second.Hash != (workflow.Hash{2}) || string(second.Body) != string(body("2")) {
		t.Errorf("second: %+v", second)
	}
	for _, c := range []struct {
		tenant  uuid.UUID
		name    string
		version int
	}{{TenantDefault, "wf", 4}, {TenantDefault, "x", 0}, {TenantDefault, "x\x00\xff", 0}, {uuid.New(), "wf", 0}} {
		if _, err := db.Workflow(t.Context(), c.tenant, c.name, c.version); !fault.Is(err, fault.KindNotFound) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	versions := func(before, limit int) (list []int) {
		for _, w := range must(db.WorkflowVersions(t.Context(), TenantDefault, "wf", before, limit))(t) {
			list = append(list, w.Version)
		}
		return list
	}
	if diff := cmp.Diff([][]int{{3, 2}, {1}, nil}, [][]int{versions(0, 2), versions(2, 2), versions(1, 2)}); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if _, err := db.WorkflowVersions(t.Context(), TenantDefault, "x", 0, 10); !fault.Is(err, fault.KindNotFound) {
		t.Errorf("versions of no workflow: %v", err)
	}
	for _, name := range []string{"wg", "we"} {
		if _, _, err := db.Publish(t.Context(), TenantDefault, name, workflow.Hash{9}, body("9"), 0); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for after := ""; ; after = names[len(names)-1] {
		page := must(db.Workflows(t.Context(), TenantDefault, after, 2))(t)
		for _, w := range page {
			names = append(names, w.Name)
			if w.Name == "wf" && w.Version != 3 {
				t.Errorf("listed at version %d", w.Version)
			}
		}
		if len(page) < 2 {
			break
		}
	}
	if diff := cmp.Diff([]string{"we", "wf", "wg"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestPublishRaces(t *testing.T) {
	db := open(t)
	const publishers = 8
	race := func(name string, expect int) (created, conflicts int, versions map[int]bool) {
		var group sync.WaitGroup
		var mu sync.Mutex
		versions = map[int]bool{}
		for i := range publishers {
			group.Go(func() {
				row, is, err := db.Publish(t.Context(), TenantDefault, name, workflow.Hash{byte(i + 1)}, body(fmt.Sprint(i)), expect)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case fault.Is(err, fault.KindConflict):
					conflicts++
				case err != nil:
					t.Error(err)
				default:
					versions[row.Version] = true
					if is {
						created++
					}
				}
			})
		}
		group.Wait()
		return created, conflicts, versions
	}
	if created, conflicts, _ := race("once", 0); created != 1 || conflicts != publishers-1 {
		t.Errorf("%d were created, %d were in conflict", created, conflicts)
	}
	if created, conflicts, versions := race("each", -1); created != publishers || conflicts != 0 || len(versions) != publishers || !versions[publishers] {
		t.Errorf("%d were created, %d were in conflict, versions %v", created, conflicts, versions)
	}
}

func TestTwoHundredClaimsOfAKey(t *testing.T) {
	db := open(t)
	key := Key{Tenant: TenantDefault, Route: "POST /v1/runs", Key: "k", BodyHash: [32]byte{1}}
	var fresh, inFlight atomic.Int32
	var runs sync.Map
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			c, err := db.ClaimKey(t.Context(), key, id())
			if err != nil {
				t.Error(err)
				return
			}
			runs.Store(c.Run, true)
			if c.Fresh {
				fresh.Add(1)
			}
			if c.InFlight {
				inFlight.Add(1)
			}
		})
	}
	group.Wait()
	n := 0
	runs.Range(func(any, any) bool { n++; return true })
	if fresh.Load() != 1 || inFlight.Load() != 199 || n != 1 {
		t.Errorf("%d fresh, %d in flight, %d runs", fresh.Load(), inFlight.Load(), n)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	db := open(t)
	conn := direct(t, db)
	key := Key{Tenant: TenantDefault, Route: "r", Key: "k\x00", BodyHash: [32]byte{1}}
	claim := func(k Key) KeyClaim {
		t.Helper()
		return must(db.ClaimKey(t.Context(), k, id()))(t)
	}
	first := claim(key)
	if !first.Fresh {
		t.Fatalf("first claim: %+v", first)
	}
	body := key
	body.BodyHash = [32]byte{2}
	tenant, route := key, key
	tenant.Tenant, route.Route = uuid.New(), "other"
	for name, c := range map[string]struct {
		key  Key
		want KeyClaim
	}{
		"same":         {key, KeyClaim{Run: first.Run, InFlight: true}},
		"another body": {body, KeyClaim{Run: first.Run, Mismatch: true}},
	} {
		if diff := cmp.Diff(c.want, claim(c.key)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if a, b := claim(tenant), claim(route); !a.Fresh || !b.Fresh {
		t.Errorf("another tenant, another route: %+v %+v", a, b)
	}
	do(t, conn, `update idempotency set claimed_at = now() - interval '61 s'`)
	if c := claim(body); !c.Mismatch {
		t.Errorf("a stale claim with another body: %+v", c)
	}
	if c := claim(key); !c.Fresh || c.Run != first.Run {
		t.Errorf("takeover: %+v, want run %s", c, first.Run)
	}
	if c := claim(key); !c.InFlight {
		t.Errorf("after the takeover: %+v", c)
	}
	answer := []byte("{\x00\xff")
	header := map[string]string{"Location": "/x", "Odd": "\x00"}
	if err := db.SettleKey(t.Context(), key, 202, header, answer); err != nil {
		t.Fatal(err)
	}
	if err := db.SettleKey(t.Context(), key, 500, nil, nil); err != nil { // whoever was taken over comes late
		t.Fatal(err)
	}
	if err := db.DropKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	do(t, conn, `update idempotency set claimed_at = now() - interval '1 hour'`) // an answer does not grow stale
	if diff := cmp.Diff(KeyClaim{Run: first.Run, Status: 202, Header: header, Body: answer}, claim(key)); diff != "" {
		t.Errorf("settled (-want +got):\n%s", diff)
	}
	do(t, conn, `update idempotency set created_at = now() - interval '25 hours'`)
	if c := claim(body); !c.Fresh || c.Run == first.Run {
		t.Errorf("after a day: %+v", c)
	}
	if err := db.DropKey(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	if c := claim(key); !c.Fresh {
		t.Errorf("after a drop: %+v", c)
	}
	if n := must(db.SweepIdempotency(t.Context(), keyKept, 10))(t); n != 2 {
		t.Errorf("swept %d keys", n)
	}
}
