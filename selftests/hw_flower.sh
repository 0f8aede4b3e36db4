#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2015,SC2086,SC2317
#
# The simulated NIC as tc flower sees it: each match tells packets apart, each
# action changes what the far end gets as it should, whatever is not supported is
# refused with a reason, and garbage does no harm.
#
# Filters are installed with skip_sw, so that what happens to a packet is what
# hardware has done to it.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

N=3
# What ends actions on a packet that goes out of sut1.
OUT="pipe action mirred egress redirect dev sut1"

# flower PREF PROTOCOL MATCH-AND-ACTION: an entry in hardware
flower()
{
	tc filter add dev sut0 ingress protocol $2 pref $1 flower skip_sw $3 \
		2> "$TMP/tc.err" || fail "tc: $3: $(< "$TMP/tc.err")"
}

# refused REASON PROTOCOL MATCH-AND-ACTION [CHAIN]
refused()
{
	if tc filter add dev sut0 ingress chain ${4:-0} protocol $2 pref 99 \
			flower skip_sw $3 \
			2> "$TMP/tc.err"; then
		fail "not refused: $3"
		tc filter del dev sut0 ingress chain ${4:-0} pref 99
	elif [[ $(< "$TMP/tc.err") != *"$1"* ]]; then
		fail "$3: refused, but not for '$1': $(< "$TMP/tc.err")"
	fi
}

clear()
{
	tc filter del dev sut0 ingress 2> /dev/null
	expect "entries after a flush" "$(hw_stat entries)" 0
}

# hits REGEX WANTED: packets of the one entry whose line matches
hits()
{
	expect "packets of entry $1" "$(hw_field packets "$1")" "$2"
}

# udp4 TAG [PORT] [SOURCE-PORT]: frame from far0
udp4()
{
	hex_ip4 17 0 "$(hex_udp "${2:-9}" "$(hex_tag $t.$1)" "${3:-12345}")"
}

seen()
{
	expect "packets $1 that the host saw" "$(tap_count sut0 $t.$1)" "$2"
}

# told_apart PROTOCOL MATCH TYPE FRAME TYPE FRAME: the first frame, "in", matches,
# the second, "out", does not
told_apart()
{
	flower 1 "$1" "$2 action drop"
	send_raw $N "$3" "$4"
	send_raw $N "$5" "$6"
	flush_wire
	seen in 0
	seen out $N
	hits 'action=drop' $N
	clear
}

t_match_mac()
{
	flower 1 all "src_mac 02:00:00:00:00:77 action drop"
	flower 2 ip "src_mac $FAR_MAC dst_mac 02:00:00:00:00:00/40
		ip_proto udp dst_port 19 action drop"
	send_raw $N 0800 "$(udp4 in 19)"
	send_raw $N 0800 "$(udp4 out 9)"
	flush_wire
	seen in 0
	seen out $N
	hits 'eth_src=02:00:00:00:00:77' 0
	hits "eth_src=$FAR_MAC" $N
	clear
}

t_match_proto()
{
	# Not UDP: that is what ends a burst.
	told_apart ip "ip_proto icmp" \
		0800 "$(hex_ip4 1 0 "$(hex_icmp 9 "$(hex_tag $t.in)")")" \
		0800 "$(udp4 out)"
}

t_match_ports()
{
	told_apart ip "ip_proto udp dst_port 9" 0800 "$(udp4 in 9)" 0800 "$(udp4 out 19)"
}

t_match_source_port()
{
	told_apart ip "ip_proto udp src_port 7777" \
		0800 "$(udp4 in 9 7777)" 0800 "$(udp4 out 9 7778)"
}

t_match_prefix()
{
	flower 1 ip "src_ip 192.0.2.128/25 action drop"
	flower 2 ip "src_ip 192.0.2.0/25 dst_ip $SUT_IP ip_proto udp dst_port 19 action drop"
	send_raw $N 0800 "$(udp4 in 19)"
	send_raw $N 0800 "$(udp4 out 9)"
	flush_wire
	seen in 0
	seen out $N
	hits 'src=192.0.2.128/' 0
	hits 'src=192.0.2.0/' $N
	clear
}

t_match_ip6()
{
	told_apart ipv6 "src_ip 2001:db8::/64 ip_proto udp dst_port 9" \
		86dd "$(hex_ip6 17 "$(hex_udp 9 "$(hex_tag $t.in)")")" \
		86dd "$(hex_ip6 17 "$(hex_udp 19 "$(hex_tag $t.out)")")"
}

