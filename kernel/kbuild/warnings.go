// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

// WarningsStage is the store's name for what strict compilers say.
const WarningsStage = "warnings"

// WarningsFile has a line per warning in an entry of WarningsStage.
const WarningsFile = "warnings"

// leftOutFile names the files that could not be compiled, in such an entry.
const leftOutFile = "left-out"

// Warning is one line of a compiler, of sparse or of a semantic patch.
type Warning struct {
	File string
	Line string // "" is the whole file
	Text string
}

func (w Warning) String() string {
	if w.Line == "" {
		return w.File + ": " + w.Text
	}
	return w.File + ":" + w.Line + ": " + w.Text
}

// otherLineRE is another line of the file in the text of a warning.
var otherLineRE = regexp.MustCompile(`\blines? \d+`)

// Same tells whether two lines are the same complaint: code that moved does
// not make it a new one.
func (w Warning) Same(o Warning) bool {
	return w.File == o.File && otherLineRE.ReplaceAllString(w.Text, "line") == otherLineRE.ReplaceAllString(o.Text, "line")
}

var warningRE = regexp.MustCompile(`^(\S+?\.[chS]):(\d+)(?::\d+)?: ((?:warning|error): .*)$`)

// Sparse is the command that checks a kernel version's files here, "" if
// there is none.
func Sparse(version string) string {
	switch {
	case proc.Have("sparse") != nil:
		return ""
	case kver.AtLeast(version, "7.0"):
		// Debian's 0.6.4 does not know the keyword; the qualifiers that it
		// drops are not what is being looked for.
		return "sparse -D__typeof_unqual__=__typeof__"
	}
	return "sparse"
}

// Warnings compiles the files with W=1, and where it can with sparse, in an
// object directory of its own, and fills dir with what was said. The tree has
// been built: a file that does not compile here is one that the configuration
// leaves out, of another architecture for instance. What was said of it does
// not count; it is named.
func Warnings(ctx context.Context, m *kmake.Make, config, version string, files []string, dir string) error {
	if err := install(config, filepath.Join(m.Obj, kconfig.ConfigFile)); err != nil {
		return err
	}
	var said bytes.Buffer
	mm := *m
	mm.Log = io.MultiWriter(m.Log, &said)
	if err := mm.Run(ctx, "make modules_prepare", "modules_prepare"); err != nil {
		return err
	}
	said.Reset()
	args := []string{"W=1", "-k"}
	if sparse := Sparse(version); sparse != "" {
		args = append(args, "C=2", "CHECK="+sparse)
	} else {
		fmt.Fprintln(m.Log, "sparse is not installed")
	}
	for _, f := range files {
		obj := object(f)
		// An object that is up to date says nothing.
		if err := os.Remove(filepath.Join(m.Obj, obj)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		args = append(args, obj)
	}
	var leftOut []string
	if err := mm.Run(ctx, "make W=1", args...); err != nil {
		for _, f := range files {
			if _, serr := os.Stat(filepath.Join(m.Obj, object(f))); errors.Is(serr, os.ErrNotExist) {
				leftOut = append(leftOut, f)
			}
		}
		if store.FaultOf(err) != store.Kernel || len(leftOut) == 0 {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, leftOutFile), []byte(strings.Join(leftOut, "\n")), 0o644); err != nil {
		return err
	}
	var lines []string
	for _, w := range parseWarnings(said.String(), m.Src) {
		if !ofEveryModule(m.Src, w) && !slices.Contains(leftOut, w.File) {
			lines = append(lines, w.String())
		}
	}
	slices.Sort(lines)
	return os.WriteFile(filepath.Join(dir, WarningsFile), []byte(strings.Join(slices.Compact(lines), "\n")), 0o644)
}

func object(file string) string { return strings.TrimSuffix(file, ".c") + ".o" }

// ofEveryModule tells whether a warning is what sparse 0.6.4 says of the
// MODULE_LICENSE and the like of every module since 7.0.
func ofEveryModule(src string, w Warning) bool {
	if w.Text != "error: bad constant expression" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(src, w.File))
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(w.Line)
	lines := strings.Split(string(text), "\n")
	return err == nil && n > 0 && n <= len(lines) && strings.HasPrefix(lines[n-1], "MODULE_")
}

// parseWarnings finds the warnings in a build's log, with paths relative to
// the source.
func parseWarnings(log, src string) []Warning {
	var out []Warning
	for line := range strings.Lines(log) {
		m := warningRE.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		file := strings.TrimPrefix(strings.TrimPrefix(m[1], src+"/"), "../src/")
		out = append(out, Warning{File: file, Line: m[2], Text: m[3]})
	}
	return out
}

// ReadWarnings reads an entry of WarningsStage.
func ReadWarnings(entry string) ([]Warning, error) {
	raw, err := os.ReadFile(filepath.Join(entry, WarningsFile))
	if err != nil {
		return nil, err
	}
	return parseWarnings(string(raw), ""), nil
}

// ReadLeftOut is which files an entry of WarningsStage does without.
func ReadLeftOut(entry string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(entry, leftOutFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // an entry from before there could be any
	}
	return strings.Fields(string(raw)), err
}
