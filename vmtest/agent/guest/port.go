// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// kobjectUevent is NETLINK_KOBJECT_UEVENT.
const kobjectUevent = 15

// openPort opens the virtio-serial port of that name. The port and its name
// arrive by control messages after the driver has bound, so this waits for the
// kernel's uevents; there is no udev here to do it.
func openPort(name string, wait time.Duration) (int, error) {
	// The socket comes before the first look: what happens between the
	// look and the wait is then in its queue.
	nl, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, kobjectUevent)
	if err != nil {
		return -1, os.NewSyscallError("uevent socket", err)
	}
	defer closeFD(nl)
	if err := syscall.Bind(nl, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: 1}); err != nil {
		return -1, os.NewSyscallError("uevent bind", err)
	}
	deadline := time.Now().Add(wait)
	buf := make([]byte, 8192)
	for {
		if dev := findPort(name); dev != "" {
			fd, err := syscall.Open(dev, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			if err != nil {
				return -1, &os.PathError{Op: "open", Path: dev, Err: err}
			}
			return fd, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return -1, errors.New("no virtio-serial port named " + name)
		}
		tv := syscall.NsecToTimeval(int64(left))
		if err := syscall.SetsockoptTimeval(nl, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv); err != nil {
			return -1, os.NewSyscallError("uevent timeout", err)
		}
		// What the event says does not matter, only that something did.
		_, _, err := syscall.Recvfrom(nl, buf, 0)
		if err != nil && err != syscall.EINTR && err != syscall.EAGAIN && err != syscall.ENOBUFS {
			return -1, os.NewSyscallError("uevent", err)
		}
	}
}

func findPort(name string) string {
	const class = "/sys/class/virtio-ports/"
	ports, err := os.ReadDir(class)
	if err != nil {
		return ""
	}
	for _, p := range ports {
		if readTrimmed(class+p.Name()+"/name") == name {
			return "/dev/" + p.Name()
		}
	}
	return ""
}

// port reads and writes the agent's port with plain blocking calls: the
// runtime's poller would make it non-blocking, and a non-blocking port drops
// writes that do not fit.
type port int

// errHostGone says that the host closed its end of the port. It may come back:
// a restored snapshot has a new host.
var errHostGone = errors.New("host closed the channel")

func (p port) Read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(p), b)
		switch {
		case err == syscall.EINTR || err == syscall.EAGAIN:
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, errHostGone
		}
		return n, nil
	}
}

func (p port) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := syscall.Write(int(p), b[done:])
		if err == syscall.EINTR || err == syscall.EAGAIN {
			continue
		}
		if err != nil {
			return done, os.NewSyscallError("write", err)
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
		done += n
	}
	return done, nil
}
