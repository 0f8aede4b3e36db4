// SPDX-License-Identifier: GPL-2.0-only

// Package dev opens a patched kernel tree as a git repository, one commit per
// patch, and writes edited commits back into the series.
package dev

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// Stage is the store's name for pristine trees as git packs.
const Stage = "gitbase"

// notesRef ties commits to patch files. git carries notes over amend and
// rebase when told to, so a commit keeps its patch through any editing.
const notesRef = "refs/notes/nftvm"

// branch is the name of the branch that holds the series.
const branch = "nftvm"

// metaFile, in the repository's .git, says what it was opened from.
const metaFile = "nftvm-dev.json"

// Repo is an opened tree.
type Repo struct {
	Dir string
	// Base is the commit of the pristine tree.
	Base string
	// Patches is how many commits the series made on top of it.
	Patches int
	// Resumed is true when the repository was there already.
	Resumed bool
	// Stale, of a resumed one, says what moved on since it was opened; "" when
	// nothing did.
	Stale string
}

// meta is what Export must know of Open.
type meta struct {
	Tree    string    `json:"tree"`
	Version string    `json:"version"`
	Source  store.Key `json:"source"`
	// Pristine is the source's directory in the store.
	Pristine string      `json:"pristine"`
	Base     string      `json:"base"`
	Series   string      `json:"series"`
	List     string      `json:"list"` // SHA-256 of the series file
	Patches  []metaPatch `json:"patches"`
	// Selftests is the commit that brings them into the tree, "" for none.
	Selftests string `json:"selftests,omitempty"`
}

