// SPDX-License-Identifier: GPL-2.0-only

// Package store is the content-addressed cache under every stage of the
// pipeline. An entry is a directory named by the hash of all its inputs. It is
// built aside under a lock and appears under its name by one rename, so an
// entry that exists is whole: whoever kills the harness leaves at most a
// temporary directory behind, which nobody trusts and GC removes.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Names below the store's root. Everything else there belongs to nobody.
const (
	objectsDir = "objects" // objects/<stage>/<key>/
	tmpDir     = "tmp"     // entries being built
	locksDir   = "locks"
	logsDir    = "logs"
	slotsDir   = "slots"
	metaFile   = ".nftvm-entry.json"

	// lockPoll is how often a lock held by another process is asked for
	// again; flock has no wait that a context can end.
	lockPoll = 50 * time.Millisecond
)

// Store is one cache directory. Any number of processes may use it at once.
type Store struct {
	dir    string
	timing sync.Mutex
}

// Open uses dir, or $NFTVM_STORE, or nftvm in the user's cache directory, and
// creates it when missing.
func Open(dir string) (*Store, error) {
	if dir == "" {
		dir = os.Getenv("NFTVM_STORE")
	}
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no place for the store: %w; set NFTVM_STORE", err)
		}
		dir = filepath.Join(cache, "nftvm")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{objectsDir, tmpDir, locksDir, logsDir, slotsDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	return &Store{dir: dir}, nil
}

// Dir is the store's root, absolute.
func (s *Store) Dir() string { return s.dir }

// Entry is one published result of a stage.
type Entry struct {
	Stage string `json:"stage"`
	Key   Key    `json:"key"`
	// Dir holds the entry's files. They are read-only by agreement.
	Dir string `json:"-"`
	// Log is what the stage wrote while it made the entry.
	Log string `json:"-"`
	// Cached is true when the entry was there already.
	Cached bool `json:"-"`
	// Seconds is how long making the entry took, then, not now.
	Seconds float64 `json:"seconds"`
	// Created is when the entry was published.
	Created time.Time `json:"created"`
}

// MakeFunc fills dir and writes what it does to log.
type MakeFunc func(ctx context.Context, dir string, log io.Writer) error

func (s *Store) entryDir(stage string, key Key) string {
	return filepath.Join(s.dir, objectsDir, stage, string(key))
}

// Names says whether path is in a published entry: then it names its content.
func (s *Store) Names(path string) bool {
	return strings.HasPrefix(path, filepath.Join(s.dir, objectsDir)+string(filepath.Separator))
}

// LogPath is where Do writes the log of a stage's entry.
func (s *Store) LogPath(stage string, key Key) string {
	return filepath.Join(s.dir, logsDir, stage+"-"+key.Short()+".log")
}

// Lookup returns a published entry, or nil when there is none. It counts as a
// use of the entry for GC.
func (s *Store) Lookup(stage string, key Key) (*Entry, error) {
	dir := s.entryDir(stage, key)
	raw, err := os.ReadFile(filepath.Join(dir, metaFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := &Entry{}
	if err := json.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf("store entry %s: %w; remove it with: rm -r %s", key.Short(), err, dir)
	}
	e.Dir, e.Log, e.Cached = dir, s.LogPath(stage, key), true
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, metaFile), now, now)
	return e, nil
}

// Do returns the entry of (stage, key), making it when it is not there. Two
// processes that want the same entry make it once: the second waits for the
// first and takes its result. An error of fn comes back as *StageError; what
// was made until then is removed and the log stays.
func (s *Store) Do(ctx context.Context, stage string, key Key, fn MakeFunc) (*Entry, error) {
	if e, err := s.Lookup(stage, key); e != nil || err != nil {
		return e, err
	}
	unlock, err := s.lock(ctx, stage+"-"+string(key))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if e, err := s.Lookup(stage, key); e != nil || err != nil {
		return e, err
	}

	logPath := s.LogPath(stage, key)
	log, err := os.Create(logPath)
	if err != nil {
		return nil, noSpace(err)
	}
	defer log.Close()
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, tmpDir), stage+"-"+key.Short()+"-")
	if err != nil {
		return nil, noSpace(err)
	}
	defer os.RemoveAll(tmp)
	// MkdirTemp makes 0700; an entry is for every reader of the store.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}

	start := time.Now()
	if err := fn(ctx, tmp, log); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, asStageError(stage, logPath, noSpace(err))
	}
	e := &Entry{
		Stage: stage, Key: key, Dir: s.entryDir(stage, key), Log: logPath,
		Seconds: time.Since(start).Seconds(), Created: time.Now().UTC(),
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, metaFile), raw, 0o644); err != nil {
		return nil, noSpace(err)
	}
	if err := syncTree(tmp); err != nil {
		return nil, noSpace(err)
	}
	if err := os.MkdirAll(filepath.Dir(e.Dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, e.Dir); err != nil {
		return nil, err
	}
	return e, nil
}

// syncTree puts an entry on the disk before its name does: a rename that
// survives a crash must not name a directory of empty files.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// One call for the whole file system costs less than an fsync for each
	// of the ninety thousand files of a kernel tree.
	return syncfs(d)
}

// lock takes the named lock, waiting for another holder as long as ctx lives.
func (s *Store) lock(ctx context.Context, name string) (func(), error) {
	l := flock.New(filepath.Join(s.dir, locksDir, name+".lock"))
	ok, err := l.TryLockContext(ctx, lockPoll)
	if err != nil {
		return nil, fmt.Errorf("store lock %s: %w", name, err)
	}
	if !ok {
		return nil, fmt.Errorf("store lock %s: not taken", name)
	}
	return func() { _ = l.Unlock() }, nil
}

// ErrNoSpace is in the chain of every error caused by a full disk.
var ErrNoSpace = errors.New("no space left on the disk that holds the store; " +
	"free some with: nftvm cache gc, or set NFTVM_STORE to a larger disk")

func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w (%w)", ErrNoSpace, err)
	}
	return err
}
