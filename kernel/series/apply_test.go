// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

func numbered() string {
	var b strings.Builder
	for i := 1; i <= 20; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

const change10 = `From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@b>
Subject: [PATCH] change

---
diff --git a/net/x.c b/net/x.c
--- a/net/x.c
+++ b/net/x.c
@@ -2,3 +2,4 @@ struct foo
 line 2
 line 3
+line 3.5
 line 4
@@ -9,3 +10,3 @@ int bar(void)
 line 9
-line 10
+line ten
 line 11
-- 
2.39.5
`

func one(content string) []Patch {
	return []Patch{{Name: "0001-change.patch", Content: []byte(content)}}
}

func TestApply(t *testing.T) {
	root := put(t, map[string]string{"net/x.c": numbered()})
	o, err := Apply(root, one(change10))
	require.NoError(t, err)
	require.Len(t, o.Files, 1)
	require.Equal(t, "net/x.c", o.Files[0].Path)
	want := strings.Replace(numbered(), "line 10\n", "line ten\n", 1)
	want = strings.Replace(want, "line 4\n", "line 3.5\nline 4\n", 1)
	require.Equal(t, want, string(o.content["net/x.c"]))

	dir := t.TempDir()
	require.NoError(t, o.Write(dir))
	back, err := ReadOverlay(dir)
	require.NoError(t, err)
	require.Equal(t, o.Files, back.Files)
	raw, err := os.ReadFile(back.Path(back.Files[0]))
	require.NoError(t, err)
	require.Equal(t, want, string(raw))
}

func TestApplyMoved(t *testing.T) {
	root := put(t, map[string]string{"net/x.c": "new\nnew\nnew\n" + numbered()})
	o, err := Apply(root, one(change10))
	require.NoError(t, err)
	require.Contains(t, string(o.content["net/x.c"]), "new\nline 1\nline 2\nline 3\nline 3.5\n")
}

func TestApplyMakesRenamesDeletes(t *testing.T) {
	root := put(t, map[string]string{"old.c": "a\nb\n", "gone.c": "x\n", "same.c": "s\n", "tool.sh": "#!\n"})
	o, err := Apply(root, one(`diff --git a/old.c b/new.c
similarity index 50%
rename from old.c
rename to new.c
--- a/old.c
+++ b/new.c
@@ -1,2 +1,2 @@
 a
-b
+B
diff --git a/gone.c b/gone.c
deleted file mode 100644
--- a/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-x
diff --git a/dir/made.sh b/dir/made.sh
new file mode 100755
--- /dev/null
+++ b/dir/made.sh
@@ -0,0 +1,2 @@
+#!/bin/sh
+true
\ No newline at end of file
diff --git a/tool.sh b/tool.sh
old mode 100644
new mode 100755
`))
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range o.Files {
		got[f.Path] = fmt.Sprintf("%q exec=%t deleted=%t", o.content[f.Path], f.Exec, f.Deleted())
	}
	require.Equal(t, map[string]string{
		"old.c":       `"" exec=false deleted=true`,
		"new.c":       `"a\nB\n" exec=false deleted=false`,
		"gone.c":      `"" exec=false deleted=true`,
		"dir/made.sh": `"#!/bin/sh\ntrue" exec=true deleted=false`,
		"tool.sh":     `"#!\n" exec=true deleted=false`,
	}, got)
}

// What a later patch takes back is no difference to the pristine tree.
func TestApplyThereAndBack(t *testing.T) {
	root := put(t, map[string]string{"f": "a\n"})
	mk := func(from, to string) Patch {
		return Patch{Name: to, Content: fmt.Appendf(nil, "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-%s\n+%s\n", from, to)}
	}
	o, err := Apply(root, []Patch{mk("a", "b"), mk("b", "a")})
	require.NoError(t, err)
	require.Empty(t, o.Files)
}

func TestHunkError(t *testing.T) {
	root := put(t, map[string]string{"net/x.c": strings.Replace(numbered(), "line 11\n", "line eleven\n", 1)})
	_, err := Apply(root, one(change10))
	require.Equal(t, store.Kernel, store.FaultOf(err))
	var he *HunkError
	require.ErrorAs(t, err, &he)
	require.Equal(t, 2, he.Hunk)
	golden(t, "hunk.golden", err.Error())

	root = put(t, map[string]string{"net/x.c": strings.Replace(numbered(), "line 4\n", "line 3.5\nline 4\n", 1)})
	_, err = Apply(root, one(change10))
	golden(t, "applied.golden", err.Error())

	root = put(t, map[string]string{"net/x.c": ""})
	_, err = Apply(root, one(change10))
	golden(t, "empty.golden", err.Error())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, []byte(got+"\n"), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got+"\n")
}

