// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func load(t *testing.T, text string) (*Trees, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trees.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return Load(path)
}

func TestLoadOurs(t *testing.T) {
	ts, err := Load("../../configs/trees.yaml")
	require.NoError(t, err)
	require.Equal(t, []string{"5.10", "6.1", "6.12", "7.2", "7.3"}, ts.Names())
	for _, tr := range ts.All {
		require.Equal(t, tr.Name, tr.Hint())
	}
}

func TestLoad(t *testing.T) {
	ts, err := load(t, `trees:
- name: 5.10
  debian: {suite: [bullseye, bullseye-security], package: linux-source-5.10, version: 5.10.223-1}
- name: mine
  dir: ../linux
- name: release
  tarball: {url: 'https://example.invalid/linux-7.3.4.tar.xz', sha256: `+strings.Repeat("0", 64)+`, signature: s.sign, keyring: /k}
- name: commit
  git: {repo: ../linux, rev: v7.3}
- name: far
  git: {repo: 'git@example.invalid:linux', rev: v7.3}
`)
	require.NoError(t, err)
	require.Equal(t, []string{"5.10", "mine", "release", "commit", "far"}, ts.Names(), "5.10 is no number")
	base := filepath.Dir(ts.Path)
	require.Equal(t, "https://example.invalid/linux-7.3.4.tar.xz", ts.All[2].Tarball.URL)
	require.Equal(t, filepath.Join(base, "s.sign"), ts.All[2].Tarball.Signature)
	require.Equal(t, "7.3.4", ts.All[2].Hint())
	require.Equal(t, Git{Repo: filepath.Join(filepath.Dir(base), "linux"), Rev: "v7.3"}, *ts.All[3].Git)
	require.Equal(t, "git@example.invalid:linux", ts.All[4].Git.Repo)
	require.Equal(t, []string{"bullseye", "bullseye-security"}, ts.All[0].Debian.Suites)
	require.Equal(t, "5.10.223-1", ts.All[0].Debian.Version)
	require.Equal(t, filepath.Join(filepath.Dir(filepath.Dir(ts.Path)), "linux"), ts.All[1].Dir)

	got, err := ts.Select([]string{"mine", "5.10", "mine"})
	require.NoError(t, err)
	require.Equal(t, "mine 5.10", got[0].Name+" "+got[1].Name)
	require.Len(t, got, 2)
	_, err = ts.Select([]string{"9.99"})
	var un *UnknownError
	require.ErrorAs(t, err, &un)
	require.Equal(t, `unknown tree "9.99"; `+ts.Path+` knows: 5.10, mine, release, commit, far`, err.Error())
}

func TestAt(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"linux", "a@b", "my linux!", "…"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	at := func(name string) Tree {
		tr, err := At(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Regexp(t, nameRE, tr.Name)
		again, err := At(tr.Place())
		require.NoError(t, err)
		require.Equal(t, tr, again)
		return tr
	}
	require.Equal(t, filepath.Join(dir, "linux"), at("linux").Dir)
	require.Equal(t, filepath.Join(dir, "a@b"), at("a@b").Dir, "what is there is no revision")
	require.Equal(t, &Git{Repo: filepath.Join(dir, "linux"), Rev: "v7.3"}, at("linux@v7.3").Git)
	require.Equal(t, &Git{Repo: filepath.Join(dir, "a@b"), Rev: "HEAD~1"}, at("a@b@HEAD~1").Git)
	at("my linux!")
	at("…")
	other := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(other, "linux"), 0o755))
	tr, err := At(filepath.Join(other, "linux"))
	require.NoError(t, err)
	require.NotEqual(t, at("linux").Name, tr.Name)
	require.Equal(t, at("linux").Name, at("linux@v7.3").Name, "its commits share a place to build in")

	for path, want := range map[string]string{"none": "no tree at", "none@v1": "no repository at", "linux@": "is not a revision", "linux@--all": "is not a revision"} {
		_, err := At(filepath.Join(dir, path))
		require.ErrorContains(t, err, want)
	}
}

func TestLoadErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":  {"trees:\n- name: a\n  dri: /x\n", `trees.yaml:3: unknown field "dri"`},
		"nested unknown": {"trees:\n- name: a\n  debian: {suite: sid, package: linux-source-6.1, x: 1}\n", `trees.yaml:3: unknown field "x"`},
		"syntax":         {"trees:\n- name: [\n", "trees.yaml:2: "},
		"empty":          {"trees: []\n", "names no trees"},
		"two origins":    {"trees:\n- name: a\n  dir: /x\n- name: b\n  dir: /x\n  debian: {suite: sid, package: linux-source-6.1}\n", "trees.yaml:4: tree \"b\" needs one origin"},
		"no origin":      {"trees:\n- name: a\n", "trees.yaml:2: tree \"a\" needs one origin"},
		"twice":          {"trees:\n- name: a\n  dir: /x\n\n- name: a\n  dir: /y\n", "trees.yaml:5: tree \"a\" is there twice"},
		"bad name":       {"trees:\n- name: ../x\n  dir: /x\n", "tree name \"../x\""},
		"option":         {"trees:\n- name: a\n  debian: {suite: '-o x', package: linux-source-6.1}\n", "is not a suite's name"},
		"bad package":    {"trees:\n- name: a\n  debian: {suite: sid, package: bash}\n", "package \"bash\" is not a linux-source-X.Y"},
		"no sum":         {"trees:\n- name: a\n  tarball: {url: x}\n", "a tarball needs its sha256"},
		"no keyring":     {"trees:\n- name: a\n  tarball: {url: x, sha256: " + strings.Repeat("0", 64) + ", signature: s}\n", "signature and keyring need each other"},
		"far keyring":    {"trees:\n- name: a\n  tarball: {url: x, sha256: " + strings.Repeat("0", 64) + ", signature: s, keyring: 'https://k'}\n", "a keyring is a file"},
		"no repo":        {"trees:\n- name: a\n  git: {rev: main}\n", "git origin without repo"},
		"rev is a flag":  {"trees:\n- name: a\n  git: {repo: x, rev: --all}\n", "\"--all\" is not a revision"},
		"bad sum":        {"trees:\n- name: a\n  debian: {suite: sid, package: linux-source-6.1, sha256: abc}\n", "sha256 is not 64 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestMachineArchive(t *testing.T) {
	for name, c := range map[string]struct {
		files          map[string]string
		main, security string
		fails          bool
	}{
		"one line": {map[string]string{"sources.list": `# deb http://commented/debian bookworm main
deb-src http://src/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main contrib
deb http://sec/debian-security bookworm-security main
`}, "http://mirror/debian", "http://sec/debian-security", false},
		"deb822": {map[string]string{"sources.list.d/debian.sources": `Types: deb
# a snapshot
URIs: http://deb/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb/debian-security
Suites: bookworm-security
Components: main
`}, "http://deb/debian", "http://deb/debian-security", false},
		"others first": {map[string]string{
			"sources.list.d/a.list":           "deb https://packages/apt cloud-sdk-bookworm main\n",
			"sources.list.d/b.sources":        "Types: deb\nURIs: https://node/x\nSuites: nodistro\n\nTypes: deb\nURIs: http://off/debian\nSuites: sid\nEnabled: no\n",
			"sources.list.d/c.sources":        "Types: deb deb-src\nURIs:\n http://folded/debian\nSuites:\n trixie\n",
			"sources.list.d/d.sources.bak":    "Types: deb\nURIs: http://bak/debian\nSuites: sid\n",
			"sources.list.d/e-buster.disable": "deb http://dis/debian buster main\n",
		}, "http://folded/debian", "", false},
		"ubuntu":  {map[string]string{"sources.list": "deb http://archive/ubuntu noble main\ndeb http://archive/ubuntu noble-security main\n"}, "", "", true},
		"nothing": {nil, "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			for f, text := range c.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(etc, f)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(etc, f), []byte(text), 0o644))
			}
			a, err := machineArchive(etc)
			if c.fails {
				require.ErrorIs(t, err, errNoMirror)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.main, a.main)
			require.Equal(t, c.security, a.security)
			line, err := a.line("trixie-backports")
			require.NoError(t, err)
			require.Equal(t, "deb [signed-by="+archiveKeyring+"] "+c.main+" trixie-backports main\n", line)
			line, err = a.line("bullseye-security")
			if c.security == "" {
				require.ErrorContains(t, err, "no security mirror")
			} else {
				require.Contains(t, line, c.security+" bullseye-security main")
			}
		})
	}
}
