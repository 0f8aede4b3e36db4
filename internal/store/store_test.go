// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests that kill a maker run this binary again, as the one to be killed.
const (
	roleEnv = "STORE_TEST_ROLE"
	dirEnv  = "STORE_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "maker":
		victimMaker()
	case "slot":
		victimSlot()
	}
	os.Exit(m.Run())
}

// ready tells the test, and then waits to be killed.
func ready() {
	fmt.Println("ready")
	select {}
}

func victimMaker() {
	s, err := Open(os.Getenv(dirEnv))
	if err != nil {
		panic(err)
	}
	_, err = s.Do(context.Background(), "build", testKey("k"), func(_ context.Context, dir string, _ io.Writer) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), []byte("done"), 0o644); err != nil {
			return err
		}
		go ready()
		select {}
	})
	panic(err)
}

func victimSlot() {
	s, err := Open(os.Getenv(dirEnv))
	if err != nil {
		panic(err)
	}
	sl, err := s.Slot(context.Background(), "tree-plain")
	if err != nil {
		panic(err)
	}
	if err := sl.Begin(); err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(sl.Dir, "half"), []byte("done"), 0o644); err != nil {
		panic(err)
	}
	ready()
}

// kill9 runs a role until it is ready and kills it with -9.
func kill9(t *testing.T, role, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

func testKey(s string) Key { return NewKey("test").Str("s", s).Key() }

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	return s
}

func write(text string) MakeFunc {
	return func(_ context.Context, dir string, log io.Writer) error {
		fmt.Fprintln(log, "writing", text)
		return os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644)
	}
}

func read(t *testing.T, e *Entry) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(e.Dir, "f"))
	require.NoError(t, err)
	return string(raw)
}

func TestDoReuses(t *testing.T) {
	s := open(t)
	first, err := s.Do(t.Context(), "source", testKey("k"), write("one"))
	require.NoError(t, err)
	require.False(t, first.Cached)
	second, err := s.Do(t.Context(), "source", testKey("k"), write("two"))
	require.NoError(t, err)
	require.True(t, second.Cached)
	require.Equal(t, "one", read(t, second), "a known key must not be made again")
	require.Equal(t, first.Dir, second.Dir)
	log, err := os.ReadFile(second.Log)
	require.NoError(t, err)
	require.Contains(t, string(log), "writing one")

	other, err := s.Do(t.Context(), "source", testKey("other"), write("two"))
	require.NoError(t, err)
	require.False(t, other.Cached)
}

func TestDoOnceForMany(t *testing.T) {
	dir := t.TempDir()
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			s, err := Open(dir) // each as a process of its own would
			if err != nil {
				t.Error(err)
				return
			}
			e, err := s.Do(t.Context(), "build", testKey("k"), func(ctx context.Context, d string, w io.Writer) error {
				made.Add(1)
				return write("x")(ctx, d, w)
			})
			if err != nil || e == nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, made.Load())
}

