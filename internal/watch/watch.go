// SPDX-License-Identifier: GPL-2.0-only

package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	goversion "github.com/hashicorp/go-version"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

// Watch tests an opened tree whenever a file of it, or of the selftests, is
// saved.
type Watch struct {
	Tree tree.Tree
	// Repo is where the tree was opened.
	Repo string
	// Selftests is the directory of our tests, Specs those to run.
	Selftests string
	Specs     []matrix.Spec
	// Out gets the logs; it must not be below Repo.
	Out string
	// Say receives a line per verdict, and the first error in full.
	Say io.Writer

	// Work reads the tree, Build makes a kernel of it, Touches says which
	// modules are enough, Modules makes only those, Test runs one test: done is
	// false when it was interrupted.
	Work    func(ctx context.Context) (*dev.Work, error)
	Build   func(ctx context.Context, w *dev.Work) (*kernel.Built, error)
	Touches func(b *kernel.Built, o *series.Overlay) (dirs []string, ok bool)
	Modules func(ctx context.Context, b *kernel.Built, o *series.Overlay, dirs []string, dir string) (*kernel.Built, error)
	Test    func(ctx context.Context, b *kernel.Built, spec matrix.Spec) (res report.Test, done bool)

	base    *kernel.Built     // the last whole kernel
	judged  map[string]judged // by test
	verdict bool              // nothing bad in the last round
}

// Over is a Watch over the pipeline, of what was opened from t in repo. It is the
// builder's only user; m says which tests there are, and where their logs go.
func Over(b *kernel.Builder, m *matrix.Run, t tree.Tree, repo string, say io.Writer) *Watch {
	m.Progress = report.NewProgressTo(io.Discard)
	return &Watch{
		Tree: t, Repo: repo, Selftests: m.Selftests, Specs: m.Tests, Out: m.Out, Say: say,
		Work: func(ctx context.Context) (*dev.Work, error) { return dev.Working(ctx, repo) },
		Build: func(ctx context.Context, w *dev.Work) (*kernel.Built, error) {
			b.Edited, b.EditedOf = w.Overlay, w.Source
			return b.Build(ctx, t, kernel.Plain)
		},
		Touches: (*kernel.Built).Touches,
		Modules: b.Modules,
		Test: func(ctx context.Context, built *kernel.Built, spec matrix.Spec) (report.Test, bool) {
			res, _, done := m.One(ctx, built, spec, t.Name)
			return res, done
		},
	}
}

// judged is a test's last verdict, and of what.
type judged struct {
	key store.Key
	res report.Test
}

// Do goes on until ctx ends.
func (w *Watch) Do(ctx context.Context) error {
	return loop(ctx, []string{w.Repo, w.Selftests}, w.Round)
}

// Good says whether the last round had nothing bad.
func (w *Watch) Good() bool { return w.verdict }

// Round builds what is there now and tests what it affects, as long as that is
// fresh. A tree that does not build, and a test that fails, are no errors; the
// harness's faults are.
func (w *Watch) Round(ctx, fresh context.Context) error {
	w.verdict = false
	start := time.Now()
	// A compiler that is killed leaves a directory that has to start over.
	built, what, err := w.build(ctx)
	if fresh.Err() != nil {
		return context.Cause(fresh)
	}
	if err != nil {
		if store.FaultOf(err) != store.Kernel {
			return err
		}
		w.say("%s does not build:\n%v", w.Tree.Name, err)
		return nil
	}
	w.say("%s %s in %.1f s", w.Tree.Name, what, time.Since(start).Seconds())
	return w.test(fresh, built)
}

