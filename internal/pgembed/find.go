//go:build unix

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	majorMin   = 15
	probeLimit = 10 * time.Second
)

var (
	// ErrNoPostgres means that no usable PostgreSQL was found or could be fetched.
	ErrNoPostgres = errors.New("no usable PostgreSQL")
	// ErrForeignMajor means that the cluster was made by a major version that is
	// not available. The cluster was left as it is.
	ErrForeignMajor = errors.New("the cluster was made by another PostgreSQL major version")
)

// systemGlobs are the places where packages put the server.
var systemGlobs = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                   // PGDG RPM
	"/usr/libexec/postgresql*",           // Alpine
	"/usr/local/pgsql/bin",               // built from source
	"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, ARM
	"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/bin", "/usr/local/bin", // Arch, Fedora, FreeBSD
}

var (
	versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
	numberPattern  = regexp.MustCompile(`\d+`)
)

// installation is one set of PostgreSQL binaries.
type installation struct {
	dir   string // holds postgres and initdb
	lib   string // where a fetched bundle keeps its libraries, else ""
	major int
}

// finder looks for binaries.
type finder struct {
	config  Config
	account account
	places  func(Config) []string
}

// systemPlaces are the directories to look into, in order: configured, fetched
// earlier, $PATH, then the usual ones, newest first.
func systemPlaces(c Config) []string {
	places := slices.Clone(c.BinDirs)
	fetched, _ := filepath.Glob(filepath.Join(c.Dir, "bin", "*", "native", "bin"))
	places = append(places, fetched...)
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			places = append(places, filepath.Dir(p))
		}
	}
	var usual []string
	for _, glob := range systemGlobs {
		found, _ := filepath.Glob(glob)
		usual = append(usual, found...)
	}
	slices.SortStableFunc(usual, func(a, b string) int { return pathMajor(b) - pathMajor(a) })
	return append(places, usual...)
}

// pathMajor is the version number that a path like /usr/lib/postgresql/16/bin has.
func pathMajor(path string) int {
	numbers := numberPattern.FindAllString(path, -1)
	if len(numbers) == 0 {
		return 0
	}
	n, err := strconv.Atoi(numbers[len(numbers)-1])
	if err != nil {
		return 0
	}
	return n
}

// find returns the binaries to use: of major version made if the cluster exists
// (made > 0), else the first that is new enough.
func (f finder) find(ctx context.Context, made int) (installation, error) {
	fits := func(major int) bool { return major >= majorMin && (made == 0 || major == made) }
	var seen []string
	for _, dir := range f.places(f.config) {
		bin, err := f.probe(ctx, dir)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) || slices.Contains(f.config.BinDirs, dir) {
				seen = append(seen, err.Error())
			}
			continue
		}
		if fits(bin.major) {
			return bin, nil
		}
		seen = append(seen, fmt.Sprintf("PostgreSQL %d in %s", bin.major, dir))
	}
	switch {
	case !fits(bundleMajor):
	case f.config.Offline:
		seen = append(seen, "fetching is off")
	default:
		bin, err := f.fetched(ctx)
		if err == nil {
			return bin, nil
		}
		seen = append(seen, err.Error())
	}
	return installation{}, notFound(made, seen)
}

func notFound(made int, seen []string) error {
	found := "nothing"
	if len(seen) > 0 {
		found = strings.Join(seen, "; ")
	}
	if made != 0 && made < majorMin {
		return fmt.Errorf("%w: %d, and the oldest that is supported is %d. It was left untouched. Upgrade it with pg_upgrade, set DATABASE_URL, or choose another --data-dir", ErrForeignMajor, made, majorMin)
	}
	if made != 0 {
		return fmt.Errorf("%w: %d, which was not found (found: %s). It was left untouched. Install PostgreSQL %d, upgrade it with pg_upgrade, set DATABASE_URL, or choose another --data-dir", ErrForeignMajor, made, found, made)
	}
	return fmt.Errorf("%w was found (found: %s). Install PostgreSQL %d or newer, set DATABASE_URL to a server, or name a --data-dir that already holds a fetched one", ErrNoPostgres, found, majorMin)
}

// probe runs postgres --version as the server's account: that also proves that
// it runs here at all (its C library, its libraries, its permissions).
func (f finder) probe(ctx context.Context, dir string) (installation, error) {
	for _, name := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return installation{}, err
		}
	}
	bin := installation{dir: dir}
	if _, err := os.Stat(filepath.Join(dir, "..", bundleLinks)); err == nil {
		bin.lib = filepath.Join(filepath.Dir(dir), "lib")
	}
	cmd, err := bin.command(f.account, "postgres", "--version")
	if err != nil {
		return installation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	out, err := runUntil(ctx, cmd)
	if err != nil {
		return installation{}, fmt.Errorf("%s does not run: %w: %s", cmd.Path, err, strings.TrimSpace(string(out)))
	}
	version := versionPattern.FindSubmatch(out)
	if version == nil {
		return installation{}, fmt.Errorf("%s is not PostgreSQL", cmd.Path)
	}
	bin.major, err = strconv.Atoi(string(version[1]))
	return bin, err
}

// command prepares one of the binaries to run as the account, with an
// environment that does not depend on the caller's.
func (b installation) command(a account, name string, args ...string) (*exec.Cmd, error) {
	attr, err := a.attr()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(b.dir, name), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TZ=UTC", "LC_ALL=C", "HOME=/"}
	if b.lib != "" && runtime.GOOS == "linux" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+b.lib)
	}
	cmd.SysProcAttr = attr
	return cmd, nil
}

// runUntil runs a command to its end, or ends it and its children with ctx.
func runUntil(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// It leads a session, so its pid names its process group too.
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	return []byte(out.String()), err
}
