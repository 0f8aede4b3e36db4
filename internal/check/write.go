// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// What Write makes in the directory of a check.
const (
	JSONFile = "check.json"
	KTAPFile = "check.ktap"
	// B4Dir has a file for each patch.
	B4Dir = "b4"
)

// Write puts every rendering into dir.
func (r *Results) Write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, B4Dir), 0o755); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(dir, JSONFile), r); err != nil {
		return err
	}
	if err := report.WriteFile(filepath.Join(dir, KTAPFile), r.ktap()); err != nil {
		return err
	}
	for i, p := range r.Patches {
		// A list may name patches in directories below its own.
		name := strings.ReplaceAll(strings.TrimSuffix(p, ".patch"), "/", "-") + ".json"
		if err := writeJSON(filepath.Join(dir, B4Dir, name), r.b4(i)); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return report.WriteFile(path, append(raw, '\n'))
}

// ktap renders trees as tests, patches as their subtests.
func (r *Results) ktap() []byte {
	var out report.Results
	for _, t := range r.Trees {
		cell := report.Cell{Tree: t.Tree, Flavor: "check", Verdict: t.verdict().report()}
		if t.FirstBad != "" {
			cell.Reason = "first bad: " + t.FirstBad
		} else if t.verdict() == None {
			cell.Reason = notReached
		}
		for _, c := range t.all() {
			test := report.Test{Name: c.Patch, Verdict: c.Verdict.report(), Reason: c.Reason}
			for _, tool := range tools {
				texts := c.texts(tool.name)
				if !slices.Contains(c.Ran, tool.name) && len(texts) == 0 {
					continue
				}
				sub := report.Subtest{Name: tool.name, Verdict: report.Pass}
				if len(texts) > 0 {
					sub.Verdict, sub.Reason = report.Fail, strings.Join(texts, "\n")
				}
				test.Subtests = append(test.Subtests, sub)
			}
			cell.Tests = append(cell.Tests, test)
		}
		out.Cells = append(out.Cells, cell)
	}
	return out.KTAP()
}

// report is the verdict where there are no finer words.
func (v Verdict) report() report.Verdict {
	switch v {
	case Pass:
		return report.Pass
	case None:
		return report.Skip
	case Error:
		return report.Error
	}
	return report.Fail
}

// texts are a tool's findings.
func (c *Cell) texts(tool string) (out []string) {
	for _, f := range c.Findings {
		if f.Tool == tool {
			out = append(out, f.Text)
		}
	}
	return out
}

// The statuses that b4 knows.
const (
	b4Pass = "pass"
	b4Warn = "warn"
	b4Fail = "fail"
)

// b4Check is what b4 reads of a check command, one for each tool and patch.
type b4Check struct {
	Tool    string `json:"tool"`
	Status  string `json:"status"`
	Summary string `json:"summary"`
	Details string `json:"details,omitempty"`
}

// b4 is what the tools say of the i-th patch, over all trees.
func (r *Results) b4(i int) []b4Check {
	checks := []b4Check{}
	for _, tool := range tools {
		var good, bad, details []string
		for _, t := range r.Trees {
			c := t.Cells[i]
			texts := c.texts(tool.name)
			switch {
			case len(texts) > 0:
				bad = append(bad, fmt.Sprintf("%s: %s", t.Tree, briefly(tool.name, len(texts))))
				for _, text := range texts {
					details = append(details, t.Tree+": "+text)
				}
			case slices.Contains(c.Ran, tool.name):
				good = append(good, t.Tree)
			}
		}
		check := b4Check{Tool: "nftvm-" + tool.name, Status: b4Pass, Summary: "fine on " + strings.Join(good, ", ")}
		if len(bad) > 0 {
			check.Status, check.Summary, check.Details = tool.b4, strings.Join(bad, ", "), strings.Join(details, "\n")
		} else if len(good) == 0 {
			continue
		}
		checks = append(checks, check)
	}
	return checks
}

// briefly says in few words that a tool found something.
func briefly(tool string, n int) string {
	switch tool {
	case "apply":
		return "does not apply"
	case "build":
		return "does not build"
	}
	return fmt.Sprintf("%d new", n)
}
