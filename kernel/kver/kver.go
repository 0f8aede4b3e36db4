// SPDX-License-Identifier: GPL-2.0-only

// Package kver reads kernel versions and the ranges of them that patches and
// config symbols are meant for.
package kver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-version"
)

// Range is a set of kernel versions: alternatives joined by "||", each a
// hashicorp/go-version constraint such as ">= 6.12, < 7.0". The zero Range
// holds every version.
type Range struct {
	text string
	alts []version.Constraints
}

// ParseRange reads a range. An empty text is an error: whoever wants every
// version writes no range.
func ParseRange(text string) (Range, error) {
	r := Range{text: strings.TrimSpace(text)}
	if r.text == "" {
		return Range{}, errors.New("empty version range")
	}
	for _, alt := range strings.Split(r.text, "||") {
		c, err := version.NewConstraint(strings.TrimSpace(alt))
		if err != nil {
			return Range{}, fmt.Errorf("version range %q: %q is not like \">= 6.12, < 7.0\"", r.text, strings.TrimSpace(alt))
		}
		r.alts = append(r.alts, c)
	}
	return r, nil
}

// String is the range as it was written, "" for every version.
func (r Range) String() string { return r.text }

// All is true for the range that holds every version.
func (r Range) All() bool { return len(r.alts) == 0 }

// Has tells whether the version is in the range. A release candidate counts as
// its release: 7.4-rc1 is in ">= 7.4", because that is the code it has.
func (r Range) Has(v string) (bool, error) {
	if r.All() {
		return true, nil
	}
	ver, err := version.NewVersion(v)
	if err != nil {
		return false, fmt.Errorf("kernel version %q: %w", v, err)
	}
	for _, c := range r.alts {
		if c.Check(ver.Core()) {
			return true, nil
		}
	}
	return false, nil
}

// AtLeast tells whether v is min or newer. Versions that cannot be read are not.
func AtLeast(v, min string) bool {
	r, err := ParseRange(">= " + min)
	if err != nil {
		return false
	}
	ok, err := r.Has(v)
	return err == nil && ok
}

// OfTree reads the version from the top Makefile of a kernel tree, such as
// 7.3.4 or 7.4.0-rc2.
func OfTree(dir string) (string, error) {
	path := filepath.Join(dir, "Makefile")
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s is not a kernel tree: %w", dir, err)
	}
	defer f.Close()
	vars := map[string]string{}
	sc := bufio.NewScanner(f)
	for n := 0; n < 40 && sc.Scan(); n++ {
		name, value, ok := strings.Cut(sc.Text(), "=")
		if ok {
			vars[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		return "", err
	}
	if vars["VERSION"] == "" || vars["PATCHLEVEL"] == "" {
		return "", fmt.Errorf("%s is not a kernel tree: its Makefile has no VERSION and PATCHLEVEL", dir)
	}
	v := vars["VERSION"] + "." + vars["PATCHLEVEL"]
	if s := vars["SUBLEVEL"]; s != "" {
		v += "." + s
	}
	v += vars["EXTRAVERSION"]
	if _, err := version.NewVersion(v); err != nil {
		return "", fmt.Errorf("%s: kernel version %q: %w", path, v, err)
	}
	return v, nil
}
