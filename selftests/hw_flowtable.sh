#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2015,SC2086,SC2317
#
# The flowtable of the simulated NIC, driven by nf_tables alone ("flags
# offload"): packets of a flow are forwarded by hardware, are what software would
# have made of them, and software does not see them.
#
# Each conversation is an echo, so that a lost or a spoilt packet is missed. That
# hardware has forwarded the others is shown by the table's own counters, that
# software has not by taps of the router's ports, and what arrives is measured by
# rules at the hosts.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=router_lib.sh
. "$(dirname "$0")/router_lib.sh"

N=5
TCP_TIMEOUT=/proc/sys/net/netfilter/nf_flowtable_tcp_timeout

# ruleset [RULES...]: of the router
ruleset()
{
	nft -f - 2> "$TMP/nft.err" <<-END || fail "nft: $(< "$TMP/nft.err")"
		flush ruleset
		table inet t {
			flowtable f {
				hook ingress priority 0
				devices = { sut0, sut1 }
				flags offload
				counter
			}
			chain forward {
				type filter hook forward priority 0
				meta l4proto { tcp, udp } flow add @f
			}
		}
		$*
	END
}

# watch_host HOST NAME MATCH: rule at that host on what comes in there
watch_host()
{
	"$1" "nft 'table inet w { chain $2 { type filter hook input priority 0
		$3 counter; }; }'" || fail "nft at $1: $3"
}

# watched HOST NAME: what the rule has counted
watched()
{
	local line

	line=$("$1" "nft list chain inet w $2")
	line=${line##*counter packets }
	echo "${line%% *}"
}

unwatch()
{
	far 'nft flush ruleset'
	end 'nft flush ruleset'
}

# Ends all flows, and waits until hardware has let go of them.
forget_flows()
{
	far 'exec 5>&-'
	conntrack -F > /dev/null 2>&1
	wait_value 0 flow_count
}

# open udp|tcp ADDRESS: descriptor 5 of the client
open()
{
	far "exec 5<> /dev/$1/$2/$ECHO_PORT" || fail "cannot reach $2"
}

# offloaded UDP-OR-TCP ADDRESS: a conversation that is in hardware
offloaded()
{
	local say=say

	[ "$1" = udp ] || say=say_tcp
	open "$1" "$2"
	# The second packet finds the flow established; whatever comes while it
	# is on its way into hardware is forwarded by software.
	expect "answers before there is a flow" "$($say 2 $t.slow)" 2
	wait_value 2 flow_count
}

# in_hardware udp|tcp: N packets each way, all of them and, of UDP, no
# others by hardware
in_hardware()
{
	local before0 before1 say=say

	flows 0; before0=$FLOW_PACKETS
	flows 1; before1=$FLOW_PACKETS
	: $((_burst = ${_burst:-0} + 1))
	[ "$1" = udp ] || say=say_tcp
	expect "answers" "$($say $N $t.hw$_burst)" $N
	flows 0
	if [ "$1" = udp ]; then
		expect "packets of the flow in hardware" \
		       $((FLOW_PACKETS - before0)) $N
	elif [ $((FLOW_PACKETS - before0)) -lt $N ]; then
		fail "packets of the flow in hardware: $((FLOW_PACKETS - before0))"
	fi
	flows 1
	if [ "$1" = udp ]; then
		expect "packets of the reply in hardware" \
		       $((FLOW_PACKETS - before1)) $N
	elif [ $((FLOW_PACKETS - before1)) -lt $N ]; then
		fail "packets of the reply in hardware: $((FLOW_PACKETS - before1))"
	fi
	expect "packets that the router saw" "$(tap_count sut0 $t.hw$_burst)" 0
	expect "replies that the router saw" "$(tap_count sut1 $t.hw$_burst)" 0
}

# in_software COUNT: packets which the router must see, and hardware not forward
in_software()
{
	local before

	flows 0; before=$FLOW_PACKETS
	: $((_burst = ${_burst:-0} + 1))
	expect "answers" "$(say $1 $t.sw$_burst)" $1
	flows 0
	expect "packets of the flow in hardware" $((FLOW_PACKETS - before)) 0
	expect "packets that the router saw" "$(tap_count sut0 $t.sw$_burst)" $1
}

# forwards PROTO ADDRESS MATCH REPLY-MATCH: as a whole; what arrives is the same
# before and after the flow is in hardware
forwards()
{
	watch_host end there "$3"
	watch_host far back "$4"
	offloaded "$1" "$2"
	in_hardware "$1"
	if [ "$1" = udp ]; then
		expect "packets at the other host" "$(watched end there)" $((N + 2))
		expect "packets that came back" "$(watched far back)" $((N + 2))
	else
		# the handshake and acknowledgements too
		[ "$(watched end there)" -ge $((N + 2)) ] ||
			fail "packets at the other host: $(watched end there)"
		[ "$(watched far back)" -ge $((N + 2)) ] ||
			fail "packets that came back: $(watched far back)"
	fi
	unwatch
	forget_flows
}

DIRECT="ip saddr $FAR_IP ip daddr $END_IP ip ttl 63"
DIRECT_BACK="ip saddr $END_IP ip daddr $FAR_IP ip ttl 63"
DIRECT6="ip6 saddr $FAR_IP6 ip6 daddr $END_IP6 ip6 hoplimit 63"
DIRECT6_BACK="ip6 saddr $END_IP6 ip6 daddr $FAR_IP6 ip6 hoplimit 63"

t_bind()
{
	ruleset
	expect "bindings of sut0" "$(hw_stat bound 0)" 1
	expect "bindings of sut1" "$(hw_stat bound 1)" 1
	# A ruleset that replaces itself binds before it unbinds.
	ruleset
	expect "bindings of sut0 after a reload" "$(hw_stat bound 0)" 1
	nft flush ruleset
	expect "bindings of sut0 after a flush" "$(hw_stat bound 0)" 0
	expect "bindings of sut1 after a flush" "$(hw_stat bound 1)" 0
}

t_udp4()
{
	ruleset
	forwards udp $END_IP "$DIRECT udp dport $ECHO_PORT" \
		 "$DIRECT_BACK udp sport $ECHO_PORT"
}

t_udp6()
{
	forwards udp $END_IP6 "$DIRECT6 udp dport $ECHO_PORT" \
		 "$DIRECT6_BACK udp sport $ECHO_PORT"
}

t_tcp4()
{
	forwards tcp $END_IP "$DIRECT tcp dport $ECHO_PORT" \
		 "$DIRECT_BACK tcp sport $ECHO_PORT"
}

t_tcp6()
{
	forwards tcp $END_IP6 "$DIRECT6 tcp dport $ECHO_PORT" \
		 "$DIRECT6_BACK tcp sport $ECHO_PORT"
}

# A receiver verifies checksums that are complete, and only those.
t_checksum_of_sender()
{
	far 'ethtool -K far0 tx off > /dev/null' &&
		end 'ethtool -K far1 tx off > /dev/null' ||
		fail "cannot turn off checksum offload"
	ruleset "table ip nat { chain post { type nat hook postrouting priority 100
		oifname sut1 masquerade; }; }
		table ip6 nat { chain post { type nat hook postrouting priority 100
		oifname sut1 masquerade; }; }"
	forwards udp $END_IP "ip saddr 198.51.100.2 udp dport $ECHO_PORT" \
		 "$DIRECT_BACK udp sport $ECHO_PORT"
	forwards tcp $END_IP6 "ip6 saddr 2001:db8:1::2 tcp dport $ECHO_PORT" \
		 "$DIRECT6_BACK tcp sport $ECHO_PORT"
	far 'ethtool -K far0 tx on > /dev/null'
	end 'ethtool -K far1 tx on > /dev/null'
}

