//go:build unix && !linux

package pgembed

import (
	"os/exec"
	"strconv"
	"strings"
)

// isPostmasterOf reports whether pid is a server on the given cluster directory.
// A zombie is not: ps shows no arguments of it.
func isPostmasterOf(pid int, data string) bool {
	line, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(line)+" ", " "+data+" ")
}
