// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// ManualDir is the directory that the manual build is about.
const ManualDir = "net/netfilter"

// ModuleSource is in a tree when it has the module that the build is for.
const ModuleSource = ManualDir + "/nft_offload_main.c"

// BuildManual runs "make M=what/ modules" against the kit of a build entry, in m's
// object directory, and fills dir with the modules. m.Obj must not be that of
// the in-tree build.
func BuildManual(ctx context.Context, m *kmake.Make, what, kit, version, dir string) error {
	if err := layKit(kit, m.Obj); err != nil {
		return err
	}
	args := []string{"M=" + what + "/"}
	out := filepath.Join(m.Obj, what)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if kver.AtLeast(version, "6.13") {
		// From 6.13 on, objects of a relative M= land in the source tree
		// unless they are sent elsewhere.
		args = append(args, "MO="+out)
	} else if err := linkSources(filepath.Join(m.Src, what), out); err != nil {
		// Before that they land in the object directory, and 6.10 to 6.12
		// look for the sources nowhere else.
		return err
	}
	if err := m.Run(ctx, "make M="+what+"/ modules", append(args, "modules")...); err != nil {
		return err
	}
	n := 0
	err := filepath.WalkDir(out, func(p string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".ko" {
			return err
		}
		n++
		return copyFile(p, filepath.Join(dir, d.Name()))
	})
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("make M=%s/ modules made no module", what)
	}
	return nil
}

// linkSources makes dst a farm of symbolic links to the files below src. Real
// files in dst are objects, and stay.
func linkSources(src, dst string) error {
	err := filepath.WalkDir(dst, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		return os.Remove(p) // its file may be gone
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, rel), 0o755)
		}
		return os.Symlink(p, filepath.Join(dst, rel))
	})
}

// layKit brings the kit's files into the object directory of the manual build.
// A file with the same content keeps its time, one that changed gets a new
// one, so that exactly what depends on it is made anew. The files by which
// kbuild tracks config symbols are all empty and tell by their times alone;
// after a change of configuration the directory starts over.
func layKit(kit, obj string) error {
	const auto = "include/config/auto.conf"
	want, err := os.ReadFile(filepath.Join(kit, auto))
	if err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(obj, auto))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(want, have) {
		if err := os.RemoveAll(obj); err != nil {
			return err
		}
	}
	now := time.Now()
	return filepath.WalkDir(kit, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(kit, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(obj, rel)
		if d.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		old, err := os.ReadFile(dst)
		if err == nil && bytes.Equal(raw, old) {
			return nil
		}
		fresh := errors.Is(err, fs.ErrNotExist)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.WriteFile(dst, raw, fi.Mode().Perm()); err != nil {
			return err
		}
		if fresh {
			return os.Chtimes(dst, fi.ModTime(), fi.ModTime())
		}
		return os.Chtimes(dst, now, now)
	})
}
