// SPDX-License-Identifier: GPL-2.0-only

// Package worktree keeps a patched kernel tree and its object directories in a
// slot of the store, at paths that stay the same, so that going from one state
// of the series to the next compiles only what changed.
package worktree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// Names in a slot.
const (
	srcDir    = "src"
	stateFile = "state.json"
	format    = 1
)

// Tree is a slot held by this process.
type Tree struct {
	// Src is the patched source; the other directories of the slot are its
	// users'.
	Src  string
	slot *store.Slot
}

// state is what the slot's source is, as the last Sync left it.
type state struct {
	Format int       `json:"format"`
	Source store.Key `json:"source"`
	// Pristine is where that is.
	Pristine string `json:"pristine"`
	// Touched are the files that are not the pristine ones.
	Touched map[string]touched `json:"touched"`
}

// touched is a file that Sync wrote, and how to see that it is still so.
type touched struct {
	SHA256 string `json:"sha256"` // "" for a file that was taken away
	Exec   bool   `json:"exec,omitempty"`
	Size   int64  `json:"size,omitempty"`
	MTime  int64  `json:"mtime,omitempty"`
}

// Open takes the slot of a (tree, flavor) and holds it until Close.
func Open(ctx context.Context, st *store.Store, tree, flavor string) (*Tree, error) {
	slot, err := st.Slot(ctx, tree+"-"+flavor)
	if err != nil {
		return nil, err
	}
	return &Tree{Src: filepath.Join(slot.Dir, srcDir), slot: slot}, nil
}

// Close lets the next user in.
func (t *Tree) Close() { t.slot.Close() }

// Dir is a directory of the slot beside the source, made when missing.
func (t *Tree) Dir(name string) (string, error) {
	dir := filepath.Join(t.slot.Dir, name)
	return dir, os.MkdirAll(dir, 0o755)
}

// Use brings the source into the wanted state and runs fn, which may write
// into the slot's other directories. An fn that fails by the kernel's fault
// leaves the slot usable: make removes the target of a failed command. After
// any other failure, and after the death of the process, the next user finds
// the slot unclean and starts it over: an object file that a killed compiler
// left half-written looks finished to make.
func (t *Tree) Use(ctx context.Context, source store.Key, pristine string, o *series.Overlay, log io.Writer,
	fn func(ctx context.Context) error,
) error {
	cur := t.state()
	if err := t.slot.Begin(); err != nil {
		return err
	}
	if err := t.open(ctx, &cur, source, pristine, log); err != nil {
		return err
	}
	if err := t.sync(cur, pristine, o, log); err != nil {
		return err
	}
	if err := t.save(cur); err != nil {
		return err
	}
	err := fn(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && store.FaultOf(err) != store.Kernel {
		return err
	}
	if end := t.slot.End(); err == nil {
		err = end
	}
	return err
}

// open makes the slot's source one of the wanted pristine tree, with what cur says
// was touched.
func (t *Tree) open(ctx context.Context, cur **state, source store.Key, pristine string, log io.Writer) error {
	if t.slot.Clean && *cur != nil {
		if (*cur).Source == source {
			(*cur).Pristine = pristine
			return nil
		}
		moved, err := t.move(ctx, *cur, pristine, log)
		if err != nil {
			return err
		}
		if moved {
			(*cur).Source, (*cur).Pristine = source, pristine
			return nil
		}
	}
	fmt.Fprintf(log, "fresh work tree in %s\n", t.slot.Dir)
	*cur = &state{Format: format, Source: source, Pristine: pristine, Touched: map[string]touched{}}
	return t.fresh(ctx, pristine, log)
}

func (t *Tree) state() *state {
	raw, err := os.ReadFile(filepath.Join(t.slot.Dir, stateFile))
	if err != nil {
		return nil
	}
	st := &state{}
	if json.Unmarshal(raw, st) != nil || st.Format != format {
		return nil
	}
	return st
}

func (t *Tree) save(st *state) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.slot.Dir, stateFile), raw, 0o644)
}

