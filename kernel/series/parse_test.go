// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlainDiffsApply(t *testing.T) {
	for name, text := range map[string]string{
		"plain":      "Some words.\n---\n--- a/net/a.c\n+++ b/net/a.c\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n",
		"with git's": "diff --git a/net/a.c b/net/a.c\n--- a/net/a.c\n+++ b/net/a.c\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n",
	} {
		t.Run(name, func(t *testing.T) {
			root := put(t, map[string]string{"net/a.c": "1\n2\n3\n4\n"})
			o, err := Apply(root, []Patch{{Name: name, Content: []byte(text)}})
			require.NoError(t, err)
			require.Len(t, o.Files, 1)
			require.Equal(t, "net/a.c", o.Files[0].Path)
		})
	}
	// A new file, without a header of git's.
	o, err := Apply(t.TempDir(), []Patch{{Name: "new", Content: []byte("--- /dev/null\n+++ b/net/b.c\n@@ -0,0 +1 @@\n+1\n")}})
	require.NoError(t, err)
	require.Equal(t, "net/b.c", o.Files[0].Path)
}
