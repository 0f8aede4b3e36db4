#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2086,SC2317
#
# What a netdev ingress chain does in hardware: for each action N packets are
# sent, and the hardware must have dealt with all of them and the host with none
# of them (or all, where the rule says accept). Where hardware could read a
# packet in another way than the rule's software does, the host must get it.
#
# MODE=flag: chains with an explicit "flags offload".
# MODE=sysctl: plain chains, with nft_offload.ko and its sysctl at 1.
# MODE=both, the default: the same checks in either way, one after the other.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

: "${MODE:=both}"
N=5
SYSCTL=/proc/sys/net/netfilter/nf_flow_offload

# load RULES [DEVICES]: as the only chain, at sut0
load()
{
	local head

	case $mode in
	flag)	head="priority 1; flags offload;" ;;
	sysctl)	head="priority 0;" ;;
	esac

	nft -f - 2> "$TMP/nft.err" <<-END
		flush ruleset
		table netdev t {
			chain c {
				type filter hook ingress ${2:-device sut0} $head
				$1
			}
		}
	END
}

# start RULES ENTRIES [DEVICES]: until that many entries are in hardware
start()
{
	load "$1" "${3:-}" || fail "$(< "$TMP/nft.err")"
	wait_value "$2" hw_stat entries
}

# start_maybe RULE: the module may know better than to offload this one
start_maybe()
{
	if [ "$mode" = flag ]; then
		start "$1" 1
	else
		load "$1" || fail "$(< "$TMP/nft.err")"
	fi
}

# expect_hw REGEX PACKETS [BYTES]
expect_hw()
{
	expect "packets of hardware entry $1" "$(hw_field packets "$1")" "$2"
	[ -z "${3:-}" ] ||
		expect "bytes of hardware entry $1" "$(hw_field bytes "$1")" "$3"
}

# expect_seen TAG PACKETS: by the tap of sut0, which is before any hook
expect_seen()
{
	expect "packets $1 that the host saw" "$(tap_count sut0 "$t.$1")" "$2"
}

# sw_counter COMMENT REGEX: what the rule has counted in software. nft list may
# show that together with what the entry of REGEX has counted in hardware.
sw_counter()
{
	local all hw

	all=$(nft_counter "$1")
	hw=$(hw_field packets "$2")
	if [ "$mode" = flag ] || [ "$all" -ge "$hw" ]; then
		all=$((all - hw))
	fi
	echo "$all"
}

# expect_hw_only TAG COMMENT REGEX BYTES-PER-PACKET
expect_hw_only()
{
	expect_hw "$3" $N $((N * $4))
	expect_seen "$1" 0
	expect "software counter of rule $2" "$(sw_counter "$2" "$3")" 0
}

# expect_host_only TAG COMMENT REGEX: hardware must have kept out of it, and the
# rule must have dropped the packets in software
expect_host_only()
{
	expect_hw "$3" 0
	expect_seen "$1" $N
	expect "software counter of rule $2" "$(sw_counter "$2" "$3")" $N
}

