#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Flow tables without 'flags offload' are switched to hardware and back at
# runtime. Hardware must do what software would have done: addresses, tags,
# TTL, what chains in front of the flow table say; it must give back what it
# has counted, and flows must outlive the switch. The ruleset must not change.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"
# shellcheck source=flow_lib.sh
. "$(dirname "$0")/flow_lib.sh"

N=5

done_with()
{
	offload 0
	load < /dev/null
	expect_ledger_empty
}

# both KNOB TEXT: of the hardware of each port
both()
{
	echo "$2" > "$HW0/$1"
	echo "$2" > "$HW1/$1"
}

# say_to_host FD TAG: N packets that the host sees. Only then are they through what
# is about to go.
say_to_host()
{
	say "$1" "$N" "$2"
	wait_value "$N" tap_count sut0 "$2"
}

# expect_path hard|soft FD TAG: N packets of the flow take that way
expect_path()
{
	local before after seen=$N

	[ "$1" = soft ] || seen=0
	before=$(hw_stat hit)
	say "$2" "$N" "$t.$3"
	settle "$2"
	after=$(hw_stat hit)
	expect "packets $3 that the host saw" "$(tap_count sut0 "$t.$3")" "$seen"
	expect "packets $3 that arrived" "$(tap_count far1 "$t.$3")" "$N"
	# with the one that settles
	[ "$1" = soft ] ||
		expect "hits in hardware" $((after - before)) $((N + 1))
}

t_on_and_off()
{
	load_flowtable
	{ ruleset; nft list flowtables; } > "$TMP/before"
	open_flow 5 9
	expect_path soft 5 soft
	expect "listing while off" "$(ft_line)" ""
	offload 1
	# The flow that exists goes to hardware.
	expect_flows 1
	expect_ft hardware "^-$"
	expect "devices" "$(ft_field 4)" sut0,sut1
	expect_path hard 5 hard
	# So does a new one.
	open_flow 6 9
	expect_flows 2
	expect_path hard 6 new
	{ ruleset; nft list flowtables; } > "$TMP/after"
	cmp "$TMP/before" "$TMP/after" || fail "the ruleset has changed"
	# Back in software the flows and their conntrack entries live on.
	offload 0
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect_ledger_empty
	expect "flows in software" \
	       "$(ct_line 'dport=9 packets=.*\[OFFLOAD\]' | wc -l)" 2
	expect_path soft 5 again
	expect_path soft 6 newagain
	expect "packets that arrived" "$(arrived plain)" $((5 * N + 5 + 4))
	close_flow 5
	close_flow 6
	done_with
}

# What hardware and software have forwarded is what was sent, exactly, whoever
# asks and when.
t_counters()
{
	local sent=2 line start now

	load_flowtable
	offload 1
	line="f flowtable ft sut0,sut1 hardware -"
	expect "listed before any packet" "$(ft_line)" "$line 0 0 - -"
	open_flow 5 13
	expect_flows 1
	expect_told 1
	start=${EPOCHREALTIME/[.,]/}
	say 5 7 "$t"
	settle 5
	sent=$((sent + 8))
	# Headers of IP and UDP are 28 bytes.
	line+=" 8 $((7 * (28 + ${#t} + 3) + 28 + 9 + ${#_n_end}))"
	read -r -a LISTED <<< "$(ft_line)"	# asks hardware
	now=${EPOCHREALTIME/[.,]/}
	expect "conntrack, in hardware" "$(ct_packets 13)" "$sent"
	expect "the same, asked again" "$(ct_packets 13)" "$sent"
	expect "listed" "${LISTED[*]:0:8} ${LISTED[*]:9}" "$line -"
	# A jiffy is up to 10 ms.
	[ "${LISTED[8]}" -le $(((now - start) / 1000 + 10)) ] ||
		fail "used ${LISTED[8]} ms ago, sent within $((now - start)) us"
	wait_until _unused_since $((LISTED[8] + 100)) || fail "used all the time"
	expect_told 1
	say 5 7 "$t"
	settle 5
	sent=$((sent + 8))
	# nobody has asked for these yet
	offload 0
	expect "conntrack, in software again" "$(ct_packets 13)" "$sent"
	say 5 3 "$t"
	settle 5
	sent=$((sent + 4))
	expect "conntrack, in software" "$(ct_packets 13)" "$sent"
	close_flow 5
	done_with
}