t_masquerade()
{
	ruleset "table ip nat { chain post { type nat hook postrouting priority 100
		oifname sut1 meta l4proto udp masquerade to :40000-40999
		oifname sut1 meta l4proto tcp masquerade to :40000-40999; }; }"
	forwards udp $END_IP "ip saddr 198.51.100.2 udp sport 40000-40999 ip ttl 63" \
		 "$DIRECT_BACK udp sport $ECHO_PORT"
	forwards tcp $END_IP "ip saddr 198.51.100.2 tcp sport 40000-40999 ip ttl 63" \
		 "$DIRECT_BACK tcp sport $ECHO_PORT"
}

t_masquerade6()
{
	ruleset "table ip6 nat { chain post { type nat hook postrouting priority 100
		oifname sut1 meta l4proto udp masquerade to :40000-40999
		oifname sut1 meta l4proto tcp masquerade to :40000-40999; }; }"
	forwards udp $END_IP6 "ip6 saddr 2001:db8:1::2 udp sport 40000-40999" \
		 "$DIRECT6_BACK udp sport $ECHO_PORT"
	forwards tcp $END_IP6 "ip6 saddr 2001:db8:1::2 tcp sport 40000-40999" \
		 "$DIRECT6_BACK tcp sport $ECHO_PORT"
}

t_snat()
{
	ruleset "table ip nat { chain post { type nat hook postrouting priority 100
		oifname sut1 snat to 198.51.100.99; }; }"
	end "ip neigh replace 198.51.100.99 lladdr 02:00:00:00:01:02 dev far1 nud permanent"
	forwards udp $END_IP "ip saddr 198.51.100.99 ip daddr $END_IP ip ttl 63" \
		 "$DIRECT_BACK"
}