# udp_len TAG, udp6_len TAG: what a counter at ingress makes of send_udp's packet
udp_len()
{
	echo $((20 + 8 + ${#t} + 1 + ${#1} + 3))
}

udp6_len()
{
	echo $((20 + $(udp_len "$1")))
}

t_drop_udp()
{
	local drops

	drops=$(hw_stat drop)
	start "ip saddr $FAR_IP udp dport 9 counter drop comment \"r\"" 1
	send_udp $N 9 $t.drop
	send_udp $N 19 $t.other
	flush_wire
	expect_hw_only drop r 'dport=9/.*action=drop' "$(udp_len drop)"
	expect_seen other $N
	expect "hardware drops" "$(hw_stat drop)" $((drops + N))
}

t_drop_tcp()
{
	local payload

	payload=$(hex_tag $t.drop)
	start 'tcp dport 80 counter drop comment "r"' 1
	send_raw $N 0800 "$(hex_ip4 6 0 "$(hex_tcp 80 2 $payload)")"
	flush_wire
	expect_hw_only drop r 'dport=80/' $((20 + 20 + ${#payload} / 2))
}

t_drop_icmp()
{
	local payload

	payload=$(hex_tag $t.drop)
	start 'meta l4proto icmp counter drop comment "r"' 1
	send_raw $N 0800 "$(hex_ip4 1 0 "$(hex_icmp 8 $payload)")"
	flush_wire
	expect_hw_only drop r 'l4proto=1/' $((20 + 8 + ${#payload} / 2))
}

t_drop_udp6()
{
	start 'ip6 saddr 2001:db8::/64 udp dport 9 counter drop comment "r"' 1
	send_udp6 $N 9 $t.drop
	send_udp6 $N 19 $t.other
	flush_wire
	expect_hw_only drop r 'dport=9/' "$(udp6_len drop)"
	expect_seen other $N
}

t_drop_ethertype()
{
	local payload

	payload=$(hex_tag $t.drop)
	start 'ether type 0x88b5 counter drop comment "r"' 1
	send_raw $N 88b5 $payload
	flush_wire
	expect_hw_only drop r 'proto=0x88b5' $((${#payload} / 2))
}

t_drop_ether_addr()
{
	start "ether saddr $FAR_MAC udp dport 9 counter drop comment \"r\"
	       ether daddr 02:00:00:00:00:0f udp dport 19 counter drop comment \"s\"" 2
	send_udp $N 9 $t.drop
	send_udp $N 19 $t.other
	flush_wire
	expect_hw_only drop r "eth_src=$FAR_MAC/" "$(udp_len drop)"
	expect_hw 'eth_dst=02:00:00:00:00:0f/' 0
	expect_seen other $N
}

t_prefix_mask()
{
	start 'ip saddr 192.0.2.0/31 udp dport 9 counter drop comment "r"
	       ip saddr 192.0.2.2/31 udp dport 9 counter drop comment "s"' 2
	send_udp $N 9 $t.drop
	flush_wire
	expect_hw_only drop r 'src=192.0.2.0/255.255.255.254' "$(udp_len drop)"
	expect_hw 'src=192.0.2.2/255.255.255.254' 0
}

# Each device of a chain has all of its rules, also those for another device.
t_input_device()
{
	local in0="iif=${SUT_IFINDEX[0]} .*dport=9/" in1="iif=${SUT_IFINDEX[1]} .*dport=9/"

	far "ip neigh replace 198.51.100.2 lladdr 02:00:00:00:01:02 dev far1 nud permanent"
	start 'iif sut0 udp dport 9 counter drop comment "r"
	       iif sut1 udp dport 9 counter drop comment "s"' 2 'devices = { sut0, sut1 }'
	wait_value 2 hw_stat entries 1
	send_udp $N 9 $t.drop
	flush_wire
	expect_hw_only drop r "$in0" "$(udp_len drop)"
	expect_hw "$in1" 0
	send_udp $((N + 1)) 9 $t.drop 198.51.100.2
	wait_value $((N + 1)) hw_field packets "$in1" 1
	expect "packets at sut1 of the rule for sut0" "$(hw_field packets "$in0" 1)" 0
	expect "counter of the rule for sut0" "$(nft_counter r)" $N
	expect "counter of the rule for sut1" "$(nft_counter s)" $((N + 1))
}

t_accept()
{
	local accepts

	accepts=$(hw_stat accept)
	start 'udp dport 9 counter accept comment "r"' 1
	send_udp $N 9 $t.pass
	flush_wire
	expect_hw 'action=accept' $N $((N * $(udp_len pass)))
	expect_seen pass $N
	# Software evaluates what it is given again. That makes two counts with
	# "flags offload"; the module counts a packet once.
	if [ "$mode" = flag ]; then
		expect "hardware and software" "$(nft_counter r)" $((2 * N))
	else
		expect "counter of the rule" "$(nft_counter r)" $N
	fi
	expect "hardware accepts" "$(hw_stat accept)" $((accepts + N))
}

t_order()
{
	start 'udp dport 9 counter accept comment "a"
	       meta l4proto udp \
		       udp sport 7777 counter drop comment "b"
	       meta l4proto tcp counter drop comment "c"
	       tcp dport 80 counter accept comment "d"' 4
	send_raw $N 0800 "$(hex_ip4 17 0 "$(hex_udp 9 "$(hex_tag $t.both)" 7777)")"
	send_raw $N 0800 "$(hex_ip4 17 0 "$(hex_udp 19 "$(hex_tag $t.second)" 7777)")"
	send_raw $N 0800 "$(hex_ip4 6 0 "$(hex_tcp 80 2 "$(hex_tag $t.first)")")"
	flush_wire
	expect_hw 'dport=9/' $N
	expect_seen both $N
	expect_hw 'sport=7777/' $N
	expect_seen second 0
	expect_hw 'l4proto=6/0xff action=drop' $N
	expect_seen first 0
	expect_hw 'dport=80/' 0
}

t_no_match()
{
	local misses

	start 'ip saddr 192.0.2.3 counter drop comment "r"
	       udp dport 11 counter drop comment "s"
	       ip6 saddr 2001:db8::1 counter drop comment "u"' 3
	misses=$(hw_stat miss)
	send_udp $N 9 $t.pass
	flush_wire
	expect_seen pass $N
	expect_hw 'src=192.0.2.3/' 0
	expect_hw 'dport=11/' 0
	expect_hw 'src=2001:db8::1/' 0
	expect "misses, with the two packets of flush_wire" \
	       "$(hw_stat miss)" $((misses + N + 2))
}

t_redirect()
{
	local redirects

	redirects=$(hw_stat redirect)
	start 'udp dport 9 counter fwd to "sut1" comment "r"' 1
	send_udp $N 9 $t.fwd
	flush_wire
	wait_value $N tap_count far1 $t.fwd
	flush_far1
	expect "packets at the far end" "$(tap_count far1 $t.fwd)" $N
	expect_hw_only fwd r 'action=redirect:sut1' "$(udp_len fwd)"
	expect "packets that the host sent itself" "$(tap_count sut1 $t.fwd)" 0
	expect "hardware redirects" "$(hw_stat redirect)" $((redirects + N))
}

# A copy and a drop are two things: the module leaves them to software.
t_mirror()
{
	local rule='udp dport 9 counter dup to "sut1" drop comment "r"'

	if [ "$mode" = flag ]; then
		start "$rule" 1
	else
		load "$rule" || fail "$(< "$TMP/nft.err")"
	fi
	send_udp $N 9 $t.dup
	flush_wire
	wait_value $N tap_count far1 $t.dup
	flush_far1
	expect "copies at the far end" "$(tap_count far1 $t.dup)" $N
	if [ "$mode" = flag ]; then
		expect_hw_only dup r 'dport=9/' "$(udp_len dup)"
		expect "packets that the host sent itself" \
		       "$(tap_count sut1 $t.dup)" 0
	else
		expect_seen dup $N
		expect "counter of the rule" "$(nft_counter r)" $N
	fi
}

t_redirect_to_down_port()
{
	start 'udp dport 9 counter fwd to "sut1" comment "r"' 1
	ip link set sut1 down
	send_udp $N 9 $t.fwd
	flush_wire
	ip link set sut1 up
	neighbours | ip -batch -
	wait_until carrier_up 1 || fail "no carrier on sut1"
	flush_far1
	expect "packets at the far end" "$(tap_count far1 $t.fwd)" 0
	expect_hw_only fwd r 'action=redirect:sut1' "$(udp_len fwd)"
}

# The first fragment has the ports. A later one has none, but kernels up to 6.x
# take its payload for ports: the host must sort that out.
t_fragments()
{
	local first later

	first=$(hex_udp 9 "$(hex_tag $t.first)")
	later=$(hex_udp 9 "$(hex_tag $t.later)")
	start 'udp dport 9 counter drop comment "r"' 1
	send_raw $N 0800 "$(hex_ip4 17 0x2000 $first)"
	send_raw $N 0800 "$(hex_ip4 17 0x0003 $later)"
	flush_wire
	expect_hw 'dport=9/' $N $((N * (20 + ${#first} / 2)))
	expect_seen first 0
	expect_seen later $N
}

# A rule on the protocol alone takes every fragment.
t_fragments_l4proto()
{
	local later

	later=$(hex_udp 9 "$(hex_tag $t.later)")
	start "ip saddr $FAR_IP meta l4proto udp ip daddr $SUT_IP counter drop comment \"r\"" 1
	send_raw $N 0800 "$(hex_ip4 17 0x0003 $later)"
	wait_value $N hw_field packets 'l4proto=17/'
	expect_hw_only later r 'l4proto=17/' $((20 + ${#later} / 2))
}

# The ports are there, the end of the packet is not: not IP to nf_tables.
t_truncated()
{
	local ip

	ip=$(hex_ip4 17 0 "$(hex_udp 9 "$(hex_tag $t.short)00000000")")
	start 'udp dport 9 counter drop comment "r"' 1
	send_raw $N 0800 "${ip%00000000}"
	flush_wire
	expect_hw 'dport=9/' 0
	expect_seen short $N
	expect "software counter" "$(sw_counter r 'dport=9/')" 0
}

# meta l4proto looks behind the extension header, ip6 nexthdr does not: the
# entries are the same, so hardware leaves the packet to the host.
t_ip6_extension_header()
{
	local udp hits

	udp=$(hex_udp 9 "$(hex_tag $t.l4proto)")
	start 'udp dport 9 counter drop comment "r"' 1
	send_raw $N 86dd "$(hex_ip6 0 1100050200000100$udp)"
	flush_wire
	expect_host_only l4proto r 'dport=9/'

	udp=$(hex_udp 9 "$(hex_tag $t.nexthdr)")
	start_maybe 'ip6 nexthdr udp counter drop comment "r"'
	hits=$(hw_stat hit)
	send_raw $N 86dd "$(hex_ip6 0 1100050200000100$udp)"
	flush_wire
	expect "hardware hits" "$(hw_stat hit)" "$hits"
	expect_seen nexthdr $N
	expect "counter of the rule" "$(nft_counter r)" 0
}

# meta protocol (of ip saddr) looks behind the tag, ether type does not.
t_vlan_tagged()
{
	local udp hits

	udp=$(hex_udp 9 "$(hex_tag $t.addr)")
	start "ip saddr $FAR_IP udp dport 9 counter drop comment \"r\"" 1
	send_raw $N 0800 "$(hex_ip4 17 0 $udp)" 81000005
	flush_wire
	expect_host_only addr r 'dport=9/'

	udp=$(hex_udp 9 "$(hex_tag $t.port)")
	start 'udp dport 9 counter drop comment "r"' 1
	send_raw $N 0800 "$(hex_ip4 17 0 $udp)" 81000005
	flush_wire
	expect_hw_only port r 'dport=9/' $((20 + ${#udp} / 2))

	udp=$(hex_udp 9 "$(hex_tag $t.vlan)")
	start 'vlan id 6 counter drop comment "s"
	       vlan id 5 counter drop comment "r"' 2
	send_raw $N 0800 "$(hex_ip4 17 0 $udp)" 81000005
	flush_wire
	expect_hw_only vlan r 'vlan=0x8100:0x0005/' $((20 + ${#udp} / 2))
	expect_hw 'vlan=0x8100:0x0006/' 0

	# In software that is the inner of two tags.
	udp=$(hex_udp 9 "$(hex_tag $t.meta)")
	start_maybe 'meta protocol vlan counter drop comment "r"'
	hits=$(hw_stat hit)
	send_raw $N 0800 "$(hex_ip4 17 0 $udp)" 81000005
	flush_wire
	expect "hardware hits" "$(hw_stat hit)" "$hits"
	expect_seen meta $N
}

# What hardware counted is reported once, however often it is asked for.
t_counters()
{
	local i

	start 'udp dport 9 counter drop comment "r"' 1
	send_udp $N 9 $t.drop
	flush_wire
	for i in 1 2 3; do
		expect "packets, listing $i" "$(nft_counter r)" $N
	done
	expect "bytes" "$(nft_counter r bytes)" $((N * $(udp_len drop)))
	send_udp $N 9 $t.drop
	flush_wire
	expect "packets after more of them" "$(nft_counter r)" $((2 * N))
}

t_delete()
{
	start 'udp dport 9 counter drop comment "r"
	       udp dport 19 counter drop comment "s"' 2
	send_udp $N 9 $t.before
	flush_wire
	nft flush chain netdev t c || fail "cannot flush the chain"
	wait_value 0 hw_stat entries
	send_udp $N 9 $t.after
	flush_wire
	expect_seen before 0
	expect_seen after $N
}

t_reload()
{
	local i

	for i in 1 2 3; do
		start "udp dport $((18 + i)) counter drop comment \"r\"" 1
		send_udp $N $((18 + i)) $t.drop$i
		flush_wire
		expect_hw_only drop$i r "dport=$((18 + i))/" "$(udp_len drop$i)"
	done
}

# A full table is an error for who asked for offload, and none for who did not.
t_capacity()
{
	local rules='udp dport 9 counter drop comment "r"
		     udp dport 19 counter drop comment "s"'

	nft flush ruleset
	wait_value 0 hw_stat entries
	echo 1 > "$HW0/capacity"
	if [ "$mode" = flag ]; then
		if load "$rules"; then
			fail "nft took two rules for a table of one entry"
		fi
		[[ $(< "$TMP/nft.err") = *"No space left on device"* ]] ||
			fail "not refused for lack of space: $(< "$TMP/nft.err")"
		expect "entries after the refusal" "$(hw_stat entries)" 0
		expect "bindings after the refusal" "$(hw_stat bound)" 0
		expect "tables after the refusal" "$(nft list tables)" ""
	else
		start "$rules" 1
		send_udp $N 9 $t.first
		send_udp $N 19 $t.second
		flush_wire
		expect_hw_only first r 'dport=9/' "$(udp_len first)"
		expect_seen second $N
		expect "software counter of the rule left out" \
		       "$(nft_counter s)" $N
		nft flush ruleset
	fi
	echo 1024 > "$HW0/capacity"
	start "$rules" 2
}

t_ledger()
{
	nft flush ruleset
	[ "$mode" = flag ] || echo 0 > $SYSCTL
	wait_value 0 ledger entries
	wait_value 0 ledger bound
	expect "stale calls" "$(ledger stale)" 0
	expect "purged entries" "$(ledger purged)" 0
}

t_sysctl()
{
	modprobe -q nft_offload || fail "no nft_offload.ko"
	echo 1 > $SYSCTL || fail "cannot write $SYSCTL"
}

TESTS="drop_udp drop_tcp drop_icmp drop_udp6 drop_ethertype drop_ether_addr
	prefix_mask input_device accept order no_match redirect mirror
	redirect_to_down_port fragments fragments_l4proto truncated
	ip6_extension_header vlan_tagged counters delete reload capacity ledger"

run_mode()
{
	local test tests=$TESTS

	mode=$1
	[ "$mode" = flag ] || tests="sysctl $TESTS"
	for test in $tests; do
		t=$mode.$test
		subtest "$mode: $test" "t_$test"
	done
}

n=$(wc -w <<< "$TESTS")
case $MODE in
flag)	modes=flag plan=$n ;;
sysctl)	modes=sysctl plan=$((n + 1)) ;;
both)	modes="flag sysctl" plan=$((2 * n + 1)) ;;
*)	echo "MODE is flag, sysctl or both, not $MODE" >&2; exit 1 ;;
esac

ktap_print_header
setup_pair
ktap_set_plan $plan
for m in $modes; do
	run_mode "$m"
done
ktap_finished