// fresh empties the slot and links the pristine tree into it: hard links cost
// seconds where copies cost a minute and two gigabytes.
func (t *Tree) fresh(ctx context.Context, pristine string, log io.Writer) error {
	if err := t.slot.Wipe(); err != nil {
		return err
	}
	return Link(ctx, pristine, t.Src, log)
}

// Link makes dst a tree of hard links to the files of src.
func Link(ctx context.Context, src, dst string, log io.Writer) error {
	return proc.Run(ctx, proc.Cmd{Args: []string{"cp", "-al", "--", src, dst}, Log: log})
}

// sync writes what differs, and only that: new content is always a new inode
// with the time of now, so that the store's file behind a hard link stays as
// it is and make sees the change, also one back to the pristine content.
func (t *Tree) sync(cur *state, pristine string, o *series.Overlay, log io.Writer) error {
	want := map[string]series.OverlayFile{}
	for _, f := range o.Files {
		want[f.Path] = f
	}
	for path := range cur.Touched {
		if _, ok := want[path]; ok {
			continue
		}
		fmt.Fprintf(log, "restore %s\n", path)
		if err := t.restore(path, pristine); err != nil {
			return err
		}
		delete(cur.Touched, path)
	}
	for _, f := range o.Files {
		if had, ok := cur.Touched[f.Path]; ok && had.SHA256 == f.SHA256 && had.Exec == f.Exec && t.unchanged(f.Path, had) {
			continue
		}
		dst := filepath.Join(t.Src, f.Path)
		if f.Deleted() {
			fmt.Fprintf(log, "delete %s\n", f.Path)
			if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			cur.Touched[f.Path] = touched{}
			continue
		}
		fmt.Fprintf(log, "write %s\n", f.Path)
		fi, err := replace(o.Path(f), dst, f.Perm())
		if err != nil {
			return err
		}
		cur.Touched[f.Path] = touched{SHA256: f.SHA256, Exec: f.Exec, Size: fi.Size(), MTime: fi.ModTime().UnixNano()}
	}
	return nil
}

// unchanged tells whether nobody wrote the file since Sync did.
func (t *Tree) unchanged(path string, had touched) bool {
	fi, err := os.Lstat(filepath.Join(t.Src, path))
	if had.SHA256 == "" {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && fi.Mode().IsRegular() && fi.Size() == had.Size && fi.ModTime().UnixNano() == had.MTime
}

func (t *Tree) restore(path, pristine string) error {
	dst, orig := filepath.Join(t.Src, path), filepath.Join(pristine, path)
	fi, err := os.Lstat(orig)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && fi.IsDir() {
		if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return t.dropEmpty(filepath.Dir(path), pristine)
	}
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		return relink(orig, dst)
	}
	_, err = replace(orig, dst, fi.Mode().Perm())
	return err
}

// relink puts a copy of a symbolic link in the place of dst.
func relink(orig, dst string) error {
	target, err := os.Readlink(orig)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	if err := os.Remove(dst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, dst)
}

// dropEmpty removes the directories that only the series had.
func (t *Tree) dropEmpty(dir, pristine string) error {
	for ; dir != "."; dir = filepath.Dir(dir) {
		if fi, err := os.Stat(filepath.Join(pristine, dir)); err == nil && fi.IsDir() {
			return nil
		}
		if err := os.Remove(filepath.Join(t.Src, dir)); err != nil {
			return nil //nolint:nilerr // not empty: another file of the series is there
		}
	}
	return nil
}

// replace puts a copy of src in the place of dst, by rename and with a new time.
func replace(src, dst string, perm fs.FileMode) (fs.FileInfo, error) {
	in, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(dst), ".nftvm-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, in)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), perm)
	}
	if err == nil {
		now := time.Now()
		err = os.Chtimes(tmp.Name(), now, now)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), dst)
	}
	if err != nil {
		return nil, err
	}
	return os.Lstat(dst)
}
