// SPDX-License-Identifier: GPL-2.0-only

package matrix

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func running(tickets []*ticket) (out []int) {
	for i, t := range tickets {
		select {
		case <-t.may:
			out = append(out, i)
		default:
		}
	}
	return out
}

func TestQueue(t *testing.T) {
	for _, tc := range []struct {
		name         string
		jobs, memory int
		expected     []float64
		size         []int
		want         [][]int // who runs, after each end of the first that does
	}{
		{"longest first", 1, 100, []float64{3, 9, 5}, []int{1, 1, 1}, [][]int{{1}, {2}, {0}, nil}},
		{"unknown before all", 1, 100, []float64{3, 0, 5}, []int{1, 1, 1}, [][]int{{1}, {2}, {0}, nil}},
		{"as many as jobs", 2, 100, []float64{3, 9, 5}, []int{1, 1, 1}, [][]int{{1, 2}, {0, 2}, {2}, nil}},
		{"as much as memory", 3, 100, []float64{9, 5, 3}, []int{60, 60, 30}, [][]int{{0, 2}, {1, 2}, {2}, nil}},
		{"too big runs alone", 2, 100, []float64{9, 5}, []int{200, 10}, [][]int{{0}, {1}, nil}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := newQueue(tc.jobs, tc.memory)
			var all []*ticket
			for i := range tc.expected {
				all = append(all, q.enter(tc.expected[i], tc.size[i]))
			}
			require.Empty(t, running(all))
			q.open()
			gone := map[int]bool{}
			for _, want := range tc.want {
				var now []int
				for _, i := range running(all) {
					if !gone[i] {
						now = append(now, i)
					}
				}
				require.Equal(t, want, now)
				if len(now) > 0 {
					gone[now[0]] = true
					q.done(all[now[0]])
				}
			}
		})
	}
}

func TestQueueForgetsWhoGivesUp(t *testing.T) {
	q := newQueue(1, 100)
	a, b, c := q.enter(3, 1), q.enter(2, 1), q.enter(1, 1)
	q.open()
	require.NoError(t, q.wait(t.Context(), a))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, q.wait(ctx, b), context.Canceled)
	q.done(a)
	require.NoError(t, q.wait(t.Context(), c))
}
