//go:build unix && !linux

package chaos

import "syscall"

func nodeAttr() *syscall.SysProcAttr { return nil }
