// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

func fetcher(t *testing.T) *Fetcher {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return &Fetcher{Store: st}
}

func mini(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "Makefile", "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
	put(t, dir, "net/a.c", "a\n")
	put(t, dir, "tool.sh", "#!\n")
	require.NoError(t, os.Chmod(filepath.Join(dir, "tool.sh"), 0o755))
	require.NoError(t, os.Symlink("net/a.c", filepath.Join(dir, "link")))
	return dir
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
}

func key(t *testing.T, f *Fetcher, dir string) store.Key {
	t.Helper()
	_, k, err := f.Resolve(t.Context(), Tree{Name: "t", Dir: dir})
	require.NoError(t, err)
	return k
}

func TestDirSource(t *testing.T) {
	f, dir := fetcher(t), mini(t)
	s, err := f.Source(t.Context(), Tree{Name: "t", Dir: dir})
	require.NoError(t, err)
	require.False(t, s.Entry.Cached)
	require.Equal(t, "7.3.4", s.Version)
	require.Len(t, s.Origin.SHA256, 64)
	target, err := os.Readlink(filepath.Join(s.Dir, "link"))
	require.NoError(t, err)
	require.Equal(t, "net/a.c", target)
	fi, err := os.Stat(filepath.Join(s.Dir, "tool.sh"))
	require.NoError(t, err)
	require.EqualValues(t, 0o755, fi.Mode().Perm())
	a, err := os.Stat(filepath.Join(s.Dir, "net/a.c"))
	require.NoError(t, err)
	b, err := os.Stat(filepath.Join(dir, "net/a.c"))
	require.NoError(t, err)
	require.False(t, os.SameFile(a, b), "its owner goes on working: copies, no links")

	s, err = f.Source(t.Context(), Tree{Name: "t", Dir: dir})
	require.NoError(t, err)
	require.True(t, s.Entry.Cached)
}

func TestDirKey(t *testing.T) {
	f, dir := fetcher(t), mini(t)
	first := key(t, f, dir)
	require.Equal(t, first, key(t, f, dir))
	require.Equal(t, first, key(t, f, mini(t)), "the same content elsewhere is the same source")
	put(t, dir, "net/a.c", "b\n") // same size, same moment
	second := key(t, f, dir)
	require.NotEqual(t, first, second)
	require.NoError(t, os.Chmod(filepath.Join(dir, "net/a.c"), 0o755))
	require.NotEqual(t, second, key(t, f, dir))
	require.NoError(t, os.Chmod(filepath.Join(dir, "net/a.c"), 0o644))
	put(t, dir, "net/a.c", "a\n")
	require.Equal(t, first, key(t, f, dir))
}

// The index spares reading files, but only such whose times prove that they
// are the ones it read.
func TestDirIndex(t *testing.T) {
	dir := mini(t)
	files, err := listDir(t.Context(), dir)
	require.NoError(t, err)
	require.NoError(t, hashFiles(t.Context(), dir, files, nil))
	index := filepath.Join(t.TempDir(), "i")
	require.NoError(t, writeIndex(index, files))
	require.Empty(t, readIndex(index), "files of this very moment are not to be trusted")

	for _, fl := range files {
		fl.mtime -= int64(time.Hour)
		fl.ctime -= int64(time.Hour)
	}
	require.NoError(t, writeIndex(index, files))
	known := readIndex(index)
	require.Len(t, known, len(files))
	for _, fl := range files {
		require.Equal(t, fl, known[fl.path])
		again := *fl
		again.sum = ""
		require.NoError(t, hashFiles(t.Context(), "/nowhere", []*file{&again}, known), "a known file is not read")
		require.Equal(t, fl.sum, again.sum)
		again.ctime++
		require.Error(t, hashFiles(t.Context(), "/nowhere", []*file{&again}, known), "a touched one is")
	}
}

func TestDirRefusesABuiltTree(t *testing.T) {
	f, dir := fetcher(t), mini(t)
	put(t, dir, ".config", "")
	_, err := f.Source(t.Context(), Tree{Name: "t", Dir: dir})
	require.ErrorContains(t, err, "mrproper")
	_, err = f.Source(t.Context(), Tree{Name: "t", Dir: t.TempDir()})
	require.ErrorContains(t, err, "is not a kernel tree")
}

// A git tree may be built in: what git ignores is not source.
func TestDirOfGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	f, dir := fetcher(t), mini(t)
	put(t, dir, ".gitignore", "*.o\n.config\n")
	put(t, dir, ".config", "x")
	put(t, dir, "net/a.o", "x")
	put(t, dir, "untracked.c", "u\n")
	git := func(args ...string) {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	git("init", "-q")
	git("add", "Makefile", "net", "tool.sh")
	require.NoError(t, os.Remove(filepath.Join(dir, "tool.sh")))
	s, err := f.Source(t.Context(), Tree{Name: "t", Dir: dir})
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(s.Dir, "untracked.c"))
	for _, gone := range []string{".config", "net/a.o", "tool.sh", ".git"} {
		_, err := os.Lstat(filepath.Join(s.Dir, gone))
		require.ErrorIs(t, err, os.ErrNotExist, gone)
	}
}
