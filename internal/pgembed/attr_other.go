//go:build unix && !linux

package pgembed

import (
	"errors"
	"syscall"
)

// attr makes a child process run as the account, in a session of its own: it
// must not see the terminal's ^C.
func (a account) attr() (*syscall.SysProcAttr, error) {
	if a.namespace {
		return nil, errors.New("this system has no user namespaces")
	}
	return &syscall.SysProcAttr{Setsid: true, Credential: a.cred}, nil
}
