// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// miniature is as much of a kernel tree as the pipeline can see: its make
// targets, its version, its configuration, and two objects to compile.
const miniature = `VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =

REL := $(VERSION).$(PATCHLEVEL).$(SUBLEVEL)
# Without MO, an M= build finds its sources beside its objects only.
S := $(if $(M),$(if $(MO),$(CURDIR),$(O)),$(CURDIR))
tinyconfig:
	@printf '# CONFIG_NET is not set\nCONFIG_TINY=y\n' > $(O)/.config
olddefconfig:
	@grep -v CONFIG_ABSENT $(O)/.config > $(O)/.config.new; mv $(O)/.config.new $(O)/.config
$(O)/%.o: $(S)/%.c
	@mkdir -p $(dir $@)
	@echo "  CC      $*.o"
	@$(CC) $(KCFLAGS) -g -c -o $@ $<
bzImage: $(O)/init/main.o
	@mkdir -p $(O)/arch/x86/boot $(O)/include/config $(O)/include/generated
	@cp $(O)/init/main.o $(O)/vmlinux
	@cp $(O)/init/main.o $(O)/arch/x86/boot/bzImage
	@echo $(REL) > $(O)/include/config/kernel.release
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
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/$(REL)
	@ln -sfn $(O) $(INSTALL_MOD_PATH)/lib/modules/$(REL)/build
	@touch $(INSTALL_MOD_PATH)/lib/modules/$(REL)/modules.dep
`

type cell struct {
	t       *testing.T
	b       *Builder
	tree    tree.Tree
	mu      sync.Mutex
	events  []Event
	patches string
}

func newCell(t *testing.T) *cell {
	t.Helper()
	t.Setenv("CCACHE_DISABLE", "1")
	root := t.TempDir()
	c := &cell{t: t, tree: tree.Tree{Name: "mini", Dir: filepath.Join(root, "linux")}, patches: filepath.Join(root, "patches")}
	c.put("linux/Makefile", miniature)
	c.put("linux/init/main.c", "int main_version = 1;\n")
	c.put("linux/net/netfilter/manual.c", "int manual_version = 1;\n")
	c.put("linux/Kconfig", "config NET\n\tbool \"net\"\n")
	c.put("configs/base.config", "CONFIG_NET=y\n")
	c.put("configs/offload.config", "CONFIG_OLD=m # only: < 5.17\n")
	c.put("patches/series", "0001-main.patch\n")
	c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 1;", "int main_version = 2;"))
	st, err := store.Open(filepath.Join(root, "store"))
	require.NoError(t, err)
	c.b = &Builder{Store: st, Series: c.patches, Configs: filepath.Join(root, "configs"), Jobs: 2, Notify: func(e Event) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.events = append(c.events, e)
	}}
	return c
}

