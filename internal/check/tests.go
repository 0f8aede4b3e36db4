// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
)

// testStage is the store's name for what tests say of a tree with the first
// patches of a series.
const testStage = "check-tests"

// debugFlavor is the kernel that checks itself.
const debugFlavor = "debug"

// test runs the tests with the first n patches. One that passed before the
// patch must pass; one that never did is what later patches are for, but not
// behind the last.
func (w *walk) test(ctx context.Context, n int, cell *Cell) error {
	if n == 1 {
		none, _, err := w.run(ctx, 0, kernel.Plain)
		if err != nil {
			return fmt.Errorf("without any patch: %w", err)
		}
		w.none, w.tested = none, none
		w.passed(none)
	}
	got, known, err := w.run(ctx, n, kernel.Plain)
	if err != nil {
		return err
	}
	cell.ran("test")
	cell.Tests, cell.Cached = got, cell.Cached && known
	for _, t := range got {
		if !t.Verdict.Bad() {
			continue
		}
		was, there := verdictOf(w.tested, t.Name)
		switch {
		case there && was == report.Pass:
			cell.add("test", t.String())
		case n == len(w.patches) && w.ever[t.Name]:
			// Some patch before broke it, and its cell says so.
		case n == len(w.patches) && badFromTheStart(w.none, t.Name):
			cell.Notes = append(cell.Notes, t.Name+" does not pass, but neither does it without the series")
		case n == len(w.patches):
			w.res.Whole.add("test", "passes with no number of patches: "+t.String())
		}
	}
	w.tested = got
	w.passed(got)
	return nil
}

// passed remembers the tests that pass.
func (w *walk) passed(all []TestResult) {
	for _, t := range all {
		w.ever[t.Name] = w.ever[t.Name] || t.Verdict == report.Pass
	}
}

func verdictOf(all []TestResult, name string) (report.Verdict, bool) {
	i := slices.IndexFunc(all, func(t TestResult) bool { return t.Name == name })
	if i < 0 {
		return "", false
	}
	return all[i].Verdict, true
}

// badFromTheStart tells whether a test could run without any patch, and did not
// pass then either.
func badFromTheStart(none []TestResult, name string) bool {
	was, there := verdictOf(none, name)
	return there && was.Bad()
}

// debug runs the tests in the debug kernel of the whole series: what passes in
// the plain one must pass there, too.
func (w *walk) debug(ctx context.Context) error {
	got, _, err := w.run(ctx, len(w.patches), debugFlavor)
	if err != nil {
		return fmt.Errorf("debug kernel: %w", err)
	}
	whole := &w.res.Whole
	whole.ran("test")
	whole.Tests = got
	for _, t := range got {
		if was, _ := verdictOf(w.tested, t.Name); t.Verdict.Bad() && !was.Bad() {
			whole.add("test", "debug kernel: "+t.String())
		}
	}
	return nil
}

func (t TestResult) String() string {
	s := fmt.Sprintf("%s: %s", t.Name, t.Verdict)
	if t.Reason != "" {
		s += ": " + t.Reason
	}
	if t.Log != "" {
		s += "\noutput: " + t.Log
	}
	return s
}

// run is what the tests say with the first n patches. A verdict that is the
// harness's fault is an error, and not kept.
func (w *walk) run(ctx context.Context, n int, flavor string) ([]TestResult, bool, error) {
	k := w.key(testStage, n).Str("flavor", flavor).Str("tests", string(w.Tests))
	name := "pristine"
	if n > 0 {
		name = strings.TrimSuffix(w.patches[n-1].Name, ".patch")
	}
	if flavor != kernel.Plain {
		name += "-" + flavor
	}
	dir := filepath.Join(w.Out, "tests", w.tree.Name, name)
	f, known, err := w.keep(ctx, testStage, k.Key(), func(ctx context.Context) (*found, error) {
		all, err := w.Test(ctx, w.tree, n, flavor, dir)
		if err != nil {
			return nil, err
		}
		f := &found{}
		for _, t := range all {
			if t.Verdict == report.Error {
				return nil, errors.New(t.Name + ": " + t.Reason)
			}
			f.Tests = append(f.Tests, TestResult{Name: t.Name, Verdict: t.Verdict, Reason: t.Reason, Log: t.Log})
		}
		return f, nil
	})
	if err != nil {
		return nil, false, err
	}
	return f.Tests, known, nil
}
