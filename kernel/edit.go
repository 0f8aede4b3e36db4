// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/worktree"
)

// ModuleDirs are the directories of which the modules can be made anew without
// the kernel.
var ModuleDirs = []string{kbuild.ManualDir, "drivers/net/netdevsim"}

// EditStage is the name of Modules in errors.
const EditStage = "modules"

// Touches are the ModuleDirs that have to be made anew for what differs between
// the overlay that b was built of and another. ok is false when modules alone
// would not show the difference: then the kernel has to be built.
func (b *Built) Touches(o *series.Overlay) (dirs []string, ok bool) {
	objects := b.Objects()
	for _, path := range series.Differ(b.Overlay, o) {
		if !kbuild.Matters(path) {
			continue
		}
		dir := filepath.Dir(path)
		if objects == "" || !slices.Contains(ModuleDirs, dir) || gone(b.Overlay, path) || gone(o, path) {
			return nil, false
		}
		var cmds []string
		switch filepath.Ext(path) {
		case ".c":
			cmds = []string{kbuild.CmdFile(filepath.Join(objects, strings.TrimSuffix(path, ".c")+".o"))}
		case ".h":
			cmds = users(objects, path)
		}
		if len(cmds) == 0 {
			return nil, false // what make does then is not known here
		}
		for _, cmd := range cmds {
			dir, ok := moduleDir(objects, cmd)
			if !ok {
				return nil, false
			}
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), true
}

// gone says whether an overlay takes a file away.
func gone(o *series.Overlay, path string) bool {
	return slices.ContainsFunc(o.Files, func(f series.OverlayFile) bool { return f.Path == path && f.Deleted() })
}

// users are what kbuild wrote down of the objects that a header is in; none if
// not all can be read.
func users(objects, header string) (cmds []string) {
	err := filepath.WalkDir(objects, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".o.cmd") {
			return err
		}
		text, err := os.ReadFile(p)
		if depends(text, header) {
			cmds = append(cmds, p)
		}
		return err
	})
	if err != nil {
		return nil
	}
	return cmds
}

// moduleDir is the one of ModuleDirs that an object is compiled in for a module;
// ok is false for any other object, and for one that was not compiled.
func moduleDir(objects, cmd string) (dir string, ok bool) {
	text, err := os.ReadFile(cmd)
	if err != nil {
		return "", false
	}
	dir, err = filepath.Rel(objects, filepath.Dir(cmd))
	return dir, err == nil && slices.Contains(ModuleDirs, dir) && bytes.Contains(text, []byte(" -DMODULE "))
}

// depends says whether a path is among what kbuild wrote down of an object.
func depends(cmd []byte, path string) bool {
	for word := range bytes.FieldsSeq(cmd) {
		if rest, ok := bytes.CutSuffix(word, []byte(path)); ok && (len(rest) == 0 || rest[len(rest)-1] == '/') {
			return true
		}
	}
	return false
}

// Modules makes the modules of dirs anew from an overlay that differs from b's
// nowhere else, and returns b with them in the place of its own, below dir.
// What was made by "make M=" carries no intree mark: it taints the kernel with O.
// Errors are *store.StageError.
func (bu *Builder) Modules(ctx context.Context, b *Built, o *series.Overlay, dirs []string, dir string) (*Built, error) {
	out := *b
	out.Overlay, out.Modules = o, filepath.Join(dir, kbuild.Modules)
	log := filepath.Join(dir, "build.log")
	err := bu.modules(ctx, b, &out, dirs, dir, log)
	if err != nil && ctx.Err() == nil {
		return nil, &store.StageError{Stage: EditStage, Log: log, Fault: store.FaultOf(err), Err: err}
	}
	return &out, err
}

func (bu *Builder) modules(ctx context.Context, b, out *Built, dirs []string, dir, logPath string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	made := func(what string) string { return filepath.Join(dir, "made", filepath.Base(what)) }
	for _, what := range dirs {
		if err := os.MkdirAll(made(what), 0o755); err != nil {
			return err
		}
	}
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := bu.detect(ctx); err != nil {
		return err
	}
	r := &run{Builder: bu, flavor: b.Flavor, src: b.source, built: out}
	r.tree.Name = b.Tree
	err = r.inSlot(ctx, "manual", log, func(ctx context.Context, m *kmake.Make) error {
		for _, what := range dirs {
			if err := kbuild.BuildManual(ctx, m, what, b.kit, b.Version, made(what)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if slices.Contains(dirs, kbuild.ManualDir) {
		out.Manual = made(kbuild.ManualDir)
	}
	return putModules(ctx, b.Modules, out.Modules, filepath.Join(dir, "made", "*"), b.Release, log)
}

// putModules makes to a tree of modules like from, with those in the directories
// that made is a pattern of instead of theirs. Those are only put where the kernel
// has one of that name.
func putModules(ctx context.Context, from, to, made, release string, log io.Writer) error {
	if err := worktree.Link(ctx, from, to, log); err != nil {
		return err
	}
	fresh, err := filepath.Glob(filepath.Join(made, "*.ko"))
	if err != nil {
		return err
	}
	byName := map[string]string{}
	for _, p := range fresh {
		byName[filepath.Base(p)] = p
	}
	base := filepath.Join(to, "lib/modules", release)
	err = filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		ko := byName[filepath.Base(p)]
		if err != nil || ko == "" {
			return err
		}
		delete(byName, filepath.Base(p))
		if err := os.Remove(p); err != nil {
			return err
		}
		return os.Link(ko, p)
	})
	if err != nil {
		return err
	}
	if len(byName) > 0 {
		return fmt.Errorf("the kernel has no module of the name of %v", slices.Sorted(maps.Keys(byName)))
	}
	// depmod writes beside its files and renames, so the kernel's own stay.
	err = proc.Run(ctx, proc.Cmd{Args: []string{"/sbin/depmod", "-b", to, release}, Log: log})
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("depmod is missing; see: nftvm doctor")
	}
	return err
}
