// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

const ledgerPath = "/sys/kernel/debug/netdevsim/hwft_ledger"

func probe() *wire.Probe {
	p := &wire.Probe{Modules: modules(), NetNS: netNS()}
	p.Taint, _ = strconv.ParseUint(readTrimmed("/proc/sys/kernel/tainted"), 10, 64)
	if b, err := os.ReadFile(ledgerPath); err == nil {
		p.Ledger = map[string]int64{}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) != 2 {
				continue
			}
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				p.Ledger[f[0]] = n
			}
		}
	}
	return p
}

// modules reads /proc/modules: "name size refs holder,holder, state address".
func modules() map[string]wire.Module {
	out := map[string]wire.Module{}
	b, _ := os.ReadFile("/proc/modules")
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		refs, err := strconv.Atoi(f[2])
		if err != nil {
			// "-": a kernel that cannot unload modules counts no references.
			refs = 0
		}
		m := wire.Module{Refs: refs}
		for _, h := range strings.Split(f[3], ",") {
			if h != "" && h != "-" && !strings.HasPrefix(h, "[") {
				m.Holders++
			}
		}
		out[f[0]] = m
	}
	return out
}

// netNS names every network namespace but init's own: those that ip-netns
// pinned, and those only a process holds.
func netNS() []string {
	var out []string
	seen := map[string]bool{}
	own, _ := os.Readlink("/proc/self/ns/net")
	seen[own] = true
	named, _ := os.ReadDir("/run/netns")
	for _, n := range named {
		out = append(out, n.Name())
		var st syscall.Stat_t
		if syscall.Stat("/run/netns/"+n.Name(), &st) == nil {
			seen["net:["+strconv.FormatUint(st.Ino, 10)+"]"] = true
		}
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		ns, err := os.Readlink("/proc/" + p.Name() + "/ns/net")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		out = append(out, "of process "+p.Name()+" ("+readTrimmed("/proc/"+p.Name()+"/comm")+")")
	}
	return out
}

func (s *server) readFile(id uint32, path string, limit int64) *wire.Reply {
	f, err := os.Open(path)
	if err != nil {
		return errReply(err)
	}
	defer f.Close()
	r := &wire.Reply{}
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			r.Bytes += int64(n)
			dropped, serr := s.sendData(id, buf[:n], &limit)
			r.Dropped += dropped
			if serr != nil {
				return errReply(serr)
			}
			if dropped > 0 {
				return r // some files have no end
			}
		}
		if err == io.EOF {
			return r
		}
		if err != nil {
			return errReply(err)
		}
	}
}

func (s *server) dmesg(id uint32, limit int64) *wire.Reply {
	const actionReadAll, actionSize = 3, 10
	size, err := syscall.Klogctl(actionSize, nil)
	if err != nil {
		return errReply(os.NewSyscallError("syslog", err))
	}
	buf := make([]byte, size)
	n, err := syscall.Klogctl(actionReadAll, buf)
	if err != nil {
		return errReply(os.NewSyscallError("syslog", err))
	}
	r := &wire.Reply{Bytes: int64(n)}
	dropped, err := s.sendData(id, buf[:n], &limit)
	if err != nil {
		return errReply(err)
	}
	r.Dropped = dropped
	return r
}
