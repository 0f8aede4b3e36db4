// SPDX-License-Identifier: GPL-2.0-only

// Package matrix is the main loop: the pipeline over trees x flavors x tests.
package matrix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	goversion "github.com/hashicorp/go-version"
	"golang.org/x/sync/errgroup"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/srcline"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/image"
)

// Run is one matrix: what to judge, with what, and where to put it.
type Run struct {
	Store   *store.Store
	Builder *kernel.Builder
	Engine  *vmtest.Engine

	Trees   []tree.Tree
	Flavors []string
	Tests   []Spec

	// Selftests is the host directory of our own scripts.
	Selftests string
	// Out receives results, logs and consoles.
	Out string
	// Jobs is how many guests run at once; 0 is one per processor. Memory in
	// MiB is what they may have together; 0 is three quarters of what is free.
	Jobs, Memory int
	// Resume keeps the verdicts that Out already has for the same kernel.
	Resume bool
	// BuildOnly stops each cell behind its module stage.
	BuildOnly bool
	// Again is the command line that repeats one cell and test, by name; nil
	// writes no repro.sh.
	Again func(tree, flavor, test string) string

	Host     report.Host
	Progress *report.Progress

	mu      sync.Mutex
	results *report.Results
	old     *report.Results
	built   map[string]*kernel.Built
	queue   *queue

	imageStage report.Stage
}

// Built is the kernel of a cell after Do, nil when it was not built.
func (r *Run) Built(tree, flavor string) *kernel.Built { return r.built[tree+"/"+flavor] }

// Do runs the matrix. The results are written to Out as they come, so that
// whatever ends the run early leaves every finished verdict there. The error
// is for what keeps the matrix itself from running; a cell that fails, by
// whoever's fault, is in the results.
func (r *Run) Do(ctx context.Context) (*report.Results, error) {
	if err := os.MkdirAll(r.Out, 0o755); err != nil {
		return nil, err
	}
	if r.Resume {
		old, err := report.Load(r.Out)
		if err != nil {
			return nil, fmt.Errorf("nothing to resume: %w", err)
		}
		r.old = old
	}
	if r.Jobs <= 0 {
		r.Jobs = runtime.NumCPU()
	}
	if r.Memory <= 0 {
		r.Memory = freeMemory() / 4 * 3
	}
	r.queue = newQueue(r.Jobs, r.Memory)
	r.built = map[string]*kernel.Built{}
	r.results = &report.Results{Schema: report.Schema, Started: time.Now().UTC(), Host: r.Host}
	for _, t := range r.Trees {
		for _, f := range r.Flavors {
			r.results.Cells = append(r.results.Cells, report.Cell{
				Tree: t.Name, Flavor: f, Verdict: report.Skip, Reason: "not finished",
				Stages: []report.Stage{}, Tests: []report.Test{},
			})
		}
	}
	if err := r.results.Write(r.Out); err != nil {
		return nil, err
	}
	if !r.BuildOnly {
		// Interrupted: the results below say so.
		if err := r.image(ctx); err != nil && ctx.Err() == nil {
			return nil, err
		}
	}

	// Builds go one after the other, each with all processors; the guests of
	// a built cell run while the next cell builds.
	var guests errgroup.Group
	i := 0
	for _, t := range r.Trees {
		for _, f := range r.Flavors {
			cell := &r.results.Cells[i]
			i++
			if ctx.Err() != nil {
				continue
			}
			built, ok := r.build(ctx, t, f, cell)
			if !ok || r.BuildOnly {
				continue
			}
			guests.Go(func() error { return r.test(ctx, built, cell) })
		}
	}
	err := guests.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.results.Interrupted = ctx.Err() != nil
	r.results.Seconds = time.Since(r.results.Started).Seconds()
	if werr := r.results.Write(r.Out); err == nil {
		err = werr
	}
	return r.results, err
}

// image makes the initramfs that all guests share.
func (r *Run) image(ctx context.Context) error {
	step := r.Progress.Start("all", "image", r.Store.Expected("image"))
	start := time.Now()
	img, err := image.Build(ctx, r.Store)
	if err != nil {
		step.End("failed: %v", err)
		return err
	}
	r.Engine.Image = img.Path
	r.imageStage = report.Stage{Name: "image", Seconds: time.Since(start).Seconds(), Cached: img.Entry.Cached, Log: img.Entry.Log}
	if img.Entry.Cached {
		step.End("cached")
		return nil
	}
	r.Store.Took("image", r.imageStage.Seconds)
	step.End("done in %.1f s", r.imageStage.Seconds)
	return nil
}

// update changes the results under the lock and writes them out.
func (r *Run) update(change func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.results.Seconds = time.Since(r.results.Started).Seconds()
	return r.results.Write(r.Out)
}

