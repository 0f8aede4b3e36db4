// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// author is a repository as an author has it.
type author struct {
	t   *testing.T
	dir string
	// ids are the commits by their names.
	ids map[string]string
}

// newAuthor makes a repository of commits, each "NAME PARENT..."; the last one
// is master.
func newAuthor(t *testing.T, commits ...string) *author {
	t.Helper()
	a := &author{t: t, dir: t.TempDir(), ids: map[string]string{}}
	a.git("init", "-q", "-b", "master", ".")
	var b strings.Builder
	marks := map[string]int{}
	for i, c := range commits {
		f := strings.Fields(c)
		name := f[0]
		marks[name] = i + 1
		fmt.Fprintf(&b, "commit refs/heads/master\nmark :%d\ncommitter A <a@b> %d +0000\ndata <<.\nchange %s\n.\n", i+1, 1700000000+i*60, name)
		files := []string{name}
		for j, parent := range f[1:] {
			fmt.Fprintf(&b, "%s :%d\n", []string{"from", "merge"}[min(j, 1)], marks[parent])
			if j > 0 {
				files = append(files, parent)
			}
		}
		for _, f := range files {
			fmt.Fprintf(&b, "M 644 inline file-%s\ndata <<.\n%s\n.\n", f, f)
		}
		b.WriteString("\n")
	}
	cmd := exec.Command("git", "-C", a.dir, "fast-import", "--quiet", "--export-marks="+filepath.Join(a.dir, "marks"))
	cmd.Stdin = strings.NewReader(b.String())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	raw, err := os.ReadFile(filepath.Join(a.dir, "marks"))
	require.NoError(t, err)
	byMark := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		mark, id, _ := strings.Cut(l, " ")
		byMark[mark] = id
	}
	for name, m := range marks {
		a.ids[name] = byMark[fmt.Sprintf(":%d", m)]
	}
	require.NoError(t, os.Remove(filepath.Join(a.dir, "marks")))
	a.git("reset", "-q", "--hard")
	return a
}

// row is n commits in a row, named 0 to n-1.
func row(n int) []string {
	out := []string{"0"}
	for i := 1; i < n; i++ {
		out = append(out, fmt.Sprintf("%d %d", i, i-1))
	}
	return out
}

// numbers are the places of a row's commits.
func (a *author) numbers() map[string]int {
	n := map[string]int{}
	for name, id := range a.ids {
		i, err := strconv.Atoi(name)
		require.NoError(a.t, err)
		n[id] = i
	}
	return n
}

func (a *author) git(args ...string) string {
	a.t.Helper()
	out, err := gitIn(a.dir, args...)
	require.NoError(a.t, err, out)
	return out
}

func gitIn(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=A", "-c", "user.email=a@b"}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "GIT_DIR=") })
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// has says whether one commit is in another's history.
func (a *author) has(commit, in string) bool {
	_, err := gitIn(a.dir, "merge-base", "--is-ancestor", a.ids[commit], in)
	return err == nil
}

// state is the content of every file, git's own among them.
func (a *author) state() map[string]string {
	all := map[string]string{}
	require.NoError(a.t, filepath.WalkDir(a.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		all[p] = fi.Mode().String()
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			all[p] += fmt.Sprintf(" %d %x", fi.ModTime().UnixNano(), sha256.Sum256(raw))
		}
		return nil
	}))
	return all
}

// judged is a fake judge: of who has asked and what the answer was.
type judged struct {
	verdict func(id string) Verdict
	asked   []string
}

func (j *judged) judge(_ context.Context, p Point) (Result, error) {
	j.asked = append(j.asked, p.Key)
	return Result{Verdict: j.verdict(p.Key)}, nil
}

// bisect goes the whole way of a search over git.
func (a *author) bisect(out, good, bad string, judge Judge) (Culprits, error) {
	ctx := a.t.Context()
	r, err := OpenRepo(ctx, a.dir, out)
	if err != nil {
		return Culprits{}, err
	}
	g, err := r.Commit(ctx, "--good", good)
	if err != nil {
		return Culprits{}, err
	}
	b, err := r.Commit(ctx, "--bad", bad)
	if err != nil {
		return Culprits{}, err
	}
	if err := r.Check(ctx, g, b); err != nil {
		return Culprits{}, err
	}
	gp, err := r.Point(ctx, g)
	require.NoError(a.t, err)
	bp, err := r.Point(ctx, b)
	require.NoError(a.t, err)
	if err := Ends(ctx, judge, gp, bp, func(Result) {}); err != nil {
		return Culprits{}, err
	}
	return r.Bisect(ctx, g, b, filepath.Join(out, LogFile), judge, func(string, ...any) {})
}