_unused_since()
{
	[ "$(ft_field 9)" -gt "$1" ]
}

t_nat4()
{
	load_flowtable "chain post {
			type nat hook postrouting priority srcnat;
			udp dport 10 snat ip to 198.51.100.77
		}
		chain pre {
			type nat hook prerouting priority dstnat;
			udp dport 11 dnat ip to $FAR2_IP:12
		}"
	ip neigh replace 198.51.100.77 lladdr "$FAR2_MAC" dev sut1
	offload 1
	open_flow 5 10
	open_flow 6 11
	expect_flows 2
	expect_path hard 5 snat
	expect_path hard 6 dnat
	# two more that opened the flow, one that ended the burst
	expect "packets with the translated source" "$(arrived snat)" $((N + 3))
	expect "packets with the translated port" "$(arrived dnat)" $((N + 3))
	close_flow 5
	close_flow 6
	done_with
}

t_nat6()
{
	load_flowtable "chain post {
			type nat hook postrouting priority srcnat;
			udp dport 10 snat ip6 to 2001:db8:1::77
		}"
	offload 1
	open_flow 5 10 "$FAR2_IP6"
	open_flow 6 9 "$FAR2_IP6"
	expect_flows 2
	expect_path hard 5 snat6
	expect_path hard 6 plain6
	expect "packets with the translated source" "$(arrived snat6)" $((N + 3))
	expect "packets with their own" "$(arrived plain6)" $((N + 3))
	close_flow 5
	close_flow 6
	done_with
}

# tagged_net TAG...: the far end and the router share a network behind those
# tags, the outer one first, from which the far end reaches 198.51.100.9
tagged_net()
{
	local end dev tag

	for end in sut0 far0; do
		dev=$end
		for tag; do
			echo "link add link $dev name ${dev}v type vlan id $tag"
			dev+=v
			echo "link set $dev up"
		done > "$TMP/$end.ip"
		case $end in
		sut0)	cat <<-END
				addr add 203.0.113.2/24 dev $dev
				neigh replace 203.0.113.1 lladdr $FAR_MAC dev $dev nud permanent
			END
			;;
		far0)	cat <<-END
				addr add 203.0.113.1/24 dev $dev
				neigh replace 203.0.113.2 lladdr $SUT_MAC dev $dev nud permanent
				route add 198.51.100.9/32 via 203.0.113.2 dev $dev
			END
			;;
		esac >> "$TMP/$end.ip"
	done
	ip -batch "$TMP/sut0.ip" || fail "cannot create VLAN devices"
	far "ip -batch $TMP/far0.ip" || fail "cannot create VLAN devices"
	far2 "ip addr add 198.51.100.9/24 dev far1"
	ip neigh replace 198.51.100.9 lladdr "$FAR2_MAC" dev sut1 nud permanent
}

tagged_net_down()
{
	ip link del sut0v
	far "ip link del far0v"
	far2 "ip addr del 198.51.100.9/24 dev far1"
}

t_vlan()
{
	tagged_net 10
	load_flowtable
	offload 1
	open_flow 5 9 198.51.100.9
	expect_flows 1
	expect "flows with that tag" "$(flows 0 'vlan=0x8100:0x000a')" 1
	expect_path hard 5 tagged
	expect "packets that arrived" "$(arrived vlan)" $((N + 3))
	close_flow 5
	done_with
	tagged_net_down
}

expect_refused_flow()
{
	expect_path soft "$1" "$2"
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect_ft hardware "1 of 1 flows in software: hardware cannot do what they need"
}

# Hardware would compare packets with the MTU of the port.
t_route_mtu()
{
	ip route add "$FAR2_IP/32" dev sut1 mtu 1300 || fail "no route"
	load_flowtable
	offload 1
	open_flow 5 9
	expect_refused_flow 5 small
	close_flow 5
	done_with
	ip route del "$FAR2_IP/32" dev sut1
}

