// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Schema names the format of check.json; docs/check.schema.json is its
// definition. A change that breaks readers changes the number.
const Schema = "nftvm-check-1"

// Verdict is what became of a patch on a tree, in a word.
type Verdict string

// The verdicts; of several the first of these counts. Error is the harness's
// fault, the others the patch's.
const (
	Error  Verdict = "error"
	Apply  Verdict = "apply"  // it does not apply
	Build  Verdict = "build"  // it does not build
	Config Verdict = "config" // a symbol that is asked for got lost
	Test   Verdict = "test"   // a test does not pass any more
	Warn   Verdict = "warn"   // a compiler, sparse or a semantic patch says something new
	Style  Verdict = "style"  // checkpatch has remarks
	Pass   Verdict = "pass"
	// None is for a patch that the tree does not get, and for one behind a
	// patch that stopped the walk.
	None Verdict = "-"
)

var order = []Verdict{Error, Apply, Build, Config, Test, Warn, Style, Pass, None}

// Bad tells whether something is wrong.
func (v Verdict) Bad() bool { return v != Pass && v != None }

// stops tells whether what comes behind such a patch cannot be looked at.
func (v Verdict) stops() bool { return v == Error || v == Apply || v == Build }

// Why a cell has no verdict.
const (
	notForTree = "not for this version"
	notReached = "not reached"
)

// seriesRow is the name of what is found of a series as a whole.
const seriesRow = "series"

// Finding is something wrong with a patch on a tree.
type Finding struct {
	// Tool is what found it: apply, build, config, test, warnings, checkpatch
	// or coccicheck.
	Tool string `json:"tool"`
	Text string `json:"text"`
}

// tools are what looks at a patch, and the verdict that a finding of it is.
var tools = []struct {
	name    string
	verdict Verdict
	// b4 is the status of a finding for b4.
	b4 string
}{
	{"apply", Apply, b4Fail}, {"build", Build, b4Fail}, {"config", Config, b4Fail}, {"test", Test, b4Fail},
	{"warnings", Warn, b4Warn}, {"checkpatch", Style, b4Warn}, {"coccicheck", Warn, b4Warn},
}

// Cell is one patch on one tree.
type Cell struct {
	Patch   string  `json:"patch"`
	Verdict Verdict `json:"verdict"`
	// Reason is why there is no verdict, or what is wrong with the harness.
	Reason string `json:"reason,omitempty"`
	// Cached is true when all of it was known already.
	Cached  bool    `json:"cached"`
	Seconds float64 `json:"seconds"`
	// Ran are the tools that looked at the patch.
	Ran      []string  `json:"ran"`
	Findings []Finding `json:"findings"`
	// Notes are what one should know and need not mend.
	Notes []string `json:"notes,omitempty"`
	// Tests are the tests that ran with the patch.
	Tests []TestResult `json:"tests,omitempty"`
}

// TestResult is a test with the patches so far.
type TestResult struct {
	Name    string         `json:"name"`
	Verdict report.Verdict `json:"verdict"`
	Reason  string         `json:"reason,omitempty"`
	Log     string         `json:"log,omitempty"`
}

func (c *Cell) add(tool, text string) {
	c.Findings = append(c.Findings, Finding{tool, text})
	c.judge()
}

// ran says that a tool looked, whether or not it found something.
func (c *Cell) ran(tool string) {
	if !slices.Contains(c.Ran, tool) {
		c.Ran = append(c.Ran, tool)
	}
}

// judge makes the verdict of the findings.
func (c *Cell) judge() {
	if c.Verdict == Error {
		return
	}
	c.Verdict, c.Reason = Pass, ""
	for _, f := range c.Findings {
		for _, t := range tools {
			if t.name == f.Tool && slices.Index(order, t.verdict) < slices.Index(order, c.Verdict) {
				c.Verdict = t.verdict
			}
		}
	}
}

// Tree is the walk over one tree.
type Tree struct {
	Tree    string        `json:"tree"`
	Version string        `json:"version"`
	Origin  report.Origin `json:"origin"`
	// FirstBad is the first patch that something is wrong with, "" for none.
	FirstBad string `json:"first_bad,omitempty"`
	Cells    []Cell `json:"cells"`
	// Whole is what was found of the series as a whole.
	Whole Cell `json:"series"`
}

func (t *Tree) judge() {
	t.FirstBad = ""
	if c := t.first(); c != nil {
		t.FirstBad = c.Patch
	}
}

// all are the cells, and that of the series as a whole behind them.
func (t *Tree) all() []*Cell {
	var out []*Cell
	for i := range t.Cells {
		out = append(out, &t.Cells[i])
	}
	return append(out, &t.Whole)
}

// first is the first bad cell, nil for none.
func (t *Tree) first() *Cell {
	for _, c := range t.all() {
		if c.Verdict.Bad() {
			return c
		}
	}
	return nil
}

// verdict is the worst of the cells'.
func (t *Tree) verdict() Verdict {
	v := None
	for _, c := range t.all() {
		if slices.Index(order, c.Verdict) < slices.Index(order, v) {
			v = c.Verdict
		}
	}
	return v
}

// Results is one check.
type Results struct {
	Schema  string      `json:"schema"`
	Started time.Time   `json:"started"`
	Seconds float64     `json:"seconds"`
	Host    report.Host `json:"host"`
	// Interrupted is true when the check ended before its plan did.
	Interrupted bool `json:"interrupted,omitempty"`
	// Depth is fast, default or full; From what the series was taken from.
	Depth   Depth    `json:"depth"`
	From    string   `json:"from"`
	Patches []string `json:"patches"`
	Trees   []*Tree  `json:"trees"`
}

// Findings is how many there are.
func (r *Results) Findings() (n int) {
	for _, t := range r.Trees {
		for _, c := range t.all() {
			n += len(c.Findings)
		}
	}
	return n
}

// ExitCode is what the check comes to: one that judged nothing is no success.
func (r *Results) ExitCode() int {
	worst := None
	for _, t := range r.Trees {
		if v := t.verdict(); slices.Index(order, v) < slices.Index(order, worst) {
			worst = v
		}
	}
	switch {
	case worst == Error, worst == None, r.Interrupted:
		return report.ExitHarness
	case worst == Pass:
		return report.ExitPass
	}
	return report.ExitFail
}

// Nowhere is an error when the series could not be looked at on any tree,
// because none gets a patch of it, or takes the first that it gets.
func (r *Results) Nowhere() error {
	var why []string
	for _, t := range r.Trees {
		i := slices.IndexFunc(t.Cells, func(c Cell) bool { return c.Reason != notForTree })
		switch {
		case i < 0:
			why = append(why, t.Tree+" gets none of its patches")
		case t.Cells[i].Verdict == Apply:
			first, _, _ := strings.Cut(t.Cells[i].Findings[0].Text, "\n")
			why = append(why, t.Tree+": "+first)
		default:
			return nil
		}
	}
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("%s applies to none of the trees (%s)", r.From, strings.Join(why, "; "))
}
