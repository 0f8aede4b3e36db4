// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

const (
	// helloWait is how long a kernel may take to its init's hello, on real
	// hardware; it is scaled. A boot takes two seconds under TCG.
	helloWait = 20 * time.Second
	// proofWait is how long a machine of which nobody knows whether its KVM
	// works gets. A boot with KVM takes half a second.
	proofWait = 5 * time.Second
	// firstWait is how long the first command may take.
	firstWait = 10 * time.Second
	// restartWait is how long a kernel may take from the end of its panic to
	// its restart.
	restartWait = time.Second
	// earlyWait bounds the second boot of a kernel that said nothing.
	earlyWait = 15 * time.Second
)

// panicEnd is in the last line of a kernel that panicked and stays.
const panicEnd = "---[ end Kernel panic"

// options are for the machine of a test; its accelerator is open while nobody
// knows whether KVM works.
func (e *Engine) options(ctx context.Context, k Kernel, t Test) (o qemu.Options, err error) {
	host, err := e.Host(ctx)
	if err != nil {
		return o, err
	}
	initrd, err := e.Prepare(ctx)
	if err != nil {
		return o, err
	}
	o = qemu.Options{Host: host, Kernel: k.Image, Initrd: initrd, Memory: e.GuestMemory(k.Flavor, t.Memory), CPUs: t.VCPUs, ICount: t.ICount, Append: e.kargs}
	if k.Vmlinux != "" && k.Flavor != debugFlavor {
		// What PVH calls before the kernel has its page tables would
		// look for KASAN's shadow there.
		o.Kernel = k.Vmlinux
	}
	o.CPUs = max(o.CPUs, 1)
	if k.Flavor == debugFlavor {
		if o.ICount == 0 {
			o.CPUs = max(o.CPUs, debugVCPUs)
		} else {
			o.ICount = max(o.ICount-debugICount, 1)
		}
	}
	if _, err := os.Stat(o.Kernel); err != nil {
		return o, &InfraError{Kind: KindStart, Err: fmt.Errorf("no kernel to boot: %w", err)}
	}
	o.Accel, err = e.known(ctx)
	return o, err
}

// start starts a machine, and brings it to its first answered command.
func (e *Engine) start(ctx context.Context, k Kernel, o qemu.Options, dir string) (*machine, error) {
	if o.Accel == "" {
		// One boot finds out; the others wait for its answer.
		e.proving.Lock()
		defer e.proving.Unlock()
		var err error
		if o.Accel, err = e.known(ctx); err != nil {
			return nil, err
		}
	}
	if o.Accel != "" {
		return e.ready(ctx, k, o, dir)
	}
	return e.prove(ctx, k, o, dir)
}

// known is what will run the guests, as asked for or as the machine has shown;
// "" while nobody knows whether its KVM works.
func (e *Engine) known(ctx context.Context) (qemu.Accel, error) {
	switch e.Accel {
	case string(qemu.KVM), string(qemu.TCG):
		return qemu.Accel(e.Accel), nil
	case "", "auto":
	default:
		return "", &InfraError{Kind: KindStart, Err: fmt.Errorf("unknown accelerator %q; known: kvm, tcg", e.Accel)}
	}
	host, err := e.Host(ctx)
	if err != nil {
		return "", err
	}
	if !host.KVM {
		return qemu.TCG, nil
	}
	return e.knownAccel(host), nil
}

