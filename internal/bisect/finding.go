// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"fmt"
	"io"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// Exit codes of a bisection besides 0, which is that it has found one answer.
const (
	// ExitAmong: it is one of several, and the rest cannot be judged.
	ExitAmong = 1
	// ExitHarness: the harness could not do its job, or was given nonsense.
	ExitHarness = 2
	// ExitCannotJudge: one point was asked for, and cannot be judged.
	ExitCannotJudge = 125
)

// Finding is the answer.
type Finding struct {
	// Headline says in a line what was found.
	Headline string `json:"headline"`
	// Exact is false when skips leave more than one candidate.
	Exact bool `json:"exact"`
	// Names are the commit, patch, tree or symbols, or all candidates.
	Names []string `json:"names"`
	// Stat is what it changes.
	Stat string `json:"stat,omitempty"`
	// Notes are sentences for who reads the answer.
	Notes []string `json:"notes,omitempty"`
	// Ends are the points nearest to the answer, one of each verdict.
	Ends       []End       `json:"ends"`
	Confidence *Confidence `json:"confidence,omitempty"`
}

// End is a point beside the answer.
type End struct {
	Entry
	// Again is the command that judges it once more.
	Again string `json:"again"`
}

// NewFinding is an answer with the two points beside it; the bad end is where
// it was measured how often the test fails.
func (j *Journal) NewFinding(headline string, names []string, exact bool, badEnd Point, again func(Point) string, beside ...Point) *Finding {
	f := &Finding{Headline: headline, Names: names, Exact: exact}
	for _, p := range beside {
		f.Ends = append(f.Ends, End{Entry{p.Key, p.Title, j.Get(p.Key)}, again(p)})
	}
	end := j.Get(badEnd.Key)
	if len(end.Runs) > 1 {
		c := confidence(end.Failures(), len(end.Runs), j.Goods())
		f.Confidence = &c
	}
	for _, e := range f.Ends {
		if e.Key != badEnd.Key && e.Result.Verdict == Bad && !alike(e.Result, end) {
			f.Notes = append(f.Notes, fmt.Sprintf("%s fails in another way (%s) than the bad end (%s): there may be more than one cause",
				e.Title, how(e.Result), how(end)))
		}
	}
	return f
}

// how are the symptoms of a failure in a line.
func how(r Result) string {
	a := r.Evidence()
	if a == nil || len(a.How) == 0 {
		return firstLine(r.Reason)
	}
	return strings.Join(a.How[:min(3, len(a.How))], ", ")
}

// alike says whether two failures have a symptom in common, or one has none
// that could be compared.
func alike(a, b Result) bool {
	has := map[string]bool{}
	for _, run := range a.Runs {
		for _, h := range run.How {
			has[h] = true
		}
	}
	any := false
	for _, run := range b.Runs {
		for _, h := range run.How {
			if has[h] {
				return true
			}
			any = true
		}
	}
	return len(has) == 0 || !any
}

// ExitCode is what the answer comes to.
func (f *Finding) ExitCode() int {
	if f.Exact {
		return 0
	}
	return ExitAmong
}

// tail is how many of the last lines of a console are shown.
const tail = 6

// Write shows the answer.
func (f *Finding) Write(w io.Writer) {
	fmt.Fprintln(w, f.Headline)
	if len(f.Names) > 1 || !f.Exact {
		for _, n := range f.Names {
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
	if f.Stat != "" {
		fmt.Fprintf(w, "\n%s\n", f.Stat)
	}
	for _, e := range f.Ends {
		e.write(w)
	}
	for _, n := range f.Notes {
		fmt.Fprintf(w, "\nnote: %s\n", n)
	}
	if f.Confidence != nil {
		fmt.Fprintf(w, "\n%s\n", f.Confidence)
	}
}

func (e End) write(w io.Writer) {
	r := e.Result
	fmt.Fprintf(w, "\n%s: %s%s\n", r.Verdict, e.Title, because(r))
	if r.Same != "" {
		fmt.Fprintf(w, "  identical image: booted at %s\n", r.Same)
	}
	if a := r.Evidence(); a != nil && a.Console != "" {
		fmt.Fprintf(w, "  output:  %s\n  console: %s\n", a.Log, a.Console)
		for _, line := range store.Tail(a.Console, tail) {
			fmt.Fprintf(w, "  | %s\n", strings.TrimRight(line, "\r"))
		}
	}
	fmt.Fprintf(w, "  again: %s\n", e.Again)
}
