// SPDX-License-Identifier: GPL-2.0-only

// Package lab is a guest for a person: a patched kernel with the module loaded
// and two pairs of linked ports.
package lab

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

//go:embed lab.sh
var setup []byte

// guestSetup is where the guest has it.
const guestSetup = "/lib/nftvm/lab.sh"

// RC is what a shell in the guest reads first.
const RC = "/etc/nftvm.rc"

// Picture says what there is in the guest.
const Picture = `sut0  192.0.2.2  2001:db8::2   <->  far0  192.0.2.1  2001:db8::1   in netns far
sut1  198.51.100.2             <->  far1  198.51.100.1
`

// Open makes the guest, or copies the one that was saved when it was made for the
// first time. dir gets its logs.
func Open(ctx context.Context, e *vmtest.Engine, b *kernel.Built, selftests, dir string) (*vmtest.Guest, error) {
	files, err := agent.Tree(selftests, matrix.GuestSelftests)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, filepath.Base(guestSetup))
	if err := os.WriteFile(script, setup, 0o755); err != nil {
		return nil, err
	}
	files = append(files, vmtest.File{Host: script, Guest: guestSetup})
	return e.Guest(ctx, matrix.GuestKernel(b), vmtest.GuestOptions{Files: files, Setup: guestSetup}, dir)
}
