// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/check"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// miniature is as much of a kernel tree as a check can see.
const miniature = `VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4

tinyconfig:
	@echo CONFIG_TINY=y > $(O)/.config
olddefconfig modules_prepare:
	@mkdir -p $(O)
$(O)/%.o: $(CURDIR)/%.c
	@mkdir -p $(dir $@)
	@echo "  CC      $*.o"
	@$(CC) $(KCFLAGS) $(if $(W),-Wall) -c -o $@ $<
init/a.o init/b.o init/c.o: init/%.o: $(O)/init/%.o ;
bzImage: $(O)/init/a.o $(O)/init/b.o $(O)/init/c.o
modules:
`

// miniatureProject is a project's directory with one miniature tree, and a series in it.
func miniatureProject(t *testing.T) string {
	t.Helper()
	if err := lacking(t.Context()); err != nil {
		t.Skip(err)
	}
	t.Setenv("CCACHE_DISABLE", "1")
	dir := t.TempDir()
	t.Setenv("NFTVM_STORE", filepath.Join(dir, "store"))
	t.Chdir(dir)
	for name, content := range map[string]string{
		"configs/trees.yaml":          "trees:\n  - {name: mini, dir: ../linux}\n",
		"configs/base.config":         "CONFIG_NET=y\n",
		"configs/offload.config":      "",
		"configs/tests.yaml":          "tests: []\n",
		"selftests/settings":          "timeout=10\n",
		"linux/Makefile":              miniature,
		"linux/init/a.c":              "int a = 1;\n",
		"linux/init/b.c":              "int b = 1;\n",
		"linux/init/c.c":              "int c = 1;\n",
		"linux/scripts/checkpatch.pl": "while (<STDIN>) { print \"-:$.: WARNING: style\\n\" if /^\\+.*ugly/ }\n",
		"linux/scripts/coccinelle/x":  "",
		"patches/series":              "0001-a.patch\n0002-b.patch\n",
		"patches/0001-a.patch":        edit("a", "1", "2"),
		"patches/0002-b.patch":        edit("b", "1", "2"),
	} {
		put(t, filepath.Join(dir, name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

// edit is a patch of one of the miniature's variables.
func edit(name, from, to string) string {
	file := "init/" + name + ".c"
	return fmt.Sprintf("Subject: [PATCH] %s\n\n---\ndiff --git a/%s b/%s\n--- a/%s\n+++ b/%s\n@@ -1 +1 @@\n-int %s = %s;\n+int %s = %s;\n",
		name, file, file, file, file, name, from, name, to)
}

// nftvm runs a command, and returns its exit code and what it wrote.
func nftvm(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	defer out.Close()
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = out, out
	code := run(t.Context(), args)
	os.Stdout, os.Stderr = stdout, stderr
	_, err = out.Seek(0, io.SeekStart)
	require.NoError(t, err)
	raw, err := io.ReadAll(out)
	require.NoError(t, err)
	return code, string(raw)
}

func TestCheck(t *testing.T) {
	dir := miniatureProject(t)
	code, said := nftvm(t, "check")
	require.Equal(t, report.ExitPass, code, "%s", said)
	require.Contains(t, said, "\n0001-a             pass\n0002-b             pass\nseries as a whole  pass\n\nmini: nothing found\n\n0 findings\n")
	for _, name := range []string{check.JSONFile, check.KTAPFile, "b4/0001-a.json", "b4/0002-b.json"} {
		require.FileExists(t, filepath.Join(dir, "out/check", name))
	}

	// A series of somebody else, of which the third does not compile and the
	// fourth mends it.
	series := filepath.Join(dir, "theirs")
	put(t, filepath.Join(series, "1.patch"), edit("a", "1", "2"))
	put(t, filepath.Join(series, "2.patch"), edit("b", "1", "2"))
	put(t, filepath.Join(series, "3.patch"), edit("c", "1", "oops"))
	put(t, filepath.Join(series, "4.patch"), edit("c", "oops", "2"))
	for _, depth := range []string{"--fast", "--trees=mini"} {
		code, said = nftvm(t, "check", depth, "--out", "theirs.out", series)
		require.Equal(t, report.ExitFail, code, "%s", said)
		require.Contains(t, said, "mini: first bad: 3.patch: build\n")
		require.Contains(t, said, "init/c.c:1:9: error: 'oops' undeclared")
		raw, err := os.ReadFile("theirs.out/check.json")
		require.NoError(t, err)
		var res check.Results
		require.NoError(t, json.Unmarshal(raw, &res))
		var verdicts []string
		for _, c := range res.Trees[0].Cells {
			verdicts = append(verdicts, string(c.Verdict))
		}
		require.Equal(t, "pass pass build -", strings.Join(verdicts, " "))
	}

	// A tree of one's own.
	code, said = nftvm(t, "check", "--fast", "--tree", filepath.Join(dir, "linux"), series)
	require.Equal(t, report.ExitFail, code, "%s", said)
	require.Contains(t, said, "first bad: 3.patch: build\n")

	// Amended, and with another flaw.
	put(t, filepath.Join(series, "3.patch"), edit("c", "1", "3; static int ugly"))
	put(t, filepath.Join(series, "4.patch"), edit("c", "3; static int ugly", "2"))
	code, said = nftvm(t, "check", series)
	require.Equal(t, report.ExitFail, code, "%s", said)
	require.Contains(t, said, "\n1                  pass\n2                  pass\n3                  warn\n4                  pass\n")
	require.Contains(t, said, "mini: 3.patch: warnings: init/c.c:1: warning: 'ugly' defined but not used")
	require.Contains(t, said, "mini: 3.patch: checkpatch: -:9: WARNING: style")
	require.Contains(t, said, "2.patch: pass, known\n")
}

func TestCheckThatCannotLook(t *testing.T) {
	dir := miniatureProject(t)
	put(t, filepath.Join(dir, "none/1.patch"), edit("a", "7", "8"))
	put(t, filepath.Join(dir, "gap/1.patch"), strings.Replace(edit("a", "1", "2"), "[PATCH]", "[PATCH 1/2]", 1))
	require.NoError(t, exec.Command("git", "init", "-q", "repo").Run())
	for _, c := range []struct {
		args string
		want string
	}{
		{"none", "none applies to none of the trees (mini: 1.patch does not apply: hunk 1 of 1 in init/a.c)"},
		{"gap", "gap lacks patch 2 of 2"},
		{"nowhere", "there is no series nowhere"},
		{"--git repo", "--git wants a range of commits"},
		{"--git repo a..b", "repo knows no commit a"},
		{"--fast --full", "[fast full]"},
		{"--tests x", "--tests is for --full"},
		{"--full --tests x", "no test matches"},
		{"--trees 9.9", `unknown tree "9.9"`},
		{"none --series none", "the series is given twice"},
	} {
		code, said := nftvm(t, append([]string{"check"}, strings.Fields(c.args)...)...)
		require.Equal(t, report.ExitHarness, code, "%s: %s", c.args, said)
		require.Contains(t, said, c.want, c.args)
	}
}

func TestCheckOfCommits(t *testing.T) {
	dir := miniatureProject(t)
	script := `git init -q repo && cd repo && cp -r ../linux/. . && git add -A && git commit -q -m base && git tag base &&
	sed -i 's/a = 1/a = 2/' init/a.c && git commit -q -a -m 'one: a' && sed -i 's/b = 1/b = x/' init/b.c && git commit -q -a -m 'two: b'`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	code, said := nftvm(t, "check", "--fast", "--git", filepath.Join(dir, "repo"), "base..")
	require.Equal(t, report.ExitFail, code, "%s", said)
	require.Contains(t, said, "mini: first bad: 0002-two-b.patch: build\n")
}
