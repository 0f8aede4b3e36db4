# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2004,SC2015,SC2034,SC2086,SC2154
#
# A router between two hosts, on top of lib.sh: what flowtables forward.
#
#     netns $FAR              netns of the script (the router)        netns $END
#     far0 192.0.2.1    <->   sut0 192.0.2.2
#          2001:db8::1             2001:db8::2
#                             sut1 198.51.100.2       <->   far1 198.51.100.1
#                                  2001:db8:1::2                 2001:db8:1::1
#
# The host at $END echoes what it gets at port 5000, UDP and TCP, IPv4 and IPv6.

END=end-$$
END_IP=198.51.100.1
END_IP6=2001:db8:1::1
ECHO_PORT=5000

# end COMMAND-LINE: like far, at the other host
end()
{
	local _far_in=$_end_in _far_out=$_end_out

	far "$@"
}

_move_far1()
{
	local knob port ifindex name

	for knob in accept_dad=0 router_solicitations=0 addr_gen_mode=1; do
		end "echo ${knob#*=} > /proc/sys/net/ipv6/conf/default/${knob%=*}" ||
			return 1
	done
	# The devices have no names yet, and no addresses.
	ip -batch "$TMP/sut.ip" && far "ip -batch $TMP/far.ip" || return 1
	far "ip link set far1 netns $END" || return 1
	while read -r port ifindex name; do
		# shellcheck disable=SC2034
		[ "$name" != far1 ] || FAR_IFINDEX[$port]=$ifindex
	done < <(end "ip -d -o link show" | _port_dump $FAR_ID)
}

_configure_router()
{
	cat > "$TMP/sut.ip" <<-END
		link set lo up
		link set sut0 address $SUT_MAC
		link set sut1 address 02:00:00:00:01:02
		addr add $SUT_IP/24 dev sut0
		addr add $SUT_IP6/64 dev sut0 nodad
		addr add 198.51.100.2/24 dev sut1
		addr add 2001:db8:1::2/64 dev sut1 nodad
		link set sut0 up
		link set sut1 up
	END
	router_neighbours >> "$TMP/sut.ip"
	cat > "$TMP/far.ip" <<-END
		link set lo up
		link set far0 address $FAR_MAC
		addr add $FAR_IP/24 dev far0
		addr add $FAR_IP6/64 dev far0 nodad
		link set far0 up
		neigh replace $SUT_IP lladdr $SUT_MAC dev far0 nud permanent
		neigh replace $SUT_IP6 lladdr $SUT_MAC dev far0 nud permanent
		route add default via $SUT_IP
		route add default via $SUT_IP6
	END
	cat > "$TMP/end.ip" <<-END
		link set lo up
		link set far1 address 02:00:00:00:01:01
		addr add $END_IP/24 dev far1
		addr add $END_IP6/64 dev far1 nodad
		link set far1 up
		neigh replace 198.51.100.2 lladdr 02:00:00:00:01:02 dev far1 nud permanent
		neigh replace 2001:db8:1::2 lladdr 02:00:00:00:01:02 dev far1 nud permanent
		route add default via 198.51.100.2
		route add default via 2001:db8:1::2
	END
	ip -batch "$TMP/sut.ip" && far "ip -batch $TMP/far.ip" &&
		end "ip -batch $TMP/end.ip" || return 1
	echo 1 > /proc/sys/net/ipv4/ip_forward &&
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding || return 1
	ethtool -K sut0 hw-tc-offload on && ethtool -K sut1 hw-tc-offload on
}

# Permanent neighbours of the router, which a port that goes down loses
router_neighbours()
{
	cat <<-END
		neigh replace $FAR_IP lladdr $FAR_MAC dev sut0 nud permanent
		neigh replace $FAR_IP6 lladdr $FAR_MAC dev sut0 nud permanent
		neigh replace $END_IP lladdr 02:00:00:00:01:01 dev sut1 nud permanent
		neigh replace $END_IP6 lladdr 02:00:00:00:01:01 dev sut1 nud permanent
	END
}

_link_router()
{
	local fd_sut fd_far fd_end ret=0

	exec {fd_sut}< /proc/self/ns/net {fd_far}< "/run/netns/$FAR" \
		{fd_end}< "/run/netns/$END" || return 1
	echo "$fd_sut:${SUT_IFINDEX[0]} $fd_far:${FAR_IFINDEX[0]}" \
		> $NSIM_BUS/link_device || ret=1
	echo "$fd_sut:${SUT_IFINDEX[1]} $fd_end:${FAR_IFINDEX[1]}" \
		> $NSIM_BUS/link_device || ret=1
	exec {fd_sut}<&- {fd_far}<&- {fd_end}<&-
	return $ret
}

