// SPDX-License-Identifier: GPL-2.0-only

// Package series reads patches/series, chooses the patches that a kernel
// version gets, and applies them.
//
// The file names one patch a line, with the range of kernel versions that get
// it; no range means all:
//
//	# supports: >= 6.12, < 6.13 || >= 7.3
//	0001-netfilter-add-hooks.patch
//	0002-glue-for-6.12.patch          >= 6.12, < 6.13
//
// The comment "# supports:" names the versions that the series as a whole is
// meant for; quilt and git quiltimport read past it. Without it the series is
// meant for all.
package series

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// File is the name of the list in a series' directory.
const File = "series"

// Patch is one line of the series.
type Patch struct {
	// Name is the file's name in the series' directory.
	Name string
	// Range is the kernel versions that get the patch.
	Range kver.Range
	// Line is where the series names it, from 1.
	Line int
	// Content is the patch file.
	Content []byte
}

// Series is a directory of patches in order.
type Series struct {
	Dir      string
	Supports kver.Range
	Patches  []Patch

	supportsLine int
	lines        []string // the file as it is, for writing it back
}

// Path is the series' list of patches.
func (s *Series) Path() string { return filepath.Join(s.Dir, File) }

var supportsRE = regexp.MustCompile(`^#\s*supports:(.*)$`)

// Load reads a series and its patches. Errors name the list and the line.
func Load(dir string) (*Series, error) {
	s := &Series{Dir: dir}
	raw, err := os.ReadFile(s.Path())
	if err != nil {
		return nil, fmt.Errorf("%s holds no patch series: %w", dir, err)
	}
	seen := map[string]int{}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		s.lines = append(s.lines, sc.Text())
		fail := func(err error) error { return fmt.Errorf("%s:%d: %w", s.Path(), n, err) }
		if m := supportsRE.FindStringSubmatch(line); m != nil {
			if s.supportsLine != 0 {
				return nil, fail(fmt.Errorf("supports: is there already, in line %d", s.supportsLine))
			}
			if s.Supports, err = kver.ParseRange(m[1]); err != nil {
				return nil, fail(err)
			}
			s.supportsLine = n
			continue
		}
		p, ok, err := parseLine(line)
		if err != nil {
			return nil, fail(err)
		}
		if !ok {
			continue
		}
		if first := seen[p.Name]; first != 0 {
			return nil, fail(fmt.Errorf("%s is there already, in line %d", p.Name, first))
		}
		seen[p.Name], p.Line = n, n
		if p.Content, err = os.ReadFile(filepath.Join(dir, p.Name)); err != nil {
			return nil, fail(err)
		}
		s.Patches = append(s.Patches, p)
	}
	return s, sc.Err()
}

// parseLine reads a line; ok is false for one that names no patch.
func parseLine(line string) (p Patch, ok bool, err error) {
	if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
		line = strings.TrimSpace(line[:i])
	}
	if line == "" {
		return Patch{}, false, nil
	}
	name, rest := line, ""
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		name, rest = line[:i], strings.TrimSpace(line[i:])
	}
	if !filepath.IsLocal(name) {
		return Patch{}, false, fmt.Errorf("%s is not below the series' directory", name)
	}
	p = Patch{Name: name}
	if rest != "" {
		p.Range, err = kver.ParseRange(rest)
	}
	return p, err == nil, err
}

// Select returns the patches that the kernel version gets, in order.
func (s *Series) Select(v string) ([]Patch, error) {
	var out []Patch
	for _, p := range s.Patches {
		ok, err := p.Range.Has(v)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// UnsupportedError says that the series is not meant for a kernel version.
type UnsupportedError struct {
	Version, Supports, Path string
	Line                    int
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the series does not support kernel %s: %s:%d says \"supports: %s\"", e.Version, e.Path, e.Line, e.Supports)
}

// Check returns an *UnsupportedError when the series is not meant for the
// kernel version.
func (s *Series) Check(v string) error {
	ok, err := s.Supports.Has(v)
	if err != nil {
		return err
	}
	if !ok {
		return &UnsupportedError{Version: v, Supports: s.Supports.String(), Path: s.Path(), Line: s.supportsLine}
	}
	return nil
}

// Stage is the store's name for applied series.
const Stage = "patch"

// Key is the key of what the patches make of a source. Names do not count:
// a renamed patch changes nothing that is built.
func Key(source store.Key, patches []Patch) store.Key {
	k := store.NewKey(Stage).Str("format", "1").Str("source", string(source))
	for _, p := range patches {
		k.Str("patch", string(p.Content))
	}
	return k.Key()
}
