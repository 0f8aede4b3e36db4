// SPDX-License-Identifier: GPL-2.0-only

// Package bisect finds what makes a test fail: the commit, the patch of the
// series, the tree, the symbols of a configuration. The searches know nothing
// of kernels: they ask a Judge about points. What a Judge cannot tell is a
// skip, and a search that ends among skips names all that it may be.
package bisect

import (
	"context"
	"fmt"
	"strings"
)

// Verdict is what is known of a point.
type Verdict string

// The verdicts. Skip is neither: the point does not build, its kernel does not
// boot, or the test cannot run there.
const (
	Good Verdict = "good"
	Bad  Verdict = "bad"
	Skip Verdict = "skip"
)

// Point is one state to judge: a commit, a prefix of the series, a tree, a
// configuration.
type Point struct {
	// Key names the point in the journal and its directory in the results.
	Key string
	// Title is for people.
	Title string
	// Measure wants every run, also those behind the first failure: they tell
	// how often the test fails.
	Measure bool
}

// Judge tells of a point. Its error is that there can be no verdict at all: the
// harness is at fault, or it was interrupted.
type Judge func(ctx context.Context, p Point) (Result, error)

// The classes of failures. One that is of another class than that of the bad
// end says nothing of what is looked for.
const (
	// ClassBoot: the kernel did not come up.
	ClassBoot = "boot"
	// ClassBail: the test gave up before it tested anything.
	ClassBail = "bail"
	// ClassTest: the test failed, or the kernel did under it.
	ClassTest = "test"
)

// Result is what a Judge says of a point.
type Result struct {
	Verdict Verdict `json:"verdict,omitempty"` // "" while runs are missing
	// Reason says in a sentence why the verdict is not good.
	Reason string `json:"reason,omitempty"`
	// Class is that of the failure.
	Class string `json:"class,omitempty"`
	// Failed are the tests that did.
	Failed []string `json:"failed,omitempty"`
	// Image tells what was booted from other kernels.
	Image string `json:"image,omitempty"`
	// Same is the title of the point that has this very image and was booted
	// in place of this one.
	Same string `json:"same,omitempty"`
	// Lost are symbols of the configuration that did not survive.
	Lost []string  `json:"lost,omitempty"`
	Runs []Attempt `json:"runs,omitempty"`
}

// Attempt is one run of the tests on one kernel.
type Attempt struct {
	// Verdict is good, bad or skip.
	Verdict Verdict  `json:"verdict"`
	Reason  string   `json:"reason,omitempty"`
	Class   string   `json:"class,omitempty"`
	Failed  []string `json:"failed,omitempty"`
	// How are the subtests that failed and the kernel's complaints.
	How []string `json:"how,omitempty"`
	// Log and Console are files of the test that failed, or of the last one.
	Log     string  `json:"log,omitempty"`
	Console string  `json:"console,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Failures is how many of the runs failed.
func (r Result) Failures() (n int) {
	for _, a := range r.Runs {
		if a.Verdict == Bad {
			n++
		}
	}
	return n
}

// Evidence is the run that the verdict rests on, nil when nothing ran.
func (r Result) Evidence() *Attempt {
	for i := range r.Runs {
		if r.Runs[i].Verdict != Good {
			return &r.Runs[i]
		}
	}
	if len(r.Runs) == 0 {
		return nil
	}
	return &r.Runs[len(r.Runs)-1]
}

// verdictOf is a Judge's verdict alone.
func (j Judge) verdictOf(ctx context.Context, p Point) (Verdict, error) {
	r, err := j(ctx, p)
	return r.Verdict, err
}

// firstLine is what of a reason goes into a line.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// because is a result's reason as the end of a sentence.
func because(r Result) string {
	if r.Reason == "" {
		return ""
	}
	return ": " + firstLine(r.Reason)
}

// Ends judges both ends before anything is searched between them, the bad one
// first: what fails there is what is looked for. focus is told of it before the
// good end is judged.
func Ends(ctx context.Context, judge Judge, good, bad Point, focus func(Result)) error {
	bad.Measure = true
	b, err := judge(ctx, bad)
	if err != nil {
		return err
	}
	switch b.Verdict {
	case Skip:
		return fmt.Errorf("the bad end, %s, cannot be judged%s", bad.Title, because(b))
	case Bad:
		focus(b)
	}
	g, err := judge(ctx, good)
	if err != nil {
		return err
	}
	switch {
	case g.Verdict == Skip:
		return fmt.Errorf("the good end, %s, cannot be judged%s", good.Title, because(g))
	case g.Image != "" && g.Image == b.Image:
		return fmt.Errorf("both ends, %s and %s, are the same kernel: nothing between them changes what is built", good.Title, bad.Title)
	case b.Verdict == Good && g.Verdict == Bad:
		return fmt.Errorf("good and bad are swapped: the test fails at %s and passes at %s", good.Title, bad.Title)
	case b.Verdict == Good:
		return fmt.Errorf("the test passes on both ends, %s and %s; if it fails now and then only, it must run more often: --runs N", good.Title, bad.Title)
	case g.Verdict == Bad:
		return fmt.Errorf("the test fails on both ends, %s and %s%s", good.Title, bad.Title, because(g))
	}
	return nil
}
