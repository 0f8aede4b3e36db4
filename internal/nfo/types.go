// SPDX-License-Identifier: GPL-2.0-only

// Package nfo speaks the generic netlink family "nft_offload": which rules and
// flow tables of nf_tables are in hardware, why the others are not, and what
// the administrator wants of them.
package nfo

import (
	"encoding/json"
	"fmt"
)

// Names and numbers of include/uapi/linux/nft_offload.h.
const (
	Family  = "nft_offload"
	Version = 1
	Events  = "events" // multicast group
)

const (
	cmdRuleGet uint8 = iota + 1
	cmdFlowtableGet
	cmdPolicyGet
	cmdPolicySet
	cmdRuleNtf
	cmdFlowtableNtf
	cmdPolicyNtf
	cmdModeNtf
	cmdRefusedNtf
	cmdRuleDelNtf
	cmdFlowtableDelNtf
)

const (
	ruleTable uint16 = iota + 2 // behind UNSPEC and PAD
	ruleChain
	ruleHandle
	ruleIfindex
	ruleIfname
	ruleState
	ruleReason
	rulePrio
	rulePackets
	ruleBytes
	ruleLastUsed
	rulePolicy
)

const (
	ftFamily uint16 = iota + 2
	ftTable
	ftName
	ftHandle
	ftState
	ftReason
	ftFlowsHW
	ftFlowsSW
	ftPackets
	ftBytes
	ftLastUsed
	ftIfindex // one per device
)

const (
	policyTable uint16 = iota + 2
	policyChain
	policyHandle
	policyValue
)

const (
	statusMode uint16 = iota + 1
	statusReason
)

// enum is a number of the kernel's that has a name.
type enum interface{ ~uint32 }

func name[E enum](names []string, e E) string {
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("unknown-%d", uint32(e))
}

// State is where a rule or a flow table is.
type State uint32

// The states.
const (
	Software State = iota
	Hardware
	Failed
)

func (s State) String() string { return name([]string{"software", "hardware", "failed"}, s) }

// MarshalJSON gives the name.
func (s State) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Policy is what the administrator wants of a chain or a rule.
type Policy uint32

// The policies.
const (
	Auto Policy = iota
	Never
	Force
)

var policies = []string{"auto", "never", "force"}

func (p Policy) String() string { return name(policies, p) }

// MarshalJSON gives the name.
func (p Policy) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// UnmarshalJSON takes the name.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*p, err = ParsePolicy(s)
	return err
}

// ParsePolicy is the reverse of String.
func ParsePolicy(s string) (Policy, error) {
	for i, n := range policies {
		if s == n {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("no such policy: %q (auto, never or force)", s)
}

// Mode is the value of net.netfilter.nf_flow_offload.
type Mode uint32

func (m Mode) String() string { return name([]string{"off", "auto", "strict"}, m) }

// MarshalJSON gives the name.
func (m Mode) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// Rule is one rule on one device.
type Rule struct {
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Handle  uint64 `json:"handle"`
	Ifindex uint32 `json:"ifindex,omitempty"` // 0: on no device
	Device  string `json:"device,omitempty"`
	State   State  `json:"state"`
	Reason  string `json:"reason,omitempty"` // why it is not in hardware
	Prio    uint32 `json:"prio,omitempty"`   // in hardware, else 0
	Packets uint64 `json:"packets"`          // counted by hardware
	Bytes   uint64 `json:"bytes"`
	// LastUsed is how many milliseconds ago hardware has counted last, nil if never.
	LastUsed *uint64 `json:"last_used_ms,omitempty"`
	Policy   Policy  `json:"policy"`
}

// Flowtable is a flow table.
type Flowtable struct {
	Family   uint32  `json:"family"` // NFPROTO_*
	Table    string  `json:"table"`
	Name     string  `json:"name"`
	Handle   uint64  `json:"handle"`
	State    State   `json:"state"`
	Reason   string  `json:"reason,omitempty"`
	FlowsHW  uint32  `json:"flows_hw"`
	FlowsSW  uint32  `json:"flows_sw"`
	Packets  uint64  `json:"packets"` // counted by hardware
	Bytes    uint64  `json:"bytes"`
	LastUsed *uint64 `json:"last_used_ms,omitempty"`
	// Ifindexes are those of its devices, Devices their names.
	Ifindexes []uint32 `json:"ifindexes,omitempty"`
	Devices   []string `json:"devices,omitempty"`
}

// PolicyEntry is a policy that was set.
type PolicyEntry struct {
	Table  string `json:"table"` // of the netdev family
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle,omitempty"` // of the rule; 0: of the chain
	Policy Policy `json:"policy"`
}

// Status is the mode, and in an event about a transaction that strict mode
// refused, the reason.
type Status struct {
	Mode   Mode   `json:"mode"`
	Reason string `json:"reason,omitempty"`
}

// Event is one of the kernel's; one of the pointers is set.
type Event struct {
	// Event is rule, rule-gone, flowtable, flowtable-gone, policy, mode or
	// refused. State and policy of a rule that is gone mean nothing.
	Event     string       `json:"event"`
	Rule      *Rule        `json:"rule,omitempty"`
	Flowtable *Flowtable   `json:"flowtable,omitempty"`
	Policy    *PolicyEntry `json:"policy,omitempty"`
	Status    *Status      `json:"status,omitempty"`
}
