// SPDX-License-Identifier: GPL-2.0-only

// Package report is the results model and its renderings: results.json is the
// model itself, everything else is made from it.
package report

import (
	"time"
)

// Schema names the format of results.json; docs/results.schema.json is its
// definition. A change that breaks readers changes the number.
const Schema = "nftvm-results-1"

// Verdict is the outcome of a cell, a test or a subtest. Which values apply
// where is said at each field.
type Verdict string

// The verdicts. Error is the harness's fault, Fail the kernel's or the test's.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"
	Skip    Verdict = "skip"
	Error   Verdict = "error"
	Crash   Verdict = "crash"
	Timeout Verdict = "timeout"
	Leak    Verdict = "leak"
)

// Results is one run.
type Results struct {
	Schema  string    `json:"schema"`
	Started time.Time `json:"started"`
	// Seconds is the wall-clock time from start to the last verdict.
	Seconds float64 `json:"seconds"`
	// Interrupted is true when the run ended before its plan did.
	Interrupted bool   `json:"interrupted,omitempty"`
	Host        Host   `json:"host"`
	Cells       []Cell `json:"cells"`
}

// Host is the machine that ran the guests.
type Host struct {
	CPUs int `json:"cpus"`
	// Accel is what the guests ran on: tcg or kvm, "" when none ran.
	Accel string `json:"accel"`
	// QEMU is the version QEMU printed.
	QEMU string `json:"qemu"`
	// Version is nftvm's own.
	Version string `json:"version"`
}

// Origin says exactly which source a cell was built from.
type Origin struct {
	Kind    string `json:"kind"` // debian, tarball, git or dir
	Suite   string `json:"suite,omitempty"`
	Package string `json:"package,omitempty"`
	Version string `json:"version,omitempty"`
	// SHA256 is that of the package or tarball, or of a directory's whole content.
	SHA256 string `json:"sha256,omitempty"`
	Dir    string `json:"dir,omitempty"`
	// URL is the tarball's, or its path.
	URL string `json:"url,omitempty"`
	// Repo is the repository's path or address, and Commit and Tree what Rev
	// was there.
	Repo   string `json:"repo,omitempty"`
	Rev    string `json:"rev,omitempty"`
	Commit string `json:"commit,omitempty"`
	Tree   string `json:"tree,omitempty"`
}

// Cell is one tree in one flavor.
type Cell struct {
	Tree    string `json:"tree"`
	Release string `json:"release"`
	Flavor  string `json:"flavor"`
	Origin  Origin `json:"origin"`
	// Build is the key of what was booted: equal keys, equal kernels.
	Build   string  `json:"build,omitempty"`
	Verdict Verdict `json:"verdict"` // pass, fail, error or skip
	// Reason says in a sentence why the verdict is not pass.
	Reason string  `json:"reason,omitempty"`
	Stages []Stage `json:"stages"`
	Tests  []Test  `json:"tests"`
}

// Stage is one step of the pipeline of a cell.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Cached  bool    `json:"cached"`
	Log     string  `json:"log,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// Test is one test in one cell.
type Test struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"` // pass, fail, skip, crash, timeout, leak or error
	// Reason says in a sentence why the verdict is not pass.
	Reason  string  `json:"reason,omitempty"`
	Seconds float64 `json:"seconds"`
	// StartSeconds is QEMU's exec to the first command answered in the guest.
	StartSeconds float64   `json:"start_seconds"`
	Log          string    `json:"log"`
	Console      string    `json:"console,omitempty"`
	Repro        string    `json:"repro,omitempty"`
	Subtests     []Subtest `json:"subtests"`
	Splats       []Splat   `json:"splats"`
	Taint        []string  `json:"taint"`
	Ledger       Ledger    `json:"ledger"`
}

// Subtest is one line of a test's KTAP.
type Subtest struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"` // pass, fail or skip
	// Reason is what the test says of a subtest that it skips.
	Reason string `json:"reason,omitempty"`
}

// Splat is one complaint of the kernel.
type Splat struct {
	Kind  string `json:"kind"`
	Title string `json:"title"`
}

// Ledger is what the simulated hardware says after a test: entries and
// bindings left, and calls that came too late or had to be cleaned up.
type Ledger struct {
	Entries int64 `json:"entries"`
	Bound   int64 `json:"bound"`
	Stale   int64 `json:"stale"`
	Purged  int64 `json:"purged"`
}

// Bad says whether a verdict makes a run red.
func (v Verdict) Bad() bool { return v != Pass && v != Skip }

// Judge sets the verdict of the cell from its stages and tests: a harness
// fault anywhere makes it error, any other bad outcome fail, and a cell in
// which nothing ran is a skip.
func (c *Cell) Judge() {
	ran := false
	verdict, reason := Pass, ""
	for _, t := range c.Tests {
		switch {
		case t.Verdict == Error:
			c.Verdict, c.Reason = Error, t.Name+": "+t.Reason
			return
		case t.Verdict.Bad() && verdict == Pass:
			verdict, reason = Fail, t.Name+": "+string(t.Verdict)
			if t.Reason != "" {
				reason += ": " + t.Reason
			}
		}
		ran = ran || t.Verdict != Skip
	}
	if !ran && verdict == Pass {
		verdict, reason = Skip, "no test ran"
	}
	c.Verdict, c.Reason = verdict, reason
}

// Exit codes of nftvm; scripts and CI rely on them.
const (
	ExitPass    = 0 // everything passed
	ExitFail    = 1 // a test, patch or tree failed
	ExitHarness = 2 // the harness could not do its job
)

// ExitCode is what the whole run comes to. A run in which nothing was judged is
// no success.
func (r *Results) ExitCode() int {
	code := ExitPass
	judged := false
	for _, c := range r.Cells {
		switch c.Verdict {
		case Error:
			return ExitHarness
		case Fail:
			code = ExitFail
			judged = true
		case Pass:
			judged = true
		}
	}
	if r.Interrupted || !judged {
		return max(code, ExitHarness)
	}
	return code
}
