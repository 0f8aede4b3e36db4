// SPDX-License-Identifier: GPL-2.0-only

package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

// move brings the slot's source from one pristine tree to another, if those share
// most of their files: two commits, or two saves of one tree, and make knows how
// to go from one to the other. It returns false for trees that have nothing to
// do with each other, and has done nothing then.
func (t *Tree) move(ctx context.Context, cur *state, to string, log io.Writer) (bool, error) {
	if cur.Pristine == "" {
		return false, nil
	}
	from, err := listing(ctx, cur.Pristine)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it has left the store
	}
	if err != nil {
		return false, err
	}
	now, err := listing(ctx, to)
	if err != nil {
		return false, err
	}
	// What goes goes first: a directory may take the place of a file.
	var differ []string
	for path := range from {
		if _, ok := now[path]; !ok {
			differ = append(differ, path)
		}
	}
	gone := len(differ)
	for path, fi := range now {
		if was, ok := from[path]; !ok || !os.SameFile(was, fi) {
			differ = append(differ, path)
		}
	}
	if 2*(len(differ)-gone) > len(now) {
		return false, nil
	}
	changed := 0
	for _, path := range differ {
		if _, ok := cur.Touched[path]; ok {
			continue // sync compares it with what is wanted there
		}
		if same(from[path], now[path], filepath.Join(cur.Pristine, path), filepath.Join(to, path)) {
			continue
		}
		fmt.Fprintf(log, "change %s\n", path)
		if err := t.restore(path, to); err != nil {
			return false, err
		}
		changed++
	}
	fmt.Fprintf(log, "another source: %d files differ\n", changed)
	return true, nil
}

// same says whether two files that are not one have the same content, so that
// make need not see a new one.
func same(a, b fs.FileInfo, pathA, pathB string) bool {
	if a == nil || b == nil || a.Mode() != b.Mode() || a.Size() != b.Size() || !a.Mode().IsRegular() {
		return false
	}
	wasA, errA := os.ReadFile(pathA)
	isB, errB := os.ReadFile(pathB)
	return errA == nil && errB == nil && bytes.Equal(wasA, isB)
}

// listing has every file below dir.
func listing(ctx context.Context, dir string) (map[string]fs.FileInfo, error) {
	top, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var (
		mu    sync.Mutex
		files = map[string]fs.FileInfo{}
	)
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range top {
		g.Go(func() error {
			found := map[string]fs.FileInfo{}
			err := filepath.WalkDir(filepath.Join(dir, d.Name()), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return errors.Join(err, context.Cause(ctx))
				}
				fi, err := d.Info()
				if err != nil {
					return err
				}
				rel, err := filepath.Rel(dir, path)
				found[rel] = fi
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			for path, fi := range found {
				files[path] = fi
			}
			return err
		})
	}
	return files, g.Wait()
}