t_dnat()
{
	local back="ip saddr 203.0.113.1 ip daddr $FAR_IP ip ttl 63"

	ruleset "table ip nat { chain pre { type nat hook prerouting priority -100
		ip daddr 203.0.113.1 udp dport $ECHO_PORT dnat to $END_IP:$ECHO_PORT
		ip daddr 203.0.113.1 tcp dport $ECHO_PORT dnat to $END_IP:$ECHO_PORT; }; }"
	forwards udp 203.0.113.1 "$DIRECT udp dport $ECHO_PORT" \
		 "$back udp sport $ECHO_PORT"
	forwards tcp 203.0.113.1 "$DIRECT tcp dport $ECHO_PORT" \
		 "$back tcp sport $ECHO_PORT"
}

t_dnat6()
{
	local back="ip6 saddr 2001:db8:ffff::1 ip6 daddr $FAR_IP6 ip6 hoplimit 63"

	ruleset "table ip6 nat { chain pre { type nat hook prerouting priority -100
		ip6 daddr 2001:db8:ffff::1 udp dport $ECHO_PORT dnat to [$END_IP6]:$ECHO_PORT; }
		chain post { type nat hook postrouting priority 100
		oifname sut1 snat to 2001:db8:1::99; }; }"
	end "ip neigh replace 2001:db8:1::99 lladdr 02:00:00:00:01:02 dev far1 nud permanent"
	forwards udp 2001:db8:ffff::1 \
		 "ip6 saddr 2001:db8:1::99 ip6 daddr $END_IP6 ip6 hoplimit 63" \
		 "$back udp sport $ECHO_PORT"
}

# The client's side is a VLAN: a tag to match and pop, and one to push.
t_vlan()
{
	ip link add link sut0 name sut0.10 type vlan id 10 &&
		ip addr add 10.0.10.2/24 dev sut0.10 &&
		ip link set sut0.10 up &&
		ip neigh replace 10.0.10.1 lladdr $FAR_MAC dev sut0.10 nud permanent ||
		fail "no VLAN device"
	far "ip link add link far0 name far0.10 type vlan id 10 &&
	     ip addr add 10.0.10.1/24 dev far0.10 && ip link set far0.10 up &&
	     ip neigh replace 10.0.10.2 lladdr $SUT_MAC dev far0.10 nud permanent &&
	     ip route replace 198.51.100.0/24 via 10.0.10.2" ||
		fail "no VLAN device at the client"
	ruleset
	watch_host end there "ip saddr 10.0.10.1 ip ttl 63 udp dport $ECHO_PORT"
	watch_host far back "iifname far0.10 ip saddr $END_IP ip ttl 63"
	offloaded udp $END_IP
	[ "$(hw_field action 'vlan=0x8100:0x000a/0x0fff')" != none ] ||
		fail "no entry with the tag: $(< "$HW0/table")"
	in_hardware udp
	expect "packets at the other host" "$(watched end there)" $((N + 2))
	expect "packets that came back" "$(watched far back)" $((N + 2))
	unwatch
	forget_flows
	far 'ip link del far0.10'
	ip link del sut0.10
}

# A packet that must not live on is software's: it answers with an error.
t_ttl()
{
	local before

	ruleset
	offloaded udp $END_IP
	far 'echo 2 > /proc/sys/net/ipv4/ip_default_ttl'
	watch_host end there "ip ttl 1"
	expect "answers, TTL 2" "$(say 2 $t.two)" 2
	expect "packets with TTL 1 at the other host" "$(watched end there)" 2
	expect "packets with TTL 2 that the router saw" "$(tap_count sut0 $t.two)" 0

	flows 0; before=$FLOW_PACKETS
	far 'echo 1 > /proc/sys/net/ipv4/ip_default_ttl'
	watch_host far back 'icmp type time-exceeded'
	far "printf '<$t.one>;' >&5"
	wait_value 1 tap_count sut0 $t.one
	wait_value 1 watched far back
	flows 0
	expect "packets with TTL 1 in hardware" $((FLOW_PACKETS - before)) 0
	far 'echo 64 > /proc/sys/net/ipv4/ip_default_ttl'
	unwatch
	forget_flows
}

# So is a packet that does not fit.
t_mtu()
{
	local before pad

	printf -v pad '%01000d' 0
	offloaded udp $END_IP
	in_hardware udp
	ip link set sut1 mtu 900
	flows 0; before=$FLOW_PACKETS
	far "printf '$pad<$t.long>;' >&5"
	wait_value 1 tap_count sut0 $t.long
	flows 0
	expect "long packets in hardware" $((FLOW_PACKETS - before)) 0
	ip link set sut1 mtu 1500
	forget_flows
}

