// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

// project is where the commands find their inputs.
type project struct {
	dir      string
	storeDir string
}

// treesFile marks a project's directory.
const treesFile = "configs/trees.yaml"

// root is the project's directory, absolute.
func (p *project) root() (string, error) {
	if p.dir != "" {
		dir, err := filepath.Abs(p.dir)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(dir, treesFile)); err != nil {
			return "", fmt.Errorf("--project %s: no %s there", p.dir, treesFile)
		}
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, treesFile)); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", errors.New("not inside the project (no " + treesFile + " here or above); cd there or give --project DIR")
		}
	}
}

func (p *project) store() (*store.Store, error) { return store.Open(p.storeDir) }

func (p *project) trees() (*tree.Trees, string, error) {
	root, err := p.root()
	if err != nil {
		return nil, "", err
	}
	cfg, err := tree.Load(filepath.Join(root, treesFile))
	return cfg, root, err
}

// version is nftvm's own: the commit it was built from where that is known.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	if rev != "" {
		return rev + dirty
	}
	return info.Main.Version
}
