// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/ktap"
)

const (
	changesA = "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-1\n+2\n"
	addsB    = "diff --git a/net/b.c b/net/b.c\nnew file mode 100644\n--- /dev/null\n+++ b/net/b.c\n@@ -0,0 +1 @@\n+1\n"
)

// bench is a series of two patches and two trees, and builds that say what a
// test wants them to.
type bench struct {
	t     *testing.T
	c     *Check
	dir   string
	src   map[string]string
	asked []string // tree/n: files
	built func(tree string, n int) (*kernel.Built, error)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), src: map[string]string{}}
	b.put("patches/series", "1.patch\n2.patch\n")
	b.put("patches/1.patch", changesA)
	b.put("patches/2.patch", addsB)
	for _, name := range []string{"7.3", "7.2"} {
		b.src[name] = filepath.Join(b.dir, name)
		b.put(name+"/net/a.c", "1\n")
		// It says of each patch that it makes b.c.
		b.put(name+"/scripts/checkpatch.pl", "while (<STDIN>) {\n	print \"-:1: CHECK: it changes $1\\n\" if m{^\\+\\+\\+ b/(\\S*b\\.c)};\n}\n")
	}
	st, err := store.Open(filepath.Join(b.dir, "store"))
	require.NoError(t, err)
	progress, err := os.Create(filepath.Join(b.dir, "progress"))
	require.NoError(t, err)
	t.Cleanup(func() { progress.Close() })
	b.c = &Check{
		Store: st, From: "SERIES", Trees: []tree.Tree{{Name: "7.3"}, {Name: "7.2"}}, Depth: Default,
		Out: filepath.Join(b.dir, "out"), Progress: report.NewProgress(progress),
		Ground: func(_ context.Context, t tree.Tree) (*kernel.Ground, error) {
			return &kernel.Ground{Version: t.Name + ".4", Source: b.src[t.Name], SourceKey: store.Key(t.Name), Key: store.Key(t.Name)}, nil
		},
		Build: func(_ context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error) {
			b.asked = append(b.asked, strings.TrimSpace(fmt.Sprintf("%s/%d %s", t.Name, n, strings.Join(strict, " "))))
			return b.built(t.Name, n)
		},
		Cocci: func(context.Context, tree.Tree, int, []string) ([]kbuild.Warning, error) { return nil, nil },
	}
	b.built = func(string, int) (*kernel.Built, error) { return &kernel.Built{}, nil }
	return b
}

func (b *bench) put(name, content string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(b.t, os.WriteFile(path, []byte(content), 0o644))
}

// warns has the builds of n patches say warnings.
func (b *bench) warns(at map[int][]kbuild.Warning) {
	b.built = func(_ string, n int) (*kernel.Built, error) { return &kernel.Built{Warnings: at[n]}, nil }
}

// breaks has the builds of n patches fail by the kernel's fault.
func (b *bench) breaks(at func(tree string, n int) bool) {
	b.built = func(tree string, n int) (*kernel.Built, error) {
		if at(tree, n) {
			return nil, &store.StageError{Stage: kbuild.CompileStage, Fault: store.Kernel, Err: errors.New("undeclared")}
		}
		return &kernel.Built{}, nil
	}
}

// do checks once more, as a new process would.
func (b *bench) do() *Results {
	b.t.Helper()
	var err error
	b.c.Series, err = series.Load(filepath.Join(b.dir, "patches"))
	require.NoError(b.t, err)
	b.asked = nil
	res, err := b.c.Do(b.t.Context())
	require.NoError(b.t, err)
	return res
}

// grid is each tree's verdicts in a line, with that of the whole series.
func grid(r *Results) (out []string) {
	for _, t := range r.Trees {
		line := t.Tree + ":"
		for _, c := range t.all() {
			line += " " + string(c.Verdict)
		}
		out = append(out, line)
	}
	return out
}

// findings are all of them, in lines.
func findings(r *Results) (out []string) {
	for _, t := range r.Trees {
		for _, c := range t.all() {
			for _, f := range c.Findings {
				out = append(out, t.Tree+" "+c.Patch+" "+f.Tool+" "+f.Text)
			}
		}
	}
	return out
}

