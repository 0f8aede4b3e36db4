// SPDX-License-Identifier: GPL-2.0-only

package kmake

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// CompileError is a build that failed, with what the tools said first.
type CompileError struct {
	// What was run.
	What string
	// Messages are the first messages of compiler, linker or modpost, each
	// with its file and line and the lines that belong to it.
	Messages [][]string
}

// maxMessages is how many of the messages an error shows; the rest mostly
// follows from them, and is in the log.
const maxMessages = 3

func (e *CompileError) Error() string {
	var b strings.Builder
	b.WriteString(e.What + " failed")
	for i, m := range e.Messages {
		if i == maxMessages {
			fmt.Fprintf(&b, "\n  ... and %d more", len(e.Messages)-maxMessages)
			break
		}
		for _, l := range m {
			b.WriteString("\n  " + l)
		}
	}
	return b.String()
}

var (
	gccErrorRE = regexp.MustCompile(`^\S+?:\d+(:\d+)?: (fatal )?error: `)
	contextRE  = regexp.MustCompile(`^(In file included from |\s+from |\S+: In function |\S+: At top level)`)
	sourceRE   = regexp.MustCompile(`^\s*(\d+ )?\s*\|`)
	otherRE    = regexp.MustCompile(`undefined reference to|multiple definition of|^ERROR: modpost: |^ERROR: .*undefined!|` +
		`Unknown symbol|^\S+: (error|fatal error): |Kconfig\S*:\d+: |redefinition|^ld: `)
	makeRE = regexp.MustCompile(`^make(\[\d+\])?: \*\*\* `)
)

// Faults of the machine, not of the source, however the compiler puts them.
var hostTroubleRE = regexp.MustCompile(`Killed signal|^make(\[\d+\])?: \*\*\* .*\] (Terminated|Killed|Hangup|Interrupt|Quit)|cannot allocate memory|Cannot allocate memory|virtual memory exhausted|` +
	`Text file busy|sh: (line )?(\d+: )?\S+: (command )?not found$|` +
	// A header that a tool for the host wants: a package is missing.
	`^(scripts|tools|certs)/\S+: fatal error: \S+: No such file or directory`)

// explain turns a failed make and its log into an error that says what is
// wrong with the source, or with the machine.
func explain(ctx context.Context, err error, what, log string, m *Make) error {
	var exit *exec.ExitError
	if ctx.Err() != nil || !errors.As(err, &exit) {
		return err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Errorf("%s was ended from outside: %w", what, err)
	}
	if strings.Contains(log, "No space left on device") {
		return fmt.Errorf("%s: %w", what, syscall.ENOSPC)
	}
	lines := strings.Split(log, "\n")
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], m.Src+"/", "")
	}
	for _, l := range lines {
		if hostTroubleRE.MatchString(l) {
			return fmt.Errorf("%s failed for a reason of this machine: %s", what, strings.TrimSpace(l))
		}
	}
	e := &CompileError{What: what, Messages: messages(lines)}
	return store.KernelFault(e)
}

// messages picks the errors out of a log, each with its lines of context; when
// there are none of a known form, make's own complaint.
func messages(lines []string) [][]string {
	var out [][]string
	seen := map[string]bool{}
	for i, l := range lines {
		if seen[l] {
			continue
		}
		switch {
		case gccErrorRE.MatchString(l):
			seen[l] = true
			first := i
			for first > 0 && i-first < 6 && contextRE.MatchString(lines[first-1]) {
				first--
			}
			last := i + 1
			for last < len(lines) && last-i < 5 && sourceRE.MatchString(lines[last]) {
				last++
			}
			out = append(out, lines[first:last])
		case otherRE.MatchString(l) && !strings.Contains(l, "collect2"):
			seen[l] = true
			out = append(out, lines[i:i+1])
		}
	}
	if len(out) > 0 {
		return out
	}
	for i, l := range lines {
		if makeRE.MatchString(l) {
			return append(out, lines[max(0, i-5):i+1])
		}
	}
	return out
}
