// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/gitenv"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// Git is an origin: a revision of a git repository.
type Git struct {
	// Repo is the repository's path (its work tree, a linked one, or a bare
	// one; shallow will do), which is only read, or its address.
	Repo string
	// Rev is anything that git rev-parse knows there; at an address a branch,
	// a tag or a whole commit id.
	Rev string
}

// addressRE tells the address of a repository from a path, as git does.
var addressRE = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://|[^/:]+:)`)

// remote says whether the repository is at an address.
func (g *Git) remote() bool { return addressRE.MatchString(g.Repo) }

// commitRE is a whole commit id.
var commitRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// gitCmd is git on a repository that stays as it is: nothing here takes a lock,
// writes an index or checks anything out in it. With dir "" git has to find the
// repository.
func gitCmd(dir string, args ...string) proc.Cmd {
	c := proc.Cmd{
		Args:  append([]string{"git", "-c", "core.fsmonitor=false", "--no-replace-objects"}, args...),
		Unset: gitenv.Elsewhere,
		Env:   []string{"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"},
	}
	if dir != "" {
		c.Env = append(c.Env, "GIT_DIR="+dir)
	}
	return c
}

func gitLine(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := proc.Output(ctx, gitCmd(dir, args...))
	return strings.TrimSpace(string(out)), err
}

func (f *Fetcher) resolveGit(ctx context.Context, t Tree) (*resolved, error) {
	dir, rev, err := f.gitDir(ctx, t)
	if err != nil {
		return nil, err
	}
	commit, err := gitLine(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return nil, err
		}
		return nil, f.noCommit(ctx, dir, t)
	}
	tree, err := gitLine(ctx, dir, "rev-parse", "--verify", commit+"^{tree}")
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", t.Name, err)
	}
	family := "git-" + short(dir)
	o := Origin{Kind: "git", Repo: t.Git.Repo, Rev: t.Git.Rev, Commit: commit, Tree: tree}
	return &resolved{origin: o, key: keyOf(o), family: family, fetch: func(ctx context.Context, work string, log io.Writer) error {
		items, err := listCommit(ctx, dir, tree)
		if err != nil {
			return err
		}
		return f.assemble(ctx, work, family, items, log, func(ctx context.Context, dst string, lacks []item) error {
			return checkOut(ctx, dir, tree, dst, lacks, log)
		})
	}}, nil
}

func short(s string) string {
	id := sha256.Sum256([]byte(s))
	return hex.EncodeToString(id[:8])
}

// gitDir is the repository with the tree's revision, and the revision's name in
// it.
func (f *Fetcher) gitDir(ctx context.Context, t Tree) (dir, rev string, err error) {
	if err := proc.Have("git"); err != nil {
		return "", "", err
	}
	if t.Git.remote() {
		return f.shallow(ctx, t)
	}
	// Its own way of finding a repository, from that directory, is the one
	// that knows linked work trees and bare repositories.
	dir, err = gitLine(ctx, "", "-C", t.Git.Repo, "rev-parse", "--absolute-git-dir")
	if err != nil {
		if ctx.Err() != nil {
			return "", "", err
		}
		return "", "", fmt.Errorf("tree %s: %s is not a git repository that can be read: %w", t.Name, t.Git.Repo, err)
	}
	return dir, t.Git.Rev, nil
}

// noCommit says that a revision is not there, and what may be the matter.
func (f *Fetcher) noCommit(ctx context.Context, dir string, t Tree) error {
	hint := "see: git -C " + t.Git.Repo + " log --oneline --all"
	if is, err := gitLine(ctx, dir, "rev-parse", "--is-shallow-repository"); err == nil && is == "true" && !t.Git.remote() {
		hint = "it is shallow and may lack it; get more with: git -C " + t.Git.Repo + " fetch --unshallow"
	}
	return fmt.Errorf("tree %s: %s has no commit %q; %s", t.Name, t.Git.Repo, t.Git.Rev, hint)
}

// shallow has a repository of ours in the store with just the one commit from
// an address: a kernel's history is forty times the tree. A name is asked for
// again when what it meant is MaxIndexAge old.
func (f *Fetcher) shallow(ctx context.Context, t Tree) (dir, ref string, err error) {
	dir = filepath.Join(f.Store.Dir(), "git", short(t.Git.Repo))
	ref = "refs/nftvm/" + short(t.Git.Rev)
	unlock, err := f.Store.Lock(ctx, "git-"+filepath.Base(dir))
	if err != nil {
		return "", "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); errors.Is(err, fs.ErrNotExist) {
		if _, err := proc.Output(ctx, proc.Cmd{Args: []string{"git", "init", "--quiet", "--bare", "--", dir}, Unset: gitenv.Elsewhere}); err != nil {
			return "", "", fmt.Errorf("tree %s: %w", t.Name, err)
		}
	}
	asked := filepath.Join(dir, "nftvm-"+short(t.Git.Rev))
	_, none := gitLine(ctx, dir, "rev-parse", "--verify", "--quiet", ref)
	if fi, err := os.Stat(asked); err == nil && none == nil {
		fixed := commitRE.MatchString(t.Git.Rev)
		if fixed || !f.Refresh && time.Since(fi.ModTime()) < MaxIndexAge {
			return dir, ref, nil
		}
	}
	_, err = proc.Output(ctx, gitCmd(dir, "fetch", "--quiet", "--depth=1", "--no-tags", "--force", "--end-of-options", t.Git.Repo, t.Git.Rev+":"+ref))
	switch {
	case err == nil:
		return dir, ref, os.WriteFile(asked, []byte(t.Git.Rev+"\n"), 0o644)
	case ctx.Err() != nil:
		return "", "", err
	case none == nil && !f.Refresh:
		f.warn("using %s of %s as it was fetched last, because: %v", t.Git.Rev, t.Git.Repo, err)
		return dir, ref, nil
	}
	return "", "", fmt.Errorf("tree %s: cannot get %q from %s: %w", t.Name, t.Git.Rev, t.Git.Repo, err)
}

// listCommit lists the files of a commit's tree.
func listCommit(ctx context.Context, dir, tree string) ([]item, error) {
	out, err := proc.Output(ctx, gitCmd(dir, "ls-tree", "-r", "-z", "--full-tree", tree))
	if err != nil {
		return nil, err
	}
	var items []item
	for rec := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// mode type id TAB path
		head, path, _ := strings.Cut(rec, "\t")
		h := strings.Fields(head)
		if len(h) != 3 {
			return nil, fmt.Errorf("git ls-tree says %q of %s", rec, tree)
		}
		it := item{path: path, sum: h[2]}
		switch h[0] {
		case "120000":
			it.mode = fs.ModeSymlink
		case "100755":
			it.mode = 0o100
		case "160000":
			continue // another repository: not source
		}
		items = append(items, it)
	}
	return items, nil
}

// checkOut writes files of a commit's tree below dst, by an index of its own.
func checkOut(ctx context.Context, dir, tree, dst string, files []item, log io.Writer) error {
	index := filepath.Join(filepath.Dir(dst), "index")
	defer os.Remove(index)
	run := func(stdin io.Reader, args ...string) error {
		c := gitCmd(dir, append([]string{
			"-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.sparseCheckout=false", "-c", "core.symlinks=true",
			"-c", fmt.Sprintf("checkout.workers=%d", runtime.NumCPU()),
		}, args...)...)
		c.Env = append(c.Env, "GIT_WORK_TREE="+dst, "GIT_INDEX_FILE="+index)
		c.Dir, c.Stdin, c.Log = dst, stdin, log
		return proc.Run(ctx, c)
	}
	if err := run(nil, "read-tree", tree); err != nil {
		return fmt.Errorf("git cannot read %s: %w", tree, err)
	}
	var paths strings.Builder
	for _, it := range files {
		paths.WriteString(it.path + "\x00")
	}
	if err := run(strings.NewReader(paths.String()), "checkout-index", "--quiet", "--force", "-z", "--stdin"); err != nil {
		return fmt.Errorf("git cannot write the files of %s: %w", tree, err)
	}
	return nil
}
