// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

type bench struct {
	t       *testing.T
	st      *store.Store
	src     *tree.Source
	patches string
	// selftests is the directory of that name, "" for none.
	selftests string
	dir       string
}

const lines = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"

func mail(subject, file string) string {
	return "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n" +
		"From: =?UTF-8?q?J=C3=BCrgen?= <j@example.invalid>\nDate: Thu, 1 Jan 2026 12:00:00 +0100\n" +
		"Subject: [PATCH 3/9] " + subject + "\n\nThe problem first.\n\nSigned-off-by: J <j@example.invalid>\n---\n a note of the author\n\n" +
		"diff --git a/" + file + " b/" + file + "\nindex 1234567..abcdef0 100644\n--- a/" + file + "\n+++ b/" + file + "\n@@"
}

// at changes line n of a file, with its neighbours as context.
func at(subject, file string, n int, to string) string {
	l := strings.SplitAfter(lines, "\n")
	head, _, _ := strings.Cut(mail(subject, file), "@@")
	return head + fmt.Sprintf("@@ -%d,3 +%d,3 @@\n %s-%s+%s %s-- \n2.30.1\n\n", n-1, n-1, l[n-2], l[n-1], to, l[n])
}

func newBench(t *testing.T) *bench {
	t.Helper()
	root := t.TempDir()
	b := &bench{t: t, patches: filepath.Join(root, "patches"), dir: filepath.Join(root, "dev", "7.3")}
	b.put(filepath.Join(root, "linux/Makefile"), "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
	b.put(filepath.Join(root, "linux/net/a.c"), lines)
	b.put(filepath.Join(root, "linux/net/b.c"), lines)
	b.put(filepath.Join(root, "linux/.gitignore"), "*.o\n*.cfg\n")
	b.put(filepath.Join(root, "linux/kept.cfg"), "ignored by git, part of the tree\n")
	b.put(filepath.Join(b.patches, "series"), "# head\n# supports: >= 6.12\n\n0001-a.patch\n# glue below\n0002-glue.patch  >= 6.12, < 7.0\n0003-b.patch   # b\n0004-only.patch >= 7.3\n")
	b.put(filepath.Join(b.patches, "0001-a.patch"), at("net: change a", "net/a.c", 3, "three\n"))
	b.put(filepath.Join(b.patches, "0002-glue.patch"), at("net: glue", "net/a.c", 9, "nine\n"))
	b.put(filepath.Join(b.patches, "0003-b.patch"), at("net: change b", "net/b.c", 3, "three\n"))
	b.put(filepath.Join(b.patches, "0004-only.patch"), at("net: only here", "net/b.c", 8, "eight\n"))
	var err error
	b.st, err = store.Open(filepath.Join(root, "store"))
	require.NoError(t, err)
	b.src, err = (&tree.Fetcher{Store: b.st}).Source(t.Context(), tree.Tree{Name: "7.3", Dir: filepath.Join(root, "linux")})
	require.NoError(t, err)
	return b
}

func (b *bench) put(path, text string) {
	b.t.Helper()
	require.NoError(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(b.t, os.WriteFile(path, []byte(text), 0o644))
}

func (b *bench) open() *Repo {
	b.t.Helper()
	s, err := series.Load(b.patches)
	require.NoError(b.t, err)
	r, err := Open(b.t.Context(), b.st, b.src, s, b.selftests, b.dir, io.Discard)
	require.NoError(b.t, err)
	return r
}

func (b *bench) git(args ...string) string {
	b.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_EDITOR=true",
		"GIT_AUTHOR_NAME=U", "GIT_AUTHOR_EMAIL=u@x", "GIT_COMMITTER_NAME=U", "GIT_COMMITTER_EMAIL=u@x")
	out, err := cmd.CombinedOutput()
	require.NoError(b.t, err, "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

func (b *bench) edit(file, from, to string) {
	b.t.Helper()
	p := filepath.Join(b.dir, file)
	raw, err := os.ReadFile(p)
	require.NoError(b.t, err)
	require.Contains(b.t, string(raw), from)
	b.put(p, strings.Replace(string(raw), from, to, 1))
}

func (b *bench) export() (*Exported, error) {
	return Export(b.t.Context(), b.dir, []string{"6.12"}, io.Discard)
}

func (b *bench) file(name string) string {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.patches, name))
	require.NoError(b.t, err)
	return string(raw)
}

func (b *bench) all() map[string]string {
	b.t.Helper()
	names, err := os.ReadDir(b.patches)
	require.NoError(b.t, err)
	m := map[string]string{}
	for _, n := range names {
		m[n.Name()] = b.file(n.Name())
	}
	return m
}

func TestOpen(t *testing.T) {
	b := newBench(t)
	r := b.open()
	require.False(t, r.Resumed)
	require.Equal(t, 3, r.Patches)
	require.Equal(t, "net: change a\nnet: change b\nnet: only here", b.git("log", "--reverse", "--format=%s", "pristine..HEAD"))
	require.Equal(t, "Jürgen j@example.invalid 2026-01-01T12:00:00+01:00\nnet: change a\n\nThe problem first.\n\nSigned-off-by: J <j@example.invalid>",
		b.git("log", "-1", "--format=%an %ae %aI%n%B", "HEAD~2"))
	require.Empty(t, b.git("status", "--porcelain"))
	require.FileExists(t, filepath.Join(b.dir, "kept.cfg"))

	// Editors write in place; the store must not feel it.
	f, err := os.OpenFile(filepath.Join(b.dir, "net/b.c"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString("edited\n")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	raw, err := os.ReadFile(filepath.Join(b.src.Dir, "net/b.c"))
	require.NoError(t, err)
	require.Equal(t, lines, string(raw))

	r = b.open()
	require.True(t, r.Resumed)
	require.Empty(t, r.Stale)
	raw, err = os.ReadFile(filepath.Join(b.dir, "net/b.c"))
	require.NoError(t, err)
	require.Contains(t, string(raw), "edited", "opening again keeps the work")

	b.put(filepath.Join(b.patches, "0003-b.patch"), b.file("0003-b.patch")+"\n")
	require.Contains(t, b.open().Stale, "0003-b.patch changed since")

	b.dir = t.TempDir()
	b.put(filepath.Join(b.dir, "mine"), "x")
	s, err := series.Load(b.patches)
	require.NoError(t, err)
	_, err = Open(t.Context(), b.st, b.src, s, "", b.dir, io.Discard)
	require.ErrorContains(t, err, "was not made by nftvm dev")
}

func TestSameCommitsEverywhere(t *testing.T) {
	b := newBench(t)
	b.open()
	head := b.git("rev-parse", "HEAD")
	b.dir += "-again"
	b.open()
	require.Equal(t, head, b.git("rev-parse", "HEAD"))
}

func TestExportUnchangedKeepsEveryByte(t *testing.T) {
	b := newBench(t)
	b.open()
	before := b.all()
	x, err := b.export()
	require.NoError(t, err)
	require.Equal(t, []string{"0001-a.patch", "0003-b.patch", "0004-only.patch"}, x.Kept)
	require.Equal(t, before, b.all())
}

func TestExportRoundTrip(t *testing.T) {
	b := newBench(t)
	b.open()
	before := b.all()
	// Amend the middle one by a fixup, append a new one, put a new one first.
	b.edit("net/b.c", "three\n", "THREE\n")
	b.git("commit", "-qam", "fixup! net: change b")
	b.edit("net/a.c", "10\n", "ten\n")
	b.put(filepath.Join(b.dir, "net/new.sh"), "#!/bin/sh\n")
	require.NoError(t, os.Chmod(filepath.Join(b.dir, "net/new.sh"), 0o755))
	b.git("add", "-A")
	b.git("commit", "-qm", "net: a new one, with: odd/signs")

	x, err := b.export()
	require.NoError(t, err)
	require.Equal(t, []string{"0003-b.patch"}, x.Changed)
	require.Equal(t, []string{"0005-net-a-new-one-with-odd-signs.patch"}, x.Added)
	require.Equal(t, []string{"0001-a.patch", "0004-only.patch"}, x.Kept)
	require.Empty(t, x.Removed)
	require.Equal(t, "# head\n# supports: >= 6.12\n\n0001-a.patch\n# glue below\n0002-glue.patch  >= 6.12, < 7.0\n0003-b.patch   # b\n"+
		"0004-only.patch >= 7.3\n0005-net-a-new-one-with-odd-signs.patch\n", b.file("series"))
	after := b.all()
	for _, same := range []string{"0001-a.patch", "0002-glue.patch", "0004-only.patch"} {
		require.Equal(t, before[same], after[same])
	}
	require.Contains(t, after["0003-b.patch"], "+THREE\n")
	require.Contains(t, after["0003-b.patch"], "From 0000000000000000000000000000000000000000 ")
	require.NotContains(t, after["0003-b.patch"], "\nindex ")
	require.NotContains(t, after["0003-b.patch"], "\n2.")
	require.NotContains(t, after["0003-b.patch"], "fixup!")

	// A second export changes nothing; opened afresh it is the same tree.
	x, err = b.export()
	require.NoError(t, err)
	require.Len(t, x.Kept, 4)
	require.Equal(t, after, b.all())
	want := b.git("rev-parse", "HEAD^{tree}")
	b.dir += "-again"
	b.open()
	require.Equal(t, want, b.git("rev-parse", "HEAD^{tree}"))
}

// A commit keeps its patch through amend, reword and rebase.
func TestExportFollowsRewording(t *testing.T) {
	b := newBench(t)
	b.open()
	b.git("commit", "-q", "--amend", "-m", "net: in other words")
	x, err := b.export()
	require.NoError(t, err)
	require.Equal(t, []string{"0004-only.patch"}, x.Changed)
	require.Contains(t, b.file("0004-only.patch"), "Subject: [PATCH] net: in other words\n")

	b.git("-c", "sequence.editor=sed -i '2{h;d};${p;x}'", "rebase", "-q", "-i", "pristine")
	x, err = b.export()
	require.NoError(t, err)
	require.Len(t, x.Kept, 3)
	require.Equal(t, []string{"0001-a.patch", "0002-glue.patch", "0004-only.patch", "0003-b.patch"}, names(t, b))
}

func names(t *testing.T, b *bench) []string {
	t.Helper()
	s, err := series.Load(b.patches)
	require.NoError(t, err)
	var out []string
	for _, p := range s.Patches {
		out = append(out, p.Name)
	}
	return out
}

func TestExportRemoves(t *testing.T) {
	b := newBench(t)
	b.open()
	b.git("reset", "-q", "--hard", "HEAD~1")
	x, err := b.export()
	require.NoError(t, err)
	require.Equal(t, []string{"0004-only.patch"}, x.Removed)
	require.NoFileExists(t, filepath.Join(b.patches, "0004-only.patch"))
	require.Equal(t, []string{"0001-a.patch", "0002-glue.patch", "0003-b.patch"}, names(t, b))

	before := b.all()
	b.git("reset", "-q", "--hard", "HEAD~1")
	_, err = b.export()
	require.ErrorContains(t, err, "the commit of 0003-b.patch is gone, but kernel 6.12 gets that patch too")
	require.Equal(t, before, b.all(), "a refused export writes nothing")
}

func TestExportRefuses(t *testing.T) {
	b := newBench(t)
	b.open()
	before := b.all()
	refused := func(want string) {
		t.Helper()
		_, err := b.export()
		require.ErrorContains(t, err, want)
		require.Equal(t, before, b.all())
	}
	b.put(filepath.Join(b.dir, "net/forgotten.c"), "x\n")
	refused("net/forgotten.c")
	require.NoError(t, os.Remove(filepath.Join(b.dir, "net/forgotten.c")))

	b.edit("net/a.c", "10\n", "ten\n")
	refused("changes that are in no commit")
	b.git("commit", "-qam", "fixup! there is no such commit")
	refused("there is no commit for")
	b.git("reset", "-q", "--hard", "HEAD~1")

	b.git("checkout", "-q", "-b", "side", "HEAD~1")
	b.git("commit", "-q", "--allow-empty", "-m", "side")
	b.git("merge", "-q", "-m", "merge", branch)
	refused("is a merge")
	b.git("checkout", "-q", branch)

	b.git("checkout", "-q", "--orphan", "lone")
	b.git("commit", "-q", "-m", "lone")
	refused("not based on the pristine tree")
	b.git("checkout", "-q", branch)

	b.put(filepath.Join(b.patches, "0001-a.patch"), before["0001-a.patch"]+"\n")
	before = b.all()
	refused("0001-a.patch changed since the tree was opened")

	b.dir = t.TempDir()
	refused("was not made by nftvm dev")
}

// Whatever goes wrong between commits and files, it is not written.
func TestExportIsProved(t *testing.T) {
	b := newBench(t)
	b.open()
	m, err := readMeta(b.dir)
	require.NoError(t, err)
	s, err := series.Load(b.patches)
	require.NoError(t, err)
	g := &git{dir: b.dir, log: io.Discard}
	commits, err := list(t.Context(), g, m)
	require.NoError(t, err)
	require.NoError(t, fill(t.Context(), g, commits, s))
	require.NoError(t, prove(t.Context(), g, m, commits))

	good := commits[1].content
	commits[1].content = []byte(strings.Replace(string(good), "+three", "+thre", 1))
	require.ErrorContains(t, prove(t.Context(), g, m, commits), "would make another net/b.c")
	commits[1].content = []byte(strings.ReplaceAll(string(good), "net/b.c", "net/nowhere.c"))
	require.ErrorContains(t, prove(t.Context(), g, m, commits), "would not apply")
	commits[1].content = good
	require.ErrorContains(t, prove(t.Context(), g, m, commits[1:]), "would not change net/a.c")
	commits[0].content = append(commits[0].content, "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n"...)
	require.ErrorContains(t, prove(t.Context(), g, m, commits), "would change x, the commits do not")
}

// withSelftests gives the project selftests, and the tree what it has of them.
func withSelftests(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	root := filepath.Dir(b.patches)
	b.selftests = filepath.Join(root, "selftests")
	b.put(filepath.Join(b.selftests, "Makefile"), "TEST_PROGS := a.sh\ninclude ../lib.mk\n")
	b.put(filepath.Join(b.selftests, "a.sh"), "#!/bin/bash\n")
	b.put(filepath.Join(b.selftests, "lib.sh"), "# sourced\n")
	b.put(filepath.Join(b.selftests, "settings"), "timeout=45\n")
	b.put(filepath.Join(b.selftests, "notes.txt"), "not for a kernel tree\n")
	b.put(filepath.Join(b.selftests, "mutants/m.patch"), "neither\n")
	b.put(filepath.Join(root, "linux/tools/testing/selftests/Makefile"), "TARGETS += net\nTARGETS += net/mptcp\nTARGETS += net/openvswitch\nTARGETS_HOTPLUG = cpu\n")
	b.put(filepath.Join(root, "linux/MAINTAINERS"), "NFT_OFFLOAD\nF:\tnet/netfilter/nft_offload*\n\nNEXT\n")
	var err error
	b.src, err = (&tree.Fetcher{Store: b.st}).Source(t.Context(), tree.Tree{Name: "7.3", Dir: filepath.Join(root, "linux")})
	require.NoError(t, err)
	return b
}

func TestSelftestsAreTheLastCommit(t *testing.T) {
	b := withSelftests(t)
	r := b.open()
	require.Equal(t, 3, r.Patches, "the selftests are no patch")
	require.Equal(t, "selftests: net: nft_offload: add tests of offloaded rulesets", b.git("log", "-1", "--format=%s"))
	require.Equal(t, []string{
		"MAINTAINERS", "tools/testing/selftests/Makefile",
		"tools/testing/selftests/net/nft_offload/Makefile", "tools/testing/selftests/net/nft_offload/a.sh",
		"tools/testing/selftests/net/nft_offload/lib.sh", "tools/testing/selftests/net/nft_offload/settings",
	}, strings.Fields(b.git("show", "--format=", "--name-only")))
	require.Contains(t, b.git("show", "HEAD:tools/testing/selftests/Makefile"), "TARGETS += net/mptcp\nTARGETS += net/nft_offload\nTARGETS += net/openvswitch\n")
	require.Contains(t, b.git("show", "HEAD:tools/testing/selftests/net/nft_offload/Makefile"), "include ../../lib.mk")
	require.Contains(t, b.git("show", "HEAD:MAINTAINERS"), "nft_offload*\nF:\ttools/testing/selftests/net/nft_offload/\n")
	require.Contains(t, b.git("ls-tree", "HEAD", "tools/testing/selftests/net/nft_offload/a.sh"), "100755")
	require.Contains(t, b.git("ls-tree", "HEAD", "tools/testing/selftests/net/nft_offload/lib.sh"), "100644")
	require.Empty(t, b.git("status", "--porcelain"))
}

func TestSelftestsAreNotExported(t *testing.T) {
	b := withSelftests(t)
	before := b.all()
	b.open()
	x, err := b.export()
	require.NoError(t, err)
	require.Empty(t, append(append(x.Changed, x.Added...), x.Removed...))
	require.Equal(t, before, b.all())

	// A patch on top of them, and a fixup of one below.
	b.edit("net/b.c", "10\n", "ten\n")
	b.git("commit", "-qam", "net: more of b")
	b.edit("net/a.c", "5\n", "five\n")
	b.git("commit", "-qam", "fixup! net: change a")
	x, err = b.export()
	require.NoError(t, err)
	require.Equal(t, []string{"0001-a.patch"}, x.Changed)
	require.Equal(t, []string{"0005-net-more-of-b.patch"}, x.Added)
	require.NotContains(t, b.file("series"), "selftests")

	// The same once more, from what the export left.
	x, err = b.export()
	require.NoError(t, err)
	require.Empty(t, append(append(x.Changed, x.Added...), x.Removed...))
}

func TestSelftestsEditedInTheTreeAreRefused(t *testing.T) {
	b := withSelftests(t)
	b.open()
	b.edit("tools/testing/selftests/net/nft_offload/lib.sh", "sourced", "changed")
	b.git("commit", "-qam", "selftests: a change")
	_, err := b.export()
	require.ErrorContains(t, err, "selftests/")
	require.ErrorContains(t, err, "lib.sh")
}
