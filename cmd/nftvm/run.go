// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/doctor"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
)

type runFlags struct {
	trees, flavors, tests []string
	// own are paths of trees that configs/trees.yaml does not name.
	own                []string
	out, env           string
	patches, selftests string
	extra              []string
	jobs, memory       int
	keep               bool
	accel              string
	resume, buildOnly  bool
	refresh            bool
	step               bool
}

func newRun(p *project) *cobra.Command {
	f := runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Fetch, patch, build, boot and test: trees x flavors x tests",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doRun(cmd.Context(), p, f)
		},
	}
	fl := cmd.Flags()
	f.addTrees(cmd)
	fl.StringSliceVar(&f.flavors, "flavors", []string{"plain"}, "flavors")
	fl.StringSliceVar(&f.tests, "tests", nil, "globs of test names (default: all)")
	fl.StringVar(&f.out, "out", "out/run", "directory for the results")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "guests at once, and compiler processes at once")
	fl.IntVar(&f.memory, "memory", 0, "MiB that the guests may have together (default: three quarters of what is free)")
	fl.BoolVar(&f.keep, "keep", false, "stop a test at its first failure and save its machine there, for nftvm shell --at")
	f.addSources(cmd)
	f.addExtra(cmd)
	fl.BoolVar(&f.resume, "resume", false, "keep the verdicts that --out already has for the same kernels")
	fl.BoolVar(&f.refresh, "refresh", false, "ask the archive for newer sources even if it was asked lately")
	fl.BoolVar(&f.buildOnly, "build-only", false, "stop behind the module stage")
	fl.BoolVar(&f.step, stepFlag, false, "for git bisect run: exit 0 if the tests pass, 1 if one fails, 125 if nobody can tell")
	fl.StringVar(&f.env, "env", "", "with --build-only: write the paths of what was built as shell variables to this file")
	return cmd
}

// defaults fills in the project's own directories.
func (f *runFlags) defaults(root string) {
	if f.patches == "" {
		f.patches = filepath.Join(root, "patches")
	}
	if f.selftests == "" {
		f.selftests = filepath.Join(root, "selftests")
	}
}

// addTrees adds the flags that choose trees.
func (f *runFlags) addTrees(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.trees, "trees", nil, "trees of configs/trees.yaml (default: all that the series supports)")
	fl.StringArrayVar(&f.own, "tree", nil, "a kernel tree of your own, PATH as it lies there or PATH@REV; it is only read (may be repeated)")
}

// choose has the trees that the flags name.
func (f *runFlags) choose(cfg *tree.Trees, s *series.Series) ([]tree.Tree, error) {
	var out []tree.Tree
	for _, path := range f.own {
		t, err := tree.At(path)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(f.trees) == 0 && len(out) > 0 {
		return out, nil
	}
	named, err := cfg.Select(f.trees)
	if err == nil && len(f.trees) == 0 {
		named, err = kernel.Supported(named, s)
	}
	return append(out, named...), err
}

// oneTree is the tree of a name, or one's own by its path.
func oneTree(cfg *tree.Trees, name string) (tree.Tree, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return tree.At(name)
	}
	trees, err := cfg.Select([]string{name})
	if err != nil {
		return tree.Tree{}, err
	}
	return trees[0], nil
}

// lacking says what the machine must have and has not.
func lacking(ctx context.Context) error {
	lacks := missing(ctx)
	if len(doctor.Required(lacks)) == 0 {
		return nil
	}
	return fmt.Errorf("this machine lacks %s; mend it with: make deps (or: %s)",
		strings.Join(doctor.Required(lacks), "; "), doctor.Remedy(lacks))
}

// addSources adds the flags that say where series and selftests come from, and
// what runs the guests.
func (f *runFlags) addSources(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.accel, "accel", "", "kvm or tcg (default: kvm where it proved that it boots, else tcg)")
	fl.StringVar(&f.patches, "series", "", "directory of the series (default: patches/)")
	fl.StringVar(&f.selftests, "selftests", "", "directory of the selftests (default: selftests/)")
}

// addExtra adds the flag for patches that are not of the series.
func (f *runFlags) addExtra(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.extra, "extra", nil, "a further patch on top of the series (may be repeated)")
}

// setup is everything a loop over the pipeline needs.
type setup struct {
	root     string
	store    *store.Store
	trees    []tree.Tree
	specs    []matrix.Spec
	host     *qemu.Host
	progress *report.Progress
	flags    runFlags
}

// prepare checks the flags and the machine. What is wrong is said before
// anything is fetched, built or booted.
func prepare(ctx context.Context, p *project, f runFlags) (*setup, error) {
	cfg, root, err := p.trees()
	if err != nil {
		return nil, err
	}
	f.defaults(root)
	s := &setup{root: root, flags: f}
	ser, err := series.Load(f.patches)
	if err != nil {
		return nil, err
	}
	if s.trees, err = f.choose(cfg, ser); err != nil {
		return nil, err
	}
	if s.specs, err = matrix.LoadSpecs(s.configs(), f.selftests); err != nil {
		return nil, err
	}
	if s.specs, err = matrix.Match(s.specs, f.tests); err != nil {
		return nil, err
	}
	if err := lacking(ctx); err != nil {
		return nil, err
	}
	if s.host, err = qemu.Probe(ctx, ""); err != nil {
		return nil, err
	}
	s.store, err = p.store()
	s.progress = report.NewProgress(os.Stderr)
	return s, err
}

func (s *setup) configs() string { return filepath.Join(s.root, "configs") }

func (s *setup) builder(st *store.Store) *kernel.Builder {
	return &kernel.Builder{
		Store: st, Series: s.flags.patches, Configs: s.configs(), Jobs: s.flags.jobs,
		Extra: s.flags.extra, Refresh: s.flags.refresh, Notify: notify(s.progress, false),
	}
}

