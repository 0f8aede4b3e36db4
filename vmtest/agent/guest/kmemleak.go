// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

const kmemleakPath = "/sys/kernel/debug/kmemleak"

// leakAge is a bit more than the age below which kmemleak reports nothing
// (MSECS_MIN_AGE of mm/kmemleak.c, which cannot be set).
const leakAge = 5200 * time.Millisecond

// leaks has kmemleak look for what nobody points to any more, and sends what
// it found. Nothing is sent by a kernel without kmemleak.
func (s *server) leaks(id uint32, limit int64) *wire.Reply {
	start := time.Now()
	// Taken for referenced at first sight: the first scan only learns what
	// objects look like.
	if err := scan(); errors.Is(err, fs.ErrNotExist) {
		return &wire.Reply{}
	} else if err != nil {
		return errReply(err)
	}
	time.Sleep(leakAge - time.Since(start))
	if err := scan(); err != nil {
		return errReply(err)
	}
	found, err := os.ReadFile(kmemleakPath)
	if err == nil && len(found) > 0 {
		// A pointer that was only in a register, or on its way from one
		// list to another, is back in memory by now.
		if err = scan(); err == nil {
			return s.readFile(id, kmemleakPath, limit)
		}
	}
	return errReply(err)
}

// scan runs in the calling thread with all signals blocked: kmemleak gives up,
// and reports nothing, when its caller has one to look at, and init gets one
// for each orphan that ends.
func scan() error {
	f, err := os.OpenFile(kmemleakPath, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := ^uint64(0)
	old, err := setSigmask(all)
	if err != nil {
		return err
	}
	_, err = f.WriteString("scan")
	if _, serr := setSigmask(old); serr != nil {
		return serr
	}
	if err != nil {
		// A full pool or an error of its own turns it off for good.
		return fmt.Errorf("kmemleak is off: %w", err)
	}
	return nil
}

// setSigmask sets which signals the calling thread blocks, one bit each, and
// returns the mask before. The init has nothing but the standard library.
func setSigmask(mask uint64) (old uint64, err error) {
	const sigSetmask = 2
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&mask)),
		uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(mask), 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("rt_sigprocmask", errno)
	}
	return old, nil
}
