// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// put writes files, given as name and content, below a fresh directory.
func put(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
	}
	return dir
}

func TestSelect(t *testing.T) {
	dir := put(t, map[string]string{
		"series": "# SPDX-License-Identifier: GPL-2.0-only\n" +
			"# supports: >= 6.12, < 6.13 || >= 7.3\n\n" +
			"all.patch\n" +
			"old.patch\t>= 6.12, < 7.0   # glue\n" +
			"  # only words\n" +
			"new.patch  >= 7.3\n",
		"all.patch": "a", "old.patch": "o", "new.patch": "n",
	})
	s, err := Load(dir)
	require.NoError(t, err)
	for version, want := range map[string]string{
		"6.12.95":   "all.patch old.patch",
		"7.3.4":     "all.patch new.patch",
		"7.3.0-rc1": "all.patch new.patch",
		"5.10.223":  "all.patch",
	} {
		got, err := s.Select(version)
		require.NoError(t, err)
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		require.Equal(t, want, strings.Join(names, " "), version)
	}
	require.NoError(t, s.Check("6.12.95"))
	require.NoError(t, s.Check("7.4"))
	var un *UnsupportedError
	require.ErrorAs(t, s.Check("7.2.12"), &un)
	require.Equal(t, `the series does not support kernel 7.2.12: `+s.Path()+
		`:2 says "supports: >= 6.12, < 6.13 || >= 7.3"`, un.Error())
}

func TestLoadErrors(t *testing.T) {
	for name, c := range map[string]struct{ list, want string }{
		"constraint": {"ok.patch\n\nok2.patch >= banana\n", `series:3: version range ">= banana": ">= banana" is not like`},
		"no range":   {"# supports:\nok.patch\n", "series:1: empty version range"},
		"alternative": {
			"# supports: >= 6.12 || x\n",
			`series:1: version range ">= 6.12 || x": "x" is not like`,
		},
		"twice":    {"ok.patch\nok.patch >= 6.1\n", "series:2: ok.patch is there already, in line 1"},
		"supports": {"# supports: > 1\n# supports: > 2\n", "series:2: supports: is there already, in line 1"},
		"missing":  {"nowhere.patch\n", "series:1: open "},
		"outside":  {"../../etc/passwd\n", "series:1: ../../etc/passwd is not below the series' directory"},
		"absolute": {"/etc/passwd\n", "series:1: /etc/passwd is not below the series' directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(put(t, map[string]string{"series": c.list, "ok.patch": "", "ok2.patch": ""}))
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := Load(t.TempDir())
	require.ErrorContains(t, err, "holds no patch series")
}

func TestKey(t *testing.T) {
	a, b := Patch{Name: "a", Content: []byte("1")}, Patch{Name: "b", Content: []byte("2")}
	k := Key("src", []Patch{a, b})
	require.NotEqual(t, k, Key("src", []Patch{b, a}), "the order counts")
	require.NotEqual(t, k, Key("other", []Patch{a, b}))
	a.Name = "renamed"
	require.Equal(t, k, Key("src", []Patch{a, b}), "names do not")
	a.Content = []byte("3")
	require.NotEqual(t, k, Key("src", []Patch{a, b}))
}

func TestRewriteKeepsWhatPeopleWrote(t *testing.T) {
	text := "# head\n# supports: >= 6.1\n\na.patch\n# on b\nb.patch   >= 7.0  # why\n\nc.patch\n# foot\n"
	s, err := Load(put(t, map[string]string{"series": text, "a.patch": "", "b.patch": "", "c.patch": ""}))
	require.NoError(t, err)
	require.Equal(t, text, string(s.Rewrite(s.Entries())))
	e := s.Entries()
	require.Equal(t, "# head\n# supports: >= 6.1\n\n# on b\nb.patch   >= 7.0  # why\na.patch\n# foot\n",
		string(s.Rewrite([]Entry{e[1], e[0]})))
}

func TestStat(t *testing.T) {
	p := Patch{Name: "x.patch", Content: []byte(`diff --git a/long/name b/long/name
--- a/long/name
+++ b/long/name
@@ -1,2 +1,3 @@
 one
-two
+2
+3
diff --git a/gone b/gone
deleted file mode 100644
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-one
`)}
	stat, err := p.Stat()
	require.NoError(t, err)
	require.Equal(t, " long/name | +2 -1\n gone      | +0 -1", stat)
}
