// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/watch"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
)

func newWatch(p *project) *cobra.Command {
	f := runFlags{}
	var (
		dir  string
		once bool
	)
	cmd := &cobra.Command{
		Use:   "watch TREE",
		Short: "Build and test an opened tree whenever a file is saved",
		Long: `Build and test the tree that "nftvm dev TREE" opened whenever a file of it, or of
the selftests, is saved. A change that only modules of net/netfilter and
netdevsim see is built with "make M=" alone; any other builds the kernel, by
what the last build left. A test runs again when something that it runs has
changed since it passed. A save ends what is still running for the one before.

Exit code with --once: 0 all passed; 1 the tree does not build, or a test failed;
2 the harness could not do its job.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.trees, f.flavors = args, []string{kernel.Plain}
			return doWatch(cmd.Context(), p, f, dir, once)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.tests, "tests", nil, "globs of test names (default: all)")
	fl.StringVar(&f.out, "out", "out/watch", "directory for logs")
	fl.StringVar(&dir, "dir", "", "the repository's directory (default: dev/TREE in the project)")
	fl.BoolVar(&once, "once", false, "one round, now")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "compiler processes at once")
	f.addSources(cmd)
	return cmd
}

func doWatch(ctx context.Context, p *project, f runFlags, dir string, once bool) error {
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	f = s.flags
	if dir == "" {
		dir = filepath.Join(s.root, "dev", f.trees[0])
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(dir, out); err == nil && !strings.HasPrefix(rel, "..") {
		return fmt.Errorf("--out %s is in the tree that is watched", out)
	}
	t := s.trees[0]
	repo, _, err := dev.OpenTree(ctx, s.store, t, f.patches, filepath.Join(s.root, "selftests"), dir)
	if err != nil {
		return err
	}
	if repo.Stale != "" {
		s.progress.Line("%s: %s", dir, repo.Stale)
	}
	b := s.builder(s.store)
	b.Notify = notify(s.progress, true)
	w := watch.Over(b, s.matrix(out), t, dir, os.Stdout)
	if !once {
		return w.Do(ctx)
	}
	if err := w.Round(ctx, ctx); err != nil {
		return err
	}
	if !w.Good() {
		return exitCode(report.ExitFail)
	}
	return nil
}
