// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// Exported is what Export did to the series.
type Exported struct {
	// Series is the directory it wrote to.
	Series string
	// Kept are byte for byte as they were.
	Kept, Changed, Added, Removed []string
}

// commit is one commit on top of the pristine tree.
type commit struct {
	id, subject string
	// was is the patch that it is a version of, nil for a new one.
	was *metaPatch
	// name and content are those of the patch file to write.
	name    string
	content []byte
	kept    bool
	// selftests marks the commit that is made anew each time, and no patch.
	selftests bool
}

// Export writes the commits of the repository in dir back into the series that
// it was opened from. fixup!, squash! and amend! commits are folded first, in
// the repository. others are the kernel versions of the other trees: a patch of
// which the commit is gone is removed from the series only when none of them
// gets it. Nothing is written unless the new series, applied to the pristine
// tree, gives exactly the repository's tree.
func Export(ctx context.Context, dir string, others []string, log io.Writer) (*Exported, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m, err := readMeta(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s was not made by nftvm dev", dir)
	}
	if err != nil {
		return nil, err
	}
	s, err := series.Load(m.Series)
	if err != nil {
		return nil, err
	}
	if err := m.unchanged(s); err != nil {
		return nil, fmt.Errorf("%w; export would undo that. Open the tree again, in another directory, and take your commits there", err)
	}
	g := &git{dir: dir, log: log}
	if err := ready(ctx, g, m); err != nil {
		return nil, err
	}
	if err := fold(ctx, g, m.Base); err != nil {
		return nil, err
	}
	if err := selftestsUntouched(ctx, g, m); err != nil {
		return nil, err
	}
	commits, err := list(ctx, g, m)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, g, commits, s); err != nil {
		return nil, err
	}
	if err := prove(ctx, g, m, commits); err != nil {
		return nil, err
	}
	commits = slices.DeleteFunc(commits, func(c *commit) bool { return c.selftests })
	if err := applies(m, commits); err != nil {
		return nil, err
	}
	x, entries, err := arrange(commits, m, s, others)
	if err != nil {
		return nil, err
	}
	x.Series = s.Dir
	if err := write(s, entries, commits, x.Removed); err != nil {
		return nil, err
	}
	return x, refresh(ctx, g, m, commits, dir)
}

// ready refuses a repository from which an export would not be what its owner
// sees.
func ready(ctx context.Context, g *git, m *meta) error {
	for _, busy := range []string{"rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"} {
		if _, err := os.Stat(filepath.Join(g.dir, ".git", busy)); err == nil {
			return fmt.Errorf("%s is in the middle of a git operation (%s); finish or abort it first", g.dir, busy)
		}
	}
	dirty, err := g.out(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("%s has changes that are in no commit:\n%s\ncommit, stash or remove them first", g.dir, dirty)
	}
	if _, err := g.out(ctx, "merge-base", "--is-ancestor", m.Base, "HEAD"); err != nil {
		return fmt.Errorf("%s: HEAD is not based on the pristine tree (%.12s) any more", g.dir, m.Base)
	}
	merges, err := g.out(ctx, "rev-list", "--merges", m.Base+"..HEAD")
	if err != nil {
		return err
	}
	if merges != "" {
		return fmt.Errorf("%s: commit %.12s is a merge; a series is a line", g.dir, merges)
	}
	return nil
}

var foldRE = regexp.MustCompile(`(?m)^(fixup|squash|amend)! `)

func fold(ctx context.Context, g *git, base string) error {
	subjects, err := g.out(ctx, "log", "--format=%s", base+"..HEAD")
	if err != nil || !foldRE.MatchString(subjects) {
		return err
	}
	if err := g.run(ctx, "-c", "notes.rewriteRef="+notesRef, "rebase", "-q", "-i", "--autosquash", "--keep-empty", base); err != nil {
		_ = g.run(context.WithoutCancel(ctx), "rebase", "--abort")
		return fmt.Errorf("%s: the fixup commits do not fold in: %w; fold them with git rebase -i --autosquash pristine", g.dir, err)
	}
	left, err := g.out(ctx, "log", "--format=%s", base+"..HEAD")
	if err == nil && foldRE.MatchString(left) {
		err = fmt.Errorf("%s: there is no commit for %q", g.dir, foldRE.FindString(left)+"...")
	}
	return err
}

