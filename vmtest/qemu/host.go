// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Accel is how QEMU runs the guest's instructions.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm"
	TCG Accel = "tcg"
)

// arg is the -accel option. TCG would set half the host's memory aside for
// translated code; a guest of ours fills a tenth of this.
func (a Accel) arg() string {
	if a == TCG {
		return "tcg,tb-size=128"
	}
	return string(a)
}

func (a Accel) cpu() string {
	if a == KVM {
		return "host"
	}
	// Translating code and walking tables cost TCG the most; a fifth level
	// of page tables is one more for every miss.
	return "max,-la57"
}

// DefaultBinary is the QEMU that is looked for in PATH.
const DefaultBinary = "qemu-system-x86_64"

// Host is what there is on this machine to run guests with.
type Host struct {
	Binary  string `json:"binary"`
	Version string `json:"version"` // QEMU's, as "7.2.22"
	Sandbox bool   `json:"sandbox"` // QEMU was built with seccomp
	CPU     string `json:"cpu"`     // model name
	KVM     bool   `json:"kvm"`     // /dev/kvm opens; whether it works is another matter
	BootID  string `json:"-"`       // of the host's own boot
	Build   string `json:"-"`       // tells one QEMU of a version from another

	nobody *syscall.Credential // who runs QEMU, nil for ourselves
}

// ErrNoQEMU is in the chain of the error for a machine without QEMU.
var ErrNoQEMU = errors.New("no QEMU")

// Probe looks at the machine. binary "" means DefaultBinary.
func Probe(ctx context.Context, binary string) (*Host, error) {
	if binary == "" {
		binary = DefaultBinary
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not in PATH; on Debian: apt install qemu-system-x86", ErrNoQEMU, binary)
	}
	h := &Host{Binary: path, nobody: lookupNobody()}
	ask := exec.CommandContext(ctx, path, "-version")
	ask.SysProcAttr = &syscall.SysProcAttr{Credential: h.nobody}
	out, err := ask.Output()
	if err != nil && h.nobody != nil {
		// In a user namespace, or from a directory that is root's.
		h.nobody = nil
		out, err = exec.CommandContext(ctx, path, "-version").Output()
	}
	if err != nil {
		return nil, fmt.Errorf("%w that runs: %s -version: %w", ErrNoQEMU, path, err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	h.Build = fmt.Sprint(strings.TrimSpace(string(out)), " ", st.Size(), " ", st.ModTime().UnixNano())
	_, rest, _ := strings.Cut(string(out), "version ")
	h.Version, _, _ = strings.Cut(rest, " ")
	h.Version = strings.TrimSpace(h.Version)
	h.Sandbox = exec.CommandContext(ctx, path, "-sandbox", "on", "-version").Run() == nil
	h.CPU = cpuModel()
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		h.KVM = true
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		h.BootID = strings.TrimSpace(string(id))
	}
	return h, nil
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
