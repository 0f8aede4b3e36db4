// SPDX-License-Identifier: GPL-2.0-only

// Package proc runs the outside tools that the host side needs (make, git,
// apt-get, tar) so that none of them outlives what asked for it.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Cmd is one command to run.
type Cmd struct {
	Args []string
	// Dir is the working directory, "" for the caller's.
	Dir string
	// Env is added to the caller's environment.
	Env []string
	// Unset names variables to leave out of the caller's environment.
	Unset []string
	Stdin io.Reader
	// Log receives stdout and stderr, and first the command line itself.
	Log io.Writer
	// Stdout, when set, receives stdout instead of Log.
	Stdout io.Writer
}

// MissingError says that a tool is not installed.
type MissingError struct{ Tool string }

func (e *MissingError) Error() string { return e.Tool + " is not installed; see: nftvm doctor" }

// guard starts a watcher beside the command, in the same process group: it
// reads from a pipe whose other end only this process holds, and when that end
// closes, however this process died, it kills the group. Without it a build
// whose harness was killed with -9 would go on writing into an object
// directory that the next run takes for its own.
const guard = `(read -r _ <&3; kill -9 0) </dev/null >/dev/null 2>&1 & exec 3<&-; exec "$@"`

// Run runs c until it ends or ctx does; then its whole process group is
// killed. The error of a command that ran and failed is *exec.ExitError.
func Run(ctx context.Context, c Cmd) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return &MissingError{c.Args[0]}
		}
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()

	argv := append([]string{"-c", guard, "nftvm-guard", path}, c.Args[1:]...)
	cmd := exec.CommandContext(ctx, "/bin/sh", argv...)
	cmd.Dir = c.Dir
	cmd.Env = environ(c.Env, c.Unset)
	cmd.Stdin = c.Stdin
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	// A grandchild that left the group and holds the output open must not
	// hold us.
	cmd.WaitDelay = 5 * time.Second
	if c.Log != nil {
		fmt.Fprintf(c.Log, "+ %s\n", strings.Join(c.Args, " "))
	}
	err = cmd.Start()
	r.Close()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	// The watcher is still there, and so may be children of a failed make.
	_ = killGroup(cmd.Process.Pid)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Output runs c and returns its stdout; on failure the error carries stderr.
func Output(ctx context.Context, c Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	c.Stdout = &out
	log := c.Log
	c.Log = &errs
	if log != nil {
		c.Log = io.MultiWriter(&errs, log)
	}
	if err := Run(ctx, c); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		_, said, _ := strings.Cut(errs.String(), "\n") // the first line is the command's
		if said = strings.TrimSpace(said); said != "" {
			return out.Bytes(), fmt.Errorf("%s: %w: %s", c.Args[0], err, said)
		}
		return out.Bytes(), fmt.Errorf("%s: %w", c.Args[0], err)
	}
	return out.Bytes(), nil
}

func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

func environ(add, unset []string) []string {
	drop := map[string]bool{}
	for _, u := range unset {
		drop[u] = true
	}
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !drop[name] {
			env = append(env, kv)
		}
	}
	return append(env, add...)
}

// Have returns a *MissingError when the tool is not in PATH.
func Have(tool string) error {
	if _, err := exec.LookPath(tool); err != nil {
		return &MissingError{tool}
	}
	return nil
}
