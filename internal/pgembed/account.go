//go:build unix

package pgembed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account says how the server gets a uid that PostgreSQL accepts: not 0, and
// with a passwd entry. Either as we are, or by setuid from root, or mapped to
// nobody in a user namespace.
type account struct {
	cred      *syscall.Credential
	namespace bool
}

// uid is the owner, seen from here, of what the server creates.
func (a account) uid() uint32 {
	if a.cred != nil {
		return a.cred.Uid
	}
	return uint32(os.Geteuid())
}

// chooseAccount picks the account for the cluster data in the state directory
// dir. An existing cluster decides by its owner.
func chooseAccount(dir, data string) (account, error) {
	var owner *syscall.Stat_t
	if info, err := os.Stat(data); err == nil {
		owner = ownerOf(info)
	}
	if os.Geteuid() != 0 {
		return ordinaryAccount(data, owner)
	}
	if owner != nil && owner.Uid == 0 { // made in a namespace
		return namespaceAccount(fmt.Errorf("%s belongs to root", data))
	}
	cred, err := dropTo(owner)
	if err == nil {
		a := account{cred: cred}
		if err = a.try(dir); err == nil {
			return a, nil
		}
	}
	if owner != nil { // the files are that account's: a namespace of ours cannot help
		return account{}, fmt.Errorf("run postgres as uid %d, the owner of %s: %w", owner.Uid, data, err)
	}
	return namespaceAccount(err)
}

func ordinaryAccount(data string, owner *syscall.Stat_t) (account, error) {
	uid := os.Geteuid()
	if owner != nil && int(owner.Uid) != uid {
		return account{}, fmt.Errorf("the cluster %s belongs to uid %d and this process runs as uid %d: run it as that account, or choose another --data-dir", data, owner.Uid, uid)
	}
	if !hasName(uid) {
		return namespaceAccount(fmt.Errorf("uid %d has no passwd entry", uid))
	}
	return account{}, nil
}

// hasName reports whether the system knows the account, which postgres insists
// on. id knows of directory services that a static Go binary does not.
func hasName(uid int) bool {
	if _, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return true
	}
	return exec.Command("id", "-un").Run() == nil
}

// dropTo is the account root becomes: the owner of the cluster, else postgres,
// else nobody.
func dropTo(owner *syscall.Stat_t) (*syscall.Credential, error) {
	if owner != nil {
		return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("uid of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("gid of %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("neither user postgres nor user nobody exists")
}

func namespaceAccount(why error) (account, error) {
	a := account{namespace: true}
	if err := a.try("/"); err != nil {
		return account{}, fmt.Errorf("postgres cannot run here (%w) and a user namespace is refused (%w): run as an ordinary user, choose a --data-dir that user postgres can enter, or set DATABASE_URL", why, err)
	}
	return a, nil
}

// try proves that a process can become the account and enter dir as it.
func (a account) try(dir string) error {
	attr, err := a.attr()
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.Dir = dir // entered after the change of account
	cmd.SysProcAttr = attr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("enter %s as the server's account: %w", dir, err)
	}
	return nil
}
