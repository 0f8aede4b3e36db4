// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func newTrees(p *project) *cobra.Command {
	refresh := false
	cmd := &cobra.Command{
		Use:   "trees",
		Short: "List the trees, what they come from, and which of them the series supports",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, root, err := p.trees()
			if err != nil {
				return err
			}
			ser, err := series.Load(filepath.Join(root, "patches"))
			if err != nil {
				return err
			}
			supported, err := kernel.Supported(cfg.All, ser)
			if err != nil {
				return err
			}
			st, err := p.store()
			if err != nil {
				return err
			}
			f := &tree.Fetcher{Store: st, Refresh: refresh}
			for _, t := range cfg.All {
				note := "not supported by the series"
				if slices.ContainsFunc(supported, func(s tree.Tree) bool { return s.Name == t.Name }) {
					note = "supported"
				}
				origin, _, err := f.Resolve(cmd.Context(), t)
				if err != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%-6s %-28s %v\n", t.Name, note, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-6s %-28s %s\n", t.Name, note, origin)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&refresh, "refresh", false, "ask the archive even if it was asked lately")
	return cmd
}
