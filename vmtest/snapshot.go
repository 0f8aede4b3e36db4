// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

// A snapshot is a kernel that has booted and answered a first command. It has been
// given nothing yet, or, made from such a one, modules and what a setup did.
const snapshotStage = "snapshot"

const (
	ramFile   = "ram"
	stateFile = "state"
	// probeFile is what the machine was like when it was saved.
	probeFile = "probe.json"
)

const (
	// saveWait bounds the writing of a machine's state, without its memory.
	saveWait = 10 * time.Second
	// restoreWait bounds QEMU's start to the guest's first answer, on real
	// hardware.
	restoreWait = 5 * time.Second
)

const (
	// snapshotsMost is what they may take in the store, in bytes.
	snapshotsMost = 12 << 30
	// snapshotsKeep is how long one stays that may be in use.
	snapshotsKeep = time.Hour
)

// entropyBytes is what the kernel's random numbers are seeded with.
const entropyBytes = 64

// ready gives a machine that has answered its first command: a copy of the one
// that was saved, or a boot where none can be.
func (e *Engine) ready(ctx context.Context, k Kernel, o qemu.Options, dir string) (m *machine, err error) {
	entry, err := e.base(ctx, k, o, dir)
	if err == nil {
		m, err = e.restore(ctx, k, o, entry, dir)
	}
	if errors.Is(err, errUnfit) {
		return e.bootOnce(ctx, k, o, dir, e.helloWait(o.Accel, k.Flavor))
	}
	return m, err
}

// saves says whether machines like that are saved and restored.
func (e *Engine) saves(o qemu.Options) bool {
	// A clock that counts instructions begins with the first.
	return o.Accel != "" && e.Store != nil && !e.Boot && o.ICount == 0
}

// errUnfit is a machine that must not be copied: its kernel complained, or did
// not get so far. What one boot does is no more than that, so each test has one
// of its own then.
var errUnfit = errors.New("not fit to be copied")

func (e *Engine) isUnfit(key store.Key) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unfit[key]
}

// make makes a snapshot, and remembers one that cannot be.
func (e *Engine) make(ctx context.Context, key store.Key, fn store.MakeFunc) (*store.Entry, error) {
	if e.isUnfit(key) {
		return nil, errUnfit
	}
	entry, err := e.snapshot(ctx, key, fn)
	var be *BootError
	if errors.Is(err, errUnfit) || errors.As(err, &be) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.unfit == nil {
			e.unfit = map[store.Key]bool{}
		}
		e.unfit[key] = true
	}
	return entry, err
}

// base is the snapshot of a kernel that has booted. Its error is errUnfit where
// there can be none.
func (e *Engine) base(ctx context.Context, k Kernel, o qemu.Options, dir string) (*store.Entry, error) {
	if !e.saves(o) {
		return nil, errUnfit
	}
	key, err := e.snapshotKey(ctx, o)
	if err != nil {
		return nil, &InfraError{Kind: KindStart, Err: err}
	}
	return e.make(ctx, key, func(ctx context.Context, tmp string, log io.Writer) error {
		fmt.Fprintf(log, "booting %s %s\n", k.Release, o.Kernel)
		so := o
		so.RAM = filepath.Join(tmp, ramFile)
		m, err := e.bootOnce(ctx, k, so, dir, e.helloWait(o.Accel, k.Flavor))
		if err != nil {
			return err
		}
		return e.save(ctx, k, m, tmp)
	})
}

// snapshot makes a snapshot, if there is none.
func (e *Engine) snapshot(ctx context.Context, key store.Key, fn store.MakeFunc) (*store.Entry, error) {
	entry, err := e.Store.Do(ctx, snapshotStage, key, fn)
	var se *store.StageError
	switch {
	case err == nil && entry.Cached:
		return entry, nil
	case err == nil:
		// They are large, and a bisection makes many. What cannot be
		// removed now is no fault of this test.
		_ = e.Store.Trim(snapshotStage, snapshotsMost, snapshotsKeep)
		return entry, nil
	case errors.As(err, &se):
		return nil, se.Err
	case ctx.Err() != nil:
		return nil, err
	}
	return nil, &InfraError{Kind: KindIO, Err: err}
}

// snapshotKey is over all that a machine's state depends on.
func (e *Engine) snapshotKey(ctx context.Context, o qemu.Options) (store.Key, error) {
	k := store.NewKey(snapshotStage).Str("format", "4").
		Str("qemu", o.Host.Binary+" "+o.Host.Build).Str("cpu", o.Host.CPU).Str("machine", o.Machine()).
		// Its memory is a file of who runs QEMU.
		Str("user", o.Host.User())
	if o.Accel == qemu.KVM {
		k.Str("boot", o.Host.BootID) // the processor's microcode, the host's KVM
	}
	// A build with other modules has another name, and the same kernel.
	kernel, err := e.content(ctx, o.Kernel)
	if err != nil {
		return "", err
	}
	initrd, err := e.fileSum(o.Initrd)
	if err != nil {
		return "", err
	}
	return k.Str("file", kernel).Str("file", initrd).Key(), nil
}

