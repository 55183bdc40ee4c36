package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/fermata-run/fermata/internal/fault"
	"github.com/fermata-run/fermata/internal/flow"
)

// question is an approval of a plain yes or no.
func question(approval uuid.UUID) flow.Ask {
	return flow.Ask{
		Asked: flow.Asked{Approval: approval, About: flow.AboutApproval, Title: "Send it?", Choices: []string{"approve", "reject"}, Assignees: []string{}},
		Step:  "ask", Gen: 1,
	}
}

// put asks people something for a run.
func put(t testing.TB, s shard, run uuid.UUID, asks ...flow.Ask) {
	t.Helper()
	if err := s.commit(t.Context(), Change{Run: run, Tenant: TenantDefault, Workflow: "wf", Asked: asks}); err != nil {
		t.Fatal(err)
	}
}

// park puts a run by until it is sent a message.
func park(t testing.TB, s shard, run uuid.UUID) {
	t.Helper()
	if err := s.commit(t.Context(), Change{Run: run, Row: row(flow.RunStatusWaiting)}); err != nil {
		t.Fatal(err)
	}
}

func isFault(err error, kind fault.Kind, code string) bool {
	f := fault.Of(err)
	return f != nil && f.Kind == kind && f.Code == code
}

// What people are asked is asked once, read as it was written, and answered once; its run hears of it.
func TestApproval(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, approval, expires := id(), id(), time.Now().UTC().Add(time.Hour).Truncate(time.Microsecond)
	q := question(approval)
	q.Title, q.Assignees, q.Expires, q.Step, q.Gen = "Send\x00 it?", []string{"ann", "b\xffb"}, &expires, "mail.3.ask", 2
	q.Show, q.Form, q.Initial = json.RawMessage(`{"draft":"\u0000\ud800"}`), json.RawMessage(`{"type":"object"}`), json.RawMessage(`{"n":1e999999}`)
	q.Choices = []string{"send", "do, not", `say "no"`}
	change := Change{Run: run, New: newRun(flow.RunStatusRunning), Asked: []flow.Ask{q}} // in the batch of the submission
	if err := s.commit(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	got := must(db.Approval(t.Context(), TenantDefault, approval))(t)
	want := ApprovalRow{Ask: q, Tenant: TenantDefault, Run: run, Workflow: "wf", Status: flow.ApprovalOpen, AskedAt: got.AskedAt}
	want.Title, want.Assignees = "Send\ufffd it?", []string{"ann", "b\ufffdb"}
	if diff := cmp.Diff(want, got); diff != "" || time.Since(got.AskedAt).Abs() > time.Minute {
		t.Errorf("asked at %s (-want +got):\n%s", got.AskedAt, diff)
	}
	park(t, s, run)

	answer := Answer{Choice: "do, not", Form: json.RawMessage(`{"n":"\u0000"}`), Reason: "too\x00 early", By: "ann"}
	if _, err := db.AnswerApproval(t.Context(), TenantDefault, approval, Answer{Choice: "approve"}); !isFault(err, fault.KindInvalid, "choice_unknown") ||
		!strings.Contains(err.Error(), `send, do, not, say "no"`) || fault.Of(err).Issues[0].Pointer != "/choice" {
		t.Errorf("a choice that is none: %v", err)
	}
	for name, c := range map[string]struct{ tenant, approval uuid.UUID }{"another tenant's": {id(), approval}, "no such": {TenantDefault, id()}} {
		_, read := db.Approval(t.Context(), c.tenant, c.approval)
		_, answered := db.AnswerApproval(t.Context(), c.tenant, c.approval, answer)
		if !isFault(read, fault.KindNotFound, "approval_not_found") || !isFault(answered, fault.KindNotFound, "approval_not_found") {
			t.Errorf("%s: %v, %v", name, read, answered)
		}
	}
	if list := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t); len(list) != 0 {
		t.Errorf("told without an answer: %+v", list)
	}

	done := must(db.AnswerApproval(t.Context(), TenantDefault, approval, answer))(t)
	want.Status, want.AnsweredAt, want.Answer = flow.ApprovalAnswered, done.AnsweredAt, answer
	want.Answer.Reason = "too\ufffd early"
	for _, row := range []ApprovalRow{done, must(db.Approval(t.Context(), TenantDefault, approval))(t)} {
		if diff := cmp.Diff(want, row); diff != "" || row.AnsweredAt == nil || row.AnsweredAt.Before(row.AskedAt) {
			t.Errorf("answered at %v (-want +got):\n%s", row.AnsweredAt, diff)
		}
	}
	_, err := db.AnswerApproval(t.Context(), TenantDefault, approval, Answer{Choice: "send", By: "bob"})
	if !isFault(err, fault.KindConflict, "approval_answered") {
		t.Errorf("answered again: %v", err)
	}
	for _, word := range []string{`"do, not"`, "by ann", done.AnsweredAt.Format(time.RFC3339)} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %s", err, word)
		}
	}
	if err := s.commit(t.Context(), Change{Run: run, Tenant: TenantDefault, Asked: []flow.Ask{q}}); err != nil {
		t.Fatal(err)
	}
	if again := must(db.Approval(t.Context(), TenantDefault, approval))(t); again.Status != flow.ApprovalAnswered {
		t.Errorf("asked again: %s", again.Status)
	}
	told := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t)
	if len(told) != 1 || told[0].Kind != flow.ToldApproval {
		t.Fatalf("told: %+v", told)
	}
	var said flow.Answered
	if err := json.Unmarshal(told[0].Body, &said); err != nil {
		t.Fatal(err)
	}
	heard := flow.Answered{Approval: approval, Choice: answer.Choice, Form: answer.Form, Reason: "too\ufffd early", By: "ann"}
	if diff := cmp.Diff(heard, said); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if claims := claimed(must(db.Claim(t.Context(), s.Lease, 10, format, true))(t)); !cmp.Equal(claims, []uuid.UUID{run}) {
		t.Errorf("claimed: %v", claims)
	}
}

