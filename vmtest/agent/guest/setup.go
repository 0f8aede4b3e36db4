// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"os"
	"strings"
	"syscall"
	"unsafe"
)

type mount struct {
	source, target, fstype, data string
	flags                        uintptr
	// optional mounts are missing in kernels that lack their option; tests
	// that need them say so themselves.
	optional bool
}

const safe = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC

var mounts = []mount{
	{"proc", "/proc", "proc", "", safe, false},
	{"sysfs", "/sys", "sysfs", "", safe, false},
	{"devtmpfs", "/dev", "devtmpfs", "mode=0755", syscall.MS_NOSUID, false},
	{"devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666", syscall.MS_NOSUID | syscall.MS_NOEXEC, true},
	{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", syscall.MS_NOSUID | syscall.MS_NODEV, false},
	{"tmpfs", "/tmp", "tmpfs", "mode=1777", syscall.MS_NOSUID | syscall.MS_NODEV, false},
	{"tmpfs", "/run", "tmpfs", "mode=0755", syscall.MS_NOSUID | syscall.MS_NODEV, false},
	{"debugfs", "/sys/kernel/debug", "debugfs", "", safe, true},
	{"tracefs", "/sys/kernel/tracing", "tracefs", "", safe, true},
}

var links = [][2]string{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
	{"/run", "/var/run"},
}

// Environment of every command, unless its request says otherwise.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "SHELL=/bin/bash", "LANG=C", "LC_ALL=C", "TERM=dumb",
}

// setup turns a bare kernel into what a test expects. It returns what could
// not be had; only a kernel that lacks the optional parts gives notes.
func setup() (notes []string) {
	note := func(what string, err error) {
		if err != nil {
			notes = append(notes, what+": "+err.Error())
		}
	}
	syscall.Umask(0o022)
	for _, m := range mounts {
		_ = os.Mkdir(m.target, 0o755)
		if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && err != syscall.EBUSY {
			note("mount "+m.target, err)
		}
	}
	_ = os.Mkdir("/var", 0o755)
	for _, l := range links {
		if err := os.Symlink(l[0], l[1]); err != nil && !os.IsExist(err) {
			note(l[1], err)
		}
	}
	for _, kv := range environment {
		k, v, _ := strings.Cut(kv, "=")
		note(k, os.Setenv(k, v))
	}
	note("hostname", syscall.Sethostname([]byte("nftvm")))
	note("lo", loopbackUp())
	// The console is where splats are looked for, so it shows everything.
	note("printk", writeFile("/proc/sys/kernel/printk", "8"))
	return notes
}

func writeFile(path, text string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	_, err = syscall.Write(fd, []byte(text))
	return err
}

func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var ifreq struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(ifreq.name[:], "lo")
	ifreq.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&ifreq)))
	if errno != 0 {
		return errno
	}
	return nil
}
