// SPDX-License-Identifier: GPL-2.0-only

package matrix

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	goversion "github.com/hashicorp/go-version"
	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

// layout makes a configs/ and a selftests/ directory.
func layout(t *testing.T, testsYAML string, scripts ...string) (configs, selftests string) {
	t.Helper()
	configs, selftests = filepath.Join(t.TempDir(), "c"), filepath.Join(t.TempDir(), "s")
	require.NoError(t, os.Mkdir(configs, 0o755))
	require.NoError(t, os.Mkdir(selftests, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(configs, "tests.yaml"), []byte(testsYAML), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(selftests, "settings"), []byte("# c\ntimeout=45\n"), 0o644))
	for _, s := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(selftests, s), nil, 0o755))
	}
	return configs, selftests
}

func TestLoadSpecs(t *testing.T) {
	configs, selftests := layout(t, `
tests:
  - name: nft_offload/manual
    taint: O
  - name: upstream/u
    path: tools/u.sh
    trees: ">= 7.2"
    timeout: 3m
    vcpus: 2
`, "lib.sh", "manual.sh", "found.sh")
	specs, err := LoadSpecs(configs, selftests)
	require.NoError(t, err)
	require.Len(t, specs, 3, "lib.sh is no test")
	require.Equal(t, "nft_offload/found", specs[0].Name)
	require.Equal(t, 45*time.Second, specs[0].Timeout)
	require.Equal(t, 1, specs[0].VCPUs)
	require.Equal(t, "O", specs[1].Taint)
	require.Equal(t, 3*time.Minute, specs[2].Timeout)
	require.Equal(t, 2, specs[2].VCPUs)

	for v, want := range map[string]bool{"6.12.95": false, "7.2.12": true, "7.3.4": true} {
		require.Equal(t, want, specs[2].Planned(goversion.Must(goversion.NewVersion(v))), v)
		require.True(t, specs[0].Planned(goversion.Must(goversion.NewVersion(v))), v)
	}
}

func TestLoadSpecsRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"a field it does not know":    {"tests:\n  - name: upstream/u\n    pth: x\n", "pth"},
		"a constraint that is none":   {"tests:\n  - name: upstream/u\n    path: x\n    trees: about seven\n", "trees: "},
		"a test without any script":   {"tests:\n  - name: nft_offload/gone\n", "neither a path nor a script"},
		"an accelerator that is none": {"tests:\n  - name: upstream/u\n    path: x\n    skip:\n      plain/tgc: slow\n", `"tgc"`},
		"a flavor that is none":       {"tests:\n  - name: upstream/u\n    path: x\n    skip:\n      debgu: slow\n", `"debgu"`},
		"what is no list of entries":  {"tests: 3\n", "tests.yaml"},
	} {
		configs, selftests := layout(t, tt.yaml)
		_, err := LoadSpecs(configs, selftests)
		require.ErrorContains(t, err, tt.want, name)
	}
}

func TestMatch(t *testing.T) {
	specs := []Spec{
		{Name: "nft_offload/a"}, {Name: "nft_offload/b"},
		{Name: "upstream/c", Path: "c.sh", Trees: "< 7.0"}, {Name: "upstream/c", Path: "c.sh", Trees: ">= 7.0"},
	}
	got, err := Match(specs, []string{"nft_offload/*", "*/a"})
	require.NoError(t, err)
	require.Len(t, got, 2, "each test once")
	got, err = Match(specs, []string{"upstream/*"})
	require.NoError(t, err)
	require.Len(t, got, 2, "for old trees and for new ones")
	got, err = Match(specs, nil)
	require.NoError(t, err)
	require.Len(t, got, 4)
	_, err = Match(specs, []string{"nft_offload/x*"})
	require.ErrorIs(t, err, ErrNoTests)
	require.ErrorContains(t, err, "upstream/c", "the error lists the known tests")
	_, err = Match(specs, []string{"["})
	require.ErrorContains(t, err, "pattern")
}

