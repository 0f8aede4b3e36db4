// SPDX-License-Identifier: GPL-2.0-only

package kconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFragment(t *testing.T) {
	reqs, err := parseFragment("f.config", []byte(`# SPDX-License-Identifier: GPL-2.0-only
# words
CONFIG_NET=y
CONFIG_NR_CPUS=4	# four are enough
CONFIG_NFT_COUNTER=m  # only: < 5.17
CONFIG_PSAMPLE=m # optional: < 6.1
CONFIG_FOO=y # optional
# CONFIG_SLUB_TINY is not set
# CONFIG_BAR is not set # only: >= 6.2
CONFIG_NAME="a # b"  # only: >= 7.0 || < 5.0
`))
	require.NoError(t, err)
	var got []string
	for _, r := range reqs {
		got = append(got, r.String()+" | only "+r.Only.String()+" | forgiven "+r.Forgiven.String())
	}
	require.Equal(t, []string{
		"CONFIG_NET=y | only  | forgiven ",
		"CONFIG_NR_CPUS=4 | only  | forgiven ",
		"CONFIG_NFT_COUNTER=m | only < 5.17 | forgiven ",
		"CONFIG_PSAMPLE=m | only  | forgiven < 6.1",
		"CONFIG_FOO=y | only  | forgiven ",
		"# CONFIG_SLUB_TINY is not set | only  | forgiven ",
		"# CONFIG_BAR is not set | only >= 6.2 | forgiven ",
		`CONFIG_NAME="a # b" | only >= 7.0 || < 5.0 | forgiven `,
	}, got)
	require.True(t, reqs[4].Optional)

	want, ignored, err := Wanted(reqs, "5.10.223")
	require.NoError(t, err)
	require.Len(t, ignored, 2)
	require.Len(t, want, 6)
}

func TestFragmentErrors(t *testing.T) {
	for text, want := range map[string]string{
		"CONFIG_X=y\nCONFIG_Y = y\n":         "f:2: ",
		"X=y\n":                              "f:1: ",
		"CONFIG_X=y # only: banana\n":        "f:1: CONFIG_X: version range \"banana\"",
		"CONFIG_X=y # only\n":                "f:1: CONFIG_X: \"only\" needs a version range",
		"CONFIG_X=y # optional: >> 3\n":      "f:1: CONFIG_X: version range",
		"\n\nCONFIG_X=\"unfinished # only\n": "f:3: ",
	} {
		_, err := parseFragment("f", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestLaterFragmentOverrides(t *testing.T) {
	a, err := parseFragment("base", []byte("CONFIG_X=y\nCONFIG_Y=y\n"))
	require.NoError(t, err)
	b, err := parseFragment("debug", []byte("# CONFIG_X is not set\n"))
	require.NoError(t, err)
	want, _, err := Wanted(append(a, b...), "7.3")
	require.NoError(t, err)
	require.Equal(t, "CONFIG_Y=y # CONFIG_X is not set", want[0].String()+" "+want[1].String())
	require.Equal(t, "CONFIG_Z=y\nCONFIG_Y=y\n# CONFIG_X is not set\n",
		string(merge([]byte("CONFIG_X=m\nCONFIG_Z=y\n# CONFIG_Y is not set"), want)))
}

const netKconfig = `
menuconfig NET
	bool "Networking support"
	help
	  config FAKE is only words here,
	  depends on nothing.

if NET

menu "Filters"
	depends on INET

config NF_TABLES
	tristate "nf_tables"
	depends on NETFILTER_ADVANCED && (IPV6 || IPV6=n)
	depends on !BROKEN
	select NFNETLINK

endmenu

config NFNETLINK
	tristate

config MODE
	int "mode"
	depends on NF_TABLES=m

endif

config TIED
	bool "tied"
	depends on FOO if NET
`

func tree(t *testing.T) *KTree {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "net"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "net/Kconfig"), []byte(netKconfig), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "arch/arm"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "arch/arm/Kconfig"), []byte("config ARMY\n\tbool \"army\"\n"), 0o644))
	k, err := ScanTree(dir)
	require.NoError(t, err)
	return k
}

