package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fermata-run/fermata/internal/flow"
)

// message is one server-sent event.
type message struct{ id, event, data, comment string }

// listener reads a stream as a browser would.
type listener struct {
	t    testing.TB
	resp *http.Response
	scan *bufio.Scanner
}

// listen opens a stream over a real connection.
func (s *service) listen(t testing.TB, server *httptest.Server, path string, headers ...string) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("got %s %v", resp.Status, resp.Header)
	}
	return &listener{t: t, resp: resp, scan: bufio.NewScanner(resp.Body)}
}

// next is the next message; false: the stream was closed.
func (l *listener) next() (message, bool) {
	l.t.Helper()
	var m message
	any := false
	for l.scan.Scan() {
		line := l.scan.Text()
		if line == "" && any {
			return m, true
		}
		any = true
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "", "retry":
			m.comment = line
		default:
			l.t.Fatalf("strange line %q", line)
		}
	}
	return m, false
}

// rest reads to the end of the stream and gives "id event" of each message.
func (l *listener) rest() []string {
	l.t.Helper()
	var list []string
	for {
		m, ok := l.next()
		if !ok {
			return list
		}
		if m.event != "" {
			list = append(list, strings.TrimSpace(m.id+" "+m.event))
		}
	}
}

func (s *service) serve(t testing.TB) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(ServerConfig{}, s.handler)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// History first, then what comes, then the end, and the stream closes.
func TestStream(t *testing.T) {
	s := newService(t, nil)
	server := s.serve(t)
	run := s.submit(t, oneTool).ID
	l := s.listen(t, server, "/v1/runs/"+run+"/events")
	if m, _ := l.next(); m.comment != "retry: 2000" {
		t.Errorf("got %+v first", m)
	}
	m, _ := l.next()
	var first Event
	if err := json.Unmarshal([]byte(m.data), &first); err != nil || m.id != "1" || m.event != "run_submitted" || first.Seq != 1 || first.RunID != run {
		t.Fatalf("got %+v: %v", m, err)
	}
	if m, _ = l.next(); m.event != "step_started" {
		t.Fatalf("got %+v", m)
	}
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{}`)})
	got := l.rest()
	want := []string{"3 step_succeeded"}
	var page EventPage
	s.send(t, "GET", "/v1/runs/"+run+"/events?after=3", nil).want(200).json(&page)
	for _, e := range page.Data {
		want = append(want, fmt.Sprintf("%d %s", e.Seq, e.Kind))
	}
	if d := cmp.Diff(append(want, "end"), got); d != "" {
		t.Error(d)
	}
	if s.streams.Load() != 0 || s.mem.watching(run) != 0 {
		t.Error("the stream is still counted")
	}
}

// From every place the suffix is the same, whichever way the place is told. (I17)
func TestStreamFromEverywhere(t *testing.T) {
	s := newService(t, nil)
	server := s.serve(t)
	run := s.submit(t, contracted).ID
	s.mem.report(t, run, "work", failed("server"))
	s.send(t, "POST", "/v1/runs/"+run+"/resume", nil).want(202) // the log goes on after its first end
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{"pass":true}`)})
	all := s.listen(t, server, "/v1/runs/"+run+"/events").rest()
	events := len(all) - 1
	if all[events] != "end" || events < 8 {
		t.Fatalf("got %v", all)
	}
	for after := range events + 1 {
		byHeader := s.listen(t, server, "/v1/runs/"+run+"/events?after=0", fmt.Sprintf("Last-Event-ID: %d", after)).rest()
		byQuery := s.listen(t, server, fmt.Sprintf("/v1/runs/%s/events?after=%d", run, after)).rest()
		var page EventPage
		s.send(t, "GET", fmt.Sprintf("/v1/runs/%s/events?after=%d", run, after), nil).want(200).json(&page)
		asPage := []string{}
		for _, e := range page.Data {
			asPage = append(asPage, fmt.Sprintf("%d %s", e.Seq, e.Kind))
		}
		if d := cmp.Diff(all[after:], byHeader); d != "" {
			t.Errorf("after %d, by header: %s", after, d)
		}
		if d := cmp.Diff(all[after:], byQuery); d != "" {
			t.Errorf("after %d, by query: %s", after, d)
		}
		if d := cmp.Diff(all[after:events], asPage); d != "" || !page.Ended || int(page.LastSeq) != events {
			t.Errorf("after %d, as a page: %s, %+v", after, d, page)
		}
	}
	beyond := s.listen(t, server, fmt.Sprintf("/v1/runs/%s/events?after=%d", run, events+100)).rest()
	if d := cmp.Diff([]string{"end"}, beyond); d != "" {
		t.Errorf("beyond the end: %s", d)
	}
}