func TestOnlyNewWarningsCount(t *testing.T) {
	b := newBench(t)
	old := kbuild.Warning{File: "net/a.c", Line: "1", Text: "warning: old"}
	moved := kbuild.Warning{File: "net/a.c", Line: "9", Text: "warning: old"}
	fresh := kbuild.Warning{File: "net/b.c", Line: "2", Text: "warning: new"}
	b.warns(map[int][]kbuild.Warning{0: {old}, 1: {moved}, 2: {fresh}})
	res := b.do()
	require.Equal(t, []string{
		"7.3 2.patch warnings net/b.c:2: warning: new",
		"7.3 2.patch checkpatch -:1: CHECK: it changes net/b.c",
		"7.2 2.patch warnings net/b.c:2: warning: new",
	}, findings(res), "each tree builds a patch, one judges its style")
	require.Equal(t, []string{"7.3: pass warn pass", "7.2: pass warn pass"}, grid(res), "a warning does not stop the walk")
	require.Equal(t, []string{"7.3/0 net/a.c", "7.3/1 net/a.c", "7.3/1", "7.3/2 net/b.c"}, b.asked[:4],
		"a file that is not there yet cannot be compiled, and each is asked before and behind the patch")
	require.Equal(t, report.ExitFail, res.ExitCode())
	require.Equal(t, "2.patch", res.Trees[0].FirstBad)
}

func TestTheSameWarningOnceMoreIsNew(t *testing.T) {
	w := kbuild.Warning{File: "net/a.c", Line: "1", Text: "warning: x"}
	require.Len(t, newWarnings([]kbuild.Warning{w}, []kbuild.Warning{w, w}), 1)
}

func TestPatchThatDoesNotBuild(t *testing.T) {
	b := newBench(t)
	b.breaks(func(tree string, n int) bool { return tree == "7.3" && n == 1 })
	res := b.do()
	require.Equal(t, []string{"7.3: build - -", "7.2: pass style pass"}, grid(res), "the next tree judges what the first did not reach")
	require.Equal(t, notReached, res.Trees[0].Cells[1].Reason)
	require.Contains(t, findings(res)[0], "7.3 1.patch build compile: undeclared")
	require.NotContains(t, b.asked, "7.3/2", "what stands on it is not asked")
	require.Equal(t, "1.patch", res.Trees[0].FirstBad)
	require.Equal(t, report.ExitFail, res.ExitCode())
}

func TestTreeThatDoesNotBuildByItself(t *testing.T) {
	for _, depth := range []Depth{Fast, Default} {
		t.Run(string(depth), func(t *testing.T) {
			b := newBench(t)
			b.c.Depth = depth
			b.breaks(func(tree string, _ int) bool { return tree == "7.3" })
			res := b.do()
			require.Equal(t, "7.3: error - -", grid(res)[0])
			require.Contains(t, res.Trees[0].Cells[0].Reason, "tree 7.3 without any patch: ")
			require.Empty(t, res.Trees[0].Cells[0].texts("build"), "it is not the patch's fault")
			require.Equal(t, report.ExitHarness, res.ExitCode())
			require.Contains(t, grid(res)[1], "7.2: pass", "the other tree can be looked at")
		})
	}
}

func TestHarnessFaultIsNobodysAndNotKept(t *testing.T) {
	b := newBench(t)
	b.built = func(_ string, n int) (*kernel.Built, error) {
		if n == 2 {
			return nil, store.ErrNoSpace
		}
		return &kernel.Built{}, nil
	}
	res := b.do()
	require.Equal(t, []string{"7.3: pass error -", "7.2: pass error -"}, grid(res))
	require.Equal(t, report.ExitHarness, res.ExitCode())
	b.built = func(string, int) (*kernel.Built, error) { return &kernel.Built{}, nil }
	require.Equal(t, []string{"7.3: pass style pass", "7.2: pass pass pass"}, grid(b.do()))
}