func TestSixtyFourCommits(t *testing.T) {
	a := newAuthor(t, row(65)...)
	before := a.state()
	number := a.numbers()
	for _, culprit := range []string{"1", "17", "33", "64"} {
		j := &judged{verdict: func(id string) Verdict {
			if number[id] >= number[a.ids[culprit]] {
				return Bad
			}
			return Good
		}}
		out := t.TempDir()
		c, err := a.bisect(out, "master~64", "master", j.judge)
		require.NoError(t, err)
		require.Equal(t, []string{a.ids[culprit]}, c.IDs, culprit)
		require.Empty(t, c.Doubt)
		steps := len(j.asked) - 2
		require.LessOrEqual(t, steps, 7)
		require.GreaterOrEqual(t, steps, 6)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(j.asked))), len(j.asked), "nothing is asked twice")

		// Somebody else's git comes to the same answer from the log.
		clone := filepath.Join(t.TempDir(), "clone")
		_, err = gitIn(t.TempDir(), "clone", "-q", a.dir, clone)
		require.NoError(t, err)
		said, err := gitIn(clone, "bisect", "replay", filepath.Join(out, LogFile))
		require.NoError(t, err, said)
		require.Contains(t, said, a.ids[culprit]+" is the first bad commit")
	}
	j := &judged{verdict: func(id string) Verdict {
		if id == a.ids["64"] {
			return Bad
		}
		return Good
	}}
	c, err := a.bisect(t.TempDir(), "master~1", "master", j.judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["64"]}, c.IDs)
	require.Len(t, j.asked, 2, "there is nothing between them")
	require.Equal(t, before, a.state(), "nothing of the author's may change")
}

// A repository in the middle of something is only read.
func TestOfARepositoryThatIsRebasing(t *testing.T) {
	a := newAuthor(t, row(9)...)
	a.git("checkout", "-q", "-b", "side", "master~3")
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "file-8"), []byte("conflict\n"), 0o644))
	a.git("add", ".")
	a.git("commit", "-q", "-m", "conflict")
	_, err := gitIn(a.dir, "rebase", "master")
	require.Error(t, err)
	require.DirExists(t, filepath.Join(a.dir, ".git", "rebase-merge"))
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "file-1"), []byte("dirty\n"), 0o644))
	before := a.state()
	// Nor does what the user's own configuration forbids.
	config := filepath.Join(t.TempDir(), "gitconfig")
	require.NoError(t, os.WriteFile(config, []byte("[safe]\n\tbareRepository = explicit\n"), 0o644))
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	// Variables of a hook that nftvm is run from do not lead it elsewhere.
	t.Setenv("GIT_DIR", filepath.Join(t.TempDir(), "nowhere"))
	j := &judged{verdict: func(id string) Verdict {
		if a.has("5", id) {
			return Bad
		}
		return Good
	}}
	c, err := a.bisect(t.TempDir(), a.ids["0"], "master", j.judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["5"]}, c.IDs)
	require.Equal(t, before, a.state())
}

// The bug comes with a commit of a branch that is merged, and with one on main.
func TestMerges(t *testing.T) {
	commits := []string{"root", "m1 root", "s1 root", "s2 s1", "s3 s2", "m2 m1", "merge m2 s3", "m3 merge", "m4 m3"}
	a := newAuthor(t, commits...)
	for _, culprit := range []string{"m1", "s1", "s3", "m2", "merge", "m4"} {
		j := &judged{verdict: func(id string) Verdict {
			if a.has(culprit, id) {
				return Bad
			}
			return Good
		}}
		c, err := a.bisect(t.TempDir(), a.ids["root"], "master", j.judge)
		require.NoError(t, err)
		require.Equal(t, []string{a.ids[culprit]}, c.IDs, culprit)
	}
}

