// SPDX-License-Identifier: GPL-2.0-only

// Package tree knows the kernel trees by name and turns each into unpacked,
// verified source in the store.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// Tree is one named kernel tree with exactly one origin.
type Tree struct {
	Name string
	// Debian is the source package it comes from.
	Debian *Debian
	// Dir is the plain directory it comes from, absolute.
	Dir string
}

// Debian is an origin: a linux-source package of a Debian archive.
type Debian struct {
	// Suites are asked together; the newest version in any of them is taken.
	Suites  []string
	Package string
	// Version pins an exact version, "" takes the newest.
	Version string
	// SHA256 pins the package's checksum besides the signed index.
	SHA256 string
}

// Hint is what is known of the kernel's version before the source is there:
// that in the package's name, or a directory's Makefile. "" when nothing is.
func (t Tree) Hint() string {
	if t.Debian != nil {
		if v, ok := strings.CutPrefix(t.Debian.Package, packagePrefix); ok {
			return v
		}
		return ""
	}
	v, err := kver.OfTree(t.Dir)
	if err != nil {
		return ""
	}
	return v
}

// Trees are the trees that a file names, in its order.
type Trees struct {
	Path string
	All  []Tree
}

// Names lists the trees' names in order.
func (ts *Trees) Names() []string {
	var names []string
	for _, t := range ts.All {
		names = append(names, t.Name)
	}
	return names
}

// UnknownError says that there is no tree of a name, and which there are.
type UnknownError struct {
	Name  string
	Known []string
	Path  string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown tree %q; %s knows: %s", e.Name, e.Path, strings.Join(e.Known, ", "))
}

// Select returns the named trees, in the order of names and each once; all of
// them for no names. An unknown name is an *UnknownError.
func (ts *Trees) Select(names []string) ([]Tree, error) {
	if len(names) == 0 {
		return ts.All, nil
	}
	var out []Tree
	seen := map[string]bool{}
next:
	for _, name := range names {
		name = strings.TrimSpace(name)
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, t := range ts.All {
			if t.Name == name {
				out = append(out, t)
				continue next
			}
		}
		return nil, &UnknownError{Name: name, Known: ts.Names(), Path: ts.Path}
	}
	return out, nil
}

// text keeps a YAML scalar as it is written: 5.10 is a name here, and would be
// 5.1 as a number.
type text string

func (t *text) UnmarshalYAML(raw []byte) error {
	s := strings.TrimSpace(string(raw))
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	*t = text(s)
	return nil
}

// texts is one text or a list of them.
type texts []text

func (t *texts) UnmarshalYAML(raw []byte) error {
	var list []text
	if err := yaml.Unmarshal(raw, &list); err == nil {
		*t = list
		return nil
	}
	var one text
	if err := one.UnmarshalYAML(raw); err != nil {
		return err
	}
	*t = texts{one}
	return nil
}

type fileTree struct {
	Name   text        `yaml:"name"`
	Debian *fileDebian `yaml:"debian"`
	Dir    text        `yaml:"dir"`
}

type fileDebian struct {
	Suite   texts `yaml:"suite"`
	Package text  `yaml:"package"`
	Version text  `yaml:"version"`
	SHA256  text  `yaml:"sha256"`
}

// What may be a part of a file name, of an apt source line, of a command line.
var (
	nameRE    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	suiteRE   = regexp.MustCompile(`^[a-z][a-z0-9./-]*$`)
	packageRE = regexp.MustCompile(`^linux-source-[0-9][a-z0-9.+-]*$`)
	versionRE = regexp.MustCompile(`^[0-9][A-Za-z0-9.+:~-]*$`)
	sha256RE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Load reads a trees file. Errors name file and line.
func Load(path string) (*Trees, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f struct {
		Trees []fileTree `yaml:"trees"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(raw), yaml.Strict()).Decode(&f); err != nil {
		return nil, yamlError(path, err)
	}
	ts := &Trees{Path: path}
	if len(f.Trees) == 0 {
		return nil, fmt.Errorf("%s: names no trees", path)
	}
	seen := map[string]bool{}
	for i, ft := range f.Trees {
		t, err := ft.tree(filepath.Dir(path))
		if err == nil && seen[t.Name] {
			err = fmt.Errorf("tree %q is there twice", t.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, lineOf(raw, i), err)
		}
		seen[t.Name] = true
		ts.All = append(ts.All, t)
	}
	return ts, nil
}

func (ft fileTree) tree(base string) (Tree, error) {
	t := Tree{Name: string(ft.Name), Dir: string(ft.Dir)}
	if !nameRE.MatchString(t.Name) {
		return t, fmt.Errorf("tree name %q: use letters, digits and . _ + -", t.Name)
	}
	if (ft.Debian == nil) == (t.Dir == "") {
		return t, fmt.Errorf("tree %q needs one origin: debian or dir", t.Name)
	}
	if t.Dir != "" {
		if !filepath.IsAbs(t.Dir) {
			t.Dir = filepath.Join(base, t.Dir)
		}
		abs, err := filepath.Abs(t.Dir)
		t.Dir = abs
		return t, err
	}
	d := &Debian{Package: string(ft.Debian.Package), Version: string(ft.Debian.Version), SHA256: string(ft.Debian.SHA256)}
	for _, s := range ft.Debian.Suite {
		if !suiteRE.MatchString(string(s)) {
			return t, fmt.Errorf("tree %q: suite %q is not a suite's name", t.Name, s)
		}
		d.Suites = append(d.Suites, string(s))
	}
	switch {
	case len(d.Suites) == 0:
		return t, fmt.Errorf("tree %q: debian origin without suite", t.Name)
	case !packageRE.MatchString(d.Package):
		return t, fmt.Errorf("tree %q: package %q is not a linux-source-X.Y", t.Name, d.Package)
	case d.Version != "" && !versionRE.MatchString(d.Version):
		return t, fmt.Errorf("tree %q: %q is not a package version", t.Name, d.Version)
	case d.SHA256 != "" && !sha256RE.MatchString(d.SHA256):
		return t, fmt.Errorf("tree %q: sha256 is not 64 hex digits", t.Name)
	}
	t.Debian = d
	return t, nil
}

func yamlError(path string, err error) error {
	var ye yaml.Error
	if errors.As(err, &ye) && ye.GetToken() != nil {
		return fmt.Errorf("%s:%d: %s", path, ye.GetToken().Position.Line, ye.GetMessage())
	}
	return fmt.Errorf("%s: %w", path, err)
}

// lineOf is the line where the i-th tree begins, 1 when it cannot be found.
func lineOf(raw []byte, i int) int {
	f, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return 1
	}
	p, err := yaml.PathString(fmt.Sprintf("$.trees[%d]", i))
	if err != nil {
		return 1
	}
	n, err := p.FilterFile(f)
	if err != nil || n.GetToken() == nil {
		return 1
	}
	return n.GetToken().Position.Line
}
