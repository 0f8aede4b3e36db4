// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// setUp is what a guest's options look like whose setup leaves traces of itself.
func setUp(t *testing.T, body string) GuestOptions {
	t.Helper()
	host := filepath.Join(t.TempDir(), "setup.sh")
	require.NoError(t, os.WriteFile(host, []byte("#!/bin/bash\n"+body), 0o755))
	const guest = "/lib/nftvm/setup.sh"
	return GuestOptions{Files: []File{{Host: host, Guest: guest}}, Setup: guest}
}

func runIn(t *testing.T, g *Guest, cmd *agent.Command) (string, *wire.Reply) {
	t.Helper()
	var out bytes.Buffer
	cmd.Output, cmd.Limit = &out, outputCap
	r, err := g.Run(t.Context(), cmd)
	require.NoError(t, err)
	return out.String(), r
}

func sh(t *testing.T, g *Guest, text string) string {
	t.Helper()
	out, r := runIn(t, g, &agent.Command{Argv: []string{"sh", "-c", text}})
	require.Zero(t, r.Exit, out)
	return strings.TrimSpace(out)
}

func TestGuestComesSetUp(t *testing.T) {
	k := testKernel(t)
	// A setup that no run before this one had.
	o := setUp(t, "modprobe nf_tables; date +%N > /run/setup # "+t.TempDir())
	var when, random []string
	for range 2 {
		g, err := engine(t).Guest(t.Context(), k, o, t.TempDir())
		require.NoError(t, err)
		when = append(when, sh(t, g, "cat /run/setup"))
		random = append(random, sh(t, g, "od -An -N16 -tx1 /dev/urandom"))
		require.Contains(t, sh(t, g, "lsmod"), "nf_tables")
		sh(t, g, "! test -e /run/mine; touch /run/mine")
		g.Close()
	}
	require.Equal(t, when[0], when[1], "the setup ran twice")
	require.NotEqual(t, random[0], random[1])
}

func TestGuestSetupFails(t *testing.T) {
	k := testKernel(t)
	_, err := engine(t).Guest(t.Context(), k, setUp(t, "echo no such thing; exit 3"), t.TempDir())
	require.ErrorContains(t, err, "exit code 3")
	require.ErrorContains(t, err, "no such thing")
}

func TestGuestCommands(t *testing.T) {
	k := testKernel(t)
	g, err := engine(t).Guest(t.Context(), k, GuestOptions{}, t.TempDir())
	require.NoError(t, err)
	defer g.Close()

	t.Run("input", func(t *testing.T) {
		in := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // a megabyte
		out, r := runIn(t, g, &agent.Command{Argv: []string{"md5sum"}, Input: bytes.NewReader(in)})
		require.Zero(t, r.Exit)
		require.Equal(t, "14d785daab3823736c981ca82a750c98", strings.Fields(out)[0])
	})
	t.Run("input that nobody reads", func(t *testing.T) {
		in := bytes.NewReader(make([]byte, 4<<20))
		p, err := g.Start(t.Context(), &agent.Command{Argv: []string{"sleep", "1000"}, Input: in})
		require.NoError(t, err)
		// The channel stays open for others, such as this.
		require.Equal(t, "here", sh(t, g, "echo here"))
		require.NoError(t, p.Kill(t.Context()))
		r, err := g.Wait(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, 9, r.Signal)
	})
	t.Run("no input", func(t *testing.T) { require.Equal(t, "0", sh(t, g, "wc -c")) })
	t.Run("errors apart", func(t *testing.T) {
		var errs bytes.Buffer
		out, r := runIn(t, g, &agent.Command{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, Errors: &errs})
		require.Equal(t, []any{"out\n", "err\n", 7}, []any{out, errs.String(), r.Exit})
	})
	t.Run("terminal", func(t *testing.T) {
		in, hold := io.Pipe()
		defer func() { _ = hold.Close() }()
		out, r := runIn(t, g, &agent.Command{Argv: []string{"bash", "-c", "tty; stty size; exec 3< /dev/tty && echo controls"},
			Window: &wire.Window{Rows: 33, Cols: 77}, Input: in})
		require.Zero(t, r.Exit, out)
		require.Contains(t, out, "/dev/pts/")
		require.Contains(t, out, "33 77")
		require.Contains(t, out, "controls")
	})
	t.Run("terminal's input", func(t *testing.T) {
		out, r := runIn(t, g, &agent.Command{Argv: []string{"bash", "--norc", "-i"}, Window: &wire.Window{Rows: 24, Cols: 80},
			Input: strings.NewReader("echo $((6 * 7))\nexit 5\n")})
		require.Equal(t, 5, r.Exit, out)
		require.Contains(t, out, "\n42\r\n")
	})
	t.Run("resize", func(t *testing.T) {
		in, keys := io.Pipe()
		var out bytes.Buffer
		p, err := g.Start(t.Context(), &agent.Command{Argv: []string{"bash", "-c", "read -r; stty size"}, Output: &out, Limit: outputCap,
			Window: &wire.Window{Rows: 24, Cols: 80}, Input: in})
		require.NoError(t, err)
		require.NoError(t, p.Resize(t.Context(), wire.Window{Rows: 50, Cols: 132}))
		_, _ = keys.Write([]byte("\n"))
		_, err = g.Wait(t.Context(), p)
		require.NoError(t, err)
		require.Contains(t, out.String(), "50 132")
	})
	t.Run("not there", func(t *testing.T) {
		_, err := g.Run(t.Context(), &agent.Command{Argv: []string{"unicorn"}})
		require.ErrorContains(t, err, "unicorn")
	})
	t.Run("the guest's end", func(t *testing.T) {
		_, err := g.Run(t.Context(), &agent.Command{Argv: []string{"sh", "-c", "echo c > /proc/sysrq-trigger"}})
		require.ErrorIs(t, err, ErrGone)
		require.ErrorContains(t, err, "sysrq triggered crash")
	})
}

