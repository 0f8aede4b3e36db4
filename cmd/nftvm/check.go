// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/check"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/doctor"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series/intake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

// checkSlot names the work trees of checks: the plain ones stay as the series
// left them.
const checkSlot = "check"

func newCheck(p *project) *cobra.Command {
	f := runFlags{}
	var git string
	var fast, full bool
	cmd := &cobra.Command{
		Use:   "check [SERIES]",
		Short: "Look at a series patch by patch: does each apply, build, and bring nothing bad?",
		Long: `Build each tree with the first patch, with the first two, and so on. SERIES is a
directory with a list named series or of *.patch files, an mbox, what b4 am made,
or with --git a range of commits A..B; without it our own patches/. A series
without version ranges is for all trees.

Each patch must apply and build. The C files that it touches are compiled once
more with W=1, and with sparse where it can read the tree; what was said before
the patch, too, is not its fault. No config symbol that is asked for may get lost
with it. The newest tree that gets a patch judges it with its checkpatch.pl
--strict, so the newest tree goes first. Of the files that the series touches the
tree's semantic patches (coccicheck) may say nothing new either; they look once
before the series and once behind it, and those that cannot run are named.
--fast only applies, builds and runs checkpatch.pl. --full also runs the tests
behind each patch, and those of the whole series in the debug kernel.

What is known of a tree with the same patches so far is not looked at again. In
--out are check.json, check.ktap, and in b4/ for each patch what b4 reads of a
check.

Exit code: 0 nothing found; 1 something found; 2 the harness could not look.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			depth := check.Default
			switch {
			case fast:
				depth = check.Fast
			case full:
				depth = check.Full
			}
			if len(f.tests) > 0 && !full {
				return errors.New("--tests is for --full; another check runs no tests")
			}
			return doCheck(cmd.Context(), p, f, append(args, "")[0], git, depth)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&git, "git", "", "take SERIES, a range A..B, from this repository, which is only read")
	f.addTrees(cmd)
	fl.BoolVar(&fast, "fast", false, "only apply, build and checkpatch")
	fl.BoolVar(&full, "full", false, "also run the tests behind each patch, and behind the last in the debug kernel")
	cmd.MarkFlagsMutuallyExclusive("fast", "full")
	fl.StringSliceVar(&f.tests, "tests", nil, "with --full: globs of test names (default: all)")
	fl.StringVar(&f.out, "out", "out/check", "directory for the results")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "compiler processes at once, and guests at once")
	fl.StringVar(&f.patches, "series", "", "the same as SERIES")
	_ = fl.MarkHidden("series")
	return cmd
}

// takeIn brings the series to be checked into the store.
func takeIn(ctx context.Context, p *project, st *store.Store, f runFlags, what, git string) (*intake.Taken, error) {
	switch {
	case what != "" && f.patches != "":
		return nil, errors.New("the series is given twice, as SERIES and as --series")
	case git != "" && what == "":
		return nil, errors.New("--git wants a range of commits: nftvm check --git REPO A..B")
	case git != "":
		return intake.FromGit(ctx, st, git, what)
	case what != "":
		return intake.From(ctx, st, what)
	}
	if f.patches == "" {
		root, err := p.root()
		if err != nil {
			return nil, err
		}
		f.defaults(root)
	}
	return intake.From(ctx, st, f.patches)
}

func doCheck(ctx context.Context, p *project, f runFlags, what, git string, depth check.Depth) error {
	st, err := p.store()
	if err != nil {
		return err
	}
	taken, err := takeIn(ctx, p, st, f, what, git)
	if err != nil {
		return err
	}
	f.patches = taken.Dir
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	for _, n := range taken.Notes {
		s.progress.Line("check: %s", n)
	}
	if len(s.trees) == 0 {
		return fmt.Errorf("%s supports none of the trees of %s", taken.From, treesFile)
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	trees := slices.Clone(s.trees)
	slices.Reverse(trees)
	c := &check.Check{
		Store: s.store, Series: taken.Series, From: taken.From, Trees: trees, Depth: depth, Out: out, Progress: s.progress,
		Host: report.Host{CPUs: runtime.NumCPU(), QEMU: s.host.Version, Version: version()},
		Ground: func(ctx context.Context, t tree.Tree) (*kernel.Ground, error) {
			return s.checker(0).Ground(ctx, t, kernel.Plain)
		},
		Build: func(ctx context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error) {
			b := s.checker(n)
			b.CompileOnly, b.Strict = true, strict
			return b.Build(ctx, t, kernel.Plain)
		},
	}
	switch {
	case depth == check.Fast:
	case doctor.FindTool("spatch") == "":
		s.progress.Line("check: no coccicheck, spatch is not installed; see: nftvm doctor")
	default:
		c.Cocci = func(ctx context.Context, t tree.Tree, n int, files []string) ([]kbuild.Warning, error) {
			b := s.checker(n)
			b.Cocci = files
			built, err := b.Build(ctx, t, kernel.Plain)
			return built.Remarks, err
		}
	}
	if depth == check.Full {
		if c.Tests, err = s.testsKey(); err != nil {
			return err
		}
		c.Test = s.checkTests
	}
	res, err := c.Do(ctx)
	s.progress.Close()
	if err != nil {
		return err
	}
	if err := res.Nowhere(); err != nil {
		return err
	}
	res.Print(os.Stdout)
	fmt.Printf("\n%d findings\nin %.0f s; results: %s\n", res.Findings(), res.Seconds, filepath.Join(out, check.JSONFile))
	if code := res.ExitCode(); code != report.ExitPass {
		return exitCode(code)
	}
	return nil
}

// checker builds a tree with the first n patches.
func (s *setup) checker(n int) *kernel.Builder {
	b := s.builder(s.store)
	b.Slot, b.Notify = checkSlot, nil
	b.Choose = func(all []series.Patch) []series.Patch { return all[:n] }
	return b
}

// testsKey names the tests that were chosen, and what runs them.
func (s *setup) testsKey() (store.Key, error) {
	k := store.NewKey("tests").Str("qemu", s.host.Version).Str("accel", s.flags.accel).Str("nftvm", version())
	specs, err := json.Marshal(s.specs)
	if err != nil {
		return "", err
	}
	err = k.Str("tests", string(specs)).Dir("selftests", s.flags.selftests)
	return k.Key(), err
}

// checkTests runs the tests with the first n patches; ours once the module that
// they are about is there.
func (s *setup) checkTests(ctx context.Context, t tree.Tree, n int, flavor, dir string) ([]report.Test, error) {
	b := s.checker(n)
	built, err := b.Build(ctx, t, flavor)
	if err != nil {
		return nil, err
	}
	specs := slices.DeleteFunc(slices.Clone(s.specs), func(spec matrix.Spec) bool {
		return spec.Path == "" && !built.Overlay.Has(kbuild.ModuleSource)
	})
	if len(specs) == 0 {
		return nil, nil
	}
	m := &matrix.Run{
		Store: s.store, Builder: b, Engine: &vmtest.Engine{Store: s.store, Accel: s.flags.accel, Loaded: true},
		Trees: []tree.Tree{t}, Flavors: []string{flavor}, Tests: specs, Selftests: s.flags.selftests, Out: dir,
		Jobs: s.flags.jobs, Progress: s.progress, Host: report.Host{CPUs: runtime.NumCPU(), QEMU: s.host.Version, Version: version()},
	}
	res, err := m.Do(ctx)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if cell := res.Cells[0]; cell.Verdict == report.Error {
		return nil, errors.New(cell.Reason)
	}
	return res.Cells[0].Tests, nil
}
