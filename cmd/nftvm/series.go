// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

func newSeries(p *project) *cobra.Command {
	return &cobra.Command{
		Use:   "series",
		Short: "List the patches, the trees that get them, and how much is for some trees only",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, root, err := p.trees()
			if err != nil {
				return err
			}
			s, err := series.Load(filepath.Join(root, "patches"))
			if err != nil {
				return err
			}
			trees, err := kernel.Supported(cfg.All, s)
			if err != nil {
				return err
			}
			return listSeries(cmd.OutOrStdout(), s, trees)
		},
	}
}

// listSeries writes a line per patch and, below, the share of the lines that
// are for some of the trees only: what a version costs.
func listSeries(w io.Writer, s *series.Series, trees []tree.Tree) error {
	var names, versions []string
	for _, t := range trees {
		if v := t.Hint(); v != "" {
			names, versions = append(names, t.Name), append(versions, v)
		}
	}
	if len(versions) == 0 {
		return fmt.Errorf("%s supports none of the trees", s.Path())
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "patch\tlines\ttrees")
	all, some := 0, 0
	for _, p := range s.Patches {
		added, removed, err := p.Size()
		if err != nil {
			return err
		}
		got, err := s.For(p, versions)
		if err != nil {
			return err
		}
		where := "all"
		all += added + removed
		if len(got) < len(versions) {
			some += added + removed
			where = "none"
			for i, v := range versions {
				for _, g := range got {
					if g == v && where == "none" {
						where = names[i]
					} else if g == v {
						where += ", " + names[i]
					}
				}
			}
		}
		fmt.Fprintf(tw, "%s\t+%d -%d\t%s\n", p.Name, added, removed, where)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d patches, %d lines; for some of the %d trees only: %d lines, %.1f%%\n",
		len(s.Patches), all, len(versions), some, 100*float64(some)/float64(max(all, 1)))
	return err
}
