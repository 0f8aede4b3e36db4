// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
)

// Culprits are the commits of which the first bad one is one.
type Culprits struct {
	// IDs is one commit, or several where skips hide which one it is.
	IDs []string
	// Doubt is why it may be none of them, "" if it is one.
	Doubt string
}

var (
	firstBadRE = regexp.MustCompile(`(?m)^# first bad commit: \[([0-9a-f]+)\]`)
	possibleRE = regexp.MustCompile(`(?m)^# possible first bad commit: \[([0-9a-f]+)\]`)
)

// mergeBaseFirst is what git says where good is no ancestor of bad.
const mergeBaseFirst = "Bisecting: a merge base must be tested"

// git bisect's exit codes that are answers.
const (
	exitOnlySkipped = 2
	exitMergeBase   = 3
)

// Bisect has git bisect search between two commits that were judged. Which
// commit it asks for depends on the answers alone, so that a search that goes
// on from a journal asks for the same ones. Its log is in log after each step.
func (r *Repo) Bisect(ctx context.Context, good, bad, log string, judge Judge, say func(format string, args ...any)) (Culprits, error) {
	var c Culprits
	// git wants to come back to where HEAD is.
	if _, err := r.own(ctx, "update-ref", "HEAD", bad); err != nil {
		return c, err
	}
	// Nothing is checked out in a bare repository. The flag --no-checkout would
	// be in the log, too, and whoever replays that wants the sources.
	said, err := r.own(ctx, "bisect", "start", bad, good)
	for step := 1; ; step++ {
		if lerr := r.keepLog(ctx, log); lerr != nil {
			return c, errors.Join(err, lerr)
		}
		var ferr error
		if c.IDs, ferr = r.found(ctx); ferr != nil || len(c.IDs) > 0 {
			return c, ferr
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == exitMergeBase {
			return c, fmt.Errorf("the test fails already at the commit where the histories of good and bad part: it was mended on the way to "+
				"--good %.12s, and no commit between breaks it; take an ancestor of --bad for --good", good)
		}
		if err != nil && (exit == nil || exit.ExitCode() != exitOnlySkipped) {
			return c, err
		}
		next, herr := r.own(ctx, "rev-parse", "--verify", "--quiet", "BISECT_HEAD")
		if herr != nil {
			return c, fmt.Errorf("git bisect asks for no commit, and names none: %s; its log: %s", firstLine(said), log)
		}
		say("step %d: %s", step, firstLine(said))
		p, perr := r.Point(ctx, next)
		if perr != nil {
			return c, perr
		}
		v, jerr := judge.verdictOf(ctx, p)
		if jerr != nil {
			return c, jerr
		}
		if v == Skip && strings.HasPrefix(said, mergeBaseFirst) {
			c.Doubt = "the commit where the histories of good and bad part cannot be judged, so it is not sure that the test broke behind it"
		}
		said, err = r.own(ctx, "bisect", string(v), next)
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
	}
}

// found reads git's answer, which it writes into its log.
func (r *Repo) found(ctx context.Context) ([]string, error) {
	text, err := r.own(ctx, "bisect", "log")
	if err != nil {
		return nil, err
	}
	if m := firstBadRE.FindStringSubmatch(text); m != nil {
		return []string{m[1]}, nil
	}
	var all []string
	for _, m := range possibleRE.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all, nil
}

func (r *Repo) keepLog(ctx context.Context, path string) error {
	text, err := r.own(ctx, "bisect", "log")
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return report.WriteFile(abs, []byte(text+"\n"))
}