// A test that cannot run in a flavor is in the results, with the reason.
func TestSkip(t *testing.T) {
	cell := &report.Cell{Tree: "7.3", Flavor: "debug"}
	r := &Run{Out: t.TempDir(), queue: newQueue(1, 1<<30), results: &report.Results{Started: time.Now(), Cells: []report.Cell{}},
		Tests: []Spec{{Name: "upstream/u", Skip: map[string]string{"debug": "too slow"}}}}
	require.NoError(t, r.test(t.Context(), &kernel.Built{Tree: "7.3", Flavor: "debug", Version: "7.3.4"}, cell))
	require.Len(t, cell.Tests, 1)
	require.Equal(t, report.Skip, cell.Tests[0].Verdict)
	require.Equal(t, "too slow", cell.Tests[0].Reason)
}

// What runs the guest is the engine's to know: tests that hang on it ask there.
func TestSkipUnderAnAccelerator(t *testing.T) {
	_, selftests := layout(t, "tests: []\n", "x.sh")
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	skip := func(accel, flavor string, keys map[string]string) report.Test {
		r := &Run{Store: st, Engine: &vmtest.Engine{Store: st, Accel: accel, Image: os.DevNull}, Selftests: selftests, Out: t.TempDir(),
			Progress: report.NewProgress(null), queue: newQueue(1, 1<<30), results: &report.Results{Cells: []report.Cell{}},
			Tests: []Spec{{Name: "nft_offload/x", VCPUs: 1, Skip: keys}}}
		cell := &report.Cell{Tree: "7.3", Flavor: flavor}
		// Without a kernel a test that is not skipped is an error.
		require.NoError(t, r.test(t.Context(), &kernel.Built{Tree: "7.3", Flavor: flavor, Version: "7.3.4"}, cell))
		require.Len(t, cell.Tests, 1)
		if cell.Tests[0].Verdict == report.Skip {
			require.Equal(t, accel, r.results.Host.Accel)
		}
		return cell.Tests[0]
	}
	tcg, debugTCG := map[string]string{"tcg": "too slow"}, map[string]string{"debug/tcg": "too slow"}
	for _, tt := range []struct {
		accel, flavor string
		keys          map[string]string
		verdict       report.Verdict
	}{
		{"tcg", "plain", tcg, report.Skip},
		{"tcg", "debug", tcg, report.Skip},
		{"kvm", "plain", tcg, report.Error},
		{"tcg", "debug", debugTCG, report.Skip},
		{"tcg", "plain", debugTCG, report.Error},
		{"kvm", "debug", debugTCG, report.Error},
	} {
		got := skip(tt.accel, tt.flavor, tt.keys)
		require.Equal(t, tt.verdict, got.Verdict, "%s %s %v: %s", tt.accel, tt.flavor, tt.keys, got.Reason)
		if tt.verdict == report.Skip {
			require.Equal(t, "too slow", got.Reason)
		}
	}
}

// What a resumed run keeps: verdicts about the test, of the very same kernel.
func TestKept(t *testing.T) {
	old := &report.Results{Cells: []report.Cell{{
		Tree: "7.3", Flavor: "plain", Build: "key",
		Tests: []report.Test{
			{Name: "a", Verdict: report.Pass}, {Name: "b", Verdict: report.Fail}, {Name: "c", Verdict: report.Error},
		},
	}}}
	r := &Run{old: old}
	same := &report.Cell{Tree: "7.3", Flavor: "plain", Build: "key"}
	require.NotNil(t, r.kept(same, "a"))
	require.NotNil(t, r.kept(same, "b"))
	require.Nil(t, r.kept(same, "c"), "a fault of the harness is no verdict")
	require.Nil(t, r.kept(same, "d"))
	require.Nil(t, r.kept(&report.Cell{Tree: "7.3", Flavor: "plain", Build: "other"}, "a"), "another kernel")
	require.Nil(t, r.kept(&report.Cell{Tree: "7.3", Flavor: "plain"}, "a"))
	require.Nil(t, (&Run{}).kept(same, "a"), "not resumed")
}
