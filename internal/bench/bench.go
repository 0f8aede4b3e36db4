// SPDX-License-Identifier: GPL-2.0-only

// Package bench measures the figures that the project promises, on the machine
// it runs on, each beside its target.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
)

// boots is how many guests the boot figure is the median of.
const boots = 11

// Figure is one measurement.
type Figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target float64 `json:"target"` // at most this much
	// AtLeast turns the target around.
	AtLeast bool `json:"at_least,omitempty"`
	// How is what exactly was measured.
	How string `json:"how"`
}

// Met says whether the figure keeps its promise.
func (f Figure) Met() bool {
	if f.AtLeast {
		return f.Value >= f.Target
	}
	return f.Value <= f.Target
}

// Missed names every figure that does not keep its promise: where one always
// misses, only the others show that something has become worse.
func Missed(figures []Figure) []string {
	var out []string
	for _, f := range figures {
		if !f.Met() {
			out = append(out, f.Name)
		}
	}
	return out
}

// Bench is what to measure with.
type Bench struct {
	Store *store.Store
	// Builder makes a builder over the given store.
	Builder func(*store.Store) *kernel.Builder
	// Run makes the matrix of the main job, over the default trees.
	Run func() *matrix.Run
	// Tree is the one that builds are measured on.
	Tree tree.Tree
	// Root is the project's directory.
	Root string
	// Out gets the results and the stores of the cold measurements.
	Out string
	// Cold also measures a cold build beside a bare make: two whole builds.
	Cold bool
	// Only are globs of the measurements to make; none means all.
	Only []string
	// Say shows what is being measured.
	Say func(format string, args ...any)
}

// Do measures. The figures that it got to are returned with an error, too.
func (b *Bench) Do(ctx context.Context) ([]Figure, error) {
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return nil, err
	}
	todo, err := b.chosen()
	if err != nil {
		return nil, err
	}
	var figures []Figure
	for _, m := range todo {
		fs, err := m.do(ctx)
		figures = append(figures, fs...)
		if err != nil {
			return figures, errors.Join(err, b.write(figures))
		}
	}
	return figures, b.write(figures)
}

// measurement is one of the things that Do does.
type measurement struct {
	name string
	do   func(context.Context) ([]Figure, error)
}

