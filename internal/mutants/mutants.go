// SPDX-License-Identifier: GPL-2.0-only

// Package mutants breaks the series on purpose, one patch at a time, and wants
// each breakage noticed by the test that it belongs to. A test that lets one
// pass does not test what it says.
package mutants

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// Mutant is one breakage.
type Mutant struct {
	// Name is the patch file's, without .patch.
	Name string
	// Path is the patch file.
	Path string
	// Test must notice it.
	Test string
	// Flavor of the kernel in which the test can.
	Flavor string
	// Trees are the kernel versions that the mutant is for.
	Trees kver.Range
	// Red are the subtests of which the first to fail must be one; none means
	// any.
	Red []string
}

// redRE is a list of subtests; what is not says in words which they are.
var redRE = regexp.MustCompile(`^\w+(, \w+)*$`)

// suite is where the scripts that mutants name are.
const suite = "nft_offload/"

// Load reads the mutants of a directory, in the order of their names. The head
// of each patch file says who must kill it:
//
//	Script: toggle.sh
//	Trees: >= 7.0        (default: all)
//	Flavor: debug        (default: plain)
//	Red: fin, rst        (the subtests that notice it; a sentence is not checked)
func Load(dir string) ([]Mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no mutant in %s", dir)
	}
	var all []Mutant
	for _, p := range paths {
		m, err := read(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func read(file string) (Mutant, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return Mutant{}, err
	}
	m := Mutant{Name: strings.TrimSuffix(filepath.Base(file), ".patch"), Path: file, Flavor: "plain"}
	for line := range bytes.Lines(raw) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "--- ") || strings.HasPrefix(text, "diff --git ") {
			break
		}
		name, value, ok := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		if !ok || value == "" {
			continue
		}
		switch name {
		case "Script":
			// As a file of selftests/, or as a test's name.
			m.Test = suite + strings.TrimSuffix(strings.TrimPrefix(value, suite), ".sh")
		case "Flavor":
			m.Flavor = value
		case "Red":
			if redRE.MatchString(value) {
				m.Red = strings.Split(value, ", ")
			}
		case "Trees":
			if m.Trees, err = kver.ParseRange(value); err != nil {
				return m, err
			}
		}
	}
	if m.Test == "" {
		return m, errors.New("no line \"Script: NAME.sh\" in its head says who must kill it")
	}
	return m, nil
}

// Match selects the mutants whose name matches any of the globs; none means
// all.
func Match(all []Mutant, globs []string) ([]Mutant, error) {
	if len(globs) == 0 {
		return all, nil
	}
	taken := map[string]bool{}
	for _, g := range globs {
		found := false
		for _, m := range all {
			ok, err := path.Match(g, m.Name)
			if err != nil {
				return nil, fmt.Errorf("mutant pattern %q: %w", g, err)
			}
			if ok {
				found, taken[m.Name] = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("no mutant matches %q", g)
		}
	}
	var out []Mutant
	for _, m := range all {
		if taken[m.Name] {
			out = append(out, m)
		}
	}
	return out, nil
}
