#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2119,SC2317
#
# What happens to flows in hardware when something goes: the ruleset, the owner
# of the table, the module, the device, its name, its namespace, each while
# packets flow. Hardware must be left empty before, nobody may call it later,
# and no reference may stay behind.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"
# shellcheck source=flow_lib.sh
. "$(dirname "$0")/flow_lib.sh"

# A flow without end to port 20, and flow 7, all in hardware.
start()
{
	load_flowtable
	offload 1
	flood_flow 20
	expect_flows 2
}

# The flows go on: by the end of this, more packets have arrived.
expect_alive()
{
	local n

	flood_more 20
	n=$(arrived flood)
	flood_more 20
	settle 7
	[ "$(arrived flood)" -gt "$n" ] || fail "packets do not arrive any more"
}

stop()
{
	flood_stop > /dev/null
	settle 7
	close_flow 7
	offload 0
	load < /dev/null
	expect_ledger_empty
}

t_flush()
{
	start
	nft_do flush ruleset
	expect_ledger_empty
	expect_alive
	expect "flow tables listed" "$(ft_line)" ""
	load_flowtable
	# the other flow has sent nothing
	expect_flows 1
	expect_alive
	stop
}

t_rmmod()
{
	start
	rmmod nft_offload || fail "cannot unload the module"
	expect_ledger_empty
	expect "flows in software" "$(ct_line '\[OFFLOAD\]' | wc -l)" 2
	expect_alive
	modprobe nft_offload || fail "cannot load the module again"
	offload 1
	expect_flows 2
	expect_alive
	stop
}

t_owner()
{
	load < /dev/null
	offload 1
	mkfifo "$TMP/owner"
	command nft -i < "$TMP/owner" > /dev/null 2>&1 &
	exec 8> "$TMP/owner"
	{
		echo "add table inet f { flags owner; }"
		echo "add flowtable inet f ft {" \
		     "hook ingress priority 0; devices = { sut0, sut1 }; counter; }"
		echo "add chain inet f forward { type filter hook forward priority 0; }"
		echo "add rule inet f forward meta l4proto udp flow add @ft"
	} >&8
	wait_until _has_rule || fail "the owner has no ruleset"
	flood_flow 20
	expect_flows 2
	exec 8>&-
	wait "$!"
	rm "$TMP/owner"
	expect "tables" "$(nft list tables)" ""
	expect_ledger_empty
	expect_alive
	stop
}

_has_rule()
{
	[[ $(nft list ruleset) = *"flow add @ft"* ]]
}

# Some kernels take a flow table off a device whose name no longer fits, others
# do not. Hardware does what software does there.
t_rename()
{
	local forgotten

	start
	rename_port 1 sut1 renamed1 || fail "cannot rename sut1"
	forgotten=$renamed_down
	case $(ft_field 4) in
	*renamed1*)	expect "blocks bound to it" "$(hw_stat bound 1)" 1 ;;
	*)		expect "blocks bound to it" "$(hw_stat bound 1)" 0
			expect "flows of it" "$(flows 1)" 0
			# Those that leave by a device which the table has lost
			kernel_before 7 0 || forgotten=1 ;;
	esac
	expect "ledger: purged entries" "$(ledger purged)" 0
	expect_alive
	rename_port 1 renamed1 sut1
	ip addr add 2001:db8:1::2/64 dev sut1 nodad 2> /dev/null
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 1
	# flow 7 has sent nothing since
	expect_flows $((2 - forgotten))
	expect_alive
	stop
}

t_down_and_up()
{
	start
	ip link set sut1 down
	expect "flows to a device that is down" "$(flows 0)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
	ip link set sut1 up
	neighbours > "$TMP/neigh.ip"
	ip -force -batch "$TMP/neigh.ip"
	ip addr add 2001:db8:1::2/64 dev sut1 nodad 2> /dev/null
	wait_until carrier_up 1 || fail "no carrier on sut1"
	expect_flows 1
	expect_alive
	stop
}

