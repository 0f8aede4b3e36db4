// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the row, what is found is what looking at every point finds.
func TestLinearAgainstLookingAtAll(t *testing.T) {
	rng := rand.New(rand.NewSource(5))
	for round := range 3000 {
		n := 2 + rng.Intn(40)
		culprit := 1 + rng.Intn(n-1)
		from, to := Good, Bad
		if round%2 == 1 {
			from, to = Bad, Good
		}
		skips := rng.Float64() * float64(round%3) / 2
		points := make([]Verdict, n)
		for i := range points {
			points[i] = from
			if i >= culprit {
				points[i] = to
			}
			if i > 0 && i < n-1 && rng.Float64() < skips {
				points[i] = Skip
			}
		}
		want := Span{0, n - 1}
		for i, v := range points {
			if v == from {
				want.Lo = i
			}
		}
		for i := n - 1; i >= 0; i-- {
			if points[i] == to {
				want.Hi = i
			}
		}
		asked := map[int]bool{}
		got, err := Linear(t.Context(), 0, n-1, from, func(_ context.Context, i int) (Verdict, error) {
			require.False(t, asked[i], "asked twice")
			asked[i] = true
			return points[i], nil
		})
		require.NoError(t, err)
		require.Equal(t, want, got, "%v", points)
		require.Equal(t, want.Hi-want.Lo == 1, got.Exact())
		if round%3 == 0 {
			require.LessOrEqual(t, len(asked), bits.Len(uint(n-2)), "of %d points", n)
		}
	}
}

// Beside a stretch of skips the search goes elsewhere.
func TestLinearLeavesSkipsAlone(t *testing.T) {
	asked := 0
	got, err := Linear(t.Context(), 0, 128, Good, func(_ context.Context, i int) (Verdict, error) {
		asked++
		switch {
		case i >= 40 && i < 100:
			return Skip, nil
		case i >= 110:
			return Bad, nil
		}
		return Good, nil
	})
	require.NoError(t, err)
	require.Equal(t, Span{109, 110}, got)
	require.LessOrEqual(t, asked, 12)
}

func TestLinearStopsAtAnError(t *testing.T) {
	broken := errors.New("broken")
	_, err := Linear(t.Context(), 0, 9, Good, func(context.Context, int) (Verdict, error) { return Skip, broken })
	require.ErrorIs(t, err, broken)
}

// Causes are sets of elements; a part is bad if it holds one of them whole. What
// is found must be a cause, and with one cause the smallest there is.
func TestMinimizeAgainstEverySubset(t *testing.T) {
	rng := rand.New(rand.NewSource(7))
	for range 400 {
		n := 1 + rng.Intn(10)
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		var causes []uint
		for range 1 + rng.Intn(3) {
			causes = append(causes, 1+uint(rng.Intn(1<<n-1)))
		}
		bad := func(set uint) bool {
			return slices.ContainsFunc(causes, func(c uint) bool { return set&c == c })
		}
		smallest := n
		for set := range uint(1) << n {
			if bad(set) {
				smallest = min(smallest, bits.OnesCount(set))
			}
		}
		set := func(part []int) (s uint) {
			for _, e := range part {
				s |= 1 << e
			}
			return s
		}
		got, err := Minimize(t.Context(), all, func(_ context.Context, part []int) (Verdict, error) {
			if bad(set(part)) {
				return Bad, nil
			}
			return Good, nil
		})
		require.NoError(t, err)
		require.Empty(t, got.Unsure)
		require.True(t, bad(set(got.Elems)))
		require.True(t, slices.IsSorted(got.Elems))
		for _, e := range got.Elems {
			require.False(t, bad(set(got.Elems)&^(1<<e)), "%d can be left out of %v; causes %b", e, got.Elems, causes)
		}
		if len(causes) == 1 {
			require.Len(t, got.Elems, smallest)
		}
	}
}

// Where a part cannot be judged it is not left out, and it is said that nobody
// knows whether it could be.
func TestMinimizeWithSkips(t *testing.T) {
	// 3 is the cause; without 5 nothing builds that has 3.
	got, err := Minimize(t.Context(), []int{0, 1, 2, 3, 4, 5, 6, 7}, func(_ context.Context, part []int) (Verdict, error) {
		switch {
		case slices.Contains(part, 3) && !slices.Contains(part, 5):
			return Skip, nil
		case slices.Contains(part, 3):
			return Bad, nil
		}
		return Good, nil
	})
	require.NoError(t, err)
	require.Equal(t, Minimum[int]{Elems: []int{3, 5}, Unsure: []int{5}}, got)
}