// Good is on a branch of its own: git looks at where they part first.
func TestGoodIsNoAncestor(t *testing.T) {
	commits := []string{"root", "fork root", "g1 fork", "b1 fork", "b2 b1", "b3 b2"}
	for _, tt := range []struct {
		name    string
		verdict func(a *author, id string) Verdict
		ids     string
		err     string
		doubt   bool
	}{
		{name: "broke on the way to bad", ids: "b2", verdict: func(a *author, id string) Verdict {
			if a.has("b2", id) {
				return Bad
			}
			return Good
		}},
		{name: "mended on the way to good", err: "mended on the way to --good", verdict: func(a *author, id string) Verdict {
			if a.has("g1", id) {
				return Good
			}
			return Bad
		}},
		{name: "nobody can tell where they part", ids: "b2", doubt: true, verdict: func(a *author, id string) Verdict {
			switch {
			case id == a.ids["fork"]:
				return Skip
			case a.has("b2", id):
				return Bad
			}
			return Good
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthor(t, commits...)
			j := &judged{verdict: func(id string) Verdict { return tt.verdict(a, id) }}
			c, err := a.bisect(t.TempDir(), a.ids["g1"], "master", j.judge)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{a.ids[tt.ids]}, c.IDs)
			require.Equal(t, tt.doubt, c.Doubt != "")
		})
	}
}

func TestSkipsAroundTheCulprit(t *testing.T) {
	a := newAuthor(t, row(33)...)
	number := a.numbers()
	judge := func(skip func(i int) bool) *judged {
		return &judged{verdict: func(id string) Verdict {
			switch i := number[id]; {
			case skip(i):
				return Skip
			case i >= 16:
				return Bad
			}
			return Good
		}}
	}
	// Those that cannot be judged lie elsewhere: the answer is exact.
	j := judge(func(i int) bool { return i >= 5 && i <= 10 || i >= 20 && i <= 24 })
	c, err := a.bisect(t.TempDir(), a.ids["0"], "master", j.judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["16"]}, c.IDs)

	// They hide it: every commit that it may be is named, and no other.
	j = judge(func(i int) bool { return i >= 14 && i <= 17 })
	c, err = a.bisect(t.TempDir(), a.ids["0"], "master", j.judge)
	require.NoError(t, err)
	var want []string
	for i := 14; i <= 18; i++ {
		want = append(want, a.ids[fmt.Sprint(i)])
	}
	require.ElementsMatch(t, want, c.IDs)
}

func TestBadEnds(t *testing.T) {
	a := newAuthor(t, row(8)...)
	always := func(v Verdict) func(string) Verdict { return func(string) Verdict { return v } }
	lone := newAuthor(t, "x")
	a.git("fetch", "-q", lone.dir, "master:lone")
	for _, tt := range []struct {
		name      string
		good, bad string
		verdict   func(id string) Verdict
		err       string
		asked     int
	}{
		{"unknown", "v0.0-nothing", "master", always(Bad), "--good v0.0-nothing: " + a.dir + " has no such commit", 0},
		{"an option", "--all", "master", always(Bad), "--good --all: " + a.dir + " has no such commit", 0},
		{"a file", "master:file-1", "master", always(Bad), "has no such commit", 0},
		{"swapped by history", "master", "master~5", always(Bad), "good and bad are swapped: --bad", 0},
		{"the same", "master~0", "master", always(Bad), "the same commit", 0},
		{"nothing in common", "lone", "master", always(Bad), "no history in common", 0},
		{"fails on both", "master~5", "master", always(Bad), "fails on both ends", 2},
		{"passes on both", "master~5", "master", always(Good), "passes on both ends", 2},
		{"bad cannot be judged", "master~5", "master", always(Skip), "the bad end, ", 1},
		{"swapped by verdict", "master~5", "master", func(id string) Verdict {
			if a.has("7", id) {
				return Good
			}
			return Bad
		}, "good and bad are swapped: the test fails at ", 2},
		{"good cannot be judged", "master~5", "master", func(id string) Verdict {
			if a.has("7", id) {
				return Bad
			}
			return Skip
		}, "the good end, ", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := &judged{verdict: tt.verdict}
			_, err := a.bisect(t.TempDir(), tt.good, tt.bad, j.judge)
			require.ErrorContains(t, err, tt.err)
			require.NotContains(t, err.Error(), "\n", "one sentence")
			require.Len(t, j.asked, tt.asked)
		})
	}
	_, err := OpenRepo(t.Context(), t.TempDir(), t.TempDir())
	require.ErrorContains(t, err, "is not a git repository")
	_, err = OpenRepo(t.Context(), filepath.Join(a.dir, "none"), t.TempDir())
	require.ErrorContains(t, err, "no such directory")
}

