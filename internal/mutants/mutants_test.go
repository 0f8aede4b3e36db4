// SPDX-License-Identifier: GPL-2.0-only

package mutants

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.patch", "Script: toggle.sh\nTrees: >= 7.0\nFlavor: debug\nRed: one, two\n\nText: more\n---\n--- a/x\n+++ b/x\n+Script: not.sh\n")
	write(t, dir, "a.patch", "SPDX-License-Identifier: GPL-2.0-only\nScript: nft_offload/prefix\nRed: every drop\n\n--- a/x\n")
	write(t, dir, "README", "no mutant")
	all, err := Load(dir)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "a", all[0].Name)
	require.Equal(t, "nft_offload/prefix", all[0].Test)
	require.Equal(t, "plain", all[0].Flavor)
	require.True(t, all[0].Trees.All())
	require.Equal(t, "nft_offload/toggle", all[1].Test)
	require.Equal(t, "debug", all[1].Flavor)
	require.Equal(t, []string{"one", "two"}, all[1].Red)
	require.Empty(t, all[0].Red, "words are for people")
	require.Equal(t, ">= 7.0", all[1].Trees.String())

	some, err := Match(all, []string{"b*"})
	require.NoError(t, err)
	require.Len(t, some, 1)
	_, err = Match(all, []string{"b*", "c"})
	require.ErrorContains(t, err, `"c"`)

	write(t, dir, "c.patch", "Kills: toggle.sh\n--- a/x\n")
	_, err = Load(dir)
	require.ErrorContains(t, err, "c.patch")
	require.ErrorContains(t, err, "Script:")
	_, err = Load(t.TempDir())
	require.ErrorContains(t, err, "no mutant")
}

// world answers for the pipeline: what the mutant is called decides.
type world struct {
	mu      sync.Mutex
	dropped []string
	// built are the trees of which the clean kernel was asked for.
	built []string
	// sick is a test that fails on the clean kernel, too.
	sick string
}

func (w *world) build(_ context.Context, t tree.Tree, flavor string, m *Mutant) (*kernel.Built, error) {
	b := &kernel.Built{Tree: t.Name, Flavor: flavor, Version: t.Name + ".4", Key: "clean"}
	if m == nil {
		w.built = append(w.built, t.Name)
		return b, nil
	}
	switch m.Name {
	case "does-not-apply":
		return b, &store.StageError{Stage: "patch", Fault: store.Kernel, Err: errors.New("hunk 1")}
	case "does-not-build":
		return b, &store.StageError{Stage: "build", Fault: store.Kernel, Err: errors.New("undeclared")}
	case "no-change":
		return b, nil
	}
	b.Key = store.Key(m.Name)
	return b, nil
}

func (w *world) test(_ context.Context, b *kernel.Built, spec matrix.Spec, m *Mutant) (report.Test, bool) {
	res := report.Test{Name: spec.Name, Verdict: report.Pass}
	if m == nil {
		if spec.Name == w.sick {
			res.Verdict, res.Reason = report.Fail, "exit code 1"
		}
		return res, true
	}
	switch m.Name {
	case "by-subtest", "by-another":
		res.Verdict = report.Fail
		res.Subtests = []report.Subtest{{Name: "one", Verdict: report.Pass}, {Name: "two", Verdict: report.Fail}}
	case "by-mode":
		res.Verdict, res.Subtests = report.Fail, []report.Subtest{{Name: "flag: two", Verdict: report.Fail}}
	case "by-splat", "by-splat-instead":
		res.Verdict, res.Splats = report.Crash, []report.Splat{{Kind: "kasan", Title: "KASAN: x in y"}}
	case "by-leak":
		res.Verdict, res.Reason = report.Leak, "hardware ledger: entries 1"
	case "skips":
		res.Verdict, res.Reason = report.Skip, "needs netdevsim"
	case "harness":
		res.Verdict, res.Reason = report.Error, "no QEMU"
	}
	return res, true
}

func (w *world) drop(_ context.Context, b *kernel.Built) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped = append(w.dropped, string(b.Key))
	return nil
}

func judge(t *testing.T, w *world, names ...string) *Results {
	t.Helper()
	return judgeOn(t, w, []tree.Tree{{Name: "7.3"}}, names...)
}

