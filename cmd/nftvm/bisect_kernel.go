// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	goversion "github.com/hashicorp/go-version"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
)

// kernel builds a point.
func (b *bisection) kernel(ctx context.Context, p bisect.Point) (*bisect.Kernel, error) {
	t, err := b.subject.build(ctx, p)
	if err != nil {
		return nil, err
	}
	built, err := b.builder.Build(ctx, t, b.flags.flavor)
	if err != nil {
		return nil, err
	}
	specs, err := planned(b.specs, built)
	if err != nil {
		return nil, err
	}
	image, err := identity(built, specs)
	if err != nil {
		return nil, err
	}
	k := &bisect.Kernel{Image: image, Try: func(ctx context.Context, n int, only []string) (bisect.Attempt, error) {
		return b.try(ctx, p, built, specs, n, only)
	}}
	if s, ok := b.subject.(*configs); ok {
		k.Lost, err = s.lost(built.Config)
	}
	return k, err
}

// planned are the tests that there are for a kernel. One from a tree may have
// come to it within the range that is searched.
func planned(specs []matrix.Spec, built *kernel.Built) ([]matrix.Spec, error) {
	version, err := goversion.NewVersion(built.Version)
	if err != nil {
		return nil, fmt.Errorf("tree %s: version %q: %w", built.Tree, built.Version, err)
	}
	var out []matrix.Spec
	for _, s := range specs {
		if !s.Planned(version) {
			continue
		}
		if s.Path != "" && slices.ContainsFunc(append([]string{s.Path}, s.Files...), func(p string) bool {
			_, err := os.Stat(filepath.Join(built.Source, p))
			return err != nil
		}) {
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// identity names what runs in the guests: the kernel, its modules, and those
// tests that are the tree's own. Commits that change nothing else have one in
// common, whatever the key of their build: that is of the source.
func identity(built *kernel.Built, specs []matrix.Spec) (string, error) {
	k := store.NewKey("bisect").Str("release", built.Release)
	if err := k.File("image", built.Image); err != nil {
		return "", err
	}
	for _, dir := range []string{built.Modules, built.Manual} {
		k.Str("modules", "")
		if dir == "" {
			continue
		}
		if err := modules(k, dir); err != nil {
			return "", err
		}
	}
	for _, s := range specs {
		k.Str("test", s.Name)
		if s.Path == "" {
			continue
		}
		for _, p := range append([]string{s.Path}, s.Files...) {
			if err := k.Dir(p, filepath.Join(built.Source, p)); err != nil {
				return "", err
			}
		}
	}
	return string(k.Key()), nil
}

// modules adds the modules below a directory, and what the guest reads to load
// them, but not what the store writes about them.
func modules(k *store.Hasher, dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name := d.Name()
		if !strings.Contains(name, ".ko") && !strings.HasPrefix(name, "modules.") {
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return k.File(rel, p)
	})
}

// try runs the tests of a point once, each in a guest of its own.
func (b *bisection) try(ctx context.Context, p bisect.Point, built *kernel.Built, specs []matrix.Spec, n int, only []string) (bisect.Attempt, error) {
	dir := filepath.Join(b.out, "points", p.Key)
	if b.flags.runs > 1 {
		dir = filepath.Join(dir, fmt.Sprintf("run-%d", n))
	}
	run := &matrix.Run{
		Store: b.store, Engine: b.engine, Selftests: b.flags.selftests, Out: dir, Progress: b.progress,
		Again: func(_, _, _ string) string { return "exec " + b.again(p) },
	}
	label := p.Key[:min(12, len(p.Key))]
	var tests []report.Test
	for _, s := range specs {
		if only != nil && !slices.Contains(only, s.Name) {
			continue
		}
		if why := s.Skip[built.Flavor]; why != "" {
			tests = append(tests, report.Test{Name: s.Name, Verdict: report.Skip, Reason: why})
			continue
		}
		// The first failure is the verdict; a test may wait minutes for each.
		s.StopAtFailure = true
		res, _, done := run.One(ctx, built, s, label)
		if !done {
			return bisect.Attempt{}, context.Cause(ctx)
		}
		tests = append(tests, res)
		if only != nil && res.Verdict.Bad() {
			break // one of those that must pass has not
		}
	}
	return bisect.Tried(tests, only, bailed)
}

// bailed says whether a test gave up.
func bailed(t report.Test) bool {
	f, err := os.Open(t.Log)
	if err != nil {
		return false
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "Bail out!") {
			return true
		}
	}
	return false
}
