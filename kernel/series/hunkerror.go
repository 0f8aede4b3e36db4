// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// HunkError says which hunk of which patch does not apply, and what the tree
// has in that place.
type HunkError struct {
	Patch, File string
	// Hunk counts from 1, of Hunks.
	Hunk, Hunks int
	// Header is the hunk's @@ line.
	Header string
	// Line is where the tree comes nearest to the hunk, from 1.
	Line int
	// Numbers are the numbers of the lines in Tree, 0 for one that an
	// earlier hunk of the patch made.
	Numbers []int
	// Tree are the tree's lines there, Want the patch's for the same place.
	Tree, Want []string
	// Applied is true when the tree has there what the hunk would make.
	Applied bool
	// CRLF is true when nothing is wrong but the patch's line ends.
	CRLF bool
}

func newHunkError(patch string, f *gitdiff.File, i int, img *image, want, put []string, expect int) *HunkError {
	frag := f.TextFragments[i]
	e := &HunkError{
		Patch: patch, File: f.OldName, Hunk: i + 1, Hunks: len(f.TextFragments),
		Header: strings.TrimSpace(frag.Header()), Want: trimEnds(want),
	}
	if e.File == "" {
		e.File = f.NewName
	}
	e.Applied = len(put) > len(want) && img.find(put, expect, false, false) >= 0
	if bare := withoutCR(want); bare != nil {
		e.CRLF = img.find(bare, expect, false, false) >= 0
	}
	lines := img.lines
	at := nearest(lines, want, expect)
	end := min(at+len(want), len(lines))
	e.Tree, e.Numbers = trimEnds(lines[at:end]), img.number[at:end]
	for _, n := range e.Numbers {
		if n > 0 {
			e.Line = n
			break
		}
	}
	return e
}

// withoutCR is nil when no line ends in CRLF.
func withoutCR(lines []string) []string {
	var out []string
	some := false
	for _, l := range lines {
		bare := strings.TrimSuffix(l, "\r\n")
		if bare != l {
			some, bare = true, bare+"\n"
		}
		out = append(out, bare)
	}
	if !some {
		return nil
	}
	return out
}

// nearest is where lines and want have most in common; of equals, the place
// nearest to expect.
func nearest(lines, want []string, expect int) int {
	best, score := min(expect, max(len(lines)-1, 0)), 0
	for at := range lines {
		n := 0
		for i, w := range want {
			// Blank lines and lone braces match everywhere and say nothing.
			if at+i < len(lines) && lines[at+i] == w && len(strings.TrimSpace(w)) > 1 {
				n++
			}
		}
		if n > score || (n == score && n > 0 && abs(at-expect) < abs(best-expect)) {
			best, score = at, n
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

func trimEnds(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.TrimRight(l, "\n")
	}
	return out
}

func (e *HunkError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s does not apply: hunk %d of %d in %s\n  %s", e.Patch, e.Hunk, e.Hunks, e.File, e.Header)
	if e.CRLF {
		b.WriteString("\n  the patch has CRLF line ends there, the tree's file LF")
		return b.String()
	}
	if e.Applied {
		b.WriteString("\n  what the hunk makes is in the tree already")
	}
	if len(e.Tree) == 0 {
		fmt.Fprintf(&b, "\n  the tree's file has no lines there")
	} else {
		fmt.Fprintf(&b, "\n  the tree has, from line %d (! where it differs from what the hunk expects):", e.Line)
	}
	for i, l := range e.Tree {
		mark := " "
		if i >= len(e.Want) || e.Want[i] != l {
			mark = "!"
		}
		number := "+"
		if e.Numbers[i] > 0 {
			number = strconv.Itoa(e.Numbers[i])
		}
		fmt.Fprintf(&b, "\n  %s %5s  %s", mark, number, l)
		if mark == "!" && i < len(e.Want) {
			fmt.Fprintf(&b, "\n    hunk:  %s", e.Want[i])
		}
	}
	return b.String()
}
