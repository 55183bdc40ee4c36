package pgembed

import (
	"os"
	"syscall"
)

// nobody is the uid and gid the server sees inside a user namespace; every
// passwd file has it.
const nobody = 65534

// attr makes a child process run as the account, in a session of its own: it
// must not see the terminal's ^C.
func (a account) attr() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setsid: true, Credential: a.cred}
	if a.namespace { // nobody inside, us outside; needs no privilege
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	}
	return attr, nil
}
