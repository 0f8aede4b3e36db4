// SPDX-License-Identifier: GPL-2.0-only

package matrix

import (
	"context"
	"slices"
	"sync"
)

// queue lets guests run, as many at once as there are jobs and memory for. Of
// those that wait, the one that will take longest goes first: the end of a run
// then has no processor without work. One of which nobody knows how long it
// takes may take longest of all.
type queue struct {
	mu      sync.Mutex
	jobs    int
	memory  int // MiB
	running int
	used    int
	waiting []*ticket
	order   int
}

type ticket struct {
	expected float64 // seconds, 0 if unknown
	memory   int     // MiB
	order    int
	may      chan struct{}
}

func newQueue(jobs, memory int) *queue { return &queue{jobs: jobs, memory: memory} }

// enter puts a guest in the queue. It does not wait.
func (q *queue) enter(expected float64, memory int) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.order++
	t := &ticket{expected: expected, memory: memory, order: q.order, may: make(chan struct{})}
	at, _ := slices.BinarySearchFunc(q.waiting, t, before)
	q.waiting = slices.Insert(q.waiting, at, t)
	return t
}

func before(a, b *ticket) int {
	switch {
	case a.expected == b.expected:
		return a.order - b.order
	case a.expected == 0, b.expected != 0 && a.expected > b.expected:
		return -1
	}
	return 1
}

// open lets those run that may.
func (q *queue) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next()
}

func (q *queue) next() {
	for q.running < q.jobs {
		// One that wants more than there is runs alone.
		i := slices.IndexFunc(q.waiting, func(t *ticket) bool { return q.used+t.memory <= q.memory || q.running == 0 })
		if i < 0 {
			return
		}
		t := q.waiting[i]
		q.waiting = slices.Delete(q.waiting, i, i+1)
		q.running++
		q.used += t.memory
		close(t.may)
	}
}

// wait is over when the guest may run, or ctx ends; then it must not.
func (q *queue) wait(ctx context.Context, t *ticket) error {
	select {
	case <-t.may:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, t); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return context.Cause(ctx)
	}
	q.leave(t)
	return context.Cause(ctx)
}

// done makes room for the next.
func (q *queue) done(t *ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leave(t)
}

func (q *queue) leave(t *ticket) {
	q.running--
	q.used -= t.memory
	q.next()
}
