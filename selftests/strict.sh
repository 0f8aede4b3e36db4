#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Strict mode: a transaction after which not all ingress rules would be in
# hardware is refused in words, and then nothing has changed: not the ruleset,
# not the hardware, and not the fate of a single packet. What fits is taken.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5

load_rules()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter drop comment "drop"
				udp dport 10 counter accept comment "accept"
			}
		}
	END
}

# All but counters and times of what the hardware holds.
hw_table()
{
	local line lines list=

	mapfile -t lines < "$HW0/table"
	for line in "${lines[@]}"; do
		[[ ! "$line" =~ prio= ]] || list+="${line%% packets=*}"$'\n'
	done
	echo "$list"
}

# What must not change.
remember()
{
	ruleset > "$TMP/ruleset"
	hw_table > "$TMP/hw"
}

expect_unchanged()
{
	ruleset > "$TMP/ruleset.now"
	cmp -s "$TMP/ruleset" "$TMP/ruleset.now" ||
		fail "the ruleset has changed: $(diff "$TMP/ruleset" "$TMP/ruleset.now")"
	mapfile < "$PROC"
	hw_table > "$TMP/hw.now"
	cmp -s "$TMP/hw" "$TMP/hw.now" ||
		fail "hardware has changed: $(diff "$TMP/hw" "$TMP/hw.now")"
}

# refused REGEX NFT-ARG...: nft must fail, and say so
refused()
{
	local re=$1; shift

	remember
	if nft "$@" 2> "$TMP/nft.err"; then
		fail "strict mode took: $*"
	elif ! [[ "$(< "$TMP/nft.err")" =~ $re ]]; then
		fail "nft $*: $(< "$TMP/nft.err"), expected $re"
	fi
	expect_unchanged
}

done_with()
{
	offload 0
	load < /dev/null
	echo 1024 > "$HW0/capacity"
}

t_what_fits()
{
	load < /dev/null
	offload 2
	expect "value" "$(< "$SYSCTL_FILE")" 2
	load_rules
	expect_entries 2
	expect_state drop hardware
	expect_state accept hardware
	nft_do insert rule netdev t c udp dport 11 counter drop comment '"first"'
	expect_entries 3
	expect_state first hardware
	nft_do replace rule netdev t c handle "$(handle first)" \
		udp dport 12 counter fwd to '"sut1"' comment '"first"'
	expect_entries 3
	nft_do delete rule netdev t c handle "$(handle accept)"
	expect_entries 2
	# The entry that kept the place of the drop has sent nothing astray.
	send 9 nine
	send 12 twelve
	flush_wire
	expect_seen nine 0
	expect "counter of the drop" "$(nft_counter drop)" "$N"
	expect "counter of the forward" "$(nft_counter first)" "$N"
	wait_value "$N" tap_count far1 "$t.twelve"
	done_with
}

t_one_rule()
{
	load_rules
	offload 2
	refused 'Operation not supported.*add rule netdev t c udp dport [{] 11, 12' \
		add rule netdev t c 'udp dport { 11, 12 } drop'
	refused 'Operation not supported' \
		add rule netdev t c limit rate 1/second
	# Right by itself, but a whole transaction is refused, or none of it;
	# nft points at the line that is to blame.
	{
		echo 'add rule netdev t c udp dport 13 drop'
		echo 'add rule netdev t c udp dport 14 drop'
		echo 'insert rule netdev t c meta mark set 1'
		echo 'add rule netdev t c udp dport 15 drop'
	} > "$TMP/rules"
	refused ':3:1-[0-9]+: Error.*Operation not supported' -f "$TMP/rules"
	done_with
}

# nft keeps the kernel's words to itself; nfoctl does not.
t_words()
{
	local words re

	load_rules
	offload 2
	remember
	words=$(nfoctl add-empty-rule t c 2>&1) && fail "strict mode took an empty rule"
	re='rule [0-9]+ of chain c: its match or action has no form that hardware knows '
	re+='\[sut0\]: operation not supported'
	[[ "$words" =~ $re ]] || fail "the kernel says: $words"
	expect_unchanged
	done_with
}

