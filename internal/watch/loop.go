// SPDX-License-Identifier: GPL-2.0-only

// Package watch is the edit loop: what was saved is built, and what it affects is
// tested again.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
)

// settle is how long nothing more may be saved before a round begins: a rebase
// or an editor that saves all writes many files, and a build of half of them
// would say nothing.
const settle = 100 * time.Millisecond

// errSaved ends a round of which the source is not the newest any more.
var errSaved = errors.New("saved again")

// loop calls round at once and whenever a file below dirs was saved. A save ends
// fresh of a round that is still on its way, with the cause errSaved; ctx is that
// of the loop. It ends with ctx, or with an error of a round.
func loop(ctx context.Context, dirs []string, round func(ctx, fresh context.Context) error) error {
	w, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return fmt.Errorf("cannot watch files: %w", err)
	}
	defer func() { _ = w.Close() }()
	for _, dir := range dirs {
		if err := addAll(w, dir); err != nil {
			return err
		}
	}
	// The first round's place is taken by hand.
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	var (
		cancel  context.CancelCauseFunc = func(error) {}
		running chan error
	)
	stop := func(why error) error {
		cancel(why)
		if running == nil {
			return nil
		}
		err := <-running
		running = nil
		if errors.Is(err, errSaved) || ctx.Err() != nil {
			return nil
		}
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return stop(context.Cause(ctx))
		case err := <-w.Errors:
			// Something was saved that is not known: look at everything.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return errors.Join(fmt.Errorf("cannot watch files: %w", err), stop(err))
			}
			quiet.Reset(settle)
		case e := <-w.Events:
			if !matters(e) {
				continue
			}
			if fi, err := os.Lstat(e.Name); err == nil && fi.IsDir() && e.Has(fsnotify.Create) {
				if err := addAll(w, e.Name); err != nil {
					return errors.Join(err, stop(err))
				}
			}
			if err := stop(errSaved); err != nil {
				return err
			}
			quiet.Reset(settle)
		case <-quiet.C:
			rctx, c := context.WithCancelCause(ctx)
			cancel, running = c, make(chan error, 1)
			go func(done chan<- error) { done <- round(ctx, rctx) }(running)
		case err := <-running:
			cancel(nil)
			running = nil
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// matters tells a save from what editors and git write about it.
func matters(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	base := filepath.Base(e.Name)
	if base == "4913" || strings.HasPrefix(base, ".") && base != ".gitignore" { // vim tries that name
		return false
	}
	return !dev.Droppings(base)
}

// addAll watches a directory and all below it, but for git's own.
func addAll(w *fsnotify.Watcher, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil // it went meanwhile, and that is an event of its own
		}
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == ".git" {
			return fs.SkipDir
		}
		err = w.Add(path)
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("no more files can be watched (%w); allow more with: sysctl fs.inotify.max_user_watches=100000", err)
		}
		return err
	})
}
