// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/gitenv"
)

// Repo is an author's repository, and a private one beside it that borrows its
// objects: whatever git bisect writes, it writes there.
type Repo struct {
	// Dir is the author's, absolute.
	Dir     string
	shallow bool
	private string
}

// privateDir is the private repository in a bisection's directory.
const privateDir = "bisect.git"

// dropped are variables that would make git look elsewhere, or say things in
// another way.
var dropped = append([]string{"GIT_CEILING_DIRECTORIES", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}, gitenv.Elsewhere...)

// git runs git in a directory. The user's configuration stays in force where it
// says that a repository may be trusted, and nowhere else.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{
		"-C", dir, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.pager=cat", "-c", "color.ui=false",
		"-c", "log.showSignature=false", "-c", "log.follow=false",
	}, args...)...)
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !slices.Contains(dropped, name) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	// No lock is taken for a refreshed index, and nothing is fetched.
	cmd.Env = append(cmd.Env, "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=nftvm", "GIT_AUTHOR_EMAIL=nftvm@localhost", "GIT_COMMITTER_NAME=nftvm", "GIT_COMMITTER_EMAIL=nftvm@localhost")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", errors.New("git is not installed; see: nftvm doctor")
		}
		return out.String(), fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// own runs git in the private repository, which is named, because users may
// have told theirs to take no bare one that it finds.
func (r *Repo) own(ctx context.Context, args ...string) (string, error) {
	return git(ctx, r.private, append([]string{"--git-dir=."}, args...)...)
}

// OpenRepo looks at the repository in dir and makes the private one below out.
func OpenRepo(ctx context.Context, dir, out string) (*Repo, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Stat(abs); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("--tree %s: there is no such directory", dir)
	}
	r := &Repo{Dir: abs, private: filepath.Join(out, privateDir)}
	if _, err := git(ctx, abs, "rev-parse", "--git-dir"); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("--tree %s is not a git repository that can be read: %w", dir, err)
	}
	facts, err := git(ctx, abs, "rev-parse", "--is-shallow-repository", "--show-object-format",
		"--git-path", "objects", "--git-path", "shallow")
	if err != nil {
		return nil, err
	}
	f := strings.Split(facts, "\n")
	if len(f) != 4 {
		return nil, fmt.Errorf("--tree %s: git rev-parse says %q", dir, facts)
	}
	r.shallow = f[0] == "true"
	for i := range f[2:] {
		if !filepath.IsAbs(f[2+i]) {
			f[2+i] = filepath.Join(abs, f[2+i])
		}
	}
	return r, r.borrow(ctx, f[1], f[2], f[3])
}

// borrow makes the private repository anew: what it is to know is in the
// journal. Not by git clone, which copies the thousands of refs of a kernel
// repository, and its objects if it is shallow.
func (r *Repo) borrow(ctx context.Context, format, objects, shallow string) error {
	if err := os.RemoveAll(r.private); err != nil {
		return err
	}
	if err := os.MkdirAll(r.private, 0o755); err != nil {
		return err
	}
	if _, err := git(ctx, r.private, "init", "-q", "--bare", "--template=", "--object-format="+format, "."); err != nil {
		return err
	}
	info := filepath.Join(r.private, "objects", "info")
	if err := os.MkdirAll(info, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(objects+"\n"), 0o644); err != nil {
		return err
	}
	if !r.shallow {
		return nil
	}
	raw, err := os.ReadFile(shallow)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.private, "shallow"), raw, 0o644)
}

// Commit is the commit that a revision names in the author's repository.
func (r *Repo) Commit(ctx context.Context, flag, rev string) (string, error) {
	id, err := git(ctx, r.Dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil && ctx.Err() == nil {
		hint := ""
		if r.shallow {
			hint = "; it is shallow, and may lack older ones: git -C " + r.Dir + " fetch --unshallow"
		}
		return "", fmt.Errorf("%s %s: %s has no such commit%s", flag, rev, r.Dir, hint)
	}
	return id, err
}

// Point is the point of a commit.
func (r *Repo) Point(ctx context.Context, id string) (Point, error) {
	subject, err := r.own(ctx, "show", "--no-patch", "--format=%s", id)
	return Point{Key: id, Title: id[:min(12, len(id))] + " " + subject}, err
}

// Parents are the commits that a commit was made on.
func (r *Repo) Parents(ctx context.Context, id string) ([]string, error) {
	out, err := r.own(ctx, "show", "--no-patch", "--format=%P", id)
	return strings.Fields(out), err
}

// Stat says who made a commit, and what it changes.
func (r *Repo) Stat(ctx context.Context, id string) (string, error) {
	return r.own(ctx, "show", "--stat", "--diff-merges=first-parent", "--format=commit %H%nAuthor: %an <%ae>%nDate:   %ad%n%n    %s%n", id)
}

// ancestor says whether history leads from one commit to another.
func (r *Repo) ancestor(ctx context.Context, from, to string) (bool, error) {
	_, err := r.own(ctx, "merge-base", "--is-ancestor", from, to)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// Check says what about the two commits alone makes a search senseless, before
// anything is built.
func (r *Repo) Check(ctx context.Context, good, bad string) error {
	short := func(id string) string { return id[:min(12, len(id))] }
	if good == bad {
		return fmt.Errorf("--good and --bad are the same commit, %s", short(good))
	}
	if swapped, err := r.ancestor(ctx, bad, good); err != nil {
		return err
	} else if swapped {
		return fmt.Errorf("good and bad are swapped: --bad %s comes before --good %s in the history", short(bad), short(good))
	}
	if follows, err := r.ancestor(ctx, good, bad); err != nil || follows {
		return err
	}
	if r.shallow {
		return fmt.Errorf("%s is shallow, and what is there of its history does not lead from --good %s to --bad %s; mend it with: git -C %s fetch --unshallow",
			r.Dir, short(good), short(bad), r.Dir)
	}
	if _, err := r.own(ctx, "merge-base", good, bad); err != nil && ctx.Err() == nil {
		return fmt.Errorf("--good %s and --bad %s have no history in common", short(good), short(bad))
	}
	return ctx.Err()
}
