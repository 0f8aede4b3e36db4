// SPDX-License-Identifier: GPL-2.0-only

package mutants

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// Run judges mutants on trees.
type Run struct {
	Trees   []tree.Tree
	Mutants []Mutant
	// Once judges a mutant on the first of the trees that it is for, not on
	// all of them.
	Once bool
	// Tests are the known tests.
	Tests []matrix.Spec
	// Out receives the results and each guest's logs.
	Out string
	// Jobs is how many guests run at once; 0 is one per processor.
	Jobs     int
	Host     report.Host
	Progress *report.Progress

	// Build makes a kernel, with the mutant's patch on top of the series; nil
	// is the series as it is. One build runs at a time.
	Build func(ctx context.Context, t tree.Tree, flavor string, m *Mutant) (*kernel.Built, error)
	// Test runs one test on what was built; the mutant is nil for the clean
	// kernel. done is false when it was interrupted.
	Test func(ctx context.Context, b *kernel.Built, spec matrix.Spec, m *Mutant) (res report.Test, done bool)
	// Drop forgets a mutant's kernel.
	Drop func(ctx context.Context, b *kernel.Built) error

	mu      sync.Mutex
	results *Results
	// clean has a channel for each (tree, flavor, test), closed when the
	// clean kernel's verdict is in.
	clean map[string]*judged
	// taken are the mutants that a tree has been found for.
	taken map[string]bool
	slots chan struct{}
}

// judged is a verdict of the clean kernel, once done is closed.
type judged struct {
	done chan struct{}
	res  report.Test
	err  error
}

// Do judges every mutant on every tree that it is for. Results are written as
// they come. The error is for what keeps the run itself from going on.
func (r *Run) Do(ctx context.Context) (*Results, error) {
	if r.Jobs <= 0 {
		r.Jobs = runtime.NumCPU()
	}
	r.slots = make(chan struct{}, r.Jobs)
	r.clean, r.taken = map[string]*judged{}, map[string]bool{}
	r.results = &Results{Schema: Schema, Started: time.Now().UTC(), Host: r.Host, Mutants: []Result{}}

	var guests errgroup.Group
	for _, t := range r.Trees {
		if err := r.tree(ctx, t, &guests); err != nil {
			return r.results, errors.Join(err, guests.Wait())
		}
	}
	err := guests.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results.Interrupted = ctx.Err() != nil
	r.results.Seconds = time.Since(r.results.Started).Seconds()
	return r.results, errors.Join(err, r.results.write(r.Out))
}

