// SPDX-License-Identifier: GPL-2.0-only

package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
)

// Programs of this project that selftests use. They are built anew for each
// image, which the compiler's cache makes cheap, so that the key can be their
// content.
const modulePath = "github.com/kmod-nft-offload/kmod-nft-offload"

var own = []string{"nfoctl"}

// addOwn builds the project's programs into dir. Without its source around
// (an installed nftvm) guests do without them.
func (p *plan) addOwn(ctx context.Context, dir string) error {
	root := moduleRoot()
	if root == "" {
		return nil
	}
	for _, name := range own {
		out := filepath.Join(dir, name)
		if err := agent.BuildTool(ctx, root, "./cmd/"+name, out); err != nil {
			return err
		}
		p.files["usr/bin/"+name] = out
	}
	return nil
}

// moduleRoot is the directory of this project's go.mod, from the current one
// upwards, "" if there is none.
func moduleRoot() string {
	dir, err := os.Getwd()
	for err == nil {
		mod, rerr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if rerr == nil && bytes.Contains(mod, []byte("module "+modulePath+"\n")) {
			return dir
		}
		if filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}
