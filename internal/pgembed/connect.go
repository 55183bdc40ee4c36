//go:build unix

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	pingLimit = 2 * time.Second
	joinPoll  = 50 * time.Millisecond
	// joinReport is how often waiting for a silent server is mentioned.
	joinReport = 10 * time.Second
)

// join connects to a server that already runs. It reports false when none does,
// and waits for one that does not answer yet: it may be in recovery, or on its
// way out.
func (c *Cluster) join(ctx context.Context) (bool, error) {
	report := time.Now().Add(joinReport)
	for {
		pid := c.postmaster()
		sockets := c.socketsInUse()
		if s := c.liveSockets(); pid != 0 && s != "" {
			sockets = s
		}
		// Asked before the pid is believed: a server in another container shares
		// the socket, not the process numbers.
		err := c.ping(ctx, sockets)
		if err == nil {
			c.joined(sockets)
			c.log.Info("postgres: joined the running server", "dir", c.dir)
			return true, nil
		}
		if pid == 0 {
			return false, ctx.Err()
		}
		if now := time.Now(); now.After(report) {
			c.log.Info("postgres: waiting for the running server", "pid", pid, "error", err)
			report = now.Add(joinReport)
		}
		if cause := pause(ctx, joinPoll); cause != nil {
			return false, fmt.Errorf("a server (pid %d) runs but does not answer (%w): %w", pid, err, cause)
		}
	}
}

// joined notes a server that another process started. Our own may be joined
// again (a Restart that was not needed): it stays ours.
func (c *Cluster) joined(sockets string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sockets, c.major = sockets, clusterMajor(c.data)
	if c.server != nil && c.server.exited() {
		c.server = nil
	}
}

// ping asks whether this cluster's server accepts connections on the sockets.
func (c *Cluster) ping(ctx context.Context, sockets string) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, socketURL(sockets, "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	var data string
	if err := conn.QueryRow(ctx, "show data_directory").Scan(&data); err != nil {
		return err
	}
	if data != c.data {
		return fmt.Errorf("the socket in %s belongs to the cluster %s", sockets, data)
	}
	return nil
}

// ensureDatabase creates the service's database if a starter has not yet.
func (c *Cluster) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.DatabaseURL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", databaseName, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	var one int
	err = conn.QueryRow(ctx, "select 1 from pg_database where datname = $1", databaseName).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		_, err = conn.Exec(ctx, "create database "+pgx.Identifier{databaseName}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", databaseName, err)
	}
	return nil
}
