// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"slices"
	"sync"
	"time"
)

func rdtsc() uint64

// tscWindow is how long the counter is watched. The clock is read to some ten
// nanoseconds, so this gives five digits.
const tscWindow = 5 * time.Millisecond

// tscKHz is the rate of this machine's time stamp counter, which TCG shows its
// guests as theirs; 0 if it makes no sense.
var tscKHz = sync.OnceValue(func() int {
	// What disturbs a measurement makes it an outlier: the median is good.
	rates := make([]int, 5)
	for i := range rates {
		t0, c0 := time.Now(), rdtsc()
		for time.Since(t0) < tscWindow {
		}
		c1, d := rdtsc(), time.Since(t0)
		rates[i] = int(float64(c1-c0) / d.Seconds() / 1000)
	}
	slices.Sort(rates)
	best := rates[len(rates)/2]
	if best < 100_000 || best > 10_000_000 {
		return 0
	}
	// The same for every process that measures: it is part of what a saved
	// machine depends on.
	return (best + 500) / 1000 * 1000
})
