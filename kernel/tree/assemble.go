// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// item is one file of a source: what its content is, by a sum of any kind, and
// of its mode what matters to a build.
type item struct {
	path, sum string
	mode      fs.FileMode
}

// itemsFile, in an entry, lists what its tree was assembled of.
const itemsFile = "files"

// assemble makes a tree of items below dir. From one commit, or one save, to the
// next a kernel changes in a few of its ninety thousand files: what the last
// source of the same family has is linked, and get fetches the rest.
func (f *Fetcher) assemble(ctx context.Context, dir, family string, items []item, log io.Writer, get func(ctx context.Context, dst string, lacks []item) error) error {
	dst := filepath.Join(dir, treeDir)
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	if err := makeDirs(dst, items); err != nil {
		return err
	}
	near, had := f.neighbour(family)
	var (
		mu    sync.Mutex
		lacks []item
	)
	err := parallel(ctx, len(items), func(i int) error {
		it := items[i]
		if had[it.path] == it && os.Link(filepath.Join(near, it.path), filepath.Join(dst, it.path)) == nil {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		lacks = append(lacks, it)
		return nil
	})
	if err != nil {
		return err
	}
	logf(log, "%d files are those of the source before, %d are fetched", len(items)-len(lacks), len(lacks))
	if len(lacks) > 0 {
		if err := get(ctx, dst, lacks); err != nil {
			return err
		}
	}
	return writeItems(filepath.Join(dir, itemsFile), items)
}

func makeDirs(dst string, items []item) error {
	made := map[string]bool{}
	for _, it := range items {
		d := filepath.Dir(it.path)
		if made[d] {
			continue
		}
		made[d] = true
		if err := os.MkdirAll(filepath.Join(dst, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// neighbour is the tree that was the family's source last, and what is in it.
func (f *Fetcher) neighbour(family string) (dir string, had map[string]item) {
	key, err := os.ReadFile(f.lastOf(family))
	if err != nil {
		return "", nil
	}
	e, err := f.Store.Lookup(Stage, store.Key(key))
	if e == nil || err != nil {
		return "", nil
	}
	items, err := readItems(filepath.Join(e.Dir, itemsFile))
	if err != nil {
		return "", nil
	}
	had = make(map[string]item, len(items))
	for _, it := range items {
		had[it.path] = it
	}
	return filepath.Join(e.Dir, treeDir), had
}

// lastOf is the file that names the family's last source.
func (f *Fetcher) lastOf(family string) string {
	return filepath.Join(f.Store.Dir(), "dirs", family+".last")
}

// remember makes a source the neighbour of the family's next one. That it cannot
// be written costs time, no more.
func (f *Fetcher) remember(family string, key store.Key) {
	path := f.lastOf(family)
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	tmp := path + "." + strconv.Itoa(os.Getpid())
	if os.WriteFile(tmp, []byte(key), 0o644) == nil {
		_ = os.Rename(tmp, path)
	}
}

func writeItems(path string, items []item) error {
	var b bytes.Buffer
	for _, it := range items {
		fmt.Fprintf(&b, "%o %s %s\x00", uint32(it.mode), it.sum, it.path)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// readItems reads what writeItems wrote, in its order.
func readItems(path string) ([]item, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	items := make([]item, 0, bytes.Count(raw, []byte{0}))
	for rec := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		f := strings.SplitN(rec, " ", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: %q is no file", path, rec)
		}
		mode, err := strconv.ParseUint(f[0], 8, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		items = append(items, item{path: f[2], sum: f[1], mode: fs.FileMode(mode)})
	}
	return items, nil
}
