// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

const (
	changesA = "--- a/net/a.c\n+++ b/net/a.c\n@@ -1 +1 @@\n-1\n+2\n"
	addsB    = "diff --git a/net/b.c b/net/b.c\nnew file mode 100644\n--- /dev/null\n+++ b/net/b.c\n@@ -0,0 +1 @@\n+1\n"
)

// judge checks a series of two patches, of which the builds say what build
// makes of the number of patches.
func judge(t *testing.T, build func(n int) ([]kbuild.Warning, error)) (found []Finding, asked map[int][]string) {
	t.Helper()
	found, asked, _ = judgeWith(t, build, nil)
	return found, asked
}

func judgeWith(t *testing.T, build func(n int) ([]kbuild.Warning, error), cocci func(n int, files []string) []kbuild.Warning) (found []Finding, asked map[int][]string, shown string) {
	t.Helper()
	dir, src := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(dir, "series"): "1.patch\n2.patch\n", filepath.Join(dir, "1.patch"): changesA, filepath.Join(dir, "2.patch"): addsB,
		filepath.Join(src, "a.c"): "1\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(src, "net"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(src, "net/a.c"), []byte("1\n"), 0o644))
	// It says of each patch which file it changes.
	require.NoError(t, os.Mkdir(filepath.Join(src, "scripts"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(src, "scripts/checkpatch.pl"), []byte(`while (<STDIN>) {
	print "-:1: CHECK: it changes $1\n" if m{^\+\+\+ b/(\S*b\.c)};
}
`), 0o644))
	s, err := series.Load(dir)
	require.NoError(t, err)
	progress, err := os.Create(filepath.Join(dir, "progress"))
	require.NoError(t, err)
	defer progress.Close()
	asked = map[int][]string{}
	c := &Check{Series: s, Trees: []tree.Tree{{Name: "7.3"}, {Name: "7.2"}}, Progress: report.NewProgress(progress),
		Build: func(_ context.Context, _ tree.Tree, n int, strict []string) (*kernel.Built, error) {
			asked[n] = strict
			w, err := build(n)
			return &kernel.Built{Version: "7.3.4", Source: src, Warnings: w}, err
		}}
	if cocci != nil {
		c.Cocci = func(_ context.Context, _ tree.Tree, n int, files []string) ([]kbuild.Warning, error) {
			return cocci(n, files), nil
		}
	}
	found, err = c.Do(t.Context())
	require.NoError(t, err)
	c.Progress.Close()
	raw, err := os.ReadFile(progress.Name())
	require.NoError(t, err)
	return found, asked, string(raw)
}

func TestOnlyNewWarningsCount(t *testing.T) {
	old := kbuild.Warning{File: "net/a.c", Line: "1", Text: "warning: old"}
	moved := kbuild.Warning{File: "net/a.c", Line: "9", Text: "warning: old"}
	fresh := kbuild.Warning{File: "net/b.c", Line: "2", Text: "warning: new"}
	found, asked := judge(t, func(n int) ([]kbuild.Warning, error) {
		return map[int][]kbuild.Warning{0: {old}, 1: {moved}, 2: {fresh}}[n], nil
	})
	require.Equal(t, []Finding{
		{"7.3", "2.patch", "warning", "net/b.c:2: warning: new"},
		{"7.3", "2.patch", "checkpatch", "-:1: CHECK: it changes net/b.c"},
		{"7.2", "2.patch", "warning", "net/b.c:2: warning: new"},
	}, found, "each tree builds a patch, one judges its style")
	require.Equal(t, map[int][]string{0: {"net/a.c"}, 1: {"net/a.c"}, 2: {"net/b.c"}}, asked,
		"a file that is not there yet cannot be compiled")
}

func TestWarningOfTheNextPatchsFileIsOld(t *testing.T) {
	next := kbuild.Warning{File: "net/b.c", Line: "1", Text: "warning: there before"}
	found, _ := judge(t, func(n int) ([]kbuild.Warning, error) {
		return map[int][]kbuild.Warning{1: {next}, 2: {next}}[n], nil
	})
	for _, f := range found {
		require.NotEqual(t, "warning", f.What, f.Text)
	}
}

func TestTheSameWarningOnceMoreIsNew(t *testing.T) {
	w := kbuild.Warning{File: "net/a.c", Line: "1", Text: "warning: x"}
	require.Len(t, newWarnings([]kbuild.Warning{w}, []kbuild.Warning{w, w}), 1)
}

func TestPatchThatDoesNotBuild(t *testing.T) {
	found, asked := judge(t, func(n int) ([]kbuild.Warning, error) {
		if n == 1 {
			return nil, errors.New("undeclared")
		}
		return nil, nil
	})
	require.Equal(t, []Finding{{"7.3", "1.patch", "build", "undeclared"}, {"7.2", "1.patch", "build", "undeclared"}}, found)
	require.NotContains(t, asked, 2, "what stands on it is not asked")
}

func TestOnlyNewRemarksOfSemanticPatchesCount(t *testing.T) {
	old := kbuild.Warning{File: "net/a.c", Line: "5", Text: "ERROR: reference preceded by free on line 4"}
	moved := kbuild.Warning{File: "net/a.c", Line: "8", Text: "ERROR: reference preceded by free on line 7"}
	fresh := kbuild.Warning{File: "net/b.c", Line: "2", Text: "WARNING: NULL check before some freeing functions is not needed."}
	never := kbuild.Warning{File: "scripts/coccinelle/x.cocci", Text: "exit status 255: No OCaml compiler found!"}
	stuck := kbuild.Warning{File: "scripts/coccinelle/y.cocci", Text: "EXN: Timeout in net/b.c"}
	files := map[int][]string{}
	found, _, shown := judgeWith(t, func(int) ([]kbuild.Warning, error) { return nil, nil }, func(n int, f []string) []kbuild.Warning {
		files[n] = f
		return map[int][]kbuild.Warning{0: {old, never}, 2: {fresh, moved, never, stuck}}[n]
	})
	require.Equal(t, map[int][]string{0: {"net/a.c"}, 2: {"net/a.c", "net/b.c"}}, files, "once before the series and once behind it")
	var got []Finding
	for _, f := range found {
		if f.What == "coccicheck" {
			got = append(got, f)
		}
	}
	require.Equal(t, []Finding{
		{"7.3", "series", "coccicheck", fresh.String()}, {"7.3", "series", "coccicheck", stuck.String()},
		{"7.2", "series", "coccicheck", fresh.String()}, {"7.2", "series", "coccicheck", stuck.String()},
	}, got)
	require.Contains(t, shown, "7.3: coccicheck without scripts/coccinelle/x.cocci: exit status 255: No OCaml")
}
