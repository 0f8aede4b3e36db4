// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// nobody is who runs QEMU when we are root: it reads what a guest sends, and is
// the one thing between that guest and the host. QEMU's own -runas would do it
// later, and lose the signal that ends it with us.
const nobody = "nobody"

// unprivileged is nobody, with the group that may use KVM if that is wanted; nil
// when we are not root, or there is no such user.
func unprivileged(a Accel) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(nobody)
	if err != nil {
		return nil, nil //nolint:nilerr // such a system has to do without
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", nobody, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", nobody, err)
	}
	c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	var st syscall.Stat_t
	if a == KVM && syscall.Stat("/dev/kvm", &st) == nil {
		c.Groups = []uint32{st.Gid}
	}
	return c, nil
}

// reachable opens a file for a QEMU that runs as user and may not come to where
// it is: it opens what it inherits once more. The guest's memory becomes its own.
func reachable(path string, user *syscall.Credential, memory bool) (*os.File, error) {
	if !memory {
		return os.Open(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Chown(int(user.Uid), int(user.Gid))
	}
	return f, err
}
