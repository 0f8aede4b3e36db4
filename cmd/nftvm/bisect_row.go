// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// prefixes are the points of a search in the series: its first patches, as many
// as the key says.
type prefixes struct {
	*bisection
	tree    tree.Tree
	patches []series.Patch
	points  []bisect.Point
}

func newPrefixes(ctx context.Context, b *bisection, t tree.Tree) (*prefixes, error) {
	ser, err := series.Load(b.flags.patches)
	if err != nil {
		return nil, err
	}
	version, err := b.version(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := ser.Check(version); err != nil {
		return nil, err
	}
	s := &prefixes{bisection: b, tree: t}
	if s.patches, err = ser.Select(version); err != nil {
		return nil, err
	}
	s.points = []bisect.Point{{Key: "0", Title: "no patch"}}
	for i, p := range s.patches {
		s.points = append(s.points, bisect.Point{
			Key: strconv.Itoa(i + 1), Title: fmt.Sprintf("patch %d of %d, %s", i+1, len(s.patches), p.Name),
		})
	}
	for _, end := range []string{b.flags.good, b.flags.bad} {
		if end == "" {
			continue
		}
		if _, err := s.index(end); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// version is the kernel version of a tree, which is fetched for that.
func (b *bisection) version(ctx context.Context, t tree.Tree) (string, error) {
	f := &tree.Fetcher{Store: b.store, Refresh: b.flags.refresh, Warn: func(msg string) { b.progress.Line("%s: %s", t.Name, msg) }}
	src, err := f.Source(ctx, t)
	if err != nil {
		return "", err
	}
	return src.Version, nil
}

// index is the point that a patch's name, or a number of patches, names.
func (s *prefixes) index(name string) (int, error) {
	if i := slices.IndexFunc(s.patches, func(p series.Patch) bool { return p.Name == name || strings.TrimSuffix(p.Name, ".patch") == name }); i >= 0 {
		return i + 1, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= len(s.patches) {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no patch that %s gets, nor a number of patches from 0 to %d; see: nftvm series", name, s.tree.Name, len(s.patches))
}

func (s *prefixes) asked() []bisect.Asked {
	return []bisect.Asked{{What: "tree", Value: s.flags.seriesOf}, {What: "good", Value: s.flags.good}, {What: "bad", Value: s.flags.bad}}
}

func (s *prefixes) build(_ context.Context, p bisect.Point) (tree.Tree, error) {
	n, err := s.index(p.Key)
	s.builder.Choose = func(all []series.Patch) []series.Patch { return all[:min(n, len(all))] }
	return s.tree, err
}

func (s *prefixes) again(p bisect.Point) []string {
	return []string{"bisect", "--series-of", s.flags.seriesOf, "--point", p.Key, "--flavor", s.flags.flavor, "--out", filepath.Join(s.out, "again")}
}

func (s *prefixes) named(_ context.Context, name string) (bisect.Point, error) {
	i, err := s.index(name)
	if err != nil {
		return bisect.Point{}, err
	}
	return s.points[i], nil
}

func (s *prefixes) search(ctx context.Context, pipe *bisect.Pipeline) (*bisect.Finding, error) {
	lo, hi := 0, len(s.patches)
	var c bisect.Change
	var err error
	if s.flags.good == "" {
		c, err = bisect.Row(ctx, s.points, pipe.Judge, pipe.Focus)
	} else {
		good, gerr := s.index(s.flags.good)
		bad, berr := s.index(s.flags.bad)
		if err := errors.Join(gerr, berr); err != nil {
			return nil, err
		}
		lo, hi = min(good, bad), max(good, bad)
		c, err = bisect.Between(ctx, s.points, good, bad, pipe.Judge, pipe.Focus)
	}
	if err != nil {
		return nil, err
	}
	verb := "breaks"
	if c.From == bisect.Bad {
		verb = "mends"
	}
	test := strings.Join(s.flags.tests, ",")
	var names []string
	for _, p := range s.patches[c.Lo:c.Hi] {
		names = append(names, p.Name)
	}
	headline := fmt.Sprintf("%s %s %s on %s", names[len(names)-1], verb, test, s.tree.Name)
	if !c.Exact() {
		headline = fmt.Sprintf("one of these %d patches %s %s on %s; what lies between them cannot be judged:", len(names), verb, test, s.tree.Name)
	}
	f := pipe.Journal.NewFinding(headline, names, c.Exact(), c.BadEnd, s.bisection.again, s.points[c.Lo], s.points[c.Hi])
	if c.Exact() {
		f.Stat, err = s.patches[c.Lo].Stat()
	}
	if first := c.First; first > lo && s.flags.good == "" {
		f.Notes = append(f.Notes, fmt.Sprintf("below %s nothing was found that can be judged: %d of %d points are searched",
			s.points[first].Title, hi-first+1, hi-lo+1))
	}
	return f, err
}

// treeRow are trees in a row as the points of a search.
type treeRow struct {
	*bisection
	trees  []tree.Tree
	names  []string
	points []bisect.Point
}

func newTreeRow(b *bisection, trees []tree.Tree, names []string) (*treeRow, error) {
	r := &treeRow{bisection: b, trees: trees, names: names}
	for i, t := range trees {
		if slices.ContainsFunc(r.points, func(p bisect.Point) bool { return p.Key == t.Name }) {
			return nil, fmt.Errorf("--trees names %s twice", names[i])
		}
		r.points = append(r.points, bisect.Point{Key: t.Name, Title: names[i]})
	}
	if len(trees) < 2 {
		return nil, fmt.Errorf("--trees %s: there must be two to find something between them", strings.Join(names, ","))
	}
	return r, nil
}

func (r *treeRow) asked() []bisect.Asked {
	return []bisect.Asked{{What: "trees", Value: strings.Join(r.names, " ")}}
}

func (r *treeRow) index(key string) int {
	return slices.IndexFunc(r.points, func(p bisect.Point) bool { return p.Key == key })
}

func (r *treeRow) build(_ context.Context, p bisect.Point) (tree.Tree, error) {
	return r.trees[r.index(p.Key)], nil
}

func (r *treeRow) again(p bisect.Point) []string {
	i := r.index(p.Key)
	choice := []string{"--trees", r.names[i]}
	if place := r.trees[i].Place(); place != "" {
		choice = []string{"--tree", place}
	}
	return append(append([]string{"run"}, choice...), "--flavors", r.flags.flavor, "--out", filepath.Join(r.out, "again"))
}

func (r *treeRow) named(_ context.Context, name string) (bisect.Point, error) {
	return bisect.Point{}, fmt.Errorf("--point %s: judge one tree with: nftvm run --trees", name)
}

func (r *treeRow) search(ctx context.Context, pipe *bisect.Pipeline) (*bisect.Finding, error) {
	c, err := bisect.Row(ctx, r.points, pipe.Judge, pipe.Focus)
	if err != nil {
		return nil, err
	}
	verb := "fails"
	if c.From == bisect.Bad {
		verb = "passes"
	}
	test := strings.Join(r.flags.tests, ",")
	names := r.names[c.Lo+1 : c.Hi+1]
	headline := fmt.Sprintf("%s is the first tree on which %s %s", r.names[c.Hi], test, verb)
	if !c.Exact() {
		headline = fmt.Sprintf("one of these is the first tree on which %s %s; those before the last cannot be judged:", test, verb)
	}
	f := pipe.Journal.NewFinding(headline, names, c.Exact(), c.BadEnd, r.bisection.again, r.points[c.Lo], r.points[c.Hi])
	if len(r.points) > 2 {
		f.Notes = append(f.Notes, "this takes for granted that the verdict changes once along the trees")
	}
	return f, nil
}
