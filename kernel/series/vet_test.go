// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVet(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"good":      {change10, ""},
		"words":     {"Subject: a\n\nb\n", "p.patch changes no file"},
		"converted": {strings.ReplaceAll(change10, "\n", "\r\n"), "p.patch has CRLF line ends, a kernel tree has LF; convert it, for instance with dos2unix"},
		"leaves":    {strings.ReplaceAll(change10, "net/x.c", "../x.c"), "p.patch: ../x.c: the path leaves the tree; refused"},
		"absolute":  {"--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "p.patch: /etc/passwd: the path leaves the tree; refused"},
		"binary":    {"diff --git a/x.png b/x.png\nindex 1..2 100644\nBinary files a/x.png and b/x.png differ\n", "p.patch: x.png: the patch says that this binary file differs, but not how; make it with --binary"},
		"submodule": {"diff --git a/n b/n\nnew file mode 160000\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+Subproject commit 1\n", "p.patch: n: mode 160000 is not that of a regular file"},
		// A file of the tree that has such line ends.
		"of the file": {"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\r\n+b\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := Patch{Name: "p.patch", Content: []byte(c.content)}.Vet()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
		})
	}
}

func TestHunkWithOtherLineEnds(t *testing.T) {
	root := put(t, map[string]string{"x": "a\n", "y": "a\r\n"})
	diff := "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\r\n+b\r\n"
	_, err := Apply(root, one(diff))
	require.EqualError(t, err, "0001-change.patch does not apply: hunk 1 of 1 in x\n  @@ -1,1 +1,1 @@\n  the patch has CRLF line ends there, the tree's file LF")
	_, err = Apply(root, one(strings.ReplaceAll(diff, "/x", "/y")))
	require.NoError(t, err)
}

func TestDiffIsWithoutTheWords(t *testing.T) {
	a, err := Patch{Content: []byte(change10)}.Diff()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(a), "diff --git a/net/x.c"), "%s", a)
	b, err := Patch{Content: []byte(strings.Replace(change10, "Subject: [PATCH] change", "Subject: [PATCH] mend", 1))}.Diff()
	require.NoError(t, err)
	require.Equal(t, a, b)
}