# A route that is gone takes its flows along, from hardware as from software. But
# software of 5.10 asks for the route of a flow once.
t_route_changes()
{
	local -A soft

	load_flowtable
	open_flow 5 16
	open_flow 6 17 "$FAR2_IP6"
	blackhole 5 6 "$FAR2_IP/32"
	soft[5]=$REPLY
	blackhole 6 5 "$FAR2_IP6/128"
	soft[6]=$REPLY
	ktap_print_msg "of $N packets arrive in software: ${soft[5]}, ${soft[6]}"
	offload 1
	wait_until _recovered "5 6" 22 || fail "the flows are not in hardware"
	blackhole 5 6 "$FAR2_IP/32" 16
	expect "packets that arrived" "$REPLY" "${soft[5]}"
	wait_until _recovered 5 22 || fail "there is a route again, but not the flow"
	expect_path hard 5 back
	blackhole 6 5 "$FAR2_IP6/128" 17
	expect "packets that arrived by IPv6" "$REPLY" "${soft[6]}"
	close_flow 5
	close_flow 6
	done_with
}

# blackhole FD OTHER DESTINATION [PORT]: sets REPLY to how many of N packets of
# the flow arrive without a route to DESTINATION; of a flow to PORT in hardware
# once it has left, if it does so in software. Flow OTHER goes on.
blackhole()
{
	local tag=$t.$1${4:-soft} host

	ip route add blackhole "$3" || fail "no route"
	[ -z "${4:-}" ] || [ "${soft[$1]}" != 0 ] || wait_until _busy "$1" "$4" ||
		fail "the flow to port $4 stays in hardware without a route"
	say "$1" "$N" "$tag"
	settle "$2"
	ip route del blackhole "$3"
	host=$(tap_count sut0 "$tag")
	_count_tap far1 "$tag"
	[ "$REPLY" != 0 ] || expect "packets that the host saw" "$host" "$N"
}

# Two tags, of which drivers need not push the inner one first
t_stacked()
{
	tagged_net 10 20
	load_flowtable
	offload 1
	open_flow 5 9 198.51.100.9
	expect_refused_flow 5 stacked
	close_flow 5
	done_with
	tagged_net_down
}

# A connection with somebody who echoes
connect()
{
	far2 "socat TCP-LISTEN:8080,reuseaddr PIPE 2> /dev/null &"
	wait_until _far2_listens 8080 || fail "nobody listens"
	far "exec 5<> /dev/tcp/$FAR2_IP/8080" || fail "cannot connect"
	expect_echo one
}

# expect_echo WORD
expect_echo()
{
	expect "echo" "$(far "echo $1 >&5; read -r x <&5; echo \"\$x\"")" "$1"
}

# FIN goes through software, and hardware forgets the connection.
t_tcp()
{
	local there back

	load_flowtable
	offload 1
	connect
	expect_flows 1
	there=$(hw_stat hit)
	back=$(hw_stat hit 1)
	expect_echo two
	[ "$(hw_stat hit)" -gt "$there" ] || fail "hardware has forwarded nothing"
	[ "$(hw_stat hit 1)" -gt "$back" ] || fail "... nor any answer"
	close_flow 5
	wait_value 0 flows 0
	wait_value 0 flows 1
	wait_until _tcp_over || fail "conntrack: $(ct_line dport=8080)"
	done_with
}

_far2_listens()
{
	local line

	printf -v line ':%04X 00000000:0000 0A' "$1"
	[[ $(far2 "cat /proc/net/tcp /proc/net/tcp6") = *"$line"* ]]
}

_tcp_over()
{
	[[ $(ct_line dport=8080) != *ESTABLISHED* ]]
}

# A busy flow is seen by nobody but hardware, and lives; an idle one goes.
t_aging()
{
	local seen life deadline

	load_flowtable
	# long enough for a machine that asks hardware late
	life=$(udp_flow_timeout $((3 * DEADLINE_MS / 20000)))
	deadline=$((DEADLINE_MS + life * 1000))
	offload 1
	open_flow 5 14
	open_flow 6 15
	expect_flows 2
	seen=$(tap_count sut0 "$t")
	DEADLINE_MS=$deadline wait_until _busy 5 15 || fail "the idle flow stays"
	# the other has had the same time
	expect "packets of the busy flow that the host saw" \
	       "$(tap_count sut0 "$t")" "$seen"
	expect "the busy flow" "$(flows 0 'dport=14/')" 1
	[[ $(ct_line dport=14) = *OFFLOAD* ]] ||
		fail "conntrack of the busy flow: $(ct_line dport=14)"
	DEADLINE_MS=$deadline wait_value 0 flows 0
	DEADLINE_MS=$deadline wait_value 0 flows 1
	udp_flow_timeout 600 > /dev/null
	close_flow 5
	close_flow 6
	done_with
}

