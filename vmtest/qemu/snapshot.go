// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

// Save writes the state of a machine that was started with RAM to a file, and
// ends the machine. One that writes to RAM itself leaves its memory there, as it
// was at that moment, and the file is small and quickly written. That of one
// that was restored, and writes to a copy, holds the memory, too.
func (v *VM) Save(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = v.migrate(ctx, "migrate", f)
	if err == nil {
		v.Kill()
		<-v.done
		if v.exit.Kind != Killed {
			err = errors.New(v.exit.String())
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("saving the machine: %w", err)
	}
	return nil
}

// ErrState is in the chain of the error for a saved state that QEMU does not take.
var ErrState = errors.New("QEMU does not take the saved state")

// loadWait bounds how long that takes, for a state that holds the memory, too,
// on a busy host.
const loadWait = 2 * time.Minute

// lastWords is how long a QEMU that has failed may take to end.
const lastWords = 2 * time.Second

// load has the machine go on where Save has left it.
func (v *VM) load(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := v.migrate(ctx, "migrate-incoming", f); err != nil {
		return fmt.Errorf("restoring the machine: %w", err)
	}
	return nil
}

// migrate does a migration to or from a file.
func (v *VM) migrate(ctx context.Context, command string, f *os.File) error {
	var caps []map[string]any
	// Memory that is shared with a file is there already.
	for _, name := range []string{"events", "x-ignore-shared"} {
		caps = append(caps, map[string]any{"capability": name, "state": true})
	}
	if _, err := v.qmp(ctx, "migrate-set-capabilities", map[string]any{"capabilities": caps}, nil); err != nil {
		return err
	}
	const name = "state"
	if _, err := v.qmp(ctx, "getfd", map[string]any{"fdname": name}, f); err != nil {
		return err
	}
	if _, err := v.qmp(ctx, command, map[string]any{"uri": "fd:" + name}, nil); err != nil {
		return err
	}
	select {
	case status := <-v.migrated:
		if status != "completed" {
			return fmt.Errorf("migration %s", status)
		}
		return nil
	case <-v.done:
		return errors.New(v.exit.String())
	case <-ctx.Done():
		return fmt.Errorf("waiting for QEMU: %w", context.Cause(ctx))
	}
}

// migration takes note of how a migration goes.
func (v *VM) migration(e qmp.Event) {
	status, _ := e.Data["status"].(string)
	switch status {
	case "completed", "failed", "cancelled":
		select {
		case v.migrated <- status:
		default:
		}
	}
}