// prove boots with KVM, because nothing less shows whether KVM works: it may
// open, make a machine, and run a guest that never gets anywhere.
func (e *Engine) prove(ctx context.Context, k Kernel, o qemu.Options, dir string) (*machine, error) {
	o.Accel = qemu.KVM
	m, err := e.bootOnce(ctx, k, o, dir, proofWait*time.Duration(scale(o.Accel, k.Flavor)))
	if err == nil {
		if err := e.rememberAccel(ctx, o.Host, qemu.KVM); err != nil {
			m.discard()
			return nil, err
		}
		return m, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	o.Accel = qemu.TCG
	m, err = e.bootOnce(ctx, k, o, dir, e.helloWait(o.Accel, k.Flavor))
	if err != nil {
		// It is the kernel that does not boot; of KVM nothing was learnt.
		return nil, err
	}
	if err := e.rememberAccel(ctx, o.Host, qemu.TCG); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// The answer holds for the machine until it is booted anew, for this
// processor and QEMU: a KVM that did not run a kernel which TCG did run is the
// machine's fault, not that kernel's.
func accelKey(h *qemu.Host) store.Key {
	return store.NewKey("accel").Str("cpu", h.CPU).Str("qemu", h.Version).Str("boot", h.BootID).Key()
}

const accelStage, accelFile = "accel", "accel"

func (e *Engine) knownAccel(h *qemu.Host) qemu.Accel {
	if e.Store == nil {
		return ""
	}
	entry, err := e.Store.Lookup(accelStage, accelKey(h))
	if err != nil || entry == nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(entry.Dir, accelFile))
	if err != nil {
		return ""
	}
	switch a := qemu.Accel(strings.TrimSpace(string(b))); a {
	case qemu.KVM, qemu.TCG:
		return a
	}
	return ""
}

func (e *Engine) rememberAccel(ctx context.Context, h *qemu.Host, a qemu.Accel) error {
	if e.Store == nil {
		return nil
	}
	_, err := e.Store.Do(ctx, accelStage, accelKey(h), func(_ context.Context, dir string, log io.Writer) error {
		fmt.Fprintf(log, "%s, QEMU %s: %s\n", h.CPU, h.Version, a)
		return os.WriteFile(filepath.Join(dir, accelFile), []byte(a+"\n"), 0o644)
	})
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	return nil
}

// bootOnce boots with the accelerator in o and waits for the first answered
// command.
func (e *Engine) bootOnce(ctx context.Context, k Kernel, o qemu.Options, dir string, wait time.Duration) (*machine, error) {
	m, err := e.open(ctx, o, dir, nil, agent.NewClient)
	if err != nil {
		return nil, err
	}
	hello, err := m.hello(ctx, wait)
	if err == nil {
		m.release = hello.Release
		if err := m.fits(k, o); err != nil {
			return nil, err
		}
		if err = m.bootLog(ctx); err == nil {
			return m, nil
		}
	}
	return nil, e.bootFailed(ctx, m, o, err, wait)
}

// fits ends a machine that runs another kernel than it should.
func (m *machine) fits(k Kernel, o qemu.Options) error {
	if k.Release == "" || m.release == k.Release {
		return nil
	}
	m.discard()
	return &InfraError{Kind: KindStart, Err: fmt.Errorf("booted kernel %s, expected %s: %s is stale", m.release, k.Release, o.Kernel)}
}

// open starts QEMU, its console into dir behind what is there from the boot.
func (e *Engine) open(ctx context.Context, o qemu.Options, dir string, boot []byte, client func(net.Conn) *agent.Client) (*machine, error) {
	path := filepath.Join(dir, ConsoleFile)
	console, err := newCapped(path, consoleCap)
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	_, _ = console.Write(boot) // its error comes with Close
	o.Console = withoutCR{console}
	vm, err := qemu.Start(ctx, o)
	if err != nil {
		_ = console.Close()
		return nil, &InfraError{Kind: KindStart, Err: err, Console: path, Tail: console.Tail(tailLines)}
	}
	m := &machine{vm: vm, client: client(vm.Agent), console: console, accel: o.Accel, options: o}
	if err := os.WriteFile(filepath.Join(dir, CmdlineFile), []byte(vm.Cmdline()+"\n"), 0o644); err != nil {
		m.discard()
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	return m, nil
}

// hello waits for init, and for its answer to a first command.
func (m *machine) hello(ctx context.Context, wait time.Duration) (hello helloInfo, err error) {
	hctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// A panic before the kernel has read panic=-1 leaves it standing there.
	stands := m.console.Seen(panicEnd)
	go func() {
		select {
		case <-m.vm.Done():
		case <-stands:
			select { // unless it restarts after all
			case <-m.vm.Done():
			case <-time.After(restartWait):
			}
		case <-hctx.Done():
			return
		}
		m.client.Close()
	}()
	h, err := m.client.Hello(hctx)
	if err != nil {
		return helloInfo{}, err
	}
	fctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	if _, err := m.client.Probe(fctx); err != nil {
		return helloInfo{}, err
	}
	m.startSeconds = time.Since(m.vm.Started).Seconds()
	return helloInfo{Release: h.Release}, nil
}

// bootLog puts the kernel's whole boot log into the console's. The virtio
// console comes up late in a boot, and the driver drops what the kernel then
// replays to it (hvc has no port to write to before hvc_alloc returns); a
// warning in those lines must not be lost.
func (m *machine) bootLog(ctx context.Context) error {
	lctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	const mark = "nftvm: init is ready"
	seen := m.console.Seen(mark)
	if err := m.client.Mark(lctx, mark); err != nil {
		return err
	}
	var log strings.Builder
	if err := m.client.Dmesg(lctx, &log, consoleCap/2); err != nil {
		return err
	}
	select {
	case <-seen:
		m.console.Rebase(mark, level.ReplaceAllString(log.String(), ""))
		return nil
	case <-m.vm.Done():
		return agent.ErrClosed
	case <-lctx.Done():
		return fmt.Errorf("waiting for the console to show %q: %w", mark, context.Cause(lctx))
	}
}

// level is what the kernel's buffer puts before a line.
var level = regexp.MustCompile(`(?m)^<\d+>`)

type helloInfo struct{ Release string }

// bootFailed says whose fault it is that there is no hello.
func (e *Engine) bootFailed(ctx context.Context, m *machine, o qemu.Options, cause error, wait time.Duration) error {
	defer func() { _ = m.console.Close() }()
	if ctx.Err() != nil {
		m.close()
		return context.Cause(ctx)
	}
	if errors.Is(cause, agent.ErrClosed) && !strings.Contains(m.console.Text(), panicEnd) {
		m.settle()
	}
	ended := !m.alive()
	var registers string
	if !ended {
		rctx, cancel := context.WithTimeout(ctx, settleWait)
		registers, _ = m.vm.Registers(rctx)
		cancel()
	}
	garbled := errors.Is(cause, agent.ErrGarbled)
	fault := m.fault(cause)
	m.close()
	exit := m.vm.Exit()
	switch {
	case ended && exit.Kind == qemu.Died, garbled && !ended:
		return fault
	}
	said := strings.TrimSpace(m.console.Text()) != ""
	be := &BootError{Console: m.console.f.Name(), Tail: m.console.Tail(tailLines)}
	switch {
	case ended:
		be.Why = "the kernel stopped before init said hello"
	default:
		be.Why = fmt.Sprintf("no hello from init within %v (%s)", wait, o.Accel)
		fmt.Fprintf(m.console, "\n[nftvm: registers at the deadline]\n%s\n", registers)
	}
	if !said {
		e.bootAloud(ctx, o, m.console)
		be.Tail = m.console.Tail(tailLines)
	}
	if s := splat.Find(m.console.Text()); len(s) > 0 {
		be.Why += ": " + s[0].Title
	}
	return store.KernelFault(be)
}

// bootAloud boots once more with the early console, for a kernel that ended
// before it had any other to speak on.
func (e *Engine) bootAloud(ctx context.Context, o qemu.Options, console *capped) {
	o.EarlyConsole = true
	o.Console = withoutCR{console}
	fmt.Fprintf(console, "[nftvm: the console said nothing; the same boot with earlyprintk follows]\n")
	vm, err := qemu.Start(ctx, o)
	if err != nil {
		fmt.Fprintf(console, "[nftvm: %v]\n", err)
		return
	}
	defer vm.Close()
	c := agent.NewClient(vm.Agent)
	defer c.Close()
	ectx, cancel := context.WithTimeout(ctx, earlyWait)
	defer cancel()
	select {
	case <-vm.Done():
	case <-console.Seen(panicEnd):
	case <-ectx.Done():
	}
}
