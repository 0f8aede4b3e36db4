// SPDX-License-Identifier: GPL-2.0-only

package bisect

import "context"

// Span is where a verdict changes: Lo is the last point that is known to be as
// the low end, Hi the first behind it that is known not to be. All between them
// are skips.
type Span struct{ Lo, Hi int }

// Exact says whether it is known to be Hi that changes the verdict.
func (s Span) Exact() bool { return s.Hi-s.Lo == 1 }

// Linear searches points in a row. Those at lo and hi have verdicts that differ
// and are no skips; low is the one at lo.
func Linear(ctx context.Context, lo, hi int, low Verdict, judge func(ctx context.Context, i int) (Verdict, error)) (Span, error) {
	skipped := map[int]bool{}
	for {
		i := middle(lo, hi, skipped)
		if i < 0 {
			return Span{lo, hi}, nil
		}
		v, err := judge(ctx, i)
		switch {
		case err != nil:
			return Span{lo, hi}, err
		case v == Skip:
			skipped[i] = true
		case v == low:
			lo = i
		default:
			hi = i
		}
	}
}

// middle is where to look next: the middle of the longest stretch between lo and
// hi without a skip, of equal ones of that nearest to their middle; -1 when there
// is none. What cannot be judged tends to have neighbours that cannot be either,
// so a stretch counts half for each end that is a skip.
func middle(lo, hi int, skipped map[int]bool) int {
	best, weight := -1, 0
	far := func(i int) int { return max(2*i-lo-hi, lo+hi-2*i) }
	for i := lo + 1; i < hi; {
		if skipped[i] {
			i++
			continue
		}
		end := i
		for end < hi && !skipped[end] {
			end++
		}
		mid := i + (end-i)/2
		w := 4 * (end - i)
		for _, edge := range []int{i - 1, end} {
			if skipped[edge] {
				w /= 2
			}
		}
		if w > weight || w == weight && far(mid) < far(best) {
			best, weight = mid, w
		}
		i = end
	}
	return best
}