func (r *Run) build(ctx context.Context, t tree.Tree, flavor string, cell *report.Cell) (*kernel.Built, bool) {
	built, err := r.Builder.Build(ctx, t, flavor)
	uerr := r.update(func() {
		if built != nil {
			cell.Release = built.Release
			cell.Origin = report.Origin(built.Origin)
			cell.Build = string(built.Key)
			for _, s := range built.Stages {
				cell.Stages = append(cell.Stages, report.Stage(s))
			}
		}
		switch {
		case err == nil && r.BuildOnly:
			cell.Verdict, cell.Reason = report.Pass, ""
		case err == nil, ctx.Err() != nil:
		case store.FaultOf(err) == store.Kernel:
			cell.Verdict, cell.Reason = report.Fail, err.Error()
		default:
			cell.Verdict, cell.Reason = report.Error, err.Error()
		}
		if err == nil {
			r.built[t.Name+"/"+flavor] = built
		}
	})
	if uerr != nil {
		r.Progress.Line("results are not written: %v", uerr)
	}
	return built, err == nil
}

// test runs every planned test of one built cell.
func (r *Run) test(ctx context.Context, built *kernel.Built, cell *report.Cell) error {
	version, err := goversion.NewVersion(built.Version)
	if err != nil {
		return fmt.Errorf("tree %s: version %q: %w", built.Tree, built.Version, err)
	}
	start := time.Now()
	var wg errgroup.Group
	for _, spec := range r.Tests {
		if !spec.Planned(version) {
			continue
		}
		known := r.kept(cell, spec.Name)
		if why := spec.Skip[built.Flavor]; known == nil && why != "" {
			skipped := newTest(spec.Name)
			skipped.Verdict, skipped.Reason = report.Skip, why
			known = &skipped
		}
		if known != nil {
			if err := r.update(func() { cell.Tests = append(cell.Tests, *known) }); err != nil {
				return err
			}
			continue
		}
		place := r.queue.enter(r.Store.Expected(timing(built, spec)), r.Engine.GuestMemory(built.Flavor, spec.Memory))
		wg.Go(func() error {
			if r.queue.wait(ctx, place) != nil {
				return nil
			}
			defer r.queue.done(place)
			res, accel, done := r.One(ctx, built, spec, built.Tree+"/"+built.Flavor)
			if !done {
				return nil
			}
			return r.update(func() {
				cell.Tests = append(cell.Tests, res)
				slices.SortFunc(cell.Tests, func(a, b report.Test) int { return strings.Compare(a.Name, b.Name) })
				if accel != "" {
					r.results.Host.Accel = accel
				}
			})
		})
	}
	r.queue.open()
	if err := wg.Wait(); err != nil {
		return err
	}
	return r.update(func() {
		boot := 0.0
		for _, t := range cell.Tests {
			boot = max(boot, t.StartSeconds)
		}
		cell.Stages = append(cell.Stages, r.imageStage,
			report.Stage{Name: "boot", Seconds: boot},
			report.Stage{Name: "test", Seconds: time.Since(start).Seconds()})
		cell.Judge()
		if ctx.Err() != nil && cell.Verdict != report.Fail {
			cell.Verdict, cell.Reason = report.Skip, "interrupted"
		}
	})
}

// kept is the verdict that a resumed run has for this kernel and test already.
func (r *Run) kept(cell *report.Cell, test string) *report.Test {
	if r.old == nil {
		return nil
	}
	for _, c := range r.old.Cells {
		if c.Tree != cell.Tree || c.Flavor != cell.Flavor || c.Build == "" || c.Build != cell.Build {
			continue
		}
		for _, t := range c.Tests {
			if t.Name == test && t.Verdict != report.Error {
				return &t
			}
		}
	}
	return nil
}

// One runs one test in a guest of its own; label names the cell in the
// progress. Of r it needs Store, Engine, Selftests, Out, Again and Progress.
// done is false when the run was interrupted before there was a verdict.
func (r *Run) One(ctx context.Context, built *kernel.Built, spec Spec, label string) (res report.Test, accel string, done bool) {
	dir := filepath.Join(r.Out, built.Tree+"-"+built.Flavor, filepath.FromSlash(spec.Name))
	took := timing(built, spec)
	step := r.Progress.Start(label, spec.Name, r.Store.Expected(took))
	start := time.Now()
	res, accel, err := r.guest(ctx, built, spec, dir)
	switch {
	case ctx.Err() != nil:
		step.End("interrupted")
		return res, "", false
	case store.FaultOf(err) == store.Kernel:
		// It died before there was a test to judge.
		res.Verdict, res.Reason = report.Crash, err.Error()
	case err != nil:
		res.Verdict, res.Reason = report.Error, err.Error()
	case res.Verdict == report.Pass:
		r.Store.Took(took, time.Since(start).Seconds())
	}
	if res.Reason != "" {
		step.End("%s in %.1f s: %s", res.Verdict, res.Seconds, res.Reason)
	} else {
		step.End("%s in %.1f s", res.Verdict, res.Seconds)
	}
	return res, accel, true
}

