// SPDX-License-Identifier: GPL-2.0-only

// Package doctor knows what the machine must have before the pipeline can run,
// says what is missing, and installs it where it can.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// need is one thing the host must have.
type need struct {
	what string // as the user knows it
	// One of the two says how to look for it.
	bin    string // found in PATH or an sbin directory
	header string // found by the C compiler

	apt, dnf, pacman string
	// optional things make the pipeline faster, not possible
	optional bool
}

// needs lists the tools of the host side. Those of the guest are the image's
// own business; whoever packs it adds what it misses as Missing.
var needs = []need{
	{what: "C compiler", bin: "gcc", apt: "gcc", dnf: "gcc", pacman: "gcc"},
	{what: "C library headers", header: "stdio.h", apt: "libc6-dev", dnf: "glibc-devel", pacman: "glibc"},
	{what: "make", bin: "make", apt: "make", dnf: "make", pacman: "make"},
	{what: "linker", bin: "ld", apt: "binutils", dnf: "binutils", pacman: "binutils"},
	{what: "flex", bin: "flex", apt: "flex", dnf: "flex", pacman: "flex"},
	{what: "bison", bin: "bison", apt: "bison", dnf: "bison", pacman: "bison"},
	{what: "bc", bin: "bc", apt: "bc", dnf: "bc", pacman: "bc"},
	{what: "perl", bin: "perl", apt: "perl", dnf: "perl-interpreter", pacman: "perl"},
	{what: "libelf headers", header: "gelf.h", apt: "libelf-dev", dnf: "elfutils-libelf-devel", pacman: "libelf"},
	{what: "OpenSSL headers", header: "openssl/evp.h", apt: "libssl-dev", dnf: "openssl-devel", pacman: "openssl"},
	{what: "git", bin: "git", apt: "git", dnf: "git", pacman: "git"},
	{what: "xz", bin: "xz", apt: "xz-utils", dnf: "xz", pacman: "xz"},
	{what: "tar", bin: "tar", apt: "tar", dnf: "tar", pacman: "tar"},
	{what: "depmod", bin: "depmod", apt: "kmod", dnf: "kmod", pacman: "kmod"},
	{what: "QEMU for x86-64", bin: "qemu-system-x86_64", apt: "qemu-system-x86", dnf: "qemu-system-x86-core", pacman: "qemu-system-x86"},
	{what: "compile cache", bin: "ccache", apt: "ccache", dnf: "ccache", pacman: "ccache", optional: true},
	{what: "Coccinelle", bin: "spatch", apt: "coccinelle", dnf: "coccinelle", pacman: "coccinelle", optional: true},
	{what: "shell linter", bin: "shellcheck", apt: "shellcheck", dnf: "ShellCheck", pacman: "shellcheck", optional: true},
}

// Missing is one thing that is not there.
type Missing struct {
	What     string   // in words
	Packages []string // Debian's names of what brings it
	Optional bool

	// Other distributions' names, where they are not Debian's.
	dnf, pacman string
}

// Check looks for everything and returns what is missing, nothing when the
// machine is ready.
func Check(ctx context.Context) []Missing {
	var out []Missing
	for _, n := range needs {
		ok := false
		if n.bin != "" {
			ok = FindTool(n.bin) != ""
		} else {
			ok = hasHeader(ctx, n.header)
		}
		if !ok {
			out = append(out, Missing{What: n.what, Packages: []string{n.apt}, Optional: n.optional, dnf: n.dnf, pacman: n.pacman})
		}
	}
	return out
}

// FindTool is exec.LookPath that also looks where a plain user's PATH does not:
// nft, ip and modprobe live in sbin. It returns "" when there is no such tool.
func FindTool(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, d := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

func hasHeader(ctx context.Context, header string) bool {
	cmd := exec.CommandContext(ctx, "gcc", "-E", "-x", "c", "-o", os.DevNull, "-")
	cmd.Stdin = strings.NewReader("#include <" + header + ">\n")
	return cmd.Run() == nil
}

// Packages are the Debian packages that bring what is missing, each once.
func Packages(missing []Missing) []string {
	return names(missing, func(Missing) string { return "" })
}

// names collects the packages, by the name that other gives them or else by
// Debian's.
func names(missing []Missing, other func(Missing) string) []string {
	var out []string
	for _, m := range missing {
		if n := other(m); n != "" {
			out = append(out, n)
		} else {
			out = append(out, m.Packages...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Required are the words for what the pipeline cannot do without.
func Required(missing []Missing) []string {
	var out []string
	for _, m := range missing {
		if !m.Optional {
			out = append(out, m.What)
		}
	}
	return out
}

// Remedy is the one command that mends this machine.
func Remedy(missing []Missing) string {
	switch {
	case FindTool("apt-get") != "":
		return sudo() + "apt-get install --no-install-recommends " + strings.Join(Packages(missing), " ")
	case FindTool("dnf") != "":
		return "sudo dnf install " + strings.Join(names(missing, func(m Missing) string { return m.dnf }), " ")
	case FindTool("pacman") != "":
		return "sudo pacman -S --needed " + strings.Join(names(missing, func(m Missing) string { return m.pacman }), " ")
	}
	return "install, by whatever means this system has: " + strings.Join(Packages(missing), " ")
}

func sudo() string {
	if os.Geteuid() == 0 {
		return ""
	}
	return "sudo "
}

// ErrNotDebian is returned by Install where there is no apt.
var ErrNotDebian = errors.New("packages are installed for you on Debian and its kin only")

// Install installs what is missing with apt, and nothing else.
func Install(ctx context.Context, missing []Missing, out io.Writer) error {
	if len(missing) == 0 {
		return nil
	}
	if FindTool("apt-get") == "" {
		return fmt.Errorf("%w; here: %s", ErrNotDebian, Remedy(missing))
	}
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, Packages(missing)...),
	} {
		name, argv := "apt-get", args
		if os.Geteuid() != 0 {
			name, argv = "sudo", append([]string{"apt-get"}, args...)
		}
		cmd := exec.CommandContext(ctx, name, argv...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", name, strings.Join(argv, " "), err)
		}
	}
	return nil
}
