// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// Stage is the store's name for unpacked sources.
const Stage = "source"

// treeDir is where the kernel tree lies in an entry of the stage.
const treeDir = "tree"

// sourceFormat changes when the content of a source entry means something new.
const sourceFormat = "1"

// MaxIndexAge is how old a suite's package index may get before a run asks the
// mirror for a new one.
const MaxIndexAge = 24 * time.Hour

// Origin says where a source came from, exactly enough to get it again.
type Origin struct {
	Kind    string `json:"kind"` // debian, tarball, git or dir
	Suite   string `json:"suite,omitempty"`
	Package string `json:"package,omitempty"`
	Version string `json:"version,omitempty"`
	// SHA256 is that of the package or tarball, or of a directory's whole content.
	SHA256 string `json:"sha256,omitempty"`
	Dir    string `json:"dir,omitempty"`
	// URL is the tarball's, or its path.
	URL string `json:"url,omitempty"`
	// Repo is the repository's path or address, and Commit and Tree what Rev
	// was there.
	Repo   string `json:"repo,omitempty"`
	Rev    string `json:"rev,omitempty"`
	Commit string `json:"commit,omitempty"`
	Tree   string `json:"tree,omitempty"`
}

func (o Origin) String() string {
	switch o.Kind {
	case "dir":
		return fmt.Sprintf("dir %s sha256:%s", o.Dir, o.SHA256)
	case "git":
		return fmt.Sprintf("git %s %s commit %s", o.Repo, o.Rev, o.Commit)
	case "tarball":
		return fmt.Sprintf("tarball %s sha256:%s", o.URL, o.SHA256)
	}
	return fmt.Sprintf("debian %s %s %s sha256:%s", o.Suite, o.Package, o.Version, o.SHA256)
}

// Source is a tree's pristine source, unpacked in the store.
type Source struct {
	Tree   Tree
	Origin Origin
	// Version is the kernel's, such as 7.3.4.
	Version string
	// Dir is the top of the kernel tree. Nothing may write below it.
	Dir   string
	Entry *store.Entry

	items []item // once Part has read them
}

// Part names the files of the source that matter for something: where it is the
// same, those are. A source that is not known file by file has its key for that.
func (s *Source) Part(matters func(path string) bool) (string, error) {
	if s.items == nil {
		var err error
		s.items, err = readItems(filepath.Join(s.Entry.Dir, itemsFile))
		if errors.Is(err, fs.ErrNotExist) {
			return string(s.Entry.Key), nil
		}
		if err != nil {
			return "", err
		}
	}
	k := store.NewKey("part")
	for _, it := range s.items {
		if matters(it.path) {
			k.Str(it.path, fmt.Sprintf("%o %s", uint32(it.mode), it.sum))
		}
	}
	return string(k.Key()), nil
}

// Fetcher gets sources into the store.
type Fetcher struct {
	Store *store.Store
	// Refresh asks the mirror anew whatever the age of the index.
	Refresh bool
	// Warn, when set, receives what the user should know but needs not act
	// on: the mirror did not answer and an older index is used.
	Warn func(msg string)

	// archive overrides the machine's apt configuration, for tests.
	archive *archive
}

func (f *Fetcher) warn(format string, args ...any) {
	if f.Warn != nil {
		f.Warn(fmt.Sprintf(format, args...))
	}
}

// resolved is a tree's origin pinned down, with the way to fetch it.
type resolved struct {
	origin Origin
	key    store.Key
	fetch  store.MakeFunc
	// family is what this source and those before it are versions of, "" for
	// sources that share no files.
	family string
}

func (f *Fetcher) resolve(ctx context.Context, t Tree) (*resolved, error) {
	switch {
	case t.Debian != nil:
		return f.resolveDebian(ctx, t)
	case t.Tarball != nil:
		return f.resolveTarball(ctx, t)
	case t.Git != nil:
		return f.resolveGit(ctx, t)
	}
	return f.resolveDir(ctx, t)
}

// Resolve pins down which source the tree's name means now: for a package its
// exact version and checksum, for a revision its commit, for a directory its
// content. It fetches at most an index, a tarball or a commit.
func (f *Fetcher) Resolve(ctx context.Context, t Tree) (Origin, store.Key, error) {
	r, err := f.resolve(ctx, t)
	if err != nil {
		return Origin{}, "", f.fail(err, "")
	}
	return r.origin, r.key, nil
}

// Source returns the tree's source, fetching and unpacking it when the store
// does not have it. Errors are *store.StageError.
func (f *Fetcher) Source(ctx context.Context, t Tree) (*Source, error) {
	r, err := f.resolve(ctx, t)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, f.fail(err, "")
	}
	e, err := f.Store.Do(ctx, Stage, r.key, r.fetch)
	if err != nil && ctx.Err() == nil && t.Debian != nil && !f.Refresh {
		// The index may be older than what the mirror has: mirrors drop a
		// version as soon as there is a newer one. Ask anew, once.
		again := *f
		again.Refresh = true
		if newer, rerr := again.resolve(ctx, t); rerr == nil && newer.key != r.key {
			f.warn("%s is gone from the mirror; taking %s", r.origin.Version, newer.origin.Version)
			r = newer
			e, err = f.Store.Do(ctx, Stage, r.key, r.fetch)
		}
	}
	if err != nil {
		return nil, err
	}
	if r.family != "" {
		f.remember(r.family, r.key)
	}
	s := &Source{Tree: t, Origin: r.origin, Dir: filepath.Join(e.Dir, treeDir), Entry: e}
	if s.Version, err = kver.OfTree(s.Dir); err != nil {
		return nil, f.fail(err, e.Log)
	}
	return s, nil
}

func (f *Fetcher) fail(err error, log string) error {
	return &store.StageError{Stage: Stage, Log: log, Fault: store.FaultOf(err), Err: err}
}

func keyOf(o Origin) store.Key {
	// Where a source came from is told by Origin; what it is, by its
	// checksum. The kind tells how to unpack what the checksum is of.
	k := store.NewKey(Stage).Str("format", sourceFormat).Str("kind", o.Kind).Str("sha256", o.SHA256)
	if o.Tree != "" {
		k.Str("tree", o.Tree)
	}
	return k.Key()
}

func logf(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...)
}