// TestKeptMachineGoesOn has a test fail, and looks at its machine as it was then.
func TestKeptMachineGoesOn(t *testing.T) {
	k := testKernel(t)
	for _, boot := range []bool{false, true} {
		e := engine(t)
		e.Keep, e.Boot = true, boot
		dir := t.TempDir()
		res, err := e.Run(t.Context(), k, script(t, `
cleanup() { rm -f /run/witness; }
trap cleanup EXIT
echo here > /run/witness
yes | head -c 100000
echo TAP version 13; echo 1..2; echo ok 1 one; echo not ok 2 two
sleep 1000
`), dir)
		require.NoError(t, err)
		require.Equal(t, Fail, res.Verdict)
		require.True(t, res.Kept)
		require.True(t, Kept(dir))

		g, err := engine(t).At(t.Context(), dir, t.TempDir())
		require.NoError(t, err)
		require.Equal(t, "here", sh(t, g, "cat /run/witness"))
		require.NotEmpty(t, sh(t, g, "grep -al sleep.1000 /proc/[0-9]*/cmdline"))
		g.Close()
	}
}

// TestGuestOutputThatNobodyReadsYet has a reader that is slower than a straggler
// may be: it gets all of it.
func TestGuestOutputThatNobodyReadsYet(t *testing.T) {
	k := testKernel(t)
	g, err := engine(t).Guest(t.Context(), k, GuestOptions{}, t.TempDir())
	require.NoError(t, err)
	defer g.Close()
	r, w := io.Pipe()
	got := make(chan int64, 1)
	go func() {
		time.Sleep(3 * time.Second) // as a pager does
		n, _ := io.Copy(io.Discard, r)
		got <- n
	}()
	const size = 2 << 20
	reply, err := g.Run(t.Context(), &agent.Command{Argv: []string{"head", "-c", fmt.Sprint(size), "/dev/zero"}, Output: w, Limit: 2 * size})
	require.NoError(t, err)
	require.Zero(t, reply.Exit)
	require.NoError(t, w.Close())
	require.Equal(t, int64(size), <-got)
}

// TestUnfitIsNotCopied has a machine whose kernel complained: nobody gets a copy
// of it, and each finds the complaint once.
func TestUnfitIsNotCopied(t *testing.T) {
	k := testKernel(t)
	e := engine(t)
	o := setUp(t, `echo "<4>WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 some_func+0x1/0x2 [mod]" > /dev/kmsg`)
	for range 2 {
		dir := t.TempDir()
		g, err := e.Guest(t.Context(), k, o, dir)
		require.NoError(t, err)
		g.Close()
		console, err := os.ReadFile(filepath.Join(dir, ConsoleFile))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(console), "some_func+0x1/0x2"))
	}
	require.Len(t, e.unfit, 1)
}

// TestGuestDiesOfItsSetup is the kernel's fault, not the harness's.
func TestGuestDiesOfItsSetup(t *testing.T) {
	k := testKernel(t)
	_, err := engine(t).Guest(t.Context(), k, setUp(t, "echo c > /proc/sysrq-trigger; sleep 100"), t.TempDir())
	require.ErrorContains(t, err, "sysrq triggered crash")
	require.Equal(t, store.Kernel, store.FaultOf(err))
}

// TestBrokenSnapshotIsMadeAnew has one whose state was cut off on the disk.
func TestBrokenSnapshotIsMadeAnew(t *testing.T) {
	k := testKernel(t)
	o := setUp(t, "true # "+t.TempDir())
	e := engine(t)
	g, err := e.Guest(t.Context(), k, o, t.TempDir())
	require.NoError(t, err)
	state := g.m.options.State
	g.Close()
	require.NoError(t, os.Truncate(state, 100))
	g, err = e.Guest(t.Context(), k, o, t.TempDir())
	require.NoError(t, err)
	g.Close()
	require.NoFileExists(t, state)
}
