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
	files, err := p.Files()
	if err != nil {
		return err
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
	if name, err := vetFile(f); err != nil {
		return fail(name, err)
	}
	for _, name := range []string{f.OldName, f.NewName} {
		if err := st.inside(name); err != nil {
			return fail(name, err)
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

// inside refuses names that leave the tree by way of a symbolic link in it.
func (st *state) inside(name string) error {
	if name == "" {
		return nil
	}
	parts := strings.Split(name, "/")
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

// applyFragments puts the hunks in as git apply does, hunk after hunk into what
// the ones before it left.
func applyFragments(patch string, f *gitdiff.File, lines []string) ([]string, error) {
	img := &image{lines: lines}
	for i := range lines {
		img.number = append(img.number, i+1)
	}
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
		expect := max(int(frag.NewPosition)-1, 0)
		// A hunk that begins or ends without context belongs at that end
		// of the file.
		at := img.find(want, expect, frag.OldPosition <= 1, frag.TrailingContext == 0)
		if at < 0 {
			return nil, newHunkError(patch, f, i, img, want, put, expect)
		}
		img.replace(at, len(want), put)
	}
	return img.lines, nil
}

// image is a file on its way through the hunks.
type image struct {
	lines []string
	// number is a line's number before the first hunk, 0 for one that a hunk
	// has put there; no other hunk may take those for the tree's.
	number []int
}

func (img *image) replace(at, n int, put []string) {
	lines := append(append([]string{}, img.lines[:at]...), put...)
	number := append([]int{}, img.number[:at]...)
	number = append(number, make([]int, len(put))...)
	img.lines = append(lines, img.lines[at+n:]...)
	img.number = append(number, img.number[at+n:]...)
}

// find looks for want, as near to expect as can be and forwards first; begin
// and end tie it to an end of the file. It returns -1 when it is not there.
func (img *image) find(want []string, expect int, begin, end bool) int {
	last := len(img.lines) - len(want)
	fits := func(at int) bool {
		if at < 0 || at > last || (begin && at != 0) || (end && at != last) {
			return false
		}
		for i, w := range want {
			if img.lines[at+i] != w || img.number[at+i] == 0 {
				return false
			}
		}
		return true
	}
	switch {
	case begin:
		expect = 0
	case end:
		expect = last
	}
	expect = min(expect, len(img.lines))
	for d := 0; d <= len(img.lines); d++ {
		if fits(expect + d) {
			return expect + d
		}
		if fits(expect - d) {
			return expect - d
		}
	}
	return -1
}
