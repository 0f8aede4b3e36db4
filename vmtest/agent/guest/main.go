// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

// Package guest is the init of the test machines: PID 1, and the agent the
// harness talks to. It imports the standard library only, so that the harness
// can compile it from its embedded source with nothing but a Go toolchain.
package guest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// portWait is how long init looks for the agent's port before it gives up.
const portWait = 30 * time.Second

// Main runs the guest's init. It returns only when it is not PID 1.
func Main() {
	if os.Getpid() != 1 {
		_, _ = os.Stderr.WriteString("this is the init of an nftvm guest; it does nothing elsewhere\n")
		os.Exit(2)
	}
	notes := setup()
	stderrToLog()
	if hasWord(readTrimmed("/proc/cmdline"), "nftvm.shell") {
		shell()
	}
	fd, err := openPort(wire.PortName, portWait)
	if err != nil {
		die("no agent port: " + err.Error())
	}
	s := newServer(fd, hello(notes))
	die("agent channel: " + s.serve().Error())
}

func hello(notes []string) wire.Hello {
	h := wire.Hello{Version: wire.Version, Notes: notes}
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		h.Release = cstring(u.Release[:])
	}
	h.BootID = readTrimmed("/proc/sys/kernel/random/boot_id")
	up, _, _ := strings.Cut(readTrimmed("/proc/uptime"), " ")
	h.Uptime, _ = strconv.ParseFloat(up, 64)
	return h
}

// die ends the guest with its reason on the console, where the harness looks
// when there is no channel to say it on.
func die(why string) {
	_ = kmsg(0, "nftvm-init: "+why)
	powerOff()
}

// stderrToLog gives what the Go runtime says when it panics a place to go, if
// there was no console yet when init started.
func stderrToLog() {
	const devNull = 1<<8 | 3
	var st syscall.Stat_t
	if syscall.Fstat(2, &st) != nil || st.Rdev != devNull {
		return
	}
	fd, err := syscall.Open("/dev/kmsg", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = syscall.Dup3(fd, 2, 0)
	closeFD(fd)
}

func powerOff() {
	syscall.Sync()
	// A machine without ACPI halts instead of powering off; a restart with
	// QEMU's -no-reboot ends it everywhere.
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	for {
		time.Sleep(time.Hour)
	}
}

// kmsg writes a line into the kernel's log, and so onto the console.
func kmsg(level int, text string) error {
	fd, err := syscall.Open("/dev/kmsg", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	_, err = syscall.Write(fd, []byte("<"+strconv.Itoa(level)+">"+text+"\n"))
	return err
}

// closeFD closes what was opened past the os package, whose files would go to
// the runtime's poller.
func closeFD(fd int) { _ = syscall.Close(fd) }

func cstring(c []int8) string {
	b := make([]byte, 0, len(c))
	for _, v := range c {
		if v == 0 {
			break
		}
		b = append(b, byte(v))
	}
	return string(b)
}

func readTrimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
