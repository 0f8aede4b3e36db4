// SPDX-License-Identifier: GPL-2.0-only

package mutants

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Schema names the format of mutants.json.
const Schema = "nftvm-mutants-1"

// JSONFile is the name of the results in a run's directory.
const JSONFile = "mutants.json"

// The verdicts of a mutant besides report.Error.
const (
	Killed   report.Verdict = "killed"
	Survived report.Verdict = "survived"
)

// Results is one run.
type Results struct {
	Schema      string      `json:"schema"`
	Started     time.Time   `json:"started"`
	Seconds     float64     `json:"seconds"`
	Interrupted bool        `json:"interrupted,omitempty"`
	Host        report.Host `json:"host"`
	Mutants     []Result    `json:"mutants"`
}

// Result is one mutant on one tree.
type Result struct {
	Name   string `json:"name"`
	Tree   string `json:"tree"`
	Flavor string `json:"flavor"`
	Test   string `json:"test"`
	// Verdict is killed, survived or error; an error is a mutant that does
	// not apply or build, or a test that is no judge.
	Verdict report.Verdict `json:"verdict"`
	// Reason says by what it was killed, or why not.
	Reason string `json:"reason"`
	// BuildSeconds and TestSeconds are wall clock.
	BuildSeconds float64 `json:"build_seconds"`
	TestSeconds  float64 `json:"test_seconds"`
	Log          string  `json:"log,omitempty"`
	Console      string  `json:"console,omitempty"`
	Repro        string  `json:"repro,omitempty"`
}

// decide turns the test's verdict into the mutant's. Killed by anything but one
// of the subtests in red it is an error: either its head is wrong, or what was
// written for it lets it pass.
func (r *Result) decide(t report.Test, red []string) {
	r.TestSeconds, r.Log, r.Console, r.Repro = t.Seconds, t.Log, t.Console, t.Repro
	switch t.Verdict {
	case report.Error:
		r.Verdict, r.Reason = report.Error, t.Reason
	case report.Pass:
		r.Verdict, r.Reason = Survived, t.Name+" passes with it"
	case report.Skip:
		// Not a kill: a test that does not run notices nothing.
		r.Verdict, r.Reason = Survived, t.Name+" skips itself with it: "+t.Reason
	default:
		r.Verdict = Killed
		var by []string
		for _, s := range t.Subtests {
			if s.Verdict == report.Fail {
				by = append(by, s.Name)
			}
		}
		switch {
		case len(by) > 0:
			r.Reason = "subtest " + strings.Join(by, ", ")
		case len(t.Splats) > 0:
			r.Reason = "splat: " + t.Splats[0].Title
		default:
			r.Reason = string(t.Verdict) + ": " + t.Reason
		}
		if len(red) > 0 && !slices.ContainsFunc(by, func(s string) bool {
			// A script that runs its subtests in two modes says which
			// before their names: "flag: order".
			_, name, ok := strings.Cut(s, ": ")
			return slices.Contains(red, s) || ok && slices.Contains(red, name)
		}) {
			r.Verdict, r.Reason = report.Error, "its head names subtest "+strings.Join(red, ", ")+", but it was noticed by "+r.Reason
		}
	}
}

func (r *Results) add(res Result) {
	r.Mutants = append(r.Mutants, res)
	slices.SortFunc(r.Mutants, func(a, b Result) int {
		if c := strings.Compare(a.Tree, b.Tree); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// Count is how many mutants have the verdict.
func (r *Results) Count(v report.Verdict) (n int) {
	for _, m := range r.Mutants {
		if m.Verdict == v {
			n++
		}
	}
	return n
}

// ExitCode is what the run comes to: one that judged nothing is no success.
func (r *Results) ExitCode() int {
	switch {
	case r.Count(report.Error) > 0, r.Interrupted, len(r.Mutants) == 0:
		return report.ExitHarness
	case r.Count(Survived) > 0:
		return report.ExitFail
	}
	return report.ExitPass
}

// Table writes a line per mutant.
func (r *Results) Table(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "mutant\ttree\ttest\tverdict\tby")
	for _, m := range r.Mutants {
		verdict := string(m.Verdict)
		if m.Verdict == Survived {
			verdict = "SURVIVED"
		}
		by, _, _ := strings.Cut(m.Reason, "\n")
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Tree, strings.TrimPrefix(m.Test, suite), verdict, by)
	}
	_ = tw.Flush()
}

// write replaces the results of a directory.
func (r *Results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return report.WriteFile(filepath.Join(dir, JSONFile), append(raw, '\n'))
}
