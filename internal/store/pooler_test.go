package store

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/fermata-run/fermata/internal/pgtest"
)

// pooler is a connection pooler like PgBouncer, made of two server connections. In transaction mode a client gets one
// of them for each transaction, the one given back last; in session mode it keeps one.
type pooler struct {
	t       *testing.T
	session bool
	options bool // the options that clients start with reach the server
	mu      sync.Mutex
	free    []*pgconn.HijackedConn
}

// pooled gives the configuration of a store that connects through a pooler.
func pooled(t *testing.T, session, options bool) *DB {
	t.Helper()
	db := open(t)
	p := &pooler{t: t, session: session, options: options}
	for range 2 {
		cfg := db.conn.Copy()
		if !options {
			cfg.RuntimeParams = nil
		}
		conn, err := pgconn.ConnectConfig(t.Context(), &cfg.Config)
		if err != nil {
			t.Fatal(err)
		}
		h, err := conn.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Conn.Close() })
		p.free = append(p.free, h)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	db.conn = db.conn.Copy()
	db.conn.Host, db.conn.Port = "127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port)
	db.conn.TLSConfig, db.conn.Fallbacks = nil, nil
	return db
}

func (p *pooler) take() *pgconn.HijackedConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		p.t.Error("the pooler has no server left")
		return nil
	}
	last := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return last
}

func (p *pooler) give(h *pgconn.HijackedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, h)
}

func (p *pooler) serve(c net.Conn) {
	defer c.Close()
	client := pgproto3.NewBackend(c, c)
	if _, err := client.ReceiveStartupMessage(); err != nil {
		return
	}
	client.Send(&pgproto3.AuthenticationOk{})
	client.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	client.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	client.Send(&pgproto3.BackendKeyData{ProcessID: 4711, SecretKey: []byte{1, 2, 3, 4}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if client.Flush() != nil {
		return
	}
	var server *pgconn.HijackedConn
	defer func() {
		if server != nil {
			p.give(server)
		}
	}()
	for {
		m, err := client.Receive()
		if err != nil {
			return
		}
		if _, end := m.(*pgproto3.Terminate); end {
			return
		}
		if server == nil {
			if server = p.take(); server == nil {
				return
			}
		}
		server.Frontend.Send(m)
		if server.Frontend.Flush() != nil {
			return
		}
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
			status, err := answer(server.Frontend, client)
			if err != nil {
				return
			}
			if status == 'I' && !p.session {
				p.give(server)
				server = nil
			}
		}
	}
}

// answer carries the server's answers to the client until it is ready for more.
func answer(server *pgproto3.Frontend, client *pgproto3.Backend) (status byte, err error) {
	for {
		m, err := server.Receive()
		if err != nil {
			return 0, err
		}
		client.Send(m)
		if ready, ok := m.(*pgproto3.ReadyForQuery); ok {
			return ready.TxStatus, client.Flush()
		}
	}
}

func TestPoolers(t *testing.T) {
	for name, c := range map[string]struct {
		session, options bool
		want             error
	}{
		"transaction mode":              {false, true, errPooler},
		"session mode":                  {true, true, nil},
		"session mode, without options": {true, false, errOptionsDropped},
	} {
		t.Run(name, func(t *testing.T) {
			if err := pooled(t, c.session, c.options).check(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("check: %v, want %v", err, c.want)
			}
		})
	}
	refusal := connectHint(&pgconn.PgError{SeverityUnlocalized: "FATAL", Code: "08P01", Message: "unsupported startup parameter: enable_seqscan"})
	if !errors.Is(refusal, errPooler) {
		t.Errorf("PgBouncer's refusal: %v", refusal)
	}
	direct, err := Open(t.Context(), Config{URL: pgtest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	direct.Close()
}