t_device_moves()
{
	start
	ip link set sut1 netns "$FAR" || fail "cannot move sut1"
	expect "flows in hardware" "$(flows 0) $(flows 1)" "0 0"
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "devices" "$(ft_field 4)" sut0
	move_back
	ip addr add 2001:db8:1::2/64 dev sut1 nodad
	# This version of nf_tables may not take it back by itself.
	[ "$(ft_field 4)" = sut0,sut1 ] || load_flowtable
	expect_flows 1
	expect_alive
	stop
}

# Runs in a namespace that will go: a router with one port.
_gone_setup()
{
	local dev

	echo "$1 1" > "$NSIM_BUS"/new_device || return 1
	while read -r _ dev _; do
		case $dev in
		lo:|sit*|ip6*)	;;
		*)	ip link set "${dev%:}" name gone0 ;;
		esac
	done < <(ip -o link show)
	echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
	echo 0 > /proc/sys/net/ipv4/conf/gone0/send_redirects
	echo 1 > /proc/sys/net/ipv4/ip_forward
	ip link set gone0 address 02:00:00:00:09:02 up
	ip addr add 10.9.0.2/24 dev gone0
	ip neigh replace 10.9.0.1 lladdr 02:00:00:00:09:01 dev gone0 nud permanent
	ip route add 203.0.113.0/24 via 10.9.0.1 dev gone0
	ethtool -K gone0 hw-tc-offload on
	cat /sys/class/net/gone0/ifindex > "$2"
	nft 'table inet f {
		flowtable ft { hook ingress priority 0; devices = { gone0 }; }
		chain forward {
			type filter hook forward priority 0;
			meta l4proto udp flow add @ft
		}
	}' || return 1
	echo 1 > "$SYSCTL_FILE"
}

t_netns_exit()
{
	local id=$((SUT_ID + 1)) far_id=$((FAR_ID + 1)) ns=gone-$$ fd_ns fd_far
	local ifindex

	ip netns add "$ns" || fail "cannot create a namespace"
	ip netns exec "$ns" bash -c "$(declare -f _gone_setup)
		NSIM_BUS=$NSIM_BUS SYSCTL_FILE=$SYSCTL_FILE
		_gone_setup $id $TMP/gone.ifindex" ||
		fail "cannot set up the namespace"
	far "echo '$far_id 1' > $NSIM_BUS/new_device
	     for i in /sys/class/net/*; do
		[[ \${i##*/} = eth* ]] && ip link set \${i##*/} name b0
	     done
	     ip link set b0 address 02:00:00:00:09:01 up
	     ip addr add 10.9.0.1/24 dev b0
	     ip neigh replace 10.9.0.2 lladdr 02:00:00:00:09:02 dev b0 nud permanent
	     ip route add 203.0.113.0/24 via 10.9.0.2 dev b0"
	ifindex=$(far "cat /sys/class/net/b0/ifindex")
	exec {fd_ns}< "/run/netns/$ns" {fd_far}< "/run/netns/$FAR"
	echo "$fd_ns:$(< "$TMP/gone.ifindex") $fd_far:$ifindex" \
		> "$NSIM_BUS"/link_device || fail "cannot link"
	exec {fd_ns}<&- {fd_far}<&-
	far "exec 9<> /dev/udp/203.0.113.9/9"
	wait_until _gone_flows || fail "no flow in hardware"
	ip netns del "$ns"
	wait_value 0 ledger bound
	expect_ledger_empty
	far "exec 9>&-"
	# netdevsim moves to the initial namespace then
	del_stray "$id"
	echo "$far_id" > "$NSIM_BUS"/del_device
}

_gone_flows()
{
	far "printf x >&9"
	[ "$(ledger entries)" = 2 ]
}

t_device_deleted()
{
	start
	echo "$SUT_ID" > "$NSIM_BUS"/del_device ||
		fail "cannot delete netdevsim$SUT_ID"
	flood_stop > /dev/null
	expect_ledger_empty
	expect "devices" "$(ft_field 4)" -
	close_flow 7
	offload 0
	load < /dev/null
}

# device_deleted leaves nothing for others.
TESTS="flush rmmod owner rename down_and_up device_moves netns_exit
	device_deleted"

ktap_print_header
setup_router
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