// list reads the commits and finds the patch that each is a version of: by its
// note, else by its subject.
func list(ctx context.Context, g *git, m *meta) ([]*commit, error) {
	out, err := g.out(ctx, "log", "--reverse", "--format=%H%x00%s%x00%N%x01", "--notes="+notesRef, m.Base+"..HEAD")
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	var all []*commit
	for _, rec := range strings.Split(out, "\x01") {
		f := strings.SplitN(strings.TrimLeft(rec, "\n"), "\x00", 3)
		if len(f) != 3 {
			continue
		}
		c := &commit{id: f[0], subject: f[1]}
		all = append(all, c)
		// A squashed commit has the notes of all its parts.
		for _, name := range strings.Fields(f[2]) {
			if name == selftestsNote && m.Selftests != "" {
				c.selftests = true
			}
			if p := m.patch(name); p != nil && !taken[name] {
				c.was, taken[name] = p, true
				break
			}
		}
	}
	for _, p := range m.Patches {
		if taken[p.Name] {
			continue
		}
		subject, err := g.out(ctx, "log", "-1", "--format=%s", p.Commit)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.was == nil && !c.selftests && c.subject == subject {
				c.was, taken[p.Name] = m.patch(p.Name), true
				break
			}
		}
	}
	return all, nil
}

func (m *meta) patch(name string) *metaPatch {
	for i := range m.Patches {
		if m.Patches[i].Name == name {
			return &m.Patches[i]
		}
	}
	return nil
}

// fill gives each commit its patch file. A commit that says and changes what
// it did before keeps its file to the byte, also where the patches before it
// moved its hunks.
func fill(ctx context.Context, g *git, commits []*commit, s *series.Series) error {
	taken := map[string]bool{}
	next := 1
	old := map[string][]byte{}
	for _, p := range s.Patches {
		taken[p.Name] = true
		old[p.Name] = p.Content
		if n, err := strconv.Atoi(leadingDigits(p.Name)); err == nil && n >= next {
			next = n + 1
		}
	}
	for _, c := range commits {
		switch {
		case c.selftests:
			c.name = selftestsNote
		case c.was == nil:
			c.name = fmt.Sprintf("%04d-%s.patch", next, slug(c.subject))
			next++
			if taken[c.name] {
				return fmt.Errorf("%s is there already", c.name)
			}
			taken[c.name] = true
		default:
			c.name = c.was.Name
			same, err := sameCommit(ctx, g, c.was.Commit, c.id)
			if err != nil {
				return err
			}
			if same {
				c.content, c.kept = old[c.name], true
				continue
			}
		}
		text, err := formatPatch(ctx, g, c.id)
		if err != nil {
			return err
		}
		c.content = text
		c.kept = c.was != nil && bytes.Equal(text, old[c.name])
	}
	return nil
}

func sameCommit(ctx context.Context, g *git, a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	var said [2]string
	for i, id := range []string{a, b} {
		head, err := g.out(ctx, "log", "-1", "--format=%an%n%ae%n%aI%n%B", id)
		if err != nil {
			return false, err
		}
		diff, err := g.raw(ctx, "diff-tree", "-p", "--no-ext-diff", "--full-index", "--binary", id)
		if err != nil {
			return false, err
		}
		in := *g
		in.stdin = bytes.NewReader(diff)
		pid, err := in.out(ctx, "patch-id", "--verbatim")
		if err != nil {
			return false, err
		}
		pid, _, _ = strings.Cut(pid, " ")
		modes, err := g.out(ctx, "diff-tree", "-r", "--no-commit-id", "--format=", "--summary", id)
		if err != nil {
			return false, err
		}
		said[i] = head + "\x00" + pid + "\x00" + modes
	}
	return said[0] == said[1], nil
}

// formatPatch writes a commit as a patch file that depends on the commit alone:
// no hash of it, no version of git, no numbering, no index lines.
func formatPatch(ctx context.Context, g *git, id string) ([]byte, error) {
	// Two lines of context instead of three: a patch serves several trees,
	// and its surroundings differ among them.
	raw, err := g.raw(ctx, "format-patch", "-1", "--stdout", "-p", "--zero-commit", "--no-signature", "--no-numbered",
		"--subject-prefix=PATCH", "--no-encode-email-headers", "--full-index", "--binary", "--no-ext-diff", "--diff-algorithm=myers",
		"--unified=2", "--src-prefix=a/", "--dst-prefix=b/", "--no-relative", id)
	if err != nil {
		return nil, err
	}
	return dropIndex(raw), nil
}

// dropIndex removes the index lines of text diffs: they name blobs, which
// differ from tree to tree. A binary diff needs its own.
func dropIndex(raw []byte) []byte {
	var out bytes.Buffer
	lines := bytes.SplitAfter(raw, []byte("\n"))
	diff := false
	for i, l := range lines {
		if bytes.HasPrefix(l, []byte("diff --git ")) {
			diff = true
		}
		binary := i+1 < len(lines) && bytes.HasPrefix(lines[i+1], []byte("GIT binary patch"))
		// Lines of a hunk begin with " ", "+" or "-": this is a header.
		if diff && bytes.HasPrefix(l, []byte("index ")) && !binary {
			continue
		}
		out.Write(l)
	}
	return out.Bytes()
}

