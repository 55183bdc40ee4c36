//go:build unix

package pgembed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func nowhere(Config) []string { return nil }

// fakeBinaries makes a directory whose postgres only says a version.
func fakeBinaries(t *testing.T, script string) string {
	t.Helper()
	dir := reachableDir(t)
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func finderIn(t *testing.T, dirs ...string) finder {
	t.Helper()
	config := testConfig(reachableDir(t), t.Output())
	config.BinDirs = dirs
	return finder{config: config, places: func(c Config) []string { return c.BinDirs }}
}

func TestNothingInstalledShowsWaysOut(t *testing.T) {
	dir := reachableDir(t)
	_, err := open(testContext(t), testConfig(dir, t.Output()), nowhere)
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("open = %v", err)
	}
	for _, way := range []string{"Install PostgreSQL 15 or newer", "DATABASE_URL", "--data-dir"} {
		if !strings.Contains(err.Error(), way) {
			t.Errorf("the message lacks %q: %v", way, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("a cluster was begun: %v", err)
	}
}

func TestFind(t *testing.T) {
	old := fakeBinaries(t, `echo "postgres (PostgreSQL) 14.9"`)
	pg16 := fakeBinaries(t, `echo "postgres (PostgreSQL) 16.2 (Some Linux)"`)
	pg17 := fakeBinaries(t, `echo "postgres (PostgreSQL) 17beta1"`)
	broken := fakeBinaries(t, `echo "libpq.so.5: cannot open shared object file" >&2; exit 127`)
	other := fakeBinaries(t, `echo "MySQL 8"`)
	missing := filepath.Join(old, "none")

	for name, c := range map[string]struct {
		dirs []string
		made int
		want string
		says []string
	}{
		"first that is new enough": {dirs: []string{missing, broken, old, pg17, pg16}, want: pg17},
		"the cluster's major":      {dirs: []string{pg17, pg16}, made: 16, want: pg16},
		"too old":                  {dirs: []string{old}, says: []string{"PostgreSQL 14 in " + old, "fetching is off"}},
		"what is wrong with each": {dirs: []string{missing, broken, other}, says: []string{
			missing, "cannot open shared object file", other + "/postgres is not PostgreSQL",
		}},
		"another major": {dirs: []string{pg17}, made: 16, says: []string{"PostgreSQL 17 in " + pg17, "Install PostgreSQL 16"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := finderIn(t, c.dirs...).find(context.Background(), c.made)
			if got.dir != c.want {
				t.Errorf("found %q (%v), want %q", got.dir, err, c.want)
			}
			if (err == nil) != (c.want != "") {
				t.Errorf("error: %v", err)
			}
			for _, say := range c.says {
				if err != nil && !strings.Contains(err.Error(), say) {
					t.Errorf("the message lacks %q: %v", say, err)
				}
			}
		})
	}
}

// A probe that hangs is ended with its children.
func TestProbeIsBounded(t *testing.T) {
	dir := fakeBinaries(t, "sleep 600")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := finderIn(t).probe(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("probe = %v", err)
	}
}

func TestSystemPlacesOrder(t *testing.T) {
	dir := reachableDir(t)
	unpacked := filepath.Join(dir, "bin", bundleVersion, "native", "bin")
	if err := os.MkdirAll(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	onPath := fakeBinaries(t, "true")
	t.Setenv("PATH", onPath)
	got := systemPlaces(Config{Dir: dir, BinDirs: []string{"/configured"}})
	if diff := cmp.Diff([]string{"/configured", unpacked, onPath}, got[:3]); diff != "" {
		t.Error(diff)
	}
}

func TestPathMajor(t *testing.T) {
	for path, want := range map[string]int{
		"/usr/lib/postgresql/16/bin": 16, "/usr/pgsql-17/bin": 17, "/usr/libexec/postgresql15": 15,
		"/opt/homebrew/opt/postgresql@18/bin": 18, "/usr/bin": 0,
	} {
		if got := pathMajor(path); got != want {
			t.Errorf("pathMajor(%q) = %d, want %d", path, got, want)
		}
	}
}
