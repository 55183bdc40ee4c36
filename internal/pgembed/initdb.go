//go:build unix

package pgembed

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const newDataPrefix = "data.new-"

// initdb makes the cluster beside its final place and renames it in: whatever
// dies half way leaves nothing that looks like a cluster.
func (c *Cluster) initdb(ctx context.Context, bin installation) error {
	c.removeHalfMade()
	tmp, err := os.MkdirTemp(c.dir, newDataPrefix)
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	if err := privateDir(tmp, c.account); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	args := []string{"-D", tmp, "-U", superuser, "-E", "UTF8", "--locale=C", "--auth-local=trust", "--auth-host=reject", "--no-instructions"}
	if bin.major >= 17 { // sorts by code point like C, and knows letters beyond ASCII
		args = append(args, "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
	}
	if c.settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	cmd, err := bin.command(c.account, "initdb", args...)
	if err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	if out, err := runUntil(ctx, cmd); err != nil {
		_ = os.RemoveAll(tmp) // else the next start does it
		return fmt.Errorf("make cluster with %s/initdb: %w: %s", bin.dir, err, bytes.TrimSpace(out))
	}
	// A crash before this line leaves data.new-*, after it a whole cluster.
	if err := os.Rename(tmp, c.data); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	if err := syncDir(c.dir); err != nil {
		return fmt.Errorf("make cluster: %w", err)
	}
	return nil
}

// removeHalfMade clears what killed starters left. An initdb that outlived its
// starter may still write there; what resists is removed another time.
func (c *Cluster) removeHalfMade() {
	old, _ := filepath.Glob(filepath.Join(c.dir, newDataPrefix+"*"))
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			c.log.Warn("postgres: a half-made cluster remains", "error", err)
		}
	}
}

// clusterMajor is the major version that made the cluster; 0 if there is none.
func clusterMajor(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return major
}
