# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Helpers for flow tables, on top of lib.sh and offload_lib.sh: the pair of
# lib.sh becomes a router with a network on either side.
#
#     netns $FAR                              (the SUT)                    netns $FAR2
#     far0  192.0.2.1    <->  sut0  192.0.2.2     198.51.100.2  sut1  <->  far1  198.51.100.1
#           2001:db8::1             2001:db8::2   2001:db8:1::2                  2001:db8:1::1
#
# A flow is one socket in $FAR. Where its packets went is known from the
# entries of the hardware, from the taps of lib.sh (what the host has seen),
# and from counters in $FAR2 (what has arrived, and with which addresses).

FAR2=far2-$$
FAR2_IP=198.51.100.1
FAR2_IP6=2001:db8:1::1
FAR2_MAC=02:00:00:00:01:01
SUT1_MAC=02:00:00:00:01:02

# far2 COMMAND-LINE: like far, on the other side
far2()
{
	_ask "the other far end" "$_far2_in" "$_far2_out" "$1"
}

_cleanup_router()
{
	local rc=$?

	# shellcheck disable=SC2016
	[ -z "${_far2_in:-}" ] || far2 'kill $(jobs -p)' > /dev/null 2>&1
	nft flush ruleset 2> /dev/null
	# A namespace that goes would take far1 away from its driver.
	[ ! -d "$NSIM_BUS/devices/netdevsim$SUT_ID" ] ||
		echo "$SUT_ID" > "$NSIM_BUS/del_device"
	[ ! -d "$NSIM_BUS/devices/netdevsim$FAR_ID" ] ||
		echo "$FAR_ID" > "$NSIM_BUS/del_device"
	ip netns del "$FAR2" 2> /dev/null
	(exit $rc)
	cleanup
}

_far2_packet_sockets()
{
	far2 "$(declare -f _packet_sockets); _packet_sockets $1"
}

_tap_far2()
{
	local ifindex

	ifindex=$(far2 "cat /sys/class/net/far1/ifindex")
	: > "$TMP/tap.far1"
	far2 "socat -u INTERFACE:far1,$_INCOMING_ONLY \
		OPEN:$TMP/tap.far1,append 2> $TMP/tap.far1.err &"
	wait_until _prints 1 _far2_packet_sockets "$ifindex" ||
		ktap_bail "no tap on far1: $(< "$TMP/tap.far1.err")"
}