t_policy_drop()
{
	load_rules
	offload 2
	refused 'Operation not supported' chain netdev t c '{ policy drop; }'
	refused 'Operation not supported' add chain netdev t d \
		'{ type filter hook ingress device sut0 priority 5; policy drop; }'
	# in one transaction with its remedy
	nft_do 'chain netdev t c { policy drop; }; chain netdev t c { policy accept; }'
	expect_entries 2
	done_with
}

t_device_without()
{
	load_rules
	offload 2
	refused 'Operation not supported' 'table netdev l { chain c {
		type filter hook ingress device lo priority 0; udp dport 9 drop; }; }'
	ethtool -K sut1 hw-tc-offload off
	refused 'Operation not supported' 'table netdev l { chain c {
		type filter hook ingress devices = { sut0, sut1 } priority 5;
		udp dport 9 drop; }; }'
	ethtool -K sut1 hw-tc-offload on
	nft_do 'table netdev l { chain c {
		type filter hook ingress devices = { sut0, sut1 } priority 5;
		udp dport 9 drop; }; }'
	expect_entries 3
	expect_entries 1 1
	done_with
}

# Drops that would have gone in before the one that does not fit.
t_no_room()
{
	local i drops sent

	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 10 counter accept comment "accept"
			}
		}
	END
	offload 2
	echo 40 > "$HW0/capacity"
	{
		echo "add rule netdev t c udp dport 9 drop"
		for ((i = 0; i < 60; i++)); do
			echo "add rule netdev t c udp dport $((1000 + i)) drop"
		done
	} > "$TMP/many"
	flood 9
	flood_more 5
	drops=$(hw_stat drop)
	for ((i = 0; i < 5; i++)); do
		refused 'No space left on device' -f "$TMP/many"
		flood_more 5
	done
	sent=$(flood_stop)
	flush_wire
	expect "packets of $sent that a refused ruleset has dropped" \
	       "$(hw_stat drop)" "$drops"
	done_with
}

# A full table whose every entry is exchanged.
t_exchange()
{
	local i verdict

	echo 8 > "$HW0/capacity"
	load < /dev/null
	offload 2
	for verdict in accept drop accept 'fwd to "sut1"'; do
		{
			echo "table netdev t { chain c {"
			echo "type filter hook ingress device sut0 priority 0;"
			for ((i = 0; i < 8; i++)); do
				echo "udp dport $((1000 + i)) counter $verdict"
			done
			echo "}; }"
		} | load
		expect_entries 8
	done
	done_with
}

# The same flood is either accepted or forwarded, never dropped by what is behind.
t_under_traffic()
{
	local i sent drops redirects

	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter accept comment "swap"
				ip saddr $FAR_IP counter drop comment "all"
			}
		}
	END
	offload 2
	expect_entries 2
	drops=$(hw_stat drop)
	redirects=$(hw_stat redirect)
	flood 9
	for ((i = 0; i < 4; i++)); do
		nft_do replace rule netdev t c handle "$(handle swap)" \
			udp dport 9 counter fwd to '"sut1"' comment '"swap"'
		expect "action" "$(hw_field action 'dport=9/')" redirect:sut1
		flood_more 20
		nft_do replace rule netdev t c handle "$(handle swap)" \
			udp dport 9 counter accept comment '"swap"'
		flood_more 20
	done
	sent=$(flood_stop)
	[ "$(hw_stat redirect)" -gt "$redirects" ] ||
		fail "hardware has forwarded none: $(< "$HW0/stats")"
	expect "packets of $sent dropped in hardware" "$(hw_stat drop)" "$drops"
	expect "packets the last drop has taken" "$(nft_counter all)" 0
	done_with
}

# From 0 and from 1, with a ruleset that does not fit.
t_switching()
{
	local from

	load_rules
	nft_do insert rule netdev t c udp dport '{ 11, 12 }' counter drop comment '"set"'
	nft_do insert rule netdev t c udp dport 13 counter drop comment '"one"'
	for from in 0 1; do
		offload "$from"
		expect_entries "$from"
		remember
		if { echo 2 > "$SYSCTL_FILE"; } 2> "$TMP/sysctl.err"; then
			fail "strict mode took a ruleset that does not fit"
		fi
		grep -q "not supported" "$TMP/sysctl.err" ||
			fail "$SYSCTL=2: $(< "$TMP/sysctl.err")"
		expect "value" "$(< "$SYSCTL_FILE")" "$from"
		expect_unchanged
	done
	nft_do delete rule netdev t c handle "$(handle set)"
	offload 2
	expect_entries 3
	offload 1
	nft_do insert rule netdev t c udp dport '{ 11, 12 }' drop
	expect_entries 0
	done_with
}