_echo_listens()
{
	end "n=0; while read -r _ addr _ state _; do
		case \$addr in *:1388) n=\$((n + 1)) ;; esac
	     done < <(cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6); echo \$n"
}

_start_echo()
{
	local proto addr

	for proto in UDP4 TCP4 UDP6 TCP6; do
		addr=$proto-LISTEN:$ECHO_PORT,fork,reuseaddr
		[[ $proto = *4 ]] || addr+=,ipv6only=1
		end "socat $addr PIPE 2>> $TMP/echo.err &" || return 1
	done
	wait_until _prints 4 _echo_listens && return
	cat "$TMP/echo.err"
	return 1
}

# The picture above, or Bail out. router_cleanup() is left to run at exit.
setup_router()
{
	trap router_cleanup EXIT
	need_tools conntrack
	_begin
	ip netns add "$FAR" && ip netns add "$END" ||
		ktap_bail "cannot create network namespaces"
	coproc FARSH { exec ip netns exec "$FAR" bash 2>&1; }
	exec {_far_in}>&"${FARSH[1]}" {_far_out}<&"${FARSH[0]}"
	mkfifo "$TMP/end.in" "$TMP/end.out"
	ip netns exec "$END" bash < "$TMP/end.in" > "$TMP/end.out" 2>&1 &
	_end_pid=$!
	exec {_end_in}> "$TMP/end.in" {_end_out}< "$TMP/end.out"
	far true && end true || ktap_bail "no shell at the hosts"

	_create_ports || ktap_bail "cannot create netdevsim devices"
	_move_far1 || ktap_bail "cannot give the other host its port"
	_configure_router || ktap_bail "cannot configure the ports"
	_link_router || ktap_bail "cannot link the ports"
	wait_until carrier_up 0 || ktap_bail "no carrier on sut0"
	wait_until carrier_up 1 || ktap_bail "no carrier on sut1"
	_start_echo || ktap_bail "nobody echoes at the other host"
	_tap sut0 "socat -u INTERFACE:sut0,$_INCOMING_ONLY"
	_tap sut1 "socat -u INTERFACE:sut1,$_INCOMING_ONLY"
}

router_cleanup()
{
	local rc=$?

	trap - EXIT
	if [ -n "${_end_pid:-}" ]; then
		# Those who echo have children, one for each conversation.
		wait_until _nobody_at_end
		wait "$_end_pid" 2> /dev/null
	fi
	ip netns del "$END" 2> /dev/null
	(exit $rc)
	cleanup
}

_nobody_at_end()
{
	local pids

	pids=$(ip netns pids "$END")
	[ -n "$pids" ] || return 0
	kill -9 $pids 2> /dev/null
	return 1
}

### What the hardware says

# flows PORT: sets FLOWS and FLOW_PACKETS to number and packets of the entries of
# flowtables
flows()
{
	local dir=$HW0 line lines

	[ "$1" = 0 ] || dir=$HW1
	FLOWS=0 FLOW_PACKETS=0
	mapfile -t lines < "$dir/table"
	for line in "${lines[@]}"; do
		case $line in
		flow\ *)
			line=${line#* packets=}
			FLOWS=$((FLOWS + 1))
			FLOW_PACKETS=$((FLOW_PACKETS + ${line%% *})) ;;
		esac
	done
}

# flow_count: number of entries of flowtables, over both ports
flow_count()
{
	local n

	flows 0
	n=$FLOWS
	flows 1
	echo $((n + FLOWS))
}

### Conversations of the host at $FAR with the echo at $END

# say COUNT TAG: datagrams through descriptor 5, each waits for its echo; prints
# how many came back
say()
{
	# A datagram is read whole, whatever part of it is asked for.
	far "n=0
	     for ((i = 0; i < $1; i++)); do
		printf '<$2>;' >&5 || break
		read -r -N 1 -t 10 -u 5 _ && n=\$((n + 1))
	     done; echo \$n"
}

# say_tcp COUNT TAG
say_tcp()
{
	far "n=0
	     for ((i = 0; i < $1; i++)); do
		printf '<$2>;' >&5 || break
		read -r -d ';' -t 10 -u 5 x && [ \"\$x\" = '<$2>' ] && n=\$((n + 1))
	     done; echo \$n"
}