func TestShallow(t *testing.T) {
	full := newAuthor(t, row(20)...)
	full.git("branch", "old", full.ids["2"])
	dir := filepath.Join(t.TempDir(), "shallow")
	_, err := gitIn(t.TempDir(), "clone", "-q", "--depth", "8", "file://"+full.dir, dir)
	require.NoError(t, err)
	_, err = gitIn(dir, "fetch", "-q", "--depth", "1", "origin", "old:old")
	require.NoError(t, err)
	a := &author{t: t, dir: dir, ids: full.ids}
	before := a.state()
	j := &judged{verdict: func(id string) Verdict {
		if full.has("15", id) {
			return Bad
		}
		return Good
	}}
	_, err = a.bisect(t.TempDir(), "old", "master", j.judge)
	require.ErrorContains(t, err, "is shallow")
	require.ErrorContains(t, err, "fetch --unshallow")
	_, err = a.bisect(t.TempDir(), full.ids["5"], "master", j.judge)
	require.ErrorContains(t, err, "it is shallow, and may lack older ones")
	require.Empty(t, j.asked)

	// What there is of its history is enough.
	c, err := a.bisect(t.TempDir(), "master~7", "master", j.judge)
	require.NoError(t, err)
	require.Equal(t, []string{full.ids["15"]}, c.IDs)
	require.Equal(t, before, a.state())
}

// A work tree of its own, a bare repository and a directory inside one do, too.
func TestKindsOfRepositories(t *testing.T) {
	a := newAuthor(t, row(9)...)
	root := t.TempDir()
	a.git("worktree", "add", "-q", filepath.Join(root, "tree"), "master~1")
	_, err := gitIn(root, "clone", "-q", "--bare", a.dir, "bare")
	require.NoError(t, err)
	inside := filepath.Join(a.dir, "sub")
	require.NoError(t, os.Mkdir(inside, 0o755))
	for _, dir := range []string{filepath.Join(root, "tree"), filepath.Join(root, "bare"), inside} {
		j := &judged{verdict: func(id string) Verdict {
			if a.has("3", id) {
				return Bad
			}
			return Good
		}}
		b := &author{t: t, dir: dir, ids: a.ids}
		c, err := b.bisect(t.TempDir(), a.ids["0"], "master", j.judge)
		require.NoError(t, err)
		require.Equal(t, []string{a.ids["3"]}, c.IDs)
	}
}

func TestStatOfAMergeIsWhatItBrings(t *testing.T) {
	a := newAuthor(t, "root", "m1 root", "s1 root", "merge m1 s1")
	r, err := OpenRepo(t.Context(), a.dir, t.TempDir())
	require.NoError(t, err)
	stat, err := r.Stat(t.Context(), a.ids["merge"])
	require.NoError(t, err)
	require.Contains(t, stat, "change merge")
	require.Contains(t, stat, "file-merge")
	require.Contains(t, stat, "file-s1")
	require.NotContains(t, stat, "file-m1")
	parents, err := r.Parents(t.Context(), a.ids["merge"])
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["m1"], a.ids["s1"]}, parents)
}

func TestAnErrorOfTheJudgeEndsTheSearch(t *testing.T) {
	a := newAuthor(t, row(9)...)
	broken := errors.New("no space left")
	n := 0
	_, err := a.bisect(t.TempDir(), a.ids["0"], "master", func(_ context.Context, p Point) (Result, error) {
		if n++; n > 3 {
			return Result{}, broken
		}
		if p.Key == a.ids["0"] {
			return Result{Verdict: Good}, nil
		}
		return Result{Verdict: Bad}, nil
	})
	require.ErrorIs(t, err, broken)
	require.Equal(t, 4, n)
}