# _busy FD PORT: keeps FD busy; is the flow to PORT gone?
_busy()
{
	say "$1" 1 "$t"
	[ "$(flows 0 "dport=$2/")" = 0 ]
}

t_full()
{
	load_flowtable
	echo 0 > "$HW0/capacity"
	echo 0 > "$HW1/capacity"
	offload 1
	open_flow 5 9
	expect_path soft 5 full
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect_ft hardware "1 of 1 flows in software: hardware has no room left"
	echo 1000 > "$HW0/capacity"
	echo 1000 > "$HW1/capacity"
	wait_until _recovered 5 || fail "hardware has room, but not the flow"
	expect_path hard 5 recovered
	expect_ft hardware "^-$"
	close_flow 5
	done_with
}

# _recovered FDS [FLOWS]: with a packet in software now and then a flow is offered
# again
_recovered()
{
	local fd

	for fd in $1; do
		settle "$fd"
	done
	[ "$(flows 0)$(flows 1)" = "${2:-11}" ]
}

# expect_dropped FD TAG
expect_dropped()
{
	local i

	say "$1" "$N" "$t.$2"
	# the packet that ends the burst must come by another flow
	settle 6
	expect "packets $2 that arrived" "$(tap_count far1 "$t.$2")" 0
}

# In software, chains of a lower priority come first. So must they in hardware.
t_chain_in_front()
{
	load_flowtable
	offload 1
	open_flow 5 16
	open_flow 6 17
	expect_flows 2
	nft_do -f - <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority -10;
				udp dport 16 counter drop comment "front"
			}
		}
	END
	expect_state front hardware
	expect_ft hardware
	expect_flows 2
	expect_dropped 5 hw
	expect "packets dropped in hardware" "$(tap_count sut0 "$t.hw")" 0
	# the same with a rule that hardware cannot do
	nft_do -f - <<-END
		flush chain netdev t c
		add rule netdev t c udp dport { 16, 18 } counter drop comment "front"
	END
	expect_state front software
	expect_ft software "sut0: rule [0-9]* of chain c comes first and is in software"
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect_dropped 5 sw
	nft_do flush chain netdev t c
	expect_ft hardware
	expect_flows 2
	expect_path hard 5 free
	# a chain behind the flow table never sees its packets
	nft_do -f - <<-END
		flush chain netdev t c
		delete chain netdev t c
		table netdev t {
			chain late {
				type filter hook ingress device sut0 priority 10;
				udp dport 16 counter drop comment "late"
			}
		}
	END
	expect_why late "a flowtable comes first"
	expect_flows 2
	expect_path hard 5 late
	close_flow 5
	close_flow 6
	done_with
}

# A flow is in hardware when a rule in front begins to drop it. From then on no
# packet may get by, whatever happens to the rules and to the flow.
t_front_under_traffic()
{
	local i n

	load_flowtable
	offload 1
	flood_flow 20
	expect_flows 2
	nft_do -f - <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority -10;
				udp dport 20 counter drop comment "front"
			}
		}
	END
	settle 7
	n=$(arrived flood)
	for ((i = 0; i < 4; i++)); do
		nft_do insert rule netdev t c limit rate 1000/second comment '"lim"'
		flood_more 30
		offload $((i % 2))
		nft_do delete rule netdev t c handle "$(handle lim)"
		flood_more 30
		offload 1
	done
	expect_flows 2
	flood_stop > /dev/null
	settle 7
	expect "packets that got by" "$(arrived flood)" "$n"
	close_flow 7
	done_with
}

