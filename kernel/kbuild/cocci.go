// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// CocciStage is the store's name for what the tree's semantic patches say.
const CocciStage = "cocci"

// cocciFile has the remarks in an entry of CocciStage.
const cocciFile = "remarks.json"

// cocciScripts is where a tree has its semantic patches.
const cocciScripts = "scripts/coccinelle"

// cocciTimeout is how many seconds one of them may take over one file: some
// search paths, of which there may be too many.
const cocciTimeout = 900

// Spatch says which Coccinelle is installed; the error says that none is.
func Spatch(ctx context.Context) (string, error) {
	out, err := proc.Output(ctx, proc.Cmd{Args: []string{"spatch", "--version"}})
	first, _, _ := strings.Cut(string(out), "\n")
	return first, err
}

var (
	reportRE  = regexp.MustCompile(`virtual\s+report\b`)
	optionsRE = regexp.MustCompile(`(?m)^.*Options:(.*)$`)
	// chatterRE is what spatch says also when all is well.
	chatterRE = regexp.MustCompile(`^(\+ |warning: |\d+ files match$)`)
	remarkRE  = regexp.MustCompile(`^(\S+?\.[ch]):(\d+):\d+-\d+: (.*)$`)
)

// Cocci has every semantic patch of m's source that can report look at the
// files, and fills dir with what they said. It is what "make coccicheck" does
// to a directory, file by file: there the first script that this spatch does
// not take ends it. Here that is a remark, too, with the script as its file.
func Cocci(ctx context.Context, m *kmake.Make, files []string, dir string) error {
	groups := filepath.Join(dir, "files")
	// Each is looked at on its own.
	if err := os.WriteFile(groups, []byte(strings.Join(files, "\n\n")+"\n"), 0o644); err != nil {
		return err
	}
	var scripts []string
	if err := filepath.WalkDir(filepath.Join(m.Src, cocciScripts), func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".cocci" {
			scripts = append(scripts, path)
		}
		return err
	}); err != nil {
		return err
	}
	said := make([][]Warning, len(scripts))
	logs := make([]bytes.Buffer, len(scripts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(m.Jobs)
	for i, script := range scripts {
		g.Go(func() (err error) {
			mm := *m
			mm.Log = &logs[i]
			said[i], err = cocci(gctx, &mm, script, groups)
			return err
		})
	}
	err := g.Wait()
	for i := range logs {
		_, werr := m.Log.Write(logs[i].Bytes())
		err = errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	all := slices.Concat(said...)
	slices.SortFunc(all, func(a, b Warning) int { return strings.Compare(a.String(), b.String()) })
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, cocciFile), raw, 0o644)
}

// cocci has one semantic patch look at the files.
func cocci(ctx context.Context, m *kmake.Make, script, groups string) ([]Warning, error) {
	name, err := filepath.Rel(m.Src, script)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(script)
	if err != nil {
		return nil, err
	}
	if !reportRE.Match(text) {
		fmt.Fprintf(m.Log, "%s does not report\n", name)
		return nil, nil
	}
	args := []string{"spatch", "-D", "report", "--no-show-diff", "--very-quiet", "--cocci-file", name}
	if opt := optionsRE.FindSubmatch(text); opt != nil {
		args = append(args, strings.Fields(string(opt[1]))...)
	}
	for _, inc := range []string{"arch/x86/include", "include", "arch/x86/include/uapi", "include/uapi"} {
		args = append(args, "-I", inc)
	}
	// Without the last it asks git for files, which knows others or none.
	args = append(args, "--include", "include/linux/kconfig.h", "--timeout", strconv.Itoa(cocciTimeout), "--file-groups", groups, "--use-coccigrep")

	var out, errs bytes.Buffer
	err = proc.Run(ctx, proc.Cmd{Args: args, Dir: m.Src, Log: &errs, Stdout: &out})
	fmt.Fprintf(m.Log, "%s%s", &errs, &out)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || !exit.Exited()) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return readCocci(name, out.String(), errs.String(), err), nil
}

// readCocci finds the remarks in what a script said, and what it could not do.
func readCocci(script, out, errs string, failed error) []Warning {
	var all []Warning
	for line := range strings.Lines(out) {
		if m := remarkRE.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			all = append(all, Warning{File: m[1], Line: m[2], Text: m[3]})
		}
	}
	why := ""
	for line := range strings.Lines(errs) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "EXN:"):
			// It goes on with the next file, and succeeds.
			all = append(all, Warning{File: script, Text: line})
		case why == "" && line != "" && !chatterRE.MatchString(line):
			why = line
		}
	}
	if failed != nil {
		all = append(all, Warning{File: script, Text: failed.Error() + ": " + why})
	}
	return all
}

// ReadCocci reads an entry of CocciStage.
func ReadCocci(entry string) ([]Warning, error) {
	raw, err := os.ReadFile(filepath.Join(entry, cocciFile))
	if err != nil {
		return nil, err
	}
	var all []Warning
	return all, json.Unmarshal(raw, &all)
}

// OfCocci tells whether a remark is about a semantic patch, not about the code:
// that it did not run, or not to the end.
func (w Warning) OfCocci() bool { return filepath.Ext(w.File) == ".cocci" }
