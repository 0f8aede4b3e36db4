// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// Work is what an opened tree's files are now, committed or not.
type Work struct {
	// Tree and Source are what it was opened from.
	Tree   string
	Source store.Key
	// Overlay is what the files make of the pristine source.
	Overlay *series.Overlay
}

// Working reads the files of the repository in dir that are not the pristine
// ones. It writes nothing there.
func Working(ctx context.Context, dir string) (*Work, error) {
	m, err := readMeta(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no tree that was opened; see: nftvm dev --help", dir)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(m.Pristine); err != nil {
		return nil, fmt.Errorf("the source that %s was opened from has left the store; take it in again with: nftvm dev %s", dir, m.Tree)
	}
	g := &git{dir: dir}
	var paths []string
	for _, args := range [][]string{
		{"diff", "--name-only", "--no-renames", "-z", m.Base, "--"},
		{"ls-files", "--others", "--exclude-standard", "-z"},
	} {
		out, err := g.raw(ctx, args...)
		if err != nil {
			return nil, err
		}
		for p := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if p != "" && !Droppings(p) {
				paths = append(paths, p)
			}
		}
	}
	slices.Sort(paths)
	o, err := series.Edited(m.Pristine, dir, slices.Compact(paths))
	if err != nil {
		return nil, err
	}
	return &Work{Tree: m.Tree, Source: m.Source, Overlay: o}, nil
}

// Droppings says whether a file is one that editors and patch leave about.
func Droppings(path string) bool {
	base := filepath.Base(path)
	if strings.HasPrefix(base, ".#") || strings.HasSuffix(base, "~") {
		return true
	}
	return slices.Contains([]string{".orig", ".rej", ".swp", ".swx"}, filepath.Ext(base))
}