t_watched()
{
	load_flowtable "chain in { type filter hook ingress device sut1 priority -5; }"
	offload 1
	expect_ft software "sut1: inet chain in comes first"
	load_flowtable
	expect_ft hardware
	open_flow 5 9
	expect_flows 1
	if nft -f - 2> "$TMP/egress" <<-END
		table netdev t {
			chain out {
				type filter hook egress device sut1 priority 0;
				udp dport 9 drop
			}
		}
	END
	then
		expect_ft software "sut1: has an egress chain, which hardware would bypass"
		say_to_host 5 "$t"
		nft_do delete table netdev t
		expect_flows 1
		settle 5
		expect "packets that got by the egress chain" "$(tap_count far1 "$t")" 0
	elif kernel_before 5 16; then
		ktap_print_msg "no egress chains before 5.16: $(head -n 1 "$TMP/egress")"
	else
		fail "no egress chain: $(< "$TMP/egress")"
	fi
	tc qdisc add dev sut1 clsact || fail "no clsact"
	tc filter add dev sut1 egress protocol ip flower ip_proto udp dst_port 9 \
		action drop || fail "no filter"
	offload 1
	expect_ft software "sut1: has a tc egress hook, which hardware would bypass"
	say_to_host 5 "$t.tc"
	tc qdisc del dev sut1 clsact
	offload 1
	expect_flows 1
	settle 5
	expect "packets that got by tc" "$(tap_count far1 "$t.tc")" 0
	offload 0
	ethtool -K sut1 hw-tc-offload off
	offload 1
	expect_ft hardware "sut1: hw-tc-offload of the device is off"
	wait_value 1 flows 0
	expect "flows in hardware" "$(flows 1)" 0
	ethtool -K sut1 hw-tc-offload on
	expect_flows 1
	close_flow 5
	done_with
}

# The device where flows leave is none of the table's.
t_output_watched()
{
	load_flowtable '' sut0
	offload 1
	open_flow 5 9
	wait_value 1 flows 0
	tc qdisc add dev sut1 clsact || fail "no clsact"
	tc filter add dev sut1 egress protocol ip flower ip_proto udp dst_port 9 \
		action drop || fail "no filter"
	offload 1
	expect_ft software "^sut1 has a tc egress hook"
	expect "flows in hardware" "$(flows 0)" 0
	say_to_host 5 "$t"
	tc qdisc del dev sut1 clsact
	offload 1
	settle 5
	expect "packets that got by tc" "$(tap_count far1 "$t")" 0
	wait_value 1 flows 0
	close_flow 5
	done_with
}

# What tc drops before the flow table of software sees it. Nobody tells of that.
t_tc_comes_first()
{
	load_flowtable
	offload 1
	open_flow 5 9
	expect_flows 1
	tc qdisc add dev sut0 ingress || fail "no ingress qdisc"
	tc filter add dev sut0 ingress protocol ip flower skip_hw ip_proto udp \
		dst_port 9 action drop || fail "no filter"
	wait_value 0 flows 0
	expect_ft software "sut0: the device has a tc ingress hook"
	say_to_host 5 "$t"
	tc qdisc del dev sut0 ingress
	expect_flows 1
	settle 5
	expect "packets that got by tc" "$(tap_count far1 "$t")" 0
	close_flow 5
	done_with
}

t_xdp_comes_first()
{
	load_flowtable
	offload 1
	open_flow 5 9
	expect_flows 1
	xdp_on sut0 xdpgeneric
	wait_value 0 flows 0
	expect_ft software "sut0: the device has an XDP program"
	ip link set dev sut0 xdpgeneric off
	# Setting a link flushes the routes, and a flow whose route is gone goes,
	# too, where routes are looked at: its next packet makes it anew.
	settle 5
	expect_flows 1
	close_flow 5
	done_with
}

# Somebody else has the hardware of one device, which is tried again and again.
t_neighbour()
{
	local before

	load_flowtable
	# EBUSY
	echo "1 16 1000" > "$HW1/fail_bind"
	offload 1
	expect_ft hardware "^sut1: another flow table has the device's hardware"
	open_flow 5 9
	wait_value 1 flows 0
	say 5 "$N" "$t"
	settle 5
	before=$(flow_packets 0 'dport=9/')
	[ "$before" -gt 0 ] || fail "hardware has forwarded nothing"
	nft_do add table inet something
	expect_ft hardware "^sut1: another"
	expect "packets of the flow" "$(flow_packets 0 'dport=9/')" "$before"
	echo 0 > "$HW1/fail_bind"
	nft_do delete table inet something
	expect_ft hardware "^-$"
	expect_flows 1
	close_flow 5
	done_with
}

# Nobody else's hardware, but all the same no driver takes the table.
t_refused()
{
	local why="hardware fails, as it was told to [(]error -12[)]"

	load_flowtable
	both fail_bind "1 12 1000000"
	offload 1
	expect_ft failed "^sut0: .*$why; sut1: .*$why$"
	expect_told 0
	open_flow 5 9
	expect_path soft 5 soft
	both fail_bind 0
	nft_do add table inet something
	expect_ft hardware "^-$"
	expect_flows 1
	expect_path hard 5 hard
	close_flow 5
	done_with
}