setup_router()
{
	local knob

	setup_pair
	need_offload
	trap _cleanup_router EXIT

	ip netns add "$FAR2" || ktap_bail "cannot create a network namespace"
	mkfifo "$TMP/far2.in" "$TMP/far2.out"
	ip netns exec "$FAR2" bash < "$TMP/far2.in" > "$TMP/far2.out" 2>&1 &
	_pids="$_pids $!"
	exec {_far2_in}> "$TMP/far2.in" {_far2_out}< "$TMP/far2.out"
	for knob in accept_dad=0 router_solicitations=0 addr_gen_mode=1; do
		far2 "echo ${knob#*=} > /proc/sys/net/ipv6/conf/default/${knob%=*}"
	done

	far "ip link set far1 netns $FAR2" || ktap_bail "cannot move far1"
	cat > "$TMP/far2.ip" <<-END
		link set lo up
		link set far1 up
		addr add $FAR2_IP/24 dev far1
		addr add $FAR2_IP6/64 dev far1 nodad
		route add default via 198.51.100.2 dev far1
		route add default via 2001:db8:1::2 dev far1
		neigh replace 198.51.100.2 lladdr $SUT1_MAC dev far1 nud permanent
		neigh replace 2001:db8:1::2 lladdr $SUT1_MAC dev far1 nud permanent
	END
	far2 "ip -batch $TMP/far2.ip" || ktap_bail "cannot configure far1"
	_tap_far2
	# What comes back must not be errors of a port where nobody listens.
	cat > "$TMP/far2.nft" <<-END
		table inet seen {
			chain input {
				type filter hook input priority 0;
				ip saddr 192.0.2.1 udp dport 9 ip ttl 63 counter comment "plain"
				ip saddr 198.51.100.77 udp dport 10 ip ttl 63 counter comment "snat"
				ip saddr 192.0.2.1 udp dport 12 ip ttl 63 counter comment "dnat"
				ip6 saddr 2001:db8::1 udp dport 9 ip6 hoplimit 63 \
					counter comment "plain6"
				ip6 saddr 2001:db8:1::77 udp dport 10 ip6 hoplimit 63 \
					counter comment "snat6"
				ip saddr 203.0.113.1 udp dport 9 ip ttl 63 counter comment "vlan"
				udp dport 20 counter comment "flood"
				udp dport 17 counter comment "settle"
				udp dport 1-99 drop
			}
		}
	END
	far2 "nft -f $TMP/far2.nft" || ktap_bail "cannot count in $FAR2"

	cat > "$TMP/far.ip" <<-END
		route add 198.51.100.0/24 via $SUT_IP dev far0
		route add 2001:db8:1::/64 via $SUT_IP6 dev far0
	END
	# shellcheck disable=SC2153
	far "ip -batch $TMP/far.ip" || ktap_bail "cannot route in $FAR"
	cat > "$TMP/sut.ip" <<-END
		addr add 2001:db8:1::2/64 dev sut1 nodad
		neigh replace $FAR2_IP6 lladdr $FAR2_MAC dev sut1 nud permanent
		neigh replace $FAR2_IP lladdr $FAR2_MAC dev sut1 nud permanent
	END
	ip -batch "$TMP/sut.ip" || ktap_bail "cannot configure sut1"
	echo 1 > /proc/sys/net/ipv4/ip_forward
	echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
	modprobe -q nf_conntrack
	echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct
	# no flow ages on a slow machine
	udp_flow_timeout 600 > /dev/null
}

### Rulesets

# flowtable_rules [IN-TABLE [DEVICES]]: a ruleset with the flow table ft
flowtable_rules()
{
	cat <<-END
		table inet f {
			flowtable ft {
				hook ingress priority 0;
				devices = { ${2:-sut0, sut1} };
				counter;
			}
			chain forward {
				type filter hook forward priority 0;
				meta l4proto { tcp, udp } flow add @ft
			}
			${1:-}
		}
	END
}

load_flowtable()
{
	flowtable_rules "$@" | load
}

### What the hardware says

# flows PORT [REGEX]: number of flows in the hardware of that port
flows()
{
	local line lines dir=$HW0 n=0

	[ "$1" = 0 ] || dir=$HW1
	mapfile -t lines < "$dir/table"
	for line in "${lines[@]}"; do
		[[ $line != flow\ * || ! $line =~ ${2:-.} ]] || n=$((n + 1))
	done
	echo $n
}

