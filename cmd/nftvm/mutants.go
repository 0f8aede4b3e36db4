// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/mutants"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

func newMutants(p *project) *cobra.Command {
	f := runFlags{}
	var globs []string
	cmd := &cobra.Command{
		Use:   "mutants",
		Short: "Break the series on purpose, a patch at a time: the tests must notice each",
		Long: `Apply each patch of selftests/mutants/ on top of the series, build, and run the
script that its head names ("Script: toggle.sh"). A mutant is killed when the
script or the kernel complains; one that survives shows what is not tested. A
head may name the subtests that must ("Red: fin, rst").

Exit code: 0 all killed; 1 one survived; 2 one does not apply or build, its
script does not pass without it either, or something else noticed it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doMutants(cmd.Context(), p, f, globs)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.trees, "trees", nil, "trees of configs/trees.yaml (default: each mutant on the newest that it is for)")
	fl.StringSliceVar(&globs, "mutants", nil, "globs of mutants' names (default: all)")
	fl.StringVar(&f.out, "out", "out/mutants", "directory for the results")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "guests at once, and compiler processes at once")
	f.addSources(cmd)
	return cmd
}

// mutantSlot names the work trees that mutants are built in: the plain ones
// stay as the series left them.
const mutantSlot = "mutants"

func doMutants(ctx context.Context, p *project, f runFlags, globs []string) error {
	newest := len(f.trees) == 0
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	if newest {
		slices.Reverse(s.trees)
	}
	all, err := mutants.Load(filepath.Join(s.flags.selftests, "mutants"))
	if err != nil {
		return err
	}
	if all, err = mutants.Match(all, globs); err != nil {
		return err
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	clean, mutated := s.builder(s.store), s.builder(s.store)
	mutated.Slot, mutated.Notify = mutantSlot, nil
	engine := &vmtest.Engine{Store: s.store, Accel: s.flags.accel}
	if _, err := engine.Prepare(ctx); err != nil {
		return err
	}

	r := &mutants.Run{
		Trees: s.trees, Once: newest, Mutants: all, Tests: s.specs, Out: out, Jobs: f.jobs, Progress: s.progress,
		Host: report.Host{CPUs: runtime.NumCPU(), QEMU: s.host.Version, Version: version()},
		Build: func(ctx context.Context, t tree.Tree, flavor string, m *mutants.Mutant) (*kernel.Built, error) {
			if m == nil {
				return clean.Build(ctx, t, flavor)
			}
			mutated.Extra = []string{m.Path}
			return mutated.Build(ctx, t, flavor)
		},
		Test: func(ctx context.Context, b *kernel.Built, spec matrix.Spec, m *mutants.Mutant) (report.Test, bool) {
			name, flags := "clean", s.flags
			if m != nil {
				name, flags.extra = m.Name, []string{m.Path}
			}
			one := &matrix.Run{
				Store: s.store, Engine: engine, Selftests: s.flags.selftests, Out: filepath.Join(out, name),
				Progress: s.progress, Again: again(s.root, flags),
			}
			res, _, done := one.One(ctx, b, spec, b.Tree+"/"+name)
			return res, done
		},
		Drop: func(_ context.Context, b *kernel.Built) error {
			return errors.Join(s.store.Drop(kbuild.Stage, b.Key), s.store.Drop(kbuild.ModuleStage, b.ManualKey))
		},
	}
	res, err := r.Do(ctx)
	s.progress.Close()
	if err != nil {
		return err
	}
	fmt.Println()
	res.Table(os.Stdout)
	fmt.Printf("\n%d killed, %d survived, %d errors\nin %.0f s; results: %s\n", res.Count(mutants.Killed), res.Count(mutants.Survived),
		res.Count(report.Error), res.Seconds, filepath.Join(out, mutants.JSONFile))
	if code := res.ExitCode(); code != report.ExitPass {
		return exitCode(code)
	}
	return nil
}
