// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"fmt"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Exit codes for who drives git bisect run.
const (
	exitGood = 0
	exitBad  = 1
	// exitStop ends git bisect run: an interrupted step is no verdict.
	exitStop = 130
)

// Fault is the exit code of a step for which the harness could not do its job.
// Any other below 128 would be a verdict to git.
func Fault(ctx context.Context) int {
	if ctx.Err() != nil {
		return exitStop
	}
	return ExitCannotJudge
}

// Step is what a run of one cell says to git bisect run, and why.
func Step(ctx context.Context, cells []report.Cell, bailed func(report.Test) bool) (int, string) {
	if ctx.Err() != nil {
		return exitStop, "interrupted"
	}
	if len(cells) != 1 {
		return ExitCannotJudge, fmt.Sprintf("one tree and one flavor make a step, not %d cells", len(cells))
	}
	c := cells[0]
	var tests []report.Test
	var harness string
	for _, t := range c.Tests {
		switch {
		case t.Verdict == report.Error:
			harness = t.Name + ": " + t.Reason
		case t.Verdict == report.Skip && len(c.Tests) > 1:
			// Of many tests some are not for every machine.
		default:
			tests = append(tests, t)
		}
	}
	a, err := Tried(tests, nil, bailed)
	switch {
	case err != nil:
		return ExitCannotJudge, err.Error()
	case a.Verdict == Bad && a.Class == ClassTest:
		return exitBad, a.Reason
	case a.Verdict == Bad:
		return ExitCannotJudge, classText[a.Class] + ": " + a.Reason
	case harness != "":
		return ExitCannotJudge, harness
	case a.Verdict == Good:
		return exitGood, ""
	case len(c.Tests) == 0 && c.Reason != "":
		return ExitCannotJudge, c.Reason
	}
	return ExitCannotJudge, a.Reason
}