# Software must see how a connection ends, and takes it from hardware then. If it
# did not, the flow would be there until it times out.
t_fin()
{
	offloaded tcp $END_IP
	in_hardware tcp
	far 'exec 5>&-'
	wait_value 0 flow_count
	forget_flows
}

t_rst()
{
	local before

	offloaded tcp $END_IP
	in_hardware tcp
	# What a socket has not read when it is closed makes it a reset.
	flows 1; before=$FLOW_PACKETS
	far "printf '<$t.rst>;' >&5"
	wait_until _flow_beyond 1 "$before" || fail "no answer"
	far 'read -r -N 1 -t 10 -u 5 _; exec 5>&-'
	wait_value 0 flow_count
	forget_flows
}

# _flow_beyond PORT PACKETS
_flow_beyond()
{
	flows "$1"
	[ "$FLOW_PACKETS" -gt "$2" ]
}

# Fragments have no place in a flow: only the first has ports.
t_fragments()
{
	local before pad

	printf -v pad '%01000d' 0
	far "ip route replace default via $SUT_IP mtu lock 600"
	offloaded udp $END_IP
	in_hardware udp
	flows 0; before=$FLOW_PACKETS
	far "printf '$pad<$t.frag>;' >&5; read -r -N 1 -t 10 -u 5 _" ||
		fail "no answer to fragments"
	flows 0
	expect "fragments in hardware" $((FLOW_PACKETS - before)) 0
	far "ip route replace default via $SUT_IP"
	forget_flows
}

t_table_full()
{
	echo 0 > "$HW0/capacity"
	echo 0 > "$HW1/capacity"
	open udp $END_IP
	expect "answers" "$(say 3 $t.full)" 3
	in_software $N
	expect "flows in hardware" "$(flow_count)" 0
	echo 1024 > "$HW0/capacity"
	echo 1024 > "$HW1/capacity"
	# Software tries again with packets of the flow, once a second at most.
	wait_until _says_until_offloaded || fail "the flow stays in software"
	in_hardware udp
	forget_flows
}

_says_until_offloaded()
{
	say 1 $t.again > /dev/null
	[ "$(flow_count)" -eq 2 ]
}

# What conntrack has accounted for UDP conversations, both directions
ct_packets()
{
	local line lines sum=0

	mapfile -t lines < /proc/net/nf_conntrack
	for line in "${lines[@]}"; do
		[[ $line =~ udp.*dport=$ECHO_PORT\ packets=([0-9]+).*packets=([0-9]+) ]] ||
			continue
		sum=$((sum + BASH_REMATCH[1] + BASH_REMATCH[2]))
	done
	echo $sum
}

# What hardware has forwarded keeps the flow and its connection alive and is
# accounted for once; then they end.
t_aging()
{
	local acct=/proc/sys/net/netfilter/nf_conntrack_acct
	local life start i n=0 before never

	echo 1 > $acct
	life=$(udp_flow_timeout 3)
	offloaded udp $END_IP
	flows 0; before=$FLOW_PACKETS
	mkfifo "$TMP/never"
	exec {never}<> "$TMP/never"
	start=$SECONDS
	while [ $((SECONDS - start)) -lt $((life + 5)) ]; do
		i=$(say 1 $t.busy)
		n=$((n + i))
		# A timeout is the subject here. Nobody writes to this.
		read -r -t 0.5 -u $never _
	done
	exec {never}<&-
	flows 0
	expect "busy flow in hardware" $FLOWS 1
	expect "packets of the busy flow" $((FLOW_PACKETS - before)) $n
	expect "packets that the router saw" "$(tap_count sut0 $t.busy)" 0
	DEADLINE_MS=$((DEADLINE_MS + life * 1000)) wait_value 0 flow_count
	expect "accounted packets" "$(ct_packets)" $((2 * (n + 2)))
	udp_flow_timeout 30 > /dev/null
	echo 0 > $acct
	forget_flows
}

t_ledger()
{
	nft flush ruleset
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
}

TESTS="bind udp4 udp6 tcp4 tcp6 checksum_of_sender masquerade masquerade6 snat
	dnat dnat6 vlan ttl mtu fin rst fragments table_full aging ledger"

ktap_print_header
setup_router
modprobe -q nft_flow_offload
# Longer than anything here waits for: whoever lets go, it is not for the time.
[ ! -e $TCP_TIMEOUT ] || echo 300 > $TCP_TIMEOUT
ktap_set_plan "$(wc -w <<< "$TESTS")"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
