// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// device is one reason for some of QEMU's flags and of the kernel's
// parameters. Each type below is such a reason.
type device interface {
	args(fd func(*os.File) string) []string
	kargs() []string
}

// noExtras wants a machine with nothing in it that was not asked for: no
// network above all.
type noExtras struct{}

func (noExtras) args(func(*os.File) string) []string {
	return []string{"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"}
}
func (noExtras) kargs() []string { return nil }

// microvm is the machine with the least to probe. Its interrupt controller and
// timer stay the old ones: a guest without them wedges under TCG.
type microvm struct{ accel Accel }

func (m microvm) args(func(*os.File) string) []string {
	return []string{"-machine", "microvm,acpi=off,pic=on,pit=on,rtc=on,isa-serial=on",
		"-accel", m.accel.arg(), "-cpu", m.accel.cpu()}
}

// reboot=t: without ACPI and a keyboard controller a triple fault is the only
// way a restart, and so a panic, reaches QEMU.
func (microvm) kargs() []string { return []string{"reboot=t"} }

// size is the guest's memory and processors.
type size struct{ memory, cpus int }

func (s size) args(func(*os.File) string) []string {
	return []string{"-m", strconv.Itoa(s.memory) + "M", "-smp", strconv.Itoa(s.cpus)}
}
func (size) kargs() []string { return nil }

// memoryFile keeps the guest's memory in a file: shared with the file while a
// machine is made to be saved, copied on write when it is restored.
type memoryFile struct {
	path   string
	memory int
	shared bool
}

func (m memoryFile) args(func(*os.File) string) []string {
	share := "off"
	if m.shared {
		share = "on"
	}
	return []string{"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s,share=%s", m.memory, comma(m.path), share),
		"-machine", "memory-backend=ram"}
}
func (memoryFile) kargs() []string { return nil }

// ownMemory is in no file. It has the same name, by which a saved state that
// holds the memory, too, knows it.
type ownMemory struct{ memory int }

func (m ownMemory) args(func(*os.File) string) []string {
	return []string{"-object", fmt.Sprintf("memory-backend-ram,id=ram,size=%dM", m.memory), "-machine", "memory-backend=ram"}
}
func (ownMemory) kargs() []string { return nil }

// comma doubles the commas in a value, as QEMU wants them.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// incoming is a machine that begins where another was saved, once the monitor
// has said how.
type incoming struct{}

func (incoming) args(func(*os.File) string) []string { return []string{"-incoming", "defer"} }
func (incoming) kargs() []string                     { return nil }

// directBoot loads kernel and initramfs without firmware or disk.
type directBoot struct{ kernel, initrd string }

func (b directBoot) args(func(*os.File) string) []string {
	return []string{"-kernel", b.kernel, "-initrd", b.initrd}
}
func (directBoot) kargs() []string { return nil }

// exitOnPanic makes QEMU's end the end of a guest that panics or restarts.
type exitOnPanic struct{}

func (exitOnPanic) args(func(*os.File) string) []string { return []string{"-no-reboot"} }
func (exitOnPanic) kargs() []string                     { return []string{"panic=-1", "oops=panic"} }

// kernelConsole carries the kernel's own words, and sysrq to it.
type kernelConsole struct{ conn *os.File }

func (c kernelConsole) args(fd func(*os.File) string) []string {
	return []string{"-device", "virtio-serial-device,id=serial",
		"-chardev", "socket,id=console,fd=" + fd(c.conn),
		"-device", "virtconsole,chardev=console,bus=serial.0,nr=0"}
}
func (kernelConsole) kargs() []string { return []string{"console=hvc0"} }

// steadyClock gives a guest under TCG the clock that it cannot calibrate
// itself: this machine has neither HPET nor PM timer, and without the counter
// the guest falls back to jiffies, with sleeps of four milliseconds at least.
type steadyClock struct {
	accel  Accel
	cpus   int
	icount int
}

func (c steadyClock) args(func(*os.File) string) []string {
	if c.counted() {
		return []string{"-icount", "shift=" + strconv.Itoa(c.icount) + ",sleep=off"}
	}
	return nil
}

// counted says whether the guest's clock goes by instructions.
func (c steadyClock) counted() bool { return c.accel == TCG && c.icount > 0 }

// countedKHz is the rate of the time stamp counter then: one tick a nanosecond.
const countedKHz = 1_000_000

func (c steadyClock) kargs() []string {
	if c.accel != TCG {
		return nil // kvm-clock
	}
	var k []string
	khz := tscKHz()
	if c.counted() {
		khz = countedKHz
	}
	if khz > 0 {
		k = append(k, "tsc=reliable", "tsc_early_khz="+strconv.Itoa(khz))
	}
	// Waits for a few ticks of the PIT, and panics without them before there
	// is a console: on a busy host they may be late. KVM's guests skip it, too.
	k = append(k, "no_timer_check")
	if c.cpus == 1 {
		// Calibrating the local APIC's timer takes a fifth of a second,
		// and fails on a busy host: then the PIT is used, as it is here
		// from the start. With more processors each needs its own.
		k = append(k, "noapictimer")
	}
	return k
}

// sameAddresses puts every program where it was before. TCG keeps what it has
// translated by address, so with random ones each exec is translated anew: a
// loop of nft, ip and jq took nearly twice the host's time.
type sameAddresses struct{ accel Accel }

func (sameAddresses) args(func(*os.File) string) []string { return nil }
func (s sameAddresses) kargs() []string {
	if s.accel != TCG {
		return nil
	}
	return []string{"norandmaps"}
}

// earlyConsole shows what happens before the virtio console is up, one
// emulated port access per character: for a kernel that said nothing else.
type earlyConsole struct{ conn *os.File }

func (c earlyConsole) args(fd func(*os.File) string) []string {
	return []string{"-chardev", "socket,id=early,fd=" + fd(c.conn), "-serial", "chardev:early"}
}
func (earlyConsole) kargs() []string { return []string{"earlyprintk=ttyS0"} }

// agentPort is the channel to the guest's init.
type agentPort struct{ conn *os.File }

func (a agentPort) args(fd func(*os.File) string) []string {
	return []string{"-chardev", "socket,id=agent,fd=" + fd(a.conn),
		"-device", "virtserialport,chardev=agent,bus=serial.0,nr=1,name=" + wire.PortName}
}
func (agentPort) kargs() []string { return nil }

// monitor is QMP. QEMU gets a socket that listens already, so that nobody has
// to wait for one to appear.
type monitor struct{ listener *os.File }

func (m monitor) args(fd func(*os.File) string) []string {
	return []string{"-chardev", "socket,id=qmp,server=on,wait=off,fd=" + fd(m.listener),
		"-mon", "chardev=qmp,mode=control"}
}
func (monitor) kargs() []string { return nil }

// sandbox takes from QEMU what it does not need to run a guest.
type sandbox struct{}

func (sandbox) args(func(*os.File) string) []string {
	return []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
}
func (sandbox) kargs() []string { return nil }

// extraArgs are kernel parameters of the caller.
type extraArgs []string

func (extraArgs) args(func(*os.File) string) []string { return nil }
func (e extraArgs) kargs() []string                   { return e }

// nameAndArgs is the command line of the devices, without the binary.
func nameAndArgs(devices []device, fd func(*os.File) string) []string {
	var args, kargs []string
	for _, d := range devices {
		args = append(args, d.args(fd)...)
		kargs = append(kargs, d.kargs()...)
	}
	return append(args, "-append", strings.Join(kargs, " "))
}
