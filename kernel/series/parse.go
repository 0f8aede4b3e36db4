// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// Files are the changes of the patch, with paths as the tree has them. A plain
// diff, without git's header, has a/ and b/ before them, as patch -p1 wants.
func (p Patch) Files() ([]*gitdiff.File, error) {
	files, _, err := gitdiff.Parse(bytes.NewReader(p.Content))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read as a patch: %w", p.Name, err)
	}
	for _, f := range files {
		f.OldName, f.NewName = inTree(f.OldName), inTree(f.NewName)
	}
	return files, nil
}

// inTree takes the first element off: no kernel tree has a directory of such
// a name, and of a plain diff both names may come out as the second.
func inTree(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "a/"), "b/")
}
