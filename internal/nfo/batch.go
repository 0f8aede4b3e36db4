// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"bytes"
	"encoding/binary"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// AddEmptyRule adds a rule without a match and without an action to a chain of
// the netdev family, as nft does. Nothing can offload that. Unlike nft, it
// returns what the kernel has to say: nft prints the error code alone.
func AddEmptyRule(table, chain string) error {
	return addRule(table, chain, func(*netlink.AttributeEncoder) error { return nil })
}

// AddOddRule adds a rule such as nft never writes: it compares the source
// address of IPv4 with two addresses, so it drops nothing. Described to
// hardware expression by expression, the last address would win.
func AddOddRule(table, chain string, never, last net.IP) error {
	return addRule(table, chain, func(list *netlink.AttributeEncoder) error {
		loadSource(list, net.IPv4len)
		equals(list, never.To4())
		equals(list, last.To4())
		verdict(list, verdictDrop)
		return nil
	})
}

// AddStaleRule adds another rule that drops nothing: it loads the destination
// address before it compares with the second, but into another register.
func AddStaleRule(table, chain string, never, last net.IP) error {
	return addRule(table, chain, func(list *netlink.AttributeEncoder) error {
		isIPv4(list)
		loadSource(list, net.IPv4len)
		equals(list, never.To4())
		load(list, unix.NFT_REG_2, 16, net.IPv4len)
		equals(list, last.To4())
		verdict(list, verdictDrop)
		return nil
	})
}

// AddShortRule adds another such rule: it loads the source address of IPv4,
// compares only its first bytes, and accepts. Described to hardware with the
// whole address, it would leave the others of that network to what is behind.
func AddShortRule(table, chain string, network []byte) error {
	return addRule(table, chain, func(list *netlink.AttributeEncoder) error {
		isIPv4(list)
		loadSource(list, net.IPv4len)
		equals(list, network)
		verdict(list, verdictAccept)
		return nil
	})
}

// AddWideRule adds a rule that accepts the same packets: it loads only the
// first bytes of the address, but masks and compares four, of which the last
// are zero in software.
func AddWideRule(table, chain string, network []byte) error {
	return addRule(table, chain, func(list *netlink.AttributeEncoder) error {
		isIPv4(list)
		loadSource(list, len(network))
		expr(list, "bitwise", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
			e.Uint32(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
			e.Uint32(unix.NFTA_BITWISE_LEN, net.IPv4len)
			value(e, unix.NFTA_BITWISE_MASK, net.IPv4bcast.To4())
			value(e, unix.NFTA_BITWISE_XOR, net.IPv4zero.To4())
		})
		equals(list, append(bytes.Clone(network), make([]byte, net.IPv4len-len(network))...))
		verdict(list, verdictAccept)
		return nil
	})
}

// NF_DROP and NF_ACCEPT
const (
	verdictDrop   = 0
	verdictAccept = 1
)

func isIPv4(list *netlink.AttributeEncoder) {
	expr(list, "meta", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_META_DREG, unix.NFT_REG_1)
		e.Uint32(unix.NFTA_META_KEY, unix.NFT_META_PROTOCOL)
	})
	equals(list, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
}

// loadSource loads the first bytes of the source address of IPv4.
func loadSource(list *netlink.AttributeEncoder, n int) {
	load(list, unix.NFT_REG_1, 12, n)
}

// load loads n bytes at offset of the network header.
func load(list *netlink.AttributeEncoder, reg, offset uint32, n int) {
	expr(list, "payload", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_PAYLOAD_DREG, reg)
		e.Uint32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
		e.Uint32(unix.NFTA_PAYLOAD_OFFSET, offset)
		e.Uint32(unix.NFTA_PAYLOAD_LEN, uint32(n))
	})
}

func equals(list *netlink.AttributeEncoder, data []byte) {
	expr(list, "cmp", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		e.Uint32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		value(e, unix.NFTA_CMP_DATA, data)
	})
}

// value is an attribute that holds what a register may.
func value(e *netlink.AttributeEncoder, attr uint16, data []byte) {
	e.Nested(attr, func(d *netlink.AttributeEncoder) error {
		d.Bytes(unix.NFTA_DATA_VALUE, data)
		return nil
	})
}

func verdict(list *netlink.AttributeEncoder, code uint32) {
	expr(list, "immediate", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		e.Nested(unix.NFTA_IMMEDIATE_DATA, func(d *netlink.AttributeEncoder) error {
			d.ByteOrder = binary.BigEndian
			d.Nested(unix.NFTA_DATA_VERDICT, func(v *netlink.AttributeEncoder) error {
				v.ByteOrder = binary.BigEndian
				v.Uint32(unix.NFTA_VERDICT_CODE, code)
				return nil
			})
			return nil
		})
	})
}

// expr is one expression of a rule, its numbers in network byte order.
func expr(list *netlink.AttributeEncoder, name string, attrs func(*netlink.AttributeEncoder)) {
	list.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
		e.String(unix.NFTA_EXPR_NAME, name)
		e.Nested(unix.NFTA_EXPR_DATA, func(d *netlink.AttributeEncoder) error {
			d.ByteOrder = binary.BigEndian
			attrs(d)
			return nil
		})
		return nil
	})
}

func addRule(table, chain string, exprs func(*netlink.AttributeEncoder) error) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)

	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_RULE_TABLE, table)
	e.String(unix.NFTA_RULE_CHAIN, chain)
	e.Nested(unix.NFTA_RULE_EXPRESSIONS, exprs)
	attrs, err := e.Encode()
	if err != nil {
		return err
	}
	// What the kernel acknowledges is the rule, and it acknowledges it once.
	_, err = conn.SendMessages([]netlink.Message{
		nfMessage(unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
		nfMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE,
			netlink.Request|netlink.Create|netlink.Append|netlink.Acknowledge, unix.NFPROTO_NETDEV, 0, attrs),
		nfMessage(unix.NFNL_MSG_BATCH_END, netlink.Request, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
	})
	if err != nil {
		return err
	}
	_, err = conn.Receive()
	return explain(err)
}

func nfMessage(kind uint16, flags netlink.HeaderFlags, family byte, res uint16, attrs []byte) netlink.Message {
	data := binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, res)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: flags},
		Data:   append(data, attrs...),
	}
}