func TestSeriesThatNothingLooksAtHasNoVerdict(t *testing.T) {
	b := newBench(t)
	b.c.Cocci = nil
	require.Equal(t, []string{"7.3: pass style -", "7.2: pass pass -"}, grid(b.do()))
}

func TestFastAsksOnlyWhetherItBuilds(t *testing.T) {
	b := newBench(t)
	b.c.Depth = Fast
	b.c.Cocci = func(context.Context, tree.Tree, int, []string) ([]kbuild.Warning, error) {
		return nil, errors.New("not in a fast check")
	}
	require.Equal(t, []string{"7.3: pass style -", "7.2: pass pass -"}, grid(b.do()))
	require.Equal(t, []string{"7.3/1", "7.3/2", "7.2/1", "7.2/2"}, b.asked)
}

func TestPatchThatDoesNotApply(t *testing.T) {
	b := newBench(t)
	b.put("7.2/net/b.c", "already\n")
	b.put("patches/3.patch", "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-2\n+3\n")
	b.put("patches/series", "1.patch\n2.patch\n3.patch\n")
	res := b.do()
	require.Equal(t, []string{"7.3: pass style pass pass", "7.2: pass apply - -"}, grid(res))
	require.Equal(t, []string{"2.patch: net/b.c: the patch makes this file, but the tree has it already"}, res.Trees[1].Cells[1].texts("apply"))
	require.NotContains(t, b.asked, "7.2/2")
	require.NoError(t, res.Nowhere())
	require.Equal(t, report.ExitFail, res.ExitCode())
}

func TestSeriesThatAppliesNowhere(t *testing.T) {
	b := newBench(t)
	b.put("7.3/net/a.c", "x\n")
	b.put("7.2/net/a.c", "y\n")
	res := b.do()
	require.Equal(t, []string{"7.3: apply - -", "7.2: apply - -"}, grid(res))
	require.Empty(t, b.asked, "nothing need be built to know that")
	require.Equal(t, []string{"apply"}, res.Trees[0].Cells[0].Ran)
	require.EqualError(t, res.Nowhere(), "SERIES applies to none of the trees (7.3: 1.patch does not apply: hunk 1 of 1 in net/a.c; "+
		"7.2: 1.patch does not apply: hunk 1 of 1 in net/a.c)")
	b.put("patches/series", "1.patch < 5\n2.patch < 5\n")
	require.EqualError(t, b.do().Nowhere(), "SERIES applies to none of the trees (7.3 gets none of its patches; 7.2 gets none of its patches)")
}

func TestPatchForSomeVersions(t *testing.T) {
	b := newBench(t)
	b.put("patches/series", "1.patch < 7.3\n2.patch\n")
	res := b.do()
	require.Equal(t, []string{"7.3: - style pass", "7.2: pass pass pass"}, grid(res))
	require.Equal(t, notForTree, res.Trees[0].Cells[0].Reason)
	b.put("patches/series", "# supports: < 7.3\n1.patch\n2.patch\n")
	res = b.do()
	require.Equal(t, []string{"7.3: - - error", "7.2: pass style pass"}, grid(res))
	require.Contains(t, res.Trees[0].Whole.Reason, "the series does not support kernel 7.3.4")
}

func TestSymbolThatGetsLost(t *testing.T) {
	b := newBench(t)
	b.built = func(_ string, n int) (*kernel.Built, error) {
		rep := &kconfig.Report{Kept: []string{"NET", "NF_TABLES"}, Forgiven: []kconfig.Loss{{Symbol: "NEW"}}}
		if n == 2 {
			rep = &kconfig.Report{Kept: []string{"NET"}, Forgiven: []kconfig.Loss{{Symbol: "NF_TABLES", Want: "m", Got: "n", Where: "base.config:3", Reason: kconfig.Unmet}, {Symbol: "NEW"}}}
		}
		return &kernel.Built{Symbols: rep}, nil
	}
	res := b.do()
	require.Equal(t, []string{"7.3: pass config pass", "7.2: pass config pass"}, grid(res), "worse than its style")
	require.Equal(t, []string{"CONFIG_NF_TABLES: wanted m, got n (base.config:3): dependency unmet"}, res.Trees[0].Cells[1].texts("config"))
}

