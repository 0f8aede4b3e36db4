// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/image"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

// Files that Run leaves in a test's directory.
const (
	OutputFile  = "output.log"
	ConsoleFile = "console.log"
	CmdlineFile = "qemu.cmdline"
	// Of a test that is no pass, what its machine could still say: the
	// kernel's buffer, and its state before and after the test.
	DmesgFile = "dmesg.log"
	StateFile = "state.json"
	TraceFile = "trace.log"
)

// Engine runs tests. It may run several at once. Do not copy it.
type Engine struct {
	// Store keeps the image and what was learnt about accelerators.
	Store *store.Store
	// Image is the initramfs; "" builds it from this host's tools.
	Image string
	// Accel is "kvm", "tcg", or "" for the best that boots.
	Accel string
	// QEMU is the binary; "" is qemu.DefaultBinary.
	QEMU string
	// Memory of a guest in MiB, of any flavor; 0 is 256, and three times as much
	// for debug kernels.
	Memory int

	// Loaded has the tests of a kernel share a snapshot that has its modules
	// already. It pays where there are several.
	Loaded bool
	// Keep stops a test at its first failure and saves its machine there;
	// see At.
	Keep bool
	// Boot has every test boot a kernel of its own, and uses no snapshot.
	Boot bool

	// boots is helloWait and kargs are kernel parameters, both for tests.
	boots time.Duration
	kargs []string

	mu      sync.Mutex
	unfit   map[store.Key]bool // snapshots that cannot be made
	host    *qemu.Host
	proving sync.Mutex // held by the one boot that finds out about KVM
}

// Host describes the machine, probing it at the first call.
func (e *Engine) Host(ctx context.Context) (*qemu.Host, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.host == nil {
		h, err := qemu.Probe(ctx, e.QEMU)
		if err != nil {
			return nil, &InfraError{Kind: KindNoQEMU, Err: err}
		}
		e.host = h
	}
	return e.host, nil
}

// Prepare builds the image, if Image names none. Run does it, too; calling it
// first gives the stage its own place in the progress.
func (e *Engine) Prepare(ctx context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Image == "" {
		img, err := image.Build(ctx, e.Store)
		if err != nil {
			return "", &InfraError{Kind: KindImage, Err: err}
		}
		e.Image = img.Path
	}
	return e.Image, nil
}

// debugFlavor is the kernel that checks itself: slower, bigger, and with more
// than one processor, because races are what it is there to find.
const (
	debugFlavor = "debug"
	plainMemory = 256
	debugMemory = 768
	debugVCPUs  = 2
	// debugICount: a debug kernel takes some 2^3 times as many instructions.
	debugICount = 3
	// debugDeadlineMS is what a debug kernel on a busy host may take for
	// something that happens at once elsewhere.
	debugDeadlineMS = "120000"
)

// GuestMemory is what a guest of the flavor gets, in MiB, for a test that wants so
// much of a plain kernel's; 0 is as much as most do.
func (e *Engine) GuestMemory(flavor string, want int) int {
	if want == 0 {
		want = cmp.Or(e.Memory, plainMemory)
	}
	if flavor == debugFlavor && e.Memory == 0 {
		want *= debugMemory / plainMemory
	}
	return want
}

// scale is how much slower than real hardware a guest may be.
func scale(accel qemu.Accel, flavor string) int {
	n := 1
	if accel == qemu.TCG {
		n = 3
	}
	if flavor == debugFlavor {
		n *= 4
	}
	return n
}

func (e *Engine) helloWait(accel qemu.Accel, flavor string) time.Duration {
	d := e.boots
	if d == 0 {
		d = helloWait
	}
	return d * time.Duration(scale(accel, flavor))
}

