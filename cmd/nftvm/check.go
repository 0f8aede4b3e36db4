// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/check"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/doctor"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func newCheck(p *project) *cobra.Command {
	f := runFlags{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Build the series patch by patch: each must build, and bring no new warning",
		Long: `Build each tree with the first patch, with the first two, and so on. The C files
that a patch touches are compiled once more with W=1, and with sparse where it
can read the tree; what was said before the patch, too, is not its fault. The
newest tree that gets a patch judges it with its checkpatch.pl --strict, so the
newest tree goes first. Of the files that the series touches the tree's semantic
patches (coccicheck) may say nothing new either; they look once before the
series and once behind it, and those that cannot run are named.

Exit code: 0 nothing found; 1 something found; 2 the harness could not look.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doCheck(cmd.Context(), p, f)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.trees, "trees", nil, "trees of configs/trees.yaml (default: all that the series supports)")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "compiler processes at once")
	fl.StringVar(&f.patches, "series", "", "directory of the series (default: patches/)")
	return cmd
}

func doCheck(ctx context.Context, p *project, f runFlags) error {
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	ser, err := series.Load(s.flags.patches)
	if err != nil {
		return err
	}
	b := s.builder(s.store)
	b.Slot, b.Notify = "check", nil
	trees := slices.Clone(s.trees)
	slices.Reverse(trees)
	c := &check.Check{
		Series: ser, Trees: trees, Progress: s.progress,
		Build: func(ctx context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error) {
			b.Choose = func(all []series.Patch) []series.Patch { return all[:n] }
			b.Strict = strict
			return b.Build(ctx, t, kernel.Plain)
		},
	}
	if doctor.FindTool("spatch") == "" {
		s.progress.Line("check: no coccicheck, spatch is not installed; see: nftvm doctor")
	} else {
		c.Cocci = func(ctx context.Context, t tree.Tree, n int, files []string) ([]kbuild.Warning, error) {
			b := s.builder(s.store)
			b.Slot, b.Notify, b.Cocci = "check", nil, files
			b.Choose = func(all []series.Patch) []series.Patch { return all[:n] }
			built, err := b.Build(ctx, t, kernel.Plain)
			return built.Remarks, err
		}
	}
	found, err := c.Do(ctx)
	s.progress.Close()
	for _, x := range found {
		fmt.Printf("%s: %s: %s: %s\n", x.Tree, x.Patch, x.What, x.Text)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d findings\n", len(found))
	if len(found) > 0 {
		return exitCode(1)
	}
	return nil
}
