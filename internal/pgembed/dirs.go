//go:build unix

package pgembed

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// socketPathMax is what fits into sockaddr_un on every Unix, with its NUL.
const socketPathMax = 104

// DefaultDir is the state directory used when none is named: below
// $STATE_DIRECTORY (systemd), /var/lib/fermata for root, else $XDG_STATE_HOME or
// ~/.local/state. Root's home is avoided: the unprivileged server cannot enter it.
func DefaultDir() string {
	if d, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); d != "" {
		return filepath.Join(d, "postgres")
	}
	if os.Geteuid() == 0 {
		return "/var/lib/fermata/postgres"
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "fermata", "postgres")
	}
	if h, err := os.UserHomeDir(); err == nil {
		return filepath.Join(h, ".local", "state", "fermata", "postgres")
	}
	return filepath.Join(os.TempDir(), "fermata-postgres-"+strconv.Itoa(os.Geteuid()))
}

// stateDir makes dir and returns its absolute path without symbolic links, so
// that every process speaks of the cluster by the same name.
func stateDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("state directory %s: %w", dir, err)
	}
	if err := mkdirReachable(abs); err != nil {
		return "", fmt.Errorf("make state directory (choose another with --data-dir): %w", err)
	}
	return filepath.EvalSymlinks(abs)
}

// mkdirReachable is MkdirAll whose new directories others may enter whatever the
// umask says: the server may run as another account. What is private in them
// has modes of its own.
func mkdirReachable(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := mkdirReachable(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) { // another starter was faster
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

// socketDir is <dir>/run, or a short stand-in when that would not serve as the
// address of a socket.
func socketDir(dir string) string {
	d := filepath.Join(dir, "run")
	if socketUsable(d) {
		return d
	}
	sum := sha256.Sum256([]byte(dir))
	name := "fermata-pg-" + hex.EncodeToString(sum[:6])
	if d = filepath.Join(os.TempDir(), name); socketUsable(d) {
		return d
	}
	return filepath.Join("/tmp", name)
}

// socketUsable reports whether the socket's path fits into its address and into
// a connection URL, where a comma separates hosts.
func socketUsable(dir string) bool {
	return !strings.Contains(dir, ",") && len(filepath.Join(dir, ".s.PGSQL."+socketPort+".lock")) < socketPathMax
}

// privateDir makes a directory that only the server's account (and root) may
// enter. One that another account made is refused: below /tmp anybody could have
// prepared it, and whoever owns it could answer in the server's place.
func privateDir(dir string, a account) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make private directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("make private directory: %w", err)
	}
	uid := ownerOf(info).Uid
	if !info.IsDir() || (int(uid) != os.Geteuid() && uid != a.uid()) {
		return fmt.Errorf("%s exists and is not a directory of this account (owner uid %d): remove it or choose another --data-dir", dir, uid)
	}
	if a.cred != nil {
		if err := os.Lchown(dir, int(a.cred.Uid), int(a.cred.Gid)); err != nil {
			return fmt.Errorf("make private directory: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("make private directory: %w", err)
	}
	return nil
}

func ownerOf(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
