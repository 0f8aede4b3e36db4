// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/nfo"
)

// errEnough ends monitor after --count events.
var errEnough = errors.New("enough")

func newRoot() *cobra.Command {
	var asJSON bool
	root := &cobra.Command{
		Use:           "nfoctl",
		Short:         "Which nf_tables rules and flow tables are in hardware, and why not",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	root.AddCommand(newRules(&asJSON), newFlowtables(&asJSON), newPolicy(&asJSON), newMonitor(&asJSON),
		newFuzz(), newAddEmptyRule(), newAddNeverRule("odd", nfo.AddOddRule), newAddNeverRule("stale", nfo.AddStaleRule),
		newAddPrefixRule("short", nfo.AddShortRule), newAddPrefixRule("wide", nfo.AddWideRule))
	return root
}

// with runs fn with a connection.
func with(fn func(c *nfo.Client) error) error {
	c, err := nfo.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

func show[T any](out io.Writer, asJSON bool, list []T, text func(io.Writer, []T) error) error {
	if asJSON {
		return json.NewEncoder(out).Encode(list)
	}
	return text(out, list)
}

func newRules(asJSON *bool) *cobra.Command {
	var f nfo.Filter
	var dev string
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "List rules in the order of evaluation, device by device",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dev != "" {
				iface, err := net.InterfaceByName(dev)
				if err != nil {
					return fmt.Errorf("%s: %w", dev, err)
				}
				f.Ifindex = uint32(iface.Index)
			}
			return with(func(c *nfo.Client) error {
				rules, err := c.Rules(f)
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), *asJSON, rules, nfo.WriteRules)
			})
		},
	}
	cmd.Flags().StringVar(&f.Table, "table", "", "of this table only")
	cmd.Flags().StringVar(&f.Chain, "chain", "", "of this chain only")
	cmd.Flags().StringVar(&dev, "dev", "", "on this device only")
	return cmd
}

func newFlowtables(asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "flowtables",
		Short: "List flow tables",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(func(c *nfo.Client) error {
				fts, err := c.Flowtables()
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), *asJSON, fts, nfo.WriteFlowtables)
			})
		},
	}
}

func newPolicy(asJSON *bool) *cobra.Command {
	policy := &cobra.Command{Use: "policy", Short: "What shall be in hardware"}
	policy.AddCommand(&cobra.Command{
		Use:   "get",
		Short: "List the policies that were set",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(func(c *nfo.Client) error {
				list, err := c.Policies()
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), *asJSON, list, nfo.WritePolicies)
			})
		},
	}, &cobra.Command{
		Use:   "set TABLE CHAIN [HANDLE] auto|never|force",
		Short: "Set the policy of a chain or a rule of the netdev family; auto clears it",
		Args:  cobra.RangeArgs(3, 4),
		RunE: func(_ *cobra.Command, args []string) error {
			p := nfo.PolicyEntry{Table: args[0], Chain: args[1]}
			var err error
			if len(args) == 4 {
				if p.Handle, err = strconv.ParseUint(args[2], 10, 64); err != nil {
					return fmt.Errorf("handle: %w", err)
				}
				if p.Handle == 0 {
					return errors.New("no rule has handle 0")
				}
			}
			if p.Policy, err = nfo.ParsePolicy(args[len(args)-1]); err != nil {
				return err
			}
			return with(func(c *nfo.Client) error { return c.SetPolicy(p) })
		},
	})
	policy.AddCommand(&cobra.Command{
		Use:   "restore",
		Short: "Set the policies that policy get --json has printed (from stdin), and no others",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var want []nfo.PolicyEntry
			if err := json.NewDecoder(cmd.InOrStdin()).Decode(&want); err != nil {
				return err
			}
			return with(func(c *nfo.Client) error { return c.RestorePolicies(want) })
		},
	})
	return policy
}

func newMonitor(asJSON *bool) *cobra.Command {
	var count int
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Print a line for each rule that changes its state, each policy set, each refusal",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			ready := func() { fmt.Fprintln(cmd.ErrOrStderr(), "listening") }
			err := with(func(c *nfo.Client) error {
				return c.Monitor(cmd.Context(), ready, func(e nfo.Event) error {
					if *asJSON {
						if err := json.NewEncoder(out).Encode(e); err != nil {
							return err
						}
					} else {
						fmt.Fprintln(out, e)
					}
					if count--; count == 0 {
						return errEnough
					}
					return nil
				})
			})
			if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "stop after so many events (0: never)")
	return cmd
}

func newFuzz() *cobra.Command {
	var seed uint64
	var count int
	cmd := &cobra.Command{
		Use:    "fuzz",
		Short:  "Send garbage to the kernel and count its answers",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(func(c *nfo.Client) error {
				answers, err := c.Fuzz(seed, count)
				if err != nil {
					return err
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(answers)
			})
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of the messages")
	cmd.Flags().IntVar(&count, "count", 1000, "of messages")
	return cmd
}

func parseIPv4(arg string) (net.IP, error) {
	ip := net.ParseIP(arg).To4()
	if ip == nil {
		return nil, fmt.Errorf("%q must be an address of IPv4", arg)
	}
	return ip, nil
}

func newAddNeverRule(kind string, add func(table, chain string, never, last net.IP) error) *cobra.Command {
	return &cobra.Command{
		Use:    "add-" + kind + "-rule TABLE CHAIN NEVER LAST",
		Short:  "Add a rule that drops packets from both addresses at once, which are none",
		Hidden: true,
		Args:   cobra.ExactArgs(4),
		RunE: func(_ *cobra.Command, args []string) error {
			never, err := parseIPv4(args[2])
			if err != nil {
				return err
			}
			last, err := parseIPv4(args[3])
			if err != nil {
				return err
			}
			return add(args[0], args[1], never, last)
		},
	}
}

func newAddPrefixRule(kind string, add func(table, chain string, network []byte) error) *cobra.Command {
	return &cobra.Command{
		Use:    "add-" + kind + "-rule TABLE CHAIN ADDRESS",
		Short:  "Add a rule that accepts packets from all addresses with the first two bytes of ADDRESS",
		Hidden: true,
		Args:   cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			ip, err := parseIPv4(args[2])
			if err != nil {
				return err
			}
			return add(args[0], args[1], ip[:2])
		},
	}
}

func newAddEmptyRule() *cobra.Command {
	return &cobra.Command{
		Use:    "add-empty-rule TABLE CHAIN",
		Short:  "Add a rule that nothing can offload, and print the kernel's own words",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return nfo.AddEmptyRule(args[0], args[1])
		},
	}
}