t_match_tcp_flags()
{
	told_apart ip "ip_proto tcp tcp_flags 0x2/0x2" \
		0800 "$(hex_ip4 6 0 "$(hex_tcp 80 2 "$(hex_tag $t.in)")")" \
		0800 "$(hex_ip4 6 0 "$(hex_tcp 80 16 "$(hex_tag $t.out)")")"
}

t_match_ttl()
{
	flower 1 ip "ip_ttl 63 action drop"
	flower 2 ip "ip_ttl 64 ip_proto udp dst_port 19 action drop"
	send_raw $N 0800 "$(udp4 in 19)"
	send_raw $N 0800 "$(udp4 out 9)"
	flush_wire
	seen in 0
	seen out $N
	hits 'ttl=63/' 0
	clear
}

# DSCP, whatever the two bits of ECN below it are
t_match_tos()
{
	local in out

	in=$(hex_udp 9 "$(hex_tag $t.in)") out=$(hex_udp 9 "$(hex_tag $t.out)")
	told_apart ip "ip_tos 0xb8/0xfc" \
		0800 "$(hex_ip4 17 0 "$in" 0xb9)" 0800 "$(hex_ip4 17 0 "$out" 0xa8)"
	t+=6
	in=$(hex_udp 9 "$(hex_tag $t.in)") out=$(hex_udp 9 "$(hex_tag $t.out)")
	told_apart ipv6 "ip_tos 0xb8/0xfc" \
		86dd "$(hex_ip6 17 "$in" 0xb9)" 86dd "$(hex_ip6 17 "$out" 0xa8)"
}

t_match_vlan()
{
	flower 1 802.1q "vlan_id 5 action drop"
	flower 2 802.1q "vlan_id 6 vlan_ethtype ip ip_proto udp dst_port 19 action drop"
	send_raw $N 0800 "$(udp4 in5)" 81000005
	send_raw $N 0800 "$(udp4 in6 19)" 81000006
	send_raw $N 0800 "$(udp4 out6 9)" 81000006
	send_raw $N 0800 "$(udp4 out 19)"
	flush_wire
	seen in5 0
	seen in6 0
	seen out6 $N
	seen out $N
	hits 'vlan=0x8100:0x0005/' $N
	hits 'vlan=0x8100:0x0006/' $N
	clear
}

t_match_two_tags()
{
	flower 1 802.1ad "vlan_id 5 vlan_ethtype 802.1q cvlan_id 7 cvlan_ethtype ip
		ip_proto udp dst_port 9 action drop"
	send_raw $N 0800 "$(udp4 in)" 88a8000581000007
	send_raw $N 0800 "$(udp4 out 19)" 88a8000581000007
	send_raw $N 0800 "$(udp4 other)" 88a8000581000008
	flush_wire
	seen in 0
	seen out $N
	seen other $N
	hits 'cvlan=0x8100:0x0007/' $N
	clear
}

# tc takes neither tagged frames for IP nor ports from fragments.
t_match_is_of_tc()
{
	flower 1 ip "ip_proto udp dst_port 9 action drop"
	send_raw $N 0800 "$(udp4 tagged)" 81000005
	send_raw $N 0800 "$(hex_ip4 17 0x2000 "$(hex_udp 9 "$(hex_tag $t.frag)")")"
	flush_wire
	seen tagged $N
	seen frag $N
	hits 'dport=9/' 0
	clear
}

t_order()
{
	flower 7 ip "ip_proto udp dst_port 9 action drop"
	flower 3 ip "src_ip $FAR_IP action pass"
	send_raw $N 0800 "$(udp4 pass)"
	flush_wire
	seen pass $N
	tc filter del dev sut0 ingress pref 3
	send_raw $N 0800 "$(udp4 drop)"
	flush_wire
	seen drop 0
	hits 'action=drop' $N
	clear
}

# arrives MATCH: a rule of the far end on what it gets from sut1
arrives()
{
	far "nft 'table netdev w { chain c { type filter hook ingress device far1 priority 0
		$1 counter; }; }'" || fail "nft at the far end: $1"
}

