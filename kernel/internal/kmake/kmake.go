// SPDX-License-Identifier: GPL-2.0-only

// Package kmake runs the kernel's own make with everything fixed that would
// otherwise leak from this machine, this user or this moment into the result.
package kmake

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// Toolchain is the compiler and what stands around it.
type Toolchain struct {
	// ID names the versions of everything that can change an output.
	ID string
	// CC is make's CC and HOSTCC.
	CC string
	// Env goes to every make.
	Env []string
}

// DetectToolchain looks for the compiler, and ccache, whose directory is below
// storeDir unless the user's environment names another.
func DetectToolchain(ctx context.Context, storeDir string) (*Toolchain, error) {
	tc := &Toolchain{CC: "gcc"}
	for _, tool := range []string{"make", "gcc", "ld"} {
		if err := proc.Have(tool); err != nil {
			return nil, err
		}
	}
	// pahole's version becomes a config symbol.
	for _, tool := range []string{"gcc", "ld", "pahole"} {
		out, err := proc.Output(ctx, proc.Cmd{Args: []string{tool, "--version"}, Env: []string{"LC_ALL=C"}})
		var missing *proc.MissingError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(out), "\n")
		tc.ID += tool + ": " + first + "\n"
	}
	if _, err := exec.LookPath("ccache"); err == nil {
		tc.CC = "ccache gcc"
		if os.Getenv("CCACHE_DIR") == "" {
			tc.Env = append(tc.Env, "CCACHE_DIR="+filepath.Join(storeDir, "ccache"), "CCACHE_MAXSIZE=10G")
		}
		// Paths below the store are hashed as relative ones, so that the
		// same source in another store, tree or flavor hits.
		tc.Env = append(tc.Env, "CCACHE_BASEDIR="+storeDir, "CCACHE_NOHASHDIR=1",
			// ... but the compiler's messages name files as they are.
			"CCACHE_ABSSTDERR=1",
			// ccache does not hash prefix maps, which do change objects:
			// count this up whenever prefixMaps changes.
			"CCACHE_NAMESPACE=nftvm-1")
	}
	return tc, nil
}

// Make is one object directory of one source tree.
type Make struct {
	Src, Obj  string
	Jobs      int
	Toolchain *Toolchain
	Log       io.Writer
}

// leaks are variables of the caller's environment that kbuild would obey.
var leaks = []string{
	"MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKELEVEL", "MAKEFILES", "MAKEOVERRIDES", "ARCH", "SUBARCH", "CROSS_COMPILE", "CC", "LD",
	"LLVM", "LLVM_IAS", "HOSTCC", "HOSTCFLAGS", "HOSTLDFLAGS", "CFLAGS", "CPPFLAGS", "LDFLAGS", "KCFLAGS", "KCPPFLAGS", "KAFLAGS",
	"LOCALVERSION", "KERNELVERSION", "KERNELRELEASE", "KBUILD_OUTPUT", "KBUILD_EXTMOD", "KBUILD_VERBOSE", "KBUILD_CFLAGS",
	"KCONFIG_CONFIG", "KCONFIG_ALLCONFIG", "KCONFIG_SEED", "INSTALL_MOD_PATH", "INSTALL_MOD_STRIP", "INSTALL_PATH", "O", "V", "W", "C", "M", "MO",
	"BUILD_DIR", "SOURCE_DATE_EPOCH", "EXTRAVERSION", "CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "GCC_COLORS",
}

// prefixMaps keep the paths of this machine out of the objects. The tree's
// files become relative to its top, as kernel messages have them; a directory
// by itself is ".". Of several maps that fit gcc takes the last.
func (m *Make) prefixMaps() string {
	maps := []string{m.Src + "=.", m.Src + "/=", m.Obj + "=."}
	// ccache makes paths relative to where the compiler runs, before the
	// compiler sees them: that is the object directory, or the module's in it.
	for _, sub := range []string{"", "net/netfilter"} {
		if rel, err := filepath.Rel(filepath.Join(m.Obj, sub), m.Src); err == nil {
			maps = append(maps, rel+"/=")
		}
	}
	for i, mp := range maps {
		maps[i] = "-ffile-prefix-map=" + mp
	}
	return strings.Join(maps, " ")
}

// Run runs make with the targets and variables in args. An error says what the
// tools complained of, and whose fault that is; the error calls the run by what.
func (m *Make) Run(ctx context.Context, what string, args ...string) error {
	argv := []string{
		"make", "-C", m.Src, "-j" + strconv.Itoa(max(m.Jobs, 1)),
		// Messages of parallel compilers must not mix: they get quoted.
		"-Otarget", "--no-print-directory",
		"O=" + m.Obj, "CC=" + m.Toolchain.CC, "HOSTCC=" + m.Toolchain.CC,
	}
	env := append([]string{
		// kbuild unexports LC_ALL, so the parts have to say it as well.
		"LC_ALL=C", "LANG=C", "LC_CTYPE=C", "LC_MESSAGES=C", "TZ=UTC", "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"ARCH=x86_64", "KCFLAGS=" + m.prefixMaps(), "KAFLAGS=" + m.prefixMaps(),
		// Set but empty: no "+" for a tree that git finds dirty.
		"LOCALVERSION=",
		"KBUILD_BUILD_USER=nftvm", "KBUILD_BUILD_HOST=nftvm", "KBUILD_BUILD_VERSION=1",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
	}, m.Toolchain.Env...)
	var said bytes.Buffer
	err := proc.Run(ctx, proc.Cmd{
		Args: append(argv, args...), Env: env, Unset: leaks, Log: io.MultiWriter(m.Log, &said),
	})
	if err != nil {
		return explain(ctx, err, what, said.String(), m)
	}
	return nil
}