func TestFileThatNothingCompilesIsNamed(t *testing.T) {
	b := newBench(t)
	b.put("patches/3.patch", "--- /dev/null\n+++ b/tools/x.c\n@@ -0,0 +1 @@\n+1\n")
	b.put("patches/series", "1.patch\n3.patch\n")
	b.built = func(_ string, n int) (*kernel.Built, error) {
		if n == 1 {
			return &kernel.Built{LeftOut: []string{"net/a.c"}}, nil
		}
		return &kernel.Built{}, nil
	}
	res := b.do()
	require.Equal(t, []string{"net/a.c is not part of this configuration: nothing compiled it"}, res.Trees[0].Cells[0].Notes)
	require.Equal(t, []string{"tools/x.c is not part of this configuration: nothing compiled it"}, res.Trees[0].Cells[1].Notes)
	require.Equal(t, []string{"7.3/0 net/a.c", "7.3/1 net/a.c", "7.3/1", "7.3/2"}, b.asked[:4])
}

func TestOnlyTheAmendedPatchIsCheckedAgain(t *testing.T) {
	b := newBench(t)
	b.put("patches/3.patch", "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-2\n+3\n")
	b.put("patches/series", "1.patch\n2.patch\n3.patch\n")
	first := b.do()
	require.NotEmpty(t, b.asked)

	known := b.do()
	require.Empty(t, b.asked)
	require.Equal(t, grid(first), grid(known))
	require.Equal(t, findings(first), findings(known))
	require.True(t, known.Trees[0].Cells[1].Cached)

	b.put("patches/3.patch", "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-2\n+4\n")
	amended := b.do()
	require.Equal(t, []string{"7.3/2 net/a.c", "7.3/3 net/a.c", "7.2/2 net/a.c", "7.2/3 net/a.c"}, b.asked)
	require.False(t, amended.Trees[0].Cells[2].Cached)

	// Its words are for checkpatch alone.
	b.put("patches/1.patch", "Subject: x\n\nOther words:\n+++ b/net/b.c\n---\n"+changesA)
	reworded := b.do()
	require.Empty(t, b.asked)
	require.Equal(t, Style, reworded.Trees[0].Cells[0].Verdict)

	b.c.Depth = Fast
	b.do()
	require.Len(t, b.asked, 6, "a fast check knows less")
}

func TestBrokenPatchIsKnown(t *testing.T) {
	b := newBench(t)
	b.breaks(func(_ string, n int) bool { return n == 2 })
	first := b.do()
	require.Equal(t, []string{"7.3: pass build -", "7.2: pass build -"}, grid(first))
	again := b.do()
	require.Empty(t, b.asked)
	require.Equal(t, findings(first), findings(again))
}

func TestOnlyNewRemarksOfSemanticPatchesCount(t *testing.T) {
	b := newBench(t)
	b.put("patches/3.patch", "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-2\n+3\n")
	b.put("patches/series", "1.patch\n2.patch\n3.patch\n")
	old := kbuild.Warning{File: "net/a.c", Line: "5", Text: "ERROR: reference preceded by free on line 4"}
	moved := kbuild.Warning{File: "net/a.c", Line: "8", Text: "ERROR: reference preceded by free on line 7"}
	of2 := kbuild.Warning{File: "net/b.c", Line: "2", Text: "WARNING: NULL check before some freeing functions is not needed."}
	ofTwo := kbuild.Warning{File: "net/a.c", Line: "3", Text: "WARNING: x"}
	never := kbuild.Warning{File: "scripts/coccinelle/x.cocci", Text: "exit status 255: No OCaml compiler found!"}
	stuck := kbuild.Warning{File: "scripts/coccinelle/y.cocci", Text: "EXN: Timeout in net/b.c"}
	files := map[int][]string{}
	b.c.Cocci = func(_ context.Context, _ tree.Tree, n int, f []string) ([]kbuild.Warning, error) {
		files[n] = f
		return map[int][]kbuild.Warning{0: {old, never}, 3: {of2, moved, ofTwo, never, stuck}}[n], nil
	}
	res := b.do()
	require.Equal(t, map[int][]string{0: {"net/a.c"}, 3: {"net/a.c", "net/b.c"}}, files, "once before the series and once behind it")
	require.Equal(t, []string{of2.String()}, res.Trees[1].Cells[1].texts("coccicheck"), "only one patch touches the file")
	require.Equal(t, []string{ofTwo.String(), stuck.String()}, res.Trees[1].Whole.texts("coccicheck"))
	require.Equal(t, []string{"7.3: pass warn pass warn", "7.2: pass warn pass warn"}, grid(res))
	require.Contains(t, res.Trees[0].Whole.Notes[0], "coccicheck without scripts/coccinelle/x.cocci: exit status 255: No OCaml")
}

