// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Item is what List says of one entry or slot.
type Item struct {
	Stage string // "slot" for a slot
	Name  string // key, or the slot's name
	Bytes int64  // disk use; a file linked into several items counts in each
	Used  time.Time
}

// List names every entry and slot, least recently used first.
func (s *Store) List() ([]Item, error) {
	var items []Item
	stages, err := os.ReadDir(filepath.Join(s.dir, objectsDir))
	if err != nil {
		return nil, err
	}
	for _, st := range stages {
		more, err := s.entries(st.Name())
		if err != nil {
			return nil, err
		}
		items = append(items, more...)
	}
	slots, err := os.ReadDir(filepath.Join(s.dir, slotsDir))
	if err != nil {
		return nil, err
	}
	for _, sl := range slots {
		if !sl.IsDir() {
			continue
		}
		it := Item{Stage: "slot", Name: sl.Name(), Bytes: diskUse(filepath.Join(s.dir, slotsDir, sl.Name()))}
		if fi, err := os.Stat(filepath.Join(s.dir, slotsDir, sl.Name()+".clean")); err == nil {
			it.Used = fi.ModTime()
		}
		items = append(items, it)
	}
	byUse(items)
	return items, nil
}

func byUse(items []Item) {
	sort.Slice(items, func(i, j int) bool { return items[i].Used.Before(items[j].Used) })
}

// entries names those of a stage.
func (s *Store) entries(stage string) ([]Item, error) {
	keys, err := os.ReadDir(filepath.Join(s.dir, objectsDir, stage))
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, k := range keys {
		dir := filepath.Join(s.dir, objectsDir, stage, k.Name())
		it := Item{Stage: stage, Name: k.Name(), Bytes: diskUse(dir)}
		if fi, err := os.Stat(filepath.Join(dir, metaFile)); err == nil {
			it.Used = fi.ModTime()
		}
		items = append(items, it)
	}
	return items, nil
}

// GC removes what was not used for keep, and every temporary directory that no
// process holds. What is in use (its lock is held) stays. It returns what it
// removed.
func (s *Store) GC(ctx context.Context, keep time.Duration) ([]Item, error) {
	if err := s.dropTemporary(); err != nil {
		return nil, err
	}
	items, err := s.List()
	if err != nil {
		return nil, err
	}
	limit := time.Now().Add(-keep)
	var gone []Item
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return gone, err
		}
		if it.Used.After(limit) {
			continue
		}
		removed, err := s.remove(it)
		if err != nil {
			return gone, err
		}
		if removed {
			gone = append(gone, it)
		}
	}
	return gone, nil
}

// Trim removes the entries of a stage that were not used for longest, until the
// rest takes no more than most bytes. What was used within keep stays.
func (s *Store) Trim(stage string, most int64, keep time.Duration) error {
	items, err := s.entries(stage)
	if err != nil {
		return err
	}
	byUse(items)
	var sum int64
	for _, it := range items {
		sum += it.Bytes
	}
	limit := time.Now().Add(-keep)
	for _, it := range items {
		if sum <= most || it.Used.After(limit) {
			break
		}
		if _, err := s.remove(it); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		sum -= it.Bytes
	}
	return nil
}

// Drop removes an entry that nobody will want again. One that is being made
// stays.
func (s *Store) Drop(stage string, key Key) error {
	_, err := s.remove(Item{Stage: stage, Name: string(key)})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (s *Store) remove(it Item) (bool, error) {
	name := it.Stage + "-" + it.Name
	l := flock.New(filepath.Join(s.dir, locksDir, name+".lock"))
	ok, err := l.TryLock()
	if err != nil || !ok {
		return false, err
	}
	defer func() { _ = l.Unlock() }()
	if it.Stage == "slot" {
		if err := os.Remove(filepath.Join(s.dir, slotsDir, it.Name+".clean")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		return true, os.RemoveAll(filepath.Join(s.dir, slotsDir, it.Name))
	}
	// The entry loses its name first: a reader sees all of it or nothing.
	dead, err := os.MkdirTemp(filepath.Join(s.dir, tmpDir), "gc-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dead)
	return true, os.Rename(s.entryDir(it.Stage, Key(it.Name)), filepath.Join(dead, "entry"))
}

// dropTemporary removes what builds left that died. A live build holds its
// key's lock, and the directory's name begins with the stage and short key.
func (s *Store) dropTemporary() error {
	tmps, err := os.ReadDir(filepath.Join(s.dir, tmpDir))
	if err != nil {
		return err
	}
	for _, t := range tmps {
		if s.tempInUse(t.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, tmpDir, t.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) tempInUse(tmp string) bool {
	prefix := tmp
	if i := strings.LastIndexByte(tmp, '-'); i > 0 {
		prefix = tmp[:i]
	}
	locks, err := filepath.Glob(filepath.Join(s.dir, locksDir, prefix+"*.lock"))
	if err != nil {
		return true
	}
	for _, path := range locks {
		l := flock.New(path)
		ok, err := l.TryLock()
		if err != nil || !ok {
			return true
		}
		_ = l.Unlock()
	}
	return false
}

func diskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if fi, err := d.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