// Of answers that come at once exactly one wins, the others are told of it, and the run hears the one.
func TestAnswersAtOnce(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	for range 10 {
		approval := id()
		put(t, s, run, question(approval))
		won := make([]bool, 8)
		var group sync.WaitGroup
		for i := range won {
			group.Go(func() {
				_, err := db.AnswerApproval(t.Context(), TenantDefault, approval, Answer{Choice: []string{"approve", "reject"}[i%2], By: fmt.Sprint(i)})
				won[i] = err == nil
				if err != nil && !isFault(err, fault.KindConflict, "approval_answered") {
					t.Error(err)
				}
			})
		}
		group.Wait()
		winner := slices.Index(won, true)
		if winner < 0 || slices.Contains(won[winner+1:], true) {
			t.Fatalf("won: %v", won)
		}
		row := must(db.Approval(t.Context(), TenantDefault, approval))(t)
		if row.Answer.By != fmt.Sprint(winner) || row.Answer.Choice != []string{"approve", "reject"}[winner%2] {
			t.Errorf("%d won, and the row says %+v", winner, row.Answer)
		}
	}
	if told := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t); len(told) != 10 {
		t.Errorf("%d messages of 10 approvals", len(told))
	}
}

// An answer and a withdrawal that come at once: one of them holds, and the run is told if it is the answer.
func TestAnswerRacesWithdrawal(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	for i := range 20 {
		approval := id()
		put(t, s, run, question(approval))
		answered := make(chan error, 1)
		go func() {
			_, err := db.AnswerApproval(t.Context(), TenantDefault, approval, Answer{Choice: "approve"})
			answered <- err
		}()
		if err := s.commit(t.Context(), Change{
			Run: run, Row: row(flow.RunStatusRunning), Withdrawn: []flow.Withdrawn{{ID: approval}},
		}); err != nil {
			t.Fatal(err)
		}
		err, want, messages := <-answered, flow.ApprovalAnswered, 1
		if err != nil {
			want, messages = flow.ApprovalWithdrawn, 0
			if !isFault(err, fault.KindConflict, "approval_withdrawn") {
				t.Error(err)
			}
		}
		told := must(db.RunInbox(t.Context(), []uuid.UUID{run}))(t)
		if got := must(db.Approval(t.Context(), TenantDefault, approval))(t).Status; got != want || len(told) != messages {
			t.Errorf("%d: %s with %d messages, want %s", i, got, len(told), want)
		}
		do(t, direct(t, db), `delete from inbox`)
	}
}

