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
	// Tarball is the archive it comes from.
	Tarball *Tarball
	// Git is the revision it comes from.
	Git *Git
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
// that in the name of the package or the tarball, or a directory's Makefile. ""
// when nothing is.
func (t Tree) Hint() string {
	switch {
	case t.Debian != nil:
		return strings.TrimPrefix(t.Debian.Package, packagePrefix)
	case t.Tarball != nil:
		return t.Tarball.version()
	case t.Git != nil:
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

// At is the tree of a directory that no file names, or with PATH@REV that of a
// revision of the repository there. Its name tells two of one base name apart.
func At(path string) (Tree, error) {
	dir, rev := path, ""
	if _, err := os.Stat(path); err != nil {
		i := strings.LastIndexByte(path, '@')
		if i < 0 {
			return Tree{}, fmt.Errorf("no tree at %s: %w", path, err)
		}
		dir, rev = path[:i], path[i+1:]
		if _, err := os.Stat(dir); err != nil {
			return Tree{}, fmt.Errorf("no repository at %s: %w", dir, err)
		}
		if rev == "" || rev[0] == '-' {
			return Tree{}, fmt.Errorf("%s: %q is not a revision", path, rev)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Tree{}, err
	}
	t := Tree{Name: strings.Trim(unfitRE.ReplaceAllString(filepath.Base(dir), "-"), "-") + "+" + short(dir)[:6]}
	if !nameRE.MatchString(t.Name) {
		t.Name = "tree" + t.Name
	}
	if rev == "" {
		t.Dir = dir
	} else {
		t.Git = &Git{Repo: dir, Rev: rev}
	}
	return t, nil
}

// unfitRE is what a tree's name cannot have.
var unfitRE = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// Place is what At makes the tree of, "" for one of another origin.
func (t Tree) Place() string {
	switch {
	case t.Git != nil && !t.Git.remote():
		return t.Git.Repo + "@" + t.Git.Rev
	case t.Git == nil:
		return t.Dir
	}
	return ""
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
	Name    text         `yaml:"name"`
	Debian  *fileDebian  `yaml:"debian"`
	Tarball *fileTarball `yaml:"tarball"`
	Git     *fileGit     `yaml:"git"`
	Dir     text         `yaml:"dir"`
}

type fileTarball struct {
	URL       text `yaml:"url"`
	SHA256    text `yaml:"sha256"`
	Signature text `yaml:"signature"`
	Keyring   text `yaml:"keyring"`
}

type fileGit struct {
	Repo text `yaml:"repo"`
	Rev  text `yaml:"rev"`
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
	origins := 0
	for _, is := range []bool{ft.Debian != nil, ft.Tarball != nil, ft.Git != nil, t.Dir != ""} {
		if is {
			origins++
		}
	}
	if origins != 1 {
		return t, fmt.Errorf("tree %q needs one origin: debian, tarball, git or dir", t.Name)
	}
	var err error
	switch {
	case ft.Debian != nil:
		t.Debian, err = ft.Debian.origin()
	case ft.Tarball != nil:
		t.Tarball, err = ft.Tarball.origin(base)
	case ft.Git != nil:
		t.Git, err = ft.Git.origin(base)
	default:
		t.Dir, err = below(base, t.Dir)
	}
	if err != nil {
		err = fmt.Errorf("tree %q: %w", t.Name, err)
	}
	return t, err
}

// below is a path of the file, which begins at the file's own directory.
func below(base, path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	return filepath.Abs(path)
}

func (fd fileDebian) origin() (*Debian, error) {
	d := &Debian{Package: string(fd.Package), Version: string(fd.Version), SHA256: string(fd.SHA256)}
	for _, s := range fd.Suite {
		if !suiteRE.MatchString(string(s)) {
			return nil, fmt.Errorf("suite %q is not a suite's name", s)
		}
		d.Suites = append(d.Suites, string(s))
	}
	switch {
	case len(d.Suites) == 0:
		return nil, errors.New("debian origin without suite")
	case !packageRE.MatchString(d.Package):
		return nil, fmt.Errorf("package %q is not a linux-source-X.Y", d.Package)
	case d.Version != "" && !versionRE.MatchString(d.Version):
		return nil, fmt.Errorf("%q is not a package version", d.Version)
	case d.SHA256 != "" && !sha256RE.MatchString(d.SHA256):
		return nil, errors.New("sha256 is not 64 hex digits")
	}
	return d, nil
}

func (ft fileTarball) origin(base string) (*Tarball, error) {
	b := &Tarball{URL: string(ft.URL), SHA256: string(ft.SHA256), Signature: string(ft.Signature), Keyring: string(ft.Keyring)}
	switch {
	case b.URL == "":
		return nil, errors.New("tarball origin without url")
	case !sha256RE.MatchString(b.SHA256):
		return nil, errors.New("a tarball needs its sha256, 64 hex digits")
	case (b.Signature == "") != (b.Keyring == ""):
		return nil, errors.New("signature and keyring need each other")
	}
	for _, at := range []*string{&b.URL, &b.Signature, &b.Keyring} {
		if *at == "" || webRE.MatchString(*at) {
			continue
		}
		var err error
		if *at, err = below(base, *at); err != nil {
			return nil, err
		}
	}
	if webRE.MatchString(b.Keyring) {
		return nil, errors.New("a keyring is a file: whoever can change the archive must not choose the key")
	}
	return b, nil
}

func (fg fileGit) origin(base string) (*Git, error) {
	g := &Git{Repo: string(fg.Repo), Rev: string(fg.Rev)}
	switch {
	case g.Repo == "":
		return nil, errors.New("git origin without repo")
	case g.Rev == "" || strings.HasPrefix(g.Rev, "-"):
		return nil, fmt.Errorf("%q is not a revision", g.Rev)
	case g.remote():
		return g, nil
	}
	var err error
	g.Repo, err = below(base, g.Repo)
	return g, err
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
