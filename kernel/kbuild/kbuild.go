// SPDX-License-Identifier: GPL-2.0-only

// Package kbuild compiles a configured kernel tree: the image with its in-tree
// modules, and the manual module build ("make M=") that people do by hand.
package kbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
)

// The store's names for the kinds of build.
const (
	Stage        = "build"
	CompileStage = "compile"
	ModuleStage  = "module"
)

// Names in an entry of Stage.
const (
	Image    = "bzImage"
	Vmlinux  = "vmlinux"
	SysMap   = "System.map"
	Config   = ".config"
	Symvers  = "Module.symvers"
	Modules  = "modules" // holds lib/modules/RELEASE
	Release  = "release"
	Compiled = "compiled" // how many objects this build compiled, in decimal
	// Kit is what "make M=" needs of an object directory, and no more: the
	// manual build then neither needs the in-tree one nor can disturb it.
	Kit = "kit"
)

// Matters tells whether a file of the tree can change what is built.
func Matters(path string) bool {
	for _, p := range []string{"Documentation/", "tools/testing/", "LICENSES/", "samples/"} {
		if strings.HasPrefix(path, p) {
			return filepath.Base(path) == "Kconfig"
		}
	}
	return filepath.Ext(path) != ".rst" && path != "MAINTAINERS"
}

