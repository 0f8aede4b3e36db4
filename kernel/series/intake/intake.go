// SPDX-License-Identifier: GPL-2.0-only

// Package intake turns what people have of a series (a directory of patches,
// mail, commits of a repository) into a directory in the store that the series
// package reads. It only reads what it is given. Its errors are about that, a
// sentence each.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

// Stage is the store's name for series that were taken in.
const Stage = "series"

// Taken is a series in the store.
type Taken struct {
	// Dir holds the list and the patches. It does not change when what it was
	// taken from does.
	Dir string
	// From is what it was taken from, in words.
	From string
	// Notes say what was left out, and why.
	Notes []string
	// Series is what Dir holds.
	Series *series.Series
}

// letter is one patch on its way in.
type letter struct {
	// from is the file or message, for complaints; name the patch's file name.
	from, name string
	content    []byte
	tag        tag
}

// From takes a series from a path: a directory with or without a list, or a
// file of mail or of one patch.
func From(ctx context.Context, st *store.Store, path string) (*Taken, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no series %s; give a directory of patches, an mbox, or a range of commits with --git", path)
	}
	if err != nil {
		return nil, err
	}
	t := &Taken{From: path}
	if !fi.IsDir() {
		letters, err := readMail(ctx, t, path)
		if err != nil {
			return nil, err
		}
		return t, t.publish(ctx, st, letters)
	}
	if _, err := os.Stat(filepath.Join(path, series.File)); err == nil {
		return t, t.listed(ctx, st, path)
	}
	letters, err := readDir(ctx, t, path)
	if err != nil {
		return nil, err
	}
	return t, t.publish(ctx, st, letters)
}

// FromGit takes the commits of a range of a repository.
func FromGit(ctx context.Context, st *store.Store, repo, commits string) (*Taken, error) {
	t := &Taken{From: commits + " of " + repo}
	letters, err := readGit(ctx, repo, commits)
	if err != nil {
		return nil, err
	}
	return t, t.publish(ctx, st, letters)
}

// listed takes a directory that has its list already, which stays as it is:
// the ranges in it count.
func (t *Taken) listed(ctx context.Context, st *store.Store, dir string) error {
	// Its errors name the author's file, not ours.
	s, err := series.Load(dir)
	if err != nil {
		return err
	}
	if len(s.Patches) == 0 {
		return fmt.Errorf("%s names no patch", s.Path())
	}
	list, err := os.ReadFile(s.Path())
	if err != nil {
		return err
	}
	return t.put(ctx, st, list, s.Patches)
}

// publish makes a list of the letters, in their order and for every version.
func (t *Taken) publish(ctx context.Context, st *store.Store, letters []letter) error {
	var list strings.Builder
	var patches []series.Patch
	for _, l := range letters {
		fmt.Fprintln(&list, l.name)
		patches = append(patches, series.Patch{Name: l.name, Content: l.content})
	}
	return t.put(ctx, st, []byte(list.String()), patches)
}

func (t *Taken) put(ctx context.Context, st *store.Store, list []byte, patches []series.Patch) error {
	k := store.NewKey(Stage).Str("format", "1").Str("list", string(list))
	for _, p := range patches {
		if err := p.Vet(); err != nil {
			return fmt.Errorf("%s: %w", t.From, err)
		}
		k.Str("patch:"+p.Name, string(p.Content))
	}
	e, err := st.Do(ctx, Stage, k.Key(), func(_ context.Context, dir string, _ io.Writer) error {
		if err := os.WriteFile(filepath.Join(dir, series.File), list, 0o644); err != nil {
			return err
		}
		for _, p := range patches {
			path := filepath.Join(dir, p.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, p.Content, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.Dir = e.Dir
	t.Series, err = series.Load(e.Dir)
	return err
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9._+-]+`)

// fileName makes a text one that a list can name.
func fileName(text string) string {
	return strings.Trim(notInName.ReplaceAllString(text, "-"), "-")
}

// slugged is a patch's file name as git format-patch makes it.
func slugged(n int, subject string) string {
	s := strings.Trim(notInName.ReplaceAllString(subject, "-"), "-.")
	if len(s) > 52 {
		s = strings.Trim(s[:52], "-.")
	}
	if s == "" {
		s = "patch"
	}
	return fmt.Sprintf("%04d-%s.patch", n, s)
}

// twice refuses a change that is there a second time: it cannot apply again.
func twice(letters []letter) error {
	seen := map[string]letter{}
	for _, l := range letters {
		d, err := l.diff()
		if err != nil {
			return err
		}
		if earlier, ok := seen[string(d)]; ok {
			return fmt.Errorf("%s and %s are the same change", earlier.from, l.from)
		}
		seen[string(d)] = l
	}
	return nil
}

// diff is what the letter changes.
func (l letter) diff() ([]byte, error) {
	d, err := series.Patch{Name: l.from, Content: l.content}.Diff()
	if i := strings.LastIndex(string(d), "\n-- \n"); i >= 0 {
		d = d[:i+1] // the version of git that signed it
	}
	return d, err
}