// arrange lays out the new list: the commits' patches in their order, each
// followed by those patches of other trees that followed it before.
func arrange(commits []*commit, m *meta, s *series.Series, others []string) (*Exported, []series.Entry, error) {
	x := &Exported{}
	byName := map[string]*commit{}
	for _, c := range commits {
		byName[c.name] = c
		switch {
		case c.was == nil:
			x.Added = append(x.Added, c.name)
		case c.kept:
			x.Kept = append(x.Kept, c.name)
		default:
			x.Changed = append(x.Changed, c.name)
		}
	}
	follow := map[string][]series.Entry{} // patches of other trees, by their predecessor of this one
	mine := map[string]series.Entry{}
	last := ""
	for _, e := range s.Entries() {
		switch {
		case m.patch(e.Name) == nil:
			follow[last] = append(follow[last], e)
		case byName[e.Name] != nil:
			mine[e.Name] = e
			last = e.Name
		default:
			if who := gets(e, s, others); who != "" {
				return nil, nil, fmt.Errorf("the commit of %s is gone, but kernel %s gets that patch too (range %q); "+
					"give it a range without %s in %s, or remove it there by hand", e.Name, who, e.Range, who, s.Path())
			}
			x.Removed = append(x.Removed, e.Name)
		}
	}
	out := follow[""]
	for _, c := range commits {
		e, ok := mine[c.name]
		if !ok {
			e = series.Entry{Name: c.name, Line: c.name}
		}
		out = append(append(out, e), follow[c.name]...)
	}
	return x, out, nil
}

// gets is the first of the versions that the series supports and that is in
// the entry's range.
func gets(e series.Entry, s *series.Series, versions []string) string {
	for _, v := range versions {
		in, err := e.Range.Has(v)
		if err == nil && in && s.Check(v) == nil {
			return v
		}
	}
	return ""
}

// applies checks that the series needs nothing of the commit that is no part
// of it.
func applies(m *meta, commits []*commit) error {
	var patches []series.Patch
	for _, c := range commits {
		patches = append(patches, series.Patch{Name: c.name, Content: c.content})
	}
	if _, err := series.Apply(m.Pristine, patches); err != nil {
		return fmt.Errorf("the exported series would not apply without the selftests' commit: %w", err)
	}
	return nil
}

// prove applies the patches as they will be written and compares the result
// with the repository's tree, file by file.
func prove(ctx context.Context, g *git, m *meta, commits []*commit) error {
	var patches []series.Patch
	for _, c := range commits {
		patches = append(patches, series.Patch{Name: c.name, Content: c.content})
	}
	if _, err := os.Stat(m.Pristine); err != nil {
		return fmt.Errorf("the pristine source is gone from the store: %w; open the tree again to bring it back", err)
	}
	o, err := series.Apply(m.Pristine, patches)
	if err != nil {
		return fmt.Errorf("the exported series would not apply: %w", err)
	}
	out, err := g.raw(ctx, "diff", "--name-only", "--no-renames", "-z", m.Base, "HEAD")
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, p := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if p != "" {
			want[p] = true
		}
	}
	for _, f := range o.Files {
		if !want[f.Path] {
			return fmt.Errorf("the exported series would change %s, the commits do not", f.Path)
		}
		delete(want, f.Path)
		if f.Deleted() {
			continue
		}
		blob, err := g.raw(ctx, "cat-file", "blob", "HEAD:"+f.Path)
		if err != nil {
			return err
		}
		if sum(blob) != f.SHA256 {
			return fmt.Errorf("the exported series would make another %s than the commits", f.Path)
		}
	}
	for p := range want {
		return fmt.Errorf("the exported series would not change %s, the commits do", p)
	}
	return nil
}

// write puts the patches and then the list in place, each whole or not at all;
// a patch goes only when no list names it any more.
func write(s *series.Series, entries []series.Entry, commits []*commit, removed []string) error {
	for _, c := range commits {
		if c.kept {
			continue
		}
		if err := replace(filepath.Join(s.Dir, c.name), c.content); err != nil {
			return err
		}
	}
	if err := replace(s.Path(), s.Rewrite(entries)); err != nil {
		return err
	}
	for _, name := range removed {
		if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func replace(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".nftvm-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// refresh makes the repository one that was just opened from the new series.
func refresh(ctx context.Context, g *git, m *meta, commits []*commit, dir string) error {
	s, err := series.Load(m.Series)
	if err != nil {
		return err
	}
	list, err := os.ReadFile(s.Path())
	if err != nil {
		return err
	}
	m.List, m.Patches = sum(list), nil
	for _, c := range commits {
		m.Patches = append(m.Patches, metaPatch{Name: c.name, SHA256: sum(c.content), Commit: c.id})
	}
	if err := note(ctx, g, m.Patches); err != nil {
		return err
	}
	return m.write(dir)
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

var notSlug = regexp.MustCompile(`[^A-Za-z0-9._]+`)

// slug is a subject as git format-patch makes file names of it.
func slug(subject string) string {
	s := strings.Trim(notSlug.ReplaceAllString(subject, "-"), "-.")
	if len(s) > 52 {
		s = strings.Trim(s[:52], "-.")
	}
	if s == "" {
		return "patch"
	}
	return s
}
