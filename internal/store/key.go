// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Key names one set of inputs: the hex SHA-256 over all that was given to a
// Hasher. Equal keys mean equal inputs, so a published entry can be reused.
type Key string

// Short is the first 12 digits, for names that people read.
func (k Key) Short() string {
	if len(k) < 12 {
		return string(k)
	}
	return string(k[:12])
}

// Hasher collects the inputs of a stage. Every input is framed by its name and
// length, so that no two different lists of inputs run together.
type Hasher struct {
	h hash.Hash
}

// NewKey starts the key of an entry of the given stage. Bump the version in
// the stage's own code (with Str) when the meaning of its output changes.
func NewKey(stage string) *Hasher {
	k := &Hasher{h: sha256.New()}
	return k.Str("stage", stage)
}

// Str adds one named value.
func (k *Hasher) Str(name, value string) *Hasher {
	fmt.Fprintf(k.h, "%d:%s=%d:%s\n", len(name), name, len(value), value)
	return k
}

// File adds a file's content and its executable bit.
func (k *Hasher) File(name, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	sum, err := FileSum(path)
	if err != nil {
		return err
	}
	k.Str(name, fmt.Sprintf("%s %t", sum, st.Mode()&0o111 != 0))
	return nil
}

// Dir adds every file below a directory, by relative path, in order; symbolic
// links by their target.
func (k *Hasher) Dir(name, path string) error {
	k.Str("dir", name)
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			k.Str("d", rel)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			k.Str("l:"+rel, target)
		case d.Type().IsRegular():
			return k.File("f:"+rel, p)
		}
		return nil
	})
}

// Key ends the collection. The Hasher may go on collecting.
func (k *Hasher) Key() Key {
	return Key(hex.EncodeToString(k.h.Sum(nil)))
}

// FileSum is the hex SHA-256 of a file's content.
func FileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
