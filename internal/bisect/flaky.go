// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"fmt"
	"math"
)

// Confidence is how much the good verdicts of a search can be trusted. A bad
// one cannot be wrong: somebody has seen the test fail.
type Confidence struct {
	// Failures of Runs is what the bad end showed.
	Failures int `json:"failures"`
	Runs     int `json:"runs"`
	// Goods is how many verdicts are good for want of a failure.
	Goods int `json:"goods"`
	// Each is the chance that one of them is wrong, and Any that at least one
	// is.
	Each float64 `json:"each"`
	Any  float64 `json:"any"`
}

// confidence is about good verdicts of the given number of runs each.
func confidence(failures, runs, goods int) Confidence {
	c := Confidence{Failures: failures, Runs: runs, Goods: goods}
	if runs == 0 {
		return c
	}
	p := float64(failures) / float64(runs)
	c.Each = math.Pow(1-p, float64(runs))
	c.Any = 1 - math.Pow(1-c.Each, float64(goods))
	return c
}

func (c Confidence) String() string {
	return fmt.Sprintf("at the bad end %d of %d runs failed; at that rate a good verdict (%d runs without a failure) is wrong with probability %s, "+
		"any of the %d there are with %s", c.Failures, c.Runs, c.Runs, percent(c.Each), c.Goods, percent(c.Any))
}

func percent(p float64) string {
	switch {
	case p == 0:
		return "0 %"
	case p < 0.0001:
		return "under 0.01 %"
	}
	return fmt.Sprintf("%.2g %%", 100*p)
}
