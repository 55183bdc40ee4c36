//go:build unix

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// holder is what a lock file of PostgreSQL says about who holds the cluster.
type holder int

const (
	holderNone  holder = iota // no file, or a dead pid, which PostgreSQL clears itself
	holderStale               // an empty file, a zombie, or a pid that another program got
	holderLive                // a server on this cluster
)

const (
	// A stale lock file gets this long to change: an empty one may belong to a
	// server being started by hand, a zombie's children may still be leaving.
	staleTries = 3
	stalePause = 100 * time.Millisecond

	lockFileLineSockets = 4 // 0-based: the first socket directory
)

// readHolder judges postmaster.pid or a socket's lock file.
func readHolder(path, data string) (holder, int) {
	text, err := os.ReadFile(path)
	if err != nil {
		return holderNone, 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid == 0 {
		return holderStale, 0
	}
	pid = max(pid, -pid) // negative: a server in single-user mode
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return holderNone, pid
	}
	if isPostmasterOf(pid, data) {
		return holderLive, pid
	}
	return holderStale, pid
}

// postmaster is the pid of the running server, or 0.
func (c *Cluster) postmaster() int {
	if h, pid := readHolder(filepath.Join(c.data, "postmaster.pid"), c.data); h == holderLive {
		return pid
	}
	return 0
}

// liveSockets is the socket directory the running server wrote down, which
// differs from ours when it was started with another $TMPDIR; "" if unknown.
func (c *Cluster) liveSockets() string {
	text, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return ""
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) <= lockFileLineSockets {
		return ""
	}
	return strings.TrimSpace(lines[lockFileLineSockets])
}

// clearStaleLocks removes lock files that PostgreSQL would stumble over although
// no server holds them. Its own shared-memory check still guards against
// backends that outlived their server.
func (c *Cluster) clearStaleLocks(ctx context.Context, sockets string) error {
	for _, path := range []string{
		filepath.Join(c.data, "postmaster.pid"),
		filepath.Join(sockets, ".s.PGSQL."+socketPort+".lock"),
	} {
		for try := 1; ; try++ {
			h, pid := readHolder(path, c.data)
			if h == holderLive {
				return fmt.Errorf("a server (pid %d) took the cluster meanwhile", pid)
			}
			if h == holderNone {
				break
			}
			if try == staleTries {
				c.log.Warn("postgres: removing a stale lock file", "file", path, "pid", pid)
				if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("remove stale lock file: %w", err)
				}
				break
			}
			if err := pause(ctx, stalePause); err != nil {
				return err
			}
		}
	}
	return nil
}
