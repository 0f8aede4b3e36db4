// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"context"
	"fmt"
	"os"

	"github.com/digitalocean/go-qemu/qmp"
)

// Save writes the state of a machine that was started with RAM to a file, and
// ends the machine: RAM then holds its memory as it was at that moment. The
// file does not hold memory, so it is small and quickly written.
func (v *VM) Save(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := v.migrate(ctx, "migrate", f); err != nil {
		return err
	}
	select {
	case status := <-v.saved:
		if status != "completed" {
			return fmt.Errorf("QEMU could not save the machine: migration %s", status)
		}
	case <-v.done:
		return fmt.Errorf("saving the machine: %s", v.exit)
	case <-ctx.Done():
		return fmt.Errorf("waiting for QEMU to save the machine: %w", context.Cause(ctx))
	}
	v.Kill()
	<-v.done
	return f.Close()
}

// load has the machine go on where Save has left it. It does not wait for that:
// the guest's first answer tells.
func (v *VM) load(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return v.migrate(ctx, "migrate-incoming", f)
}

// migrate begins a migration to or from a file.
func (v *VM) migrate(ctx context.Context, command string, f *os.File) error {
	var caps []map[string]any
	// The memory is in a file already.
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
	_, err := v.qmp(ctx, command, map[string]any{"uri": "fd:" + name}, nil)
	return err
}

// migration takes note of how a migration goes.
func (v *VM) migration(e qmp.Event) {
	status, _ := e.Data["status"].(string)
	switch status {
	case "completed", "failed", "cancelled":
		select {
		case v.saved <- status:
		default:
		}
	}
}
