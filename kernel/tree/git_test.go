// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// gitRepo is a repository with a commit of a tiny kernel.
type gitRepo struct {
	t   *testing.T
	dir string
}

func newGit(t *testing.T) *gitRepo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	r := &gitRepo{t, mini(t)}
	r.git("init", "-q", "-b", "main")
	r.commit("one")
	return r
}

func (r *gitRepo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.invalid"}, args...)...)
	cmd.Dir = r.dir
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, string(out))
	return strings.TrimSpace(string(out))
}

func (r *gitRepo) commit(subject string) string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", subject)
	return r.git("rev-parse", "HEAD")
}

func (r *gitRepo) at(rev string) Tree {
	return Tree{Name: "t", Git: &Git{Repo: r.dir, Rev: rev}}
}

// state is everything in the repository and its work tree.
func (r *gitRepo) state() map[string]string {
	r.t.Helper()
	files := map[string]string{}
	require.NoError(r.t, filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		files[path] = fi.ModTime().String()
		return nil
	}))
	return files
}

func TestGitSource(t *testing.T) {
	f, r := fetcher(t), newGit(t)
	one := r.git("rev-parse", "HEAD")
	put(t, r.dir, "net/a.c", "b\n")
	require.NoError(t, os.Remove(filepath.Join(r.dir, "tool.sh")))
	put(t, r.dir, "net/new/n.c", "n\n")
	two := r.commit("two")
	put(t, r.dir, "net/a.c", "not committed\n")
	before := r.state()

	s, err := f.Source(t.Context(), r.at("HEAD~1"))
	require.NoError(t, err)
	require.Equal(t, "7.3.4", s.Version)
	require.Equal(t, "git "+r.dir+" HEAD~1 commit "+one, s.Origin.String())
	target, err := os.Readlink(filepath.Join(s.Dir, "link"))
	require.NoError(t, err)
	require.Equal(t, "net/a.c", target)
	fi, err := os.Stat(filepath.Join(s.Dir, "tool.sh"))
	require.NoError(t, err)
	require.EqualValues(t, 0o100, fi.Mode().Perm()&0o100)

	n, err := f.Source(t.Context(), r.at("main"))
	require.NoError(t, err)
	require.Equal(t, two, n.Origin.Commit)
	raw, err := os.ReadFile(filepath.Join(n.Dir, "net/a.c"))
	require.NoError(t, err)
	require.Equal(t, "b\n", string(raw), "what is committed, not what lies there")
	require.NoFileExists(t, filepath.Join(n.Dir, "tool.sh"))
	require.FileExists(t, filepath.Join(n.Dir, "net/new/n.c"))
	require.True(t, sameFile(t, filepath.Join(s.Dir, "Makefile"), filepath.Join(n.Dir, "Makefile")), "neighbours share what is the same")
	require.NoFileExists(t, filepath.Join(n.Entry.Dir, "index"))
	require.Equal(t, before, r.state(), "the repository stays as it is")

	// Without the neighbour all of it is fetched.
	require.NoError(t, f.Store.Drop(Stage, s.Entry.Key))
	require.NoError(t, f.Store.Drop(Stage, n.Entry.Key))
	n, err = f.Source(t.Context(), r.at(two[:12]))
	require.NoError(t, err)
	require.False(t, n.Entry.Cached)
	require.FileExists(t, filepath.Join(n.Dir, "Makefile"))
}

// A commit that changes nothing of a part has the same one.
func TestPart(t *testing.T) {
	f, r := fetcher(t), newGit(t)
	part := func() string {
		s, err := f.Source(t.Context(), r.at("HEAD"))
		require.NoError(t, err)
		p, err := s.Part(func(path string) bool { return path == "Makefile" || path == "tool.sh" })
		require.NoError(t, err)
		return p
	}
	one := part()
	put(t, r.dir, "net/a.c", "b\n")
	r.commit("two")
	require.Equal(t, one, part())
	require.NoError(t, os.Chmod(filepath.Join(r.dir, "tool.sh"), 0o644))
	r.commit("mode")
	mode := part()
	require.NotEqual(t, one, mode)
	require.NoError(t, os.Remove(filepath.Join(r.dir, "tool.sh")))
	r.commit("gone")
	require.NotEqual(t, mode, part())
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	fa, err := os.Stat(a)
	require.NoError(t, err)
	fb, err := os.Stat(b)
	require.NoError(t, err)
	return os.SameFile(fa, fb)
}

