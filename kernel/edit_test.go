// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// compiled is a built kernel with the objects of some sources: what kbuild wrote
// down of them.
func compiled(t *testing.T, cmds map[string]string) *Built {
	t.Helper()
	b := &Built{Key: "k", objects: t.TempDir(), Overlay: &series.Overlay{}}
	require.NoError(t, os.WriteFile(filepath.Join(b.objects, builtMark), []byte("k"), 0o644))
	for object, cmd := range cmds {
		p := kbuild.CmdFile(filepath.Join(b.objects, object))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(cmd), 0o644))
	}
	return b
}

func overlayOf(sums map[string]string) *series.Overlay {
	o := &series.Overlay{}
	for path, sum := range sums {
		o.Files = append(o.Files, series.OverlayFile{Path: path, SHA256: sum})
	}
	return o
}

func TestTouches(t *testing.T) {
	const module, builtin = "savedcmd_x := gcc -DMODULE -c\ndeps_x := \\\n", "savedcmd_x := gcc -c\ndeps_x := \\\n"
	b := compiled(t, map[string]string{
		"net/netfilter/nft_offload_main.o":  module + "  /s/net/netfilter/nft_offload.h \\\n  /s/include/net/nft_shared.h\n",
		"net/netfilter/core.o":              builtin + "  /s/net/netfilter/core.h\n",
		"net/core/dev.o":                    builtin + "  /s/net/netfilter/both.h \\\n",
		"net/netfilter/nf_tables_api.o":     module + "  /s/net/netfilter/both.h \\\n  /s/net/netfilter/my_nft_offload.h \\\n",
		"drivers/net/netdevsim/netdev.o":    module + "  /s/drivers/net/netdevsim/netdevsim.h \\\n",
		"drivers/net/netdevsim/hwft.o":      module + "  /s/drivers/net/netdevsim/netdevsim.h \\\n",
		"drivers/net/ethernet/other/main.o": module,
	})
	for name, c := range map[string]struct {
		edited []string
		dirs   []string
		ok     bool
	}{
		"nothing":                     {nil, nil, true},
		"a document":                  {[]string{"Documentation/networking/nft_offload.rst", "tools/testing/selftests/net/x.sh"}, nil, true},
		"a module's source":           {[]string{"net/netfilter/nft_offload_main.c"}, []string{"net/netfilter"}, true},
		"its header":                  {[]string{"net/netfilter/nft_offload.h"}, []string{"net/netfilter"}, true},
		"both":                        {[]string{"net/netfilter/nf_tables_api.c", "drivers/net/netdevsim/netdevsim.h"}, []string{"drivers/net/netdevsim", "net/netfilter"}, true},
		"a built-in source":           {[]string{"net/netfilter/core.c"}, nil, false},
		"a built-in one's header":     {[]string{"net/netfilter/core.h"}, nil, false},
		"a header that both have":     {[]string{"net/netfilter/both.h"}, nil, false},
		"a header of all":             {[]string{"include/net/nft_shared.h"}, nil, false},
		"a header that nobody has":    {[]string{"net/netfilter/unused.h"}, nil, false},
		"a source without an object":  {[]string{"net/netfilter/new.c"}, nil, false},
		"a Makefile":                  {[]string{"net/netfilter/Makefile"}, nil, false},
		"a module of another place":   {[]string{"drivers/net/ethernet/other/main.c"}, nil, false},
		"a module and what is not so": {[]string{"net/netfilter/nft_offload_main.c", "net/core/dev.c"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			sums := map[string]string{}
			for _, path := range c.edited {
				sums[path] = "new"
			}
			dirs, ok := b.Touches(overlayOf(sums))
			require.Equal(t, c.ok, ok)
			require.Equal(t, c.dirs, dirs)
		})
	}
	_, ok := b.Touches(overlayOf(map[string]string{"net/netfilter/nft_offload_main.c": ""}))
	require.False(t, ok, "a source that goes")

	// Back to what the kernel was built of: its own modules.
	b.Overlay = overlayOf(map[string]string{"net/netfilter/nft_offload_main.c": "one"})
	dirs, ok := b.Touches(overlayOf(map[string]string{"net/netfilter/nft_offload_main.c": "one"}))
	require.True(t, ok)
	require.Empty(t, dirs)

	// Another build has taken the objects' place: nothing is known of them.
	require.NoError(t, os.WriteFile(filepath.Join(b.objects, builtMark), []byte("other"), 0o644))
	_, ok = b.Touches(overlayOf(map[string]string{"net/netfilter/nft_offload_main.c": "two"}))
	require.False(t, ok)
}

func TestPutModules(t *testing.T) {
	from, manual := t.TempDir(), t.TempDir()
	const dir = "lib/modules/7.3.4"
	put := func(root, name, text string) {
		p := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	put(from, dir+"/kernel/net/netfilter/nft_offload.ko", "old")
	put(from, dir+"/kernel/net/core/other.ko", "other")
	put(from, dir+"/modules.order", "")
	put(from, dir+"/modules.builtin", "")
	put(from, dir+"/modules.dep", "as it was\n")
	put(manual, "nft_offload.ko", "new")

	to := filepath.Join(t.TempDir(), "modules")
	require.NoError(t, putModules(t.Context(), from, to, manual, "7.3.4", io.Discard))
	for path, want := range map[string]string{
		filepath.Join(to, dir, "kernel/net/netfilter/nft_offload.ko"):   "new",
		filepath.Join(to, dir, "kernel/net/core/other.ko"):              "other",
		filepath.Join(from, dir, "kernel/net/netfilter/nft_offload.ko"): "old",
		filepath.Join(from, dir, "modules.dep"):                         "as it was\n",
	} {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(raw), path)
	}
	raw, err := os.ReadFile(filepath.Join(to, dir, "modules.dep"))
	require.NoError(t, err)
	require.Contains(t, string(raw), "nft_offload.ko")

	put(manual, "unknown.ko", "x")
	require.ErrorContains(t, putModules(t.Context(), from, filepath.Join(t.TempDir(), "m"), manual, "7.3.4", io.Discard), "no module of the name of [unknown.ko]")
}

// An edited tree is built in the place of the series.
func TestBuildEdited(t *testing.T) {
	c := newCell(t)
	b, err := c.build()
	require.NoError(t, err)
	edited := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(edited, "net/netfilter"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(edited, "net/netfilter/manual.c"), []byte("int manual_version = 9;\n"), 0o644))
	o, err := series.Edited(b.Source, edited, []string{"net/netfilter/manual.c"})
	require.NoError(t, err)
	require.NoError(t, o.Write(t.TempDir()))
	c.b.Edited, c.b.EditedOf = o, b.source.Entry.Key
	e, err := c.build()
	require.NoError(t, err)
	require.Equal(t, "build module", ran(e))
	require.Equal(t, 2, e.Compiled, "the series' own change is not in it")

	// Modules alone, from there.
	require.NoError(t, os.WriteFile(filepath.Join(edited, "net/netfilter/manual.c"), []byte("int manual_version = nonsense;\n"), 0o644))
	o, err = series.Edited(b.Source, edited, []string{"net/netfilter/manual.c"})
	require.NoError(t, err)
	require.NoError(t, o.Write(t.TempDir()))
	_, err = c.b.Modules(t.Context(), e, o, []string{"net/netfilter"}, filepath.Join(t.TempDir(), "m"))
	require.ErrorContains(t, err, "net/netfilter/manual.c:1:")
	require.ErrorContains(t, err, "'nonsense' undeclared")

	c.b.EditedOf = "another"
	_, err = c.build()
	require.ErrorContains(t, err, "was another source when it was opened for editing")
}
