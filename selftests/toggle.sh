#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Offload comes and goes at runtime: by sysctl, by rmmod, with the network
# namespace, with the device, each while packets flow. The ruleset must not
# change, no packet may escape it, and hardware must be left empty.

cd "$(dirname "$0")" || exit 1
. ./lib.sh
. ./offload_lib.sh

N=5

load_rules()
{
	load <<-END
		table netdev t {
			chain early {
				type filter hook ingress device sut0 priority -7;
				udp dport 8 counter accept comment "accept"
			}
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				udp dport 9 counter drop comment "drop"
				udp dport { 10, 11 } counter drop comment "set"
				udp dport 12 counter drop comment "behind"
			}
			chain last {
				type filter hook ingress device sut0 priority 100;
				udp dport 9 counter comment "escaped"
			}
		}
	END
	ruleset > "$TMP/ruleset"
}

expect_same_ruleset()
{
	ruleset > "$TMP/ruleset.now"
	cmp "$TMP/ruleset" "$TMP/ruleset.now" ||
		fail "the ruleset has changed: $(diff "$TMP/ruleset" "$TMP/ruleset.now")"
}

# No entry, no binding, no listing, and the rules still work.
expect_software()
{
	expect "entries on sut0" "$(hw_stat entries)" 0
	expect "entries on sut1" "$(hw_stat entries 1)" 0
	expect_ledger_empty
	expect_same_ruleset
	send_udp $N 9 soft
	flush_wire
	expect "packets that software dropped" "$(tap_count sut0 soft)" $N
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

expect_hardware()
{
	expect_entries 2
	expect_entries 1 1
	expect_same_ruleset
	send_udp $N 9 hard
	flush_wire
	expect "packets for hardware that the host saw" "$(tap_count sut0 hard)" 0
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

fresh()
{
	load_rules
	tap_start "$SUT" sut0
}

done_with()
{
	tap_stop sut0
	load < /dev/null
}

t_default_off()
{
	expect "value in a new namespace" "$(sut sysctl -n $SYSCTL)" 0
	fresh
	expect "listing" "$(sut grep -vc '^#' $PROC)" 0
	expect_software
	done_with
}

t_on_and_off()
{
	fresh
	offload 1
	expect_hardware
	offload 0
	expect_software
	offload 1
	expect_hardware
	offload 0
	expect_software
	# software counted while off, hardware while on; the listing has both
	expect "counter of the drop" "$(nft_counter drop)" $((4 * N))
	expect "its bytes" "$(nft_counter drop bytes)" $((4 * N * (28 + 13)))
	done_with
}

# Counters of what hardware accepted are software's own.
t_counters()
{
	fresh
	offload 1
	send_udp $N 8 pass
	flush_wire
	expect "counter of the accept" "$(nft_counter accept)" $N
	expect "hardware counter of the accept" "$(listed_packets accept)" $N
	expect "packets that the host saw" "$(tap_count sut0 pass)" $N
	send_udp $N 9 drop
	flush_wire
	expect "counter of the drop, in hardware" "$(nft_counter drop)" $N
	expect "the same, listed again" "$(nft_counter drop)" $N
	# an entry that has to go must not take its counts with it
	nft_do insert rule netdev t c log prefix x
	expect_entries 1
	expect "counter of the drop, in software again" "$(nft_counter drop)" $N
	offload 0
	done_with
}

t_bad_values()
{
	local v

	fresh
	for v in 2 -1 4294967297 x; do
		if sut sysctl -qw "$SYSCTL=$v" 2> "$TMP/sysctl.err"; then
			fail "$SYSCTL took $v"
		fi
		grep -q "Invalid argument" "$TMP/sysctl.err" ||
			fail "$SYSCTL=$v: $(cat "$TMP/sysctl.err")"
		expect "value after $v" "$(sut sysctl -n $SYSCTL)" 0
		expect_entries 0
	done
	done_with
}

# Root of another user namespace, but not of the one that owns the netns.
t_privilege()
{
	# shellcheck disable=SC2016
	if sut unshare -U -r bash -c 'echo 1 > "$0"' \
	   "/proc/sys/${SYSCTL//.//}" 2> /dev/null; then
		fail "somebody without CAP_NET_ADMIN has switched offload on"
	fi
	expect "value" "$(sut sysctl -n $SYSCTL)" 0
	if sut unshare -U -r cat $PROC > /dev/null 2>&1; then
		fail "somebody without CAP_NET_ADMIN can read the rules"
	fi
}

t_own_namespace_only()
{
	fresh
	offload 1
	expect "value in another namespace" "$(far sysctl -n $SYSCTL)" 0
	expect "rules listed in another namespace" "$(far grep -vc '^#' $PROC)" 0
	expect_entries 2
	far sysctl -qw $SYSCTL=1
	far sysctl -qw $SYSCTL=0
	expect_entries 2
	offload 0
	done_with
}

# Back and forth while packets come: the rule takes every one of them.
t_under_traffic()
{
	local i sent drops

	fresh
	tap_stop sut0
	drops=$(hw_stat drop)
	flood 9 storm
	for ((i = 0; i < 10; i++)); do
		offload 1
		flood_more 50
		expect_entries 2
		offload 0
		flood_more 50
		expect_entries 0
	done
	sent=$(flood_stop)
	tap_start "$SUT" sut0
	flush_wire
	[ "$(hw_stat drop)" -gt "$drops" ] || fail "hardware has dropped none"
	expect "packets that escaped" "$(nft_counter escaped)" 0
	# Hardware may be asked for the last time, and drop one more before
	# the entry is gone; nothing else may be missing.
	ktap_print_msg "$sent sent, $(nft_counter drop) counted"
	[ "$(nft_counter drop)" -le "$sent" ] || fail "more counted than sent"
	expect_software
	done_with
}

t_rmmod()
{
	fresh
	offload 1
	expect_hardware
	flood 9 storm
	flood_more 20
	rmmod nft_offload || fail "cannot unload the module"
	flood_more 20
	flood_stop > /dev/null
	flush_wire
	[ ! -e /proc/sys/${SYSCTL//.//} ] || fail "the sysctl is still there"
	expect_software
	modprobe nft_offload || fail "cannot load the module again"
	expect "value after loading again" "$(sut sysctl -n $SYSCTL)" 0
	offload 1
	expect_hardware
	offload 0
	expect_software
	done_with
}

t_rename()
{
	fresh
	offload 1
	expect_entries 2
	ip -n "$SUT" link set sut0 name renamed0 || fail "cannot rename sut0"
	expect_state drop hardware renamed0
	expect_entries 2
	send_udp $N 9 hard
	ip -n "$SUT" link set renamed0 name sut0
	flush_wire
	expect "packets that the host saw" "$(tap_count sut0 hard)" 0
	expect_entries 2
	offload 0
	done_with
}

t_device_moves()
{
	fresh
	offload 1
	expect_entries 1 1
	ip -n "$SUT" link set sut1 netns "$FAR" || fail "cannot move sut1"
	expect "entries on sut1" "$(hw_stat entries 1)" 0
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 0
	expect_entries 2
	ip -n "$FAR" link set sut1 netns "$SUT"
	offload 0
	expect_ledger_empty
	done_with
}

t_device_deleted()
{
	load_rules
	offload 1
	expect_entries 2
	flood 9 storm
	flood_more 20
	echo "$SUT_ID" > $NSIM_BUS/del_device || fail "cannot delete netdevsim$SUT_ID"
	kill $_flood_pid
	wait $_flood_pid 2> /dev/null
	expect_ledger_empty
	expect "listing" "$(sut grep -c ' sut' $PROC)" 0
	offload 0
	load < /dev/null
}

_netns_gone()
{
	[ ! -e "$NSIM_DEBUGFS/netdevsim$SUT_ID/ports/0/hwft" ] ||
		[ "$(hw_stat bound)$(hw_stat entries)" = 00 ]
}

# The last: there is no SUT afterwards.
t_netns_exit()
{
	ip netns exec "$SUT" bash -c "echo $SUT_ID 2 > $NSIM_BUS/new_device" ||
		fail "cannot create netdevsim$SUT_ID"
	for dev in $(sut ls /sys/class/net); do
		case $dev in
		lo)	;;
		*)	ip -n "$SUT" link set "$dev" name \
				"sut$(($(sut sed 's/^p//' "/sys/class/net/$dev/phys_port_name") - 1))" ;;
		esac
	done
	sut ethtool -K sut0 hw-tc-offload on
	sut ethtool -K sut1 hw-tc-offload on
	ip -n "$SUT" link set sut0 up
	load_rules
	offload 1
	expect_entries 2
	expect "ledger: entries" "$(ledger entries)" 3
	ip netns del "$SUT" || fail "cannot delete the namespace"
	wait_value 0 ledger entries
	wait_value 0 ledger bound
	expect_ledger_empty
}

TESTS="default_off on_and_off counters bad_values privilege own_namespace_only
	under_traffic rmmod rename device_moves device_deleted netns_exit"

need_tools nft ip ethtool jq socat awk cmp diff unshare
ktap_print_header
setup_pair
need_offload
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
for t in $TESTS; do
	subtest "$t" "t_$t"
done
ktap_finished
