// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// The store's names for what is known of a tree with the first patches of a
// series, and for what checkpatch.pl says of a patch.
const (
	builtStage = "check"
	styleStage = "checkpatch"
)

// entryFile has what was found in an entry of any stage of ours.
const entryFile = "found.json"

// found is what an entry keeps of a cell.
type found struct {
	Ran      []string
	Findings []Finding
	Notes    []string
	Tests    []TestResult
}

// keep takes from the store what is known, or finds it out and keeps it.
func (c *Check) keep(ctx context.Context, stage string, key store.Key, find func(ctx context.Context) (*found, error)) (f *found, known bool, err error) {
	e, err := c.Store.Do(ctx, stage, key, func(ctx context.Context, dir string, _ io.Writer) error {
		f, err := find(ctx)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, entryFile), raw, 0o644)
	})
	if err != nil {
		return nil, false, err
	}
	raw, err := os.ReadFile(filepath.Join(e.Dir, entryFile))
	if err != nil {
		return nil, false, err
	}
	f = &found{}
	return f, e.Cached, json.Unmarshal(raw, f)
}

// into puts what was found into a cell.
func (f *found) into(cell *Cell) {
	for _, t := range f.Ran {
		cell.ran(t)
	}
	cell.Findings = append(cell.Findings, f.Findings...)
	cell.Notes = append(cell.Notes, f.Notes...)
	cell.judge()
}

// key names a stage's verdict about the tree with the first n patches. Only
// what they change counts, not their words.
func (w *walk) key(stage string, n int) *store.Hasher {
	k := store.NewKey(stage).Str("format", "1").Str("ground", string(w.ground.Key))
	for _, d := range w.diffs[:n] {
		k.Str("patch", string(d))
	}
	return k
}

// built finds out whether the tree builds with the n-th patch, and what
// compilers and the configuration say that they did not say before it.
func (w *walk) built(ctx context.Context, n int, cell *Cell) (known bool, err error) {
	// Complaints name the patch.
	k := w.key(builtStage, n).Str("fast", fmt.Sprint(w.Depth == Fast)).Str("name", w.patches[n-1].Name)
	f, known, err := w.keep(ctx, builtStage, k.Key(), func(ctx context.Context) (*found, error) { return w.build(ctx, n) })
	if err != nil {
		return false, err
	}
	f.into(cell)
	return known, nil
}

func (w *walk) build(ctx context.Context, n int) (*found, error) {
	f := &found{Ran: []string{"apply", "build"}}
	if w.Depth == Fast {
		_, err := w.Build(ctx, w.tree, n, nil)
		return w.guilty(ctx, n, f, err)
	}
	files, err := touches(w.patches[n-1], ".c")
	if err != nil {
		return nil, err
	}
	var leftOut []string
	files = slices.DeleteFunc(files, func(file string) bool {
		if !ofKernel(file) {
			leftOut = append(leftOut, file)
		}
		return !ofKernel(file)
	})
	// The very same files before and behind the patch: what a file says for
	// the first time because it was not asked before is nobody's fault.
	before, err := w.Build(ctx, w.tree, n-1, w.there(n-1, files))
	if err != nil {
		return nil, w.groundless(n, err)
	}
	after, err := w.Build(ctx, w.tree, n, w.there(n, files))
	if err != nil {
		return w.guilty(ctx, n, f, err)
	}
	f.Ran = append(f.Ran, "config", "warnings")
	if before.Symbols != nil && after.Symbols != nil {
		for _, l := range after.Symbols.LostSince(before.Symbols) {
			f.Findings = append(f.Findings, Finding{"config", l.String()})
		}
	}
	for _, warning := range newWarnings(before.Warnings, after.Warnings) {
		f.Findings = append(f.Findings, Finding{"warnings", warning.String()})
	}
	for _, file := range append(leftOut, after.LeftOut...) {
		f.Notes = append(f.Notes, file+" is not part of this configuration: nothing compiled it")
	}
	return f, nil
}

// ofKernel tells whether a C file can be a part of a kernel: the others have
// makefiles of their own kind.
func ofKernel(file string) bool {
	top, _, _ := strings.Cut(file, "/")
	return !slices.Contains([]string{"tools", "scripts", "Documentation", "samples", "usr"}, top)
}

// guilty makes a finding of an error of a build with the n-th patch on top.
func (w *walk) guilty(ctx context.Context, n int, f *found, err error) (*found, error) {
	if err == nil {
		return f, nil
	}
	if ctx.Err() != nil || store.FaultOf(err) != store.Kernel {
		return nil, err
	}
	if n == 1 && w.Depth == Fast {
		// Nothing has been built of this tree yet: it may be its own fault.
		if _, err := w.Build(ctx, w.tree, 0, nil); err != nil {
			return nil, w.groundless(n, err)
		}
	}
	tool := "build"
	var se *store.StageError
	if errors.As(err, &se) && se.Stage == series.Stage {
		tool = "apply"
	}
	f.Findings = append(f.Findings, Finding{tool, err.Error()})
	return f, nil
}

// groundless is for a tree that does not build without the n-th patch.
func (w *walk) groundless(n int, err error) error {
	if n == 1 {
		return fmt.Errorf("tree %s without any patch: %w", w.tree.Name, err)
	}
	return fmt.Errorf("tree %s before %s, where it did build: %w", w.tree.Name, w.patches[n-1].Name, err)
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