// timing is the name of how long a test takes.
func timing(b *kernel.Built, spec Spec) string {
	return "test " + b.Tree + "/" + b.Flavor + " " + spec.Name
}

// freeMemory is what the machine can give away, in MiB; a lot where that is not
// known.
func freeMemory() int {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	return 1 << 30
}

func newTest(name string) report.Test {
	return report.Test{Name: name, Subtests: []report.Subtest{}, Splats: []report.Splat{}, Taint: []string{}}
}

func (r *Run) guest(ctx context.Context, built *kernel.Built, spec Spec, dir string) (report.Test, string, error) {
	res := newTest(spec.Name)
	if err := os.RemoveAll(dir); err != nil {
		return res, "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return res, "", err
	}
	if r.Again != nil {
		res.Repro = filepath.Join(dir, "repro.sh")
		script := "#!/bin/sh\n# Runs this cell and test again.\n" + r.Again(built.Tree, built.Flavor, spec.Name) + "\n"
		if err := os.WriteFile(res.Repro, []byte(script), 0o755); err != nil {
			return res, "", err
		}
	}
	test, err := r.guestTest(built, spec)
	if err != nil {
		return res, "", err
	}
	got, err := r.Engine.Run(ctx, GuestKernel(built), test, dir)
	res.Verdict, res.Reason = report.Verdict(got.Verdict), got.Reason
	if res.Verdict == report.Pass && spec.Partly != "" {
		res.Reason = strings.TrimPrefix(res.Reason+"; "+spec.Partly, "; ")
	}
	if got.Trace != "" && built.Objects() != "" {
		if terr := withLines(ctx, built, got.Trace); terr != nil {
			r.Progress.Line("%s: no source lines: %v", spec.Name, terr)
		}
	}
	if got.Kept {
		res.Reason += "; its machine was kept: nftvm shell --at " + dir
	}
	res.Seconds, res.StartSeconds = got.Seconds, got.StartSeconds
	res.Log, res.Console = got.Log, got.Console
	for _, s := range got.Subtests {
		res.Subtests = append(res.Subtests, report.Subtest{Name: s.Name, Verdict: report.Verdict(s.Verdict), Reason: s.Comment})
	}
	for _, s := range got.Splats {
		res.Splats = append(res.Splats, report.Splat{Kind: s.Kind, Title: s.Title})
	}
	res.Taint = append(res.Taint, got.Taint...)
	res.Ledger = report.Ledger(got.Ledger)
	return res, got.Accel, err
}

// withLines writes into a trace what lines of the source it is about.
func withLines(ctx context.Context, built *kernel.Built, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lined, err := srcline.Annotate(ctx, built.Objects(), string(text))
	if err != nil {
		return err
	}
	if built.Objects() == "" {
		return nil // another build has begun meanwhile
	}
	return os.WriteFile(path, []byte(lined), 0o644)
}

// GuestKernel is what the guest side needs to know of a built kernel.
func GuestKernel(b *kernel.Built) vmtest.Kernel {
	return vmtest.Kernel{
		Tree: b.Tree, Flavor: b.Flavor, Release: b.Release,
		Image: b.Image, Vmlinux: b.Vmlinux, Modules: b.Modules, Manual: b.Manual,
		Key: string(b.Key),
	}
}

// Places in the guest: of our scripts, and of the kernel tree.
const (
	GuestSelftests = "/selftests/" + ourSuite
	guestTree      = "/linux"
)

func (r *Run) guestTest(built *kernel.Built, spec Spec) (vmtest.Test, error) {
	t := vmtest.Test{
		Name: spec.Name, Timeout: spec.Timeout, VCPUs: spec.VCPUs, Memory: spec.Memory, AllowTaint: spec.Taint,
		ICount: spec.ICount, Seed: spec.Seed, AllowLeak: spec.Leak, AllowLeakOf: spec.LeakOf, StopAtFailure: spec.StopAtFailure,
		Args: spec.Args, SkipUnder: spec.skipUnder(built.Flavor),
	}
	var err error
	if spec.Path == "" {
		t.Script = GuestSelftests + strings.TrimPrefix(spec.Name, ourSuite) + ".sh"
		t.Files, err = agent.Tree(r.Selftests, GuestSelftests)
		return t, err
	}
	t.Script = guestTree + "/" + spec.Path
	for _, p := range append([]string{spec.Path}, spec.Files...) {
		files, err := agent.Tree(filepath.Join(built.Source, p), guestTree+"/"+p)
		if err != nil {
			return t, fmt.Errorf("test %s: %w", spec.Name, err)
		}
		t.Files = append(t.Files, files...)
	}
	return t, nil
}