// content is the sum of a file that is asked for by every command.
func (e *Engine) content(ctx context.Context, path string) (string, error) {
	if !e.Store.Names(path) {
		return e.fileSum(path)
	}
	key := store.NewKey(sumStage).Str("path", path).Key()
	entry, err := e.Store.Do(ctx, sumStage, key, func(_ context.Context, dir string, _ io.Writer) error {
		sum, err := store.FileSum(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, sumStage), []byte(sum), 0o644)
	})
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(entry.Dir, sumStage))
	return string(sum), err
}

// sumStage keeps the sums of files in other entries.
const sumStage = "sum"

// fileSum tells files apart by content. The store's are named by what they are
// made of.
func (e *Engine) fileSum(path string) (string, error) {
	if e.Store.Names(path) {
		return path, nil
	}
	return store.FileSum(path)
}

// saved is what probeFile has.
type saved struct {
	Release string
	Probe   *wire.Probe
}

// save puts a machine into tmp, and ends it.
func (e *Engine) save(ctx context.Context, k Kernel, m *machine, tmp string) error {
	defer m.discard()
	sctx, cancel := m.within(ctx, k, saveWait)
	defer cancel()
	const what = "the kernel stopped soon after init said hello"
	probe, err := m.client.Probe(sctx)
	if err != nil {
		return m.died(err, what)
	}
	state, err := json.Marshal(saved{m.release, probe})
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	if err := m.vm.Save(sctx, filepath.Join(tmp, stateFile)); err != nil {
		return m.died(err, what)
	}
	// Only now has it said all that it will.
	text := m.console.Text()
	if len(splat.Find(text)) > 0 || probe.Taint != 0 {
		return errUnfit
	}
	for name, content := range map[string][]byte{ConsoleFile: []byte(text), probeFile: state} {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o644); err != nil {
			return &InfraError{Kind: KindIO, Err: err}
		}
	}
	return nil
}

// restore makes a machine of a snapshot: with a copy of its memory, unless o names
// one.
func (e *Engine) restore(ctx context.Context, k Kernel, o qemu.Options, from *store.Entry, dir string) (*machine, error) {
	if o.RAM == "" {
		o.RAM = filepath.Join(from.Dir, ramFile)
	}
	o.State = filepath.Join(from.Dir, stateFile)
	boot, err := os.ReadFile(filepath.Join(from.Dir, ConsoleFile))
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	var was saved
	raw, err := os.ReadFile(filepath.Join(from.Dir, probeFile))
	if err == nil {
		err = json.Unmarshal(raw, &was)
	}
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	m, err := e.open(ctx, o, dir, boot, agent.NewClient)
	if errors.Is(err, qemu.ErrState) {
		// Of another QEMU, or broken on the disk: nobody can use it.
		if derr := e.Store.Drop(snapshotStage, from.Key); derr != nil {
			return nil, &InfraError{Kind: KindIO, Err: derr}
		}
		return nil, errUnfit
	}
	if err != nil {
		return nil, err
	}
	m.release, m.probed = was.Release, was.Probe
	if err := m.fits(k, o); err != nil {
		return nil, err
	}
	if err := m.wake(ctx, k, from.Dir); err != nil {
		return nil, err
	}
	return m, nil
}

// wake gets the first answer of a machine that goes on, and makes it another
// than its siblings. It ends a machine that does not answer.
func (m *machine) wake(ctx context.Context, k Kernel, from string) error {
	rctx, cancel := m.within(ctx, k, restoreWait)
	defer cancel()
	seed := make([]byte, entropyBytes)
	_, err := rand.Read(seed)
	if err == nil {
		err = m.client.Ping(rctx)
	}
	if err == nil {
		m.startSeconds = time.Since(m.vm.Started).Seconds()
		err = m.client.Fresh(rctx, seed, time.Now())
	}
	if err == nil {
		return nil
	}
	defer m.discard()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.died(fmt.Errorf("a machine restored from %s: %w", from, err), "the kernel stopped soon after it was restored")
}

// died says whose fault it is that a machine which had answered does not any
// more.
func (m *machine) died(err error, why string) error {
	if errors.Is(err, agent.ErrClosed) {
		m.settle()
	}
	if s := m.diedOf(); s != nil {
		return store.KernelFault(&BootError{Why: why + ": " + s.Title, Console: m.console.f.Name(), Tail: m.console.Tail(tailLines)})
	}
	return m.fault(err)
}

// copySparse copies a file without its holes.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = out.Truncate(st.Size())
	for at := int64(0); err == nil; {
		var data, hole int64
		if data, err = in.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			err = nil // holes only, from here on
			break
		}
		if err == nil {
			hole, err = in.Seek(data, unix.SEEK_HOLE)
		}
		if err == nil {
			_, err = in.Seek(data, io.SeekStart)
		}
		if err == nil {
			_, err = out.Seek(data, io.SeekStart)
		}
		if err == nil {
			_, err = io.CopyN(out, in, hole-data)
		}
		at = hole
	}
	return errors.Join(err, out.Close())
}
