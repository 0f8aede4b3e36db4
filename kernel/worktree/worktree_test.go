// SPDX-License-Identifier: GPL-2.0-only

package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

const (
	victimEnv   = "WORKTREE_TEST_STORE"
	pristineEnv = "WORKTREE_TEST_PRISTINE"
)

// TestMain runs this binary again as the process that is killed in a slot.
func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir, os.Getenv(pristineEnv))
	}
	os.Exit(m.Run())
}

func victim(dir, pristine string) {
	st, err := store.Open(dir)
	if err != nil {
		panic(err)
	}
	wt, err := Open(context.Background(), st, "t", "plain")
	if err != nil {
		panic(err)
	}
	err = wt.Use(context.Background(), "key", pristine, &series.Overlay{}, io.Discard, func(context.Context) error {
		obj, err := wt.Dir("obj")
		if err == nil {
			err = os.WriteFile(filepath.Join(obj, "half.o"), nil, 0o644)
		}
		if err != nil {
			return err
		}
		fmt.Println("ready")
		select {}
	})
	panic(err)
}

func pristine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for name, content := range map[string]string{"Makefile": "VERSION = 7\n", "net/a.c": "a\n", "net/b.c": "b\n", "gone.c": "g\n"} {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
		require.NoError(t, os.Chtimes(p, old, old))
	}
	return dir
}

func overlay(t *testing.T, root string, patch string) *series.Overlay {
	t.Helper()
	var patches []series.Patch
	if patch != "" {
		patches = append(patches, series.Patch{Name: "p", Content: []byte(patch)})
	}
	o, err := series.Apply(root, patches)
	require.NoError(t, err)
	require.NoError(t, o.Write(t.TempDir()))
	return o
}

func diff(file, from, to string) string {
	return fmt.Sprintf("diff --git a/%[1]s b/%[1]s\n--- a/%[1]s\n+++ b/%[1]s\n@@ -1 +1 @@\n-%s\n+%s\n", file, from, to)
}

const more = `diff --git a/new/dir/n.c b/new/dir/n.c
new file mode 100755
--- /dev/null
+++ b/new/dir/n.c
@@ -0,0 +1 @@
+n
diff --git a/gone.c b/gone.c
deleted file mode 100644
--- a/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-g
`

func use(t *testing.T, st *store.Store, key store.Key, root string, o *series.Overlay) (src, log string) {
	t.Helper()
	wt, err := Open(t.Context(), st, "t", "plain")
	require.NoError(t, err)
	defer wt.Close()
	var b bytes.Buffer
	require.NoError(t, wt.Use(t.Context(), key, root, o, &b, func(context.Context) error { return nil }))
	return wt.Src, b.String()
}

// stat is what make and hard links see of a file.
func stat(t *testing.T, path string) (fs.FileInfo, string) {
	t.Helper()
	fi, err := os.Stat(path)
	require.NoError(t, err)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return fi, string(raw)
}

func TestSyncTouchesOnlyWhatChanged(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	root := pristine(t)
	origB, _ := stat(t, filepath.Join(root, "net/b.c"))

	src, log := use(t, st, "k", root, overlay(t, root, diff("net/a.c", "a", "A")+more))
	require.Contains(t, log, "fresh work tree")
	a1, text := stat(t, filepath.Join(src, "net/a.c"))
	require.Equal(t, "A\n", text)
	b1, _ := stat(t, filepath.Join(src, "net/b.c"))
	require.True(t, os.SameFile(origB, b1), "untouched files are links")
	n1, _ := stat(t, filepath.Join(src, "new/dir/n.c"))
	require.Equal(t, fs.FileMode(0o755), n1.Mode().Perm())
	require.NoFileExists(t, filepath.Join(src, "gone.c"))

	// Another state: b changes, a stays, the rest goes back.
	src, log = use(t, st, "k", root, overlay(t, root, diff("net/a.c", "a", "A")+diff("net/b.c", "b", "B")))
	require.NotContains(t, log, "fresh work tree")
	require.NotContains(t, log, "net/a.c")
	a2, _ := stat(t, filepath.Join(src, "net/a.c"))
	require.True(t, os.SameFile(a1, a2))
	require.Equal(t, a1.ModTime(), a2.ModTime())
	_, text = stat(t, filepath.Join(src, "net/b.c"))
	require.Equal(t, "B\n", text)
	require.NoDirExists(t, filepath.Join(src, "new"))
	_, text = stat(t, filepath.Join(src, "gone.c"))
	require.Equal(t, "g\n", text)

	// Back to pristine: the content is old, the time is new, or make would
	// keep the object of the patched file.
	before := time.Now().Add(-time.Second)
	src, _ = use(t, st, "k", root, overlay(t, root, ""))
	a3, text := stat(t, filepath.Join(src, "net/a.c"))
	require.Equal(t, "a\n", text)
	require.True(t, a3.ModTime().After(before))
	for name, want := range map[string]string{"net/a.c": "a\n", "net/b.c": "b\n", "gone.c": "g\n"} {
		_, text := stat(t, filepath.Join(root, name))
		require.Equal(t, want, text, "the pristine tree must stay pristine")
	}
}

func TestSyncMendsWhatOthersWrote(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	root := pristine(t)
	o := overlay(t, root, diff("net/a.c", "a", "A"))
	src, _ := use(t, st, "k", root, o)
	require.NoError(t, os.WriteFile(filepath.Join(src, "net/a.c"), []byte("edited\n"), 0o644))
	src, _ = use(t, st, "k", root, o)
	_, text := stat(t, filepath.Join(src, "net/a.c"))
	require.Equal(t, "A\n", text)
}

