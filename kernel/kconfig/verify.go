// SPDX-License-Identifier: GPL-2.0-only

package kconfig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Reasons for which a symbol is not what a fragment asked for.
const (
	// Unmet: the tree has the symbol, and something it depends on is missing.
	Unmet = "dependency unmet"
	// Absent: this version of the kernel has no such symbol.
	Absent = "absent in this version"
	// Overruled: its dependencies are met, and kconfig still chose another
	// value: a select raised it, a choice took another member, or it has no
	// prompt and cannot be set by hand.
	Overruled = "overruled"
)

// Loss is a request that did not survive.
type Loss struct {
	Symbol string `json:"symbol"`
	Want   string `json:"want"`
	Got    string `json:"got"`
	Where  string `json:"where"`
	Reason string `json:"reason"`
	// DependsOn is what the symbol depends on, as the tree's Kconfig says.
	DependsOn string `json:"depends_on,omitempty"`
	// Missing are those of its dependencies that the configuration lacks.
	Missing []string `json:"missing,omitempty"`
}

func (l Loss) String() string {
	s := fmt.Sprintf("CONFIG_%s: wanted %s, got %s (%s): %s", l.Symbol, l.Want, l.Got, l.Where, l.Reason)
	if l.DependsOn != "" {
		s += "; depends on " + l.DependsOn
	}
	if len(l.Missing) > 0 {
		s += "; not met: " + strings.Join(l.Missing, ", ")
	}
	return s
}

// Report is the outcome of a verification.
type Report struct {
	Version string `json:"version"`
	// Kept are the symbols that came out as asked for.
	Kept []string `json:"kept"`
	// Ignored are those that no fragment wants in this version.
	Ignored []string `json:"ignored,omitempty"`
	// Forgiven got lost, and their fragment says that they may.
	Forgiven []Loss `json:"forgiven,omitempty"`
	// Lost got lost, and must not.
	Lost []Loss `json:"lost,omitempty"`
}

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "config for %s: %d symbols kept, %d not for this version, %d lost but optional, %d lost",
		r.Version, len(r.Kept), len(r.Ignored), len(r.Forgiven), len(r.Lost))
	for _, l := range r.Forgiven {
		b.WriteString("\n  optional: " + l.String())
	}
	for _, l := range r.Lost {
		b.WriteString("\n  lost: " + l.String())
	}
	return b.String()
}

// ReadReport reads the report of a configuration's entry in the store.
func ReadReport(entry string) (*Report, error) {
	raw, err := os.ReadFile(filepath.Join(entry, ReportFile))
	if err != nil {
		return nil, err
	}
	r := &Report{}
	return r, json.Unmarshal(raw, r)
}

// LostSince are the symbols that came out as asked for in an earlier report
// and do not any more, whether or not they may get lost.
func (r *Report) LostSince(before *Report) []Loss {
	var out []Loss
	for _, l := range slices.Concat(r.Lost, r.Forgiven) {
		if slices.Contains(before.Kept, l.Symbol) {
			out = append(out, l)
		}
	}
	return out
}

// LostError lists every symbol that got lost.
type LostError struct {
	Version string
	Lost    []Loss
}

func (e *LostError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d config symbols got lost in kernel %s; mark them \"# only:\" or \"# optional:\" if that is right", len(e.Lost), e.Version)
	for _, l := range e.Lost {
		b.WriteString("\n  " + l.String())
	}
	return b.String()
}

// Verify compares what was asked for with what came out. A value has to be the
// very one: y for m is a loss, because M= builds no built-in object, and m for
// y is one, because nobody loads it.
func Verify(want, ignored []Request, got Values, version string) *Report {
	rep := &Report{Version: version, Kept: []string{}}
	for _, r := range ignored {
		rep.Ignored = append(rep.Ignored, r.Symbol)
	}
	for _, r := range want {
		v := got.Get(r.Symbol)
		if v == r.Value {
			rep.Kept = append(rep.Kept, r.Symbol)
			continue
		}
		l := Loss{Symbol: r.Symbol, Want: r.Value, Got: v, Where: r.Where(), Reason: Absent}
		ok, err := r.Forgiven.Has(version)
		if r.Optional && err == nil && ok {
			rep.Forgiven = append(rep.Forgiven, l)
		} else {
			rep.Lost = append(rep.Lost, l)
		}
	}
	return rep
}

// Explain finds out, from the tree's Kconfig files, why symbols got lost.
func (r *Report) Explain(tree *KTree, got Values) {
	for _, list := range [][]Loss{r.Forgiven, r.Lost} {
		for i := range list {
			list[i].explain(tree, got)
		}
	}
}

func (l *Loss) explain(tree *KTree, got Values) {
	defs := tree.Symbols[l.Symbol]
	if len(defs) == 0 {
		l.Reason = Absent
		return
	}
	l.Reason = Overruled
	// A symbol may be defined several times; the definition that lacks the
	// least is the one to talk of.
	for i, d := range defs {
		missing := d.missing(got)
		if i == 0 || len(missing) < len(l.Missing) {
			l.DependsOn, l.Missing = d.all(), missing
		}
	}
	if len(l.Missing) > 0 {
		l.Reason = Unmet
		return
	}
	prompt := false
	for _, d := range defs {
		prompt = prompt || d.Prompt
	}
	switch by := tree.selectors(l.Symbol, got); {
	case !prompt:
		l.Missing = []string{"it has no prompt, only a select sets it (by " + orNone(tree.Selects[l.Symbol]) + ")"}
	case len(by) > 0:
		l.Missing = []string{"selected by " + strings.Join(by, ", ")}
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	if len(list) > 5 {
		list = append(append([]string{}, list[:5]...), "...")
	}
	return strings.Join(list, ", ")
}