# arrived: what that rule has counted
arrived()
{
	local line

	line=$(far 'nft list chain netdev w c')
	line=${line##*counter packets }
	echo "${line%% *}"
}

# edits PROTOCOL MATCH ACTIONS ARRIVES FRAME-TYPE FRAME [TAG]
edits()
{
	arrives "$4"
	flower 1 "$1" "$2 $3 action mirred egress redirect dev sut1"
	send_raw $N "$5" "$6" "${7:-}"
	flush_wire
	wait_value $N arrived
	hits 'action=.*redirect:sut1' $N
	seen edit 0
	far 'nft delete table netdev w'
	clear
}

# sum16 HEX...: the Internet checksum over it, folded
sum16()
{
	local hex=$1 sum=0 i

	[ $((${#hex} % 4)) -eq 0 ] || hex+=00
	for ((i = 0; i < ${#hex}; i += 4)); do
		sum=$((sum + 0x${hex:i:4}))
	done
	while [ $sum -gt 65535 ]; do
		sum=$(((sum & 0xffff) + (sum >> 16)))
	done
	echo $sum
}

# udp_sum HEX-ADDRESSES PAYLOAD: datagram to port 9 with its checksum
udp_sum()
{
	local len dgram sum

	printf -v len '%04x' $((8 + ${#2} / 2))
	dgram=30390009${len}0000$2
	sum=$(sum16 "${1}0011$len$dgram")
	printf '30390009%s%04x%s' $len $((~sum & 0xffff)) "$2"
}

t_edit_mac()
{
	edits ip "ip_proto udp dst_port 9" \
	      "action pedit ex munge eth dst set 02:00:00:00:01:01
			munge eth src set 02:00:00:00:77:01" \
	      "ether saddr 02:00:00:00:77:01 ether daddr 02:00:00:00:01:01 udp dport 9" \
	      0800 "$(udp4 edit)"
}

# What far1's socket takes has the right checksums: it verifies both.
t_edit_ip4()
{
	local dgram

	dgram=$(udp_sum c0000201c0000202 "$(hex_tag $t.edit)")
	far "socat -u UDP4-RECV:9,bind=198.51.100.1 OPEN:$TMP/sock,creat,append 2> /dev/null &"
	wait_until _listens || fail "nobody listens at the far end"
	flower 1 ip "dst_ip $SUT_IP ip_proto udp dst_port 9
		action pedit ex munge eth dst set 02:00:00:00:01:01
			munge ip dst set 198.51.100.1 munge ip ttl set 9 pipe
		action csum ip and udp pipe
		action mirred egress redirect dev sut1"
	far 'echo 0 > /proc/sys/net/ipv4/conf/far1/rp_filter;
	     echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter;
	     echo 1 > /proc/sys/net/ipv4/conf/all/accept_local;
	     echo 1 > /proc/sys/net/ipv4/conf/far1/accept_local'
	send_raw $N 0800 "$(hex_ip4 17 0 $dgram)"
	flush_wire
	wait_value $N _in_socket $t.edit
	hits 'action=set:.*redirect:sut1' $N
	clear
}

_listens()
{
	# shellcheck disable=SC2016
	far '[[ $(< /proc/net/udp) = *:0009\ * ]]'
}

# _in_socket TAG
_in_socket()
{
	local piece n=0

	while IFS= read -r -d ';' piece; do
		[[ $piece != *"<$1>" ]] || n=$((n + 1))
	done < "$TMP/sock"
	echo $n
}

t_edit_ports()
{
	edits ip "ip_proto udp dst_port 9" \
	      "action pedit ex munge udp dport set 4711 munge udp sport set 99" \
	      "udp dport 4711 udp sport 99" 0800 "$(udp4 edit)"
	edits ip "ip_proto tcp dst_port 80" \
	      "action pedit ex munge tcp dport set 4711" \
	      "tcp dport 4711 tcp sport 12345 tcp flags syn" \
	      0800 "$(hex_ip4 6 0 "$(hex_tcp 80 2 "$(hex_tag $t.edit)")")"
}

t_edit_ip6()
{
	edits ipv6 "ip_proto udp dst_port 9" \
	      "action pedit ex munge ip6 dst set 2001:db8:1::9 munge ip6 hoplimit set 7" \
	      "ip6 daddr 2001:db8:1::9 ip6 saddr 2001:db8::1 ip6 hoplimit 7 udp dport 9" \
	      86dd "$(hex_ip6 17 "$(hex_udp 9 "$(hex_tag $t.edit)")")"
}

# Only the bits of the mask change.
t_edit_mask()
{
	edits ip "ip_proto udp dst_port 9" \
	      "action pedit ex munge ip dst set 0.0.0.77 retain 255" \
	      "ip daddr 192.0.2.77 udp dport 9" 0800 "$(udp4 edit)"
}

t_vlan_push_pop()
{
	edits ip "ip_proto udp dst_port 9" "action vlan push id 33 priority 5" \
	      "vlan id 33 vlan pcp 5 udp dport 9" 0800 "$(udp4 edit)"
	edits 802.1q "vlan_id 5 vlan_ethtype ip ip_proto udp dst_port 9" \
	      "action vlan pop" "ether type ip udp dport 9" \
	      0800 "$(udp4 edit)" 81000005
}

# A copy is of the packet as it was then.
t_copy_between_edits()
{
	arrives "udp dport 100"
	flower 1 ip "ip_proto udp dst_port 9
		action pedit ex munge udp dport set 100 pipe
		action mirred egress mirror dev sut1 pipe
		action pedit ex munge udp dport set 200 pipe
		action mirred egress redirect dev sut1"
	send_raw $N 0800 "$(udp4 edit)"
	flush_wire
	wait_value $N arrived
	far 'nft delete table netdev w'
	arrives "udp dport 200"
	send_raw $N 0800 "$(udp4 edit)"
	flush_wire
	wait_value $N arrived
	far 'nft delete table netdev w'
	clear
}

# Statistics are of what was not reported yet, and tc adds them up.
t_stats()
{
	local i line

	flower 1 ip "ip_proto udp dst_port 9 action drop"
	send_raw $N 0800 "$(udp4 drop)"
	flush_wire
	for i in 1 2; do
		line=$(tc -s filter show dev sut0 ingress)
		[[ $line =~ Sent\ hardware\ ([0-9]+)\ bytes\ ([0-9]+)\ pkt ]] ||
			fail "no statistics: $line"
		expect "packets, for the $i. time" "${BASH_REMATCH[2]}" $N
		expect "bytes, for the $i. time" "${BASH_REMATCH[1]}" \
		       $((N * (28 + ${#t} + 8)))
	done
	clear
}

t_refused_matches()
{
	refused "cannot match on ICMP" ip "ip_proto icmp type 8 action drop"
	refused "cannot match on ARP" arp "arp_sip 192.0.2.1 action drop"
	refused "cannot match on port range" ip "ip_proto udp dst_port 10-20 action drop"
	refused "cannot match on control flags" ip "ip_flags frag action drop"
	refused "cannot match on tunnel" ip "enc_key_id 7 action drop"
	refused "cannot match on MPLS" mpls_uc "mpls_label 7 action drop"
	refused "chain 0 only" ip "action drop" 5
}

t_refused_actions()
{
	local m="ip_proto udp dst_port 9 action"

	refused "hardware has no action 'trap'" ip "$m trap"
	refused "hardware has no action 'mark'" ip "$m skbedit mark 7 pipe action drop"
	refused "change of a VLAN tag" 802.1q "vlan_id 5 action vlan modify id 6 $OUT"
	refused "must match on it" ip "$m vlan pop $OUT"
	refused "the host would edit" ip "$m vlan push id 3 pipe action pass"
	refused "reaches netdevsim ports only" ip "$m mirred egress redirect dev lo"
	refused "redirect to ingress" ip "$m mirred ingress redirect dev sut1"
	refused "addition to a header field" ip "$m pedit ex munge ip ttl add 255 $OUT"
	refused "cannot edit header type" ip "$m pedit ex munge offset 0 u8 set 1 $OUT"
	refused "must match on its protocol" ip \
		"ip_proto udp action pedit ex munge tcp dport set 1 $OUT"
	refused "what it has edited only" ip "$m csum udp $OUT"
	refused "whose checksum" ip \
		"dst_ip $SUT_IP action pedit ex munge ip dst set 1.2.3.4 $OUT"
	refused "needs accept, drop or redirect" ip "$m pedit ex munge udp dport set 1"
}

# Whatever tc accepts must be refused or taken, but never do harm.
t_garbage()
{
	local i rand=1 m a proto

	for ((i = 0; i < 60; i++)); do
		rand=$(((rand * 1103515245 + 12345) & 0x7fffffff))
		case $((rand >> 8 & 7)) in
		0)	proto=ip m="ip_proto $((rand >> 12 & 255))" ;;
		1)	proto=ip m="src_ip 10.0.0.0/$((rand >> 12 & 31))"
			m+=" ip_tos 0x$((rand >> 18 & 7))" ;;
		2)	proto=ipv6 m="dst_ip 2001:db8::/$((rand >> 12 & 127))" ;;
		3)	proto=ip m="ip_proto tcp tcp_flags 0x$((rand >> 12 & 7))/0x7" ;;
		4)	proto=802.1q m="vlan_id $((rand >> 12 & 4095))"
			m+=" vlan_prio $((rand >> 24 & 7))" ;;
		5)	proto=all m="src_mac 02:00:00:00:00:00/$((rand >> 12 & 31))" ;;
		6)	proto=ip m="ip_proto udp dst_port $((rand >> 12 & 4095))" ;;
		7)	proto=0x$((1000 + (rand >> 12 & 4095))) m="dst_mac 02:00:00:00:00:02" ;;
		esac
		case $((rand >> 4 & 7)) in
		0)	a="action pass" ;;
		1)	a="action goto chain 3" ;;
		2)	a="action pedit munge offset $((rand >> 16 & 63)) u32 set 0x$rand $OUT" ;;
		3)	a="action pedit ex munge ip src set 10.0.0.$((rand >> 16 & 255)) $OUT" ;;
		4)	a="action vlan push id 1 pipe action vlan push id 2"
			a+=" pipe action vlan push id 3 $OUT" ;;
		5)	a="action vlan pop pipe action vlan pop $OUT" ;;
		6)	a="action mirred egress mirror dev sut1"
			a+=" pipe action mirred egress mirror dev sut1 pipe action drop" ;;
		7)	a="" ;;
		esac
		echo "filter add dev sut0 ingress protocol $proto pref $((1 + i)) flower $m $a"
		[ $((i % 7)) -ne 6 ] ||
			echo "filter del dev sut0 ingress pref $((1 + i / 2))"
	done > "$TMP/garbage"
	tc -force -batch "$TMP/garbage" > /dev/null 2>&1
	[ "$(hw_stat entries)" -gt 0 ] || fail "nothing was taken"
	send_raw 20 0800 "$(udp4 any)"
	send_raw 20 0800 "$(udp4 any)" 8100000588a80007
	send_raw 20 86dd "$(hex_ip6 17 "$(hex_udp 9 "$(hex_tag $t.any)")")"
	tc -s filter show dev sut0 ingress > /dev/null
	clear
	send_raw 1 0800 "$(udp4 end)"
	flush_wire
	seen end 1
}