func TestOtherSourceStartsOver(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	root := pristine(t)
	use(t, st, "one", root, overlay(t, root, ""))
	_, log := use(t, st, "one", root, overlay(t, root, ""))
	require.NotContains(t, log, "fresh")
	other := pristine(t)
	_, log = use(t, st, "two", other, overlay(t, other, ""))
	require.Contains(t, log, "fresh", "they share no file")
}

// next is a pristine tree that shares the files of root but for those given; one
// without content is not in it.
func next(t *testing.T, root string, content map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, Link(t.Context(), root, dir, io.Discard))
	for _, name := range slices.Sorted(maps.Keys(content)) {
		p, text := filepath.Join(dir, name), content[name]
		require.NoError(t, os.RemoveAll(p))
		if text != "" {
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
		}
	}
	return dir
}

// From commit to commit only what differs is written, and what the series
// touched is what the series makes of it.
func TestMoveToANeighbour(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	one := pristine(t)
	for i := range 8 {
		require.NoError(t, os.WriteFile(filepath.Join(one, fmt.Sprint("same", i)), nil, 0o644))
	}
	require.NoError(t, os.Symlink("same0", filepath.Join(one, "link")))
	src, _ := use(t, st, "one", one, overlay(t, one, diff("net/a.c", "a", "A")))
	a1, _ := stat(t, filepath.Join(src, "net/a.c"))
	same, _ := stat(t, filepath.Join(src, "same0"))

	// Another inode of b with the same content is none of make's business.
	two := next(t, one, map[string]string{"Makefile": "VERSION = 8\n", "net/b.c": "b\n", "gone.c": "", "new/n.c": "n\n", "link": "", "same2": "", "same2/x": "x\n"})
	require.NoError(t, os.Symlink("same1", filepath.Join(two, "link")))
	b1, _ := stat(t, filepath.Join(src, "net/b.c"))
	src, log := use(t, st, "two", two, overlay(t, two, diff("net/a.c", "a", "A")))
	require.NotContains(t, log, "fresh")
	require.Contains(t, log, "another source: 6 files differ")
	a2, text := stat(t, filepath.Join(src, "net/a.c"))
	require.Equal(t, "A\n", text)
	require.True(t, os.SameFile(a1, a2), "the series makes the same of it as before")
	b2, _ := stat(t, filepath.Join(src, "net/b.c"))
	require.True(t, os.SameFile(b1, b2))
	now, _ := stat(t, filepath.Join(src, "same0"))
	require.True(t, os.SameFile(same, now))
	m, text := stat(t, filepath.Join(src, "Makefile"))
	require.Equal(t, "VERSION = 8\n", text)
	orig, _ := stat(t, filepath.Join(two, "Makefile"))
	require.False(t, os.SameFile(orig, m), "make sees a new file by its time")
	require.NoFileExists(t, filepath.Join(src, "gone.c"))
	require.FileExists(t, filepath.Join(src, "new/n.c"))
	require.FileExists(t, filepath.Join(src, "same2/x"))
	target, err := os.Readlink(filepath.Join(src, "link"))
	require.NoError(t, err)
	require.Equal(t, "same1", target)

	// The patch is gone, and the file below it is another one.
	three := next(t, two, map[string]string{"net/a.c": "c\n", "same2": "2\n"})
	src, log = use(t, st, "three", three, overlay(t, three, ""))
	require.NotContains(t, log, "fresh")
	_, text = stat(t, filepath.Join(src, "net/a.c"))
	require.Equal(t, "c\n", text)
	_, text = stat(t, filepath.Join(src, "same2"))
	require.Equal(t, "2\n", text)

	// A source that has left the store says nothing about what the slot has.
	require.NoError(t, os.RemoveAll(three))
	_, log = use(t, st, "four", next(t, two, nil), overlay(t, two, ""))
	require.Contains(t, log, "fresh")
	for name, want := range map[string]string{"net/a.c": "a\n", "Makefile": "VERSION = 7\n", "gone.c": "g\n"} {
		_, text := stat(t, filepath.Join(one, name))
		require.Equal(t, want, text, "the pristine trees must stay pristine")
	}
}

func TestFailureKeepsTheSlotAndCancelDoesNot(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	root := pristine(t)
	o := overlay(t, root, "")
	use(t, st, "k", root, o)
	for boom, fresh := range map[error]bool{
		store.KernelFault(errors.New("does not compile")): false,
		errors.New("the OOM killer was here"):             true,
	} {
		wt, err := Open(t.Context(), st, "t", "plain")
		require.NoError(t, err)
		require.ErrorIs(t, wt.Use(t.Context(), "k", root, o, io.Discard, func(context.Context) error { return boom }), boom)
		wt.Close()
		_, log := use(t, st, "k", root, o)
		require.Equal(t, fresh, strings.Contains(log, "fresh"), boom)
	}

	ctx, cancel := context.WithCancel(t.Context())
	wt, err := Open(ctx, st, "t", "plain")
	require.NoError(t, err)
	err = wt.Use(ctx, "k", root, o, io.Discard, func(context.Context) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
	wt.Close()
	_, log := use(t, st, "k", root, o)
	require.Contains(t, log, "fresh")
}

func TestKilledUser(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	root := pristine(t)
	use(t, st, "key", root, overlay(t, root, ""))

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+st.Dir(), pristineEnv+"="+root)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	half := filepath.Join(st.Dir(), "slots", "t-plain", "obj", "half.o")
	require.FileExists(t, half)
	_, log := use(t, st, "key", root, overlay(t, root, ""))
	require.Contains(t, log, "fresh")
	require.NoFileExists(t, half)
}
