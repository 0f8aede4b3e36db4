// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

func newCache(p *project) *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "Look into the store, or free some of it"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "ls", Short: "List what the store holds, least recently used first", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				s, err := p.store()
				if err != nil {
					return err
				}
				items, err := s.List()
				if err != nil {
					return err
				}
				return listItems(cmd.OutOrStdout(), items)
			},
		},
		newGC(p),
	)
	return cmd
}

func newGC(p *project) *cobra.Command {
	var keep time.Duration
	cmd := &cobra.Command{
		Use: "gc", Short: "Remove what nobody used for a while, and what dead runs left", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.store()
			if err != nil {
				return err
			}
			gone, err := s.GC(cmd.Context(), keep)
			if lerr := listItems(cmd.OutOrStdout(), gone); err == nil {
				err = lerr
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&keep, "keep", 14*24*time.Hour, "how long unused things stay")
	return cmd
}

func listItems(w io.Writer, items []store.Item) error {
	var sum int64
	for _, it := range items {
		used := "never"
		if !it.Used.IsZero() {
			used = it.Used.Format("2006-01-02 15:04")
		}
		name := it.Name
		if it.Stage != "slot" {
			name = store.Key(name).Short()
		}
		if _, err := fmt.Fprintf(w, "%8.1f MB  %-16s  %-8s %s\n", float64(it.Bytes)/1e6, used, it.Stage, name); err != nil {
			return err
		}
		sum += it.Bytes
	}
	_, err := fmt.Fprintf(w, "%8.1f MB  in %d\n", float64(sum)/1e6, len(items))
	return err
}