func TestDoFailure(t *testing.T) {
	s := open(t)
	boom := errors.New("boom")
	_, err := s.Do(t.Context(), "patch", testKey("k"), func(_ context.Context, dir string, log io.Writer) error {
		for i := range 30 {
			fmt.Fprintf(log, "line %d\n", i)
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
		return KernelFault(boom)
	})
	require.ErrorIs(t, err, boom)
	var se *StageError
	require.ErrorAs(t, err, &se)
	require.Equal(t, Kernel, FaultOf(err))
	require.Len(t, se.Tail, TailLines)
	require.Equal(t, "line 29", se.Tail[TailLines-1])
	require.Contains(t, err.Error(), "patch: boom")
	require.Contains(t, err.Error(), se.Log)
	require.NotContains(t, err.Error(), "line 9\n")

	e, err := s.Do(t.Context(), "patch", testKey("k"), write("fine"))
	require.NoError(t, err)
	require.False(t, e.Cached, "a failure must not be kept")
	left, err := os.ReadDir(filepath.Join(s.Dir(), tmpDir))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestDoNoSpace(t *testing.T) {
	s := open(t)
	_, err := s.Do(t.Context(), "build", testKey("k"), func(context.Context, string, io.Writer) error {
		return &os.PathError{Op: "write", Path: "vmlinux", Err: syscall.ENOSPC}
	})
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Contains(t, err.Error(), "nftvm cache gc")
	require.Equal(t, Harness, FaultOf(err), "a full disk is not the kernel's fault")
}

func TestDoCancelled(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("ctrl-c")
	_, err := s.Do(ctx, "build", testKey("k"), func(context.Context, string, io.Writer) error {
		cancel(stop)
		return errors.New("make was killed")
	})
	require.ErrorIs(t, err, stop)
}

func TestWaiterGivesUp(t *testing.T) {
	s := open(t)
	unlock, err := s.Lock(t.Context(), "build-"+string(testKey("k")))
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	_, err = s.Do(ctx, "build", testKey("k"), write("x"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestKilledMaker(t *testing.T) {
	s := open(t)
	kill9(t, "maker", s.Dir())
	left, err := os.ReadDir(filepath.Join(s.Dir(), tmpDir))
	require.NoError(t, err)
	require.Len(t, left, 1, "the victim was killed in the middle")

	e, err := s.Lookup("build", testKey("k"))
	require.NoError(t, err)
	require.Nil(t, e, "nothing half-done has a name")
	e, err = s.Do(t.Context(), "build", testKey("k"), write("whole"))
	require.NoError(t, err)
	require.False(t, e.Cached)
	require.NoFileExists(t, filepath.Join(e.Dir, "half"))

	_, err = s.GC(t.Context(), time.Hour)
	require.NoError(t, err)
	left, err = os.ReadDir(filepath.Join(s.Dir(), tmpDir))
	require.NoError(t, err)
	require.Empty(t, left, "gc takes what the dead left")
	e, err = s.Lookup("build", testKey("k"))
	require.NoError(t, err)
	require.NotNil(t, e, "gc keeps what is young")
}

func TestKilledInSlot(t *testing.T) {
	s := open(t)
	sl, err := s.Slot(t.Context(), "tree-plain")
	require.NoError(t, err)
	require.False(t, sl.Clean, "a new slot holds nothing to trust")
	require.NoError(t, sl.Begin())
	require.NoError(t, sl.End())
	sl.Close()

	sl, err = s.Slot(t.Context(), "tree-plain")
	require.NoError(t, err)
	require.True(t, sl.Clean)
	sl.Close()

	kill9(t, "slot", s.Dir())
	sl, err = s.Slot(t.Context(), "tree-plain")
	require.NoError(t, err)
	defer sl.Close()
	require.False(t, sl.Clean)
	require.FileExists(t, filepath.Join(sl.Dir, "half"))
	require.NoError(t, sl.Wipe())
	require.NoFileExists(t, filepath.Join(sl.Dir, "half"))
}

func TestSlotIsExclusive(t *testing.T) {
	s := open(t)
	sl, err := s.Slot(t.Context(), "x")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	_, err = s.Slot(ctx, "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	sl.Close()
	sl, err = s.Slot(t.Context(), "x")
	require.NoError(t, err)
	sl.Close()
}

func TestGC(t *testing.T) {
	s := open(t)
	old, err := s.Do(t.Context(), "build", testKey("old"), write("old"))
	require.NoError(t, err)
	busy, err := s.Do(t.Context(), "build", testKey("busy"), write("busy"))
	require.NoError(t, err)
	young, err := s.Do(t.Context(), "build", testKey("young"), write("young"))
	require.NoError(t, err)
	past := time.Now().Add(-48 * time.Hour)
	for _, e := range []*Entry{old, busy} {
		require.NoError(t, os.Chtimes(filepath.Join(e.Dir, metaFile), past, past))
	}
	unlock, err := s.Lock(t.Context(), "build-"+string(busy.Key))
	require.NoError(t, err)
	defer unlock()

	gone, err := s.GC(t.Context(), 24*time.Hour)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.Equal(t, string(old.Key), gone[0].Name)
	require.NoDirExists(t, old.Dir)
	require.DirExists(t, busy.Dir)
	require.DirExists(t, young.Dir)
}

func TestGCLeavesLiveTemporaries(t *testing.T) {
	s := open(t)
	_, err := s.Do(t.Context(), "build", testKey("k"), func(ctx context.Context, dir string, w io.Writer) error {
		if _, err := s.GC(ctx, 0); err != nil {
			return err
		}
		return write("x")(ctx, dir, w)
	})
	require.NoError(t, err)
}

func TestLookupIsUse(t *testing.T) {
	s := open(t)
	e, err := s.Do(t.Context(), "build", testKey("k"), write("x"))
	require.NoError(t, err)
	past := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(e.Dir, metaFile), past, past))
	_, err = s.Lookup("build", testKey("k"))
	require.NoError(t, err)
	gone, err := s.GC(t.Context(), 24*time.Hour)
	require.NoError(t, err)
	require.Empty(t, gone)
}

func TestKeysDoNotRunTogether(t *testing.T) {
	a := NewKey("s").Str("x", "1").Str("y", "2").Key()
	require.NotEqual(t, a, NewKey("s").Str("x", "1\n1:y=1:2").Key())
	require.NotEqual(t, a, NewKey("s").Str("y", "2").Str("x", "1").Key())
	require.NotEqual(t, a, NewKey("t").Str("x", "1").Str("y", "2").Key())
	require.Equal(t, a, NewKey("s").Str("x", "1").Str("y", "2").Key())
}

func TestKeyDir(t *testing.T) {
	dir := t.TempDir()
	key := func() Key {
		k := NewKey("s")
		require.NoError(t, k.Dir("d", dir))
		return k.Key()
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o644))
	first := key()
	require.Equal(t, first, key())
	require.NoError(t, os.Chmod(filepath.Join(dir, "a"), 0o755))
	exec := key()
	require.NotEqual(t, first, exec)
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "l")))
	link := key()
	require.NotEqual(t, exec, link)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("2"), 0o755))
	require.NotEqual(t, link, key())
}

func TestTrim(t *testing.T) {
	s := open(t)
	big := func(_ context.Context, dir string, _ io.Writer) error {
		return os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<20), 0o644)
	}
	var all []*Entry
	for i, age := range []time.Duration{3 * time.Hour, 5 * time.Hour, 4 * time.Hour, 0} {
		e, err := s.Do(t.Context(), "snapshot", testKey(fmt.Sprint(i)), big)
		require.NoError(t, err)
		past := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(filepath.Join(e.Dir, metaFile), past, past))
		all = append(all, e)
	}
	other, err := s.Do(t.Context(), "build", testKey("k"), big)
	require.NoError(t, err)
	here := func() (n []int) {
		for i, e := range all {
			if _, err := os.Stat(e.Dir); err == nil {
				n = append(n, i)
			}
		}
		return n
	}
	require.NoError(t, s.Trim("snapshot", 10<<20, time.Hour))
	require.Equal(t, []int{0, 1, 2, 3}, here())
	require.NoError(t, s.Trim("snapshot", 5<<19, time.Hour))
	require.Equal(t, []int{0, 3}, here(), "those that were not used for longest go")
	require.NoError(t, s.Trim("snapshot", 0, time.Hour))
	require.Equal(t, []int{3}, here(), "what was just used stays")
	require.DirExists(t, other.Dir)
}
