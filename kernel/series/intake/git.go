// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/gitenv"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// gitLeaks are variables that change what git looks at, or what it says.
var gitLeaks = append([]string{"GIT_TRACE"}, gitenv.Elsewhere...)

// repository is one that belongs to somebody: it is read with commands that
// write nothing, not even an index or an object that it lacks.
type repository struct{ dir string }

func (r repository) raw(ctx context.Context, args ...string) ([]byte, error) {
	return proc.Output(ctx, proc.Cmd{
		Args: append([]string{"git", "-C", r.dir, "--no-pager", "--no-replace-objects", "-c", "diff.suppressBlankEmpty=false"}, args...),
		Env: []string{
			"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0",
			// A partial clone fetches what it lacks, and keeps it.
			"GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none",
		},
		Unset: gitLeaks,
	})
}

func (r repository) out(ctx context.Context, args ...string) (string, error) {
	b, err := r.raw(ctx, args...)
	return strings.TrimSpace(string(b)), err
}

// busy says what the repository is in the middle of, "" for nothing.
func (r repository) busy(ctx context.Context) string {
	for _, b := range []struct{ file, what string }{
		{"rebase-merge", "rebase"}, {"rebase-apply/applying", "git am"}, {"rebase-apply", "rebase"},
		{"MERGE_HEAD", "merge"}, {"CHERRY_PICK_HEAD", "cherry-pick"}, {"REVERT_HEAD", "revert"},
	} {
		path, err := r.out(ctx, "rev-parse", "--git-path", b.file)
		if err != nil {
			return ""
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(r.dir, path)
		}
		if _, err := os.Stat(path); err == nil {
			return b.what
		}
	}
	return ""
}

// resolve finds the commit at an end of the range.
func (r repository) resolve(ctx context.Context, name, busy string) (string, error) {
	if name == "" {
		name = "HEAD"
	}
	if base := strings.TrimRight(name, "~^0123456789"); (base == "HEAD" || base == "@") && (busy == "rebase" || busy == "git am") {
		return "", fmt.Errorf("%s is in the middle of a %s, so %s is not the end of any series; finish or abort that, or name commits", r.dir, busy, name)
	}
	id, err := r.out(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}")
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err == nil {
		return id, nil
	}
	if busy != "" {
		return "", fmt.Errorf("%s knows no commit %s; it is in the middle of a %s, after which it may", r.dir, name, busy)
	}
	if shallow, err := r.out(ctx, "rev-parse", "--is-shallow-repository"); err == nil && shallow == "true" {
		return "", fmt.Errorf("%s knows no commit %s; it is a shallow clone, so it may be below what was fetched", r.dir, name)
	}
	return "", fmt.Errorf("%s knows no commit %s", r.dir, name)
}

// readGit takes the commits of a range, oldest first.
func readGit(ctx context.Context, dir, commits string) ([]letter, error) {
	r := repository{dir}
	first, last, ok := strings.Cut(commits, "..")
	if !ok || strings.HasPrefix(last, ".") {
		return nil, fmt.Errorf("%q is no range of commits; give A..B, the commits of B that A does not have", commits)
	}
	if _, err := r.out(ctx, "rev-parse", "--git-dir"); err != nil {
		var missing *proc.MissingError
		if errors.As(err, &missing) || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("--git %s: git cannot read a repository there: %w", dir, err)
	}
	busy := r.busy(ctx)
	from, err := r.resolve(ctx, first, busy)
	if err != nil {
		return nil, err
	}
	to, err := r.resolve(ctx, last, busy)
	if err != nil {
		return nil, err
	}
	merges, err := r.out(ctx, "rev-list", "--merges", "--max-count=1", from+".."+to)
	if err != nil {
		return nil, err
	}
	if merges != "" {
		return nil, fmt.Errorf("commit %.12s in %s is a merge; a series is a line", merges, commits)
	}
	list, err := r.out(ctx, "rev-list", "--reverse", "--topo-order", from+".."+to)
	if err != nil {
		return nil, err
	}
	ids := strings.Fields(list)
	if len(ids) == 0 {
		if back, err := r.out(ctx, "rev-list", "--max-count=1", to+".."+from); err == nil && back != "" {
			return nil, fmt.Errorf("%s holds no commit of %s, but the other way round it does; are its ends swapped?", commits, dir)
		}
		return nil, fmt.Errorf("%s holds no commit of %s", commits, dir)
	}
	var letters []letter
	for i, id := range ids {
		l, err := r.letter(ctx, id)
		if err != nil {
			return nil, err
		}
		l.name = slugged(i+1, l.tag.subject)
		letters = append(letters, l)
	}
	return letters, nil
}

// letter is a commit as a patch, by commands that obey no configuration of how
// people like their diffs.
func (r repository) letter(ctx context.Context, id string) (letter, error) {
	said, err := r.raw(ctx, "log", "-1", "--no-show-signature", "--no-color", "--no-mailmap", "--encoding=UTF-8", "--format=%an <%ae>%n%s%n%b", id)
	if err != nil {
		return letter{}, err
	}
	diff, err := r.raw(ctx, "diff-tree", "--no-commit-id", "--root", "-p", "-M", "--full-index", "--binary", "--no-ext-diff", "--no-textconv",
		"--no-color", "--src-prefix=a/", "--dst-prefix=b/", id)
	if err != nil {
		return letter{}, err
	}
	author, rest, _ := strings.Cut(string(said), "\n")
	subject, words, _ := strings.Cut(rest, "\n")
	if len(diff) == 0 {
		return letter{}, fmt.Errorf("commit %.12s (%s) changes nothing", id, subject)
	}
	// Brackets in a commit's subject are its own.
	return letter{
		from: fmt.Sprintf("commit %.12s", id), tag: tag{subject: subject},
		content: compose(author, subject, words, diff),
	}, nil
}
