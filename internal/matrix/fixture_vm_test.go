// SPDX-License-Identifier: GPL-2.0-only

package matrix

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

// fixture runs one cell of the real series with one fixture patch on top.
func fixture(ctx context.Context, t *testing.T, patch string) *report.Results {
	t.Helper()
	treeName := os.Getenv("NFTVM_TEST_TREE")
	if treeName == "" {
		t.Skip("NFTVM_TEST_TREE is not set; run this through: make vm-test")
	}
	root := filepath.Join("..", "..")
	st, err := store.Open("")
	require.NoError(t, err)
	cfg, err := tree.Load(filepath.Join(root, "configs", "trees.yaml"))
	require.NoError(t, err)
	trees, err := cfg.Select([]string{treeName})
	require.NoError(t, err)
	var extra []string
	if patch != "" {
		extra = []string{filepath.Join("testdata", "fixtures", patch)}
	}
	selftests, err := filepath.Abs(filepath.Join("testdata", "selftests"))
	require.NoError(t, err)
	r := &Run{
		Store:     st,
		Builder:   &kernel.Builder{Store: st, Series: filepath.Join(root, "patches"), Configs: filepath.Join(root, "configs"), Extra: extra},
		Engine:    &vmtest.Engine{Store: st},
		Trees:     trees,
		Flavors:   []string{"plain"},
		Tests:     []Spec{{Name: "nft_offload/load_dummy", Timeout: 4 * time.Second, VCPUs: 1}},
		Selftests: selftests,
		Out:       t.TempDir(),
		Progress:  report.NewProgress(os.Stderr),
	}
	res, err := r.Do(ctx)
	require.NoError(t, err)
	require.Len(t, res.Cells, 1)
	return res
}

func TestFixtureVerdicts(t *testing.T) {
	for _, tt := range []struct {
		patch   string
		verdict report.Verdict
		reason  string // in the test's reason
		splat   string // a title among the splats
	}{
		{patch: "", verdict: report.Pass},
		{patch: "module-panics.patch", verdict: report.Crash, reason: "nftvm fixture", splat: "nftvm fixture"},
		{patch: "module-warns.patch", verdict: report.Fail, reason: "WARNING", splat: "WARNING in dummy_init_module"},
		{patch: "module-hangs.patch", verdict: report.Timeout, reason: "no end within"},
	} {
		name := tt.patch
		if name == "" {
			name = "none"
		}
		t.Run(name, func(t *testing.T) {
			res := fixture(t.Context(), t, tt.patch)
			cell := res.Cells[0]
			require.Len(t, cell.Tests, 1, "cell: %s %s", cell.Verdict, cell.Reason)
			got := cell.Tests[0]
			require.Equal(t, tt.verdict, got.Verdict, got.Reason)
			require.Contains(t, got.Reason, tt.reason)
			if tt.splat != "" {
				require.NotEmpty(t, got.Splats)
				require.Contains(t, got.Splats[0].Title, tt.splat)
				trace, err := os.ReadFile(filepath.Join(filepath.Dir(got.Log), vmtest.TraceFile))
				require.NoError(t, err)
				require.Contains(t, string(trace), "dummy_init_module+0x")
				if built := slices.IndexFunc(cell.Stages, func(s report.Stage) bool { return s.Name == "build" }); !cell.Stages[built].Cached {
					require.Regexp(t, `dummy_init_module\+0x\S+ \[dummy\S*\] \(drivers/net/dummy\.c:\d+\)`, string(trace))
				}
			}
			if tt.verdict == report.Pass {
				require.Equal(t, report.Pass, cell.Verdict)
				require.Equal(t, report.ExitPass, res.ExitCode())
			} else {
				require.Equal(t, report.Fail, cell.Verdict, "the kernel's fault, not the harness's")
				require.Equal(t, report.ExitFail, res.ExitCode())
				console, err := os.ReadFile(got.Console)
				require.NoError(t, err)
				require.NotEmpty(t, console)
			}
		})
	}
}

func TestFixtureBuildFailures(t *testing.T) {
	for _, tt := range []struct {
		patch, stage string
		says         []string
	}{
		{"module-does-not-compile.patch", "build", []string{"drivers/net/dummy.c:", "nftvm_fixture_undeclared", "undeclared"}},
		{"does-not-apply.patch", "patch", []string{"does-not-apply.patch", "drivers/net/dummy.c", "hunk", "rtnl_link_register"}},
	} {
		t.Run(tt.patch, func(t *testing.T) {
			res := fixture(t.Context(), t, tt.patch)
			cell := res.Cells[0]
			require.Equal(t, report.Fail, cell.Verdict, "the kernel's fault, not the harness's")
			require.Equal(t, report.ExitFail, res.ExitCode())
			require.Empty(t, cell.Tests)
			last := cell.Stages[len(cell.Stages)-1]
			require.Equal(t, tt.stage, last.Name)
			for _, s := range tt.says {
				require.Contains(t, last.Error, s)
				require.Contains(t, cell.Reason, s)
			}
		})
	}
}

// An interrupted run is no success, whatever it had got to.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
	defer cancel()
	res := fixture(ctx, t, "module-hangs.patch")
	require.True(t, res.Interrupted)
	require.Equal(t, report.ExitHarness, res.ExitCode())
	require.Equal(t, report.Skip, res.Cells[0].Verdict)
}
