// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The selftests go into the tree as its last commit. It is made of the
// project's own directory, so there is one source, and it is no patch of the
// series: a script that changes builds no kernel.
const (
	selftestsRoot = "tools/testing/selftests"
	selftestsName = "net/nft_offload"
	selftestsDir  = selftestsRoot + "/" + selftestsName
	// selftestsNote is on the commit, in the place of a patch's name.
	selftestsNote = "selftests"
)

const selftestsMessage = `selftests: net: nft_offload: add tests of offloaded rulesets

Whether hardware does what a ruleset says could not be tested without the
hardware, and an exit code of nft does not tell where a packet went.

These scripts link netdevsim devices, offload rulesets to their flow
tables, and look for each packet in three places: the counters of the
table, those of nft, and AF_PACKET taps at both ends.

Signed-off-by: kmod-nft-offload project <series@kmod-nft-offload.invalid>
`

// maintained is the line of MAINTAINERS behind which the tests' own belongs:
// the last of the section.
const (
	maintainedAfter = "F:\tnet/netfilter/nft_offload*\n"
	maintainedLine  = "F:\t" + selftestsDir + "/\n"
)

// commitSelftests copies what belongs into a kernel tree out of the selftests
// directory, makes the tree's list of targets name it, and commits that.
func commitSelftests(ctx context.Context, g *git, selftests string) (string, error) {
	files, err := selftestFiles(selftests)
	if err != nil {
		return "", err
	}
	dst := filepath.Join(g.dir, selftestsDir)
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return "", err
	}
	for _, name := range files {
		raw, err := os.ReadFile(filepath.Join(selftests, name))
		if err != nil {
			return "", err
		}
		perm := fs.FileMode(0o644)
		switch {
		case name == "Makefile":
			// It is one directory deeper there.
			raw = bytes.ReplaceAll(raw, []byte("include ../lib.mk"), []byte("include ../../lib.mk"))
		case strings.HasSuffix(name, ".sh") && bytes.HasPrefix(raw, []byte("#!")):
			perm = 0o755
		}
		if err := os.WriteFile(filepath.Join(dst, name), raw, perm); err != nil {
			return "", err
		}
	}
	if err := rewrite(filepath.Join(g.dir, selftestsRoot, "Makefile"), addTarget); err != nil {
		return "", err
	}
	if err := rewrite(filepath.Join(g.dir, "MAINTAINERS"), maintain); err != nil {
		return "", err
	}
	// The tree ignores files that belong to it.
	if err := g.run(ctx, "add", "-f", "--", selftestsDir); err != nil {
		return "", err
	}
	if err := g.run(ctx, "add", "-u"); err != nil {
		return "", err
	}
	in := *g
	in.env = append(append([]string{}, g.env...),
		"GIT_AUTHOR_NAME=kmod-nft-offload project", "GIT_AUTHOR_EMAIL=series@kmod-nft-offload.invalid")
	return in.commit(ctx, selftestsMessage, pristineDate)
}

// selftestFiles names the files of the directory that a kernel tree gets:
// neither what is beside the tests nor what is below them, such as mutants.
func selftestFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if e.Type().IsRegular() && (strings.HasSuffix(name, ".sh") || name == "Makefile" || name == "config" || name == "settings") {
			names = append(names, name)
		}
	}
	if !slices.Contains(names, "Makefile") {
		return nil, fmt.Errorf("%s is no directory of selftests: it has no Makefile", dir)
	}
	return names, nil
}

// rewrite changes a file of the tree; one that the tree lacks stays missing.
func rewrite(path string, change func([]byte) []byte) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(raw), 0o644)
}

// addTarget puts the directory into the sorted list of targets.
func addTarget(makefile []byte) []byte {
	const prefix = "TARGETS += "
	lines := strings.SplitAfter(string(makefile), "\n")
	at := -1
	for i, l := range lines {
		target, ok := strings.CutPrefix(l, prefix)
		if ok && strings.TrimSpace(target) < selftestsName {
			at = i
		}
		if ok && strings.TrimSpace(target) >= selftestsName && at >= 0 {
			break
		}
	}
	if at < 0 {
		return makefile
	}
	return []byte(strings.Join(slices.Insert(lines, at+1, prefix+selftestsName+"\n"), ""))
}

func maintain(maintainers []byte) []byte {
	return bytes.Replace(maintainers, []byte(maintainedAfter), []byte(maintainedAfter+maintainedLine), 1)
}

// selftestsUntouched refuses an export that would lose work: the tests are
// edited where they come from.
func selftestsUntouched(ctx context.Context, g *git, m *meta) error {
	if m.Selftests == "" {
		return nil
	}
	out, err := g.out(ctx, "diff", "--name-only", m.Selftests, "HEAD", "--", selftestsDir)
	if err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("%s was edited (%s), but is made from the project's selftests/: make the change there, and take it out here with git checkout %.12s -- %s",
			selftestsDir, strings.Join(strings.Fields(out), ", "), m.Selftests, selftestsDir)
	}
	return nil
}
