// SPDX-License-Identifier: GPL-2.0-only

// Package image makes the guests' initramfs: init, and the host's own nft, ip,
// bash and so on with their libraries. It holds nothing of the kernel, so one
// image serves every tree.
package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/u-root/pkg/ldd"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

const (
	stage = "image"
	// layout changes with anything below that is not in the key by itself.
	layout = "1"
	// fileName is the archive in the stage's directory.
	fileName = "initramfs.cpio"
)

// merged are the directories that are links into /usr in the guest, whatever
// they are on the host.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// dlopened are libraries that no program names but some load by hand, if the
// host has them.
var dlopened = []string{"libgcc_s.so.1", "libnss_files.so.2"}

// databases are the host's files that tools read, if it has them.
var databases = []string{"/etc/protocols", "/etc/services", "/etc/ethertypes"}

// databaseDirs likewise. iproute2 has moved its own.
var databaseDirs = []string{"/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"}

// ours are small files that must not be the host's.
var ours = map[string]string{
	"etc/passwd":        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"etc/group":         "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
	"etc/hosts":         "127.0.0.1 localhost\n::1 localhost\n",
	"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n",
	"etc/os-release":    "ID=nftvm\nNAME=\"nftvm test guest\"\n",
}

// emptyDirs are mount points and places that programs expect.
var emptyDirs = []string{"dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "var/lib", "var/log"}

// Image is a finished initramfs.
type Image struct {
	Path  string    // of the archive
	Key   store.Key // of what it was made from
	Entry *store.Entry
}

// Build returns the image for this host's tools, from the store if it is
// there.
func Build(ctx context.Context, st *store.Store) (*Image, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	hintKey, err := hintKey()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if img := remembered(st, hintKey); img != nil {
		return img, nil
	}
	plan, err := collect()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	// Before they are read: what changes meanwhile is seen the next time.
	inputs := stamps(plan.files)
	tmp, err := os.MkdirTemp("", "nftvm-image-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := plan.addOwn(ctx, tmp); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	k := store.NewKey(stage).Str("layout", layout)
	if err := agent.HashInit(ctx, k); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	for _, name := range plan.names() {
		if to, ok := plan.links[name]; ok {
			k.Str("link:"+name, to)
		} else if err := k.File("file:"+name, plan.files[name]); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
	}
	key := k.Key()
	e, err := st.Do(ctx, stage, key, func(ctx context.Context, dir string, log io.Writer) error {
		init := filepath.Join(dir, "init")
		if err := agent.BuildInit(ctx, init, log); err != nil {
			return err
		}
		plan.files["init"] = init
		if err := plan.write(filepath.Join(dir, fileName), log); err != nil {
			return err
		}
		return os.Remove(init)
	})
	if err != nil {
		return nil, err
	}
	if err := remember(ctx, st, hintKey, key, inputs); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return &Image{Path: filepath.Join(e.Dir, fileName), Key: key, Entry: e}, nil
}

// plan is what goes into an image: names without a leading slash, and the
// host's file or the link's target.
type plan struct {
	files map[string]string
	links map[string]string
}

func (p *plan) names() []string {
	var out []string
	for n := range p.files {
		out = append(out, n)
	}
	for n := range p.links {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// collect finds the tools, what they are linked with, and the files they read.
func collect() (*plan, error) {
	p := &plan{files: map[string]string{}, links: map[string]string{}}
	var programs []string
	for _, t := range tools() {
		found := find(t.name)
		if found == "" {
			continue // optional, or Check would have said so
		}
		real, err := filepath.EvalSymlinks(found)
		if err != nil {
			return nil, err
		}
		name := inGuest(filepath.Join(filepath.Dir(found), t.name))
		if target := inGuest(real); path.Base(real) != t.name {
			// One program of many names, as kmod is.
			p.files[target] = real
			p.links[name] = "/" + target
		} else {
			p.files[name] = real
		}
		programs = append(programs, real)
	}
	p.links["usr/bin/sh"] = "bash"
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		p.links[dir] = "usr/" + dir
	}
	libs, err := ldd.List(programs...)
	if err != nil {
		return nil, fmt.Errorf("libraries: %w", err)
	}
	dirs := map[string]bool{}
	for _, lib := range libs {
		dirs[filepath.Dir(lib)] = true
		if err := p.addFile(lib); err != nil {
			return nil, err
		}
	}
	for dir := range dirs {
		for _, lib := range dlopened {
			if err := p.addFile(filepath.Join(dir, lib)); err != nil && !os.IsNotExist(err) {
				return nil, err
			}
		}
	}
	for _, file := range databases {
		if err := p.addFile(file); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	for _, dir := range databaseDirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.Type().IsRegular() {
				if err := p.addFile(filepath.Join(dir, e.Name())); err != nil {
					return nil, err
				}
			}
		}
	}
	return p, nil
}

func (p *plan) addFile(file string) error {
	real, err := filepath.EvalSymlinks(file)
	if err == nil {
		p.files[inGuest(file)] = real
	}
	return err
}

// inGuest is a host's path as the guest has it: under a merged /usr.
func inGuest(file string) string {
	name := strings.TrimPrefix(filepath.Clean(file), "/")
	for _, dir := range merged {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

// write makes the archive: every directory before what is in it, names in
// order, nobody's times and numbers.
func (p *plan) write(out string, log io.Writer) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := cpio.Newc.Writer(buf)

	dirs := map[string]bool{}
	put := func(r cpio.Record) error { return w.WriteRecord(cpio.MakeReproducible(r)) }
	var mkdir func(name string) error
	mkdir = func(name string) error {
		if name == "." || dirs[name] {
			return nil
		}
		if _, link := p.links[name]; link {
			return nil
		}
		dirs[name] = true
		if err := mkdir(path.Dir(name)); err != nil {
			return err
		}
		return put(cpio.Directory(name, 0o755))
	}
	for _, d := range emptyDirs {
		if err := mkdir(d); err != nil {
			return err
		}
	}
	if err := put(cpio.CharDev("dev/console", 0o600, 5, 1)); err != nil {
		return err
	}
	// A slow host may answer the virtio console's driver only when init has
	// been started, without any open file. A Go program then opens this, or
	// dies.
	if err := put(cpio.CharDev("dev/null", 0o666, 1, 3)); err != nil {
		return err
	}
	var small []string
	for name := range ours {
		small = append(small, name)
	}
	sort.Strings(small)
	for _, name := range small {
		if err := put(cpio.StaticFile(name, ours[name], 0o644)); err != nil {
			return err
		}
	}
	for _, name := range p.names() {
		if err := mkdir(path.Dir(name)); err != nil {
			return err
		}
		if to, ok := p.links[name]; ok {
			if err := put(cpio.Symlink(name, to)); err != nil {
				return err
			}
			continue
		}
		content, err := os.ReadFile(p.files[name])
		if err != nil {
			return err
		}
		mode := uint64(0o644)
		if st, err := os.Stat(p.files[name]); err != nil {
			return err
		} else if st.Mode()&0o111 != 0 || bytes.HasPrefix(content, []byte("\x7fELF")) {
			mode = 0o755
		}
		fmt.Fprintf(log, "%9d %s\n", len(content), name)
		if err := put(cpio.StaticFile(name, string(content), mode)); err != nil {
			return err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	return f.Close()
}
