// SPDX-License-Identifier: GPL-2.0-only

package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// tool is a program of the host that the guest gets.
type tool struct {
	name     string
	pkg      string // Debian package
	optional bool   // taken if there, not asked for
}

// The guest's programs, by Debian package.
var packages = []struct {
	pkg      string
	optional bool
	names    string
}{
	{"bash", false, "bash"},
	{"coreutils", false, "basename cat chmod chown comm cp cut date dd df dirname du echo env expr false " +
		"fold head id install ln ls md5sum sha1sum mkdir mkfifo mknod mktemp mv nl nproc numfmt od paste printf " +
		"pwd readlink realpath rm rmdir seq sha256sum shuf sleep sort split stat stdbuf stty sync tac tail tee " +
		"test timeout touch tr true truncate tty uname uniq wc yes"},
	{"grep", false, "grep egrep fgrep"},
	{"sed", false, "sed"},
	{"mawk", false, "awk"},
	{"diffutils", false, "cmp diff"},
	{"findutils", false, "find xargs"},
	{"procps", false, "ps pgrep pkill sysctl kill uptime free"},
	{"util-linux", false, "dmesg flock mount umount nsenter unshare setsid lscpu taskset"},
	{"kmod", false, "kmod depmod insmod lsmod modinfo modprobe rmmod"},
	{"iproute2", false, "bridge ip tc ss"},
	{"iputils-ping", false, "ping"},
	{"nftables", false, "nft"},
	{"conntrack", false, "conntrack"},
	{"ethtool", false, "ethtool"},
	{"socat", false, "socat"},
	{"iperf3", false, "iperf3"},
	{"netcat-openbsd", false, "nc"},
	{"debianutils", false, "which"},
	{"jq", false, "jq"},
	{"udev", false, "udevadm"},
	{"iproute2", true, "devlink nstat"},
	{"gawk", true, "gawk"},
}

func tools() []tool {
	var all []tool
	for _, p := range packages {
		for _, n := range strings.Fields(p.names) {
			all = append(all, tool{name: n, pkg: p.pkg, optional: p.optional})
		}
	}
	return all
}

// searchPath is where tools are looked for: users other than root often have
// no sbin in theirs.
func searchPath() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	return append(dirs, "/usr/sbin", "/sbin", "/usr/bin", "/bin")
}

// find returns the tool's file, "" if there is none.
func find(name string) string {
	for _, dir := range searchPath() {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// MissingError lists every tool that the image needs and this host lacks.
type MissingError struct {
	Tools    []string // in order
	Packages []string // Debian packages that have them
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the guest's image needs tools that are not here: %s; on Debian: apt install %s",
		strings.Join(e.Tools, ", "), strings.Join(e.Packages, " "))
}

// Check says whether everything an image is made of is there. Its error is a
// *MissingError that names all that is not.
func Check() error {
	missing := map[string]string{}
	for _, t := range tools() {
		if !t.optional && find(t.name) == "" {
			missing[t.name] = t.pkg
		}
	}
	if _, err := exec.LookPath("go"); err != nil {
		missing["go"] = "golang-go"
	}
	if len(missing) == 0 {
		return nil
	}
	e := &MissingError{}
	pkgs := map[string]bool{}
	for name, pkg := range missing {
		e.Tools = append(e.Tools, name)
		if !pkgs[pkg] {
			pkgs[pkg] = true
			e.Packages = append(e.Packages, pkg)
		}
	}
	sort.Strings(e.Tools)
	sort.Strings(e.Packages)
	return e
}
