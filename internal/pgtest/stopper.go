//go:build unix

package pgtest

import (
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// graceSeconds is how long the shared server waits for the next test process.
const graceSeconds = 10

//go:embed stopper.sh
var stopperScript string

// What a stopper does with its server.
const (
	stopShared = "shared" // stop it when no process uses it
	stopOwn    = "own"    // stop it
	stopRemove = "remove" // stop it and remove its directory
)

// stopper is a shell that stops a server when this process has ended without
// doing so, be it by a panic or kill -9: tests have no hook at the end of their
// process. It waits for the end of a pipe that only this process holds.
type stopper struct {
	pipe *os.File
	cmd  *exec.Cmd
}

func stopAfterProcess(dir, kind string) (*stopper, error) {
	pid := strconv.Itoa(os.Getpid())
	if kind == stopShared {
		users := filepath.Join(dir, "users")
		if err := os.MkdirAll(users, 0o755); err != nil {
			return nil, fmt.Errorf("watch the test server: %w", err)
		}
		if err := os.WriteFile(filepath.Join(users, pid), nil, 0o600); err != nil {
			return nil, fmt.Errorf("watch the test server: %w", err)
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("watch the test server: %w", err)
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", stopperScript, "stopper", dir, kind, pid, strconv.Itoa(graceSeconds))
	cmd.Dir = "/"
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // ^C is not for it
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("watch the test server: %w", err)
	}
	return &stopper{pipe: write, cmd: cmd}, nil
}

// release lets the stopper do its work now, for a server that was stopped.
func (s *stopper) release() error {
	s.pipe.Close()
	return s.cmd.Wait()
}

func ownedByUs(info fs.FileInfo) bool {
	return int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}
