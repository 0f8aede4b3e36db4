// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func TestBisectFlags(t *testing.T) {
	ok := func(f bisectFlags) bisectFlags {
		f.tests, f.runs = []string{"x"}, max(f.runs, 1)
		return f
	}
	for _, tt := range []struct {
		name  string
		flags bisectFlags
		err   string
	}{
		{"commits", ok(bisectFlags{repo: "r", good: "a", bad: "b"}), ""},
		{"series", ok(bisectFlags{seriesOf: "7.3"}), ""},
		{"part of the series", ok(bisectFlags{seriesOf: "7.3", good: "1", bad: "2"}), ""},
		{"config", ok(bisectFlags{config: true, on: "7.3"}), ""},
		{"point", ok(bisectFlags{repo: "r", point: "a"}), ""},
		{"nothing", ok(bisectFlags{}), "wanted: one of"},
		{"two", ok(bisectFlags{repo: "r", seriesOf: "7.3"}), "wanted: one of"},
		{"no tests", bisectFlags{seriesOf: "7.3", runs: 1}, "give --tests"},
		{"no runs", func() bisectFlags { f := ok(bisectFlags{seriesOf: "7.3"}); f.runs = 0; return f }(), "--runs 0"},
		{"half", ok(bisectFlags{repo: "r", good: "a"}), "need each other"},
		{"no ends", ok(bisectFlags{repo: "r"}), "--tree needs --good"},
		{"ends of nothing", ok(bisectFlags{config: true, on: "7.3", good: "a", bad: "b"}), "--config has its ends already"},
		{"config of nothing", ok(bisectFlags{config: true}), "--on TREE"},
		{"point goes on", func() bisectFlags { f := ok(bisectFlags{repo: "r", point: "a"}); f.resume = true; return f }(), "--point judges anew"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.flags.check()
			if tt.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.err)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestCommandLines(t *testing.T) {
	require.Equal(t, `nftvm bisect --tests 'nft_offload/*' --tree '/a b/c'\''d' --resume`,
		resumed([]string{"nftvm", "bisect", "--tests", "nft_offload/*", "--tree", "/a b/c'd"}))
	require.Equal(t, "nftvm bisect --resume", resumed([]string{"nftvm", "bisect", "--resume"}))
	require.Equal(t, `'' '~x' a~b`, quoted([]string{"", "~x", "a~b"}))
}

// To git bisect run any exit code but 125 is a verdict, and the harness's own
// faults are none.
func TestAStepThatCannotBegin(t *testing.T) {
	for _, args := range [][]string{
		{"run", "--bisect-step", "--no-such-flag"},
		{"run", "--bisect-step", "--project", "/nowhere"},
		{"run", "--bisect-step=true", "more"},
	} {
		require.Equal(t, 125, run(t.Context(), args), args)
	}
	require.Equal(t, 2, run(t.Context(), []string{"run", "--no-such-flag"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 130, run(ctx, []string{"run", "--bisect-step", "--project", "/nowhere"}))
}

// small is as much of a kernel tree as a build looks at.
const small = `VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =
tinyconfig:
	@echo 'CONFIG_TINY=y' > $(O)/.config
olddefconfig:
	@grep -v CONFIG_LOST $(O)/.config > $(O)/.config.new || true; mv $(O)/.config.new $(O)/.config
$(O)/%.o: $(CURDIR)/%.c
	@mkdir -p $(dir $@)
	@echo "  CC      $*.o"
	@$(CC) -c -o $@ $<
bzImage: $(O)/init/main.o
	@mkdir -p $(O)/arch/x86/boot $(O)/include/config $(O)/include/generated
	@cat $< $(O)/.config > $(O)/arch/x86/boot/bzImage
	@cp $< $(O)/vmlinux
	@echo 7.3.4 > $(O)/include/config/kernel.release
	@cp $(O)/.config $(O)/include/config/auto.conf
	@touch $(O)/System.map
ifdef M
modules: $(O)/net/netfilter/manual.o
	@cp $< $(O)/net/netfilter/nft_offload.ko
else
modules: $(O)/net/netfilter/manual.o
	@touch $(O)/Module.symvers
endif
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/7.3.4
	@touch $(INSTALL_MOD_PATH)/lib/modules/7.3.4/modules.dep
`

// bisectBench is a bisection of small trees; guests is how its tests go.
type bisectBench struct {
	*bisection
	t      *testing.T
	root   string
	guests func(built *kernel.Built) bisect.Verdict
	// built and tried are the points that were.
	built, tried []string
	compiled     map[string]int
	journal      *bisect.Journal
}

func newBisectBench(t *testing.T) *bisectBench {
	t.Helper()
	t.Setenv("CCACHE_DISABLE", "1")
	b := &bisectBench{t: t, root: t.TempDir(), compiled: map[string]int{}}
	b.put("linux/Makefile", small)
	b.put("linux/init/main.c", "int ok = 1;\n")
	b.put("linux/net/netfilter/manual.c", "int manual = 1;\n")
	b.put("linux/Kconfig", "config NET\n\tbool \"net\"\n")
	b.put("configs/base.config", "CONFIG_NET=y\n")
	b.put("configs/offload.config", "")
	b.put("patches/series", "0001-doc.patch\n")
	b.put("patches/0001-doc.patch", "diff --git a/doc b/doc\nnew file mode 100644\n--- /dev/null\n+++ b/doc\n@@ -0,0 +1 @@\n+words\n")
	st, err := store.Open(filepath.Join(b.root, "store"))
	require.NoError(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { null.Close() })
	f := bisectFlags{flavor: kernel.Plain, runs: 1}
	f.tests, f.patches = []string{"t"}, filepath.Join(b.root, "patches")
	f.selftests = filepath.Join(b.root, "selftests")
	s := &setup{root: b.root, store: st, progress: report.NewProgress(null), flags: f.runFlags, specs: []matrix.Spec{{Name: "t"}}}
	b.bisection = &bisection{setup: s, flags: f, out: filepath.Join(b.root, "out"), builder: s.builder(st)}
	b.builder.Slot, b.builder.Notify, b.builder.Jobs = bisectSlot, nil, 2
	return b
}

func (b *bisectBench) put(name, content string) {
	b.t.Helper()
	p := filepath.Join(b.root, name)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(b.t, os.WriteFile(p, []byte(content), 0o644))
}

func (b *bisectBench) git(args ...string) string {
	b.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", filepath.Join(b.root, "linux"), "-c", "user.name=A", "-c", "user.email=a@b"}, args...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(b.t, err, string(out))
	return strings.TrimSpace(string(out))
}

func (b *bisectBench) commit(name, content string) string {
	b.put("linux/"+name, content)
	b.git("add", ".")
	b.git("commit", "-q", "-m", name)
	return b.git("rev-parse", "HEAD")
}

// search is the whole of it but the guests.
func (b *bisectBench) search() (*bisect.Finding, error) {
	b.t.Helper()
	q := b.subject.asked()
	var err error
	b.journal, err = bisect.OpenJournal(b.out, q, false)
	require.NoError(b.t, err)
	pipe := &bisect.Pipeline{Journal: b.journal, Build: func(ctx context.Context, p bisect.Point) (*bisect.Kernel, error) {
		b.built = append(b.built, p.Key)
		k, err := b.kernel(ctx, p)
		if err != nil {
			return nil, err
		}
		t, err := b.subject.build(ctx, p)
		require.NoError(b.t, err)
		built, err := b.builder.Build(ctx, t, kernel.Plain) // from the store
		require.NoError(b.t, err)
		b.compiled[p.Key] = built.Compiled
		k.Try = func(context.Context, int, []string) (bisect.Attempt, error) {
			b.tried = append(b.tried, p.Key)
			a := bisect.Attempt{Verdict: b.guests(built), Class: bisect.ClassTest}
			if a.Verdict == bisect.Bad {
				a.Failed = []string{"t"}
			}
			return a, nil
		}
		return k, nil
	}}
	return b.subject.search(b.t.Context(), pipe)
}

// says tells whether the patched source of main has a text.
func says(built *kernel.Built, text string) bool {
	const name = "init/main.c"
	raw, err := os.ReadFile(filepath.Join(built.Source, name))
	for _, f := range built.Overlay.Files {
		if f.Path == name {
			raw, err = os.ReadFile(built.Overlay.Path(f))
		}
	}
	return err == nil && strings.Contains(string(raw), text)
}

func verdict(bad bool) bisect.Verdict {
	if bad {
		return bisect.Bad
	}
	return bisect.Good
}

func TestBisectCommits(t *testing.T) {
	b := newBisectBench(t)
	b.git("init", "-q", ".")
	good := b.commit("init/main.c", "int ok = 1;\n")
	for i := range 6 {
		b.commit("Documentation/x", fmt.Sprint("words ", i, "\n"))
	}
	b.commit("init/main.c", "int ok = oops;\n")
	culprit := b.commit("init/main.c", "int ok = 0;\n")
	for i := range 6 {
		b.commit("Documentation/x", fmt.Sprint("more words ", i, "\n"))
	}
	bad := b.commit("net/netfilter/other.c", "int never_built;\n")
	b.guests = func(built *kernel.Built) bisect.Verdict { return verdict(says(built, "= 0")) }
	b.flags.repo, b.flags.good, b.flags.bad = filepath.Join(b.root, "linux"), good, bad
	before := b.git("status", "--porcelain", "--branch")
	var err error
	b.subject, err = newCommits(t.Context(), b.bisection)
	require.NoError(t, err)
	f, err := b.search()
	require.NoError(t, err)
	// The commit before the culprit does not compile: it may be that one, too.
	require.Equal(t, 1, f.ExitCode())
	require.Len(t, f.Names, 2)
	require.Contains(t, strings.Join(f.Names, " "), culprit[:12])
	require.Len(t, b.tried, 2, "all others are one of two kernels: %v", b.built)
	require.GreaterOrEqual(t, len(b.built), 5)
	for _, id := range b.built[1:] {
		require.LessOrEqual(t, b.compiled[id], 1, "only what a commit touches is compiled anew")
	}
	require.Equal(t, before, b.git("status", "--porcelain", "--branch"))
	require.FileExists(t, filepath.Join(b.out, bisect.LogFile))

	// Without the broken one it is exact.
	b.git("checkout", "-q", "-b", "mended", good)
	culprit = b.commit("init/main.c", "int ok = 0;\n")
	b.flags.good, b.flags.bad = good, "mended"
	b.subject, err = newCommits(t.Context(), b.bisection)
	require.NoError(t, err)
	f, err = b.search()
	require.NoError(t, err)
	require.Equal(t, 0, f.ExitCode())
	require.Equal(t, "the first bad commit is "+culprit[:12]+" init/main.c", f.Headline)
	require.Contains(t, f.Stat, "init/main.c | 2 +-")
	require.Len(t, f.Ends, 2)
	require.Equal(t, []string{good, culprit}, []string{f.Ends[0].Key, f.Ends[1].Key})
	require.Contains(t, f.Ends[1].Again, "run --tree "+filepath.Join(b.root, "linux")+"@"+culprit)
	// The command names the very tree.
	at, err := tree.At(filepath.Join(b.root, "linux") + "@" + culprit)
	require.NoError(t, err)
	require.Equal(t, culprit, at.Git.Rev)
}

func TestBisectSeries(t *testing.T) {
	b := newBisectBench(t)
	edit := func(from, to int) string {
		return fmt.Sprintf("Subject: x\n\ndiff --git a/init/main.c b/init/main.c\n--- a/init/main.c\n+++ b/init/main.c\n@@ -1 +1 @@\n-int ok = %d;\n+int ok = %d;\n", from, to)
	}
	b.put("patches/series", "0001-doc.patch\n0002-one.patch\n0003-old.patch < 6\n0004-two.patch\n0005-three.patch\n")
	b.put("patches/0002-one.patch", edit(1, 2))
	b.put("patches/0003-old.patch", edit(9, 9))
	b.put("patches/0004-two.patch", edit(2, 3))
	b.put("patches/0005-three.patch", edit(3, 4))
	own, err := tree.At(filepath.Join(b.root, "linux"))
	require.NoError(t, err)
	search := func(guests func(*kernel.Built) bisect.Verdict) (*bisect.Finding, error) {
		b.guests, b.built, b.tried = guests, nil, nil
		b.subject, err = newPrefixes(t.Context(), b.bisection, own)
		require.NoError(t, err)
		return b.search()
	}
	f, err := search(func(k *kernel.Built) bisect.Verdict {
		return verdict(says(k, "3;") || says(k, "4;"))
	})
	require.NoError(t, err)
	require.Contains(t, f.Headline, "0004-two.patch breaks t on linux")
	require.Equal(t, " init/main.c | +1 -1", f.Stat)
	require.Contains(t, f.Ends[0].Again, "--point 2")

	f, err = search(func(k *kernel.Built) bisect.Verdict {
		switch {
		case says(k, "1;"):
			return bisect.Skip // there is nothing to test yet
		case says(k, "2;"):
			return bisect.Bad
		}
		return bisect.Good
	})
	require.NoError(t, err)
	require.Contains(t, f.Headline, "0004-two.patch mends t on linux")
	require.Contains(t, f.Notes[0], "below patch 2 of 4, 0002-one.patch nothing was found that can be judged")

	// Between two of its patches only.
	b.flags.good, b.flags.bad = "0004-two", "0005-three.patch"
	f, err = search(func(k *kernel.Built) bisect.Verdict { return verdict(says(k, "4;")) })
	require.NoError(t, err)
	require.Contains(t, f.Headline, "0005-three.patch breaks t")
	require.Len(t, b.built, 2)
	b.flags.good = "0003-old.patch"
	_, err = newPrefixes(t.Context(), b.bisection, own)
	require.ErrorContains(t, err, `"0003-old.patch" is no patch that linux`)

	b.put("patches/series", "# supports: < 6\n0001-doc.patch\n")
	_, err = newPrefixes(t.Context(), b.bisection, own)
	var un *series.UnsupportedError
	require.ErrorAs(t, err, &un)
}

func TestBisectTrees(t *testing.T) {
	b := newBisectBench(t)
	var trees []tree.Tree
	var names []string
	for i := range 5 {
		dir := fmt.Sprintf("tree%d", i)
		b.put(dir+"/Makefile", small)
		b.put(dir+"/init/main.c", fmt.Sprintf("int ok = %d;\n", i))
		b.put(dir+"/net/netfilter/manual.c", "int manual = 1;\n")
		own, err := tree.At(filepath.Join(b.root, dir))
		require.NoError(t, err)
		trees, names = append(trees, own), append(names, dir)
	}
	var err error
	b.guests = func(k *kernel.Built) bisect.Verdict {
		return verdict(!says(k, "0;") && !says(k, "1;"))
	}
	b.subject, err = newTreeRow(b.bisection, trees, names)
	require.NoError(t, err)
	f, err := b.search()
	require.NoError(t, err)
	require.Equal(t, "tree2 is the first tree on which t fails", f.Headline)
	require.Contains(t, f.Ends[1].Again, "run --tree "+filepath.Join(b.root, "tree2"))
	_, err = newTreeRow(b.bisection, append(trees, trees[0]), append(names, "tree0"))
	require.ErrorContains(t, err, "names tree0 twice")
	_, err = newTreeRow(b.bisection, trees[:1], names[:1])
	require.ErrorContains(t, err, "must be two")
}

func TestBisectConfigs(t *testing.T) {
	b := newBisectBench(t)
	b.put("good", "CONFIG_NET=y\nCONFIG_A=y\nCONFIG_B=1\nCONFIG_OLD=m # only: < 5\n# CONFIG_D is not set\n")
	b.put("bad", "CONFIG_NET=y\nCONFIG_B=2\nCONFIG_C=m\nCONFIG_LOST=y\nCONFIG_D=y\n")
	own, err := tree.At(filepath.Join(b.root, "linux"))
	require.NoError(t, err)
	b.flags.on = filepath.Join(b.root, "linux")
	b.guests = func(k *kernel.Built) bisect.Verdict {
		v, err := kconfig.ReadConfig(k.Config)
		require.NoError(t, err)
		return verdict(v.Get("B") == "2" && v.Get("D") == "y")
	}
	c, err := newConfigs(t.Context(), b.bisection, own, filepath.Join(b.root, "good"), filepath.Join(b.root, "bad"))
	require.NoError(t, err)
	require.Equal(t, []string{"A", "B", "C", "D", "LOST"}, bisect.NamesOf(c.all))
	b.subject = c
	f, err := b.search()
	require.NoError(t, err)
	require.Equal(t, []string{"B", "D"}, f.Names)
	require.Equal(t, "CONFIG_B: good has it 1, bad 2\nCONFIG_D: good has it n, bad y", f.Stat)
	require.Contains(t, f.Ends[1].Again, "--point B,D")
	require.Equal(t, []string{"olddefconfig does not let the bad configuration have these as it wants them: LOST"}, f.Notes)

	p, err := c.named(t.Context(), "D,B")
	require.NoError(t, err)
	require.Equal(t, f.Ends[1].Key, p.Key)
	_, err = c.named(t.Context(), "B,NET")
	require.ErrorContains(t, err, "the configurations differ in: A, B, C, D, LOST")

	b.put("bad", "CONFIG_B: 2\n")
	_, err = newConfigs(t.Context(), b.bisection, own, filepath.Join(b.root, "good"), filepath.Join(b.root, "bad"))
	require.ErrorContains(t, err, "bad:1:")
}

// A test of the tree's own is a part of what runs: where only that changes, the
// kernel is not the same.
func TestIdentityHasTheTreesOwnTests(t *testing.T) {
	b := newBisectBench(t)
	own, err := tree.At(filepath.Join(b.root, "linux"))
	require.NoError(t, err)
	spec := matrix.Spec{Name: "upstream/x", Path: "tools/x.sh", Files: []string{"tools/lib"}}
	identify := func() (string, int) {
		built, err := b.builder.Build(t.Context(), own, kernel.Plain)
		require.NoError(t, err)
		specs, err := planned([]matrix.Spec{spec, {Name: "ours"}}, built)
		require.NoError(t, err)
		id, err := identity(built, specs)
		require.NoError(t, err)
		return id, len(specs)
	}
	without, n := identify()
	require.Equal(t, 1, n, "the tree does not have it yet")
	b.put("linux/tools/x.sh", "exit 0\n")
	b.put("linux/tools/lib/a", "a\n")
	one, n := identify()
	require.Equal(t, 2, n)
	require.NotEqual(t, without, one)
	b.put("linux/tools/lib/a", "b\n")
	two, _ := identify()
	require.NotEqual(t, one, two)
	b.put("linux/Documentation/x", "words\n")
	three, _ := identify()
	require.Equal(t, two, three)
	b.put("linux/net/netfilter/manual.c", "int manual = 2;\n")
	four, _ := identify()
	require.NotEqual(t, three, four, "the module that is built by hand")
}

func TestBailed(t *testing.T) {
	log := filepath.Join(t.TempDir(), "output.log")
	require.False(t, bailed(report.Test{Log: log}))
	require.NoError(t, os.WriteFile(log, []byte("1..3\n# no Bail out! yet\n"), 0o644))
	require.False(t, bailed(report.Test{Log: log}))
	require.NoError(t, os.WriteFile(log, []byte("1..3\nBail out! no /proc/net/nft_offload\n"), 0o644))
	require.True(t, bailed(report.Test{Log: log}))
}
