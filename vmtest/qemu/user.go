// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// nobody is who runs QEMU when we are root: it reads what a guest sends, and is
// the one thing between that guest and the host. QEMU's own -runas would do it
// later, and lose the signal that ends it with us.
const nobody = "nobody"

// lookupNobody is nil when we are not root, or there is no such user.
func lookupNobody() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(nobody)
	if err != nil {
		return nil
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// User names who runs QEMU.
func (h *Host) User() string {
	if h.nobody != nil {
		return nobody
	}
	return strconv.Itoa(os.Geteuid())
}

// credential is for a QEMU that reads files: nobody's, with the group that may
// use KVM if that is wanted, nil for our own. Files that are not for everybody
// are not for nobody either.
func (h *Host) credential(a Accel, files ...string) *syscall.Credential {
	if h.nobody == nil {
		return nil
	}
	for _, path := range files {
		if st, err := os.Stat(path); err == nil && st.Mode()&0o004 == 0 {
			return nil
		}
	}
	c := *h.nobody
	var st syscall.Stat_t
	if a == KVM && syscall.Stat("/dev/kvm", &st) == nil {
		c.Groups = []uint32{st.Gid}
	}
	return &c
}

// memoryOf opens a guest's memory for a QEMU that runs as user and may not come
// to where it is: it opens what it inherits once more. One that writes to the
// file itself gets it for its own.
func memoryOf(path string, user *syscall.Credential, write bool) (*os.File, error) {
	flags := os.O_RDWR
	if write {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err == nil && write {
		err = f.Chown(int(user.Uid), int(user.Gid))
	}
	return f, err
}
