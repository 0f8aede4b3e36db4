// SPDX-License-Identifier: GPL-2.0-only

// Package check goes through a series patch by patch, on tree after tree: each
// must apply and build on top of those before it, bring no warning of its own,
// lose no config symbol, and break no test.
package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// Depth is how closely a check looks.
type Depth string

// The depths. Fast is apply, build and checkpatch; Full has tests in addition
// to all else.
const (
	Fast    Depth = "fast"
	Default Depth = "default"
	Full    Depth = "full"
)

// Check goes through the series on trees. The checkpatch.pl of the first tree
// that gets a patch judges it, so the newest should come first: it knows the
// rules of today, and patches for old trees are judged by those of their day.
type Check struct {
	Store  *store.Store
	Series *series.Series
	// From is what the series was taken from, in words.
	From  string
	Trees []tree.Tree
	Depth Depth
	// Out receives the results.
	Out      string
	Host     report.Host
	Progress *report.Progress

	// Ground gets a tree, and names what verdicts about it stand on.
	Ground func(ctx context.Context, t tree.Tree) (*kernel.Ground, error)
	// Build builds the first n patches of a tree, and compiles the strict
	// files once more.
	Build func(ctx context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error)
	// Cocci is what the tree's semantic patches say of files with the first n
	// patches applied; nil where there is nothing to run them.
	Cocci func(ctx context.Context, t tree.Tree, n int, files []string) ([]kbuild.Warning, error)
	// Test runs the tests of a Full check with the first n patches; dir is for
	// what they leave. Tests names the tests and what runs them.
	Test  func(ctx context.Context, t tree.Tree, n int, flavor, dir string) ([]report.Test, error)
	Tests store.Key

	// judged are the patches that checkpatch.pl has seen.
	judged  map[string]bool
	results *Results
}

// Do checks every tree. Results are written to Out as they come. The error is
// for what keeps the check itself from going on; what is wrong with a patch or
// a tree is in the results.
func (c *Check) Do(ctx context.Context) (*Results, error) {
	c.judged = map[string]bool{}
	c.results = &Results{
		Schema: Schema, Started: time.Now().UTC(), Host: c.Host, Depth: c.Depth, From: c.From, Patches: []string{}, Trees: []*Tree{},
	}
	for _, p := range c.Series.Patches {
		c.results.Patches = append(c.results.Patches, p.Name)
	}
	var walks []*walk
	for _, t := range c.Trees {
		w := c.enter(ctx, t)
		walks = append(walks, w)
		c.results.Trees = append(c.results.Trees, w.res)
	}
	if err := c.write(ctx); err != nil {
		return nil, err
	}
	if ctx.Err() != nil || c.results.Nowhere() != nil {
		return c.results, nil
	}
	for _, w := range walks {
		if err := w.walk(ctx); err != nil {
			return c.results, err
		}
	}
	return c.results, c.write(ctx)
}

func (c *Check) write(ctx context.Context) error {
	c.results.Interrupted = ctx.Err() != nil
	c.results.Seconds = time.Since(c.results.Started).Seconds()
	return c.results.Write(c.Out)
}

// walk is the way over one tree.
type walk struct {
	*Check
	tree    tree.Tree
	ground  *kernel.Ground
	patches []series.Patch
	// diffs are the patches without their words.
	diffs [][]byte
	res   *Tree
	// at is where in res the cell of each patch is.
	at []int
	// applying is how many of the patches apply, refused why no more do.
	applying int
	refused  error
	// tested are the verdicts of the tests with the patches so far, none those
	// without any.
	tested, none []TestResult
	// ever are the tests that passed with some of the patches.
	ever map[string]bool
}

// enter gets a tree and finds out how far the series applies: that takes no
// time, and is said before anything is built.
func (c *Check) enter(ctx context.Context, t tree.Tree) *walk {
	w := &walk{Check: c, tree: t, ever: map[string]bool{}, res: &Tree{
		Tree: t.Name, Whole: Cell{Patch: seriesRow, Verdict: None, Reason: notReached, Ran: []string{}, Findings: []Finding{}},
	}}
	for _, p := range c.Series.Patches {
		w.res.Cells = append(w.res.Cells, Cell{Patch: p.Name, Verdict: None, Reason: notReached, Ran: []string{}, Findings: []Finding{}})
	}
	if err := w.prepare(ctx); err != nil {
		w.patches = nil
		w.fail(ctx, &w.res.Whole, err)
	}
	return w
}

func (w *walk) prepare(ctx context.Context) (err error) {
	if w.ground, err = w.Ground(ctx, w.tree); err != nil {
		return err
	}
	w.res.Version, w.res.Origin = w.ground.Version, report.Origin(w.ground.Origin)
	if err := w.Series.Check(w.ground.Version); err != nil {
		return err
	}
	if w.patches, err = w.Series.Select(w.ground.Version); err != nil {
		return err
	}
	for i := range w.res.Cells {
		if slices.ContainsFunc(w.patches, func(p series.Patch) bool { return p.Name == w.res.Cells[i].Patch }) {
			w.at = append(w.at, i)
		} else {
			w.res.Cells[i].Reason = notForTree
		}
	}
	for _, p := range w.patches {
		d, err := p.Diff()
		if err != nil {
			return err
		}
		w.diffs = append(w.diffs, d)
	}
	w.applying = len(w.patches)
	if _, w.refused = series.Apply(w.ground.Source, w.patches); w.refused == nil {
		return nil
	}
	for w.applying = 0; ; w.applying++ {
		if _, w.refused = series.Apply(w.ground.Source, w.patches[:w.applying+1]); w.refused != nil {
			if w.applying == 0 {
				w.apply()
			}
			return nil
		}
	}
}

