// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

const (
	specFile   = "Documentation/netlink/specs/nft_offload.yaml"
	headerFile = "include/uapi/linux/nft_offload.h"
)

// spec is what the kernel's tools generate code from, as far as it has names
// and numbers.
type spec struct {
	Definitions []struct {
		Name    string `yaml:"name"`
		Prefix  string `yaml:"name-prefix"`
		Entries []any  `yaml:"entries"`
	} `yaml:"definitions"`
	Sets []struct {
		Name       string  `yaml:"name"`
		Prefix     string  `yaml:"name-prefix"`
		Attributes []named `yaml:"attributes"`
	} `yaml:"attribute-sets"`
	Operations struct {
		Prefix string `yaml:"name-prefix"`
		List   []named
	} `yaml:"operations"`
}

type named struct {
	Name string `yaml:"name"`
}

func names(list []named) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out
}

// fromSeries is what the series makes of files that are new with it.
func fromSeries(t *testing.T, files ...string) map[string]string {
	t.Helper()
	s, err := series.Load(filepath.Join("..", "..", "patches"))
	require.NoError(t, err)
	patches, err := s.Select("7.3.0")
	require.NoError(t, err)
	var some []series.Patch
	for _, p := range patches {
		diffs, err := p.Files()
		require.NoError(t, err)
		var keep strings.Builder
		for _, f := range diffs {
			if slices.Contains(files, f.NewName) {
				keep.WriteString(f.String())
			}
		}
		if keep.Len() > 0 {
			p.Content = []byte(keep.String())
			some = append(some, p)
		}
	}
	overlay, err := series.Apply(t.TempDir(), some)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, overlay.Write(dir))
	overlay, err = series.ReadOverlay(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, f := range overlay.Files {
		raw, err := os.ReadFile(overlay.Path(f))
		require.NoError(t, err)
		out[f.Path] = string(raw)
	}
	for _, f := range files {
		require.Contains(t, out, f)
	}
	return out
}

// TestSpecHeaderAndPackageAgree compares the three places that number the same
// things: the specification, the header for C, and this package.
func TestSpecHeaderAndPackageAgree(t *testing.T) {
	text := fromSeries(t, specFile, headerFile)
	var doc spec
	require.NoError(t, yaml.Unmarshal([]byte(text[specFile]), &doc))

	// Enumerators in the order of the header, without those that only count.
	var header []string
	for _, m := range regexp.MustCompile(`(?m)^\t([A-Z][A-Z0-9_]+)(?: = 0)?,`).FindAllStringSubmatch(text[headerFile], -1) {
		header = append(header, m[1])
	}
	inHeader := func(prefix string) []string {
		var out []string
		prefix = strings.ToUpper(strings.ReplaceAll(prefix, "-", "_"))
		for _, n := range header {
			if rest, ok := strings.CutPrefix(n, prefix); ok && rest != "MAX" {
				out = append(out, strings.ToLower(strings.ReplaceAll(rest, "_", "-")))
			}
		}
		return out
	}

	ours := map[string][]uint16{
		"rule": {ruleTable, ruleChain, ruleHandle, ruleIfindex, ruleIfname, ruleState, ruleReason, rulePrio, rulePackets, ruleBytes,
			ruleLastUsed, rulePolicy},
		"flowtable": {ftFamily, ftTable, ftName, ftHandle, ftState, ftReason, ftFlowsHW, ftFlowsSW, ftPackets, ftBytes, ftLastUsed,
			ftIfindex},
		"policy": {policyTable, policyChain, policyHandle, policyValue},
		"status": {statusMode, statusReason},
	}
	require.Len(t, doc.Sets, len(ours))
	for _, set := range doc.Sets {
		want := names(set.Attributes)
		require.Equal(t, want, inHeader(set.Prefix), "header, %s", set.Name)
		known := slices.DeleteFunc(slices.Clone(want), func(n string) bool { return n == "unspec" || n == "pad" })
		require.Len(t, known, len(ours[set.Name]), set.Name)
		for i, n := range known {
			require.Equal(t, slices.Index(want, n), int(ours[set.Name][i]), "package, %s %s", set.Name, n)
		}
	}

	commands := names(doc.Operations.List)
	require.Equal(t, commands, inHeader(doc.Operations.Prefix))
	require.Equal(t, []string{"unspec", "rule-get", "flowtable-get", "policy-get", "policy-set", "rule-ntf", "flowtable-ntf", "policy-ntf",
		"mode-ntf", "refused-ntf", "rule-del-ntf", "flowtable-del-ntf"}, commands)
	require.Equal(t, []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, []uint8{cmdRuleGet, cmdFlowtableGet, cmdPolicyGet, cmdPolicySet, cmdRuleNtf,
		cmdFlowtableNtf, cmdPolicyNtf, cmdModeNtf, cmdRefusedNtf, cmdRuleDelNtf, cmdFlowtableDelNtf})

	for _, d := range doc.Definitions {
		var want []string
		for i, e := range d.Entries {
			n, _ := e.(string)
			if m, ok := e.(map[string]any); ok {
				n, _ = m["name"].(string)
			}
			want = append(want, n)
			switch d.Name {
			case "state":
				require.Equal(t, n, State(i).String())
			case "mode":
				require.Equal(t, n, Mode(i).String())
			case "policy":
				require.Equal(t, n, Policy(i).String())
			default:
				t.Errorf("the package does not know %q", d.Name)
			}
		}
		require.Equal(t, want, inHeader(d.Prefix), "header, %s", d.Name)
	}
	require.Len(t, doc.Definitions, 3)
}