func (s *setup) matrix(out string) *matrix.Run {
	return &matrix.Run{
		Store:     s.store,
		Builder:   s.builder(s.store),
		Engine:    &vmtest.Engine{Store: s.store, Accel: s.flags.accel, Keep: s.flags.keep, Loaded: true},
		Trees:     s.trees,
		Flavors:   s.flags.flavors,
		Tests:     s.specs,
		Selftests: s.flags.selftests,
		Out:       out,
		Jobs:      s.flags.jobs,
		Memory:    s.flags.memory,
		Resume:    s.flags.resume,
		BuildOnly: s.flags.buildOnly,
		Progress:  s.progress,
		Host:      report.Host{CPUs: runtime.NumCPU(), QEMU: s.host.Version, Version: version()},
		Again:     again(s.root, s.flags),
	}
}

func doRun(ctx context.Context, p *project, f runFlags) error {
	s, err := prepare(ctx, p, f)
	if err != nil {
		return err
	}
	defer s.progress.Close()
	if f.step && len(s.trees)*len(f.flavors) != 1 {
		return fmt.Errorf("--%s judges one tree in one flavor, not %d trees in %d; choose with --tree . or --trees", stepFlag, len(s.trees), len(f.flavors))
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	m := s.matrix(out)
	res, err := m.Do(ctx)
	s.progress.Close()
	if err != nil {
		return err
	}
	if f.env != "" {
		if err := writeEnv(f.env, m, s.trees[0].Name, f.flavors[0]); err != nil {
			return err
		}
	}
	res.Failures(os.Stdout)
	if !f.buildOnly {
		fmt.Println()
		res.Table(os.Stdout)
		fmt.Printf("\n%s\nin %.0f s; results: %s\n", summary(res), res.Seconds, filepath.Join(out, report.JSONFile))
	}
	if f.step {
		code, why := bisect.Step(ctx, res.Cells, bailed)
		if why != "" {
			fmt.Println("bisect step:", why)
		}
		return exitCode(code)
	}
	if code := res.ExitCode(); code != report.ExitPass {
		return exitCode(code)
	}
	return nil
}

// stepFlag makes a run a step of somebody's git bisect run.
const stepFlag = "bisect-step"

// summary counts the tests by verdict, in the form that test counters read.
func summary(res *report.Results) string {
	n := map[report.Verdict]int{}
	for _, c := range res.Cells {
		for _, t := range c.Tests {
			n[t.Verdict]++
		}
	}
	failed := 0
	for v, k := range n {
		if v.Bad() {
			failed += k
		}
	}
	s := fmt.Sprintf("%d passed, %d failed", n[report.Pass], failed)
	if n[report.Skip] > 0 {
		s += fmt.Sprintf(", %d skipped", n[report.Skip])
	}
	return s
}

// notify shows the builder's stages; if quiet, only those that had to run.
func notify(p *report.Progress, quiet bool) func(kernel.Event) {
	steps := map[string]*report.Step{}
	return func(e kernel.Event) {
		cell := e.Tree + "/" + e.Flavor
		if e.Warning != "" {
			p.Line("%s: %s", cell, e.Warning)
			return
		}
		key := cell + " " + e.Stage
		if e.Done == nil {
			steps[key] = p.Start(cell, e.Stage, e.Expected)
			return
		}
		step := steps[key]
		if step == nil {
			step = p.Start(cell, e.Stage, 1)
		}
		delete(steps, key)
		switch {
		case e.Done.Error != "":
			step.End("failed: %s", e.Done.Error)
		case e.Done.Cached && quiet:
			step.Drop()
		case e.Done.Cached:
			step.End("cached")
		default:
			step.End("done in %.1f s", e.Done.Seconds)
		}
	}
}

// again writes the command line that repeats one cell and test.
func again(root string, f runFlags) func(tree, flavor, test string) string {
	exe, err := os.Executable()
	if err != nil {
		exe = "nftvm"
	}
	return func(name, flavor, test string) string {
		choice := []string{"--trees", name}
		for _, path := range f.own {
			if t, err := tree.At(path); err == nil && t.Name == name {
				choice = []string{"--tree", t.Place()}
			}
		}
		args := slices.Concat([]string{exe, "run", "--project", root, "--series", f.patches, "--selftests", f.selftests}, choice,
			[]string{"--flavors", flavor, "--tests", test})
		for _, e := range f.extra {
			if abs, err := filepath.Abs(e); err == nil {
				e = abs
			}
			args = append(args, "--extra", e)
		}
		return "exec " + quoted(args) + ` --out "${1:-repro}"`
	}
}

func writeEnv(path string, m *matrix.Run, tree, flavor string) error {
	b := m.Built(tree, flavor)
	if b == nil {
		return nil // the failure itself is reported with the results
	}
	vars := map[string]string{
		"NFTVM_TEST_TREE":    tree,
		"NFTVM_TEST_FLAVOR":  flavor,
		"NFTVM_TEST_KERNEL":  b.Image,
		"NFTVM_TEST_MODULES": b.Modules,
		"NFTVM_TEST_MANUAL":  b.Manual,
		"NFTVM_TEST_RELEASE": b.Release,
		"NFTVM_TEST_VMLINUX": b.Vmlinux,
		"NFTVM_TEST_SOURCE":  b.Source,
		"NFTVM_TEST_KBUILD":  m.Store.SlotDir(tree+"-"+flavor, "obj"),
	}
	var lines []string
	for k, v := range vars {
		lines = append(lines, fmt.Sprintf("export %s='%s'\n", k, v))
	}
	sort.Strings(lines)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644)
}