t_many_rules()
{
	local i

	for ((i = 0; i < 2000; i++)); do
		echo "filter add dev sut0 ingress protocol ip pref 5 flower skip_sw" \
		     "dst_ip 10.$((i >> 8)).$((i & 255)).1 ip_proto udp dst_port 9 action drop"
	done > "$TMP/many"
	echo 3000 > "$HW0/capacity"
	flower 6 ip "dst_ip $SUT_IP ip_proto udp dst_port 9 action drop"
	tc -batch "$TMP/many" || fail "tc: many filters"
	expect "entries" "$(hw_stat entries)" 2001
	send_raw $N 0800 "$(udp4 drop)"
	flush_wire
	seen drop 0
	hits "dst=$SUT_IP/" $N
	clear
	echo 1024 > "$HW0/capacity"
}

t_feature()
{
	ethtool -K sut0 hw-tc-offload off
	refused "TC offload is disabled" ip "ip_proto udp action drop"
	ethtool -K sut0 hw-tc-offload on
	flower 1 ip "ip_proto udp dst_port 19 action drop"
	if ethtool -K sut0 hw-tc-offload off 2> /dev/null &&
	   [[ $(ethtool -k sut0) = *"hw-tc-offload: off"* ]]; then
		fail "the feature went off with an entry in hardware"
	fi
	clear
}

t_ledger()
{
	tc qdisc del dev sut0 clsact
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
}

TESTS="match_mac match_proto match_ports match_source_port match_prefix match_ip6
	match_tcp_flags match_ttl match_tos match_vlan match_two_tags match_is_of_tc order
	edit_mac edit_ip4 edit_ports edit_ip6 edit_mask vlan_push_pop
	copy_between_edits stats refused_matches refused_actions garbage many_rules
	feature ledger"

ktap_print_header
setup_pair
need_tools tc
tc qdisc add dev sut0 clsact || ktap_skip_all "needs clsact (CONFIG_NET_SCH_INGRESS)"
ktap_set_plan "$(wc -w <<< "$TESTS")"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
