//go:build unix

package pgembed

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// defaultSettings suit the service: many short batched commits, and a log of
// events large enough that checkpoints stay rare. Durability (fsync,
// synchronous_commit) is left at PostgreSQL's own defaults, which are on.
var defaultSettings = map[string]string{
	"listen_addresses":   "",
	"shared_buffers":     "256MB",
	"max_connections":    "200",
	"max_wal_size":       "4GB",
	"checkpoint_timeout": "15min",
	"logging_collector":  "off",
	"log_destination":    "stderr",
}

// fixedSettings belong to this package: sharing the server rests on them.
var fixedSettings = []string{"data_directory", "port", "unix_socket_directories", "unix_socket_permissions", "external_pid_file"}

func checkSettings(settings map[string]string) error {
	for _, name := range fixedSettings {
		if _, ok := settings[name]; ok {
			return fmt.Errorf("setting %s cannot be chosen for an embedded postgres", name)
		}
	}
	return nil
}

// serverArgs is the command line of the server.
func (c *Cluster) serverArgs(ctx context.Context, bin installation, sockets string) []string {
	set := maps.Clone(defaultSettings)
	maps.Copy(set, c.settings)
	if _, chosen := set["wal_compression"]; !chosen {
		set["wal_compression"] = c.walCompression(ctx, bin)
	}
	set["port"] = socketPort
	set["unix_socket_permissions"] = "0700"
	set["unix_socket_directories"] = `"` + strings.ReplaceAll(sockets, `"`, `""`) + `"`
	args := []string{"-D", c.data}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		args = append(args, "-c", name+"="+set[name])
	}
	return args
}

// walCompression is lz4 where these binaries were built with it: full-page
// images are most of the log, and pglz ("on") costs several times the CPU.
func (c *Cluster) walCompression(ctx context.Context, bin installation) string {
	cmd, err := bin.command(c.account, "postgres", "-D", c.data, "-C", "wal_compression", "-c", "wal_compression=lz4")
	if err == nil {
		if _, err = runUntil(ctx, cmd); err == nil {
			return "lz4"
		}
	}
	return "on"
}