func (c *cell) put(name, content string) {
	c.t.Helper()
	p := filepath.Join(filepath.Dir(c.patches), name)
	require.NoError(c.t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(c.t, os.WriteFile(p, []byte(content), 0o644))
}

func patch(file, from, to string) string {
	return "Subject: [PATCH] x\n\n---\ndiff --git a/" + file + " b/" + file + "\n--- a/" + file + "\n+++ b/" + file +
		"\n@@ -1 +1 @@\n-" + from + "\n+" + to + "\n"
}

func (c *cell) build() (*Built, error) {
	c.events = nil
	return c.b.Build(c.t.Context(), c.tree, Plain)
}

// ran names the stages that did work.
func ran(b *Built) string {
	var names []string
	for _, s := range b.Stages {
		if !s.Cached {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestBuild(t *testing.T) {
	c := newCell(t)
	b, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "source patch config build module", ran(b))
	require.Equal(t, "7.3.4 7.3.4", b.Version+" "+b.Release)
	require.Equal(t, c.tree.Dir, b.Origin.Dir)
	require.Equal(t, 2, b.Compiled)
	for _, p := range []string{b.Image, b.Vmlinux, b.Config, b.Modules + "/lib/modules/7.3.4/modules.dep", b.Manual + "/nft_offload.ko"} {
		require.FileExists(t, p)
	}
	_, err = os.Lstat(b.Modules + "/lib/modules/7.3.4/build")
	require.ErrorIs(t, err, os.ErrNotExist, "a link into the slot means nothing elsewhere")
	image, err := os.ReadFile(b.Image)
	require.NoError(t, err)
	require.False(t, strings.Contains(string(image), c.b.Store.Dir()), "paths of this store must not be in the image")
	require.Len(t, c.events, 10, "start and end of five stages")
	require.Nil(t, c.events[0].Done)
	require.NotNil(t, c.events[1].Done)
	require.Zero(t, c.events[0].Expected)

	// Nothing changed: nothing runs, and no slot is needed.
	require.NoError(t, os.RemoveAll(filepath.Join(c.b.Store.Dir(), "slots")))
	again, err := c.build()
	require.NoError(t, err)
	require.Empty(t, ran(again))
	require.Equal(t, b.Key, again.Key)
	require.NoDirExists(t, filepath.Join(c.b.Store.Dir(), "slots", "mini-plain"))
}

// What only asks whether a tree builds leaves nothing to boot, and shares its
// objects with what does.
func TestCompileOnly(t *testing.T) {
	c := newCell(t)
	c.b.CompileOnly = true
	c.b.Choose = func(all []series.Patch) []series.Patch { return all }
	b, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "source patch config compile", ran(b))
	require.Equal(t, 2, b.Compiled)
	require.Empty(t, b.Image)
	require.Equal(t, []string{"NET"}, b.Symbols.Kept)
	again, err := c.build()
	require.NoError(t, err)
	require.Empty(t, ran(again))

	c.b.CompileOnly = false
	whole, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "build", ran(whole), "of a series on its way the module is not there")
	require.Zero(t, whole.Compiled)
	require.Empty(t, whole.Manual)

	// ... until it is.
	c.put("patches/series", "0001-main.patch\n0002-module.patch\n")
	c.put("patches/0002-module.patch", "--- /dev/null\n+++ b/"+kbuild.ModuleSource+"\n@@ -0,0 +1 @@\n+int x;\n")
	whole, err = c.build()
	require.NoError(t, err)
	require.NotEmpty(t, whole.Manual)
}

// What of the strict files the configuration does not build is named, and
// nothing that is said of it counts.
func TestStrictFilesThatAreLeftOut(t *testing.T) {
	c := newCell(t)
	c.put("linux/Makefile", strings.Replace(miniature, "bzImage:", "modules_prepare:\ninit/main.o arch/arm/bad.o: %.o: $(O)/%.o ;\nbzImage:", 1))
	c.put("linux/arch/arm/bad.c", "int x = nonsense;\n")
	c.put("linux/init/main.c", "int main_version = 1;\n#warning odd\n")
	c.put("patches/0001-main.patch", "--- a/init/main.c\n+++ b/init/main.c\n@@ -1,2 +1,3 @@\n int main_version = 1;\n+int more;\n #warning odd\n")
	c.b.CompileOnly, c.b.Strict = true, []string{"arch/arm/bad.c", "init/main.c"}
	for range 2 { // made, and from the store
		b, err := c.build()
		require.NoError(t, err)
		require.Equal(t, []string{"arch/arm/bad.c"}, b.LeftOut)
		require.Len(t, b.Warnings, 1)
		require.Equal(t, "init/main.c", b.Warnings[0].File)
	}
}

func TestGroundIsAllButThePatches(t *testing.T) {
	c := newCell(t)
	ground := func() *Ground {
		t.Helper()
		g, err := c.b.Ground(t.Context(), c.tree, Plain)
		require.NoError(t, err)
		return g
	}
	first := ground()
	require.Equal(t, "7.3.4", first.Version)
	require.DirExists(t, first.Source)
	c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 1;", "int main_version = 3;"))
	require.Equal(t, first.Key, ground().Key)
	c.put("configs/base.config", "CONFIG_NET=y\n# CONFIG_WIFI is not set\n")
	second := ground()
	require.NotEqual(t, first.Key, second.Key)
	require.Equal(t, first.SourceKey, second.SourceKey)
	c.put("linux/init/main.c", "int main_version = 9;\n")
	require.NotEqual(t, second.SourceKey, ground().SourceKey)
}

// Before 6.13 there is no MO=.
func TestBuildManualOfOldKernels(t *testing.T) {
	c := newCell(t)
	c.put("linux/Makefile", strings.NewReplacer("VERSION = 7", "VERSION = 6", "PATCHLEVEL = 3", "PATCHLEVEL = 12").Replace(miniature))
	b, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "6.12.4", b.Release)
	first, err := os.ReadFile(b.Manual + "/nft_offload.ko")
	require.NoError(t, err)
	_, err = os.Lstat(filepath.Join(c.b.Store.Dir(), "slots/mini-plain/src/net/netfilter/manual.o"))
	require.ErrorIs(t, err, os.ErrNotExist, "an object in the source tree would be taken for the in-tree one")

	c.put("patches/series", "0001-main.patch\n0002-manual.patch\n")
	c.put("patches/0002-manual.patch", patch("net/netfilter/manual.c", "int manual_version = 1;", "int manual_version = 2;"))
	b, err = c.build()
	require.NoError(t, err)
	second, err := os.ReadFile(b.Manual + "/nft_offload.ko")
	require.NoError(t, err)
	require.False(t, string(first) == string(second), "the changed source was not seen")
}