// tests is what a bench's tests say by number of patches and flavor.
func (b *bench) tests(say map[string]string) *[]string {
	b.c.Depth = Full
	var asked []string
	b.c.Test = func(_ context.Context, t tree.Tree, n int, flavor, dir string) ([]report.Test, error) {
		asked = append(asked, fmt.Sprintf("%s/%d/%s", t.Name, n, flavor))
		var out []report.Test
		for word := range strings.FieldsSeq(say[fmt.Sprintf("%d/%s", n, flavor)]) {
			name, verdict, _ := strings.Cut(word, "=")
			out = append(out, report.Test{Name: name, Verdict: report.Verdict(verdict), Log: filepath.Join(dir, name)})
		}
		return out, nil
	}
	return &asked
}

func TestTestsNameThePatchThatBreaksThem(t *testing.T) {
	b := newBench(t)
	b.put("patches/2.patch", strings.ReplaceAll(addsB, "b.c", "c.c"))
	asked := b.tests(map[string]string{
		// "sick" does not pass without the series either; "later" is what
		// the second patch is for; "never" comes with the series, and fails.
		"0/plain": "up=pass sick=fail",
		"1/plain": "up=pass sick=fail later=fail never=fail",
		"2/plain": "up=crash sick=fail later=pass never=fail",
		"2/debug": "up=crash sick=fail later=leak never=fail",
	})
	res := b.do()
	require.Equal(t, []string{"7.3/0/plain", "7.3/1/plain", "7.3/2/plain", "7.3/2/debug"}, (*asked)[:4])
	require.Equal(t, []string{"7.3: pass test test", "7.2: pass test test"}, grid(res))
	require.Equal(t, []string{
		"7.3 2.patch test up: crash\noutput: " + b.c.Out + "/tests/7.3/2/up",
		"7.3 series test passes with no number of patches: never: fail\noutput: " + b.c.Out + "/tests/7.3/2/never",
		"7.3 series test debug kernel: later: leak\noutput: " + b.c.Out + "/tests/7.3/2-debug/later",
	}, findings(res)[:3])
	require.Equal(t, []string{"sick does not pass, but neither does it without the series"}, res.Trees[0].Cells[1].Notes)
	require.Equal(t, "2.patch", res.Trees[0].FirstBad)

	*asked = nil
	again := b.do()
	require.Empty(t, *asked)
	require.Equal(t, findings(res), findings(again))
	b.c.Tests = "other tests"
	b.do()
	require.NotEmpty(t, *asked)
}

func TestTestThatStaysBrokenIsOnePatchs(t *testing.T) {
	b := newBench(t)
	b.tests(map[string]string{"0/plain": "up=pass", "1/plain": "up=fail", "2/plain": "up=fail", "2/debug": "up=fail"})
	require.Equal(t, []string{"7.3: test style pass", "7.2: test pass pass"}, grid(b.do()))
}

func TestTestThatTheHarnessCouldNotRun(t *testing.T) {
	b := newBench(t)
	b.tests(map[string]string{"0/plain": "up=pass", "1/plain": "up=error"})
	require.Equal(t, []string{"7.3: error - -", "7.2: error - -"}, grid(b.do()))
	b.tests(map[string]string{"0/plain": "up=pass", "1/plain": "up=pass", "2/plain": "up=pass", "2/debug": "up=pass"})
	require.Equal(t, []string{"7.3: pass style pass", "7.2: pass pass pass"}, grid(b.do()), "nothing was learnt, so nothing was kept")
}

