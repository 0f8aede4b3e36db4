#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Offload comes and goes at runtime: by sysctl, by rmmod, with the network
# namespace, with the device, each while packets flow. The ruleset must not
# change, no packet may escape it, and hardware must be left empty.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5
_n=0

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
	_n=$((_n + 1))
	send 9 soft"$_n"
	flush_wire
	expect_seen soft"$_n" "$N"
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

expect_hardware()
{
	expect_entries 2
	expect_entries 1 1
	expect_same_ruleset
	_n=$((_n + 1))
	send 9 hard"$_n"
	flush_wire
	expect_seen hard"$_n" 0
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

done_with()
{
	offload 0
	load < /dev/null
}

t_default_off()
{
	expect "value in a new namespace" "$(< "$SYSCTL_FILE")" 0
	load_rules
	expect "listing" "$(grep -vc '^#' "$PROC")" 0
	expect_software
	done_with
}

t_on_and_off()
{
	load_rules
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
	expect "its bytes" "$(nft_counter drop bytes)" \
	       $((4 * N * (28 + ${#t} + 1 + 5 + 3)))
	done_with
}

# Counters of what hardware accepted are software's own.
t_counters()
{
	load_rules
	offload 1
	send 8 pass
	flush_wire
	expect "counter of the accept" "$(nft_counter accept)" "$N"
	expect "hardware counter of the accept" "$(listed_packets accept)" "$N"
	expect_seen pass "$N"
	send 9 drop
	flush_wire
	expect "counter of the drop, in hardware" "$(nft_counter drop)" "$N"
	expect "the same, listed again" "$(nft_counter drop)" "$N"
	# an entry that has to go must not take its counts with it, which
	# nobody has asked for yet
	send 9 again
	flush_wire
	nft_do insert rule netdev t c limit rate 1000/second
	expect_entries 1
	expect "counter of the drop, in software again" "$(nft_counter drop)" \
	       $((2 * N))
	done_with
}

t_bad_values()
{
	local v

	load_rules
	for v in 3 -1 4294967297 x; do
		if { echo "$v" > "$SYSCTL_FILE"; } 2> "$TMP/sysctl.err"; then
			fail "$SYSCTL took $v"
		fi
		grep -q "Invalid argument" "$TMP/sysctl.err" ||
			fail "$SYSCTL=$v: $(cat "$TMP/sysctl.err")"
		expect "value after $v" "$(< "$SYSCTL_FILE")" 0
		expect_entries 0
	done
	done_with
}

# Root of another user namespace, but not of the one that owns the netns.
t_privilege()
{
	# shellcheck disable=SC2016
	if unshare -U -r bash -c 'echo 1 > "$0"' \
	   "$SYSCTL_FILE" 2> /dev/null; then
		fail "somebody without CAP_NET_ADMIN has switched offload on"
	fi
	expect "value" "$(< "$SYSCTL_FILE")" 0
}

t_own_namespace_only()
{
	load_rules
	offload 1
	expect "value in another namespace" "$(far "cat $SYSCTL_FILE")" 0
	expect "rules listed in another namespace" "$(far "grep -vc '^#' $PROC")" 0
	expect_entries 2
	far "echo 1 > $SYSCTL_FILE; echo 0 > $SYSCTL_FILE"
	expect_entries 2
	done_with
}

# Back and forth while packets come: the rule takes every one of them.
t_under_traffic()
{
	local i sent drops

	load_rules
	drops=$(hw_stat drop)
	flood 9
	for ((i = 0; i < 10; i++)); do
		offload 1
		flood_more 50
		expect_entries 2
		offload 0
		flood_more 50
		expect_entries 0
	done
	sent=$(flood_stop)
	flush_wire
	[ "$(hw_stat drop)" -gt "$drops" ] || fail "hardware has dropped none"
	expect "packets that escaped" "$(nft_counter escaped)" 0
	# Also those that hardware drops between the last question and the end.
	expect "packets counted" "$(nft_counter drop)" "$sent"
	expect_software
	done_with
}

t_rmmod()
{
	load_rules
	offload 1
	expect_hardware
	flood 9
	flood_more 20
	rmmod nft_offload || fail "cannot unload the module"
	flood_more 20
	flood_stop > /dev/null
	flush_wire
	[ ! -e "$SYSCTL_FILE" ] || fail "the sysctl is still there"
	expect_software
	modprobe nft_offload || fail "cannot load the module again"
	expect "value after loading again" "$(< "$SYSCTL_FILE")" 0
	offload 1
	expect_hardware
	offload 0
	expect_software
	done_with
}

# Some kernels take a chain off a device whose name no longer fits, others do
# not. Hardware does what software does there, so ask software first.
t_rename()
{
	local on soft

	for on in 0 1; do
		load_rules
		offload "$on"
		rename_port 0 sut0 renamed0 || fail "cannot rename sut0"
		send 9 renamed"$on"
		flush_wire
		if [ "$on" = 0 ]; then
			soft=$(nft_counter drop)
			expect_seen renamed0 "$N"
		else
			expect "counter of the drop" "$(nft_counter drop)" "$soft"
			expect_seen renamed1 $((N - soft))
			expect_entries $((soft ? 2 : 0))
		fi
		rename_port 0 renamed0 sut0
		expect_same_ruleset
	done
	expect_hardware
	done_with
}

t_device_moves()
{
	load_rules
	offload 1
	expect_entries 1 1
	ip link set sut1 netns "$FAR" || fail "cannot move sut1"
	expect "entries on sut1" "$(hw_stat entries 1)" 0
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 0
	expect_entries 2
	move_back
	offload 0
	expect_ledger_empty
	done_with
}

t_device_deleted()
{
	load_rules
	# listed as well, and gone with the device in some kernels
	nft_do add table netdev dormant '{ flags dormant; }'
	nft_do add chain netdev dormant d \
		'{ type filter hook ingress device sut1 priority 0; }'
	nft_do add rule netdev dormant d udp dport 9 drop
	offload 1
	expect_entries 2
	expect "dormant rules listed" "$(grep -c '^dormant d ' "$PROC")" 1
	flood 9
	flood_more 20
	echo "$SUT_ID" > "$NSIM_BUS"/del_device || fail "cannot delete netdevsim$SUT_ID"
	flood_stop > /dev/null
	expect_ledger_empty
	expect "lines of the device" "$(grep -c ' sut' "$PROC")" 0
	offload 0
	load < /dev/null
}

# Runs in a namespace that will go, with a device of its own.
_gone_setup()
{
	echo "$1 1" > "$NSIM_BUS"/new_device || return 1
	ip -o link show | while read -r _ dev _; do
		case $dev in
		lo:|sit*|ip6*)	;;
		*)	ip link set "${dev%:}" name gone0 up
			ethtool -K gone0 hw-tc-offload on ;;
		esac
	done
	nft 'table netdev t {
		chain c {
			type filter hook ingress device gone0 priority 0;
			udp dport 9 counter drop
			udp dport 10 counter accept
		}
	}' || return 1
	echo 1 > "$SYSCTL_FILE"
}

t_netns_exit()
{
	local id=$((SUT_ID + 1)) ns=gone-$$

	ip netns add "$ns" || fail "cannot create a namespace"
	ip netns exec "$ns" bash -c "$(declare -f _gone_setup)
		NSIM_BUS=$NSIM_BUS SYSCTL_FILE=$SYSCTL_FILE; _gone_setup $id" ||
		fail "cannot set up the namespace"
	expect "ledger: entries" "$(ledger entries)" 2
	expect "ledger: bound" "$(ledger bound)" 1
	ip netns del "$ns"
	wait_value 0 ledger entries
	wait_value 0 ledger bound
	expect_ledger_empty
	# netdevsim moves to the initial namespace then
	del_stray "$id"
}

# netns_exit uses none of the ports that device_deleted deletes.
TESTS="default_off on_and_off counters bad_values privilege own_namespace_only
	under_traffic rmmod rename device_moves netns_exit device_deleted"

ktap_print_header
setup_pair
need_offload
need_tools cmp diff
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
