// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Print writes the grid of patches and trees, the first bad patch of each tree,
// and what was found.
func (r *Results) Print(w io.Writer) {
	rows := [][]string{{"patch"}}
	for _, t := range r.Trees {
		rows[0] = append(rows[0], t.Tree)
	}
	for i, p := range r.Patches {
		row := []string{strings.TrimSuffix(p, ".patch")}
		for _, t := range r.Trees {
			row = append(row, string(t.Cells[i].Verdict))
		}
		rows = append(rows, row)
	}
	if slices.ContainsFunc(r.Trees, func(t *Tree) bool { return t.Whole.Verdict != None }) {
		row := []string{seriesRow + " as a whole"}
		for _, t := range r.Trees {
			row = append(row, string(t.Whole.Verdict))
		}
		rows = append(rows, row)
	}
	report.Grid(w, rows)

	fmt.Fprintln(w)
	for _, t := range r.Trees {
		switch c := t.first(); {
		case c != nil:
			fmt.Fprintf(w, "%s: first bad: %s: %s\n", t.Tree, c.Patch, c.Verdict)
		case t.verdict() == None:
			fmt.Fprintf(w, "%s: nothing was looked at\n", t.Tree)
		default:
			fmt.Fprintf(w, "%s: nothing found\n", t.Tree)
		}
	}
	for _, t := range r.Trees {
		for _, c := range t.all() {
			c.print(w, t.Tree)
		}
	}
}

func (c *Cell) print(w io.Writer, tree string) {
	if c.Verdict == Error {
		fmt.Fprintf(w, "\n%s: %s: error: %s\n", tree, c.Patch, report.Indent(c.Reason))
	}
	for _, f := range c.Findings {
		fmt.Fprintf(w, "\n%s: %s: %s: %s\n", tree, c.Patch, f.Tool, report.Indent(f.Text))
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "\n%s: %s: note: %s\n", tree, c.Patch, report.Indent(n))
	}
}
