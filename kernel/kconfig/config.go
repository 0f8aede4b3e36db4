// SPDX-License-Identifier: GPL-2.0-only

package kconfig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
)

// Stage is the store's name for configurations.
const Stage = "config"

// Names in an entry of the stage.
const (
	ConfigFile = ".config"
	ReportFile = "report.json"
)

// Matters tells whether a file of the tree can change what a configuration
// comes out as; the others need not make the stage run again.
func Matters(path string) bool {
	base := filepath.Base(path)
	return strings.HasPrefix(base, "Kconfig") || path == "Makefile" || strings.HasSuffix(path, ".config") ||
		strings.HasPrefix(path, "scripts/") || (strings.HasPrefix(path, "arch/") && base == "Makefile")
}

// Fragments are the fragment files of a flavor, in the order in which they
// override each other. Flavor "plain" has no fragment of its own.
func Fragments(dir, flavor string) ([]string, error) {
	paths := []string{filepath.Join(dir, "base.config"), filepath.Join(dir, "offload.config")}
	if flavor != "plain" {
		own := filepath.Join(dir, flavor+".config")
		if flavor == "base" || flavor == "offload" || flavor != filepath.Base(flavor) {
			return nil, fmt.Errorf("%q is not a flavor", flavor)
		}
		if _, err := os.Stat(own); err != nil {
			return nil, fmt.Errorf("unknown flavor %q: there is no %s", flavor, own)
		}
		paths = append(paths, own)
	}
	return paths, nil
}

// Make makes the configuration in m's object directory and puts it, with the
// report of its verification, into dir. A lost symbol is a *LostError and the
// kernel's fault; the report is in dir then, too.
func Make(ctx context.Context, m *kmake.Make, version string, all []Request, dir string) error {
	want, ignored, err := Wanted(all, version)
	if err != nil {
		return err
	}
	if err := m.Run(ctx, "make tinyconfig", "tinyconfig"); err != nil {
		return err
	}
	path := filepath.Join(m.Obj, ConfigFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, merge(raw, want), 0o644); err != nil {
		return err
	}
	if err := m.Run(ctx, "make olddefconfig", "olddefconfig"); err != nil {
		return err
	}
	got, err := ReadConfig(path)
	if err != nil {
		return err
	}
	rep := Verify(want, ignored, got, version)
	if len(rep.Lost)+len(rep.Forgiven) > 0 {
		tree, err := ScanTree(m.Src)
		if err != nil {
			return err
		}
		rep.Explain(tree, got)
	}
	js, err := json.MarshalIndent(rep, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ReportFile), js, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(m.Log, rep)
	if len(rep.Lost) > 0 {
		return store.KernelFault(&LostError{Version: version, Lost: rep.Lost})
	}
	final, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ConfigFile), final, 0o644)
}

// merge lays requests over a .config. Each symbol is there once afterwards:
// kconfig would take the last, but not without a warning for each.
func merge(config []byte, want []Request) []byte {
	over := map[string]bool{}
	for _, r := range want {
		over[r.Symbol] = true
	}
	var b bytes.Buffer
	for _, l := range strings.SplitAfter(string(config), "\n") {
		t := strings.TrimSpace(l)
		m := setRE.FindStringSubmatch(t)
		if m == nil {
			m = unsetRE.FindStringSubmatch(t)
		}
		if m == nil || !over[m[1]] {
			b.WriteString(l)
		}
	}
	if b.Len() > 0 && b.Bytes()[b.Len()-1] != '\n' {
		b.WriteByte('\n')
	}
	for _, r := range want {
		b.WriteString(r.String() + "\n")
	}
	return b.Bytes()
}
