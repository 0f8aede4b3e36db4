// SPDX-License-Identifier: GPL-2.0-only

// Command nftvm turns kernel trees and a patch series into verdicts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

// exitCode is an exit status that has been explained already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return report.ExitPass
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "nftvm:", err)
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--"+stepFlag) }) {
		return bisect.Fault(ctx)
	}
	if errors.Is(err, vmtest.ErrGone) {
		return report.ExitFail // the guest's kernel, or what ran in it
	}
	return report.ExitHarness
}

func newRoot() *cobra.Command {
	p := &project{}
	root := &cobra.Command{
		Use:           "nftvm",
		Short:         "Kernel trees and a patch series in, offload verdicts out",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.PersistentFlags().StringVar(&p.dir, "project", "", "the project's directory (default: the nearest above here with configs/trees.yaml)")
	root.PersistentFlags().StringVar(&p.storeDir, "store", "", "the store's directory (default: $NFTVM_STORE, else nftvm in the user's cache)")
	root.AddCommand(newRun(p), newExec(p), newShell(p), newMutants(p), newCheck(p), newBisect(p), newWatch(p), newBench(p), newDev(p), newSeries(p), newTrees(p), newDoctor(), newCache(p))
	return root
}