// chosen are the measurements that Only selects.
func (b *Bench) chosen() ([]measurement, error) {
	all := []measurement{
		{"nothing-changed", b.nothingChanged}, {"boot", b.boot}, {"restore", b.restore}, {"clones", b.clone}, {"tests", b.tests}, {"left-behind", b.left},
		{"rules", b.rules}, {"packets", b.packets},
		{"rebuild", b.rebuild}, {"edit", b.edit}, {"bisect", b.bisect}, {"cold", b.cold},
	}
	if len(b.Only) == 0 {
		return all, nil
	}
	var names []string
	for _, m := range all {
		names = append(names, m.name)
	}
	taken := map[string]bool{}
	for _, g := range b.Only {
		found := false
		for _, n := range names {
			ok, err := path.Match(g, n)
			if err != nil {
				return nil, fmt.Errorf("measurement pattern %q: %w", g, err)
			}
			found = found || ok
			taken[n] = taken[n] || ok
		}
		if !found {
			return nil, fmt.Errorf("no measurement %q; there are: %s", g, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(m measurement) bool { return !taken[m.name] }), nil
}

// nothingChanged is the main job when everything but the tests is in the store.
func (b *Bench) nothingChanged(ctx context.Context) ([]Figure, error) {
	var took float64
	for i, what := range []string{"filling the store", "the main job, nothing changed"} {
		b.Say("%s", what)
		res, err := b.Run().Do(ctx)
		if err != nil {
			return nil, err
		}
		if code := res.ExitCode(); code != report.ExitPass {
			return nil, fmt.Errorf("the main job is not green (exit %d); mend it before measuring it: make run", code)
		}
		took = res.Seconds
		for _, c := range res.Cells {
			for _, s := range c.Stages {
				if i == 1 && !s.Cached && s.Name != "boot" && s.Name != "test" {
					return nil, fmt.Errorf("%s: stage %s was not cached in the second run", c.Tree, s.Name)
				}
			}
		}
	}
	return []Figure{{Name: "nothing changed", Value: took, Unit: "s", Target: 30, How: "whole run over the default trees, every test executed again"}}, nil
}

// rebuild is a build from nothing with a warm compile cache.
func (b *Bench) rebuild(ctx context.Context) ([]Figure, error) {
	b.Say("a build from clean with a warm compile cache")
	cache := os.Getenv("CCACHE_DIR")
	if cache == "" {
		cache = filepath.Join(b.Store.Dir(), "ccache")
	}
	built, _, err := b.fresh(ctx, "rebuild", cache)
	if err != nil {
		return nil, err
	}
	took := 0.0
	for _, s := range built.Stages {
		if s.Name == "config" || s.Name == "build" || s.Name == "module" {
			took += s.Seconds
		}
	}
	return []Figure{
		{Name: "rebuild", Value: took, Unit: "s", Target: 60, How: "config, build and module stage from clean, warm compile cache, tree " + b.Tree.Name},
		{Name: "objects", Value: float64(built.Compiled), Target: 1150, How: "objects compiled, tree " + b.Tree.Name},
	}, nil
}

// cold is the whole way from nothing to a verdict beside a bare make.
func (b *Bench) cold(ctx context.Context) ([]Figure, error) {
	if !b.Cold {
		return nil, nil
	}
	b.Say("cold: from an empty store and an empty compile cache")
	dir := filepath.Join(b.Out, "cold")
	built, took, err := b.fresh(ctx, "cold", filepath.Join(dir, "ccache"))
	if err != nil {
		return nil, err
	}
	b.Say("a bare make of the same config")
	obj := filepath.Join(dir, "bare")
	if err := os.MkdirAll(obj, 0o755); err != nil {
		return nil, err
	}
	config, err := os.ReadFile(built.Config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(obj, ".config"), config, 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "bare.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	start := time.Now()
	src := filepath.Join(dir, "store", "slots", b.Tree.Name+"-"+kernel.Plain, "src")
	for _, args := range [][]string{
		{"olddefconfig"},
		{"-j" + strconv.Itoa(runtime.NumCPU()), "bzImage", "modules"},
	} {
		cmd := exec.CommandContext(ctx, "make", append([]string{"-C", src, "O=" + obj}, args...)...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("bare make: %w; log: %s", err, log.Name())
		}
	}
	bare := time.Since(start).Seconds()
	return []Figure{{
		Name: "cold", Value: took, Unit: "s", Target: 1.05*bare + 60,
		How: fmt.Sprintf("empty store to verdict, one tree; bare make %.0f s, so %.2f times it", bare, took/bare),
	}}, nil
}

// fresh takes the tree through the pipeline in a store of its own, up to the
// first verdict, and returns how long all of it took in seconds.
func (b *Bench) fresh(ctx context.Context, name, ccache string) (*kernel.Built, float64, error) {
	dir := filepath.Join(b.Out, name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, 0, err
	}
	defer setenv("CCACHE_DIR", ccache)()
	start := time.Now()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return nil, 0, err
	}
	built, err := b.Builder(st).Build(ctx, b.Tree, kernel.Plain)
	if err != nil {
		return nil, 0, err
	}
	engine := &vmtest.Engine{Store: st}
	res, err := engine.Run(ctx, matrix.GuestKernel(built), nothing, filepath.Join(dir, "true"))
	if err != nil {
		return nil, 0, err
	}
	if res.Verdict != vmtest.Pass {
		return nil, 0, fmt.Errorf("%s: %s: %s", name, res.Verdict, res.Reason)
	}
	return built, time.Since(start).Seconds(), nil
}

// setenv sets a variable and returns what puts it back.
func setenv(name, value string) func() {
	old, had := os.LookupEnv(name)
	_ = os.Setenv(name, value)
	return func() {
		if had {
			_ = os.Setenv(name, old)
		} else {
			_ = os.Unsetenv(name)
		}
	}
}

func (b *Bench) write(figures []Figure) error {
	raw, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.Out, "bench.json"), append(raw, '\n'), 0o644)
}

// Table prints the figures.
func Table(w io.Writer, figures []Figure) {
	for _, f := range figures {
		met := "met"
		if !f.Met() {
			met = "MISSED"
		}
		way := "at most"
		if f.AtLeast {
			way = "at least"
		}
		fmt.Fprintf(w, "%-16s %8.2f %-2s  %-8s %7.2f  %-6s  %s\n", f.Name, f.Value, f.Unit, way, f.Target, met, f.How)
	}
}
