// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWorking(t *testing.T) {
	b := newBench(t)
	b.open()
	sums := func() map[string]string {
		w, err := Working(t.Context(), b.dir)
		require.NoError(t, err)
		require.Equal(t, b.src.Tree.Name, w.Tree)
		require.Equal(t, b.src.Entry.Key, w.Source)
		m := map[string]string{}
		for _, f := range w.Overlay.Files {
			m[f.Path] = f.SHA256
		}
		return m
	}
	series := sums()
	require.Len(t, series, 2, "what the series changes")
	require.Contains(t, series, "net/a.c")

	// Not committed, staged, new, and what is none of the tree's.
	b.put(filepath.Join(b.dir, "net/a.c"), "edited\n")
	b.put(filepath.Join(b.dir, "net/n.c"), "new\n")
	for _, name := range []string{"net/x.o", "net/a.c~", "net/a.c.orig", "net/.#a.c"} {
		b.put(filepath.Join(b.dir, name), "x\n")
	}
	now := sums()
	require.Len(t, now, 3)
	require.NotEqual(t, series["net/a.c"], now["net/a.c"])
	require.Equal(t, series["net/b.c"], now["net/b.c"])

	// Back to the pristine content, and gone.
	b.put(filepath.Join(b.dir, "net/a.c"), lines)
	require.NoError(t, os.Remove(filepath.Join(b.dir, "net/b.c")))
	require.NoError(t, os.Remove(filepath.Join(b.dir, "net/n.c")))
	now = sums()
	require.Equal(t, map[string]string{"net/b.c": ""}, now)

	_, err := Working(t.Context(), t.TempDir())
	require.ErrorContains(t, err, "is no tree that was opened")
}
