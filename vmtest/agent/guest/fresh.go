// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"
)

const (
	rndAddEntropy = 0x40085203 // RNDADDENTROPY
	rndReseed     = 0x5207     // RNDRESEEDCRNG
)

// fresh makes this guest another than its siblings, which were restored from
// the same memory: all of them have the same random numbers to come, and the
// time at which that memory was saved.
func fresh(entropy []byte, now int64) error {
	fd, err := syscall.Open("/dev/urandom", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/urandom", Err: err}
	}
	defer closeFD(fd)
	// struct rand_pool_info: bits, bytes, and these
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	info = append(info, entropy...)
	if err := ioctl(fd, rndAddEntropy, unsafe.Pointer(&info[0])); err != nil {
		return os.NewSyscallError("RNDADDENTROPY", err)
	}
	if err := ioctl(fd, rndReseed, nil); err != nil {
		return os.NewSyscallError("RNDRESEEDCRNG", err)
	}
	tv := syscall.NsecToTimeval(now)
	return os.NewSyscallError("settimeofday", syscall.Settimeofday(&tv))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
