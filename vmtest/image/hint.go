// SPDX-License-Identifier: GPL-2.0-only

package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// To know an image's key takes a compiler and the sums of all that is in it: a
// second, while a guest is there in a tenth of one. So what the last image was
// made of is remembered by name, size and time.
const (
	hintStage = "image-hint"
	hintFile  = "inputs.json"
)

type hint struct {
	Key    store.Key
	Inputs map[string]string // path to what stamp said
}

// stamp changes with a file.
func stamp(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	return fmt.Sprint(st.Size(), " ", st.ModTime().UnixNano())
}

// hintKey is over what decides which files an image is made of, but for what
// the tools are linked with.
func hintKey() (store.Key, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	k := store.NewKey(hintStage).Str("harness", exe+" "+stamp(exe))
	if root := moduleRoot(); root != "" {
		k.Str("root", root)
		for _, dir := range ownSource {
			err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					k.Str("own", path+" "+stamp(path))
				}
				return err
			})
			if err != nil {
				return "", err
			}
		}
	}
	gotool := find("go")
	k.Str("go", gotool+" "+stamp(gotool))
	// A library that is new, or whose link leads elsewhere.
	k.Str("libraries", stamp("/etc/ld.so.cache"))
	for _, path := range databases {
		k.Str("database", stamp(path))
	}
	for _, t := range tools() {
		path := find(t.name)
		k.Str("tool", path+" "+stamp(path))
	}
	for _, dir := range databaseDirs {
		k.Str("databases", stamp(dir))
	}
	return k.Key(), nil
}

// ownSource is where the project's own programs come from.
var ownSource = []string{"cmd/nfoctl", "internal/nfo", "go.mod", "go.sum"}

// remembered is the image that was made when everything was as it is, nil if
// that is not known.
func remembered(st *store.Store, key store.Key) *Image {
	e, err := st.Lookup(hintStage, key)
	if err != nil || e == nil {
		return nil
	}
	var h hint
	raw, err := os.ReadFile(filepath.Join(e.Dir, hintFile))
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return nil
	}
	for path, was := range h.Inputs {
		if stamp(path) != was {
			_ = st.Drop(hintStage, key)
			return nil
		}
	}
	img, err := st.Lookup(stage, h.Key)
	if err != nil || img == nil {
		return nil
	}
	return &Image{Path: filepath.Join(img.Dir, fileName), Key: h.Key, Entry: img}
}

// stamps are of the host's files that an image is made of, by where they are
// looked for, too: a link may come to lead elsewhere.
func stamps(files map[string]string) map[string]string {
	out := map[string]string{}
	for name, path := range files {
		out[path] = stamp(path)
		out["/"+name] = stamp("/" + name)
	}
	return out
}

// remember what an image was made of.
func remember(ctx context.Context, st *store.Store, key, image store.Key, inputs map[string]string) error {
	raw, err := json.Marshal(hint{Key: image, Inputs: inputs})
	if err != nil {
		return err
	}
	_, err = st.Do(ctx, hintStage, key, func(_ context.Context, dir string, _ io.Writer) error {
		return os.WriteFile(filepath.Join(dir, hintFile), raw, 0o644)
	})
	return err
}
