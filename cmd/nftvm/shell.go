// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/doctor"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/lab"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
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
	fl := cmd.Flags()
	fl.StringVar(&f.flavor, "flavor", kernel.Plain, "flavor of the kernel")
	fl.StringVar(&f.accel, "accel", "", "kvm or tcg (default: kvm where it proved that it boots, else tcg)")
	fl.StringVar(&f.patches, "series", "", "directory of the series (default: patches/)")
	fl.StringVar(&f.selftests, "selftests", "", "directory of the selftests (default: selftests/)")
	fl.StringArrayVar(&f.extra, "extra", nil, "a further patch on top of the series (may be repeated)")
}

func newExec(p *project) *cobra.Command {
	f := guestFlags{}
	cmd := &cobra.Command{
		Use:   "exec TREE -- COMMAND [ARG...]",
		Short: "Run a command in a guest of its own, with the module loaded",
		Long: `Run a command in a guest of its own: the patched kernel, nft_offload loaded, and
two linked pairs of netdevsim ports:

` + indent(lab.Picture) + `
The command gets the standard input, and its exit status is nftvm's; 2 is also
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
	root, err := p.root()
	if err != nil {
		return err
	}
	if f.patches == "" {
		f.patches = filepath.Join(root, "patches")
	}
	if f.selftests == "" {
		f.selftests = filepath.Join(root, "selftests")
	}
	cfg, err := tree.Load(filepath.Join(root, treesFile))
	if err != nil {
		return err
	}
	trees, err := cfg.Select([]string{name})
	if err != nil {
		return err
	}
	st, err := p.store()
	if err != nil {
		return err
	}
	s := &setup{root: root, store: st, flags: f.runFlags, progress: report.NewProgress(os.Stderr)}
	defer s.progress.Close()
	s.flags.jobs = runtime.NumCPU()
	b := s.builder(st)
	b.Notify = notify(s.progress, true)
	built, err := b.Build(ctx, trees[0], f.flavor)
	if err != nil {
		return lacking(ctx, err)
	}
	dir, err := os.MkdirTemp("", "nftvm-guest-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	g, err := lab.Open(ctx, &vmtest.Engine{Store: st, Accel: f.accel}, built, f.selftests, dir)
	if err != nil {
		return lacking(ctx, err)
	}
	defer g.Close()
	s.progress.Close()
	return fn(ctx, g)
}

// withKept gives fn the machine of a test that failed.
func withKept(ctx context.Context, p *project, f guestFlags, fn func(context.Context, *vmtest.Guest) error) error {
	st, err := p.store()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nftvm-guest-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	g, err := (&vmtest.Engine{Store: st, Accel: f.accel}).At(ctx, f.at, dir)
	if err != nil {
		return err
	}
	defer g.Close()
	return fn(ctx, g)
}

// lacking blames what the machine lacks for a failure, if it lacks anything: a
// guest is wanted at once, so nobody has looked before.
func lacking(ctx context.Context, err error) error {
	if lacks := missing(ctx); len(doctor.Required(lacks)) > 0 {
		return fmt.Errorf("%w\nthis machine lacks %s; mend it with: make deps", err, strings.Join(doctor.Required(lacks), "; "))
	}
	return err
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
	k := g.Kernel()
	files := map[string]string{}
	err = filepath.WalkDir(k.Modules, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The machine stands. In another terminal:\n\n  gdb %s -ex 'target remote %s'", k.Vmlinux, socket)
	for _, s := range sections {
		if f := files[s.Module]; f != "" {
			fmt.Fprintf(out, " \\\n    -ex 'add-symbol-file %s %s'", f, s.Text)
		}
	}
	fmt.Fprint(out, "\n\n")
	return nil
}
