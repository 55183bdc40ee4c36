//go:build unix

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// scene is what a test plays in: a Postgres, a provider of models and the nodes.
type scene struct {
	t       *testing.T
	dir     string // of the logs: kept when the test fails
	program string // that nodes are started of
	db      *database
	models  *provider
	client  *client
	nodes   []*node // every process that was started
	known   int     // calls that were made until the last crash
}

func newScene(t *testing.T) *scene {
	t.Helper()
	dir, err := os.MkdirTemp("", "fermata-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs of the nodes are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &scene{t: t, dir: dir, program: os.Getenv(program), db: newDatabase(t), models: newProvider(t), client: newClient(t)}
	s.write("config.yaml", fmt.Sprintf("providers:\n  - name: %s\n    kind: openai\n    base_url: %s/v1\n    api_key_env: %s\n",
		providerName, s.models.url, keyVariable))
	t.Cleanup(s.closeNodes)
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// closeNodes ends what still runs, and looks whether any node panicked or raced.
func (s *scene) closeNodes() {
	for _, n := range s.nodes {
		n.end()
	}
	for _, n := range s.nodes {
		n.checkLog()
	}
}

// live are the nodes whose processes run.
func (s *scene) live() []*node {
	var list []*node
	for _, n := range s.nodes {
		if !n.gone() {
			list = append(list, n)
		}
	}
	return list
}

// pollEvery is the pace of looking where nobody tells.
const pollEvery = 20 * time.Millisecond

// await looks until the condition holds. The limit is far beyond what is expected: to reach it is a failure.
func (s *scene) await(limit time.Duration, what string, holds func() bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > limit {
			s.t.Fatalf("after %s still not: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// leaseTTL is how long a node lives on in the table without a sign of life.
const leaseTTL = 15 * time.Second

// owned counts the runs that the table gives to nodes of that name.
func (s *scene) owned(name string) int {
	s.t.Helper()
	return int(one[int64](s.db, `select count(*) from run r join lease l on l.id = r.owner join node n on n.id = l.node where n.name = $1`, name))
}

// season waits until the node has been alive long enough to be trusted to take over from others.
func (s *scene) season(n *node) {
	s.t.Helper()
	s.await(2*leaseTTL, "node "+n.name+" may take over", func() bool {
		return one[bool](s.db, `select coalesce(bool_and(l.since < now() - make_interval(secs => $2)), false)
			from lease l join node n on n.id = l.node where n.name = $1 and l.closed_at is null`, n.name, leaseTTL.Seconds())
	})
}

// settled counts the steps that are done for good.
func (s *scene) settled() int {
	s.t.Helper()
	return int(one[int64](s.db, `select count(*) from event_log where kind = 'step_succeeded'`))
}

// want fails the test when its fault did not happen, or did not do what it was for.
func (s *scene) want(holds bool, format string, args ...any) {
	s.t.Helper()
	if !holds {
		s.t.Errorf(format, args...)
	}
}

// calledAgain counts the steps that the provider was asked for more than once.
func calledAgain(calls []call) (n int) {
	seen := map[stepOf]int{}
	for _, c := range calls {
		if seen[stepOf{c.run, c.step}]++; seen[stepOf{c.run, c.step}] == 2 {
			n++
		}
	}
	return n
}
