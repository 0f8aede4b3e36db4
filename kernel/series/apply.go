// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bluekeyes/go-gitdiff/gitdiff"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// state is a pristine tree with what the patches so far changed of it, in
// memory: a series touches dozens of files, the tree has ninety thousand.
type state struct {
	root  string
	files map[string]*changed
}

// changed is a file as the patches left it; content is nil when it is gone.
type changed struct {
	content []byte
	exec    bool
}

// Apply applies the patches, in order, to the pristine tree in root, which it
// only reads. Hunks may have moved but must match to the letter, as git apply
// has it. Errors are the kernel's fault; one that names a hunk is a *HunkError.
func Apply(root string, patches []Patch) (*Overlay, error) {
	st := &state{root: root, files: map[string]*changed{}}
	for _, p := range patches {
		if err := st.apply(p); err != nil {
			return nil, store.KernelFault(err)
		}
	}
	return st.overlay()
}

func (st *state) apply(p Patch) error {
	files, _, err := gitdiff.Parse(bytes.NewReader(p.Content))
	if err != nil {
		return fmt.Errorf("%s cannot be read as a patch: %w", p.Name, err)
	}
	if len(files) == 0 {
		return fmt.Errorf("%s changes no file", p.Name)
	}
	for _, f := range files {
		if err := st.applyFile(p, f); err != nil {
			return err
		}
	}
	return nil
}

func (st *state) applyFile(p Patch, f *gitdiff.File) error {
	fail := func(name string, err error) error { return fmt.Errorf("%s: %s: %w", p.Name, name, err) }
	for _, name := range []string{f.OldName, f.NewName} {
		if name == "" {
			continue
		}
		if err := st.inside(name); err != nil {
			return fail(name, err)
		}
	}
	for _, m := range []fs.FileMode{f.OldMode, f.NewMode} {
		// git's modes: 0100644, 0100755, 0120000 a link, 0160000 a submodule.
		if kind := m & 0o170000; kind != 0 && kind != 0o100000 {
			return fail(f.NewName, fmt.Errorf("mode %o is not that of a regular file", uint32(m)))
		}
	}

	var old *changed
	if !f.IsNew {
		var err error
		if old, err = st.read(f.OldName); err != nil {
			return fail(f.OldName, err)
		}
		if old == nil {
			return fail(f.OldName, errors.New("the tree has no such file"))
		}
	}
	if f.NewName != "" && (f.IsNew || f.IsRename || f.IsCopy) {
		there, err := st.read(f.NewName)
		if err != nil {
			return fail(f.NewName, err)
		}
		if there != nil {
			return fail(f.NewName, errors.New("the patch makes this file, but the tree has it already"))
		}
	}

	now := &changed{content: []byte{}}
	if old != nil {
		now.content, now.exec = old.content, old.exec
	}
	if f.NewMode != 0 {
		now.exec = f.NewMode&0o100 != 0
	}
	switch {
	case f.IsBinary:
		var out bytes.Buffer
		if err := gitdiff.Apply(&out, bytes.NewReader(now.content), f); err != nil {
			return fail(f.NewName, err)
		}
		now.content = append([]byte{}, out.Bytes()...)
	case len(f.TextFragments) > 0:
		lines, err := applyFragments(p.Name, f, splitLines(now.content))
		if err != nil {
			return err
		}
		now.content = []byte(strings.Join(lines, ""))
	}
	if f.IsDelete || f.IsRename {
		if f.IsDelete && len(now.content) > 0 {
			return fail(f.OldName, errors.New("the patch deletes this file, but the tree's has more in it"))
		}
		st.files[f.OldName] = &changed{}
	}
	if !f.IsDelete {
		st.files[f.NewName] = now
	}
	return nil
}

// inside refuses names that leave the tree, also by way of a symbolic link in
// it, and names that reach into git's own directory.
func (st *state) inside(name string) error {
	if !filepath.IsLocal(name) || name == "." || filepath.Clean(name) != name {
		return errors.New("the path leaves the tree; refused")
	}
	parts := strings.Split(name, "/")
	if strings.EqualFold(parts[0], ".git") {
		return errors.New("the path is git's own; refused")
	}
	for i := range parts {
		fi, err := os.Lstat(filepath.Join(st.root, filepath.Join(parts[:i+1]...)))
		if err != nil {
			return nil //nolint:nilerr // what does not exist is no link
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link in the tree; refused", strings.Join(parts[:i+1], "/"))
		}
	}
	return nil
}

// read returns the file as it is now, nil when there is none.
func (st *state) read(name string) (*changed, error) {
	if c, ok := st.files[name]; ok {
		if c.content == nil {
			return nil, nil
		}
		return c, nil
	}
	path := filepath.Join(st.root, name)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &changed{content: raw, exec: fi.Mode()&0o100 != 0}, nil
}

// splitLines keeps the line ends, so that a missing last one is told apart.
func splitLines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(b), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func applyFragments(patch string, f *gitdiff.File, lines []string) ([]string, error) {
	var out []string
	next := 0  // the first of lines that is not in out yet
	moved := 0 // how far the last hunk was from where it said
	for i, frag := range f.TextFragments {
		var want, put []string
		for _, l := range frag.Lines {
			if l.Op != gitdiff.OpAdd {
				want = append(want, l.Line)
			}
			if l.Op != gitdiff.OpDelete {
				put = append(put, l.Line)
			}
		}
		expect := int(frag.OldPosition) - 1
		if frag.OldLines == 0 {
			expect = int(frag.OldPosition) // "-3,0": after line 3
		}
		at := find(lines, want, next, expect+moved, place{
			// As git apply: a hunk that begins or ends without context
			// belongs at that end of the file.
			begin: frag.OldPosition <= 1,
			end:   frag.TrailingContext == 0,
		})
		if at < 0 {
			return nil, newHunkError(patch, f, i, lines, want, put, max(expect+moved, 0))
		}
		moved = at - expect
		out = append(out, lines[next:at]...)
		out = append(out, put...)
		next = at + len(want)
	}
	return append(out, lines[next:]...), nil
}

// place restricts where a hunk may be.
type place struct{ begin, end bool }

// find looks for want in lines, at or after from, nearest to expect first.
// It returns -1 when it is not there.
func find(lines, want []string, from, expect int, pl place) int {
	last := len(lines) - len(want)
	fits := func(at int) bool {
		if at < from || at > last || (pl.begin && at != 0) || (pl.end && at != last) {
			return false
		}
		for i, w := range want {
			if lines[at+i] != w {
				return false
			}
		}
		return true
	}
	for d := 0; d <= len(lines); d++ {
		if fits(expect - d) {
			return expect - d
		}
		if fits(expect + d) {
			return expect + d
		}
	}
	return -1
}
