// SPDX-License-Identifier: GPL-2.0-only

package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		panic("unreachable")
	}
}

func save(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(time.Now().String()), 0o644))
}

// start runs a loop over dir; each round says what its end was.
func start(t *testing.T, dir string, hold bool) (rounds <-chan context.Context, ended <-chan error, stop func()) {
	t.Helper()
	began, gone := make(chan context.Context, 16), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		gone <- loop(ctx, []string{dir}, func(ctx, fresh context.Context) error {
			began <- fresh
			if hold {
				<-fresh.Done()
				return context.Cause(fresh)
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	return began, gone, cancel
}

func TestLoop(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, "net/a.c"))
	rounds, ended, stop := start(t, dir, false)
	next(t, rounds) // at once
	save(t, filepath.Join(dir, "net/a.c"))
	next(t, rounds)
	// An editor that writes aside and renames.
	save(t, filepath.Join(dir, "net/.a.c.swp"))
	require.NoError(t, os.Rename(filepath.Join(dir, "net/.a.c.swp"), filepath.Join(dir, "net/a.c")))
	next(t, rounds)
	// A directory that was not there.
	save(t, filepath.Join(dir, "drivers/new/b.c"))
	next(t, rounds)
	save(t, filepath.Join(dir, "drivers/new/b.c"))
	next(t, rounds)
	require.NoError(t, os.Remove(filepath.Join(dir, "net/a.c")))
	next(t, rounds)
	stop()
	require.NoError(t, next(t, ended))
	require.Empty(t, rounds)
}

// What is not the tree's own begins no round.
func TestMatters(t *testing.T) {
	for _, name := range []string{".a.c.swp", "a.c~", "4913", "a.c.orig", "a.c.rej", ".nfs0001"} {
		require.False(t, matters(fsnotify.Event{Name: "/t/net/" + name, Op: fsnotify.Write}), name)
	}
	for _, name := range []string{"a.c", "Makefile", "Kconfig", ".gitignore", "lib.sh"} {
		require.True(t, matters(fsnotify.Event{Name: "/t/net/" + name, Op: fsnotify.Write}), name)
	}
	require.False(t, matters(fsnotify.Event{Name: "/t/a.c", Op: fsnotify.Chmod}))

	dir := t.TempDir()
	save(t, filepath.Join(dir, ".git/refs/heads/main"))
	save(t, filepath.Join(dir, "net/sched/a.c"))
	w, err := fsnotify.NewWatcher()
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, addAll(w, dir))
	require.ElementsMatch(t, []string{dir, filepath.Join(dir, "net"), filepath.Join(dir, "net/sched")}, w.WatchList())
}

func TestSaveEndsTheRoundBefore(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, "a.c"))
	rounds, ended, stop := start(t, dir, true)
	first := next(t, rounds)
	save(t, filepath.Join(dir, "a.c"))
	<-first.Done()
	require.ErrorIs(t, context.Cause(first), errSaved)
	second := next(t, rounds)
	require.NoError(t, second.Err())
	stop()
	require.NoError(t, next(t, ended))
	require.Error(t, second.Err(), "nothing goes on behind the loop")
}

// Many files that are saved together are one round.
func TestSavesTogether(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, "a.c"))
	rounds, _, _ := start(t, dir, false)
	next(t, rounds)
	for i := range 50 {
		save(t, filepath.Join(dir, string(rune('A'+i))+".c"))
	}
	next(t, rounds)
	save(t, filepath.Join(dir, "last.c"))
	next(t, rounds)
	require.LessOrEqual(t, len(rounds), 2, "a slow machine may part them, but not into fifty")
}

func TestLoopErrors(t *testing.T) {
	boom := errors.New("boom")
	err := loop(t.Context(), []string{t.TempDir()}, func(context.Context, context.Context) error { return boom })
	require.ErrorIs(t, err, boom)
	err = loop(t.Context(), []string{"/nowhere/at/all"}, func(context.Context, context.Context) error { return nil })
	require.ErrorIs(t, err, os.ErrNotExist)
}
