package store

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// wire stands between a committer and the server, and breaks as wires do.
type wire struct {
	t      testing.TB
	listen net.Listener
	server string
	net    string

	mu      sync.Mutex
	clients []net.Conn
	holding bool          // what clients send is kept back
	kept    chan struct{} // signalled when something was kept back
	deaf    bool          // nobody is let in any more
	release chan struct{} // closed: what was kept back goes to the server
	answers chan []byte   // of the server, after the release
}

// through makes the store's further connections go over a wire.
func through(t testing.TB, db *DB) *wire {
	t.Helper()
	w := &wire{t: t, kept: make(chan struct{}, 1), release: make(chan struct{}), answers: make(chan []byte, 100)}
	w.net, w.server = pgconn.NetworkAddress(db.conn.Host, db.conn.Port)
	var err error
	if w.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.listen.Close() })
	go w.accept()
	db.conn = db.conn.Copy()
	db.conn.TLSConfig, db.conn.Fallbacks = nil, nil
	db.conn.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	db.conn.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		w.mu.Lock()
		deaf := w.deaf
		w.mu.Unlock()
		if deaf {
			return nil, errors.New("the wire is cut")
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", w.listen.Addr().String())
	}
	return w
}

func (w *wire) accept() {
	for {
		client, err := w.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(w.net, w.server)
		if err != nil {
			w.t.Error(err)
			return
		}
		w.t.Cleanup(func() { client.Close(); server.Close() })
		w.mu.Lock()
		w.clients = append(w.clients, client)
		w.mu.Unlock()
		go w.forth(client, server)
		go w.back(client, server)
	}
}

// forth carries what the client sends. A client that is gone is not told to the server.
func (w *wire) forth(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	var kept []byte
	for {
		n, err := client.Read(buf)
		w.mu.Lock()
		holding := w.holding
		w.mu.Unlock()
		if holding && n > 0 {
			kept = append(kept, buf[:n]...)
			select {
			case w.kept <- struct{}{}:
			default:
			}
		} else if _, err := server.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			break
		}
	}
	if kept != nil {
		<-w.release
		server.Write(kept)
	}
}

func (w *wire) back(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if n > 0 {
			if _, gone := client.Write(buf[:n]); gone != nil {
				select {
				case w.answers <- append([]byte(nil), buf[:n]...):
				default:
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// hold keeps back what clients send from now on.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = true
}

// cut ends all connections on the client's side only: the server does not notice.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
	for _, c := range w.clients {
		c.Close()
	}
}