func TestBuildIsIncremental(t *testing.T) {
	c := newCell(t)
	_, err := c.build()
	require.NoError(t, err)

	c.put("patches/series", "0001-main.patch\n0002-manual.patch\n")
	c.put("patches/0002-manual.patch", patch("net/netfilter/manual.c", "int manual_version = 1;", "int manual_version = 2;"))
	b, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "patch build module", ran(b), "no Kconfig changed")
	require.Equal(t, 1, b.Compiled, "only what the new patch touches")

	// Without the patch again: known.
	c.put("patches/series", "0001-main.patch\n")
	b, err = c.build()
	require.NoError(t, err)
	require.Empty(t, ran(b))

	// Documentation is none of a build's business.
	c.put("patches/series", "0001-main.patch\n0003-doc.patch\n")
	c.put("patches/0003-doc.patch", "diff --git a/Documentation/x.rst b/Documentation/x.rst\nnew file mode 100644\n--- /dev/null\n+++ b/Documentation/x.rst\n@@ -0,0 +1 @@\n+words\n")
	b, err = c.build()
	require.NoError(t, err)
	require.Equal(t, "patch", ran(b))

	// The directory itself changed: a new source.
	c.put("linux/init/main.c", "int main_version = 1;\nint more;\n")
	c.put("patches/0001-main.patch", "diff --git a/init/main.c b/init/main.c\n--- a/init/main.c\n+++ b/init/main.c\n@@ -1,2 +1,2 @@\n-int main_version = 1;\n+int main_version = 2;\n int more;\n")
	b, err = c.build()
	require.NoError(t, err)
	require.Equal(t, "source patch build module", ran(b), "nothing that makes the configuration")

	// ... of which nothing is built.
	c.put("linux/Documentation/y.rst", "words\n")
	again, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "source patch", ran(again))
	require.Equal(t, b.Key, again.Key)
	c.put("linux/Kconfig", "config NET\n\tbool \"the net\"\n")
	again, err = c.build()
	require.NoError(t, err)
	require.Equal(t, "source patch config build module", ran(again))
}

// A configuration that is laid over the fragments may ask for what cannot be.
func TestConfigOverFragments(t *testing.T) {
	c := newCell(t)
	c.put("configs/base.config", "CONFIG_NET=y\nCONFIG_ABSENT=y\n")
	c.b.Config = []kconfig.Request{{Symbol: "NET", Value: "n"}, {Symbol: "EXTRA", Value: "m"}}
	b, err := c.build()
	require.NoError(t, err)
	got, err := kconfig.ReadConfig(b.Config)
	require.NoError(t, err)
	require.Equal(t, "n m n", got.Get("NET")+" "+got.Get("EXTRA")+" "+got.Get("ABSENT"))
	require.NotEmpty(t, b.Manual)

	c.b.Config = []kconfig.Request{}
	other, err := c.build()
	require.NoError(t, err)
	require.NotEqual(t, b.Key, other.Key)
	c.b.Config = nil
	_, err = c.build()
	require.ErrorContains(t, err, "CONFIG_ABSENT: wanted y, got n")
}

func TestSameImageInAnotherStore(t *testing.T) {
	var images []string
	for range 2 {
		c := newCell(t)
		b, err := c.build()
		require.NoError(t, err)
		raw, err := os.ReadFile(b.Image)
		require.NoError(t, err)
		images = append(images, string(raw))
	}
	require.True(t, images[0] == images[1], "the same source in two stores gave two images")
}