// metaPatch is a patch as it was when it became a commit.
type metaPatch struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Commit string `json:"commit"`
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func readMeta(dir string) (*meta, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ".git", metaFile))
	if err != nil {
		return nil, err
	}
	m := &meta{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

func (m *meta) write(dir string) error {
	raw, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, ".git", metaFile)
	if err := os.WriteFile(path+".tmp", raw, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// Open makes the repository in dir from the tree's source and the series, or
// goes on with the one that is there. It never touches a directory that it
// did not make. On top of the series it commits the selftests of the directory
// of that name, "" for none; Export leaves that commit out.
func Open(ctx context.Context, st *store.Store, src *tree.Source, s *series.Series, selftests, dir string, log io.Writer) (*Repo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m, err := readMeta(dir)
	if err == nil {
		return resume(dir, m, src, s)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s is there and was not made by nftvm dev; give another directory", dir)
	}
	if err := s.Check(src.Version); err != nil {
		return nil, store.KernelFault(err)
	}
	patches, err := s.Select(src.Version)
	if err != nil {
		return nil, err
	}
	// Ours says what is wrong with a patch better than git am does.
	if _, err := series.Apply(src.Dir, patches); err != nil {
		return nil, err
	}
	base, err := baseEntry(ctx, st, src)
	if err != nil {
		return nil, err
	}

	// Made aside and renamed: a directory that exists is whole.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	g := &git{dir: tmp, log: log}
	commit, err := layBase(ctx, g, base.Dir)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(s.Dir)
	if err != nil {
		return nil, err
	}
	m = &meta{
		Tree: src.Tree.Name, Version: src.Version, Source: src.Entry.Key, Pristine: src.Dir,
		Base: commit, Series: abs,
	}
	list, err := os.ReadFile(s.Path())
	if err != nil {
		return nil, err
	}
	m.List = sum(list)
	for _, p := range patches {
		id, err := commitPatch(ctx, g, p)
		if err != nil {
			return nil, fmt.Errorf("%s as a commit: %w", p.Name, err)
		}
		m.Patches = append(m.Patches, metaPatch{Name: p.Name, SHA256: sum(p.Content), Commit: id})
	}
	if err := note(ctx, g, m.Patches); err != nil {
		return nil, err
	}
	if selftests != "" {
		if m.Selftests, err = commitSelftests(ctx, g, selftests); err != nil {
			return nil, fmt.Errorf("the selftests as a commit: %w", err)
		}
		if err := note(ctx, g, []metaPatch{{Name: selftestsNote, Commit: m.Selftests}}); err != nil {
			return nil, err
		}
	}
	if err := m.write(tmp); err != nil {
		return nil, err
	}
	_ = os.Remove(dir) // empty, or not there
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return &Repo{Dir: dir, Base: commit, Patches: len(patches)}, nil
}

// OpenTree is Open for a tree and a directory of patches; it fetches the tree.
func OpenTree(ctx context.Context, st *store.Store, t tree.Tree, patches, selftests, dir string) (*Repo, *tree.Source, error) {
	s, err := series.Load(patches)
	if err != nil {
		return nil, nil, err
	}
	src, err := (&tree.Fetcher{Store: st}).Source(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	r, err := Open(ctx, st, src, s, selftests, dir, io.Discard)
	return r, src, err
}

func resume(dir string, m *meta, src *tree.Source, s *series.Series) (*Repo, error) {
	if m.Tree != src.Tree.Name {
		return nil, fmt.Errorf("%s holds tree %s, not %s", dir, m.Tree, src.Tree.Name)
	}
	r := &Repo{Dir: dir, Base: m.Base, Patches: len(m.Patches), Resumed: true}
	if m.Source == src.Entry.Key && m.Pristine != src.Dir {
		m.Pristine = src.Dir // another store
		if err := m.write(dir); err != nil {
			return nil, err
		}
	}
	if m.Source != src.Entry.Key {
		r.Stale = fmt.Sprintf("it was opened from %s, the tree is %s now", m.Version, src.Version)
	} else if err := m.unchanged(s); err != nil {
		r.Stale = err.Error()
	}
	return r, nil
}

// unchanged returns an error when the series is not the one that the
// repository was opened from.
func (m *meta) unchanged(s *series.Series) error {
	list, err := os.ReadFile(s.Path())
	if err != nil {
		return err
	}
	if sum(list) != m.List {
		return fmt.Errorf("%s changed since the tree was opened", s.Path())
	}
	now := map[string]string{}
	for _, p := range s.Patches {
		now[p.Name] = sum(p.Content)
	}
	for _, p := range m.Patches {
		if now[p.Name] != p.SHA256 {
			return fmt.Errorf("%s changed since the tree was opened", filepath.Join(s.Dir, p.Name))
		}
	}
	return nil
}

// baseEntry is the pristine tree as one git pack in the store. Making it takes
// half a minute; a repository that links to it is there in seconds.
func baseEntry(ctx context.Context, st *store.Store, src *tree.Source) (*store.Entry, error) {
	key := store.NewKey(Stage).Str("format", "1").Str("source", string(src.Entry.Key)).Key()
	return st.Do(ctx, Stage, key, func(ctx context.Context, dir string, log io.Writer) error {
		g := &git{dir: dir, log: log, env: []string{"GIT_WORK_TREE=" + src.Dir, "GIT_DIR=" + filepath.Join(dir, "git")}}
		if err := g.run(ctx, "init", "-q"); err != nil {
			return err
		}
		// Everything, whatever the tree's .gitignore says, and into a single
		// pack: that is what the threshold of 1 does for files.
		if err := g.run(ctx, "-c", "core.bigFileThreshold=1", "-c", "core.compression=1", "add", "-A", "-f", "."); err != nil {
			return err
		}
		id, err := g.commit(ctx, fmt.Sprintf("Linux %s\n\n%s\n", src.Version, src.Origin), pristineDate)
		if err != nil {
			return err
		}
		if err := g.run(ctx, "repack", "-q", "-a", "-d", "--window=0"); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "commit"), []byte(id), 0o644); err != nil {
			return err
		}
		// Only the pack and the index are of use.
		packs, err := filepath.Glob(filepath.Join(dir, "git/objects/pack/pack-*"))
		if err != nil || len(packs) == 0 {
			return fmt.Errorf("git made no pack: %w", errors.Join(err, fs.ErrNotExist))
		}
		for _, p := range packs {
			if err := os.Rename(p, filepath.Join(dir, filepath.Base(p))); err != nil {
				return err
			}
		}
		return os.RemoveAll(filepath.Join(dir, "git"))
	})
}

// layBase makes g's directory a repository with the pristine tree checked out.
// Its files are copies, not links to the store: editors write in place.
func layBase(ctx context.Context, g *git, base string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(base, "commit"))
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(raw))
	if err := g.run(ctx, "init", "-q", "-b", branch); err != nil {
		return "", err
	}
	packs, err := filepath.Glob(filepath.Join(base, "pack-*"))
	if err != nil {
		return "", err
	}
	for _, p := range packs {
		dst := filepath.Join(g.dir, ".git/objects/pack", filepath.Base(p))
		if os.Link(p, dst) == nil {
			continue
		}
		raw, err := os.ReadFile(p) // another file system
		if err == nil {
			err = os.WriteFile(dst, raw, 0o444)
		}
		if err != nil {
			return "", err
		}
	}
	for _, kv := range [][2]string{
		{"notes.rewriteRef", notesRef}, {"notes.rewriteMode", "concatenate"},
		{"rebase.autoSquash", "true"}, {"core.untrackedCache", "true"},
		{"gc.auto", "0"}, // nothing to gain: one pack and a few commits
	} {
		if err := g.run(ctx, "config", kv[0], kv[1]); err != nil {
			return "", err
		}
	}
	if err := g.run(ctx, "update-ref", "refs/heads/"+branch, id); err != nil {
		return "", err
	}
	if err := g.run(ctx, "reset", "-q", "--hard"); err != nil {
		return "", err
	}
	return id, g.run(ctx, "tag", "pristine", id)
}

// commitPatch applies a patch as a commit with its author, date and message.
func commitPatch(ctx context.Context, g *git, p series.Patch) (string, error) {
	if bytes.HasPrefix(p.Content, []byte("From ")) || bytes.HasPrefix(p.Content, []byte("From: ")) {
		in := *g
		in.stdin = bytes.NewReader(p.Content)
		if err := in.run(ctx, "am", "-q", "--keep-non-patch", "--committer-date-is-author-date"); err != nil {
			return "", err
		}
		return g.out(ctx, "rev-parse", "HEAD")
	}
	// A bare diff: the file's name is all there is to say of it.
	in := *g
	in.stdin = bytes.NewReader(p.Content)
	if err := in.run(ctx, "apply", "--index"); err != nil {
		return "", err
	}
	return g.commit(ctx, strings.TrimSuffix(p.Name, ".patch")+"\n", pristineDate)
}

// note writes the name of its patch to each commit.
func note(ctx context.Context, g *git, patches []metaPatch) error {
	for _, p := range patches {
		if err := g.run(ctx, "notes", "--ref="+notesRef, "add", "-f", "-m", p.Name, p.Commit); err != nil {
			return err
		}
	}
	return nil
}
