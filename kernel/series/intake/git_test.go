// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// repo is a repository with the commits base, one, two on top of each other,
// and a branch "side" that forked from base.
func repo(t *testing.T) (dir string, git func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	git = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=Jürg", "-c", "user.email=j@b.c", "-c", "commit.gpgSign=false"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil && args[0] != "rebase" && args[0] != "am" {
			require.NoError(t, err, "%s", out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	commit := func(tag, file, content, message string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644))
		git("add", "-A")
		git("commit", "-q", "-m", message)
		git("tag", tag)
	}
	commit("base", "a", "1\n\n3\n", "base")
	commit("one", "a", "2\n\n3\n", "[net] one: change a\n\nBecause.\n\nSigned-off-by: J <j@b.c>")
	git("mv", "a", "b")
	commit("two", "c", "1\n", "two: move")
	git("checkout", "-q", "-b", "side", "base")
	commit("other", "a", "other\n\n3\n", "other")
	git("checkout", "-q", "main")
	return dir, git
}

// state is everything in the directory, with times.
func state(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		fi, err := d.Info()
		require.NoError(t, err)
		fmt.Fprintln(&b, path, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	}))
	return b.String()
}

func takeGit(t *testing.T, dir, commits string) (*Taken, error) {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	tk, err := FromGit(t.Context(), st, dir, commits)
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), dir, "REPO"))
	}
	return tk, nil
}

func TestGitRange(t *testing.T) {
	dir, git := repo(t)
	plain, err := takeGit(t, dir, "base..main")
	require.NoError(t, err)
	// What people like their diffs to be is none of ours.
	for _, kv := range []string{"diff.noprefix=true", "diff.mnemonicPrefix=true", "format.signOff=true", "diff.suppressBlankEmpty=true", "color.ui=always", "log.showSignature=true", "diff.renames=false", "diff.context=0"} {
		name, value, _ := strings.Cut(kv, "=")
		git("config", name, value)
	}
	// A file that looks newer than the index makes git status write to it.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("2\n\n3\n"), 0o644))
	before := state(t, dir)
	tk, err := takeGit(t, dir, "base..main")
	require.NoError(t, err)
	require.Equal(t, before, state(t, dir), "the repository was written to")
	require.Equal(t, filepath.Base(plain.Dir), filepath.Base(tk.Dir), "the same commits are the same series")
	require.Equal(t, []string{"0001-net-one-change-a.patch", "0002-two-move.patch"}, names(tk.Series))
	require.True(t, strings.HasPrefix(string(tk.Series.Patches[0].Content),
		"From: Jürg <j@b.c>\nSubject: [PATCH] [net] one: change a\n\nBecause.\n\nSigned-off-by: J <j@b.c>\n---\ndiff --git a/a b/a\n"),
		"%s", tk.Series.Patches[0].Content)
	o := applied(t, tk.Series, map[string]string{"a": "1\n\n3\n"})
	require.Len(t, o.Files, 3)

	// B without an end is HEAD.
	again, err := takeGit(t, dir, "base..")
	require.NoError(t, err)
	require.Equal(t, names(tk.Series), names(again.Series))
}

func TestBadRanges(t *testing.T) {
	dir, git := repo(t)
	git("checkout", "-q", "-b", "merged", "main")
	git("merge", "-q", "-s", "ours", "-m", "merge", "side")
	git("commit", "-q", "--allow-empty", "-m", "nothing")
	merge := git("rev-parse", "merged~1")[:12]
	for commits, want := range map[string]string{
		"base":            `"base" is no range of commits; give A..B, the commits of B that A does not have`,
		"base...main":     `"base...main" is no range of commits; give A..B, the commits of B that A does not have`,
		"base..nowhere":   "REPO knows no commit nowhere",
		"--all..main":     "REPO knows no commit --all",
		"main..main":      "main..main holds no commit of REPO",
		"main..base":      "main..base holds no commit of REPO, but the other way round it does; are its ends swapped?",
		"base..merged":    "commit " + merge + " in base..merged is a merge; a series is a line",
		"merged~..merged": "commit " + git("rev-parse", "merged")[:12] + " (nothing) changes nothing",
	} {
		_, err := takeGit(t, dir, commits)
		require.EqualError(t, err, want, commits)
	}
	_, err := takeGit(t, t.TempDir(), "a..b")
	require.ErrorContains(t, err, "git cannot read a repository there")
}

func TestRepositoryInTheMiddleOfSomething(t *testing.T) {
	for name, start := range map[string]func(dir string, git func(...string) string){
		"rebase": func(_ string, git func(...string) string) { git("rebase", "side") },
		"git am": func(dir string, git func(...string) string) {
			mail := git("format-patch", "-1", "--stdout", "other")
			path := filepath.Join(filepath.Dir(dir), "mail")
			require.NoError(t, os.WriteFile(path, []byte(mail+"\n"), 0o644))
			git("am", "-q", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, git := repo(t)
			start(dir, git)
			before := state(t, dir)
			for _, commits := range []string{"base..HEAD", "base..", "@~1..main"} {
				_, err := takeGit(t, dir, commits)
				require.ErrorContains(t, err, "REPO is in the middle of a "+name+", so ", commits)
			}
			_, err := takeGit(t, dir, "base..nowhere")
			require.EqualError(t, err, "REPO knows no commit nowhere; it is in the middle of a "+name+", after which it may")
			tk, err := takeGit(t, dir, "base..two")
			require.NoError(t, err)
			require.Len(t, tk.Series.Patches, 2)
			require.Equal(t, before, state(t, dir), "the repository was written to")
		})
	}
}
