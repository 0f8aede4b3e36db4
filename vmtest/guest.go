// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
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
	files, err := payload(k, o.Files)
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	m, err := e.prepared(ctx, k, qo, files, o.Setup, dir)
	if errors.Is(err, errUnfit) {
		m, err = e.start(ctx, k, qo, dir)
		if err == nil {
			err = m.prepare(ctx, k, files, o.Setup, dir)
		}
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
	if e.Loaded {
		files, err := payload(k, nil)
		if err != nil {
			return nil, &InfraError{Kind: KindIO, Err: err}
		}
		m, err := e.prepared(ctx, k, o, files, "", dir)
		if err == nil {
			m.loaded = true
		}
		if !errors.Is(err, errUnfit) {
			return m, err
		}
	}
	return e.start(ctx, k, o, dir)
}

// prepared is a machine that has got files, and whose setup has run, from a
// snapshot. Its error is errUnfit where there can be none.
func (e *Engine) prepared(ctx context.Context, k Kernel, o qemu.Options, files []File, setup, dir string) (*machine, error) {
	base, err := e.base(ctx, k, o, dir)
	if err != nil {
		return nil, err
	}
	key, err := e.setupKey(base.Key, files, setup)
	if err != nil {
		return nil, &InfraError{Kind: KindIO, Err: err}
	}
	entry, err := e.make(ctx, key, func(ctx context.Context, tmp string, log io.Writer) error {
		fmt.Fprintf(log, "%s with %d files, setup %q\n", k.Release, len(files), setup)
		so := o
		so.RAM, so.Shared = filepath.Join(tmp, ramFile), true
		if err := copySparse(so.RAM, filepath.Join(base.Dir, ramFile)); err != nil {
			return &InfraError{Kind: KindIO, Err: err}
		}
		m, err := e.restore(ctx, k, so, base, dir)
		if err == nil {
			err = m.prepare(ctx, k, files, setup, dir)
		}
		if err != nil {
			return err
		}
		return e.save(ctx, k, m, tmp)
	})
	if err != nil {
		return nil, err
	}
	return e.restore(ctx, k, o, entry, dir)
}

// setupKey is over all that the setup of a machine depends on.
func (e *Engine) setupKey(base store.Key, files []File, setup string) (store.Key, error) {
	key := store.NewKey(snapshotStage).Str("base", string(base)).Str("setup", setup)
	for _, f := range files {
		// As agent.Put sends it: a link as a link, and with its mode.
		fi, err := os.Lstat(f.Host)
		if err != nil {
			return "", err
		}
		what := ""
		if fi.Mode()&fs.ModeSymlink != 0 {
			what, err = os.Readlink(f.Host)
		} else {
			what, err = e.fileSum(f.Host)
		}
		if err != nil {
			return "", err
		}
		key.Str("file", fmt.Sprintf("%s %o %s", f.Guest, uint32(fi.Mode()), what))
	}
	return key.Key(), nil
}

// prepare delivers files to a machine, and runs its setup. It ends one of which
// that cannot be had.
func (m *machine) prepare(ctx context.Context, k Kernel, files []File, setup, dir string) (err error) {
	defer func() {
		if err != nil {
			m.discard()
		}
	}()
	pctx, cancel := m.within(ctx, k, putWait)
	defer cancel()
	const what = "the kernel stopped while it was set up"
	if _, err := m.client.Put(pctx, files); err != nil {
		return m.died(err, what)
	}
	if setup == "" {
		return nil
	}
	out, err := newCapped(filepath.Join(dir, OutputFile), outputCap)
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	defer func() { _ = out.Close() }()
	sctx, cancel := m.within(ctx, k, setupWait)
	defer cancel()
	reply, err := m.client.Run(sctx, &agent.Command{Argv: []string{"bash", setup}, Output: out, Limit: outputCap})
	if err != nil {
		return m.died(err, what)
	}
	if reply.Exit != 0 || reply.Signal != 0 {
		return store.KernelFault(fmt.Errorf("the guest's setup, %s, failed (exit code %d, signal %d)%s",
			setup, reply.Exit, reply.Signal, tailText(filepath.Join(dir, OutputFile), out.Tail(tailLines))))
	}
	return nil
}

// Run runs a command in the guest; its error is that of a guest that broke.
func (g *Guest) Run(ctx context.Context, cmd *agent.Command) (*wire.Reply, error) {
	p, err := g.Start(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return g.Wait(ctx, p)
}

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
func (g *Guest) Wait(ctx context.Context, p *agent.Process) (*wire.Reply, error) {
	r, err := p.Wait(ctx)
	var re *agent.RemoteError
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &re):
		return nil, re
	case errors.Is(err, agent.ErrClosed) && g.m.settle() && g.m.vm.Exit().Kind != qemu.Died:
		why := "it restarted"
		if s := g.m.diedOf(); s != nil {
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
func (g *Guest) Close() { g.m.discard() }

// Kernel is what it runs.
func (g *Guest) Kernel() Kernel { return g.k }

// Pid is QEMU's.
func (g *Guest) Pid() int { return g.m.vm.Pid() }

// Debug has QEMU wait for a gdb at a socket, with the machine stopped, and
// returns where gdb finds the modules' code.
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
	files, err := payload(g.k, nil)
	if err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for _, f := range files {
		if name, ok := moduleName(f.Guest); ok && !strings.HasPrefix(f.Guest, manualDir) {
			byName[name] = f.Host
		}
	}
	var out []Section
	for line := range strings.Lines(b.String()) {
		name, addr, _ := strings.Cut(strings.TrimSpace(line), " ")
		if file := byName[name]; file != "" {
			out = append(out, Section{file, addr})
		}
	}
	return out, g.m.vm.Debug(ctx, socket)
}

// Section is a module's file, and where its code is in the guest.
type Section struct{ File, Text string }

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
	kctx, cancel := m.within(ctx, k, keepWait)
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
	if err := m.wake(ctx, was.Kernel, from); err != nil {
		return nil, err
	}
	return &Guest{m, was.Kernel}, nil
}
