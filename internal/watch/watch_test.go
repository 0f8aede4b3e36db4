// SPDX-License-Identifier: GPL-2.0-only

package watch

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// desk is a Watch of which the pipeline is played.
type desk struct {
	*Watch
	t      *testing.T
	out    bytes.Buffer
	source string                    // what is in the tree
	broken error                     // what the next build says
	bad    map[string]report.Verdict // of the next tests
	built  int
	ran    []string
	taints []string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, source: "1", bad: map[string]report.Verdict{}}
	selftests := t.TempDir()
	for _, name := range []string{"lib.sh", "a.sh", "b.sh"} {
		save(t, filepath.Join(selftests, name))
	}
	d.Watch = &Watch{
		Tree: tree.Tree{Name: "7.3"}, Repo: t.TempDir(), Selftests: selftests, Out: t.TempDir(), Say: &d.out,
		Specs: []matrix.Spec{{Name: "nft_offload/a"}, {Name: "nft_offload/b"}, {Name: "upstream/u", Path: "tools/u.sh"}},
		Work: func(context.Context) (*dev.Work, error) {
			pristine, edited := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(edited, "x.c"), []byte(d.source), 0o644))
			o, err := series.Edited(pristine, edited, []string{"x.c"})
			return &dev.Work{Tree: "7.3", Overlay: o}, err
		},
		Touches: func(b *kernel.Built, o *series.Overlay) ([]string, bool) {
			return nil, len(series.Differ(b.Overlay, o)) == 0
		},
		Build: func(_ context.Context, w *dev.Work) (*kernel.Built, error) {
			if d.broken != nil {
				return nil, d.broken
			}
			d.built++
			return &kernel.Built{Tree: "7.3", Version: "7.3.4", Key: store.Key(d.source), Overlay: w.Overlay}, nil
		},
		Test: func(_ context.Context, b *kernel.Built, s matrix.Spec) (report.Test, bool) {
			d.ran = append(d.ran, s.Name)
			d.taints = append(d.taints, s.Taint)
			res := report.Test{Name: s.Name, Verdict: report.Pass}
			if v := d.bad[s.Name]; v != "" {
				res.Verdict, res.Reason = v, "subtest x failed"
				res.Log = filepath.Join(t.TempDir(), "output.log")
				require.NoError(t, os.WriteFile(res.Log, []byte(strings.Repeat("early\n", 40)+"not ok 1 x\n"), 0o644))
				res.Subtests = []report.Subtest{{Name: "x", Verdict: report.Fail, Reason: "1 packet, expected 0"}}
			}
			return res, true
		},
	}
	return d
}

func (d *desk) round() (ran []string, said string) {
	d.t.Helper()
	d.ran, d.taints = nil, nil
	d.out.Reset()
	require.NoError(d.t, d.Round(d.t.Context(), d.t.Context()))
	return d.ran, d.out.String()
}

func TestRound(t *testing.T) {
	d := newDesk(t)
	ran, said := d.round()
	require.Equal(t, []string{"nft_offload/a", "nft_offload/b", "upstream/u"}, ran)
	require.Contains(t, said, "7.3 kernel in ")
	require.True(t, d.Good())

	ran, said = d.round()
	require.Empty(t, ran)
	require.Contains(t, said, "3 passed before, and nothing that they run has changed")
	require.Equal(t, 1, d.built)

	// A script is its own test only; a library is everybody's.
	save(t, filepath.Join(d.Selftests, "b.sh"))
	ran, _ = d.round()
	require.Equal(t, []string{"nft_offload/b"}, ran)
	save(t, filepath.Join(d.Selftests, "lib.sh"))
	ran, _ = d.round()
	require.Equal(t, []string{"nft_offload/a", "nft_offload/b"}, ran)

	// What failed comes first, and again, until it passes.
	d.source = "2"
	d.bad["nft_offload/b"] = report.Fail
	ran, said = d.round()
	require.Len(t, ran, 3)
	require.False(t, d.Good())
	require.Contains(t, said, "nft_offload/b")
	require.Contains(t, said, "    x: 1 packet, expected 0\n")
	require.Contains(t, said, "    | not ok 1 x\n")
	require.Equal(t, 19, strings.Count(said, "| early"), "the last 20 lines")
	ran, _ = d.round()
	require.Equal(t, []string{"nft_offload/b"}, ran)
	delete(d.bad, "nft_offload/b")
	d.source = "3"
	ran, _ = d.round()
	require.Equal(t, "nft_offload/b", ran[0])
	require.Len(t, ran, 3)
	require.True(t, d.Good())

	// A tree that does not build is the author's business, not an end.
	d.source, d.broken = "4", store.KernelFault(errors.New("x.c:1: error: expected ';'"))
	ran, said = d.round()
	require.Empty(t, ran)
	require.Contains(t, said, "7.3 does not build:\nx.c:1: error: expected ';'")
	require.False(t, d.Good())
	d.source, d.broken = "3", nil
	ran, said = d.round()
	require.Empty(t, ran, "back to what passed")
	require.Contains(t, said, "needs no build")

	d.broken = errors.New("no space left")
	d.source = "5"
	require.ErrorContains(t, d.Round(t.Context(), t.Context()), "no space left")
}

// A round that is not fresh any more goes on building, and tests nothing.
func TestStaleRound(t *testing.T) {
	d := newDesk(t)
	fresh, cancel := context.WithCancelCause(t.Context())
	cancel(errSaved)
	require.ErrorIs(t, d.Round(t.Context(), fresh), errSaved)
	require.Equal(t, 1, d.built)
	require.Empty(t, d.ran)
}

func TestModulesAlone(t *testing.T) {
	d := newDesk(t)
	d.round()
	made := 0
	d.Modules = func(_ context.Context, b *kernel.Built, o *series.Overlay, dirs []string, dir string) (*kernel.Built, error) {
		made++
		require.Equal(t, []string{"net/netfilter"}, dirs)
		out := *b
		out.Overlay, out.Modules = o, dir
		save(t, filepath.Join(dir, "nft_offload.ko"))
		return &out, nil
	}
	d.Touches = func(*kernel.Built, *series.Overlay) ([]string, bool) { return []string{"net/netfilter"}, true }
	d.source = "2"
	ran, said := d.round()
	require.Contains(t, said, "7.3 modules of net/netfilter in ")
	require.Len(t, ran, 3)
	require.Equal(t, []string{"O", "O", "O"}, d.taints, "what is made by hand taints")
	require.Equal(t, 1, d.built)
	require.Equal(t, 1, made)
}
