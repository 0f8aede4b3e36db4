// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// style has checkpatch.pl judge the n-th patch, if no newer tree's did.
func (w *walk) style(ctx context.Context, n int, cell *Cell) {
	p := w.patches[n-1]
	if w.judged[p.Name] {
		return
	}
	w.judged[p.Name] = true
	k := store.NewKey(styleStage).Str("format", "1").Str("source", string(w.ground.SourceKey)).Str("patch", string(p.Content))
	f, known, err := w.keep(ctx, styleStage, k.Key(), func(ctx context.Context) (*found, error) {
		remarks, err := checkpatch(ctx, w.ground.Source, p.Content)
		f := &found{Ran: []string{"checkpatch"}}
		for _, r := range remarks {
			f.Findings = append(f.Findings, Finding{"checkpatch", r})
		}
		return f, err
	})
	if err != nil {
		w.fail(ctx, cell, err)
		return
	}
	cell.Cached = cell.Cached && known
	f.into(cell)
}

// checkpatch is what the tree's own script says of a patch, a remark a line.
// Whether MAINTAINERS needs an update it asks of every patch that adds a file,
// also of one that updates it, unless by chance MAINTAINERS comes first in the
// diff: that is not an answer to anything.
func checkpatch(ctx context.Context, src string, patch []byte) ([]string, error) {
	cmd := exec.CommandContext(ctx, "perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", "--color=never", "--ignore", "FILE_PATH_CHANGES", "-")
	cmd.Dir = src
	cmd.Stdin = bytes.NewReader(patch)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		return nil, fmt.Errorf("checkpatch.pl: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "WARNING:") || strings.Contains(line, "ERROR:") || strings.Contains(line, "CHECK:") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