# The same ruleset again, and again, while a flow runs.
t_reload()
{
	local i n sent

	load_flowtable
	offload 1
	n=$(arrived flood)
	flood_flow 20
	for ((i = 0; i < 5; i++)); do
		load_flowtable
		flood_more 30
		expect_ft hardware
	done
	# the other flow has sent nothing
	expect_flows 1
	# adding what is there already, and taking a device away and back
	flowtable_rules | nft -f - || fail "cannot add the ruleset again"
	nft_do delete flowtable inet f ft '{ devices = { sut1 }; }'
	expect "flows in hardware" "$(flows 1)" 0
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 0
	nft_do add flowtable inet f ft '{ devices = { sut1 }; }'
	flood_more 30
	expect_flows 1
	sent=$(flood_stop)
	settle 7
	ktap_print_msg "$sent sent"
	expect "packets that arrived" "$(($(arrived flood) - n))" "$sent"
	close_flow 7
	done_with
}

# A table with 'flags offload' is the user's own.
t_claimed()
{
	sed 's/counter;$/counter; flags offload;/' <(flowtable_rules) | load
	offload 1
	expect_ft hardware "the ruleset asks for it with 'flags offload'"
	expect "blocks bound to sut0" "$(hw_stat bound)" 1
	open_flow 5 9
	expect_flows 1
	offload 0
	expect_flows 1
	close_flow 5
	load < /dev/null
	expect_ledger_empty
}

# Software looks a flow up by the whole tag: a priority makes it another one.
t_vlan_priority()
{
	tagged_net 10
	load_flowtable
	offload 1
	open_flow 5 9 198.51.100.9
	expect_flows 1
	expect_path hard 5 none
	far "ip link set far0v type vlan egress-qos-map 0:5" || fail "no priority"
	expect_path soft 5 five
	expect "flows that compare the priority" "$(flows 0 'vlan=0x8100:0x000a/0xffff')" 1
	far "ip link set far0v type vlan egress-qos-map 0:0" || fail "no priority"
	expect_path hard 5 again
	close_flow 5
	done_with
	tagged_net_down
}

# A flow leaves by a device that has left the flow table, and gets an egress chain
# when nobody in the table has reason to look there.
t_device_leaves()
{
	load_flowtable
	offload 1
	open_flow 5 9
	open_flow 6 17
	expect_flows 2
	nft_do delete flowtable inet f ft '{ devices = { sut1 }; }'
	say 5 "$N" "$t.left"
	settle 5
	expect "packets that arrived" "$(tap_count far1 "$t.left")" "$N"
	nft_do -f - <<-END
		table netdev t {
			chain out {
				type filter hook egress device sut1 priority 0;
				udp dport 9 counter drop comment "out"
			}
		}
	END
	expect_dropped 5 out
	expect "counter of the egress chain" "$(nft_counter out)" "$N"
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	close_flow 5
	close_flow 6
	done_with
}

# sut1_address MAC: the neighbours go with the old one
sut1_address()
{
	cat > "$TMP/address.ip" <<-END
		link set sut1 address $1
		neigh replace $FAR2_IP lladdr $FAR2_MAC dev sut1 nud permanent
		neigh replace $FAR2_IP6 lladdr $FAR2_MAC dev sut1 nud permanent
	END
	ip -batch "$TMP/address.ip" || fail "cannot change the address of sut1"
}

# The route of an IPv6 flow outlives the address of the port where it leaves.
t_address()
{
	local other=02:00:00:00:01:03 before

	load_flowtable
	far2 "nft insert rule inet seen input ether saddr $other \
		udp dport 9 counter comment other" || fail "cannot count in $FAR2"
	offload 1
	open_flow 5 9 "$FAR2_IP6"
	expect_flows 1
	sut1_address "$other"
	# It is tried in vain where the next hop is not known yet.
	wait_until _recovered 5 || fail "the flow stays in software"
	settle 5
	before=$(arrived other)
	expect_path hard 5 other
	# with the one that settles
	expect "packets from the new address" $(($(arrived other) - before)) $((N + 1))
	close_flow 5
	done_with
	sut1_address "$SUT1_MAC"
}

