// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Symbol is one in which two configurations differ. A value is "" where a
// configuration says nothing of it.
type Symbol struct{ Name, Good, Bad string }

func (s Symbol) String() string {
	value := func(v string) string {
		if v == "" {
			return "unsaid"
		}
		return v
	}
	return fmt.Sprintf("CONFIG_%s: good has it %s, bad %s", s.Name, value(s.Good), value(s.Bad))
}

// Differ are the symbols in which two configurations differ, by name.
func Differ(good, bad map[string]string) []Symbol {
	var out []Symbol
	for name, g := range good {
		if b := bad[name]; b != g {
			out = append(out, Symbol{name, g, b})
		}
	}
	for name, b := range bad {
		if _, both := good[name]; !both && b != "" {
			out = append(out, Symbol{name, "", b})
		}
	}
	slices.SortFunc(out, func(a, b Symbol) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Keys of the ends.
const (
	NoSymbol   = "none"
	AllSymbols = "all"
)

// SymbolsPoint is the good configuration with some of the differing symbols as
// the bad one has them.
func SymbolsPoint(part, all []Symbol) Point {
	switch len(part) {
	case 0:
		return Point{Key: NoSymbol, Title: "the good configuration"}
	case len(all):
		return Point{Key: AllSymbols, Title: "the bad configuration"}
	}
	names := NamesOf(part)
	title := strings.Join(names, ",")
	if len(names) > 4 {
		title = fmt.Sprintf("%s,... (%d)", strings.Join(names[:3], ","), len(names))
	}
	sum := sha256.Sum256([]byte(strings.Join(names, ",")))
	return Point{Key: hex.EncodeToString(sum[:6]), Title: fmt.Sprintf("%d of %d symbols: %s", len(part), len(all), title)}
}

// NamesOf are the symbols' names.
func NamesOf(part []Symbol) []string {
	var names []string
	for _, s := range part {
		names = append(names, s.Name)
	}
	return names
}

// Guilty are the symbols that flip the verdict.
type Guilty struct {
	Minimum[Symbol]
	// Lost are those of the bad configuration that kconfig does not let be as
	// it wants them, not even in that configuration.
	Lost []Symbol
}

// FindSymbols finds the smallest part of the differing symbols that flips the
// verdict. judge judges the good configuration with a part of them changed.
func FindSymbols(ctx context.Context, all []Symbol, judge func(ctx context.Context, p Point, part []Symbol) (Result, error), focus func(Result)) (Guilty, error) {
	if len(all) == 0 {
		return Guilty{}, errors.New("both configurations say the same of every symbol")
	}
	end := func(ctx context.Context, p Point) (Result, error) {
		if p.Key == NoSymbol {
			return judge(ctx, p, nil)
		}
		return judge(ctx, p, all)
	}
	if err := Ends(ctx, end, SymbolsPoint(nil, all), SymbolsPoint(all, all), focus); err != nil {
		return Guilty{}, err
	}
	verdict := func(ctx context.Context, part []Symbol) (Verdict, error) {
		r, err := judge(ctx, SymbolsPoint(part, all), part)
		return r.Verdict, err
	}
	bad, err := judge(ctx, SymbolsPoint(all, all), all)
	if err != nil {
		return Guilty{}, err
	}
	var g Guilty
	var live []Symbol
	for _, s := range all {
		if slices.Contains(bad.Lost, s.Name) {
			g.Lost = append(g.Lost, s)
		} else {
			live = append(live, s)
		}
	}
	from := all
	if len(g.Lost) > 0 && len(live) > 0 {
		// They should not matter, but that is for the kernel to say.
		v, err := verdict(ctx, live)
		if err != nil {
			return g, err
		}
		if v == Bad {
			from = live
		}
	}
	g.Minimum, err = Minimize(ctx, from, verdict)
	return g, err
}
