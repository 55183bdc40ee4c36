//go:build unix

package chaos

import (
	"errors"
	"io"
	"net"
	"net/url"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// link is a network between a node and Postgres that can be broken.
type link struct {
	t      *testing.T
	url    string // of the database, through the link
	socket string // of the server

	mute atomic.Bool  // what the server says is dropped
	deaf atomic.Bool  // what the node says is dropped
	slow atomic.Int64 // nanoseconds that each piece takes, either way

	dropped [2]atomic.Int64 // bytes, by direction
	mu      sync.Mutex
	pairs   map[*pair]struct{}
}

// pair is one connection through the link.
type pair struct {
	node, server net.Conn
	stale        atomic.Bool // nothing gets through any more, and nobody is told
}

const (
	toServer = iota
	toNode
)

func newLink(t *testing.T, d *database) *link {
	t.Helper()
	given, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	query := given.Query()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	through := url.URL{Scheme: "postgres", User: url.User(query.Get("user")), Host: listener.Addr().String(), Path: given.Path, RawQuery: "sslmode=disable"}
	l := &link{
		t: t, url: through.String(), pairs: map[*pair]struct{}{},
		socket: path.Join(query.Get("host"), ".s.PGSQL."+query.Get("port")),
	}
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
		l.reset()
		all.Wait()
	})
	return l
}

func (l *link) carry(node net.Conn) {
	server, err := net.Dial("unix", l.socket)
	if err != nil {
		hangUp(node)
		return
	}
	p := &pair{node: node, server: server}
	l.mu.Lock()
	l.pairs[p] = struct{}{}
	l.mu.Unlock()
	var ways sync.WaitGroup
	ways.Go(func() { l.copy(p, server, node, toServer, &l.deaf) })
	ways.Go(func() { l.copy(p, node, server, toNode, &l.mute) })
	ways.Wait()
	l.mu.Lock()
	delete(l.pairs, p)
	l.mu.Unlock()
}

// copy carries one direction until either end is gone.
func (l *link) copy(p *pair, to, from net.Conn, way int, drop *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if d := time.Duration(l.slow.Load()); d > 0 && n > 0 {
			pause(l.t.Context(), d)
		}
		switch {
		case n == 0:
		case drop.Load() || p.stale.Load():
			l.dropped[way].Add(int64(n))
		default:
			if _, werr := to.Write(buffer[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err == nil {
			continue
		}
		if p.stale.Load() && errors.Is(err, io.EOF) {
			return // the other side does not hear of it
		}
		hangUp(p.node)
		p.server.Close()
		return
	}
}

// hangUp ends a TCP connection by a reset.
func hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// reset breaks every connection, as seen from both ends.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		hangUp(p.node)
		p.server.Close()
	}
}

// forget lets every present connection hang for ever: a firewall that has lost its table. New ones are carried.
func (l *link) forget() (connections int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.stale.Store(true)
	}
	return len(l.pairs)
}
