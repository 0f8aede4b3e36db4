// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

// Guest is a machine for a person instead of a test.
type Guest struct {
	m *machine
	k Kernel
}

// GuestOptions say what a guest comes with.
type GuestOptions struct {
	// Files are put into it behind the kernel's modules.
	Files []File
	// Setup is a script among them that it runs before anybody gets it.
	Setup string
	// Memory in MiB and VCPUs; 0 is what a test of the flavor gets.
	Memory, VCPUs int
}

// setupWait is how long a guest's setup may take, on real hardware.
const setupWait = 20 * time.Second

// Guest makes a machine with the kernel's modules and o's files in it, whose
// setup has run: a copy of one that was saved at that point, if there is a
// store. dir gets its console's log. The errors are those of Run.
func (e *Engine) Guest(ctx context.Context, k Kernel, o GuestOptions, dir string) (*Guest, error) {
	qo, err := e.options(ctx, k, Test{Memory: o.Memory, VCPUs: o.VCPUs})
	if err != nil {
		return nil, err
	}
	if qo.Accel, err = e.known(ctx); err != nil {
		return nil, err
	}
	if !e.saves(qo) {
		return e.guestFrom(ctx, k, o, dir, func() (*machine, error) { return e.start(ctx, k, qo, dir) })
	}
	m, err := e.prepared(ctx, k, qo, o, dir)
	if errors.Is(err, errUnfit) {
		return e.guestFrom(ctx, k, o, dir, func() (*machine, error) { return e.start(ctx, k, qo, dir) })
	}
	if err != nil {
		return nil, err
	}
	return &Guest{m, k}, nil
}

// machine is a test's: one that has its kernel's modules, if tests share that.
func (e *Engine) machine(ctx context.Context, k Kernel, t Test, dir string) (*machine, error) {
	o, err := e.options(ctx, k, t)
	if err != nil {
		return nil, err
	}
	if o.Accel, err = e.known(ctx); err != nil {
		return nil, err
	}
	if !e.Loaded || !e.saves(o) {
		return e.start(ctx, k, o, dir)
	}
	m, err := e.prepared(ctx, k, o, GuestOptions{}, dir)
	if errors.Is(err, errUnfit) {
		return e.start(ctx, k, o, dir)
	}
	if err != nil {
		return nil, err
	}
	m.loaded = true
	return m, nil
}

// saves says whether machines like that are saved and restored.
func (e *Engine) saves(o qemu.Options) bool {
	// A clock that counts instructions begins with the first.
	return o.Accel != "" && e.Store != nil && !e.Boot && o.ICount == 0
}

// prepared is a machine with the kernel's modules and o's files, whose setup has
// run, from a snapshot.
func (e *Engine) prepared(ctx context.Context, k Kernel, qo qemu.Options, o GuestOptions, dir string) (*machine, error) {
	base, err := e.base(ctx, k, qo, dir)
	if err != nil {
		return nil, err
	}
	files, err := payload(k, Test{Files: o.Files})
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	key, err := e.setupKey(base.Key, files, o.Setup)
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	entry, err := e.make(ctx, key, func(ctx context.Context, tmp string, log io.Writer) error {
		fmt.Fprintf(log, "%s with %d files, setup %q\n", k.Release, len(files), o.Setup)
		so := qo
		so.RAM, so.State, so.Shared = filepath.Join(tmp, ramFile), filepath.Join(base.Dir, stateFile), true
		if err := copySparse(so.RAM, filepath.Join(base.Dir, ramFile)); err != nil {
			return &InfraError{Kind: KindIO, Err: err}
		}
		g, err := e.guestFrom(ctx, k, o, dir, func() (*machine, error) { return e.restore(ctx, k, so, base.Dir, dir) })
		if err != nil {
			return err
		}
		g.m.release = k.Release
		return e.save(ctx, k, so, g.m, tmp)
	})
	if err != nil {
		return nil, err
	}
	return e.restoreFrom(ctx, k, qo, entry, dir)
}

// setupKey is over all that the setup of a machine depends on.
func (e *Engine) setupKey(base store.Key, files []File, setup string) (store.Key, error) {
	key := store.NewKey(snapshotStage).Str("base", string(base)).Str("setup", setup)
	for _, f := range files {
		sum, err := e.fileSum(f.Host)
		if err != nil {
			return "", err
		}
		key.Str("file", f.Guest+" "+sum)
	}
	return key.Key(), nil
}