func points(n int) []Point {
	var out []Point
	for i := range n {
		out = append(out, Point{Key: fmt.Sprint(i), Title: fmt.Sprintf("point %d", i)})
	}
	return out
}

func TestRow(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  string // g, b or s for each point
		from Verdict
		span Span
		end  string
		err  string
	}{
		{name: "breaks", row: "gggbbb", from: Good, span: Span{2, 3}, end: "5"},
		{name: "mends", row: "bbbgg", from: Bad, span: Span{2, 3}, end: "0"},
		{name: "not there yet", row: "sssssbbgg", from: Bad, span: Span{6, 7}, end: "5"},
		{name: "hidden by skips", row: "ggsssb", from: Good, span: Span{1, 5}, end: "5"},
		{name: "never breaks", row: "gggg", err: "passes on both ends"},
		{name: "never passes", row: "ssbbb", err: "fails on both ends: at point 2, the first that can be judged"},
		{name: "the last cannot be judged", row: "ggbs", err: "the last point, point 3, cannot be judged: because"},
		{name: "only the last can be judged", row: "sssg", err: "the test passes at the last point, point 3, and nothing that was tried before it can be judged: because"},
		{name: "one", row: "g", err: "two points"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			judge := func(_ context.Context, p Point) (Result, error) {
				var i int
				_, err := fmt.Sscan(p.Key, &i)
				v := map[byte]Verdict{'g': Good, 'b': Bad, 's': Skip}[tt.row[i]]
				return Result{Verdict: v, Reason: "because"}, err
			}
			c, err := Row(t.Context(), points(len(tt.row)), judge, func(Result) {})
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.from, c.From)
			require.Equal(t, tt.span, c.Span)
			require.Equal(t, tt.end, c.BadEnd.Key)
		})
	}
}

func TestSymbols(t *testing.T) {
	good := map[string]string{"A": "y", "B": "y", "C": "m", "D": "1", "E": "y"}
	bad := map[string]string{"A": "y", "B": "n", "C": "y", "D": "2", "F": "y", "G": "m"}
	all := Differ(good, bad)
	require.Equal(t, []string{"B", "C", "D", "E", "F", "G"}, NamesOf(all))
	require.Equal(t, "CONFIG_E: good has it y, bad unsaid", all[3].String())
	asked := map[string]bool{}
	judge := func(_ context.Context, p Point, part []Symbol) (Result, error) {
		asked[p.Key] = true
		names := NamesOf(part)
		r := Result{Verdict: Good}
		if slices.Contains(names, "C") && slices.Contains(names, "F") {
			r.Verdict = Bad
		}
		if p.Key == AllSymbols {
			r.Lost = []string{"G"}
		}
		return r, nil
	}
	g, err := FindSymbols(t.Context(), all, judge, func(Result) {})
	require.NoError(t, err)
	require.Equal(t, []string{"C", "F"}, NamesOf(g.Elems))
	require.Equal(t, []string{"G"}, NamesOf(g.Lost))
	require.True(t, asked[NoSymbol] && asked[AllSymbols])

	_, err = FindSymbols(t.Context(), nil, judge, func(Result) {})
	require.ErrorContains(t, err, "both configurations say the same")
	_, err = FindSymbols(t.Context(), all[:1], judge, func(Result) {})
	require.ErrorContains(t, err, "passes on both ends, the good configuration and the bad configuration")
}

// A symbol that does not survive in the bad configuration can matter all the
// same, by what its wish does to others.
func TestALostSymbolThatMatters(t *testing.T) {
	all := Differ(map[string]string{}, map[string]string{"A": "y", "B": "y", "C": "y"})
	g, err := FindSymbols(t.Context(), all, func(_ context.Context, p Point, part []Symbol) (Result, error) {
		r := Result{Verdict: Good}
		if slices.Contains(NamesOf(part), "B") {
			r.Verdict = Bad
		}
		if p.Key == AllSymbols {
			r.Lost = []string{"B"}
		}
		return r, nil
	}, func(Result) {})
	require.NoError(t, err)
	require.Equal(t, []string{"B"}, NamesOf(g.Elems))
}