func TestBuildFaults(t *testing.T) {
	for name, c := range map[string]struct {
		set    func(c *cell)
		stage  string
		fault  store.Fault
		want   string
		stages int
	}{
		"does not compile": {
			func(c *cell) {
				c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 1;", "int main_version = nonsense;"))
			}, kbuild.Stage, store.Kernel, "init/main.c:1:20: error: 'nonsense' undeclared", 4,
		},
		"does not apply": {
			func(c *cell) {
				c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 7;", "int main_version = 8;"))
			}, series.Stage, store.Kernel, "0001-main.patch does not apply: hunk 1 of 1 in init/main.c", 2,
		},
		"not supported": {
			func(c *cell) { c.put("patches/series", "# supports: < 7\n0001-main.patch\n") },
			series.Stage, store.Kernel, "the series does not support kernel 7.3.4", 2,
		},
		"symbol lost": {
			func(c *cell) { c.put("configs/base.config", "CONFIG_NET=y\nCONFIG_ABSENT=y\n") },
			kconfig.Stage, store.Kernel, "CONFIG_ABSENT: wanted y, got n", 3,
		},
		"no tree": {
			func(c *cell) { c.tree.Dir = "/nowhere/linux" },
			tree.Stage, store.Harness, "/nowhere/linux is not a kernel tree", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCell(t)
			c.set(cl)
			b, err := cl.build()
			var se *store.StageError
			require.ErrorAs(t, err, &se)
			require.Equal(t, c.stage, se.Stage)
			require.Equal(t, c.fault, se.Fault)
			require.ErrorContains(t, err, c.want)
			require.Len(t, b.Stages, c.stages)
			require.Equal(t, err.Error(), b.Stages[c.stages-1].Error)
		})
	}
}

// A tree that did not compile costs nothing but its own objects once mended.
func TestBuildGoesOnAfterAMistake(t *testing.T) {
	c := newCell(t)
	_, err := c.build()
	require.NoError(t, err)
	c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 1;", "int main_version = nonsense;"))
	_, err = c.build()
	require.Error(t, err)
	c.put("patches/0001-main.patch", patch("init/main.c", "int main_version = 1;", "int main_version = 3;"))
	b, err := c.build()
	require.NoError(t, err)
	require.Equal(t, 1, b.Compiled)
}

func TestBuildCancelled(t *testing.T) {
	c := newCell(t)
	c.put("linux/Makefile", strings.Replace(miniature, "bzImage: $(O)/init/main.o\n",
		"bzImage: $(O)/init/main.o\n\t@touch $(O)/started; exec sleep 1000\n", 1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.b.Notify = func(e Event) {
		if e.Stage == kbuild.Stage && e.Done == nil {
			cancel()
		}
	}
	b, err := c.b.Build(ctx, c.tree, Plain)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, b.Stages, 4, "the stages that were done are told")
}

func TestBadInputIsNamed(t *testing.T) {
	c := newCell(t)
	c.put("patches/series", "0001-main.patch >= x\n")
	_, err := c.build()
	require.ErrorContains(t, err, "patches/series:1: version range")
	c.put("patches/series", "0001-main.patch\n")
	c.put("configs/base.config", "NET=y\n")
	_, err = c.build()
	require.ErrorContains(t, err, "base.config:1: ")
	_, err = c.b.Build(t.Context(), c.tree, "odd")
	require.ErrorContains(t, err, `unknown flavor "odd"`)
}

func TestSupported(t *testing.T) {
	c := newCell(t)
	c.put("patches/series", "# supports: >= 6.12, < 6.13 || >= 7.3\n")
	s, err := series.Load(c.patches)
	require.NoError(t, err)
	deb := func(v string) tree.Tree {
		return tree.Tree{Name: v, Debian: &tree.Debian{Package: "linux-source-" + v}}
	}
	got, err := Supported([]tree.Tree{deb("5.10"), deb("6.12"), deb("7.2"), deb("7.3"), c.tree}, s)
	require.NoError(t, err)
	var names []string
	for _, g := range got {
		names = append(names, g.Name)
	}
	require.Equal(t, []string{"6.12", "7.3", "mini"}, names)
}

// A name that no patch makes would have every build of some patches go without
// the module, and every check without our tests.
func TestModuleSourceIsOfTheSeries(t *testing.T) {
	s, err := series.Load("../patches")
	require.NoError(t, err)
	makes := 0
	for _, p := range s.Patches {
		files, err := p.Files()
		require.NoError(t, err)
		for _, f := range files {
			if f.IsNew && f.NewName == kbuild.ModuleSource {
				makes++
			}
		}
	}
	require.Equal(t, 1, makes)
}
