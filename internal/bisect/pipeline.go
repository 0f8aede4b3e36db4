// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"fmt"
	"slices"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// Kernel is a point that was built.
type Kernel struct {
	// Image tells what is booted and run from all else: of two kernels with
	// the same one only the first is run.
	Image string
	// Lost are symbols of its configuration that did not survive.
	Lost []string
	// Try runs the tests, or only some of them, for the n-th time, from 1.
	Try func(ctx context.Context, n int, only []string) (Attempt, error)
}

// Pipeline judges points by building them and running tests.
type Pipeline struct {
	// Runs is how often the tests must pass; 0 is once.
	Runs    int
	Build   func(ctx context.Context, p Point) (*Kernel, error)
	Journal *Journal
	// Say, when set, receives a line for each verdict.
	Say func(format string, args ...any)

	class string
	only  []string
	told  map[string]bool
}

// StoppedError is a fault of the harness that ended a search. The verdicts until
// then are kept.
type StoppedError struct {
	Point Point
	Err   error
}

func (e *StoppedError) Error() string { return e.Point.Title + ": " + e.Err.Error() }

func (e *StoppedError) Unwrap() error { return e.Err }

// Focus tells what is looked for: the tests that fail at the bad end, in the
// class in which they do.
func (p *Pipeline) Focus(bad Result) { p.class, p.only = bad.Class, bad.Failed }

// known is how a verdict came that was asked for before.
const known = " (known)"

func (p *Pipeline) say(pt Point, r Result, how string) {
	if p.told == nil {
		p.told = map[string]bool{}
	}
	line := pt.Key + " " + string(r.Verdict)
	if p.Say != nil && (how != known || !p.told[line]) {
		p.told[line] = true
		p.Say("%s: %s%s%s", pt.Title, r.Verdict, how, because(r))
	}
}

// Judge is a Judge.
func (p *Pipeline) Judge(ctx context.Context, pt Point) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	runs := max(p.Runs, 1)
	r := p.Journal.Get(pt.Key)
	more := pt.Measure && r.Verdict == Bad && r.Same == "" && len(r.Runs) < runs
	if r.Verdict != "" && !more {
		p.say(pt, r, known)
		return r, nil
	}
	k, err := p.Build(ctx, pt)
	switch {
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil && store.FaultOf(err) == store.Kernel:
		r = Result{Verdict: Skip, Reason: "not built: " + err.Error()}
		p.say(pt, r, "")
		return r, p.Journal.Put(pt, r)
	case err != nil:
		return r, &StoppedError{pt, err}
	}
	if r.Image != k.Image {
		r = Result{Image: k.Image} // runs of another kernel tell nothing of this one
	}
	r.Lost = k.Lost
	if same := p.Journal.sameImage(pt.Key, k.Image); same != nil && k.Image != "" {
		r = same.Result
		r.Same, r.Lost = same.Title, k.Lost
		p.say(pt, r, " (identical image: as "+same.Title+")")
		return r, p.Journal.Put(pt, r)
	}
	for len(r.Runs) < runs {
		a, err := k.Try(ctx, len(r.Runs)+1, p.only)
		switch {
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case err != nil:
			return r, &StoppedError{pt, err}
		}
		r.Runs = append(r.Runs, a)
		if a.Verdict == Skip || a.Verdict == Bad && !pt.Measure {
			break
		}
		if err := p.Journal.Put(pt, r); err != nil {
			return r, err
		}
	}
	r.decide(p.class)
	how := ""
	if runs > 1 {
		how = fmt.Sprintf(" (%d of %d runs failed)", r.Failures(), len(r.Runs))
	}
	p.say(pt, r, how)
	return r, p.Journal.Put(pt, r)
}

// decide makes the verdict of the runs. class is that of the failure that is
// looked for, "" for any.
func (r *Result) decide(class string) {
	r.Verdict, r.Reason, r.Class, r.Failed = Good, "", "", nil
	for _, a := range r.Runs {
		if a.Verdict != Bad {
			continue
		}
		if class != "" && a.Class != class {
			r.Verdict, r.Reason = Skip, fmt.Sprintf("%s, which is not the failure that is looked for: %s", classText[a.Class], a.Reason)
			return
		}
		for _, f := range a.Failed {
			if !slices.Contains(r.Failed, f) {
				r.Failed = append(r.Failed, f)
			}
		}
		if r.Verdict == Good {
			r.Verdict, r.Reason, r.Class = Bad, a.Reason, a.Class
		}
	}
	for _, a := range r.Runs {
		if a.Verdict == Skip && r.Verdict == Good {
			r.Verdict, r.Reason = Skip, a.Reason
		}
	}
}

var classText = map[string]string{
	ClassBoot: "it does not boot",
	ClassBail: "the test gave up before it tested anything",
	ClassTest: "it boots, and the test fails",
}

// Tried makes an Attempt of tests that ran once. want are those that must have:
// one that did not leaves open what it would have said. The error is a fault of
// the harness.
func Tried(tests []report.Test, want []string, bailed func(report.Test) bool) (Attempt, error) {
	a := Attempt{Verdict: Good}
	ran := map[string]bool{}
	for _, t := range tests {
		a.Seconds += t.Seconds
		if t.Verdict == report.Error {
			return a, fmt.Errorf("%s: %s", t.Name, t.Reason)
		}
		ran[t.Name] = t.Verdict != report.Skip
		if t.Verdict.Bad() {
			a.Failed = append(a.Failed, t.Name)
			for _, s := range t.Subtests {
				if s.Verdict == report.Fail {
					a.How = append(a.How, s.Name)
				}
			}
			for _, s := range t.Splats {
				a.How = append(a.How, s.Title)
			}
		}
		class := classOf(t, bailed)
		// Of several failures the first that tells something counts.
		if a.Verdict == Bad && (a.Class == ClassTest || !t.Verdict.Bad() || class != ClassTest) {
			continue
		}
		a.Log, a.Console = t.Log, t.Console
		switch {
		case t.Verdict.Bad():
			a.Verdict, a.Reason, a.Class = Bad, t.Name+": "+string(t.Verdict)+": "+t.Reason, class
		case t.Verdict == report.Skip && a.Verdict == Good:
			a.Verdict, a.Reason = Skip, t.Name+" skips itself: "+t.Reason
		}
	}
	if a.Verdict == Good {
		for _, name := range want {
			if !ran[name] {
				a.Verdict, a.Reason = Skip, name+" is not meant for this kernel"
				break
			}
		}
	}
	if a.Verdict == Good && len(tests) == 0 {
		a.Verdict, a.Reason = Skip, "none of the tests is meant for this kernel"
	}
	return a, nil
}

// classOf is the class of a test's failure.
func classOf(t report.Test, bailed func(report.Test) bool) string {
	switch {
	case !t.Verdict.Bad():
		return ""
	case t.Verdict == report.Crash && t.StartSeconds == 0:
		// Nothing was ever answered.
		return ClassBoot
	case t.Verdict != report.Crash && len(t.Subtests) == 0 && bailed(t):
		return ClassBail
	}
	return ClassTest
}
