// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bench"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

func newBench(p *project) *cobra.Command {
	f := runFlags{flavors: []string{"plain"}}
	cold := false
	var only []string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the figures that the project promises, on this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doBench(cmd.Context(), p, f, cold, only)
		},
	}
	cmd.Flags().StringVar(&f.out, "out", "out/bench", "directory for the results and the throw-away stores")
	cmd.Flags().BoolVar(&cold, "cold", false, "also build one tree with nothing cached, beside a bare make: two whole builds")
	cmd.Flags().StringSliceVar(&only, "only", nil, "globs of the measurements to make: nothing-changed, boot, restore, clones, tests, left-behind, rules, packets, rebuild, edit, bisect, cold (default: all)")
	cmd.Flags().StringSliceVar(&f.trees, "trees", nil, "trees of the main job; builds and guests are measured on the last (default: all that the series supports)")
	return cmd
}

func doBench(ctx context.Context, p *project, f runFlags, cold bool, only []string) error {
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	b := &bench.Bench{
		Store:   s.store,
		Builder: s.builder,
		Run:     func() *matrix.Run { return s.matrix(filepath.Join(out, "run")) },
		Tree:    s.trees[len(s.trees)-1],
		Root:    s.root,
		Out:     out,
		Cold:    cold,
		Only:    only,
		Say:     func(format string, args ...any) { s.progress.Line("bench: "+format, args...) },
	}
	figures, err := b.Do(ctx)
	s.progress.Close()
	bench.Table(os.Stdout, figures)
	if err != nil {
		return err
	}
	if missed := bench.Missed(figures); len(missed) > 0 {
		fmt.Printf("\n%d of %d figures missed: %s\n", len(missed), len(figures), strings.Join(missed, ", "))
		return exitCode(report.ExitFail)
	}
	return nil
}
