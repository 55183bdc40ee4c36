package provider

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/fermata-run/fermata/internal/agent"
)

// streamBytesGoal is what one open stream may cost us. Ten thousand of them then fit into a gigabyte.
const streamBytesGoal = 100 << 10

// TestOpenStreamsAreCheap opens streams that have begun and then stay silent, as those of models that think do. The
// server's side is one goroutine and a list of connections, so that what is measured is ours; with TLS it is ours and
// the server's keys and buffers.
func TestOpenStreamsAreCheap(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("plain", func(t *testing.T) { measureStreams(t, listener, "http") })

	certified := httptest.NewTLSServer(http.NotFoundHandler())
	defer certified.Close()
	if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	listener = tls.NewListener(listener, &tls.Config{Certificates: certified.TLS.Certificates})
	t.Run("TLS", func(t *testing.T) { measureStreams(t, listener, "https") })
}

func measureStreams(t *testing.T, listener net.Listener, scheme string) {
	const streams = 400
	prompt := strings.Repeat(prose, 80) // 10 KB
	var served sync.WaitGroup
	served.Go(func() { serveSilently(listener, streams) })

	o, err := NewOpenAI(OpenAIConfig{BaseURL: scheme + "://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	o.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	var begun, ended sync.WaitGroup
	begun.Add(streams)
	ctx, cancel := context.WithCancel(t.Context())
	before := inUse()
	for range streams {
		ended.Go(func() {
			began := sync.OnceFunc(begun.Done)
			defer began()
			call := Call{Model: "m", MaxTokens: 100, Stream: func(Delta) { began() }}
			call.Ask.Messages = []agent.Message{{Role: "user", Content: prompt}} // the text is shared: it is the caller's
			_, err := o.Complete(ctx, call)
			if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassCancelled || !e.Begun {
				t.Errorf("%+v", err)
			}
		})
	}
	begun.Wait()
	each := (inUse() - before) / streams
	t.Logf("an open stream costs %d KB", each>>10)
	if each > streamBytesGoal {
		t.Errorf("an open stream costs %d bytes, the goal is %d", each, streamBytesGoal)
	}
	cancel()
	ended.Wait()
	o.Close()
	listener.Close()
	served.Wait()
}

// serveSilently answers each connection with the beginning of a stream and leaves it open until the listener is closed.
func serveSilently(listener net.Listener, streams int) {
	conns := make([]net.Conn, 0, streams)
	in := bufio.NewReader(nil)
	for {
		conn, err := listener.Accept()
		if err != nil {
			break
		}
		conns = append(conns, conn)
		in.Reset(conn)
		if r, err := http.ReadRequest(in); err == nil {
			io.Copy(io.Discard, r.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"+part)
		}
	}
	for _, c := range conns {
		c.Close()
	}
}

// inUse is the memory in use, of heap and stacks.
func inUse() uint64 {
	runtime.GC()
	runtime.GC() // what the first one finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
