#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Packets per second through a chain of which the last of 1,001 rules matches,
# in hardware and in software. pktgen sends from the far end, so that what a
# packet costs its sender is little beside what the rules cost its receiver.
#
# Figures come out as "# figure NAME VALUE".

# shellcheck source=lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/../offload_lib.sh"

RULES=1000
PKTGEN=/proc/net/pktgen

load_rules()
{
	local i

	{
		echo "table netdev b { chain c {"
		echo "type filter hook ingress device sut0 priority 0;"
		for ((i = 0; i < RULES; i++)); do
			echo "udp dport $((i + 1000)) drop"
		done
		echo "udp dport 9 counter drop comment \"last\""
		echo "}; }"
	} | load
}

# pktgen_setup COUNT, in the far end
pktgen_setup()
{
	far "echo rem_device_all > $PKTGEN/kpktgend_0
		echo add_device far0 > $PKTGEN/kpktgend_0
		for cmd in 'count $1' 'clone_skb 0' 'pkt_size 60' 'delay 0' \
			'dst $SUT_IP' 'src_min $FAR_IP' 'dst_mac $SUT_MAC' \
			'udp_dst_min 9' 'udp_dst_max 9'; do
			echo \"\$cmd\" > $PKTGEN/far0 || exit 1
		done" || fail "cannot set pktgen up"
}

# Every packet that the port took: those of the rings' overflow are not.
handled()
{
	if [ "$1" = hardware ]; then
		hw_stat drop
	else
		nft_counter last
	fi
}

# t_path hardware|software COUNT
t_path()
{
	local path=$1 count=$2 before after start took misses

	[ "$path" != hardware ] || offload 1
	misses=$(hw_stat miss)
	pktgen_setup "$count"
	before=$(handled "$path")
	start=${EPOCHREALTIME/[.,]/}
	far "echo start > $PKTGEN/pgctrl" || fail "pktgen does not start"
	took=$((${EPOCHREALTIME/[.,]/} - start))
	flush_wire
	after=$(handled "$path")
	[ $((after - before)) -gt $((count * 9 / 10)) ] ||
		fail "of $count packets $path handled $((after - before))"
	if [ "$path" = hardware ]; then
		expect "entries" "$(hw_stat entries)" $((RULES + 1))
		# what flush_wire sends
		[ $(($(hw_stat miss) - misses)) -le 2 ] ||
			fail "hardware missed $(($(hw_stat miss) - misses))"
	else
		expect "entries" "$(hw_stat entries)" 0
	fi
	ktap_print_msg "figure $path $(((after - before) * 1000000 / took))"
	offload 0
}

ktap_print_header
setup_pair
need_offload
modprobe -q pktgen || ktap_skip_all "needs pktgen (CONFIG_NET_PKTGEN)"
ktap_set_plan 2
echo 20000 > "$HW0/capacity"
load_rules
subtest software t_path software 2000
subtest hardware t_path hardware 20000
ktap_finished
