// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
)

// Guests that measure count their time by instructions: figures of one run
// then compare with each other whatever else the machine does.
const (
	guestICount  = 3
	guestTimeout = 10 * time.Minute
)

// sizes are the transactions that rules.sh measures, in rules.
var sizes = []int{10, 100, 1000, 10000}

var figureRE = regexp.MustCompile(`(?m)^# figure (\S+) (\d+)$`)

// guest runs a script of selftests/bench/ and returns the figures it printed.
func (b *Bench) guest(ctx context.Context, script string) (map[string]float64, error) {
	b.Say("%s in a guest", script)
	built, err := b.Builder(b.Store).Build(ctx, b.Tree, kernel.Plain)
	if err != nil {
		return nil, err
	}
	run := b.Run()
	run.Out = filepath.Join(b.Out, "guest")
	spec := matrix.Spec{Name: "nft_offload/bench/" + script, Timeout: guestTimeout, VCPUs: 1, ICount: guestICount}
	res, _, done := run.One(ctx, built, spec, b.Tree.Name+"/"+kernel.Plain)
	if !done {
		return nil, context.Cause(ctx)
	}
	if res.Verdict != report.Pass {
		return nil, fmt.Errorf("%s: %s: %s; output: %s", script, res.Verdict, res.Reason, res.Log)
	}
	log, err := os.ReadFile(res.Log)
	if err != nil {
		return nil, err
	}
	return figures(string(log))
}

// figures reads the lines "# figure NAME VALUE".
func figures(log string) (map[string]float64, error) {
	out := map[string]float64{}
	for _, m := range figureRE.FindAllStringSubmatch(log, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		if v <= 0 {
			return nil, fmt.Errorf("figure %s is %s", m[1], m[2])
		}
		out[m[1]] = v
	}
	return out, nil
}

// rules is what offload costs a transaction.
func (b *Bench) rules(ctx context.Context) ([]Figure, error) {
	us, err := b.guest(ctx, "rules")
	if err != nil {
		return nil, err
	}
	return rulesFigures(us)
}

// rulesFigures compares the microseconds that transactions of each size took
// with offload off, on, and with mainline's flag.
func rulesFigures(us map[string]float64) ([]Figure, error) {
	at := func(mode string, n int) float64 { return us[mode+"."+strconv.Itoa(n)] }
	var out []Figure
	for _, n := range sizes {
		off, on, mainline := at("off", n), at("on", n), at("mainline", n)
		if off == 0 || on == 0 || mainline == 0 {
			return nil, fmt.Errorf("no figure for transactions of %d rules", n)
		}
		per := func(t float64) float64 { return float64(n) / t * 1e6 }
		out = append(out, Figure{
			Name: fmt.Sprintf("rules %d", n), Value: off / on, Target: 0.8, AtLeast: true,
			How: fmt.Sprintf("rules per second, on beside off: %.0f, %.0f; with flags offload %.0f (on is %.2f of it); offload costs %.1f us a rule",
				per(on), per(off), per(mainline), mainline/on, (on-off)/float64(n)),
		})
	}
	small, large := sizes[1], sizes[len(sizes)-1]
	// What offload adds: all the rest is nft's, and hides what grows.
	cost := func(n int) float64 { return (at("on", n) - at("off", n)) / float64(n) }
	if cost(small) <= 0 {
		return nil, fmt.Errorf("offload seems to cost nothing with %d rules: %.1f us a rule", small, cost(small))
	}
	out = append(out, Figure{
		Name: "cost per rule", Value: cost(large) / cost(small), Target: 1.1,
		How: fmt.Sprintf("what offload adds to a rule in a transaction of %d, beside one of %d: %.1f us, %.1f us", large, small, cost(large), cost(small)),
	})
	return out, nil
}

// packets is what hardware saves.
func (b *Bench) packets(ctx context.Context) ([]Figure, error) {
	pps, err := b.guest(ctx, "packets")
	if err != nil {
		return nil, err
	}
	hw, sw := pps["hardware"], pps["software"]
	if hw == 0 || sw == 0 {
		return nil, fmt.Errorf("packets: no figure for hardware or software")
	}
	return []Figure{{
		Name: "packets", Value: hw / sw, Target: 10, AtLeast: true,
		How: fmt.Sprintf("packets per second with 1,000 rules before the one that matches, hardware beside software: %.0f, %.0f", hw, sw),
	}}, nil
}
