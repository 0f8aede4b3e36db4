// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Slot is a work directory that outlives a run: the place where an object
// directory stays warm between builds. It is held by one process at a time.
// Unlike an entry it is mutable, so nothing may trust it except through Clean.
type Slot struct {
	// Dir is the directory; it exists.
	Dir string
	// Clean is false when the last user died between Begin and End, or when
	// the slot is new. Wipe it before use then.
	Clean bool

	mark   string
	unlock func()
}

// Slot opens the named slot and holds it until Close.
func (s *Store) Slot(ctx context.Context, name string) (*Slot, error) {
	unlock, err := s.lock(ctx, "slot-"+name)
	if err != nil {
		return nil, err
	}
	sl := &Slot{
		Dir:    filepath.Join(s.dir, slotsDir, name),
		mark:   filepath.Join(s.dir, slotsDir, name+".clean"),
		unlock: unlock,
	}
	if err := os.MkdirAll(sl.Dir, 0o755); err != nil {
		unlock()
		return nil, noSpace(err)
	}
	_, err = os.Stat(sl.mark)
	sl.Clean = err == nil
	return sl, nil
}

// SlotDir is the path of what a slot holds, for who may look on without holding
// the slot; it need not exist.
func (s *Store) SlotDir(name string, elem ...string) string {
	return filepath.Join(append([]string{s.dir, slotsDir, name}, elem...)...)
}

// Wipe empties the slot.
func (sl *Slot) Wipe() error {
	if err := sl.Begin(); err != nil {
		return err
	}
	if err := os.RemoveAll(sl.Dir); err != nil {
		return err
	}
	return os.MkdirAll(sl.Dir, 0o755)
}

// Begin says that the slot is about to change: from here to End a death of the
// process leaves it unclean.
func (sl *Slot) Begin() error {
	err := os.Remove(sl.mark)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// End says that the slot holds what its user meant it to hold.
func (sl *Slot) End() error {
	f, err := os.Create(sl.mark)
	if err != nil {
		return noSpace(err)
	}
	sl.Clean = true
	return f.Close()
}

// Close lets the next user in.
func (sl *Slot) Close() { sl.unlock() }
