// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"crypto/sha256"
	"encoding/hex"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// Overlay is what a series makes of a tree: every file that then differs from
// the pristine one, in full.
type Overlay struct {
	// Files are sorted by path.
	Files []OverlayFile `json:"files"`
	// Dir holds the contents below overlayFiles, once Write or Read set it.
	Dir string `json:"-"`

	content map[string][]byte
}

// OverlayFile is one file of an overlay.
type OverlayFile struct {
	Path string `json:"path"`
	// SHA256 of the content, "" for a file that the series deletes.
	SHA256 string `json:"sha256"`
	Exec   bool   `json:"exec,omitempty"`
}

// Deleted is true for a file that the series takes away.
func (f OverlayFile) Deleted() bool { return f.SHA256 == "" }

// Perm is the file's mode.
func (f OverlayFile) Perm() fs.FileMode {
	if f.Exec {
		return 0o755
	}
	return 0o644
}

const (
	overlayFiles = "files"
	overlayIndex = "overlay.json"
)

// overlay drops what came out as it was before.
func (st *state) overlay() (*Overlay, error) {
	o := &Overlay{content: map[string][]byte{}}
	for path, c := range st.files {
		pristine := &state{root: st.root}
		was, err := pristine.read(path)
		if err != nil {
			return nil, err
		}
		if c.content == nil {
			if was != nil {
				o.Files = append(o.Files, OverlayFile{Path: path})
			}
			continue
		}
		if was != nil && string(was.content) == string(c.content) && was.exec == c.exec {
			continue
		}
		sum := sha256.Sum256(c.content)
		o.Files = append(o.Files, OverlayFile{Path: path, SHA256: hex.EncodeToString(sum[:]), Exec: c.exec})
		o.content[path] = c.content
	}
	sort.Slice(o.Files, func(i, j int) bool { return o.Files[i].Path < o.Files[j].Path })
	return o, nil
}

// Write puts the overlay into dir, for ReadOverlay.
func (o *Overlay) Write(dir string) error {
	for path, content := range o.content {
		p := filepath.Join(dir, overlayFiles, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, content, 0o644); err != nil {
			return err
		}
	}
	raw, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return err
	}
	o.Dir = dir
	return os.WriteFile(filepath.Join(dir, overlayIndex), raw, 0o644)
}

// ReadOverlay reads what Write wrote.
func ReadOverlay(dir string) (*Overlay, error) {
	raw, err := os.ReadFile(filepath.Join(dir, overlayIndex))
	if err != nil {
		return nil, err
	}
	o := &Overlay{Dir: dir}
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return o, nil
}

// Path is where a file's new content is.
func (o *Overlay) Path(f OverlayFile) string { return filepath.Join(o.Dir, overlayFiles, f.Path) }

// Has tells whether the series changes or makes the file.
func (o *Overlay) Has(path string) bool {
	return slices.ContainsFunc(o.Files, func(f OverlayFile) bool { return f.Path == path && !f.Deleted() })
}

// Key adds the files that matter to a key: what a stage does not read must
// not make it run again.
func (o *Overlay) Key(k *store.Hasher, matters func(path string) bool) {
	for _, f := range o.Files {
		if matters(f.Path) {
			k.Str("overlay:"+f.Path, fmt.Sprintf("%s %t", f.SHA256, f.Exec))
		}
	}
}

// Edited is what the files at paths of an edited copy of the pristine tree make
// of it: the copy is what a series is otherwise.
func Edited(pristine, edited string, paths []string) (*Overlay, error) {
	st := &state{root: pristine, files: map[string]*changed{}}
	in := &state{root: edited}
	for _, path := range paths {
		c, err := in.read(path)
		if err != nil {
			return nil, err
		}
		if c == nil {
			c = &changed{}
		}
		st.files[path] = c
	}
	return st.overlay()
}

// Differ are the paths of files that two overlays do not have alike, sorted.
func Differ(a, b *Overlay) []string {
	was := map[string]OverlayFile{}
	for _, f := range a.Files {
		was[f.Path] = f
	}
	var out []string
	for _, f := range b.Files {
		if old, ok := was[f.Path]; !ok || old != f {
			out = append(out, f.Path)
		}
		delete(was, f.Path)
	}
	for path := range was {
		out = append(out, path)
	}
	sort.Strings(out)
	return out
}
