// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// file is one file of a plain directory, with what tells that its content is
// the one that was hashed.
type file struct {
	path                      string
	size, mtime, ctime, inode int64
	mode                      fs.FileMode
	sum                       string // hex SHA-256, of the target for a link
}

func (a *file) same(b *file) bool {
	return a.size == b.size && a.mtime == b.mtime && a.ctime == b.ctime && a.inode == b.inode && a.mode == b.mode
}

// resolveDir keys a directory by the content of its files. Hashing 1.8 GB on
// every run would be honest and slow, so an index in the store remembers each
// file's hash together with its inode and times; like git's, it does not
// trust a file that changed in the moment the index was written.
func (f *Fetcher) resolveDir(ctx context.Context, t Tree) (*resolved, error) {
	if _, err := kver.OfTree(t.Dir); err != nil {
		return nil, err
	}
	files, err := listDir(ctx, t.Dir)
	if err != nil {
		return nil, err
	}
	family := "dir-" + short(t.Dir)
	index := filepath.Join(f.Store.Dir(), "dirs", family+".index")
	known := readIndex(index)
	if err := hashFiles(ctx, t.Dir, files, known); err != nil {
		return nil, err
	}
	if err := updateIndex(index, files, known); err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, fl := range files {
		fmt.Fprintf(h, "%s\x00%o\x00%s\n", fl.path, keyMode(fl.mode), fl.sum)
	}
	o := Origin{Kind: "dir", Dir: t.Dir, SHA256: hex.EncodeToString(h.Sum(nil))}
	return &resolved{origin: o, key: keyOf(o), family: family, fetch: func(ctx context.Context, work string, log io.Writer) error {
		items := make([]item, len(files))
		byPath := map[string]*file{}
		for i, fl := range files {
			items[i] = item{path: fl.path, sum: fl.sum, mode: keyMode(fl.mode)}
			byPath[fl.path] = fl
		}
		return f.assemble(ctx, work, family, items, log, func(ctx context.Context, dst string, lacks []item) error {
			return parallel(ctx, len(lacks), func(i int) error { return byPath[lacks[i].path].copy(t.Dir, dst) })
		})
	}}, nil
}

// keyMode is what of a file's mode matters to a build.
func keyMode(m fs.FileMode) fs.FileMode { return m & (fs.ModeSymlink | 0o100) }

// listDir lists the source files of a directory: what git tracks or would, in
// a git tree, else everything. Objects of a build among the sources would make
// kbuild refuse the tree, so they are refused here, with the way out.
func listDir(ctx context.Context, dir string) ([]*file, error) {
	var paths []string
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		out, err := proc.Output(ctx, proc.Cmd{Dir: dir, Args: []string{
			"git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate",
		}})
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", dir, err)
		}
		for _, p := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if p != "" {
				paths = append(paths, p)
			}
		}
	} else {
		for _, built := range []string{".config", "include/config", "vmlinux"} {
			if _, err := os.Lstat(filepath.Join(dir, built)); err == nil {
				return nil, fmt.Errorf("%s was built in (it has %s); clean it with: make -C %s mrproper", dir, built, dir)
			}
		}
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			paths = append(paths, rel)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	sort.Strings(paths)
	files := make([]*file, len(paths))
	err := parallel(ctx, len(paths), func(i int) error {
		fi, err := os.Lstat(filepath.Join(dir, paths[i]))
		if errors.Is(err, os.ErrNotExist) {
			return nil // tracked by git, deleted in the directory
		}
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0 {
			return nil // a nested repository, a socket: not source
		}
		files[i] = &file{
			path: paths[i], size: fi.Size(), mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
			inode: int64(st.Ino), mode: fi.Mode(),
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := files[:0]
	for _, fl := range files {
		if fl != nil {
			out = append(out, fl)
		}
	}
	return out, nil
}

func hashFiles(ctx context.Context, dir string, files []*file, known map[string]*file) error {
	return parallel(ctx, len(files), func(i int) error {
		fl := files[i]
		if k := known[fl.path]; k != nil && k.same(fl) {
			fl.sum = k.sum
			return nil
		}
		p := filepath.Join(dir, fl.path)
		if fl.mode&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			sum := sha256.Sum256([]byte(target))
			fl.sum = hex.EncodeToString(sum[:])
			return err
		}
		sum, err := store.FileSum(p)
		fl.sum = sum
		return err
	})
}

// copy copies the file; unlike a link, a copy stays what it was hashed as while
// its owner goes on working.
func (a *file) copy(from, to string) error {
	src, dst := filepath.Join(from, a.path), filepath.Join(to, a.path)
	if a.mode&fs.ModeSymlink != 0 {
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	}
	raw, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != a.sum {
		return fmt.Errorf("%s changed while it was copied; run again", src)
	}
	perm := fs.FileMode(0o644)
	if a.mode&0o100 != 0 {
		perm = 0o755
	}
	if err := os.WriteFile(dst, raw, perm); err != nil {
		return err
	}
	t := time.Unix(0, a.mtime)
	return os.Chtimes(dst, t, t)
}

func parallel(ctx context.Context, n int, fn func(i int) error) error {
	workers := 2 * runtime.NumCPU()
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < n; i += workers {
				if i%1024 == w && ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := fn(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// indexGrace is how much older than the index a file must be for the index to
// speak for it: two changes within a clock tick have the same times.
const indexGrace = 2 * time.Second

func readIndex(path string) map[string]*file {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	known := map[string]*file{}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, 1<<16)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), " ", 7)
		if len(f) != 7 {
			return nil
		}
		var n [5]int64
		for i := range n {
			v, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return nil
			}
			n[i] = v
		}
		known[f[6]] = &file{path: f[6], size: n[0], mtime: n[1], ctime: n[2], inode: n[3], mode: fs.FileMode(n[4]), sum: f[5]}
	}
	return known
}

// updateIndex writes the index unless the one that is there says all already.
func updateIndex(path string, files []*file, known map[string]*file) error {
	same := len(known) == len(files)
	for i := 0; same && i < len(files); i++ {
		k := known[files[i].path]
		same = k != nil && k.same(files[i])
	}
	if same {
		return nil
	}
	return writeIndex(path, files)
}

func writeIndex(path string, files []*file) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	limit := time.Now().Add(-indexGrace).UnixNano()
	var b bytes.Buffer
	for _, fl := range files {
		if fl.mtime > limit || fl.ctime > limit || strings.Contains(fl.path, "\n") {
			continue
		}
		fmt.Fprintf(&b, "%d %d %d %d %d %s %s\n", fl.size, fl.mtime, fl.ctime, fl.inode, int64(fl.mode), fl.sum, fl.path)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "index-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(b.Bytes()); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
