// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"slices"
)

// Minimum is what Minimize found.
type Minimum[T any] struct {
	// Elems together are bad, and without any one of them they are not.
	Elems []T
	// Unsure are those of Elems without which there was no verdict.
	Unsure []T
}

// Minimize is Zeller and Hildebrandt's ddmin: of all, which together are bad,
// it finds a part of which nothing can be left out. With one cause, or several
// that work together only, that is the smallest part; where there are several
// causes it is one of them. Skips count as neither.
func Minimize[T any](ctx context.Context, all []T, judge func(ctx context.Context, part []T) (Verdict, error)) (Minimum[T], error) {
	cur := slices.Clone(all)
	for n := min(2, len(cur)); len(cur) > 1; {
		parts := split(cur, n)
		next, err := reduce(ctx, cur, parts, judge)
		switch {
		case err != nil:
			return Minimum[T]{Elems: cur}, err
		case next != nil && next.part:
			cur, n = next.elems, min(2, len(next.elems))
		case next != nil:
			cur, n = next.elems, max(n-1, min(2, len(next.elems)))
		case n < len(cur):
			n = min(2*n, len(cur))
		default:
			return Minimum[T]{Elems: cur}.doubts(ctx, judge)
		}
	}
	return Minimum[T]{Elems: cur}, nil
}

// smaller is a step of ddmin: one of the parts, or all but one.
type smaller[T any] struct {
	elems []T
	part  bool
}

func reduce[T any](ctx context.Context, cur []T, parts [][2]int, judge func(context.Context, []T) (Verdict, error)) (*smaller[T], error) {
	for _, p := range parts {
		part := slices.Clone(cur[p[0]:p[1]])
		if v, err := judge(ctx, part); err != nil {
			return nil, err
		} else if v == Bad {
			return &smaller[T]{part, true}, nil
		}
	}
	if len(parts) == 2 {
		return nil, nil // each is all but the other
	}
	for _, p := range parts {
		rest := slices.Concat(cur[:p[0]], cur[p[1]:])
		if v, err := judge(ctx, rest); err != nil {
			return nil, err
		} else if v == Bad {
			return &smaller[T]{rest, false}, nil
		}
	}
	return nil, nil
}

// split cuts cur into n parts, as equal as can be.
func split[T any](cur []T, n int) [][2]int {
	var parts [][2]int
	for i := range n {
		parts = append(parts, [2]int{i * len(cur) / n, (i + 1) * len(cur) / n})
	}
	return parts
}

// doubts finds what is there only because nobody could tell how it is without.
func (m Minimum[T]) doubts(ctx context.Context, judge func(context.Context, []T) (Verdict, error)) (Minimum[T], error) {
	for i := range m.Elems {
		v, err := judge(ctx, slices.Concat(m.Elems[:i], m.Elems[i+1:]))
		if err != nil {
			return m, err
		}
		if v == Skip {
			m.Unsure = append(m.Unsure, m.Elems[i])
		}
	}
	return m, nil
}