// Run boots a machine of its own for the test, delivers what it needs, runs
// it and judges. dir gets the logs. The error is an *InfraError if the harness
// failed, a *BootError if the kernel did before the test began, or ctx's. A test
// that is skipped under the accelerator does not boot where that is known.
func (e *Engine) Run(ctx context.Context, k Kernel, t Test, dir string) (Result, error) {
	accel, err := e.known(ctx)
	if err != nil {
		return Result{Name: t.Name}, err
	}
	if why := t.SkipUnder[string(accel)]; why != "" {
		return Result{Name: t.Name, Verdict: Skip, Reason: why, Accel: string(accel)}, nil
	}
	res := Result{Name: t.Name, Log: filepath.Join(dir, OutputFile), Console: filepath.Join(dir, ConsoleFile)}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return res, &InfraError{Kind: KindIO, Err: err}
	}
	output, err := newCapped(res.Log, outputCap)
	if err != nil {
		return res, &InfraError{Kind: KindIO, Err: err}
	}
	defer func() { _ = output.Close() }()

	m, err := e.machine(ctx, k, t, dir)
	if err != nil {
		return res, err
	}
	defer m.discard()
	res.Accel, res.Cmdline, res.StartSeconds = string(m.accel), m.vm.Cmdline(), m.startSeconds
	if why := t.SkipUnder[res.Accel]; why != "" {
		// Only this boot has shown what it is.
		res.Verdict, res.Reason = Skip, why
		return res, nil
	}

	t.StopAtFailure = t.StopAtFailure || e.Keep
	r := &run{m: m, k: k, t: t, out: output, res: &res, scale: scale(m.accel, k.Flavor)}
	err = r.do(ctx)
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	if err != nil {
		return res, err
	}
	if res.Verdict != Pass && res.Verdict != Skip {
		// The verdict stands without.
		if err := r.evidence(ctx, dir); err != nil {
			res.Reason += fmt.Sprintf("; what else there was to see is not written: %v", err)
		}
	}
	if e.Keep && m.alive() && slices.Contains([]Verdict{Fail, Leak, Timeout}, res.Verdict) {
		if err := e.keep(ctx, m, k, t, dir); err != nil {
			res.Reason += fmt.Sprintf("; its machine could not be kept: %v", err)
		} else {
			res.Kept = true
		}
	}
	m.close()
	if err := errors.Join(output.Close(), m.console.Close()); err != nil {
		return res, &InfraError{Kind: KindIO, Err: err}
	}
	return res, nil
}

// machine is a guest that has said hello.
type machine struct {
	vm      *qemu.VM
	options qemu.Options
	loaded  bool // it has its kernel's modules
	release string
	// probed is the state in which it was saved.
	probed       *wire.Probe
	client       *agent.Client
	console      *capped
	accel        qemu.Accel
	startSeconds float64
	once         sync.Once
}

// alive says whether QEMU still runs.
func (m *machine) alive() bool {
	select {
	case <-m.vm.Done():
		return false
	default:
		return true
	}
}

// diedOf is what the machine's kernel died of, nil if it did not.
func (m *machine) diedOf() *splat.Splat {
	if m.alive() || m.vm.Exit().Kind != qemu.Reset {
		return nil
	}
	return firstFatal(splat.Find(m.console.Text()))
}

// within bounds a wait that may take d on real hardware.
func (m *machine) within(ctx context.Context, k Kernel, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d*time.Duration(scale(m.accel, k.Flavor)))
}

// discard ends the machine and its console's log.
func (m *machine) discard() {
	m.close()
	_ = m.console.Close()
}

func (m *machine) close() {
	m.once.Do(func() {
		m.client.Close()
		m.vm.Close()
	})
}

// manualDir is where a guest finds the modules that were built by hand.
const manualDir = "/lib/nftvm/manual"

// payload is what the guest gets after its hello: the same for a machine that
// was booted and for one that was restored.
func payload(k Kernel, more []File) ([]agent.File, error) {
	var files []agent.File
	for _, tree := range []struct{ host, guest string }{
		{k.Modules, "/"},
		{k.Manual, manualDir},
	} {
		if tree.host == "" {
			continue
		}
		f, err := agent.Tree(tree.host, tree.guest)
		if err != nil {
			return nil, err
		}
		files = append(files, f...)
	}
	return append(files, more...), nil
}

// fault makes the error for a machine whose channel broke: of all that may
// have happened, the machine's own end tells most.
func (m *machine) fault(err error) error {
	kind := channelKind(err)
	if ctxErr(err) {
		kind = KindAgent
	}
	if !m.alive() {
		exit := m.vm.Exit()
		switch exit.Kind {
		case qemu.Died:
			kind = KindDied
		case qemu.Reset, qemu.Shutdown:
			kind = KindRebooted
		}
		err = fmt.Errorf("%s (%w)", exit, err)
	}
	return &InfraError{Kind: kind, Err: err, Console: m.console.f.Name(), Tail: m.console.Tail(tailLines)}
}

func ctxErr(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// settle gives a machine whose channel broke the time to end, so that its end
// can be read. A machine that goes on after that had a broken channel only.
func (m *machine) settle() bool {
	select {
	case <-m.vm.Done():
		return true
	case <-time.After(settleWait):
		return false
	}
}

// settleWait is how long a machine may take from closing its channel to its
// own end.
const settleWait = 3 * time.Second
