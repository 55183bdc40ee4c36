//go:build unix

package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit   = 30 * time.Second
	requestLimit = 15 * time.Second
	keyVariable  = "CHAOS_KEY" // holds the node's name: the provider's ledger says who called
)

// node is one process of the service.
type node struct {
	t     *testing.T
	scene *scene
	name  string
	url   string
	log   string // the path of what it wrote
	args  []string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of the process, once ended
	http  *http.Client
}

// start runs a node on the scene's database and returns when it is ready.
func (s *scene) start(name string, args ...string) *node {
	s.t.Helper()
	return s.startOn(s.db.url, "127.0.0.1:0", name, args...)
}

// startOn is start with the way to the database and the address to listen on.
func (s *scene) startOn(database, listen, name string, args ...string) *node {
	s.t.Helper()
	n := s.launch(database, listen, name, args...)
	s.await(startLimit, "node "+name+" is ready", func() bool {
		if n.gone() {
			s.t.Fatalf("node %s ended while starting: %v\n%s", name, n.err, n.tail())
		}
		return n.status("/readyz") == http.StatusOK
	})
	return n
}

// launch runs a node and returns when it has said where it listens.
func (s *scene) launch(database, listen, name string, args ...string) *node {
	s.t.Helper()
	n := &node{
		t: s.t, scene: s, name: name, args: args, ended: make(chan struct{}),
		log:  s.path(fmt.Sprintf("%02d-%s.log", len(s.nodes)+1, name)),
		http: &http.Client{Timeout: requestLimit, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	log, err := os.Create(n.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	all := append([]string{"serve", "-o", "json", "--database-url", database, "--listen", listen, "--node", name, "--config", s.path("config.yaml")}, args...)
	n.cmd = exec.Command(s.program, all...)
	n.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, keyVariable + "=" + name}
	n.cmd.Stderr = log
	n.cmd.SysProcAttr = nodeAttr()
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.nodes = append(s.nodes, n)
	said := make(chan string, 1)
	go n.watch(out, said)
	select {
	case n.url = <-said:
	case <-n.ended:
		s.t.Fatalf("node %s ended while starting: %v\n%s", name, n.err, n.tail())
	case <-time.After(startLimit):
		s.t.Fatalf("node %s does not say where it listens\n%s", name, n.tail())
	}
	return n
}

// watch reads where the node listens, and waits for its end.
func (n *node) watch(out io.Reader, said chan<- string) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var line struct {
			URL string `json:"url"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.URL != "" {
			said <- line.URL
			break
		}
	}
	_, _ = io.Copy(io.Discard, out)
	n.err = n.cmd.Wait()
	close(n.ended)
}

// again starts a process of the same name at the same address.
func (n *node) again() *node {
	n.t.Helper()
	return n.scene.startOn(n.scene.db.url, strings.TrimPrefix(n.url, "http://"), n.name, n.args...)
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("signal %s to node %s: %v", s, n.name, err)
	}
}

func (n *node) freeze()    { n.t.Helper(); n.signal(syscall.SIGSTOP) }
func (n *node) thaw()      { n.t.Helper(); n.signal(syscall.SIGCONT) }
func (n *node) terminate() { n.t.Helper(); n.signal(syscall.SIGTERM) }

// kill is kill -9. It returns when the process is gone.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.ended
}

func (n *node) gone() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// end ends the process if it still runs.
func (n *node) end() {
	if n.gone() {
		return
	}
	_ = n.cmd.Process.Kill() // a frozen process dies of it, too
	<-n.ended
}

// awaitEnd waits for a node that was asked to end.
func (n *node) awaitEnd(limit time.Duration) {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(limit):
		n.t.Fatalf("node %s has not ended after %s\n%s", n.name, limit, n.tail())
	}
	if n.err != nil {
		n.t.Errorf("node %s did not end well: %v\n%s", n.name, n.err, n.tail())
	}
}

func (n *node) get(path string) (*http.Response, []byte, error) {
	resp, err := n.http.Get(n.url + path)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// status is the status of an answer; 0 if there was none.
func (n *node) status(path string) int {
	resp, _, err := n.get(path)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

// metric sums the series of a metric that carry all the labels, each as `name="value"`.
func (n *node) metric(name string, labels ...string) float64 {
	n.t.Helper()
	resp, body, err := n.get("/metrics")
	if err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("read the metrics of node %s: %v", n.name, err)
	}
	sum, seen := sumMetric(body, name, labels)
	if !seen {
		n.t.Fatalf("node %s has no metric %s%v", n.name, name, labels)
	}
	return sum
}

func sumMetric(text []byte, name string, labels []string) (sum float64, seen bool) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		series, given, _ := strings.Cut(line[:at], "{")
		if series != name || !containsAll(given, labels) {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			sum, seen = sum+v, true
		}
	}
	return sum, seen
}

func containsAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// said counts the lines of the node's log that hold all the parts.
func (n *node) said(parts ...string) (count int) {
	n.t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if containsAll(string(line), parts) {
			count++
		}
	}
	return count
}

func (n *node) tail() string {
	const tailMax = 6 << 10
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailMax):])
}

// checkLog fails the test for a panic or a data race, and shows the end of the log of a test that failed.
func (n *node) checkLog() {
	for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "panic in the rules"} {
		if n.said(sign) > 0 {
			n.t.Errorf("the log of node %s has a %q", n.name, sign)
		}
	}
	if n.t.Failed() {
		var exit *exec.ExitError
		_ = errors.As(n.err, &exit)
		n.t.Logf("end of the log of node %s (%v):\n%s", n.name, n.err, n.tail())
	}
}
