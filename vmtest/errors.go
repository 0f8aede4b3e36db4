// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

// InfraError is a fault of the harness or of the machine it runs on: there is
// no verdict about the kernel or the test.
type InfraError struct {
	// Kind names the fault: qemu-missing, qemu-start, qemu-died,
	// guest-rebooted, channel-garbled, channel-closed, agent, image, io.
	Kind string
	Err  error
	// Console is the path of the console's log, "" before there is one;
	// Tail its last lines.
	Console string
	Tail    []string
}

func (e *InfraError) Error() string {
	return "harness: " + e.Kind + ": " + e.Err.Error() + tailText(e.Console, e.Tail)
}

func (e *InfraError) Unwrap() error { return e.Err }

// The kinds of InfraError.
const (
	KindNoQEMU   = "qemu-missing"
	KindStart    = "qemu-start"
	KindDied     = "qemu-died"
	KindRebooted = "guest-rebooted"
	KindGarbled  = "channel-garbled"
	KindClosed   = "channel-closed"
	KindAgent    = "agent"
	KindImage    = "image"
	KindIO       = "io"
)

// BootError is the kernel's fault: it panicked or hung before the guest's init
// said hello. Run returns it marked as such for store.FaultOf.
type BootError struct {
	Why     string
	Console string
	Tail    []string
}

func (e *BootError) Error() string {
	return "boot: " + e.Why + tailText(e.Console, e.Tail)
}

func tailText(path string, lines []string) string {
	if path == "" {
		return ""
	}
	if len(lines) == 0 {
		return "\n  the console said nothing: " + path
	}
	return fmt.Sprintf("\n  last %d lines of %s:\n  | %s", len(lines), path, strings.Join(lines, "\n  | "))
}

// channelKind names a broken channel.
func channelKind(err error) string {
	switch {
	case errors.Is(err, agent.ErrGarbled):
		return KindGarbled
	case errors.Is(err, agent.ErrClosed):
		return KindClosed
	}
	return KindAgent
}
