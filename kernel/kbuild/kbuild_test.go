// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatters(t *testing.T) {
	for path, want := range map[string]bool{
		"net/netfilter/nft_offload_main.c": true, "net/netfilter/Kconfig": true, "Makefile": true, "tools/objtool/check.c": true,
		"Documentation/networking/nft_offload.rst": false, "tools/testing/selftests/net/x.sh": false, "MAINTAINERS": false,
		"Documentation/Kconfig": true, "samples/Kconfig": true,
	} {
		require.Equal(t, want, Matters(path), path)
	}
}

func TestSparseIsNotAskedAboutModuleMacros(t *testing.T) {
	src := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(src, "a.c"), []byte("int x[y];\nMODULE_LICENSE(\"GPL\");\n"), 0o644))
	for line, want := range map[string]bool{"1": false, "2": true, "3": false, "9": false, "": false} {
		require.Equal(t, want, ofEveryModule(src, Warning{File: "a.c", Line: line, Text: "error: bad constant expression"}), line)
	}
	require.False(t, ofEveryModule(src, Warning{File: "a.c", Line: "2", Text: "warning: data definition has no type"}))
}