func TestApplyRefuses(t *testing.T) {
	files := map[string]string{"f": "a\n", "real/f": "a\n"}
	body := "@@ -1 +1 @@\n-a\n+b\n"
	diff := func(name string) string {
		return "diff --git a/" + name + " b/" + name + "\n--- a/" + name + "\n+++ b/" + name + "\n" + body
	}
	for name, c := range map[string]struct{ patch, want string }{
		"parent":    {diff("../f"), "../f: the path leaves the tree; refused"},
		"middle":    {diff("x/../../f"), "the path leaves the tree; refused"},
		"dir link":  {diff("link/f"), "link is a symbolic link in the tree; refused"},
		"link":      {diff("flink"), "flink is a symbolic link in the tree; refused"},
		"git":       {diff(".git/config"), "the path is git's own; refused"},
		"new link":  {"diff --git a/n b/n\nnew file mode 120000\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n", "mode 120000 is not that of a regular file"},
		"missing":   {diff("nowhere.c"), "0001-change.patch: nowhere.c: the tree has no such file"},
		"there":     {"diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+a\n", "the tree has it already"},
		"nothing":   {"Subject: just words\n", "0001-change.patch changes no file"},
		"corrupt":   {"diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1 @@\n-a\n+b\n", "cannot be read as a patch"},
		"own lines": {"diff --git a/three b/three\n--- a/three\n+++ b/three\n@@ -1,2 +1,5 @@\n a\n+p\n+t\n+q\n b\n@@ -5,3 +8,3 @@\n p\n-t\n+T\n q\n", "hunk 2 of 2 in three"},
		"half gone": {"diff --git a/two b/two\ndeleted file mode 100644\n--- a/two\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "two"},
	} {
		t.Run(name, func(t *testing.T) {
			files["two"], files["three"] = "a\nb\n", "a\nb\nc\n"
			root := put(t, files)
			require.NoError(t, os.Symlink("real", filepath.Join(root, "link")))
			require.NoError(t, os.Symlink("f", filepath.Join(root, "flink")))
			_, err := Apply(root, one(c.patch))
			require.ErrorContains(t, err, c.want)
			require.Equal(t, store.Kernel, store.FaultOf(err))
		})
	}
}

// TestAsGitApply lets git make and apply random patches to files that changed
// meanwhile, and wants the same outcome from us.
func TestAsGitApply(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	rng := rand.New(rand.NewSource(1))
	applied, refused := 0, 0
	for range 200 {
		// Few different lines, so that hunks fit in several places.
		var base []string
		kinds := 1 + rng.Intn(6)
		for range 5 + rng.Intn(60) {
			base = append(base, fmt.Sprintf("l%d\n", rng.Intn(kinds)))
		}
		dir := put(t, map[string]string{"f": strings.Join(base, ""), "new": strings.Join(mutate(rng, base, 1+rng.Intn(5)), "")})
		var diff bytes.Buffer
		cmd := exec.Command("git", "diff", "--no-index", "--no-prefix", "f", "new")
		cmd.Dir, cmd.Stdout = dir, &diff
		_ = cmd.Run() // exits 1 when there are differences
		if diff.Len() == 0 {
			continue
		}
		patch := strings.NewReplacer("diff --git f new", "diff --git a/f b/f", "--- f", "--- a/f", "+++ new", "+++ b/f").Replace(diff.String())
		require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Join(mutate(rng, base, rng.Intn(3)), "")), 0o644))
		require.NoError(t, os.Remove(filepath.Join(dir, "new")))

		o, ours := Apply(dir, one(patch))
		cmd = exec.Command("git", "apply", "-")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(patch)
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		out, theirs := cmd.CombinedOutput()
		require.Equal(t, theirs == nil, ours == nil, "git: %s\nours: %v\n%s", out, ours, patch)
		if theirs != nil {
			refused++
			continue
		}
		applied++
		want, err := os.ReadFile(filepath.Join(dir, "f"))
		require.NoError(t, err)
		if len(o.Files) == 1 {
			require.Equal(t, string(want), string(o.content["f"]), patch)
		}
	}
	t.Logf("%d applied, %d refused, by both", applied, refused)
	require.Greater(t, applied, 20)
	require.Greater(t, refused, 20)
}

func mutate(rng *rand.Rand, lines []string, n int) []string {
	out := append([]string{}, lines...)
	for range n {
		i := rng.Intn(len(out))
		if e := rng.Intn(6); e < 2 {
			i = e * (len(out) - 1) // the ends have rules of their own
		}
		switch rng.Intn(4) {
		case 0:
			out[i] = fmt.Sprintf("m%d\n", rng.Intn(1000))
		case 1:
			out = append(out[:i], append([]string{fmt.Sprintf("m%d\n", rng.Intn(1000))}, out[i:]...)...)
		case 3: // a copy of what is there: more places that fit
			n := min(i+6, len(out))
			out = append(out[:n:n], append(append([]string{}, out[i:n]...), out[n:]...)...)
		case 2:
			if len(out) > 3 {
				out = append(out[:i], out[i+1:]...)
			}
		}
	}
	return out
}