func (w *Watch) say(format string, args ...any) {
	fmt.Fprintf(w.Say, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// build makes what has to be made, and says what that was.
func (w *Watch) build(ctx context.Context) (b *kernel.Built, what string, err error) {
	work, err := w.Work(ctx)
	if err != nil {
		return nil, "", err
	}
	if work.Tree != w.Tree.Name {
		return nil, "", fmt.Errorf("%s holds tree %s, not %s", w.Repo, work.Tree, w.Tree.Name)
	}
	dir := filepath.Join(w.Out, "build")
	if err := os.RemoveAll(dir); err != nil {
		return nil, "", err
	}
	edited := filepath.Join(dir, "edited")
	if err := os.MkdirAll(edited, 0o755); err != nil {
		return nil, "", err
	}
	if err := work.Overlay.Write(edited); err != nil {
		return nil, "", err
	}
	if w.base != nil {
		if dirs, ok := w.Touches(w.base, work.Overlay); ok {
			if len(dirs) == 0 {
				return w.base, "needs no build", nil
			}
			b, err := w.Modules(ctx, w.base, work.Overlay, dirs, filepath.Join(dir, "made"))
			return b, "modules of " + strings.Join(dirs, " and "), err
		}
	}
	b, err = w.Build(ctx, work)
	if err != nil {
		return nil, "", err
	}
	// What later rounds are compared with.
	kept := filepath.Join(w.Out, "kernel")
	if err := errors.Join(os.RemoveAll(kept), os.Rename(edited, kept)); err != nil {
		return nil, "", err
	}
	b.Overlay.Dir = kept
	w.base = b
	return b, "kernel", nil
}

// test runs the tests for which something changed since they last passed: those
// that failed first, and then the shortest.
func (w *Watch) test(ctx context.Context, b *kernel.Built) error {
	version, err := goversion.NewVersion(b.Version)
	if err != nil {
		return fmt.Errorf("version of %s: %w", w.Tree.Name, err)
	}
	if w.judged == nil {
		w.judged = map[string]judged{}
	}
	specs := slices.DeleteFunc(slices.Clone(w.Specs), func(s matrix.Spec) bool { return !s.Planned(version) })
	slices.SortStableFunc(specs, func(x, y matrix.Spec) int {
		a, b := w.judged[x.Name].res, w.judged[y.Name].res
		if a.Verdict.Bad() != b.Verdict.Bad() {
			if a.Verdict.Bad() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Seconds, b.Seconds)
	})
	w.verdict = true
	same, shown := 0, false
	for _, s := range specs {
		key, err := w.key(b, s)
		if err != nil {
			return err
		}
		if was := w.judged[s.Name]; was.key == key && was.res.Verdict == report.Pass {
			same++
			continue
		}
		if b != w.base && !strings.Contains(s.Taint, madeByHand) {
			s.Taint += madeByHand
		}
		res, done := w.Test(ctx, b, s)
		if !done {
			return context.Cause(ctx)
		}
		w.judged[s.Name] = judged{key, res}
		line := fmt.Sprintf("  %-34s %s in %.1f s", s.Name, res.Verdict, res.StartSeconds+res.Seconds)
		if res.Reason != "" {
			line += ": " + res.Reason
		}
		w.say("%s", line)
		if res.Verdict.Bad() {
			w.verdict = false
			if !shown {
				shown = true
				w.show(res)
			}
		}
	}
	if same > 0 {
		w.say("  %d passed before, and nothing that they run has changed", same)
	}
	return nil
}

// madeByHand is the taint of a module that was made by "make M=".
const madeByHand = "O"

// tail is how many lines of a failed test's output are shown.
const tail = 20

// show gives a failure in full.
func (w *Watch) show(res report.Test) {
	for _, s := range res.Subtests {
		if s.Verdict.Bad() {
			fmt.Fprintf(w.Say, "    %s: %s\n", s.Name, cmp.Or(s.Reason, string(s.Verdict)))
		}
	}
	for _, l := range store.Tail(res.Log, tail) {
		fmt.Fprintf(w.Say, "    | %s\n", l)
	}
	fmt.Fprintf(w.Say, "    output: %s\n    console: %s\n", res.Log, res.Console)
}

// key is over all that a test runs: the kernel, modules that were made for it,
// and its own files.
func (w *Watch) key(b *kernel.Built, s matrix.Spec) (store.Key, error) {
	k := store.NewKey("watch").Str("kernel", string(b.Key))
	if b != w.base {
		// What is made by hand apart from these is of the same sources.
		if err := k.Dir("modules", b.Modules); err != nil {
			return "", err
		}
	}
	if s.Path != "" {
		return k.Key(), nil
	}
	files, err := agent.Tree(w.Selftests, "")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		// A script is its own test; what else is there serves them all.
		if rel := filepath.Base(f.Guest); filepath.Ext(rel) == ".sh" && rel != filepath.Base(s.Name)+".sh" && !matrix.IsLibrary(rel) {
			continue
		}
		if err := k.File(f.Guest, f.Host); err != nil {
			return "", err
		}
	}
	return k.Key(), nil
}
