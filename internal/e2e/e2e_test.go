// Package e2e tests the program from outside: it is built once and run as a user runs it.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test; dataDir holds the Postgres that all tests share.
var binary, dataDir string

// Limits of what a test waits for. They only end tests that hang.
const (
	commandLimit = 2 * time.Minute
	startLimit   = 3 * time.Minute // a first start may have to fetch Postgres
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fermata-e2e-")
	if err == nil {
		// Postgres may run as another account, which must be able to enter.
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, dataDir = filepath.Join(dir, "fermata"), filepath.Join(dir, "data")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/fermata-run/fermata/cmd/fermata")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if shared.service != nil {
		shared.service.end(syscall.SIGTERM)
	}
	return code
}

// root is the folder of the module: where a user stands who types the commands of the README.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// result is what a finished command left behind.
type result struct {
	out, err string
	code     int
}

// environment is ours, without what would change what is tested.
func environment(extra ...string) []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "FERMATA_") && !strings.HasPrefix(name, "OPENAI_") && name != "DATABASE_URL" && name != "NO_COLOR" {
			env = append(env, entry)
		}
	}
	return append(env, extra...)
}

// fermata runs a command to its end.
func fermata(t *testing.T, args ...string) result {
	t.Helper()
	return command(t, "", nil, args...)
}

func command(t *testing.T, stdin string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Dir, c.Env, c.Stdin = root(), environment(env...), strings.NewReader(stdin)
	var out, talk bytes.Buffer
	c.Stdout, c.Stderr = &out, &talk
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("fermata %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), talk.String(), c.ProcessState.ExitCode()}
}

// want fails the test unless the command ended with the code.
func (r result) want(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", r.code, code, r.out, r.err)
	}
	return r
}

// service is a running `fermata dev`.
type service struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{}
	talk *tailBuffer
}

var shared struct {
	sync.Once
	service *service
	err     error
}

// serviceFor gives the service that most tests share.
func serviceFor(t *testing.T) *service {
	t.Helper()
	shared.Do(func() {
		shared.service, shared.err = startService(dataDir)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.service
}

// startService starts `fermata dev` on a port of its own and waits until it says where.
func startService(dir string, args ...string) (*service, error) {
	c := exec.Command(binary, append([]string{"dev", "-o", "json", "--listen", "127.0.0.1:0", "--data-dir", dir}, args...)...)
	c.Dir, c.Env = root(), environment()
	s := &service{cmd: c, done: make(chan struct{}), talk: &tailBuffer{}}
	c.Stderr = s.talk
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	first := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		line, _ := r.ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, r)
		_ = c.Wait()
		close(s.done)
	}()
	select {
	case line := <-first:
		var said struct {
			URL string `json:"url"`
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || said.URL == "" {
			s.end(syscall.SIGKILL)
			return nil, fmt.Errorf("fermata dev said %q (%w)\n%s", line, err, s.talk)
		}
		s.url = said.URL
		return s, nil
	case <-time.After(startLimit):
		s.end(syscall.SIGKILL)
		return nil, fmt.Errorf("fermata dev did not start\n%s", s.talk)
	}
}

// end signals the service and waits until it is gone.
func (s *service) end(signal syscall.Signal) {
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.done:
	case <-time.After(commandLimit):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// fermata runs a client command against the service.
func (s *service) fermata(t *testing.T, args ...string) result {
	t.Helper()
	return command(t, "", []string{"FERMATA_URL=" + s.url}, args...)
}

// get reads a page of the service.
func (s *service) get(t *testing.T, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// decode reads a command's JSON.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not JSON (%v): %s", err, text)
	}
	return v
}

// tailBuffer keeps the end of what is written to it, for messages of tests that fail.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 16 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - tailBytes; over > 0 {
		b.buf = append([]byte(nil), b.buf[over:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}