# What was right has become wrong without a transaction: the device is to blame,
# and others must not suffer for it.
t_others()
{
	load_rules
	nft_do insert rule netdev t c udp dport 12 fwd to '"sut1"' comment '"fwd"'
	offload 2
	expect_entries 3
	nft_do add table ip o
	nft_do add chain ip o c '{ type filter hook input priority 0; }'
	nft_do add rule ip o c udp dport '{ 11, 12 }' accept
	ip link set sut1 netns "$FAR" || fail "cannot move sut1 away"
	expect_entries 0
	expect_state drop software
	nft_do add table ip p
	refused 'Operation not supported' add rule netdev t c udp dport 11 drop
	nft_do delete rule netdev t c handle "$(handle fwd)"
	expect_entries 2
	move_back
	done_with
}

# For a chain with the flag, too, which without the module would be refused as
# well, and with the other mode is a wish.
t_explicit()
{
	load_rules
	offload 2
	refused 'Operation not supported' 'table netdev e { chain l {
		type filter hook ingress device lo priority 0; flags offload;
		udp dport 9 drop; }; }'
	nft_do 'table netdev e { chain c {
		type filter hook ingress device sut0 priority 5; flags offload;
		udp dport 11 drop comment "explicit"; }; }'
	expect_entries 3
	expect_state explicit hardware
	refused 'Operation not supported' add rule netdev e c 'udp dport { 12, 13 } drop'
	offload 1
	nft_do add rule netdev e c 'udp dport { 12, 13 } drop'
	if { echo 2 > "$SYSCTL_FILE"; } 2> /dev/null; then
		fail "strict mode took a chain that does not fit"
	fi
	done_with
}

# What the driver has taken as an accept, and then does not take as it is.
t_error_after_switch()
{
	load < /dev/null
	offload 2
	# two that keep their places, then the first of them in earnest
	echo "3 5" > "$HW0/fail_replace"
	load_rules
	expect "failures" "$(injected fail_replace)" 1
	expect_entries 0
	expect_state drop failed
	expect_why drop 'error -5.*rule %accept% stays in software behind it'
	expect_state accept software
	send 9 nine
	flush_wire
	expect_seen nine "$N"
	expect "counter of the drop" "$(nft_counter drop)" "$N"
	# The next one finds the driver well again.
	nft_do add rule netdev t c udp dport 11 counter drop
	expect_entries 3
	expect_state drop hardware
	done_with
}

_sleeps()
{
	local stat

	{ mapfile -t stat < "/proc/$1/stat"; } 2> /dev/null &&
		[[ ${stat[0]} = *") D "* ]]
}

# The hardware of one device takes its time, under the RTNL. It takes that to bind
# another, so the transaction is processed again until it is free.
t_busy()
{
	local filter pid

	filter="tc filter add dev sut1 ingress protocol ip flower skip_sw ip_proto udp"
	load < /dev/null
	offload 2
	# With all modules loaded there is nothing else to sleep for.
	{ tc qdisc add dev sut1 clsact && $filter dst_port 19 action drop; } ||
		fail "no filter"
	echo 4000000 > "$HW1/delay_us"
	$filter dst_port 20 action drop &
	pid=$!
	wait_until _sleeps "$pid" || fail "tc has not come to the hardware"
	expect "filters in the hardware of sut1" "$(hw_stat entries 1)" 1
	load_rules
	expect "filters after the transaction" "$(hw_stat entries 1)" 2
	echo 0 > "$HW1/delay_us"
	wait "$pid" || fail "tc has failed"
	expect_entries 2
	expect_state drop hardware
	tc qdisc del dev sut1 clsact
	done_with
}

TESTS="what_fits one_rule words policy_drop device_without no_room exchange
	under_traffic switching others explicit error_after_switch busy"

ktap_print_header
setup_pair
need_offload
need_tools cmp diff tc
# shellcheck disable=SC2086
ktap_set_plan $(($(wc -w <<< $TESTS) + 1))
# shellcheck disable=SC2086
run_subtests $TESTS
subtest ledger expect_ledger_empty
ktap_finished
