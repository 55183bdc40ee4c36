package engine_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// link is a way to Postgres that can be cut, or hold the end of a batch back.
type link struct {
	t           *testing.T
	url         string // of the database, through the link
	network, at string // of the server

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	away  bool
	mark  []byte        // a statement with it loses its end
	whole bool          // or its answer
	held  chan struct{} // closed when it did
	over  chan struct{} // closed when the test is over
}

var pgSync = []byte{'S', 0, 0, 0, 4} // ends what a client sends: until then its locks are held

func newLink(t *testing.T, database string) *link {
	t.Helper()
	cfg, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{
		t: t, conns: map[net.Conn]struct{}{}, held: make(chan struct{}), over: make(chan struct{}),
		network: "tcp", at: net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))),
	}
	if strings.HasPrefix(cfg.Host, "/") {
		l.network, l.at = "unix", path.Join(cfg.Host, ".s.PGSQL."+strconv.Itoa(int(cfg.Port)))
	}
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: listener.Addr().String(),
		Path: cfg.Database, RawQuery: "sslmode=disable",
	}
	l.url = through.String()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		close(l.over)
		l.cut()
		all.Wait()
	})
	return l
}

func (l *link) carry(node net.Conn) {
	defer node.Close()
	server, err := net.Dial(l.network, l.at)
	if err != nil {
		return
	}
	defer server.Close()
	l.mu.Lock()
	if l.away {
		l.mu.Unlock()
		return
	}
	l.conns[node], l.conns[server] = struct{}{}, struct{}{}
	l.mu.Unlock()
	var swallow atomic.Bool
	var back sync.WaitGroup
	back.Go(func() {
		defer node.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := server.Read(buf)
			if err != nil || swallow.Load() {
				return
			}
			if _, err := node.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	if l.forward(server, node, &swallow) {
		<-l.over // the server is not told that nobody is there any more
	}
	server.Close()
	back.Wait()
}

// forward carries what the node says. A statement with the mark loses its end, and then nothing more is carried (held
// is true); or it goes through, and its answer is lost.
func (l *link) forward(server net.Conn, node io.Reader, swallow *atomic.Bool) (held bool) {
	buf, marked := make([]byte, 1<<20), false
	for {
		n, err := node.Read(buf)
		if err != nil {
			return held
		}
		if held {
			continue
		}
		l.mu.Lock()
		marked = marked || (l.mark != nil && bytes.Contains(buf[:n], l.mark))
		if marked && bytes.HasSuffix(buf[:n], pgSync) {
			marked, l.mark = false, nil
			swallow.Store(l.whole)
			if !l.whole {
				n, held = n-len(pgSync), true
				delete(l.conns, server)
			}
			close(l.held)
		}
		l.mu.Unlock()
		if _, err := server.Write(buf[:n]); err != nil {
			return held
		}
	}
}

// cut ends all connections and lets no new one through.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = true
	for c := range l.conns {
		c.Close()
	}
	clear(l.conns)
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = false
}

// hold lets the next statement with the mark wait for its end for ever; lose lets its answer be lost.
func (l *link) hold(mark string) { l.set(mark, false) }
func (l *link) lose(mark string) { l.set(mark, true) }

func (l *link) set(mark string, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark, l.whole, l.held = []byte(mark), whole, make(chan struct{})
}