func judgeOn(t *testing.T, w *world, trees []tree.Tree, names ...string) *Results {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	r := &Run{
		Trees: trees, Once: len(trees) > 1, Tests: []matrix.Spec{{Name: "nft_offload/x"}, {Name: "nft_offload/y"}},
		Out: t.TempDir(), Jobs: 2, Progress: report.NewProgress(null), Build: w.build, Test: w.test, Drop: w.drop,
	}
	dir := t.TempDir()
	for _, n := range names {
		head := "Script: x.sh\n"
		switch n {
		case "old-trees":
			head += "Trees: < 7.0\n"
		case "no-script":
			head = "Script: z.sh\n"
		case "by-subtest", "by-mode":
			head += "Red: zero, two\n"
		case "by-another", "by-splat-instead":
			head += "Red: zero, one\n"
		case "of-y":
			head = "Script: y.sh\n"
		}
		write(t, dir, n+".patch", head+"--- a/x\n")
	}
	r.Mutants, err = Load(dir)
	require.NoError(t, err)
	res, err := r.Do(t.Context())
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(r.Out, JSONFile))
	return res
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		verdict report.Verdict
		reason  string
		code    int
	}{
		{"by-subtest", Killed, "subtest two", report.ExitPass},
		{"by-mode", Killed, "subtest flag: two", report.ExitPass},
		{"by-another", report.Error, "names subtest zero, one, but it was noticed by subtest two", report.ExitHarness},
		{"by-splat-instead", report.Error, "names subtest zero, one, but it was noticed by splat", report.ExitHarness},
		{"by-splat", Killed, "splat: KASAN: x in y", report.ExitPass},
		{"by-leak", Killed, "leak: hardware ledger: entries 1", report.ExitPass},
		{"unnoticed", Survived, "passes with it", report.ExitFail},
		{"skips", Survived, "skips itself", report.ExitFail},
		{"harness", report.Error, "no QEMU", report.ExitHarness},
		{"does-not-apply", report.Error, "does not apply: ", report.ExitHarness},
		{"does-not-build", report.Error, "does not build: ", report.ExitHarness},
		{"no-change", report.Error, "changes nothing", report.ExitHarness},
		{"no-script", report.Error, "no test nft_offload/z", report.ExitHarness},
		{"of-y", report.Error, "does not pass without the mutant", report.ExitHarness},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{sick: "nft_offload/y"}
			res := judge(t, w, tt.name)
			require.Len(t, res.Mutants, 1)
			require.Equal(t, tt.verdict, res.Mutants[0].Verdict)
			require.Contains(t, res.Mutants[0].Reason, tt.reason)
			require.Equal(t, tt.code, res.ExitCode())
			for _, key := range w.dropped {
				require.NotEqual(t, "clean", key, "the series' own kernel was dropped")
			}
			if tt.verdict != report.Error {
				require.Equal(t, []string{tt.name}, w.dropped)
			}
		})
	}
}

func TestOneSurvivorIsARedRun(t *testing.T) {
	res := judge(t, &world{}, "by-subtest", "unnoticed", "old-trees")
	require.Len(t, res.Mutants, 2, "a mutant of other trees is none of this one's")
	require.Equal(t, report.ExitFail, res.ExitCode())
	require.Equal(t, 1, res.Count(Killed))

	require.Equal(t, report.ExitHarness, judge(t, &world{}, "old-trees").ExitCode(), "nothing was judged")
}

func TestOnceIsOnTheFirstTreeThatFits(t *testing.T) {
	w := &world{}
	res := judgeOn(t, w, []tree.Tree{{Name: "7.3"}, {Name: "7.2"}, {Name: "6.1"}, {Name: "5.10"}}, "by-subtest", "old-trees")
	got := map[string]string{}
	for _, m := range res.Mutants {
		got[m.Name] = m.Tree
	}
	require.Equal(t, map[string]string{"by-subtest": "7.3", "old-trees": "6.1"}, got)
	require.Len(t, res.Mutants, 2)
	require.ElementsMatch(t, []string{"7.3", "6.1"}, w.built, "nothing is built for a tree that has no mutant")
}
