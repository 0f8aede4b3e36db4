// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func ago(ms *uint64) string {
	if ms == nil {
		return "never"
	}
	return (time.Duration(*ms) * time.Millisecond).Round(100*time.Millisecond).String() + " ago"
}

// WriteRules prints a table for people.
func WriteRules(out io.Writer, rules []Rule) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tTABLE\tCHAIN\tHANDLE\tSTATE\tPRIO\tPACKETS\tBYTES\tLAST USED\tPOLICY\tREASON")
	for _, r := range rules {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", orDash(r.Device), r.Table, r.Chain,
			r.Handle, r.State, number(uint64(r.Prio)), r.Packets, r.Bytes, ago(r.LastUsed), r.Policy, orDash(r.Reason))
	}
	return w.Flush()
}

// WriteFlowtables prints a table for people.
func WriteFlowtables(out io.Writer, fts []Flowtable) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tNAME\tHANDLE\tDEVICES\tSTATE\tFLOWS IN HARDWARE\tIN SOFTWARE\tPACKETS\tBYTES\tLAST USED\tREASON")
	for _, f := range fts {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", f.Table, f.Name, f.Handle,
			orDash(strings.Join(f.Devices, ",")), f.State, f.FlowsHW, f.FlowsSW, f.Packets, f.Bytes, ago(f.LastUsed), orDash(f.Reason))
	}
	return w.Flush()
}

// WritePolicies prints a table for people.
func WritePolicies(out io.Writer, policies []PolicyEntry) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tCHAIN\tHANDLE\tPOLICY")
	for _, p := range policies {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Table, p.Chain, number(p.Handle), p.Policy)
	}
	return w.Flush()
}

// String is the event in one line.
func (e Event) String() string {
	switch {
	case e.Event == "rule-gone":
		r := e.Rule
		return fmt.Sprintf("rule %s %s %d %s is gone, with %d packets in hardware", r.Table, r.Chain, r.Handle, orDash(r.Device), r.Packets)
	case e.Event == "flowtable-gone":
		return fmt.Sprintf("flowtable %s %s is gone", e.Flowtable.Table, e.Flowtable.Name)
	case e.Rule != nil:
		r := e.Rule
		return fmt.Sprintf("rule %s %s %d %s %s: %s", r.Table, r.Chain, r.Handle, orDash(r.Device), r.State, orDash(r.Reason))
	case e.Flowtable != nil:
		f := e.Flowtable
		return fmt.Sprintf("flowtable %s %s %s: %s", f.Table, f.Name, f.State, orDash(f.Reason))
	case e.Policy != nil:
		p := e.Policy
		return fmt.Sprintf("policy %s %s %s %s", p.Table, p.Chain, number(p.Handle), p.Policy)
	case e.Status != nil:
		return fmt.Sprintf("%s %s: %s", e.Event, e.Status.Mode, orDash(e.Status.Reason))
	}
	return e.Event
}