# What leaves by a VLAN must fit in there, but hardware asks for the MTU of the
# port.
t_vlan_mtu()
{
	cat > "$TMP/mtu.ip" <<-END
		link set sut1 mtu 1400
		link add link sut1 name sut1v type vlan id 10
		link set sut1v up
		addr add 2001:db8:2::2/64 dev sut1v nodad
		neigh replace 2001:db8:2::1 lladdr $FAR2_MAC dev sut1v nud permanent
	END
	ip -batch "$TMP/mtu.ip" || fail "no VLAN device"
	far "ip route add 2001:db8:2::/64 via $SUT_IP6 dev far0" || fail "no route"
	load_flowtable
	offload 1
	open_flow 5 9 2001:db8:2::1
	expect_flows 1
	expect_path hard 5 same
	ip link set sut1 mtu 1500
	expect_refused_flow 5 larger
	close_flow 5
	done_with
	ip link del sut1v
	far "ip route del 2001:db8:2::/64 dev far0"
}

# A driver that does not delete a flow loses it with its flow block. Comes last:
# the ledger goes on telling of it.
t_kept()
{
	local purged failed

	load_flowtable
	offload 1
	connect
	expect_flows 1
	purged=$(ledger purged)
	# EIO
	echo "1 5" > "$HW0/fail_destroy"
	close_flow 5
	wait_value 0 flows 0
	wait_value 0 flows 1
	expect "failures" "$(injected fail_destroy)" 1
	expect "entries that the driver had to purge" "$(ledger purged)" $((purged + 1))
	expect_ft hardware
	open_flow 6 9
	expect_flows 1
	expect_path hard 6 again
	# Once more, while all flows leave
	echo "1 5" > "$HW0/fail_destroy"
	offload 0
	expect "failures" "$(injected fail_destroy)" 2
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect_path soft 6 off
	# And for ever, when the other device is bound: there is an end to it.
	# EBUSY, once
	echo "1 16 1" > "$HW0/fail_bind"
	offload 1
	wait_value 1 flows 1
	expect "blocks bound to sut0" "$(hw_stat bound)" 0
	echo "1 5 1000000" > "$HW1/fail_destroy"
	nft_do add table inet something
	expect_flows 1
	expect "blocks bound to sut0" "$(hw_stat bound)" 1
	failed=$(< "$HW1/fail_destroy")
	expect_path hard 6 bound
	expect "failures while nothing happens" "$(< "$HW1/fail_destroy")" "$failed"
	echo 0 > "$HW1/fail_destroy"
	close_flow 6
	offload 0
	load < /dev/null
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
}

# A driver that fails to unbind is not called any more, and can be bound again.
t_unbind()
{
	load_flowtable
	offload 1
	open_flow 5 9
	expect_flows 1
	# EIO
	echo "1 5" > "$HW0/fail_unbind"
	offload 0
	expect "failures" "$(injected fail_unbind)" 1
	expect "blocks that are bound" "$(ledger bound)" 0
	expect_path soft 5 off
	offload 1
	expect "blocks bound to each" "$(hw_stat bound) $(hw_stat bound 1)" "1 1"
	expect_flows 1
	expect_path hard 5 on
	close_flow 5
	done_with
}

# A driver that neither deletes flows nor lets go of the block gets no more of them.
# It must not have any once the table is gone.
t_stuck()
{
	load_flowtable
	offload 1
	connect
	expect_flows 1
	# EIO
	both fail_destroy "1 5 1000000"
	both fail_unbind "1 5 1000000"
	close_flow 5
	wait_value failed ft_field 5
	expect_ft failed "^a driver keeps flows that it was told to delete$"
	expect_told 0
	open_flow 6 9
	expect_path soft 6 soft
	both fail_destroy 0
	both fail_unbind 0
	close_flow 6
	offload 0
	load < /dev/null
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
}

TESTS="on_and_off counters nat4 nat6 vlan stacked route_mtu route_changes tcp aging full
	chain_in_front front_under_traffic watched output_watched tc_comes_first
	xdp_comes_first neighbour refused reload claimed vlan_priority device_leaves
	address vlan_mtu unbind kept stuck"

ktap_print_header
setup_router
need_tools cmp sed tc
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
