// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// AddEmptyRule adds a rule without a match and without an action to a chain of
// the netdev family, as nft does. Nothing can offload that. Unlike nft, it
// returns what the kernel has to say: nft prints the error code alone.
func AddEmptyRule(table, chain string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)

	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_RULE_TABLE, table)
	e.String(unix.NFTA_RULE_CHAIN, chain)
	e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(*netlink.AttributeEncoder) error { return nil })
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
