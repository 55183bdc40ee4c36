//go:build unix

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the path of the built service: the tests find it in the environment of their own process.
const program = "CHAOS_PROGRAM"

// former is the path of the program of a release before, if the test of an upgrade is wanted.
const former = "FERMATA_CHAOS_FORMER"

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the program once for all tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fermata-chaos-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "fermata")
	args := []string{"build", "-o", path}
	if os.Getenv("FERMATA_CHAOS_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/fermata-run/fermata/cmd/fermata")...)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: build the program:", err)
		return 1
	}
	if err := os.Setenv(program, path); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return m.Run()
}

// long marks a test that takes part only where nobody is in a hurry.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes up to a minute: make chaos runs it")
	}
}