// guestFrom delivers what o wants to a machine, and runs its setup.
func (e *Engine) guestFrom(ctx context.Context, k Kernel, o GuestOptions, dir string, start func() (*machine, error)) (*Guest, error) {
	m, err := start()
	if err != nil {
		return nil, err
	}
	g := &Guest{m, k}
	if err := g.prepare(ctx, o, dir); err != nil {
		m.close()
		_ = m.console.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) prepare(ctx context.Context, o GuestOptions, dir string) error {
	slow := time.Duration(scale(g.m.accel, g.k.Flavor))
	files, err := payload(g.k, Test{Files: o.Files})
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	pctx, cancel := context.WithTimeout(ctx, putWait*slow)
	defer cancel()
	const what = "the kernel stopped while it was set up"
	if _, err := g.m.client.Put(pctx, files); err != nil {
		return g.m.died(err, what)
	}
	if o.Setup == "" {
		return nil
	}
	out, err := newCapped(filepath.Join(dir, OutputFile), outputCap)
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	defer func() { _ = out.Close() }()
	sctx, cancel := context.WithTimeout(ctx, setupWait*slow)
	defer cancel()
	reply, err := g.m.client.Run(sctx, &agent.Command{Argv: []string{"bash", o.Setup}, Output: out, Limit: outputCap})
	if err != nil {
		return g.m.died(err, what)
	}
	if reply.Exit != 0 || reply.Signal != 0 {
		return store.KernelFault(fmt.Errorf("the guest's setup, %s, failed (exit code %d, signal %d)%s",
			o.Setup, reply.Exit, reply.Signal, tailText(filepath.Join(dir, OutputFile), out.Tail(tailLines))))
	}
	return nil
}

// Run runs a command in the guest; its error is that of a guest that broke.
func (g *Guest) Run(ctx context.Context, cmd *agent.Command) (*Reply, error) {
	p, err := g.Start(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return g.Wait(ctx, p)
}

// Reply says how a command ended.
type Reply struct{ Exit, Signal int }

// Start starts a command.
func (g *Guest) Start(ctx context.Context, cmd *agent.Command) (*agent.Process, error) {
	p, err := g.m.client.Start(ctx, cmd)
	if err != nil {
		return nil, g.m.fault(err)
	}
	return p, nil
}

// Wait waits for a command. A guest that is gone by then is no error if it was
// the command that ended it: ErrGone.
func (g *Guest) Wait(ctx context.Context, p *agent.Process) (*Reply, error) {
	r, err := p.Wait(ctx)
	var re *agent.RemoteError
	switch {
	case err == nil:
		return &Reply{r.Exit, r.Signal}, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &re):
		return nil, re
	case errors.Is(err, agent.ErrClosed) && g.m.settle() && g.m.vm.Exit().Kind != qemu.Died:
		why := "it restarted"
		if s := firstFatal(splat.Find(g.m.console.Text())); s != nil {
			why = s.Title
		}
		return nil, fmt.Errorf("%w: %s%s", ErrGone, why, tailText(g.m.console.f.Name(), g.m.console.Tail(tailLines)))
	}
	return nil, g.m.fault(err)
}

// ErrGone is in the chain of the error for a guest that restarted, by itself or
// because its kernel panicked.
var ErrGone = errors.New("the guest is gone")

// Close ends the machine.
func (g *Guest) Close() {
	g.m.close()
	_ = g.m.console.Close()
}

// Kernel is what it runs.
func (g *Guest) Kernel() Kernel { return g.k }

// StartSeconds is how long it took from QEMU's exec to the first answer.
func (g *Guest) StartSeconds() float64 { return g.m.startSeconds }

// Pid is QEMU's.
func (g *Guest) Pid() int { return g.m.vm.Pid() }

// Accel is what runs it.
func (g *Guest) Accel() string { return string(g.m.accel) }

// Debug has QEMU wait for a gdb at a socket, with the machine stopped, and
// returns where gdb finds the modules' code: lines of "name address".
func (g *Guest) Debug(ctx context.Context, socket string) ([]Section, error) {
	var b strings.Builder
	reply, err := g.Run(ctx, &agent.Command{Output: &b, Limit: outputCap, Argv: []string{"sh", "-c",
		`cd /sys/module && for f in */sections/.text; do read -r a < $f && echo "${f%%/*} $a"; done`}})
	if err != nil {
		return nil, err
	}
	if reply.Exit != 0 {
		return nil, fmt.Errorf("no sections in the guest's /sys/module: %s", strings.TrimSpace(b.String()))
	}
	var out []Section
	for line := range strings.Lines(b.String()) {
		if name, addr, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out = append(out, Section{name, addr})
		}
	}
	return out, g.m.vm.Debug(ctx, socket)
}

// Section is where a module's code is.
type Section struct{ Module, Text string }

// Names of what a machine that was kept at its test's failure is made of.
const (
	keptState = "machine.state"
	keptFile  = "machine.json"
)

// kept is what it takes to go on from keptState.
type kept struct {
	Kernel  Kernel
	Options qemu.Options
	Test    string
}

// keep saves the machine of a test as it is.
func (e *Engine) keep(ctx context.Context, m *machine, k Kernel, t Test, dir string) error {
	kctx, cancel := context.WithTimeout(ctx, keepWait*time.Duration(scale(m.accel, k.Flavor)))
	defer cancel()
	if err := m.vm.Save(kctx, filepath.Join(dir, keptState)); err != nil {
		return m.fault(err)
	}
	o := m.options
	o.Host, o.Console, o.RAM, o.State, o.Shared = nil, nil, "", "", false
	raw, err := json.MarshalIndent(kept{k, o, t.Name}, "", "\t")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, keptFile), raw, 0o644)
	}
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	return nil
}

// keepWait bounds the writing of a machine with its memory.
const keepWait = time.Minute

// Kept says whether dir has a machine that was kept.
func Kept(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, keptFile))
	return err == nil
}

// At goes on with the machine that was kept in from; dir gets its console's log.
// What it said until then is in from.
func (e *Engine) At(ctx context.Context, from, dir string) (*Guest, error) {
	raw, err := os.ReadFile(filepath.Join(from, keptFile))
	if err != nil {
		return nil, fmt.Errorf("no machine was kept there (nftvm run --keep does): %w", err)
	}
	var was kept
	if err := json.Unmarshal(raw, &was); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(from, keptFile), err)
	}
	o := was.Options
	if o.Host, err = e.Host(ctx); err != nil {
		return nil, err
	}
	o.State = filepath.Join(from, keptState)
	m, err := e.open(ctx, o, dir, nil, agent.Join)
	if err != nil {
		return nil, err
	}
	if err := e.wake(ctx, was.Kernel, m, from); err != nil {
		return nil, err
	}
	return &Guest{m, was.Kernel}, nil
}
