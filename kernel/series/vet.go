// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// Vet says in a sentence what is wrong with a patch whatever the tree: it
// changes nothing, leaves the tree, lacks the data of a binary file, or its
// line ends are not those of a patch.
func (p Patch) Vet() error {
	if p.crlf() {
		return fmt.Errorf("%s has CRLF line ends, a kernel tree has LF; convert it, for instance with dos2unix", p.Name)
	}
	files, err := p.Files()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s changes no file", p.Name)
	}
	for _, f := range files {
		if name, err := vetFile(f); err != nil {
			return fmt.Errorf("%s: %s: %w", p.Name, name, err)
		}
	}
	return nil
}

// Diff is the patch without the words before its first file.
func (p Patch) Diff() ([]byte, error) {
	_, words, err := gitdiff.Parse(bytes.NewReader(p.Content))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read as a patch: %w", p.Name, err)
	}
	return bytes.TrimPrefix(p.Content, []byte(words)), nil
}

// crlf tells whether the patch as a file was converted. Hunks alone may have
// such lines, of a file that has them.
func (p Patch) crlf() bool {
	for line := range bytes.Lines(p.Content) {
		if bytes.HasPrefix(line, []byte("--- ")) || bytes.HasPrefix(line, []byte("diff --git ")) {
			return bytes.HasSuffix(line, []byte("\r\n"))
		}
	}
	return false
}

// vetFile names the file that is wrong, and why.
func vetFile(f *gitdiff.File) (string, error) {
	for _, name := range []string{f.OldName, f.NewName} {
		if name == "" {
			continue
		}
		if !filepath.IsLocal(name) || name == "." || filepath.Clean(name) != name {
			return name, errors.New("the path leaves the tree; refused")
		}
		if first, _, _ := strings.Cut(name, "/"); strings.EqualFold(first, ".git") {
			return name, errors.New("the path is git's own; refused")
		}
	}
	for _, m := range []fs.FileMode{f.OldMode, f.NewMode} {
		// git's modes: 0100644, 0100755, 0120000 a link, 0160000 a submodule.
		if kind := m & 0o170000; kind != 0 && kind != 0o100000 {
			return f.NewName, fmt.Errorf("mode %o is not that of a regular file", uint32(m))
		}
	}
	if f.IsBinary && f.BinaryFragment == nil {
		return f.NewName, errors.New("the patch says that this binary file differs, but not how; make it with --binary")
	}
	return "", nil
}