// The same tree by another commit is the same source.
func TestGitKeyIsTheTree(t *testing.T) {
	f, r := fetcher(t), newGit(t)
	_, one, err := f.Resolve(t.Context(), r.at("HEAD"))
	require.NoError(t, err)
	r.git("commit", "-q", "--allow-empty", "-m", "nothing")
	_, two, err := f.Resolve(t.Context(), r.at("HEAD"))
	require.NoError(t, err)
	require.Equal(t, one, two)
}

func TestGitPlaces(t *testing.T) {
	r := newGit(t)
	for name, c := range map[string]struct{ make func(dir string) string }{
		"bare":        {func(dir string) string { r.git("clone", "-q", "--bare", r.dir, dir); return dir }},
		"linked tree": {func(dir string) string { r.git("worktree", "add", "-q", "--detach", dir); return dir }},
		"shallow":     {func(dir string) string { r.git("clone", "-q", "--depth=1", "file://"+r.dir, dir); return dir }},
		"in a rebase": {func(string) string {
			put(t, r.dir, ".git/rebase-merge/head-name", "refs/heads/main\n")
			return r.dir
		}},
	} {
		t.Run(name, func(t *testing.T) {
			repo := c.make(filepath.Join(t.TempDir(), "r"))
			s, err := fetcher(t).Source(t.Context(), Tree{Name: "t", Git: &Git{Repo: repo, Rev: "HEAD"}})
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(s.Dir, "net/a.c"))
		})
	}
}

func TestGitErrors(t *testing.T) {
	r := newGit(t)
	shallow := filepath.Join(t.TempDir(), "r")
	r.commitEmpty("two")
	r.git("clone", "-q", "--depth=1", "file://"+r.dir, shallow)
	for name, c := range map[string]struct{ repo, rev, want string }{
		"no repository": {t.TempDir(), "HEAD", "is not a git repository that can be read"},
		"no revision":   {r.dir, "v9.9", `has no commit "v9.9"; see: git -C ` + r.dir + " log --oneline --all"},
		"shallow":       {shallow, "HEAD~1", "it is shallow and may lack it; get more with: git -C " + shallow + " fetch --unshallow"},
		"no address":    {"file:///nowhere/at/all", "main", `cannot get "main" from file:///nowhere/at/all`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fetcher(t).Source(t.Context(), Tree{Name: "t", Git: &Git{Repo: c.repo, Rev: c.rev}})
			require.ErrorContains(t, err, c.want)
			require.Equal(t, store.Harness, store.FaultOf(err))
		})
	}
}

func (r *gitRepo) commitEmpty(subject string) {
	r.t.Helper()
	r.git("commit", "-q", "--allow-empty", "-m", subject)
}

// From an address comes one commit, and a name is asked for again only when it
// is old, or when the user wants to know.
func TestGitAddress(t *testing.T) {
	r, f := newGit(t), fetcher(t)
	r.commitEmpty("two")
	at := Tree{Name: "t", Git: &Git{Repo: "file://" + r.dir, Rev: "main"}}
	s, err := f.Source(t.Context(), at)
	require.NoError(t, err)
	first := s.Origin.Commit
	ours := filepath.Join(f.Store.Dir(), "git", short(at.Git.Repo))
	n, err := gitLine(t.Context(), ours, "rev-list", "--count", "refs/nftvm/"+short("main"))
	require.NoError(t, err)
	require.Equal(t, "1", n)

	put(t, r.dir, "net/a.c", "b\n")
	second := r.commit("three")
	o, _, err := f.Resolve(t.Context(), at)
	require.NoError(t, err)
	require.Equal(t, first, o.Commit, "asked a moment ago")
	fresh := *f
	fresh.Refresh = true
	o, _, err = fresh.Resolve(t.Context(), at)
	require.NoError(t, err)
	require.Equal(t, second, o.Commit)

	// The server is gone, and what it said is old.
	old := time.Now().Add(-2 * MaxIndexAge)
	require.NoError(t, os.Chtimes(filepath.Join(ours, "nftvm-"+short("main")), old, old))
	require.NoError(t, os.Rename(r.dir, r.dir+".gone"))
	var warned string
	f.Warn = func(msg string) { warned = msg }
	o, _, err = f.Resolve(t.Context(), at)
	require.NoError(t, err)
	require.Equal(t, second, o.Commit)
	require.Contains(t, warned, "as it was fetched last")
	fresh.Refresh = true
	_, _, err = fresh.Resolve(t.Context(), at)
	require.ErrorContains(t, err, `cannot get "main"`)
}
