// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFigures(t *testing.T) {
	got, err := figures("TAP version 13\n# figure off.10 1200\nok 1 off\n# figure on.10 1500\n# figure of speech\n")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"off.10": 1200, "on.10": 1500}, got)
	_, err = figures("# figure hardware 0\n")
	require.ErrorContains(t, err, "hardware", "a rate of zero must not become a ratio")
}

func TestRulesFigures(t *testing.T) {
	us := map[string]float64{}
	for mode, perRule := range map[string]float64{"off": 8, "on": 10, "mainline": 20} {
		for n, name := range map[float64]string{10: "10", 100: "100", 1000: "1000", 10000: "10000"} {
			us[mode+"."+name] = n * perRule
		}
	}
	got, err := rulesFigures(us)
	require.NoError(t, err)
	require.Len(t, got, 5)
	require.InDelta(t, 0.8, got[0].Value, 1e-9)
	require.Contains(t, got[3].How, "on beside off: 100000, 125000; with flags offload 50000 (on is 2.00 of it); offload costs 2.0 us a rule")
	require.InDelta(t, 1, got[4].Value, 1e-9)
	require.True(t, got[0].Met())
	require.True(t, got[4].Met())

	us["on.10000"] *= 2
	got, err = rulesFigures(us)
	require.NoError(t, err)
	require.False(t, got[3].Met(), "half as fast is not 0.8 of it")
	require.False(t, got[4].Met(), "the cost per rule has grown")

	delete(us, "mainline.100")
	_, err = rulesFigures(us)
	require.ErrorContains(t, err, "100 rules")
}

func TestTableSaysWhichWayATargetGoes(t *testing.T) {
	var b strings.Builder
	Table(&b, []Figure{{Name: "boot", Value: 3, Unit: "s", Target: 2.5}, {Name: "packets", Value: 12, Target: 10, AtLeast: true}})
	require.Contains(t, b.String(), "at most     2.50  MISSED")
	require.Contains(t, b.String(), "at least   10.00  met")
}

func TestEveryMissedFigureIsNamed(t *testing.T) {
	require.Equal(t, []string{"objects", "packets"}, Missed([]Figure{
		{Name: "objects", Value: 1156, Target: 1150}, {Name: "boot", Value: 1.6, Target: 2.5},
		{Name: "packets", Value: 9, Target: 10, AtLeast: true},
	}))
}
