// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"fmt"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// decode calls set for each attribute of a message.
func decode(b []byte, set func(d *netlink.AttributeDecoder)) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for d.Next() {
		set(d)
	}
	return d.Err()
}

func someUint64(v uint64) *uint64 { return &v }

func decodeRule(b []byte) (Rule, error) {
	var r Rule
	err := decode(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case ruleTable:
			r.Table = d.String()
		case ruleChain:
			r.Chain = d.String()
		case ruleHandle:
			r.Handle = d.Uint64()
		case ruleIfindex:
			r.Ifindex = d.Uint32()
		case ruleIfname:
			r.Device = d.String()
		case ruleState:
			r.State = State(d.Uint32())
		case ruleReason:
			r.Reason = d.String()
		case rulePrio:
			r.Prio = d.Uint32()
		case rulePackets:
			r.Packets = d.Uint64()
		case ruleBytes:
			r.Bytes = d.Uint64()
		case ruleLastUsed:
			r.LastUsed = someUint64(d.Uint64())
		case rulePolicy:
			r.Policy = Policy(d.Uint32())
		}
	})
	return r, err
}

func decodeFlowtable(b []byte) (Flowtable, error) {
	var f Flowtable
	err := decode(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case ftFamily:
			f.Family = d.Uint32()
		case ftTable:
			f.Table = d.String()
		case ftName:
			f.Name = d.String()
		case ftHandle:
			f.Handle = d.Uint64()
		case ftState:
			f.State = State(d.Uint32())
		case ftReason:
			f.Reason = d.String()
		case ftFlowsHW:
			f.FlowsHW = d.Uint32()
		case ftFlowsSW:
			f.FlowsSW = d.Uint32()
		case ftPackets:
			f.Packets = d.Uint64()
		case ftBytes:
			f.Bytes = d.Uint64()
		case ftLastUsed:
			f.LastUsed = someUint64(d.Uint64())
		case ftIfindex:
			f.Ifindexes = append(f.Ifindexes, d.Uint32())
		}
	})
	return f, err
}

func decodePolicy(b []byte) (PolicyEntry, error) {
	var p PolicyEntry
	err := decode(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case policyTable:
			p.Table = d.String()
		case policyChain:
			p.Chain = d.String()
		case policyHandle:
			p.Handle = d.Uint64()
		case policyValue:
			p.Policy = Policy(d.Uint32())
		}
	})
	return p, err
}

func decodeStatus(b []byte) (Status, error) {
	var s Status
	err := decode(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case statusMode:
			s.Mode = Mode(d.Uint32())
		case statusReason:
			s.Reason = d.String()
		}
	})
	return s, err
}

var eventNames = map[uint8]string{
	cmdRuleNtf: "rule", cmdRuleDelNtf: "rule-gone", cmdFlowtableNtf: "flowtable", cmdFlowtableDelNtf: "flowtable-gone",
	cmdPolicyNtf: "policy", cmdModeNtf: "mode", cmdRefusedNtf: "refused",
}

func decodeEvent(m genetlink.Message) (Event, error) {
	e := Event{Event: eventNames[m.Header.Command]}
	switch m.Header.Command {
	case cmdRuleNtf, cmdRuleDelNtf:
		r, err := decodeRule(m.Data)
		e.Rule = &r
		return e, err
	case cmdFlowtableNtf, cmdFlowtableDelNtf:
		f, err := decodeFlowtable(m.Data)
		e.Flowtable = &f
		return e, err
	case cmdPolicyNtf:
		p, err := decodePolicy(m.Data)
		e.Policy = &p
		return e, err
	case cmdModeNtf, cmdRefusedNtf:
		s, err := decodeStatus(m.Data)
		e.Status = &s
		return e, err
	}
	return Event{}, fmt.Errorf("unknown event %d", m.Header.Command)
}

func encodePolicy(p PolicyEntry) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.String(policyTable, p.Table)
	e.String(policyChain, p.Chain)
	if p.Handle != 0 {
		e.Uint64(policyHandle, p.Handle)
	}
	e.Uint32(policyValue, uint32(p.Policy))
	return e.Encode()
}

// Filter selects rules; what is empty selects all.
type Filter struct {
	Table, Chain string
	Ifindex      uint32
}

func encodeFilter(f Filter) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	if f.Table != "" {
		e.String(ruleTable, f.Table)
	}
	if f.Chain != "" {
		e.String(ruleChain, f.Chain)
	}
	if f.Ifindex != 0 {
		e.Uint32(ruleIfindex, f.Ifindex)
	}
	return e.Encode()
}