func TestInterrupted(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.built = func(_ string, n int) (*kernel.Built, error) {
		if n == 2 {
			cancel()
			return nil, context.Canceled
		}
		return &kernel.Built{}, nil
	}
	var err error
	b.c.Series, err = series.Load(filepath.Join(b.dir, "patches"))
	require.NoError(t, err)
	res, err := b.c.Do(ctx)
	require.NoError(t, err)
	require.True(t, res.Interrupted)
	require.Equal(t, []string{"7.3: pass - -", "7.2: - - -"}, grid(res), "what was found stays")
	require.Equal(t, report.ExitHarness, res.ExitCode())
	require.Empty(t, findings(res))
}

func TestWhatIsWritten(t *testing.T) {
	b := newBench(t)
	b.put("7.2/net/b.c", "already\n")
	fresh := kbuild.Warning{File: "net/a.c", Line: "2", Text: "warning: # new"}
	b.warns(map[int][]kbuild.Warning{1: {fresh}})
	// Results are there after the first cell.
	inner := b.c.Build
	b.c.Build = func(ctx context.Context, t tree.Tree, n int, strict []string) (*kernel.Built, error) {
		if t.Name == "7.2" {
			raw, err := os.ReadFile(filepath.Join(b.c.Out, JSONFile))
			require.NoError(b.t, err)
			require.Contains(b.t, string(raw), fresh.Text)
		}
		return inner(ctx, t, n, strict)
	}
	res := b.do()

	raw, err := os.ReadFile(filepath.Join(b.c.Out, JSONFile))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile("../../docs/check.schema.json")
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(doc))

	var checks []b4Check
	read := func(name string) {
		raw, err := os.ReadFile(filepath.Join(b.c.Out, B4Dir, name))
		require.NoError(t, err)
		checks = nil
		require.NoError(t, json.Unmarshal(raw, &checks))
	}
	read("1.json")
	require.Equal(t, []b4Check{
		{"nftvm-apply", "pass", "fine on 7.3, 7.2", ""},
		{"nftvm-build", "pass", "fine on 7.3, 7.2", ""},
		{"nftvm-config", "pass", "fine on 7.3, 7.2", ""},
		{"nftvm-warnings", "warn", "7.3: 1 new, 7.2: 1 new", "7.3: net/a.c:2: warning: # new\n7.2: net/a.c:2: warning: # new"},
		{"nftvm-checkpatch", "pass", "fine on 7.3", ""},
	}, checks)
	read("2.json")
	require.Equal(t, b4Check{"nftvm-apply", "fail", "7.2: does not apply", "7.2: 2.patch: net/b.c: the patch makes this file, but the tree has it already"}, checks[0])

	raw, err = os.ReadFile(filepath.Join(b.c.Out, KTAPFile))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(raw), "KTAP version 1\n1..2\n"))
	require.Equal(t, ktap.Fail, ktap.Parse(string(raw)).Verdict())
	require.Contains(t, string(raw), "\nnot ok 1 7.3/check\n")
	require.Contains(t, string(raw), "    not ok 1 1.patch\n")
	require.Contains(t, string(raw), "        not ok 4 warnings\n")
	require.Contains(t, string(raw), "    ok 3 series # SKIP not reached\n")

	var out strings.Builder
	res.Print(&out)
	require.True(t, strings.HasPrefix(out.String(), `patch              7.3    7.2
-------------------------------
1                  warn   warn
2                  style  apply
series as a whole  pass   -

7.3: first bad: 1.patch: warn
7.2: first bad: 1.patch: warn

7.3: 1.patch: warnings: net/a.c:2: warning: # new
`), "%s", out.String())
	require.True(t, slices.Contains(strings.Split(out.String(), "\n"), "7.2: 2.patch: apply: 2.patch: net/b.c: the patch makes this file, but the tree has it already"))
}