func TestVerify(t *testing.T) {
	reqs, err := parseFragment("o.config", []byte(`CONFIG_NET=y
CONFIG_NF_TABLES=m
CONFIG_NFNETLINK=y
CONFIG_GONE=y
CONFIG_ARMY=y # optional
CONFIG_MODE=3
CONFIG_VETH=m
CONFIG_TIED=y
# CONFIG_KEPT_OFF is not set
`))
	require.NoError(t, err)
	got := Values{"NET": "y", "INET": "y", "BROKEN": "n", "VETH": "y", "NFNETLINK": "m"}
	rep := Verify(reqs, nil, got, "7.3.4")
	rep.Explain(tree(t), got)
	require.Equal(t, []string{"NET", "KEPT_OFF"}, rep.Kept)
	require.Len(t, rep.Forgiven, 1)
	err = &LostError{Version: "7.3.4", Lost: rep.Lost}
	require.Equal(t, strings.TrimSpace(`
6 config symbols got lost in kernel 7.3.4; mark them "# only:" or "# optional:" if that is right
  CONFIG_NF_TABLES: wanted m, got n (o.config:2): dependency unmet; depends on NET && INET && NETFILTER_ADVANCED && (IPV6 || IPV6=n) && !BROKEN; not met: NETFILTER_ADVANCED
  CONFIG_NFNETLINK: wanted y, got m (o.config:3): overruled; depends on NET; not met: it has no prompt, only a select sets it (by NF_TABLES)
  CONFIG_GONE: wanted y, got n (o.config:4): absent in this version
  CONFIG_MODE: wanted 3, got n (o.config:6): dependency unmet; depends on NET && NF_TABLES=m; not met: NF_TABLES=m
  CONFIG_VETH: wanted m, got y (o.config:7): absent in this version
  CONFIG_TIED: wanted y, got n (o.config:8): dependency unmet; depends on !(NET) || (FOO); not met: !(NET) || (FOO)
`), err.Error())
}

// y for m is a loss: M= builds no built-in object. m for y is one, too.
func TestVerifyWantsTheVeryValue(t *testing.T) {
	reqs, err := parseFragment("f", []byte("CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=y\n# CONFIG_D is not set\n"))
	require.NoError(t, err)
	rep := Verify(reqs, nil, Values{"A": "y", "B": "m", "C": "y", "D": "m"}, "7.3")
	var lost []string
	for _, l := range rep.Lost {
		lost = append(lost, l.Symbol)
	}
	require.Equal(t, []string{"A", "B", "D"}, lost)
}

func TestEval(t *testing.T) {
	got := Values{"Y": "y", "M": "m", "N": "n", "NUM": "64", "STR": `"x86"`}
	for expr, want := range map[string]int{
		"Y": yes, "M": mod, "N": no, "UNKNOWN": no, "!Y": no, "!M": mod, "!N": yes,
		"Y && M": mod, "N || M": mod, "!(Y && N)": yes, "M=m": yes, "M!=m": no, "N=n": yes, "Y && (N || (M && !N))": mod,
		"NUM >= 32": yes, "NUM<32": no, `STR="x86"`: yes, "$(success,true)": yes, "m": mod, "!N && Y": yes,
	} {
		require.Equal(t, want, eval(expr, got), expr)
	}
}

func TestFlavors(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "debug.config"), nil, 0o644))
	paths, err := Fragments(dir, "plain")
	require.NoError(t, err)
	require.Len(t, paths, 2)
	paths, err = Fragments(dir, "debug")
	require.NoError(t, err)
	require.Len(t, paths, 3)
	_, err = Fragments(dir, "nope")
	require.ErrorContains(t, err, `unknown flavor "nope"`)
	_, err = Fragments(dir, "../debug")
	require.Error(t, err)
}

// What the selftests ask of whoever runs them in a kernel tree, they have here,
// or nobody has tried whether it is enough.
func TestSelftestsConfig(t *testing.T) {
	paths, err := Fragments("../../configs", "debug")
	require.NoError(t, err)
	requested := map[string]string{}
	for _, p := range paths {
		reqs, err := ReadFragment(p)
		require.NoError(t, err)
		for _, r := range reqs {
			requested[r.Symbol] = r.Value
		}
	}
	reqs, err := ReadFragment("../../selftests/config")
	require.NoError(t, err)
	require.NotEmpty(t, reqs)
	for _, r := range reqs {
		require.Equal(t, r.Value, requested[r.Symbol], "%s: CONFIG_%s", r.Where(), r.Symbol)
	}
}

func TestLostSince(t *testing.T) {
	before := &Report{Kept: []string{"A", "B", "C"}}
	after := &Report{Kept: []string{"A"}, Lost: []Loss{{Symbol: "B"}}, Forgiven: []Loss{{Symbol: "C"}, {Symbol: "NEVER"}}}
	var names []string
	for _, l := range after.LostSince(before) {
		names = append(names, l.Symbol)
	}
	require.Equal(t, []string{"B", "C"}, names)
}
