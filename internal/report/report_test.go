// SPDX-License-Identifier: GPL-2.0-only

package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

func sample() *Results {
	return &Results{
		Schema: Schema, Started: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Seconds: 42.5,
		Host: Host{CPUs: 2, Accel: "tcg", QEMU: "7.2", Version: "abc"},
		Cells: []Cell{
			{
				Tree: "6.12", Release: "6.12.95", Flavor: "plain", Verdict: Pass,
				Origin: Origin{Kind: "debian", Suite: "s", Package: "p", Version: "1", SHA256: "00"},
				Stages: []Stage{{Name: "source", Seconds: 1, Cached: true, Log: "l"}},
				Tests: []Test{{
					Name: "nft_offload/prefix", Verdict: Pass, Seconds: 1.25, StartSeconds: 2, Log: "o",
					Subtests: []Subtest{{Name: "a # b", Verdict: Pass}, {Name: "vlan", Verdict: Skip, Reason: "no tags here"}}, Splats: []Splat{}, Taint: []string{},
				}},
			},
			{
				Tree: "7.3", Release: "7.3.4", Flavor: "debug", Verdict: Fail, Reason: "x: crash",
				Origin: Origin{Kind: "dir", Dir: "d"}, Stages: []Stage{},
				Tests: []Test{
					{
						Name: "nft_offload/toggle", Verdict: Crash, Reason: "panic: fixture\nsecond line",
						Log: "o", Console: "c", Repro: "r",
						Subtests: []Subtest{{Name: "s", Verdict: Fail}},
						Splats:   []Splat{{Kind: "panic", Title: "panic: fixture"}}, Taint: []string{"D"},
						Ledger: Ledger{Entries: 1},
					},
					{Name: "upstream/x", Verdict: Skip, Reason: "no tool", Subtests: []Subtest{}, Splats: []Splat{}, Taint: []string{}},
				},
			},
		},
	}
}

func TestResultsMatchTheirSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "docs", "results.schema.json"))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, sample().Write(dir))
	raw, err := os.ReadFile(filepath.Join(dir, JSONFile))
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(doc))

	// The schema says no to what readers would stumble over.
	var loose map[string]any
	require.NoError(t, json.Unmarshal(raw, &loose))
	loose["cells"].([]any)[0].(map[string]any)["verdict"] = "fine"
	require.Error(t, schema.Validate(loose))
}

func TestLoadReadsWhatWriteWrote(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, sample().Write(dir))
	got, err := Load(dir)
	require.NoError(t, err)
	require.Equal(t, sample(), got)

	require.NoError(t, os.WriteFile(filepath.Join(dir, JSONFile), []byte(`{"schema":"other"}`), 0o644))
	_, err = Load(dir)
	require.ErrorContains(t, err, `schema "other"`)
}

func TestKTAP(t *testing.T) {
	want := `KTAP version 1
1..2
    KTAP version 1
    1..1
        KTAP version 1
        1..2
        ok 1 a \# b
        ok 2 vlan # SKIP no tags here
    ok 1 nft_offload/prefix
ok 1 6.12/plain
    KTAP version 1
    1..2
        KTAP version 1
        1..1
        # fail: s
        not ok 1 s
    # crash: nft_offload/toggle: panic: fixture
    # second line
    not ok 1 nft_offload/toggle
    ok 2 upstream/x # SKIP no tool
# fail: 7.3/debug: x: crash
not ok 2 7.3/debug
`
	require.Equal(t, want, string(sample().KTAP()))
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	sample().Table(&b)
	require.Equal(t, `test                6.12       7.3/debug
-----------------------------------------
nft_offload/prefix  pass 1.2s  -
nft_offload/toggle  -          crash 0.0s
upstream/x          -          skip 0.0s
-----------------------------------------
verdict             pass       fail
`, b.String())
}

func TestExitCode(t *testing.T) {
	cells := func(vs ...Verdict) *Results {
		r := &Results{}
		for _, v := range vs {
			r.Cells = append(r.Cells, Cell{Verdict: v})
		}
		return r
	}
	interrupted := cells(Pass)
	interrupted.Interrupted = true
	for name, tt := range map[string]struct {
		r    *Results
		want int
	}{
		"all pass":                  {cells(Pass, Pass), ExitPass},
		"a skip beside a pass":      {cells(Pass, Skip), ExitPass},
		"one fails":                 {cells(Pass, Fail), ExitFail},
		"harness fault outranks":    {cells(Fail, Error), ExitHarness},
		"nothing judged":            {cells(Skip), ExitHarness},
		"nothing at all":            {cells(), ExitHarness},
		"interrupted is no success": {interrupted, ExitHarness},
	} {
		require.Equal(t, tt.want, tt.r.ExitCode(), name)
	}
}

func TestJudge(t *testing.T) {
	for name, tt := range map[string]struct {
		tests  []Test
		want   Verdict
		reason string
	}{
		"no test ran":      {nil, Skip, "no test ran"},
		"only skips":       {[]Test{{Name: "a", Verdict: Skip}}, Skip, "no test ran"},
		"pass and skip":    {[]Test{{Name: "a", Verdict: Pass}, {Name: "b", Verdict: Skip}}, Pass, ""},
		"a leak is red":    {[]Test{{Name: "a", Verdict: Pass}, {Name: "b", Verdict: Leak, Reason: "2 entries"}}, Fail, "b: leak: 2 entries"},
		"a timeout is red": {[]Test{{Name: "a", Verdict: Timeout}}, Fail, "a: timeout"},
		"harness outranks": {[]Test{{Name: "a", Verdict: Fail}, {Name: "b", Verdict: Error, Reason: "QEMU died"}}, Error, "b: QEMU died"},
	} {
		c := Cell{Tests: tt.tests}
		c.Judge()
		require.Equal(t, tt.want, c.Verdict, name)
		require.Equal(t, tt.reason, c.Reason, name)
	}
}
