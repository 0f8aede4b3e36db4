// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"errors"
	"fmt"
)

// Change is where a row of points changes its verdict.
type Change struct {
	Span
	// From is the verdict up to Lo; from Hi on it is the other one.
	From Verdict
	// First is the first point that was searched.
	First int
	// BadEnd is the end of the row that fails.
	BadEnd Point
}

// Row searches points in a row, such as the prefixes of a series, between the
// last one and the first that can be judged: below it the row is one of skips.
// Either end may be the bad one.
func Row(ctx context.Context, points []Point, judge Judge, focus func(Result)) (Change, error) {
	if len(points) < 2 {
		return Change{}, errors.New("there must be two points at least to find something between them")
	}
	top := len(points) - 1
	measured := func(i int) (Result, error) {
		p := points[i]
		p.Measure = true
		return judge(ctx, p)
	}
	last, err := measured(top)
	if err != nil {
		return Change{}, err
	}
	switch last.Verdict {
	case Skip:
		return Change{}, fmt.Errorf("the last point, %s, cannot be judged%s", points[top].Title, because(last))
	case Bad:
		focus(last)
	default:
		// What fails below may do so for want of what is to be tested.
		focus(Result{Class: ClassTest})
	}
	low, err := lowest(ctx, points, judge)
	if err != nil {
		return Change{}, err
	}
	first, err := measured(low)
	if err != nil {
		return Change{}, err
	}
	verb := map[Verdict]string{Good: "passes", Bad: "fails"}[last.Verdict]
	switch {
	case low == top:
		return Change{}, fmt.Errorf("the test %s at the last point, %s, and nothing that was tried before it can be judged: %s",
			verb, points[top].Title, firstLine(reasonOf(ctx, judge, points[top-1])))
	case first.Image != "" && first.Image == last.Image:
		return Change{}, fmt.Errorf("%s and %s are the same kernel: nothing between them changes what is built", points[low].Title, points[top].Title)
	case first.Verdict == last.Verdict && low > 0:
		return Change{}, fmt.Errorf("the test %s on both ends: at %s, the first that can be judged, and at %s", verb, points[low].Title, points[top].Title)
	case first.Verdict == last.Verdict:
		return Change{}, fmt.Errorf("the test %s on both ends, %s and %s", verb, points[low].Title, points[top].Title)
	}
	c := Change{From: first.Verdict, First: low, BadEnd: points[top]}
	if first.Verdict == Bad {
		focus(first)
		c.BadEnd = points[low]
	}
	c.Span, err = Linear(ctx, low, top, first.Verdict, func(ctx context.Context, i int) (Verdict, error) {
		return judge.verdictOf(ctx, points[i])
	})
	return c, err
}

// Between searches points in a row between two that are said to be good and bad,
// in either order.
func Between(ctx context.Context, points []Point, good, bad int, judge Judge, focus func(Result)) (Change, error) {
	if good == bad {
		return Change{}, fmt.Errorf("good and bad are the same point, %s", points[good].Title)
	}
	if err := Ends(ctx, judge, points[good], points[bad], focus); err != nil {
		return Change{}, err
	}
	c := Change{From: Good, First: min(good, bad), BadEnd: points[bad]}
	if bad < good {
		c.From = Bad
	}
	var err error
	c.Span, err = Linear(ctx, c.First, max(good, bad), c.From, func(ctx context.Context, i int) (Verdict, error) {
		return judge.verdictOf(ctx, points[i])
	})
	return c, err
}

// lowest is the first point that can be judged, if none of those before it can:
// at first there is nothing to test, and then there is.
func lowest(ctx context.Context, points []Point, judge Judge) (int, error) {
	v, err := judge.verdictOf(ctx, points[0])
	if err != nil || v != Skip {
		return 0, err
	}
	s, err := Linear(ctx, 0, len(points)-1, Bad, func(ctx context.Context, i int) (Verdict, error) {
		v, err := judge.verdictOf(ctx, points[i])
		if v == Skip {
			return Bad, err
		}
		return Good, err
	})
	return s.Hi, err
}

// reasonOf is why a point that was judged is what it is.
func reasonOf(ctx context.Context, judge Judge, p Point) string {
	r, err := judge(ctx, p)
	if err != nil {
		return err.Error()
	}
	return r.Reason
}
