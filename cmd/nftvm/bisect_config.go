// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// configs are the points of a search in two configurations: the good one with
// some of its symbols as the bad one has them.
type configs struct {
	*bisection
	tree  tree.Tree
	files [2]string
	good  []kconfig.Request
	all   []bisect.Symbol
	// part is what the point that is built has of the bad one.
	part map[string][]bisect.Symbol
	now  []bisect.Symbol
}

func newConfigs(ctx context.Context, b *bisection, t tree.Tree, good, bad string) (*configs, error) {
	c := &configs{bisection: b, tree: t, part: map[string][]bisect.Symbol{}}
	var read [2][]kconfig.Request
	for i, path := range []string{good, bad} {
		var err error
		if read[i], err = kconfig.ReadFragment(path); err != nil {
			return nil, err
		}
		if c.files[i], err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	version, err := b.version(ctx, t)
	if err != nil {
		return nil, err
	}
	var values [2]map[string]string
	for i := range read {
		want, _, err := kconfig.Wanted(read[i], version)
		if err != nil {
			return nil, err
		}
		values[i] = map[string]string{}
		for _, r := range want {
			values[i][r.Symbol] = r.Value
		}
		if i == 0 {
			c.good = want
		}
	}
	c.all = bisect.Differ(values[0], values[1])
	c.part[bisect.NoSymbol], c.part[bisect.AllSymbols] = nil, c.all
	return c, nil
}

func (c *configs) asked() []bisect.Asked {
	var symbols []string
	for _, s := range c.all {
		symbols = append(symbols, s.String())
	}
	return []bisect.Asked{
		{What: "tree", Value: c.flags.on}, {What: "good", Value: c.files[0]}, {What: "bad", Value: c.files[1]},
		{What: "list of symbols", Value: strings.Join(symbols, "; ")},
	}
}

func (c *configs) build(_ context.Context, p bisect.Point) (tree.Tree, error) {
	part, ok := c.part[p.Key]
	if !ok {
		return c.tree, fmt.Errorf("%s: nobody knows which symbols these are", p.Title)
	}
	c.now = part
	changed := map[string]bool{}
	requests := []kconfig.Request{}
	for _, s := range part {
		changed[s.Name] = true
		if s.Bad != "" {
			requests = append(requests, kconfig.Request{Symbol: s.Name, Value: s.Bad, File: c.files[1]})
		}
	}
	for _, r := range c.good {
		if !changed[r.Symbol] {
			requests = append(requests, kconfig.Request{Symbol: r.Symbol, Value: r.Value, File: r.File, Line: r.Line})
		}
	}
	c.builder.Config = requests
	return c.tree, nil
}

// lost are those of the differing symbols that did not come out as the point
// has them.
func (c *configs) lost(config string) ([]string, error) {
	got, err := kconfig.ReadConfig(config)
	if err != nil {
		return nil, err
	}
	taken := bisect.NamesOf(c.now)
	var out []string
	for _, s := range c.all {
		want := s.Good
		if slices.Contains(taken, s.Name) {
			want = s.Bad
		}
		if want != "" && got.Get(s.Name) != want {
			out = append(out, s.Name)
		}
	}
	return out, nil
}

func (c *configs) again(p bisect.Point) []string {
	name := p.Key
	if p.Key != bisect.NoSymbol && p.Key != bisect.AllSymbols {
		name = strings.Join(bisect.NamesOf(c.part[p.Key]), ",")
	}
	return []string{"bisect", "--config", c.files[0], c.files[1], "--on", c.flags.on, "--point", name,
		"--flavor", c.flags.flavor, "--out", filepath.Join(c.out, "again")}
}

// point is the point of some of the symbols.
func (c *configs) point(part []bisect.Symbol) bisect.Point {
	p := bisect.SymbolsPoint(part, c.all)
	c.part[p.Key] = part
	return p
}

func (c *configs) named(_ context.Context, name string) (bisect.Point, error) {
	switch name {
	case bisect.NoSymbol:
		return c.point(nil), nil
	case bisect.AllSymbols:
		return c.point(c.all), nil
	}
	var part []bisect.Symbol
	names := strings.Split(name, ",")
	for _, s := range c.all {
		if slices.Contains(names, s.Name) {
			part = append(part, s)
		}
	}
	if len(part) != len(names) {
		return bisect.Point{}, fmt.Errorf("--point %s: the configurations differ in: %s", name, strings.Join(bisect.NamesOf(c.all), ", "))
	}
	return c.point(part), nil
}

func (c *configs) search(ctx context.Context, pipe *bisect.Pipeline) (*bisect.Finding, error) {
	g, err := bisect.FindSymbols(ctx, c.all, func(ctx context.Context, p bisect.Point, part []bisect.Symbol) (bisect.Result, error) {
		c.part[p.Key] = part
		return pipe.Judge(ctx, p)
	}, pipe.Focus)
	if err != nil {
		return nil, err
	}
	test := strings.Join(c.flags.tests, ",")
	headline := fmt.Sprintf("%d of the %d symbols that differ break %s on %s, and none of them can be left out:",
		len(g.Elems), len(c.all), test, c.tree.Name)
	if len(g.Elems) == 1 {
		headline = fmt.Sprintf("of the %d symbols that differ, CONFIG_%s breaks %s on %s", len(c.all), g.Elems[0].Name, test, c.tree.Name)
	}
	culprit := c.point(g.Elems)
	f := pipe.Journal.NewFinding(headline, bisect.NamesOf(g.Elems), len(g.Unsure) == 0,
		c.point(c.all), c.bisection.again, c.point(nil), culprit)
	var lines []string
	for _, s := range g.Elems {
		lines = append(lines, s.String())
	}
	f.Stat = strings.Join(lines, "\n")
	if len(g.Unsure) > 0 {
		f.Notes = append(f.Notes, "without these nothing could be judged, so it is not known whether they matter: "+strings.Join(bisect.NamesOf(g.Unsure), ", "))
	}
	for _, at := range []struct {
		where string
		point bisect.Point
	}{{"good configuration", c.point(nil)}, {"bad configuration", c.point(c.all)}, {"good configuration with what is named", culprit}} {
		if lost := pipe.Journal.Get(at.point.Key).Lost; len(lost) > 0 {
			f.Notes = append(f.Notes, fmt.Sprintf("olddefconfig does not let the %s have these as it wants them: %s", at.where, strings.Join(lost, ", ")))
		}
	}
	return f, nil
}
