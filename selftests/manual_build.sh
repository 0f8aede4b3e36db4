#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# The first thing anybody tries: build with "make M=net/netfilter modules",
# insmod, set the sysctl, add a chain of priority 0 and a rule by hand.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

: "${MANUAL_KO:=/lib/nftvm/manual/nft_offload.ko}"
TAINT_OOT=4096
N=5

t_insmod()
{
	local before after new

	before=$(cat /proc/sys/kernel/tainted)
	insmod "$MANUAL_KO" || fail "cannot insmod $MANUAL_KO, see dmesg"
	after=$(cat /proc/sys/kernel/tainted)
	# Built with M=, so the kernel says O, and nothing else.
	new=$((after & ~before & ~TAINT_OOT))
	expect "taint besides O" "$new" 0
	expect "taint O" $((after & TAINT_OOT)) "$TAINT_OOT"
	expect "taint flags of the module" "$(cat /sys/module/nft_offload/taint)" O
}

t_sysctl()
{
	expect "value at first" "$(cat /proc/sys/net/netfilter/nf_flow_offload)" 0
	sysctl -qw "$SYSCTL"=1 || fail "sysctl -w $SYSCTL=1"
	expect "value now" "$(cat /proc/sys/net/netfilter/nf_flow_offload)" 1
}

t_rule_by_hand()
{
	nft_do add table netdev filter
	nft_do add chain netdev filter ingress \
		'{ type filter hook ingress device sut0 priority 0; }'
	nft_do add rule netdev filter ingress \
		udp dport 9 counter drop comment '"by hand"'
	expect_entries 1
	expect_state "by hand" hardware
	expect "hardware priority" "$(hw_field prio 'dport=9/')" 32768
}

t_packets()
{
	send 9 nine
	send 10 ten
	flush_wire
	expect_seen nine 0
	expect_seen ten "$N"
	expect "packets of the entry" "$(hw_field packets 'dport=9/')" "$N"
	expect "counter in nft list" "$(nft_counter "by hand")" "$N"
}

t_rmmod()
{
	rmmod nft_offload || fail "cannot rmmod"
	expect_ledger_empty
	expect "rules left in nft" "$(nft list ruleset | grep -c 'by hand')" 1
}

ktap_print_header
[ -e "$MANUAL_KO" ] || ktap_skip_all "needs $MANUAL_KO, built with M="
setup_pair
need_tools insmod rmmod
[ ! -d /sys/module/nft_offload ] || rmmod nft_offload ||
	ktap_bail "nft_offload is loaded already and cannot be removed"
# insmod does not load what the module needs
modprobe -a nf_tables nf_flow_table || ktap_bail "no nf_tables or no nf_flow_table"
ktap_set_plan 5
run_subtests insmod sysctl rule_by_hand packets rmmod
ktap_finished
