// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Size is how many lines a patch adds and removes.
func (p Patch) Size() (added, removed int, err error) {
	files, err := p.Files()
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		for _, frag := range f.TextFragments {
			added += int(frag.LinesAdded)
			removed += int(frag.LinesDeleted)
		}
	}
	return added, removed, nil
}

// For returns those of the kernel versions that get the patch: in its range,
// and supported by the series as a whole.
func (s *Series) For(p Patch, versions []string) ([]string, error) {
	var out []string
	for _, v := range versions {
		in, err := p.Range.Has(v)
		if err != nil {
			return nil, err
		}
		if in && s.Check(v) == nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// Stat is how many lines a patch adds to each file and removes from it.
func (p Patch) Stat() (string, error) {
	files, err := p.Files()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for _, f := range files {
		var added, removed int64
		for _, frag := range f.TextFragments {
			added += frag.LinesAdded
			removed += frag.LinesDeleted
		}
		name := f.NewName
		if f.IsDelete {
			name = f.OldName
		}
		fmt.Fprintf(tw, " %s\t| +%d -%d\n", name, added, removed)
	}
	err = tw.Flush()
	return strings.TrimRight(b.String(), "\n"), err
}
