// SPDX-License-Identifier: GPL-2.0-only

package kconfig

import (
	"strconv"
	"strings"
)

// Kconfig's three values.
const (
	no  = 0
	mod = 1
	yes = 2
)

// conjuncts splits an expression at the "&&" that are not within parentheses
// and not below an "||", which binds weaker.
func conjuncts(expr string) []string {
	if i := splitTop(expr, "||"); len(i) > 1 {
		return []string{strings.TrimSpace(expr)}
	}
	var out []string
	for _, part := range splitTop(expr, "&&") {
		part = strings.TrimSpace(part)
		if in, ok := unwrap(part); ok {
			out = append(out, conjuncts(in)...)
		} else if part != "" {
			out = append(out, part)
		}
	}
	return out
}

func unwrap(s string) (string, bool) {
	if !strings.HasPrefix(s, "(") || !strings.HasSuffix(s, ")") {
		return s, false
	}
	depth := 0
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 && i != len(s)-1 {
				return s, false
			}
		}
	}
	return s[1 : len(s)-1], true
}

func splitTop(s, sep string) []string {
	var out []string
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '(':
			depth++
		case s[i] == ')':
			depth--
		case depth == 0 && strings.HasPrefix(s[i:], sep):
			out = append(out, s[start:i])
			i += len(sep) - 1
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// eval computes a dependency expression. What it cannot read ("$(...)" calls
// of the preprocessor) counts as met: it is not ours to blame.
func eval(expr string, got Values) int {
	expr = strings.TrimSpace(expr)
	if or := splitTop(expr, "||"); len(or) > 1 {
		v := no
		for _, e := range or {
			v = max(v, eval(e, got))
		}
		return v
	}
	if and := splitTop(expr, "&&"); len(and) > 1 {
		v := yes
		for _, e := range and {
			v = min(v, eval(e, got))
		}
		return v
	}
	if in, ok := unwrap(expr); ok {
		return eval(in, got)
	}
	if strings.HasPrefix(expr, "$") {
		return yes
	}
	if rest, ok := strings.CutPrefix(expr, "!"); ok && !strings.HasPrefix(rest, "=") {
		return yes - eval(rest, got)
	}
	for _, op := range []string{"!=", ">=", "<=", "=", ">", "<"} {
		if l, r, ok := strings.Cut(expr, op); ok {
			if compare(value(l, got), value(r, got), op) {
				return yes
			}
			return no
		}
	}
	switch value(expr, got) {
	case "y":
		return yes
	case "m":
		return mod
	}
	return no
}

// value is a symbol's value, or a constant's own.
func value(s string, got Values) string {
	s = strings.TrimSpace(s)
	if s == "y" || s == "m" || s == "n" {
		return s
	}
	if len(s) > 0 && (s[0] == '"' || s[0] == '\'') {
		return strings.Trim(s, `"'`)
	}
	if _, err := strconv.ParseInt(s, 0, 64); err == nil {
		return s
	}
	return strings.Trim(got.Get(s), `"`)
}

func compare(a, b, op string) bool {
	x, xerr := strconv.ParseInt(a, 0, 64)
	y, yerr := strconv.ParseInt(b, 0, 64)
	if xerr != nil || yerr != nil {
		x, y = int64(strings.Compare(a, b)), 0
	}
	switch op {
	case "=":
		return x == y
	case "!=":
		return x != y
	case ">":
		return x > y
	case "<":
		return x < y
	case ">=":
		return x >= y
	}
	return x <= y
}
