// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"fmt"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// Size is how many lines a patch adds and removes.
func (p Patch) Size() (added, removed int, err error) {
	files, _, err := gitdiff.Parse(bytes.NewReader(p.Content))
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.Name, err)
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