// tree builds one mutant after the other while the guests of those before it
// run.
func (r *Run) tree(ctx context.Context, t tree.Tree, guests *errgroup.Group) error {
	cleans := map[string]*kernel.Built{}
	// No more built kernels wait for a guest than guests run.
	waiting := make(chan struct{}, r.Jobs)
	for i := range r.Mutants {
		m := &r.Mutants[i]
		if ctx.Err() != nil {
			return nil
		}
		if r.Once && r.taken[m.Name] {
			continue
		}
		if cannotBe(m, t) {
			continue
		}
		base := Result{Name: m.Name, Tree: t.Name, Flavor: m.Flavor, Test: m.Test}
		spec, ok := find(r.Tests, m.Test)
		if !ok {
			r.taken[m.Name] = true
			base.Verdict, base.Reason = report.Error, "there is no test "+m.Test
			if err := r.add(base); err != nil {
				return err
			}
			continue
		}
		clean := cleans[m.Flavor]
		if clean == nil {
			var err error
			if clean, err = r.Build(ctx, t, m.Flavor, nil); err != nil {
				return fmt.Errorf("tree %s without any mutant: %w", t.Name, err)
			}
			cleans[m.Flavor] = clean
		}
		if in, err := m.Trees.Has(clean.Version); err != nil {
			return err
		} else if !in {
			continue
		}
		r.taken[m.Name] = true
		first := r.cleanTest(ctx, clean, spec, guests)
		select {
		case waiting <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		step := r.Progress.Start(t.Name+"/"+m.Name, "build", 0)
		start := time.Now()
		built, err := r.Build(ctx, t, m.Flavor, m)
		base.BuildSeconds = time.Since(start).Seconds()
		if err == nil && built.Key == clean.Key {
			err = errors.New("it changes nothing that is built")
		}
		if err != nil {
			<-waiting
			step.End("failed: %v", err)
			if ctx.Err() != nil {
				return nil
			}
			// Whoever is to blame, of the test nothing was learnt.
			base.Verdict, base.Reason = report.Error, reason(err)
			if err := r.add(base); err != nil {
				return err
			}
			continue
		}
		step.End("done in %.1f s", base.BuildSeconds)
		guests.Go(func() error {
			defer func() { <-waiting }()
			defer func() { _ = r.Drop(context.WithoutCancel(ctx), built) }()
			return r.judge(ctx, built, spec, m, first, base)
		})
	}
	return nil
}

// cannotBe tells whether a tree's name alone says that the mutant is not for
// it: nothing need be built to know that.
func cannotBe(m *Mutant, t tree.Tree) bool {
	for _, release := range []string{t.Name, t.Name + ".9999"} {
		if in, err := m.Trees.Has(release); err != nil || in {
			return false
		}
	}
	return true
}

// reason is a stage's error with the stage's name.
func reason(err error) string {
	var se *store.StageError
	if errors.As(err, &se) {
		switch se.Stage {
		case "patch":
			return "does not apply: " + err.Error()
		case "build", "module":
			return "does not build: " + err.Error()
		}
	}
	return err.Error()
}

// cleanTest has a test run on the clean kernel, once.
func (r *Run) cleanTest(ctx context.Context, clean *kernel.Built, spec matrix.Spec, guests *errgroup.Group) *judged {
	key := clean.Tree + "/" + clean.Flavor + " " + spec.Name
	j := r.clean[key]
	if j != nil {
		return j
	}
	j = &judged{done: make(chan struct{})}
	r.clean[key] = j
	guests.Go(func() error {
		defer close(j.done)
		if !r.slot(ctx) {
			j.err = context.Cause(ctx)
			return nil
		}
		defer func() { <-r.slots }()
		res, done := r.Test(ctx, clean, spec, nil)
		switch {
		case !done:
			j.err = context.Cause(ctx)
		case res.Verdict != report.Pass:
			j.err = fmt.Errorf("%s does not pass without the mutant (%s: %s), so its verdict means nothing", spec.Name, res.Verdict, res.Reason)
		}
		j.res = res
		return nil
	})
	return j
}

func (r *Run) slot(ctx context.Context) bool {
	select {
	case r.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// judge runs the test on the mutant and says whether it noticed.
func (r *Run) judge(ctx context.Context, built *kernel.Built, spec matrix.Spec, m *Mutant, clean *judged, res Result) error {
	select {
	case <-clean.done:
	case <-ctx.Done():
		return nil
	}
	if clean.err != nil {
		if ctx.Err() != nil {
			return nil
		}
		res.Verdict, res.Reason = report.Error, clean.err.Error()
		return r.add(res)
	}
	if !r.slot(ctx) {
		return nil
	}
	defer func() { <-r.slots }()
	spec.StopAtFailure = true
	got, done := r.Test(ctx, built, spec, m)
	if !done {
		return nil
	}
	res.decide(got, m.Red)
	return r.add(res)
}

func (r *Run) add(res Result) error {
	r.Progress.Line("%s/%s: %s: %s", res.Tree, res.Name, res.Verdict, res.Reason)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results.add(res)
	r.results.Seconds = time.Since(r.results.Started).Seconds()
	return r.results.write(r.Out)
}

func find(specs []matrix.Spec, name string) (matrix.Spec, bool) {
	for _, s := range specs {
		if s.Name == name {
			return s, true
		}
	}
	return matrix.Spec{}, false
}
