//go:build unix

package pgembed

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const (
	// bundleLinks lists the symbolic links npm cannot carry; it also marks a
	// directory as a bundle.
	bundleLinks = "pg-symlinks.json"

	unpackBytes = 600 << 20
	unpackFiles = 20_000
)

// unpack writes the bundle's native folder below dst, which must not exist.
func unpack(archive io.Reader, dst string) error {
	if err := mkdirReachable(dst); err != nil {
		return err
	}
	root, err := os.OpenRoot(dst) // no entry can leave dst
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	gz, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	limited := io.LimitReader(gz, unpackBytes) // a longer archive ends early, which tar refuses
	entries := tar.NewReader(limited)
	for range unpackFiles {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return makeLinks(root)
		}
		if err != nil {
			return err
		}
		if name, ok := wanted(h); ok {
			if err := writeEntry(root, name, entries); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("more than %d entries", unpackFiles)
}

// wanted reports whether the server needs the entry, and its name in dst.
func wanted(h *tar.Header) (string, bool) {
	name := path.Clean(strings.TrimPrefix(h.Name, "package/"))
	ok := h.Typeflag == tar.TypeReg && filepath.IsLocal(name) && strings.HasPrefix(name, "native/") &&
		!strings.HasPrefix(name, "native/include/") && !strings.HasSuffix(name, ".a")
	return name, ok
}

func writeEntry(root *os.Root, name string, r io.Reader) error {
	if err := mkdirIn(root, path.Dir(name)); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(name, "native/bin/") || strings.Contains(name, ".so") || strings.HasSuffix(name, ".dylib") {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(mode), f.Close()) // Chmod: the umask must not hide it from the server
}

// mkdirIn makes a folder and its parents enterable whatever the umask is.
func mkdirIn(root *os.Root, dir string) error {
	if _, err := root.Stat(dir); dir == "." || err == nil {
		return nil
	}
	if err := mkdirIn(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

// makeLinks makes the links that native/pg-symlinks.json lists.
func makeLinks(root *os.Root) error {
	f, err := root.Open("native/" + bundleLinks)
	if err != nil {
		return err
	}
	defer f.Close()
	var links []struct{ Source, Target string }
	if err := json.NewDecoder(f).Decode(&links); err != nil {
		return fmt.Errorf("read %s: %w", bundleLinks, err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("%s: the link %q leaves the bundle", bundleLinks, l.Target)
		}
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(to, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
