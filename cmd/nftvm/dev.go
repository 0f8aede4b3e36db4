// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

func newDev(p *project) *cobra.Command {
	var (
		dir    string
		export bool
	)
	cmd := &cobra.Command{
		Use:   "dev TREE",
		Short: "Open a patched tree as a git repository, one commit per patch, or write it back",
		Long: `Open the patched tree as a git repository: the pristine tree is one commit, each
patch of the series another, and the selftests come last. Edit, amend, rebase,
add fixup! commits; then

    nftvm dev TREE --export

writes the commits back into patches/. A patch that did not change keeps its
bytes, and every patch keeps its range of kernel versions. The selftests are
edited in selftests/, not here.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := p.root()
			if err != nil {
				return err
			}
			if dir == "" {
				dir = filepath.Join(root, "dev", args[0])
			}
			if export {
				return devExport(cmd.Context(), p, args[0], dir, cmd.OutOrStdout())
			}
			return devOpen(cmd.Context(), p, args[0], dir, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the repository's directory (default: dev/TREE in the project)")
	cmd.Flags().BoolVar(&export, "export", false, "write the repository's commits back into patches/")
	return cmd
}

func devOpen(ctx context.Context, p *project, name, dir string, out io.Writer) error {
	cfg, root, err := p.trees()
	if err != nil {
		return err
	}
	trees, err := cfg.Select([]string{name})
	if err != nil {
		return err
	}
	st, err := p.store()
	if err != nil {
		return err
	}
	repo, src, err := dev.OpenTree(ctx, st, trees[0], filepath.Join(root, "patches"), filepath.Join(root, "selftests"), dir)
	if err != nil {
		return err
	}
	if repo.Resumed {
		fmt.Fprintf(out, "%s was open already\n", repo.Dir)
	} else {
		fmt.Fprintf(out, "%s: %s, %d patches as commits\n", repo.Dir, src.Version, repo.Patches)
	}
	if repo.Stale != "" {
		fmt.Fprintf(out, "note: %s\n", repo.Stale)
	}
	fmt.Fprintf(out, "the series:  git -C %s log --reverse %.12s..\nwrite back:  nftvm dev %s --export\n", repo.Dir, repo.Base, name)
	return nil
}

func devExport(ctx context.Context, p *project, name, dir string, out io.Writer) error {
	cfg, root, err := p.trees()
	if err != nil {
		return err
	}
	s, err := series.Load(filepath.Join(root, "patches"))
	if err != nil {
		return err
	}
	supported, err := kernel.Supported(cfg.All, s)
	if err != nil {
		return err
	}
	// A patch may go only when no other tree gets it.
	var others []string
	for _, t := range supported {
		if v := t.Hint(); t.Name != name && v != "" {
			others = append(others, v)
		}
	}
	x, err := dev.Export(ctx, dir, others, io.Discard)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		what  string
		names []string
	}{{"changed", x.Changed}, {"added", x.Added}, {"removed", x.Removed}} {
		for _, n := range part.names {
			fmt.Fprintf(out, "%-8s %s\n", part.what, n)
		}
	}
	fmt.Fprintf(out, "%d kept as they were; series: %s\n", len(x.Kept), x.Series)
	return nil
}
