// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

const (
	// restores is how many machines the restore figure is the median of.
	restores = 100
	// clones is how many machines share a snapshot's memory.
	clones = 10
	// trivial is how many tests that do nothing the tests figure runs.
	trivial = 200
	// inARow is how many machines must leave nothing behind.
	inARow = 1000
)

// guests prepares what the measurements of the engine have in common.
func (b *Bench) guests(ctx context.Context) (vmtest.Kernel, error) {
	built, err := b.Builder(b.Store).Build(ctx, b.Tree, kernel.Plain)
	if err != nil {
		return vmtest.Kernel{}, err
	}
	return matrix.GuestKernel(built), nil
}

// nothing is a test that does nothing.
var nothing = vmtest.Test{Name: "true", Script: "/usr/bin/true", VCPUs: 1}

// one runs it.
func (b *Bench) one(ctx context.Context, e *vmtest.Engine, k vmtest.Kernel, dir string) (float64, error) {
	res, err := e.Run(ctx, k, nothing, filepath.Join(b.Out, dir))
	if err != nil {
		return 0, err
	}
	if res.Verdict != vmtest.Pass {
		return 0, fmt.Errorf("a test that does nothing: %s: %s", res.Verdict, res.Reason)
	}
	return res.StartSeconds, nil
}

// starts is the time from QEMU's exec to the first command answered, n times.
func (b *Bench) starts(ctx context.Context, e *vmtest.Engine, dir string, n int) (median float64, how string, err error) {
	k, err := b.guests(ctx)
	if err != nil {
		return 0, "", err
	}
	// What is made once is not measured.
	if _, err := b.one(ctx, e, k, filepath.Join(dir, "first")); err != nil {
		return 0, "", err
	}
	var all []float64
	for i := range n {
		s, err := b.one(ctx, e, k, filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return 0, "", fmt.Errorf("%d of %d: %w", i+1, n, err)
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return all[n/2], fmt.Sprintf("QEMU's exec to the first command answered, median of %d (%.3f to %.3f), none failed, tree %s",
		n, all[0], all[n-1], b.Tree.Name), nil
}

// boot is a machine from the kernel's first instruction on.
func (b *Bench) boot(ctx context.Context) ([]Figure, error) {
	b.Say("%d boots", boots)
	median, how, err := b.starts(ctx, &vmtest.Engine{Store: b.Store, Boot: true}, "boot", boots)
	if err != nil {
		return nil, err
	}
	return []Figure{{Name: "boot", Value: median, Unit: "s", Target: 2, How: how}}, nil
}

// restore is a machine from a snapshot.
func (b *Bench) restore(ctx context.Context) ([]Figure, error) {
	b.Say("%d restores", restores)
	median, how, err := b.starts(ctx, &vmtest.Engine{Store: b.Store}, "restore", restores)
	if err != nil {
		return nil, err
	}
	return []Figure{{Name: "restore", Value: median, Unit: "s", Target: 0.08, How: how}}, nil
}

// clone is what machines of one snapshot take together.
func (b *Bench) clone(ctx context.Context) ([]Figure, error) {
	b.Say("%d machines of one snapshot", clones)
	k, err := b.guests(ctx)
	if err != nil {
		return nil, err
	}
	e := &vmtest.Engine{Store: b.Store, Loaded: true}
	var alone float64
	var all []*vmtest.Guest
	defer func() {
		for _, g := range all {
			g.Close()
		}
	}()
	for i := range clones {
		dir := filepath.Join(b.Out, "clones", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		g, err := e.Guest(ctx, k, vmtest.GuestOptions{}, dir)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
		if _, err := g.Run(ctx, &agent.Command{Argv: []string{"true"}}); err != nil {
			return nil, err
		}
		if i == 0 {
			if alone, err = proportional(g.Pid()); err != nil {
				return nil, err
			}
		}
	}
	sum := 0.0
	for _, g := range all {
		m, err := proportional(g.Pid())
		if err != nil {
			return nil, err
		}
		sum += m
	}
	return []Figure{{Name: "clones", Value: sum / alone, Target: 2,
		How: fmt.Sprintf("memory of %d machines of one snapshot, beside one alone: %.0f MiB, %.0f MiB", clones, sum, alone)}}, nil
}

var pss = regexp.MustCompile(`(?m)^Pss: +(\d+) kB`)

// proportional is what a process uses, in MiB, of shared memory its share.
func proportional(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	m := pss.FindSubmatch(raw)
	if m == nil {
		return 0, fmt.Errorf("no Pss in smaps_rollup of process %d", pid)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}

// tests is what the engine adds to tests.
func (b *Bench) tests(ctx context.Context) ([]Figure, error) {
	b.Say("%d tests that do nothing", trivial)
	k, err := b.guests(ctx)
	if err != nil {
		return nil, err
	}
	e := &vmtest.Engine{Store: b.Store, Loaded: true}
	if _, err := b.one(ctx, e, k, "tests/first"); err != nil {
		return nil, err
	}
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i := range trivial {
		g.Go(func() error {
			_, err := b.one(gctx, e, k, filepath.Join("tests", strconv.Itoa(i)))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return []Figure{{Name: "tests", Value: time.Since(start).Seconds(), Unit: "s", Target: 30,
		How: fmt.Sprintf("%d tests that do nothing, each in a machine of its own, %d at once, tree %s", trivial, runtime.NumCPU(), b.Tree.Name)}}, nil
}

// left is what machines leave behind.
func (b *Bench) left(ctx context.Context) ([]Figure, error) {
	b.Say("%d restores in a row", inARow)
	k, err := b.guests(ctx)
	if err != nil {
		return nil, err
	}
	e := &vmtest.Engine{Store: b.Store, Loaded: true}
	// The first ones fill caches.
	const warm = 10
	var before, after footprint
	for i := range warm + inARow {
		if i == warm {
			if before, err = b.footprint(); err != nil {
				return nil, err
			}
		}
		if _, err := b.one(ctx, e, k, "row"); err != nil {
			return nil, fmt.Errorf("%d of %d: %w", i+1-warm, inARow, err)
		}
	}
	if after, err = b.footprint(); err != nil {
		return nil, err
	}
	how := fmt.Sprintf("left by %d restores in a row: %d processes, %d descriptors, %d goroutines, %d temporary files, %d MiB of heap, %d MiB in the store",
		inARow, after.processes-before.processes, after.fds-before.fds, after.goroutines-before.goroutines,
		after.temporary-before.temporary, after.heap-before.heap, after.store-before.store)
	return []Figure{{Name: "left behind", Value: float64(after.more(before)), Target: 0, How: how}}, nil
}

// footprint is what there is of us on the machine.
type footprint struct {
	processes, fds, goroutines, temporary int
	heap, store                           int64 // MiB
}

func (f footprint) more(than footprint) int64 {
	n := max(0, f.processes-than.processes) + max(0, f.fds-than.fds) + max(0, f.goroutines-than.goroutines) + max(0, f.temporary-than.temporary)
	return int64(n) + max(0, f.heap-than.heap) + max(0, f.store-than.store)
}

func (b *Bench) footprint() (f footprint, err error) {
	count := func(n *int, glob string) {
		found, gerr := filepath.Glob(glob)
		*n, err = len(found), errors.Join(err, gerr)
	}
	count(&f.fds, "/proc/self/fd/*")
	count(&f.temporary, filepath.Join(os.TempDir(), "nftvm-*"))
	f.goroutines = runtime.NumGoroutine()
	tasks, terr := filepath.Glob("/proc/self/task/*/children")
	if terr != nil || len(tasks) == 0 {
		return f, errors.Join(terr, errors.New("this kernel does not tell a process's children"))
	}
	for _, path := range tasks {
		kids, rerr := os.ReadFile(path)
		if rerr != nil {
			continue // a thread that has ended
		}
		f.processes += len(strings.Fields(string(kids)))
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.heap = int64(m.HeapAlloc >> 20)
	items, serr := b.Store.List()
	if serr != nil {
		return f, serr
	}
	for _, it := range items {
		if it.Stage != "slot" {
			f.store += it.Bytes >> 20
		}
	}
	return f, err
}
