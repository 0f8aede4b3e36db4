// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/doctor"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/image"
)

// missing is what the machine lacks, for the host side and for the guest.
func missing(ctx context.Context) []doctor.Missing {
	out := doctor.Check(ctx)
	var guest *image.MissingError
	if err := image.Check(); errors.As(err, &guest) {
		out = append(out, doctor.Missing{
			What: "for the guest: " + strings.Join(guest.Tools, ", "), Packages: guest.Packages,
		})
	}
	return out
}

func newDoctor() *cobra.Command {
	install := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks, and the command that mends it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lacks := missing(cmd.Context())
			if len(lacks) == 0 {
				if !install {
					fmt.Fprintln(cmd.OutOrStdout(), "nothing is missing")
				}
				return nil
			}
			out := cmd.OutOrStdout()
			for _, m := range lacks {
				note := ""
				if m.Optional {
					note = " (works without)"
				}
				fmt.Fprintf(out, "missing: %s%s\n", m.What, note)
			}
			if install {
				if err := doctor.Install(cmd.Context(), lacks, out); err != nil {
					return err
				}
				if left := missing(cmd.Context()); len(left) > 0 {
					return fmt.Errorf("still missing after the installation: %s; mend it with: %s", left[0].What, doctor.Remedy(left))
				}
				return nil
			}
			fmt.Fprintf(out, "mend it with: %s\n", doctor.Remedy(lacks))
			if len(doctor.Required(lacks)) > 0 {
				return exitCode(report.ExitHarness)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install what is missing, with apt")
	return cmd
}
