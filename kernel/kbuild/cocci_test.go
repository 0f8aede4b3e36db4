// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
)

const (
	freesChecked = `/// NULL check before kfree is not needed
// Confidence: High
// Options: --no-includes --include-headers

virtual patch
virtual report

@r depends on report@
expression E;
position p;
@@
* if (E != NULL)
*	kfree@p(E);

@script:python depends on report@
p << r.p;
@@
coccilib.report.print_report(p[0], "WARNING: NULL check before kfree is not needed")
`
	onlyPatches = "virtual patch\n\n@@ @@\n- f();\n"
	broken      = "virtual report\n\n@@\nexpression E\n@@\n* f(E);\n"
)

func TestCocci(t *testing.T) {
	if _, err := Spatch(t.Context()); err != nil {
		t.Skip("Coccinelle is not installed")
	}
	src, dir := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		"scripts/coccinelle/free/checked.cocci": freesChecked, "scripts/coccinelle/patches.cocci": onlyPatches,
		"scripts/coccinelle/misc/broken.cocci": broken,
		"include/linux/kconfig.h":              "",
		"net/a.c":                              "#include \"a.h\"\n\nvoid f(int *x)\n{\n\tif (x)\n\t\tkfree(x);\n}\n",
		"net/a.h":                              "static inline void g(int *x)\n{\n\tif (x != NULL)\n\t\tkfree(x);\n}\n",
		"net/b.c":                              "void h(int *x)\n{\n\tkfree(x);\n}\n",
		"net/other.c":                          "void f(int *x)\n{\n\tif (x)\n\t\tkfree(x);\n}\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(src, filepath.Dir(path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(src, path), []byte(text), 0o644))
	}
	m := &kmake.Make{Src: src, Jobs: 2, Log: io.Discard}
	require.NoError(t, Cocci(t.Context(), m, []string{"net/a.c", "net/a.h", "net/b.c"}, dir))
	got, err := ReadCocci(dir)
	require.NoError(t, err)
	require.Len(t, got, 3, "%v", got)
	text := "WARNING: NULL check before kfree is not needed"
	require.Equal(t, []Warning{{File: "net/a.c", Line: "6", Text: text}, {File: "net/a.h", Line: "4", Text: text}}, got[:2])
	require.True(t, got[2].OfCocci())
	require.Equal(t, "scripts/coccinelle/misc/broken.cocci", got[2].File, "a script that does not run is named")
	require.Contains(t, got[2].Text, "parse error")
}

func TestCocciNamesWhatAScriptDidNotFinish(t *testing.T) {
	got := readCocci("x.cocci", "net/a.c:1:2-3: ERROR: x\n", "+ spatch\n1 files match\nEXN: Coccinelle_modules.Common.Timeout in net/b.c\n", nil)
	require.Equal(t, []Warning{
		{File: "net/a.c", Line: "1", Text: "ERROR: x"},
		{File: "x.cocci", Text: "EXN: Coccinelle_modules.Common.Timeout in net/b.c"},
	}, got)
	require.True(t, got[1].OfCocci())
}
