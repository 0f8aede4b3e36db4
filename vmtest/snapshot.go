// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
)

// A snapshot is a kernel that has booted and answered a first command, and has
// been given nothing yet: modules and tests come after the restore.
const snapshotStage = "snapshot"

const (
	ramFile   = "ram"
	stateFile = "state"
)

const (
	// saveWait bounds the writing of a machine's state, without its memory.
	saveWait = 10 * time.Second
	// restoreWait bounds QEMU's start to the guest's first answer, on real
	// hardware.
	restoreWait = 5 * time.Second
)

// entropyBytes is what the kernel's random numbers are seeded with.
const entropyBytes = 64

// ready gives a machine that has answered its first command: a copy of the one
// that was saved, or a boot where none can be.
func (e *Engine) ready(ctx context.Context, k Kernel, o qemu.Options, dir string) (*machine, error) {
	wait := e.helloWait(o.Accel, k.Flavor)
	// A clock that counts instructions begins with the first.
	if e.Store == nil || e.Boot || o.ICount != 0 {
		return e.bootOnce(ctx, k, o, dir, wait)
	}
	key, err := e.snapshotKey(o)
	if err != nil {
		return nil, &InfraError{Kind: KindStart, Err: err}
	}
	entry, err := e.Store.Do(ctx, snapshotStage, key, func(ctx context.Context, tmp string, log io.Writer) error {
		fmt.Fprintf(log, "booting %s %s\n", k.Release, o.Kernel)
		return e.save(ctx, k, o, dir, tmp, wait)
	})
	var se *store.StageError
	if errors.As(err, &se) {
		return nil, se.Err
	}
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	return e.restore(ctx, k, o, entry.Dir, dir)
}

// snapshotKey is over all that a machine's state depends on.
func (e *Engine) snapshotKey(o qemu.Options) (store.Key, error) {
	k := store.NewKey(snapshotStage).Str("format", "1").
		Str("qemu", o.Host.Binary+" "+o.Host.Version).Str("cpu", o.Host.CPU).Str("machine", o.Machine())
	for _, path := range []string{o.Kernel, o.Initrd} {
		sum, err := e.fileSum(path)
		if err != nil {
			return "", err
		}
		k.Str("file", sum)
	}
	return k.Key(), nil
}

// fileSum remembers the sums of files that are asked for again and again.
func (e *Engine) fileSum(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	id := fmt.Sprint(path, st.Size(), st.ModTime())
	e.mu.Lock()
	defer e.mu.Unlock()
	if sum, ok := e.sums[id]; ok {
		return sum, nil
	}
	sum, err := store.FileSum(path)
	if err != nil {
		return "", err
	}
	if e.sums == nil {
		e.sums = map[string]string{}
	}
	e.sums[id] = sum
	return sum, nil
}

// save boots a machine and puts it into tmp.
func (e *Engine) save(ctx context.Context, k Kernel, o qemu.Options, dir, tmp string, wait time.Duration) error {
	o.RAM = filepath.Join(tmp, ramFile)
	m, err := e.bootOnce(ctx, k, o, dir, wait)
	if err != nil {
		return err
	}
	defer func() { _ = m.console.Close() }()
	defer m.close()
	sctx, cancel := context.WithTimeout(ctx, saveWait*time.Duration(scale(o.Accel, k.Flavor)))
	defer cancel()
	text := m.console.Text()
	if err := m.vm.Save(sctx, filepath.Join(tmp, stateFile)); err != nil {
		return m.fault(err)
	}
	if err := os.WriteFile(filepath.Join(tmp, ConsoleFile), []byte(text), 0o644); err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	return nil
}

// restore makes a machine of a snapshot.
func (e *Engine) restore(ctx context.Context, k Kernel, o qemu.Options, from, dir string) (*machine, error) {
	o.RAM, o.State = filepath.Join(from, ramFile), filepath.Join(from, stateFile)
	boot, err := os.ReadFile(filepath.Join(from, ConsoleFile))
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	m, err := e.open(ctx, o, dir, boot)
	if err != nil {
		return nil, err
	}
	rctx, cancel := context.WithTimeout(ctx, restoreWait*time.Duration(scale(o.Accel, k.Flavor)))
	defer cancel()
	seed := make([]byte, entropyBytes)
	if _, err = rand.Read(seed); err == nil {
		_, err = m.client.Greet(rctx)
	}
	if err == nil {
		m.startSeconds = time.Since(m.vm.Started).Seconds()
		err = m.client.Fresh(rctx, seed, time.Now())
	}
	if err == nil {
		return m, nil
	}
	defer func() { _ = m.console.Close() }()
	defer m.close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, agent.ErrClosed) {
		m.settle()
	}
	return nil, m.fault(fmt.Errorf("a machine restored from %s: %w", from, err))
}
