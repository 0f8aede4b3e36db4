// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// commits are the points of a search in an author's repository.
type commits struct {
	*bisection
	repo      *bisect.Repo
	good, bad string
}

func newCommits(ctx context.Context, b *bisection) (*commits, error) {
	repo, err := bisect.OpenRepo(ctx, b.flags.repo, b.out)
	if err != nil {
		return nil, err
	}
	c := &commits{bisection: b, repo: repo}
	if b.flags.good == "" {
		return c, nil // there is just one point
	}
	if c.good, err = repo.Commit(ctx, "--good", b.flags.good); err != nil {
		return nil, err
	}
	if c.bad, err = repo.Commit(ctx, "--bad", b.flags.bad); err != nil {
		return nil, err
	}
	return c, repo.Check(ctx, c.good, c.bad)
}

func (c *commits) asked() []bisect.Asked {
	return []bisect.Asked{{What: "repository", Value: c.repo.Dir}, {What: "good", Value: c.good}, {What: "bad", Value: c.bad}}
}

// build makes the tree of a commit. Its name is the repository's, not the
// commit's: the work tree that goes from one commit to the next hangs on it.
func (c *commits) build(_ context.Context, p bisect.Point) (tree.Tree, error) {
	return tree.At(c.repo.Dir + "@" + p.Key)
}

func (c *commits) again(p bisect.Point) []string {
	return []string{"run", "--tree", c.repo.Dir + "@" + p.Key, "--flavors", c.flags.flavor, "--out", filepath.Join(c.out, "again")}
}

func (c *commits) named(ctx context.Context, name string) (bisect.Point, error) {
	id, err := c.repo.Commit(ctx, "--point", name)
	if err != nil {
		return bisect.Point{}, err
	}
	return c.repo.Point(ctx, id)
}

func (c *commits) search(ctx context.Context, pipe *bisect.Pipeline) (*bisect.Finding, error) {
	good, gerr := c.repo.Point(ctx, c.good)
	bad, berr := c.repo.Point(ctx, c.bad)
	if err := errors.Join(gerr, berr); err != nil {
		return nil, err
	}
	if err := bisect.Ends(ctx, pipe.Judge, good, bad, pipe.Focus); err != nil {
		return nil, err
	}
	found, err := c.repo.Bisect(ctx, c.good, c.bad, filepath.Join(c.out, bisect.LogFile), pipe.Judge, c.progress.Line)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, id := range found.IDs {
		p, err := c.repo.Point(ctx, id)
		if err != nil {
			return nil, err
		}
		names = append(names, p.Title)
	}
	var f *bisect.Finding
	if len(found.IDs) == 1 {
		culprit, err := c.repo.Point(ctx, found.IDs[0])
		if err != nil {
			return nil, err
		}
		before, err := c.before(ctx, pipe.Journal, found.IDs[0], good)
		if err != nil {
			return nil, err
		}
		f = pipe.Journal.NewFinding("the first bad commit is "+culprit.Title, names, true, bad, c.bisection.again, before, culprit)
		if f.Stat, err = c.repo.Stat(ctx, culprit.Key); err != nil {
			f.Notes = append(f.Notes, "there is no diff stat: "+err.Error())
		}
	} else {
		f = pipe.Journal.NewFinding(fmt.Sprintf("the first bad commit is one of these %d; the others among them cannot be judged:", len(names)),
			names, false, bad, c.bisection.again, good, bad)
	}
	if found.Doubt != "" {
		f.Exact = false
		f.Notes = append(f.Notes, found.Doubt)
	}
	return f, nil
}

// before is the parent of a commit that is known to be good; the good end where
// git needed to ask for none.
func (c *commits) before(ctx context.Context, j *bisect.Journal, id string, good bisect.Point) (bisect.Point, error) {
	parents, err := c.repo.Parents(ctx, id)
	if err != nil {
		return good, err
	}
	i := slices.IndexFunc(parents, func(p string) bool { return j.Get(p).Verdict == bisect.Good })
	if i < 0 {
		return good, nil
	}
	return c.repo.Point(ctx, parents[i])
}
