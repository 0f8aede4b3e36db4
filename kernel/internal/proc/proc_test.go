// SPDX-License-Identifier: GPL-2.0-only

package proc

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const victimEnv = "PROC_TEST_FIFO"

func TestMain(m *testing.M) {
	if fifo := os.Getenv(victimEnv); fifo != "" {
		// The grandchild holds the fifo open as long as it lives.
		_ = Run(context.Background(), Cmd{Args: []string{"sh", "-c", "(echo up; exec sleep 1000) > " + fifo + " & wait"}})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// gone waits until nobody holds the fifo open for writing, which is when the
// last process of the tree is dead: the read ends by that, not by time.
func gone(t *testing.T, f *os.File) {
	t.Helper()
	require.NoError(t, f.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err := io.Copy(io.Discard, f)
	require.NoError(t, err, "a grandchild outlived its group")
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	return path
}

// awaitUp opens the fifo, which waits for its writer, and reads the word.
func awaitUp(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = io.ReadFull(f, make([]byte, len("up\n")))
	require.NoError(t, err)
	return f
}

func TestCancelKillsTheWholeGroup(t *testing.T) {
	path := fifo(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Cmd{Args: []string{"sh", "-c", "(echo up; exec sleep 1000) > " + path + " & wait"}})
	}()
	f := awaitUp(t, path)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	gone(t, f)
}

func TestNothingOutlivesAKilledHarness(t *testing.T) {
	path := fifo(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+path)
	require.NoError(t, cmd.Start())
	f := awaitUp(t, path)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	gone(t, f)
}

func TestRun(t *testing.T) {
	var log, out bytes.Buffer
	require.NoError(t, Run(t.Context(), Cmd{
		Args: []string{"sh", "-c", `echo "$A${HOME}" "$1"; echo err >&2`, "x", "a  b"},
		Env:  []string{"A=1"}, Unset: []string{"HOME"}, Log: &log, Stdout: &out,
	}))
	require.Equal(t, "1 a  b\n", out.String())
	require.True(t, strings.HasPrefix(log.String(), "+ sh -c"))
	require.True(t, strings.HasSuffix(log.String(), "err\n"))

	var exit *exec.ExitError
	require.ErrorAs(t, Run(t.Context(), Cmd{Args: []string{"sh", "-c", "exit 3"}}), &exit)
	require.Equal(t, 3, exit.ExitCode())

	var missing *MissingError
	require.ErrorAs(t, Run(t.Context(), Cmd{Args: []string{"no-such-tool-here"}}), &missing)
	require.Contains(t, missing.Error(), "no-such-tool-here is not installed")

	_, err := Output(t.Context(), Cmd{Args: []string{"sh", "-c", "echo no good >&2; exit 1"}})
	require.ErrorContains(t, err, "no good")
}
