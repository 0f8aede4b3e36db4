// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/lab"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// guestFlags are those of the commands that give somebody a guest.
type guestFlags struct {
	runFlags
	flavor string
	at     string
	gdb    bool
}

func (f *guestFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.flavor, "flavor", kernel.Plain, "flavor of the kernel")
	f.addSources(cmd)
	f.addExtra(cmd)
}

func newExec(p *project) *cobra.Command {
	f := guestFlags{}
	cmd := &cobra.Command{
		Use:   "exec TREE -- COMMAND [ARG...]",
		Short: "Run a command in a guest of its own, with the module loaded",
		Long: `Run a command in a guest of its own: the patched kernel, nft_offload loaded, and
two linked pairs of netdevsim ports:

` + indent(lab.Picture) + `
TREE is a name of configs/trees.yaml, or the path of a tree of your own (./linux,
or ./linux@REV). The command gets the standard input, and its exit status is nftvm's; 2 is also
that of a harness which could not do its job.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("wanted: nftvm exec TREE -- COMMAND [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return withGuest(cmd.Context(), p, f, args[0], func(ctx context.Context, g *vmtest.Guest) error {
				return attach(ctx, g, args[1:], false)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newShell(p *project) *cobra.Command {
	f := guestFlags{}
	cmd := &cobra.Command{
		Use:   "shell TREE",
		Short: "A prompt in a guest with the module loaded and two linked pairs of ports",
		Long: `A prompt in a guest: the patched kernel, nft_offload loaded, and two linked pairs
of netdevsim ports:

` + indent(lab.Picture) + `
The selftests' functions that look and ask are there: offload, listed, state,
hw_list, hw_stat, ledger, policy, far. The guest ends with the shell.

With --at DIR, the machine of a test that failed under "nftvm run --keep" goes
on where it failed; DIR is the test's directory in the results. With --gdb, the
machine stands until a gdb lets it go.`,
		Args: func(_ *cobra.Command, args []string) error {
			if f.at == "" && len(args) != 1 || f.at != "" && len(args) != 0 {
				return errors.New("wanted: nftvm shell TREE, or nftvm shell --at DIR")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			run := func(ctx context.Context, g *vmtest.Guest) error {
				if f.gdb {
					dir, err := os.MkdirTemp("", "nftvm-gdb-")
					if err != nil {
						return err
					}
					defer func() { _ = os.RemoveAll(dir) }()
					if err := standForGDB(ctx, g, filepath.Join(dir, "gdb"), os.Stderr); err != nil {
						return err
					}
				}
				return attach(ctx, g, []string{"bash", "--rcfile", lab.RC}, true)
			}
			if f.at != "" {
				return withKept(cmd.Context(), p, f, run)
			}
			return withGuest(cmd.Context(), p, f, args[0], run)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.at, "at", "", "directory of a test whose machine was kept")
	cmd.Flags().BoolVar(&f.gdb, "gdb", false, "stop the machine for gdb, and print its commands")
	return cmd
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n"
}

// withGuest builds what is missing, and gives fn a guest.
func withGuest(ctx context.Context, p *project, f guestFlags, name string, fn func(context.Context, *vmtest.Guest) error) error {
	cfg, root, err := p.trees()
	if err != nil {
		return err
	}
	f.defaults(root)
	t, err := oneTree(cfg, name)
	if err != nil {
		return err
	}
	return with(ctx, p, f, fn, func(e *vmtest.Engine, dir string) (*vmtest.Guest, error) {
		s := &setup{root: root, store: e.Store, flags: f.runFlags, progress: report.NewProgress(os.Stderr)}
		defer s.progress.Close()
		s.flags.jobs = runtime.NumCPU()
		b := s.builder(s.store)
		b.Notify = notify(s.progress, true)
		var g *vmtest.Guest
		built, err := b.Build(ctx, t, f.flavor)
		if err == nil {
			g, err = lab.Open(ctx, e, built, f.selftests, dir)
		}
		if err != nil {
			// A guest is wanted at once, so nobody has looked before.
			if lacks := lacking(ctx); lacks != nil {
				err = fmt.Errorf("%w\n%w", err, lacks)
			}
		}
		return g, err
	})
}

// withKept gives fn the machine of a test that failed.
func withKept(ctx context.Context, p *project, f guestFlags, fn func(context.Context, *vmtest.Guest) error) error {
	return with(ctx, p, f, fn, func(e *vmtest.Engine, dir string) (*vmtest.Guest, error) { return e.At(ctx, f.at, dir) })
}

// with gives fn the guest that open makes; its logs are in dir while it lives.
func with(ctx context.Context, p *project, f guestFlags, fn func(context.Context, *vmtest.Guest) error,
	open func(e *vmtest.Engine, dir string) (*vmtest.Guest, error)) error {
	st, err := p.store()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nftvm-guest-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	g, err := open(&vmtest.Engine{Store: st, Accel: f.accel}, dir)
	if err != nil {
		return err
	}
	defer g.Close()
	return fn(ctx, g)
}

// attach runs a command in the guest with our own input and output; in a
// terminal, if it is for a person and there is one.
func attach(ctx context.Context, g *vmtest.Guest, argv []string, interactive bool) error {
	cmd := &agent.Command{Argv: argv, Output: os.Stdout, Limit: math.MaxInt64, Input: os.Stdin}
	in := int(os.Stdin.Fd())
	if interactive && term.IsTerminal(in) && term.IsTerminal(int(os.Stdout.Fd())) {
		w, err := window()
		if err != nil {
			return err
		}
		cmd.Window = &w
		cmd.Env = map[string]string{"TERM": os.Getenv("TERM")}
		old, err := term.MakeRaw(in)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(in, old) }()
	} else {
		cmd.Errors = os.Stderr
		if interactive {
			cmd.Env = map[string]string{"BASH_ENV": lab.RC}
		}
	}
	// Who reads our output may have had enough.
	signal.Ignore(syscall.SIGPIPE)
	proc, err := g.Start(ctx, cmd)
	if err != nil {
		return err
	}
	if cmd.Window != nil {
		sizes := make(chan os.Signal, 1)
		signal.Notify(sizes, syscall.SIGWINCH)
		defer signal.Stop(sizes)
		go func() {
			for range sizes {
				if w, err := window(); err == nil {
					_ = proc.Resize(ctx, w)
				}
			}
		}()
	}
	reply, err := g.Wait(ctx, proc)
	switch {
	case errors.Is(err, syscall.EPIPE):
		return exitCode(128 + int(syscall.SIGPIPE))
	case err != nil:
		return err
	case reply.Signal != 0:
		return exitCode(128 + reply.Signal)
	case reply.Exit != 0:
		return exitCode(reply.Exit)
	}
	return nil
}

func window() (wire.Window, error) {
	cols, rows, err := term.GetSize(int(os.Stdout.Fd()))
	return wire.Window{Rows: uint16(rows), Cols: uint16(cols)}, err
}

// standForGDB stops the guest for gdb, and says how to come to it.
func standForGDB(ctx context.Context, g *vmtest.Guest, socket string, out io.Writer) error {
	sections, err := g.Debug(ctx, socket)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The machine stands. In another terminal:\n\n  gdb %s -ex 'target remote %s'", g.Kernel().Vmlinux, socket)
	for _, s := range sections {
		fmt.Fprintf(out, " \\\n    -ex 'add-symbol-file %s %s'", s.File, s.Text)
	}
	fmt.Fprint(out, "\n\n")
	return nil
}
