//go:build unix

// Package pgembed gives a program a PostgreSQL server when nobody gave it one.
//
// It finds (or fetches) PostgreSQL binaries, keeps one cluster per state
// directory, and shares the running server between every process that opens
// that directory. Three rules hold it together:
//
//   - start.lock is held from the first look until the server accepts
//     connections, and while stopping: of many starters one starts, the rest join.
//   - users.lock is held shared for as long as a process uses the server; whoever
//     leaves last stops it. The kernel drops both locks however a process dies.
//   - the server runs in a session of its own and outlives its starter's death:
//     the next process to open the directory adopts it.
//
// A cluster is never wiped: one made by another major version is refused.
// flock and Unix sockets mean one host and a local disk.
package pgembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	databaseName = "fermata"
	superuser    = "postgres"
	socketPort   = "5432"

	// openLimit bounds one Open or Restart; it is long because crash recovery
	// and a download may be part of it.
	openLimit = 10 * time.Minute
)

// ErrClosed is returned by Restart after Close.
var ErrClosed = errors.New("the cluster is closed")

// Config says which cluster to open. The zero value opens DefaultDir.
type Config struct {
	// Dir is the state directory: cluster, socket, log, locks and fetched
	// binaries lie in it. Default: DefaultDir().
	Dir string
	// BinDirs are looked at first for postgres and initdb.
	BinDirs []string
	// Offline forbids fetching binaries.
	Offline bool
	// Settings are server settings (postgresql.conf names) over the built-in
	// ones. They count when this process starts the server, not when it joins.
	Settings map[string]string
	// Log receives what happens; default: nothing.
	Log *slog.Logger
}

// Cluster is a running server that this process uses, perhaps with others.
// Its methods may be called concurrently.
type Cluster struct {
	dir, data string
	account   account
	finder    finder
	settings  map[string]string
	log       *slog.Logger
	users     *os.File // shared flock: "somebody here uses the server"
	closed    chan struct{}
	leave     sync.Once

	mu      sync.Mutex // guards what a restart changes
	sockets string
	server  *server // nil when another process started it
	major   int
	bin     installation
}

// Open returns the cluster in c.Dir: it joins a live server, starts a stopped or
// crashed one, or creates the cluster. Errors wrap ErrNoPostgres or
// ErrForeignMajor when that is what stands in the way.
func Open(ctx context.Context, c Config) (*Cluster, error) {
	return open(ctx, c, systemPlaces)
}

// open is Open with the places to look for binaries as a parameter.
func open(ctx context.Context, config Config, places func(Config) []string) (*Cluster, error) {
	c, err := prepare(config, places)
	if err != nil {
		return nil, fmt.Errorf("open embedded postgres: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	start, err := lockFile(ctx, c.path("start.lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("open embedded postgres: %w", err)
	}
	defer start.Close()
	if c.users, err = lockFile(ctx, c.path("users.lock"), syscall.LOCK_SH); err != nil {
		return nil, fmt.Errorf("open embedded postgres: %w", err)
	}
	if err := c.bringUp(ctx); err != nil {
		c.users.Close()
		return nil, fmt.Errorf("open embedded postgres in %s: %w", c.dir, err)
	}
	return c, nil
}

// prepare settles everything that needs no lock: directory, account, settings.
func prepare(config Config, places func(Config) []string) (*Cluster, error) {
	if config.Dir == "" {
		config.Dir = DefaultDir()
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkSettings(config.Settings); err != nil {
		return nil, err
	}
	dir, err := stateDir(config.Dir)
	if err != nil {
		return nil, err
	}
	config.Dir = dir
	c := &Cluster{
		dir: dir, data: filepath.Join(dir, "data"), settings: config.Settings, log: config.Log,
		sockets: socketDir(dir), closed: make(chan struct{}),
	}
	if c.account, err = chooseAccount(dir, c.data); err != nil {
		return nil, err
	}
	c.finder = finder{config: config, account: c.account, places: places}
	return c, nil
}

// bringUp joins the server or makes it run. The caller holds start.lock.
func (c *Cluster) bringUp(ctx context.Context) error {
	c.mu.Lock()
	if c.server != nil {
		c.server.exited() // a child that nobody reaped would hold the cluster as a zombie
	}
	c.mu.Unlock()
	joined, err := c.join(ctx)
	if err != nil {
		return err
	}
	if !joined {
		if err := c.create(ctx); err != nil {
			return err
		}
		if err := c.start(ctx); err != nil {
			return err
		}
	}
	return c.ensureDatabase(ctx)
}

// create finds the binaries and makes the cluster if there is none yet.
func (c *Cluster) create(ctx context.Context) error {
	made := clusterMajor(c.data)
	began := time.Now()
	bin, err := c.finder.find(ctx, made)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.bin, c.major = bin, bin.major
	c.mu.Unlock()
	c.log.Debug("postgres: binaries found", "dir", bin.dir, "major", bin.major, "took", time.Since(began))
	if made != 0 {
		return nil
	}
	began = time.Now()
	if err := c.initdb(ctx, bin); err != nil {
		return err
	}
	c.log.Info("postgres: cluster created", "dir", c.dir, "major", bin.major, "took", time.Since(began))
	return nil
}

// socketsInUse is the directory of the server's socket.
func (c *Cluster) socketsInUse() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sockets
}

// URL is a connection URL of the database "fermata", as user postgres over the
// private Unix socket. It stays the same across restarts.
func (c *Cluster) URL() string { return c.DatabaseURL(databaseName) }

// DatabaseURL is like URL for another database of the same server.
func (c *Cluster) DatabaseURL(name string) string {
	return socketURL(c.socketsInUse(), name)
}

func socketURL(sockets, database string) string {
	query := url.Values{"host": {sockets}, "port": {socketPort}, "user": {superuser}}.Encode()
	// libpq reads only %20 as a space.
	return "postgres:///" + url.PathEscape(database) + "?" + strings.ReplaceAll(query, "+", "%20")
}

// Done returns a channel that is closed when the server this process started
// exits; it never closes when another process started the server. Each restart
// has its own channel.
func (c *Cluster) Done() <-chan struct{} {
	c.mu.Lock()
	s := c.server
	c.mu.Unlock()
	if s == nil {
		return make(chan struct{})
	}
	return s.done()
}

// Version is the server's major version.
func (c *Cluster) Version() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.major
}

// Close leaves the cluster. The last process to leave stops the server: a fast
// shutdown, an immediate one if that takes too long or ctx ends, never SIGKILL.
// Close again does nothing.
func (c *Cluster) Close(ctx context.Context) (err error) {
	c.leave.Do(func() {
		close(c.closed)
		defer c.users.Close()
		if err = c.leaveOrStop(ctx); err != nil {
			err = fmt.Errorf("close embedded postgres in %s: %w", c.dir, err)
		}
	})
	return err
}

func (c *Cluster) leaveOrStop(ctx context.Context) error {
	start, err := lockFile(ctx, c.path("start.lock"), syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer start.Close()
	// Converting the shared lock is not atomic, but under start.lock nobody can
	// become a user in between.
	if !tryLock(c.users, syscall.LOCK_EX) {
		c.log.Info("postgres: left running for other processes", "dir", c.dir)
		return nil
	}
	return c.stop(ctx)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }
