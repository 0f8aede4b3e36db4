// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func TestCommits(t *testing.T) {
	src := t.TempDir()
	for name, text := range map[string]string{
		guiltyFile: "{\n" + guiltySpot + "\n\t}\n}\n", "net/netfilter/nft_counter.c": "1\n", "net/netfilter/nft_limit.c": "1\n",
		"net/core/utils.c": "1\n", "Documentation/networking/index.rst": "1\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(src, name), []byte(text), 0o644))
	}
	dir := filepath.Join(t.TempDir(), "r.git")
	first, last, culprit, err := commits(t.Context(), &tree.Source{Dir: src, Version: "7.3.4"}, dir)
	require.NoError(t, err)
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"--git-dir", dir}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	require.Equal(t, "64\n", git("rev-list", "--count", first+".."+last))
	require.Equal(t, "41\n", git("rev-list", "--count", first+".."+culprit))
	require.Contains(t, git("show", culprit), "+\t\treturn -EOPNOTSUPP;")
	require.Equal(t, "1\n", git("rev-list", "--count", first+".."+last, "--", guiltyFile), "one commit is guilty")
	require.NotContains(t, git("show", "--stat", "--format=", last), "\n\n")
	require.NoDirExists(t, filepath.Join(src, ".git"), "the source stays as it is")

	require.NoError(t, os.WriteFile(filepath.Join(src, guiltyFile), []byte("other\n"), 0o644))
	_, _, _, err = commits(t.Context(), &tree.Source{Dir: src, Version: "9.9"}, dir)
	require.ErrorContains(t, err, "has not the place that the guilty commit changes")
}

func TestStages(t *testing.T) {
	log := strings.Join([]string{
		"[   1.0s] r+abc/plain  source: done in 9.0 s", "[   2.0s] r+abc/plain  build: done in 400.0 s", "[   3.0s] r+abc/plain  module: done in 30.0 s",
		"[  99.9s] r+abc/plain  source: done in 1.5 s", "[ 100.0s] r+abc/plain  patch: done in 0.2 s", "[ 100.0s] r+abc/plain  config: failed: no",
		"[ 120.0s] r+abc/plain  build: done in 20.0 s", "[ 123.0s] r+abc/plain  module: done in 3.0 s", "[1200.0s] r+abc/plain  nft_offload/x: pass in 9.0 s", "",
	}, "\n")
	builds, rest, n := stages(log)
	require.Equal(t, 1, n)
	require.InDelta(t, 23.0, builds, 1e-9)
	require.InDelta(t, 1.7, rest, 1e-9)
}
