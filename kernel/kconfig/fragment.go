// SPDX-License-Identifier: GPL-2.0-only

// Package kconfig turns config fragments into a kernel configuration and
// proves, symbol by symbol, that nothing of them got lost on the way.
//
// Fragments are written as for scripts/kconfig/merge_config.sh, and a symbol
// may carry a range of kernel versions in a trailing comment:
//
//	CONFIG_NF_TABLES=m
//	# CONFIG_SLUB_TINY is not set
//	CONFIG_NFT_COUNTER=m      # only: < 5.17
//	CONFIG_PSAMPLE=m          # optional: < 6.1
//
// "only" asks for the symbol in that range and nowhere else. "optional" asks
// for it everywhere and forgives its loss in that range; "# optional" alone
// forgives it in every version.
package kconfig

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// Request is one symbol that a fragment wants set.
type Request struct {
	// Symbol is the name without CONFIG_.
	Symbol string
	// Value is y, m, n, a number or a quoted string.
	Value string
	// Only is the range in which the symbol is wanted.
	Only kver.Range
	// Optional is set when the symbol may get lost in Forgiven.
	Optional bool
	Forgiven kver.Range
	// File and Line are where it is asked for.
	File string
	Line int
}

// Where is file:line.
func (r Request) Where() string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

func (r Request) String() string { return line(r.Symbol, r.Value) }

func line(symbol, value string) string {
	if value == "n" {
		return "# CONFIG_" + symbol + " is not set"
	}
	return "CONFIG_" + symbol + "=" + value
}

var (
	setRE   = regexp.MustCompile(`^CONFIG_([A-Za-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^\s#"]+)\s*(#.*)?$`)
	unsetRE = regexp.MustCompile(`^# CONFIG_([A-Za-z0-9_]+) is not set\s*(#.*)?$`)
)

// ReadFragment reads a fragment file. Errors name file and line.
func ReadFragment(path string) ([]Request, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseFragment(path, raw)
}

func parseFragment(path string, raw []byte) ([]Request, error) {
	var out []Request
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; sc.Scan(); n++ {
		text := strings.TrimSpace(sc.Text())
		r := Request{File: path, Line: n}
		comment := ""
		if m := setRE.FindStringSubmatch(text); m != nil {
			r.Symbol, r.Value, comment = m[1], m[2], m[3]
		} else if m := unsetRE.FindStringSubmatch(text); m != nil {
			r.Symbol, r.Value, comment = m[1], "n", m[2]
		} else if text == "" || strings.HasPrefix(text, "#") {
			continue
		} else {
			return nil, fmt.Errorf("%s: %q is not like CONFIG_X=y or \"# CONFIG_X is not set\"", r.Where(), text)
		}
		if err := r.mark(comment); err != nil {
			return nil, fmt.Errorf("%s: CONFIG_%s: %w", r.Where(), r.Symbol, err)
		}
		out = append(out, r)
	}
	return out, sc.Err()
}

// mark reads the trailing comment. Any other comment is for people.
func (r *Request) mark(comment string) (err error) {
	word, rest, ranged := strings.Cut(strings.TrimSpace(strings.TrimLeft(comment, "# \t")), ":")
	switch strings.TrimSpace(word) {
	case "only":
		if !ranged {
			return fmt.Errorf("\"only\" needs a version range, as in: # only: < 5.17")
		}
		r.Only, err = kver.ParseRange(rest)
	case "optional":
		r.Optional = true
		if ranged {
			r.Forgiven, err = kver.ParseRange(rest)
		}
	}
	return err
}

// Wanted are the requests that count for a kernel version: those out of their
// range drop out, and of several for one symbol the last one stays, because a
// later fragment overrides an earlier one.
func Wanted(all []Request, version string) (want, ignored []Request, err error) {
	last := map[string]int{}
	var in []Request
	for _, r := range all {
		ok, err := r.Only.Has(version)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			ignored = append(ignored, r)
			continue
		}
		last[r.Symbol] = len(in)
		in = append(in, r)
	}
	for i, r := range in {
		if last[r.Symbol] == i {
			want = append(want, r)
		}
	}
	return want, ignored, nil
}

// Values are the symbols of a .config file with their values; a symbol that
// is not set, or not there, reads as n.
type Values map[string]string

// Get is the symbol's value, n when it has none.
func (v Values) Get(symbol string) string {
	if val, ok := v[symbol]; ok {
		return val
	}
	return "n"
}

// ReadConfig reads a .config file.
func ReadConfig(path string) (Values, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v := Values{}
	for _, l := range strings.Split(string(raw), "\n") {
		if m := setRE.FindStringSubmatch(l); m != nil {
			v[m[1]] = m[2]
		} else if m := unsetRE.FindStringSubmatch(l); m != nil {
			v[m[1]] = "n"
		}
	}
	return v, nil
}
