package pgembed

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// isPostmasterOf reports whether pid is a server on the given cluster directory.
// A zombie (empty command line) is not: it does nothing any more.
func isPostmasterOf(pid int, data string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(line) == 0 {
		return false
	}
	if slices.Contains(strings.Split(string(line), "\x00"), data) {
		return true
	}
	// Started by hand with a relative path: a server works in its directory.
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == data
}
