// SPDX-License-Identifier: GPL-2.0-only

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Table writes the verdicts as tests by cells, each with its seconds.
func (r *Results) Table(w io.Writer) {
	var names []string
	for _, c := range r.Cells {
		for _, t := range c.Tests {
			if !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	slices.Sort(names)

	rows := [][]string{{"test"}}
	for _, c := range r.Cells {
		head := c.Tree
		if c.Flavor != "plain" {
			head += "/" + c.Flavor
		}
		rows[0] = append(rows[0], head)
	}
	for _, n := range names {
		row := []string{n}
		for _, c := range r.Cells {
			row = append(row, tableCell(c, n))
		}
		rows = append(rows, row)
	}
	total := []string{"verdict"}
	for _, c := range r.Cells {
		total = append(total, string(c.Verdict))
	}
	rows = append(rows, total)

	Grid(w, rows, len(rows)-2)
}

// Grid writes rows of the same length in columns, with a rule below the first row
// and below those of the given numbers.
func Grid(w io.Writer, rows [][]string, ruled ...int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, f := range row {
			widths[i] = max(widths[i], len(f))
		}
	}
	for i, row := range rows {
		var b strings.Builder
		for j, f := range row {
			fmt.Fprintf(&b, "%-*s  ", widths[j], f)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
		if i == 0 || slices.Contains(ruled, i) {
			fmt.Fprintln(w, strings.Repeat("-", sum(widths)+2*(len(widths)-1)))
		}
	}
}

func tableCell(c Cell, name string) string {
	for _, t := range c.Tests {
		if t.Name == name {
			return fmt.Sprintf("%s %.1fs", t.Verdict, t.Seconds)
		}
	}
	return "-"
}

func sum(ns []int) (s int) {
	for _, n := range ns {
		s += n
	}
	return s
}

// Failures writes what is not green, with the place to look and the command
// that does it again.
func (r *Results) Failures(w io.Writer) {
	for _, c := range r.Cells {
		cell := c.Tree + "/" + c.Flavor
		for _, s := range c.Stages {
			if s.Error != "" {
				fmt.Fprintf(w, "\n%s: stage %s\n", cell, Indent(s.Error))
			}
		}
		for _, t := range c.Tests {
			if t.Verdict == Pass {
				continue
			}
			fmt.Fprintf(w, "\n%s: %s: %s", cell, t.Name, t.Verdict)
			if t.Reason != "" {
				fmt.Fprintf(w, ": %s", Indent(t.Reason))
			}
			fmt.Fprintln(w)
			for _, st := range t.Subtests {
				if st.Verdict == Fail {
					fmt.Fprintf(w, "  not ok %s\n", st.Name)
				}
			}
			for _, s := range t.Splats {
				fmt.Fprintf(w, "  splat: %s\n", s.Title)
			}
			if t.Verdict == Skip {
				continue
			}
			fmt.Fprintf(w, "  output:  %s\n", t.Log)
			if t.Console != "" {
				fmt.Fprintf(w, "  console: %s\n", t.Console)
			}
			if t.Repro != "" {
				fmt.Fprintf(w, "  again:   %s\n", t.Repro)
			}
		}
	}
}

// Indent puts the lines of a text behind its first under that one.
func Indent(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }
