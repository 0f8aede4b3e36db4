// SPDX-License-Identifier: GPL-2.0-only

package dev

import (
	"context"
	"io"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/gitenv"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// pristineDate dates commits that nobody made, so that they come out the same
// everywhere.
const pristineDate = "1970-01-01T00:00:00Z"

// git runs git in one repository, deaf to the user's own configuration: hooks,
// signing and templates must not change what comes out.
type git struct {
	dir   string
	env   []string
	stdin io.Reader
	log   io.Writer
}

func (g *git) cmd(args ...string) proc.Cmd {
	return proc.Cmd{
		Dir:  g.dir,
		Args: append([]string{"git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"}, args...),
		Env: append([]string{
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C", "TZ=UTC",
			"GIT_AUTHOR_NAME=nftvm", "GIT_AUTHOR_EMAIL=nftvm@localhost",
			"GIT_COMMITTER_NAME=nftvm", "GIT_COMMITTER_EMAIL=nftvm@localhost",
			"GIT_EDITOR=true", "GIT_SEQUENCE_EDITOR=true", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
		}, g.env...),
		Unset: append([]string{"GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"}, gitenv.Elsewhere...),
		Stdin: g.stdin,
		Log:   g.log,
	}
}

// raw returns stdout as it is.
func (g *git) raw(ctx context.Context, args ...string) ([]byte, error) {
	return proc.Output(ctx, g.cmd(args...))
}

// out returns stdout without the space around it.
func (g *git) out(ctx context.Context, args ...string) (string, error) {
	b, err := g.raw(ctx, args...)
	return strings.TrimSpace(string(b)), err
}

func (g *git) run(ctx context.Context, args ...string) error {
	_, err := g.raw(ctx, args...)
	return err
}

// commit commits the index with a message and a date of its own.
func (g *git) commit(ctx context.Context, message, date string) (string, error) {
	in := *g
	in.stdin = strings.NewReader(message)
	in.env = append(append([]string{}, g.env...), "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date)
	if err := in.run(ctx, "commit", "-q", "--no-verify", "--allow-empty", "-F", "-"); err != nil {
		return "", err
	}
	return g.out(ctx, "rev-parse", "HEAD")
}