func TestDrainEndsStreams(t *testing.T) {
	s := newService(t, nil)
	server := s.serve(t)
	run := s.submit(t, oneTool).ID
	l := s.listen(t, server, "/v1/runs/"+run+"/events")
	for seen := ""; seen != string(flow.KindStepStarted); {
		m, ok := l.next()
		if !ok {
			t.Fatal("the stream ends before it has told what there is")
		}
		seen = m.event
	}
	s.Drain()
	if got := l.rest(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	s.streams.Store(streamsMax)
	s.send(t, "GET", "/v1/runs/"+run+"/events", nil, "Accept: text/event-stream").wantProblem(429, "too_many_streams")
	if s.streams.Load() != streamsMax {
		t.Error("the refused stream is counted")
	}
}

func TestStreamOfNobody(t *testing.T) {
	s := newService(t, nil)
	s.send(t, "GET", "/v1/runs/"+noRun+"/events", nil, "Accept: text/event-stream").wantProblem(404, "run_not_found")
	s.send(t, "GET", "/v1/runs/"+noRun+"/events", nil).wantProblem(404, "run_not_found")
}

// The JSON twin waits for an event, no longer than asked, and pages.
func TestLongPoll(t *testing.T) {
	s := newService(t, nil)
	run := s.submit(t, oneTool).ID
	var page EventPage
	s.send(t, "GET", "/v1/runs/"+run+"/events?limit=1", nil).want(200).json(&page)
	if len(page.Data) != 1 || page.LastSeq != 1 || page.Ended {
		t.Errorf("got %+v", page)
	}
	var group sync.WaitGroup
	var late *answered
	group.Go(func() { late = s.send(t, "GET", "/v1/runs/"+run+"/events?after=2&wait=30", nil) })
	s.awaited(t)
	s.mem.report(t, run, "work", flow.Outcome{Output: json.RawMessage(`{}`)})
	group.Wait()
	if late.want(200).json(&page); len(page.Data) == 0 || page.Data[0].Seq != 3 || !page.Ended {
		t.Errorf("got %+v", page)
	}
	s.send(t, "GET", "/v1/runs/"+run+"/events?after=50&wait=60", nil).want(200).json(&page) // has ended: nothing to wait for
	if len(page.Data) != 0 || !page.Ended || page.LastSeq != 50 {
		t.Errorf("got %+v", page)
	}
}

func TestHeartbeat(t *testing.T) {
	s := newService(t, nil)
	s.beat = 10 * time.Millisecond
	run := s.submit(t, oneTool).ID
	l := s.listen(t, s.serve(t), "/v1/runs/"+run+"/events?after=2")
	for beats := 0; beats < 3; {
		m, ok := l.next()
		if !ok {
			t.Fatal("the stream was closed")
		}
		if strings.HasPrefix(m.comment, ": ") {
			beats++
		}
	}
}

// Streams and waits outlive the time limits of ordinary requests.
func TestStreamsOutliveTimeouts(t *testing.T) {
	s := newService(t, nil)
	s.beat = 50 * time.Millisecond
	server := httptest.NewUnstartedServer(nil)
	server.Config = Server(ServerConfig{}, s.handler)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	run := s.submit(t, oneTool).ID
	l := s.listen(t, server, "/v1/runs/"+run+"/events?after=2")
	for beats := 0; beats < 12; {
		m, ok := l.next()
		if !ok {
			t.Fatalf("the stream was cut after %d beats", beats)
		}
		if strings.HasPrefix(m.comment, ": ") {
			beats++
		}
	}
	resp, err := server.Client().Get(server.URL + "/v1/runs/" + run + "/events?after=2&wait=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page EventPage
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil || resp.StatusCode != 200 || len(page.Data) != 0 {
		t.Fatalf("got %s %+v %v", resp.Status, page, err)
	}
}
