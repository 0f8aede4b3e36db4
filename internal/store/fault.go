// SPDX-License-Identifier: GPL-2.0-only

package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Fault says whose fault an error is, because a patch author and the keeper of
// the harness want to be woken for different ones.
type Fault int

const (
	// Harness faults: missing tool, no disk, no mirror, a bug of ours.
	Harness Fault = iota
	// Kernel faults: the tree, the series or the config is wrong.
	Kernel
)

func (f Fault) String() string {
	if f == Kernel {
		return "kernel"
	}
	return "harness"
}

// TailLines is how much of a log an error message carries.
const TailLines = 20

// StageError is a stage that failed: which, whose fault, why, and where the
// whole log is.
type StageError struct {
	Stage string
	// Log is the path of the stage's log, "" when there is none.
	Log string
	// Tail is the last TailLines lines of it.
	Tail  []string
	Fault Fault
	Err   error
}

func (e *StageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Stage, e.Err)
	if len(e.Tail) > 0 {
		fmt.Fprintf(&b, "\n  last %d lines of %s:", len(e.Tail), e.Log)
		for _, l := range e.Tail {
			b.WriteString("\n  | " + l)
		}
	} else if e.Log != "" {
		fmt.Fprintf(&b, "\n  log: %s", e.Log)
	}
	return b.String()
}

func (e *StageError) Unwrap() error { return e.Err }

// KernelFault marks err as the kernel's. Without the mark an error is the
// harness's.
func KernelFault(err error) error { return &faultError{err} }

type faultError struct{ error }

func (e *faultError) Unwrap() error { return e.error }

// FaultOf says whose fault err is.
func FaultOf(err error) Fault {
	var se *StageError
	if errors.As(err, &se) {
		return se.Fault
	}
	var fe *faultError
	if errors.As(err, &fe) {
		return Kernel
	}
	return Harness
}

func asStageError(stage, log string, err error) error {
	var se *StageError
	if errors.As(err, &se) {
		return err
	}
	return &StageError{Stage: stage, Log: log, Tail: Tail(log, TailLines), Fault: FaultOf(err), Err: err}
}

// Tail is the last n lines of a file; nil when it cannot be read.
func Tail(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var lines []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		lines = append(lines, sc.Text())
		if len(lines) > n {
			lines = lines[1:]
		}
	}
	return lines
}