// apply says in the cell of the first patch that does not apply why not.
func (w *walk) apply() {
	cell := w.cell(w.applying + 1)
	cell.ran("apply")
	cell.add("apply", w.refused.Error())
	w.res.judge()
}

// cell is that of the n-th patch that the tree gets.
func (w *walk) cell(n int) *Cell { return &w.res.Cells[w.at[n-1]] }

// fail says that the harness could not look; where it was asked to stop, no
// more than that.
func (w *walk) fail(ctx context.Context, cell *Cell, err error) {
	if ctx.Err() != nil {
		cell.Verdict, cell.Reason = None, "interrupted"
		return
	}
	cell.Verdict, cell.Reason = Error, err.Error()
	w.res.judge()
}

// walk looks at patch after patch until one stops it. The error is for results
// that cannot be written.
func (w *walk) walk(ctx context.Context) error {
	for n := 1; n <= len(w.patches); n++ {
		cell := w.cell(n)
		if ctx.Err() != nil {
			return w.write(ctx)
		}
		name := w.patches[n-1].Name
		step := w.Progress.Start(w.tree.Name, name, w.Store.Expected(w.timing()))
		start := time.Now()
		w.look(ctx, n, cell)
		cell.Seconds = time.Since(start).Seconds()
		w.res.judge()
		switch {
		case cell.Reason != "":
			step.End("%s: %s", cell.Verdict, cell.Reason)
		case cell.Cached:
			step.End("%s, known", cell.Verdict)
		default:
			w.Store.Took(w.timing(), cell.Seconds)
			step.End("%s in %.1f s", cell.Verdict, cell.Seconds)
		}
		if err := w.write(ctx); err != nil {
			return err
		}
		if cell.Verdict.stops() {
			return nil
		}
	}
	if len(w.patches) == 0 || ctx.Err() != nil {
		return nil
	}
	w.whole(ctx)
	w.res.judge()
	return w.write(ctx)
}

func (w *walk) timing() string { return fmt.Sprintf("check %s %s", w.Depth, w.tree.Name) }

// look fills the cell of the n-th patch.
func (w *walk) look(ctx context.Context, n int, cell *Cell) {
	if n > w.applying {
		if len(cell.Findings) == 0 {
			w.apply()
		}
		w.style(ctx, n, cell)
		return
	}
	known, err := w.built(ctx, n, cell)
	if err != nil {
		w.fail(ctx, cell, err)
		return
	}
	cell.Cached = known
	cell.judge()
	w.style(ctx, n, cell)
	if w.Depth != Full || cell.Verdict.stops() {
		return
	}
	if err := w.test(ctx, n, cell); err != nil {
		w.fail(ctx, cell, err)
	}
}

// whole looks at what the series makes of the tree, all of it applied.
func (w *walk) whole(ctx context.Context) {
	cell := &w.res.Whole
	if w.Depth == Fast {
		cell.Reason = "not looked at by a fast check"
		return
	}
	start := time.Now()
	cell.judge()
	if err := w.cocci(ctx); err != nil {
		w.fail(ctx, cell, err)
	}
	if w.Depth == Full && cell.Verdict != Error && ctx.Err() == nil {
		if err := w.debug(ctx); err != nil {
			w.fail(ctx, cell, err)
		}
	}
	if cell.Verdict == Pass && len(cell.Ran) == 0 {
		cell.Verdict, cell.Reason = None, "there is nothing to look at it with"
	}
	cell.Seconds = time.Since(start).Seconds()
}

// touches are the files with one of the extensions that a patch changes or adds.
func touches(p series.Patch, exts ...string) ([]string, error) {
	files, err := p.Files()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if !f.IsDelete && slices.Contains(exts, filepath.Ext(f.NewName)) {
			out = append(out, f.NewName)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// there are those of the files that are in the tree with the first n patches.
func (w *walk) there(n int, files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !exists(w.ground.Source, w.patches[:n], f) })
}

// exists tells whether a file is in the tree with the patches applied.
func exists(pristine string, patches []series.Patch, file string) bool {
	for i := len(patches) - 1; i >= 0; i-- {
		files, err := patches[i].Files()
		if err != nil {
			continue // applying it says so
		}
		for _, f := range files {
			if f.NewName == file && !f.IsDelete {
				return true
			}
			if f.OldName == file && (f.IsDelete || f.IsRename) {
				return false
			}
		}
	}
	fi, err := os.Stat(filepath.Join(pristine, file))
	return err == nil && fi.Mode().IsRegular()
}
