// SPDX-License-Identifier: GPL-2.0-only

// Package check builds the series patch by patch: each must build on top of
// those before it, and bring no warning of its own.
package check

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// Finding is something wrong with one patch on one tree.
type Finding struct {
	// Patch is "series" when it is not known which one.
	Tree, Patch string
	// What is build, warning, checkpatch or coccicheck.
	What string
	Text string
}

// Check goes through the series on trees. The checkpatch.pl of the first tree
// that gets a patch judges it, so the newest should come first: it knows the
// rules of today, and patches for old trees are judged by those of their day.
type Check struct {
	Series *series.Series
	Trees  []tree.Tree
	// Build builds the first n patches of a tree, and compiles the strict
	// files once more.
	Build func(ctx context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error)
	// Cocci is what the tree's semantic patches say of files with the first n
	// patches applied; nil where there is nothing to run them.
	Cocci    func(ctx context.Context, t tree.Tree, n int, files []string) ([]kbuild.Warning, error)
	Progress *report.Progress

	// judged are the patches that checkpatch.pl has seen.
	judged map[string]bool
}

// Do checks every tree. The error is for what keeps it from going on.
func (c *Check) Do(ctx context.Context) ([]Finding, error) {
	var all []Finding
	c.judged = map[string]bool{}
	for _, t := range c.Trees {
		found, err := c.tree(ctx, t)
		all = append(all, found...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func (c *Check) tree(ctx context.Context, t tree.Tree) ([]Finding, error) {
	step := c.Progress.Start(t.Name, "without any patch", 0)
	none, err := c.Build(ctx, t, 0, nil)
	if err != nil {
		step.End("failed: %v", err)
		return nil, fmt.Errorf("tree %s without any patch: %w", t.Name, err)
	}
	step.End("built")
	patches, err := c.Series.Select(none.Version)
	if err != nil {
		return nil, err
	}
	touched := make([][]string, len(patches)+1)
	for i, p := range patches {
		if touched[i], err = touches(p, ".c"); err != nil {
			return nil, err
		}
	}
	var found []Finding
	var before []kbuild.Warning
	for n := 0; n <= len(patches); n++ {
		if ctx.Err() != nil {
			return found, context.Cause(ctx)
		}
		name := "pristine"
		if n > 0 {
			name = patches[n-1].Name
		}
		step := c.Progress.Start(t.Name, name, 0)
		// Of the files of the next patch those that are there already say
		// now what is not its fault.
		var strict []string
		if n > 0 {
			strict = append(strict, touched[n-1]...)
		}
		strict = append(strict, touched[n]...)
		slices.Sort(strict)
		strict = slices.DeleteFunc(slices.Compact(strict), func(f string) bool { return !exists(none.Source, patches[:n], f) })
		built, err := c.Build(ctx, t, n, strict)
		if err != nil {
			step.End("failed: %v", err)
			if ctx.Err() != nil {
				return found, context.Cause(ctx)
			}
			// What comes behind it stands on it.
			return append(found, Finding{t.Name, name, "build", err.Error()}), nil
		}
		if n == 0 {
			before = built.Warnings
			step.End("built")
			continue
		}
		// What the next patch's files say was not asked for before.
		fresh := slices.DeleteFunc(newWarnings(before, built.Warnings), func(w kbuild.Warning) bool {
			return slices.Contains(touched[n], w.File) && !slices.Contains(touched[n-1], w.File)
		})
		before = built.Warnings
		for _, w := range fresh {
			found = append(found, Finding{t.Name, name, "warning", w.String()})
		}
		if !c.judged[name] {
			c.judged[name] = true
			style, err := checkpatch(ctx, none.Source, patches[n-1].Content)
			if err != nil {
				return found, err
			}
			for _, s := range style {
				found = append(found, Finding{t.Name, name, "checkpatch", s})
			}
			step.End("%d warnings, %d remarks of checkpatch", len(fresh), len(style))
			continue
		}
		step.End("%d warnings", len(fresh))
	}
	cocci, err := c.cocci(ctx, t, none.Source, patches)
	return append(found, cocci...), err
}

// cocci compares what semantic patches say without the series and with all of
// it: patch by patch it would take a day.
func (c *Check) cocci(ctx context.Context, t tree.Tree, pristine string, patches []series.Patch) ([]Finding, error) {
	if c.Cocci == nil || len(patches) == 0 {
		return nil, nil
	}
	var files []string
	for _, p := range patches {
		more, err := touches(p, ".c", ".h")
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	var said [2][]kbuild.Warning
	step := c.Progress.Start(t.Name, "coccicheck", 0)
	for i, n := range []int{0, len(patches)} {
		there := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !exists(pristine, patches[:n], f) })
		if len(there) == 0 {
			continue
		}
		var err error
		if said[i], err = c.Cocci(ctx, t, n, there); err != nil {
			step.End("failed: %v", err)
			return nil, err
		}
	}
	fresh := newWarnings(said[0], said[1])
	step.End("%d remarks", len(fresh))
	for _, w := range said[1] {
		if w.OfCocci() {
			c.Progress.Line("%s: coccicheck without %s", t.Name, w)
		}
	}
	var found []Finding
	for _, w := range fresh {
		found = append(found, Finding{t.Name, "series", "coccicheck", w.String()})
	}
	return found, nil
}

// newWarnings are those of after that before does not have as often.
func newWarnings(before, after []kbuild.Warning) []kbuild.Warning {
	old := slices.Clone(before)
	var out []kbuild.Warning
	for _, w := range after {
		i := slices.IndexFunc(old, w.Same)
		if i < 0 {
			out = append(out, w)
			continue
		}
		old = slices.Delete(old, i, i+1)
	}
	return out
}

// touches are the files with one of the extensions that a patch changes or adds.
func touches(p series.Patch, exts ...string) ([]string, error) {
	files, err := p.Files()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		if slices.Contains(exts, filepath.Ext(f.NewName)) {
			out = append(out, f.NewName)
		}
	}
	return out, nil
}

// exists tells whether a file is in the tree with the patches applied.
func exists(pristine string, patches []series.Patch, file string) bool {
	for i := len(patches) - 1; i >= 0; i-- {
		files, err := patches[i].Files()
		if err != nil {
			continue // applying it says so
		}
		for _, f := range files {
			if f.NewName == file {
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

// checkpatch is what the tree's own script says of a patch, a remark a line.
// Whether MAINTAINERS needs an update it asks of every patch that adds a file,
// also of one that updates it, unless by chance MAINTAINERS comes first in the
// diff: that is not an answer to anything.
func checkpatch(ctx context.Context, src string, patch []byte) ([]string, error) {
	cmd := exec.CommandContext(ctx, "perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", "--color=never", "--ignore", "FILE_PATH_CHANGES", "-")
	cmd.Dir = src
	cmd.Stdin = bytes.NewReader(patch)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		return nil, fmt.Errorf("checkpatch.pl: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "WARNING:") || strings.Contains(line, "ERROR:") || strings.Contains(line, "CHECK:") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