// What nobody waits for any more is not answered, and is told apart from what was not answered in time.
func TestApprovalsThatAreOver(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run := submit(t, s, flow.RunStatusRunning)
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		expires   *time.Time
		withdrawn flow.ApprovalStatus
		status    flow.ApprovalStatus
		code      string // empty: it may be answered
	}{
		"open":                     {nil, "", flow.ApprovalOpen, ""},
		"open for an hour":         {&future, "", flow.ApprovalOpen, ""},
		"late, and nobody noticed": {&past, "", flow.ApprovalOpen, "approval_expired"},
		"expired":                  {&past, flow.ApprovalExpired, flow.ApprovalExpired, "approval_expired"},
		"withdrawn":                {nil, flow.ApprovalWithdrawn, flow.ApprovalWithdrawn, "approval_withdrawn"},
		"withdrawn, and late":      {&past, flow.ApprovalWithdrawn, flow.ApprovalWithdrawn, "approval_withdrawn"},
	} {
		for _, atOnce := range []bool{false, true} {
			approval := id()
			q := question(approval)
			q.Expires = c.expires
			change := Change{Run: run, Tenant: TenantDefault, Asked: []flow.Ask{q}}
			over := []flow.Withdrawn{{ID: approval, Expired: c.withdrawn == flow.ApprovalExpired}}
			if c.withdrawn != "" && atOnce { // asked and withdrawn in one batch
				change.Withdrawn = over
			}
			for range 2 { // the same batch twice
				if err := s.commit(t.Context(), change); err != nil {
					t.Fatal(err)
				}
			}
			if c.withdrawn != "" && !atOnce {
				if err := s.commit(t.Context(), Change{Run: run, Withdrawn: over}); err != nil {
					t.Fatal(err)
				}
			}
			if got := must(db.Approval(t.Context(), TenantDefault, approval))(t).Status; got != c.status {
				t.Errorf("%s: it is %s", name, got)
			}
			_, err := db.AnswerApproval(t.Context(), TenantDefault, approval, Answer{Choice: "approve"})
			if c.code == "" && err != nil || c.code != "" && !isFault(err, fault.KindConflict, c.code) {
				t.Errorf("%s: %v", name, err)
			}
			if c.code != "" {
				continue
			}
			if err := s.commit(t.Context(), Change{Run: run, Withdrawn: []flow.Withdrawn{{ID: approval, Expired: true}}}); err != nil {
				t.Fatal(err)
			}
			if got := must(db.Approval(t.Context(), TenantDefault, approval))(t).Status; got != flow.ApprovalAnswered {
				t.Errorf("%s: answered, then %s", name, got)
			}
		}
	}
}

func TestApprovals(t *testing.T) {
	db := open(t)
	s := newShard(t, db)
	run, other, foreign := submit(t, s, flow.RunStatusRunning), submit(t, s, flow.RunStatusRunning), id()
	var all []uuid.UUID // newest first; of one batch by id
	by := map[string][]uuid.UUID{}
	note := func(approval uuid.UUID, under ...string) {
		all = slices.Insert(all, 0, approval)
		for _, name := range under {
			by[name] = slices.Insert(by[name], 0, approval)
		}
	}
	for i := range 12 {
		pair := []flow.Ask{question(id()), question(id())} // of one instant
		pair[1].Assignees = []string{"ann", "bob"}
		if i%3 == 0 {
			pair[1].Assignees = []string{"bob"}
		}
		c := Change{Run: run, Tenant: TenantDefault, Workflow: "wf", Asked: pair}
		of := "run"
		if i%2 == 1 {
			c.Run, c.Workflow, of = other, "w2", "w2"
		}
		status := "open"
		if i%4 == 0 {
			status, c.Withdrawn = "expired", []flow.Withdrawn{{ID: pair[0].Approval, Expired: true}, {ID: pair[1].Approval, Expired: true}}
		}
		if err := s.commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		note(pair[0].Approval, of, status, "ann", of+status)
		second := []string{of, status, of + status}
		if i%3 != 0 {
			second = append(second, "ann")
		}
		note(pair[1].Approval, second...)
		c.Tenant, c.Asked = foreign, []flow.Ask{question(id())}
		if err := s.commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	open, expired := []flow.ApprovalStatus{flow.ApprovalOpen}, []flow.ApprovalStatus{flow.ApprovalExpired}
	for name, c := range map[string]struct {
		filter ApprovalFilter
		want   []uuid.UUID
	}{
		"all":             {ApprovalFilter{}, all},
		"open":            {ApprovalFilter{Status: open}, by["open"]},
		"both":            {ApprovalFilter{Status: append(open, flow.ApprovalExpired, flow.ApprovalAnswered)}, all},
		"answered":        {ApprovalFilter{Status: []flow.ApprovalStatus{flow.ApprovalAnswered}}, nil},
		"run":             {ApprovalFilter{Run: run}, by["run"]},
		"expired of run":  {ApprovalFilter{Run: run, Status: expired}, by["runexpired"]},
		"workflow":        {ApprovalFilter{Workflow: "w2"}, by["w2"]},
		"open of another": {ApprovalFilter{Workflow: "w2", Status: open}, by["w2open"]},
		"for somebody":    {ApprovalFilter{Assignee: "ann"}, by["ann"]},
		"unknown":         {ApprovalFilter{Workflow: "x\x00"}, nil},
		"no such run":     {ApprovalFilter{Run: id()}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uuid.UUID
			for f := c.filter; ; {
				f.Limit = 3
				page := must(db.Approvals(t.Context(), TenantDefault, f))(t)
				for _, a := range page {
					got = append(got, a.Approval)
				}
				if len(page) < f.Limit {
					break
				}
				f.After = got[len(got)-1]
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := must(db.Approvals(t.Context(), foreign, ApprovalFilter{Limit: 100}))(t); len(got) != 12 {
		t.Errorf("another tenant sees %d", len(got))
	}
	if got := must(db.Approvals(t.Context(), foreign, ApprovalFilter{Run: run, Limit: 100}))(t); len(got) != 6 {
		t.Errorf("another tenant sees %d of the run", len(got))
	}
}