// Build compiles the tree with the given configuration in m's object directory,
// incrementally, and fills dir with the result.
func Build(ctx context.Context, m *kmake.Make, config, dir string) error {
	objects, err := compile(ctx, m, config)
	if err != nil {
		return err
	}
	mods := filepath.Join(dir, Modules)
	if err := m.Run(ctx, "make modules_install", "INSTALL_MOD_PATH="+mods, "INSTALL_MOD_STRIP=1", "modules_install"); err != nil {
		return err
	}
	rel, err := os.ReadFile(filepath.Join(m.Obj, "include/config/kernel.release"))
	if err != nil {
		return err
	}
	release := strings.TrimSpace(string(rel))
	// Links into the slot mean nothing to whoever reads the entry.
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(mods, "lib/modules", release, link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(mods, "lib/modules", release, "modules.dep")); err != nil {
		return fmt.Errorf("depmod made no modules.dep; is kmod installed? %w", err)
	}
	for from, to := range map[string]string{
		"arch/x86/boot/bzImage": Image, "vmlinux": Vmlinux, "System.map": SysMap,
		".config": Config, "Module.symvers": Symvers,
	} {
		if err := copyFile(filepath.Join(m.Obj, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{Release: release, Compiled: strconv.Itoa(objects)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	return makeKit(ctx, m.Obj, filepath.Join(dir, Kit))
}

// CmdFile is where kbuild writes down how it made an object, and of what.
func CmdFile(object string) string {
	return filepath.Join(filepath.Dir(object), "."+filepath.Base(object)+".cmd")
}

// Compile is Build without anything to boot: dir receives no more than how many
// objects were compiled.
func Compile(ctx context.Context, m *kmake.Make, config, dir string) error {
	objects, err := compile(ctx, m, config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, Compiled), []byte(strconv.Itoa(objects)+"\n"), 0o644)
}

// compile makes image and modules in m's object directory, and counts the
// objects that it had to compile.
func compile(ctx context.Context, m *kmake.Make, config string) (int, error) {
	conf, err := kconfig.ReadConfig(config)
	if err != nil {
		return 0, err
	}
	if err := needs(ctx, conf); err != nil {
		return 0, err
	}
	if err := install(config, filepath.Join(m.Obj, kconfig.ConfigFile)); err != nil {
		return 0, err
	}
	counter := &counter{w: m.Log}
	mm := *m
	mm.Log = counter
	if err := mm.Run(ctx, "make bzImage modules", Image, "modules"); err != nil {
		return 0, err
	}
	after, err := os.ReadFile(filepath.Join(m.Obj, kconfig.ConfigFile))
	if err != nil {
		return 0, err
	}
	before, err := os.ReadFile(config)
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(before, after) {
		return 0, fmt.Errorf("the build changed the configuration it was given; compare %s with %s",
			config, filepath.Join(m.Obj, kconfig.ConfigFile))
	}
	return counter.objects, nil
}

// install puts the configuration in place, and leaves one alone that is the
// same: its time is what make compares with.
func install(config, dst string) error {
	want, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(dst); err == nil && bytes.Equal(have, want) {
		return nil
	}
	return os.WriteFile(dst, want, 0o644)
}

// kitRoots are where "make M=" looks in an object directory; the selection is
// that of the kernel's own scripts/package/install-extmod-build.
var kitRoots = []string{
	".config", "Makefile", "Module.symvers", "System.map", "include", "arch/x86/include", "scripts", "tools/objtool/objtool",
}

// makeKit copies what "make M=" reads of an object directory.
func makeKit(ctx context.Context, obj, dst string) error {
	for _, root := range kitRoots {
		err := filepath.WalkDir(filepath.Join(obj, root), func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && p == filepath.Join(obj, root) {
				return nil // this configuration or version has none
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !d.Type().IsRegular() || strings.HasSuffix(p, ".o") || strings.HasSuffix(p, ".o.cmd") {
				return nil
			}
			rel, err := filepath.Rel(obj, p)
			if err != nil {
				return err
			}
			to := filepath.Join(dst, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return copyFile(p, to)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies content, mode and time.
func copyFile(src, dst string) error {
	fi, err := os.Stat(src)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dst, raw, fi.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(dst, fi.ModTime(), fi.ModTime())
}

// needs names every tool and header that this configuration's build lacks,
// before it has run for minutes.
func needs(ctx context.Context, conf kconfig.Values) error {
	tools := []string{"flex", "bison", "bc", "perl", "ar", "objcopy", "nm", "strip", "depmod"}
	for symbol, tool := range map[string]string{
		"KERNEL_GZIP": "gzip", "KERNEL_BZIP2": "bzip2", "KERNEL_LZMA": "lzma", "KERNEL_XZ": "xz", "KERNEL_LZO": "lzop",
		"KERNEL_LZ4": "lz4", "KERNEL_ZSTD": "zstd", "DEBUG_INFO_BTF": "pahole",
	} {
		if conf.Get(symbol) == "y" {
			tools = append(tools, tool)
		}
	}
	headers := []string{}
	if conf.Get("OBJTOOL") == "y" || conf.Get("STACK_VALIDATION") == "y" || conf.Get("UNWINDER_ORC") == "y" {
		headers = append(headers, "gelf.h")
	}
	if conf.Get("MODULE_SIG_FORMAT") == "y" || conf.Get("SYSTEM_TRUSTED_KEYRING") == "y" {
		headers = append(headers, "openssl/opensslv.h")
	}
	var missing []string
	for _, tool := range tools {
		if tool == "depmod" {
			if _, err := os.Stat("/sbin/depmod"); err == nil {
				continue
			}
		}
		if proc.Have(tool) != nil {
			missing = append(missing, tool)
		}
	}
	for _, h := range headers {
		_, err := proc.Output(ctx, proc.Cmd{
			Args:  []string{"gcc", "-E", "-x", "c", "-"},
			Stdin: strings.NewReader("#include <" + h + ">\n"),
		})
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			missing = append(missing, h+map[string]string{
				"gelf.h": " (libelf-dev)", "openssl/opensslv.h": " (libssl-dev)",
			}[h])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing for a kernel build: %s; see: nftvm doctor", strings.Join(missing, ", "))
	}
	return nil
}

// counter passes a build's log on and counts compiled objects.
type counter struct {
	w       io.Writer
	objects int
	line    []byte
}

var compiledRE = regexp.MustCompile(`^\s+(CC|AS)\s+(\[M\]\s+)?\S+\.o\s*$`)

func (c *counter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			c.line = append(c.line, b)
			continue
		}
		if compiledRE.Match(c.line) {
			c.objects++
		}
		c.line = c.line[:0]
	}
	return c.w.Write(p)
}

// ReadCompiled is how many objects the build of an entry compiled.
func ReadCompiled(entry string) int {
	raw, err := os.ReadFile(filepath.Join(entry, Compiled))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return n
}

// ReadRelease is the kernel release of an entry, as uname -r says it.
func ReadRelease(entry string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(entry, Release))
	return strings.TrimSpace(string(raw)), err
}