# flow_packets PORT REGEX: what the one entry that matches has counted
flow_packets()
{
	local line lines dir=$HW0 n=none

	[ "$1" = 0 ] || dir=$HW1
	mapfile -t lines < "$dir/table"
	for line in "${lines[@]}"; do
		[[ $line = flow\ * && $line =~ $2 ]] || continue
		[ "$n" = none ] || n=many
		[ "$n" = many ] || { n=${line#* packets=}; n=${n%% *}; }
	done
	echo "$n"
}

# expect_flows WANTED: in the hardware of each port, sooner or later
expect_flows()
{
	wait_value "$1" flows 0
	wait_value "$1" flows 1
}

### What the module says

# ft_line: of ft in the listing
ft_line()
{
	local line lines

	mapfile -t lines < "$PROC"
	for line in "${lines[@]}"; do
		[[ $line != *" flowtable ft "* ]] || echo "$line"
	done
}

# ft_field N: field of that line: 4 devices, 5 state, 7 packets, 8 bytes, 9 used
ft_field()
{
	# shellcheck disable=SC2046
	set -- "$1" $(ft_line)
	shift "$1"
	echo "$1"
}

ft_why()
{
	# shellcheck disable=SC2046
	set -- $(ft_line)
	shift 9
	echo "$*"
}

# expect_ft STATE [REASON-REGEX]
expect_ft()
{
	local why

	expect "state of the flow table" "$(ft_field 5)" "$1"
	why=$(ft_why)
	[ -z "${2:-}" ] || [[ $why =~ $2 ]] ||
		fail "reason of the flow table: '$why', expected '$2'"
}

# expect_told FLOWS: by netlink the same as in the listing, and the number of flows
# in hardware
expect_told()
{
	local list told hw

	type -P nfoctl jq > /dev/null || return 0
	read -r -a list <<< "$(ft_line)"
	nfoctl -j flowtables > "$TMP/fts"
	read -r hw told <<< "$(jq -r '.[] | "\(.flows_hw) \(.table) flowtable \(.name) " +
		"\(.devices | join(",")) \(.state) - \(.packets) \(.bytes) " +
		"\(.last_used_ms // "-") \(.reason // "-")"' "$TMP/fts")"
	expect "flows in hardware, by netlink" "$hw" "$1"
	read -r -a told <<< "$told"
	# Time goes on.
	[ "${list[8]}" = - ] || [ "${told[8]}" -lt "${list[8]}" ] ||
		told[8]=${list[8]}
	expect "flow table, by netlink" "${told[*]}" "${list[*]}"
}

### What has arrived

# arrived COMMENT: by the counter in $FAR2
arrived()
{
	far2 "nft list ruleset" > "$TMP/arrived"
	_counter_in "$TMP/arrived" "$1"
}

_counter_in()
{
	local line lines re

	re="counter packets ([0-9]+) bytes [0-9]+.* comment \"$2\""
	mapfile -t lines < "$1"
	for line in "${lines[@]}"; do
		[[ ! "$line" =~ $re ]] || echo "${BASH_REMATCH[1]}"
	done
}

### Flows

_n_end=0

# open_flow FD PORT [ADDRESS]: a socket, and the two packets that make a flow.
# Not at once: both would get a conntrack entry of their own.
open_flow()
{
	far "exec $1<> /dev/udp/${3:-$FAR2_IP}/$2" ||
		fail "cannot open a flow to port $2"
	settle "$1"
	settle "$1"
}

# say FD COUNT TAG: packets of that flow
say()
{
	far "for ((i = 0; i < $2; i++)); do printf '<$3>;' >&$1; done" ||
		fail "cannot send"
}

# settle FD: all that the flow has sent is through. One more packet. Flow 7 does
# without a tap, which a flood has filled.
settle()
{
	local n

	_n_end=$((_n_end + 1))
	if [ "$1" = 7 ]; then
		n=$(arrived settle)
		say 7 1 "settle$_n_end"
		wait_until _arrived_since settle "$n" ||
			fail "the packet that ends a flood never arrived"
		return
	fi
	say "$1" 1 "settle$_n_end"
	wait_until _tap_has far1 "settle$_n_end" ||
		fail "the packet that ends a burst never arrived"
}

_arrived_since()
{
	[ "$(arrived "$1")" -gt "$2" ]
}

# flood_flow PORT: a flow without end, and flow 7 to settle it; it is over with
# flood_stop and close_flow 7
flood_flow()
{
	open_flow 7 17
	rm -f "$TMP/flood"
	far "$(declare -f _flood); _flood $FAR2_IP $1 $TMP/flood > /dev/null 2>&1 &"
	wait_until test -s "$TMP/flood" || fail "no packets are sent"
}

close_flow()
{
	local tap

	far "exec $1>&-"
	[ "$1" = 7 ] || return 0
	for tap in far1 sut0 sut1; do
		: > "$TMP/tap.$tap"
	done
}

# ct_line REGEX: of the one conntrack entry that matches
ct_line()
{
	local line lines

	mapfile -t lines < /proc/net/nf_conntrack
	for line in "${lines[@]}"; do
		[[ ! $line =~ $1 ]] || echo "$line"
	done
}

# ct_packets PORT: of the original direction
ct_packets()
{
	local line

	line=$(ct_line "^ipv[46] .* udp .*dport=$1 packets=")
	line=${line#* packets=}
	echo "${line%% *}"
}
