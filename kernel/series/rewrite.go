// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// Entry is a line of the series file that names a patch, with what people
// wrote around it.
type Entry struct {
	Name  string
	Range kver.Range
	// Line is the line as it stands, Above the comment lines on top of it.
	Line  string
	Above []string
}

// split takes the file apart: the head, which is all above the first patch;
// the entries; and what is below the last one.
func (s *Series) split() (head []string, entries []Entry, foot []string) {
	at := map[int]Patch{}
	for _, p := range s.Patches {
		at[p.Line-1] = p
	}
	var above []string
	for i, l := range s.lines {
		p, ok := at[i]
		if !ok {
			above = append(above, l)
			continue
		}
		if len(entries) == 0 {
			// What is said on top of the file is of the whole of it.
			head, above = above, nil
		}
		entries = append(entries, Entry{Name: p.Name, Range: p.Range, Line: l, Above: above})
		above = nil
	}
	return head, entries, above
}

// Entries are the lines that name patches, in order.
func (s *Series) Entries() []Entry {
	_, entries, _ := s.split()
	return entries
}

// Rewrite is the series file with other entries; head and foot stay.
func (s *Series) Rewrite(entries []Entry) []byte {
	head, _, foot := s.split()
	lines := head
	for _, e := range entries {
		lines = append(append(lines, e.Above...), e.Line)
	}
	lines = append(lines, foot...)
	return []byte(strings.Join(lines, "\n") + "\n")
}
