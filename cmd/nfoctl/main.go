// SPDX-License-Identifier: GPL-2.0-only

// Command nfoctl shows which nf_tables rules and flow tables are in hardware
// and why the others are not, and says which shall be. It talks to the kernel
// module nft_offload and needs CAP_NET_ADMIN.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nfoctl:", err)
		os.Exit(1)
	}
}
