//go:build unix

package pgembed

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestAsOtherAccounts runs the tests that touch accounts again: as an ordinary
// user, and as a uid without a passwd entry (which containers are often given).
func TestAsOtherAccounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another account")
	}
	if testing.Short() {
		t.Skip("repeats other tests")
	}
	for name, uid := range map[string]uint32{"ordinary user": 65534, "no passwd entry": 54321} {
		t.Run(name, func(t *testing.T) {
			if uid == 54321 && runtime.GOOS != "linux" {
				t.Skip("needs user namespaces")
			}
			home := reachableDir(t)
			binary := filepath.Join(home, "pgembed.test")
			copyFile(t, os.Args[0], binary)
			if err := os.Chown(home, int(uid), int(uid)); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "-test.short", "-test.v", "-test.run",
				"^Test(StartStop|ThreeColdStarters|UnreachableDirectory|LongPathGetsShortSocket|OwnerKilledServerAdopted|KeepBringsKilledServerBack|RootsClusterIsRefused)$")
			cmd.Dir = home
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, binDir + "=" + os.Getenv(binDir)}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Count(string(out), "\n--- PASS") < 7 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// A user cannot open what root made; the message says what to do.
func TestRootsClusterIsRefused(t *testing.T) {
	dir := reachableDir(t)
	if os.Geteuid() == 0 {
		t.Skip("is for an ordinary user")
	}
	_, err := ordinaryAccount(filepath.Join(dir, "data"), ownerOf(stat(t, "/")))
	if err == nil || !strings.Contains(err.Error(), "belongs to uid 0") || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("err = %v", err)
	}
}

// Root opens a user's cluster as that user.
func TestRootUsesOwnersAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another account")
	}
	dir := reachableDir(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	a, err := chooseAccount(dir, data)
	if err != nil || a.uid() != 65534 || a.namespace {
		t.Errorf("account %+v, %v", a, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := chooseAccount(dir, data); err == nil || !strings.Contains(err.Error(), "uid 65534, the owner") {
		t.Errorf("where the owner cannot enter: %v", err)
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}
