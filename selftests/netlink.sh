#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# The generic netlink family: what it lists is what /proc and nft list, an event
# comes for each change, and who may not administer the namespace, or sends
# garbage, gets an error and changes nothing.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5
_monitor=

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
		}
		table netdev z {
			flags dormant;
			chain c {
				type filter hook ingress device sut0 priority 0;
				drop
			}
		}
	END
}

# What nfoctl lists, in the form of /proc/net/nft_offload; only whether it ever
# was used, as that time goes on
_as_proc()
{
	nfoctl -j rules "$@" | jq -r '.[] | "\(.table) \(.chain) \(.handle) " +
		"\(.device // "-") \(.state) \(.prio // "-") \(.packets) " +
		"\(.bytes) \(if .last_used_ms then "used" else "-" end) " +
		"\(.reason // "-")"'
}

# _proc [TABLE [CHAIN]]: the same from /proc
_proc()
{
	local table chain handle dev state prio packets bytes used why

	cat "$PROC" > "$TMP/listing"
	while read -r table chain handle dev state prio packets bytes used why; do
		case "$table $chain" in
		"# "*)	continue ;;
		"${1:-$table} ${2:-$chain}") ;;
		*)	continue ;;
		esac
		[ "$used" = - ] || used=used
		echo "$table $chain $handle $dev $state $prio $packets $bytes $used $why"
	done < "$TMP/listing"
}

# rule COMMENT FILTER: jq FILTER applied to the rule on sut0
rule()
{
	nfoctl -j rules --dev sut0 |
		jq -r ".[] | select(.handle == $(handle "$1")) | $2"
}

# monitor: events from now on into $TMP/events
monitor()
{
	: > "$TMP/ready"
	nfoctl -j monitor > "$TMP/events" 2> "$TMP/ready" &
	_monitor=$!
	_pids="$_pids $_monitor"
	wait_until grep -q listening "$TMP/ready" ||
		fail "nfoctl monitor: $(< "$TMP/ready")"
}

# event FILTER: an event for which jq FILTER is true has come
event()
{
	jq -e -s "any(.[]; $1)" "$TMP/events" > /dev/null
}

expect_event()
{
	wait_until event "$1" || fail "no event $1 in: $(< "$TMP/events")"
}

monitor_stop()
{
	kill "$_monitor"
	wait "$_monitor"
}

done_with()
{
	offload 0
	load < /dev/null
}

t_listing()
{
	load_rules
	offload 1
	send 8 eight
	send 9 nine
	flush_wire
	_as_proc > "$TMP/netlink"
	_proc > "$TMP/proc"
	expect "rules in /proc" "$(wc -l < "$TMP/proc")" 8
	cmp "$TMP/netlink" "$TMP/proc" ||
		fail "listings differ: $(diff "$TMP/netlink" "$TMP/proc")"
	expect "counter of the drop" "$(rule drop .packets)" "$(nft_counter drop)"
	expect "bytes of the drop" "$(rule drop .bytes)" "$(nft_counter drop bytes)"
	expect "hardware counter of the accept" "$(rule accept .packets)" "$N"
	expect "policy" "$(rule drop .policy)" auto
	done_with
}

t_last_used()
{
	local first now start=${EPOCHREALTIME/[.,]/}

	load_rules
	offload 1
	expect "last used, before any packet" "$(rule drop .last_used_ms)" null
	send 9 nine
	flush_wire
	first=$(rule drop .last_used_ms)
	[ "$first" -ge 0 ] || fail "last used: $first"
	wait_until eval "[ \$(rule drop .last_used_ms) -gt $((first + 100)) ]" ||
		fail "last used does not grow older than $(rule drop .last_used_ms) ms"
	now=${EPOCHREALTIME/[.,]/}
	first=$(rule drop .last_used_ms)
	[ "$first" -le $(((now - start) / 1000 + 5000)) ] ||
		fail "last used $first ms ago, but the test took less"
	expect "last used of the accept" "$(rule accept .last_used_ms)" null
	done_with
}

t_selection()
{
	load_rules
	offload 1
	expect "rules on sut1" "$(_as_proc --dev sut1 | wc -l)" 3
	expect "rules of chain early" "$(_as_proc --chain early)" \
	       "$(_proc t early)"
	expect "rules of table z" "$(_as_proc --table z)" \
	       "$(_proc z)"
	expect "rules of chain c of table z" "$(_as_proc --table z --chain c | wc -l)" 1
	expect "rules of no table" "$(_as_proc --table none | wc -l)" 0
	done_with
}

# More than a message holds.
t_long_listing()
{
	local i

	{
		echo "table netdev t { chain c {"
		echo "type filter hook ingress device sut0 priority 0;"
		for ((i = 0; i < 200; i++)); do
			echo "udp dport $((1000 + i)) drop"
		done
		echo "udp dport { 10, 11 } drop"
		for ((i = 0; i < 200; i++)); do
			echo "udp dport $((2000 + i)) drop"
		done
		echo "}; }"
	} | load
	offload 1
	_as_proc > "$TMP/netlink"
	_proc > "$TMP/proc"
	expect "rules" "$(wc -l < "$TMP/netlink")" 401
	cmp "$TMP/netlink" "$TMP/proc" || fail "listings differ"
	done_with
}

t_events()
{
	local h

	load_rules
	monitor
	offload 1
	expect_event '.event == "mode" and .status.mode == "auto"'
	h=$(handle drop)
	expect_event ".rule.handle == $h and .rule.device == \"sut0\" and
		.rule.state == \"hardware\""
	expect_event ".rule.handle == $h and .rule.device == \"sut1\" and
		.rule.state == \"hardware\""
	expect_event ".rule.handle == $(handle set) and .rule.state == \"software\" and
		(.rule.reason | test(\"set lookup\"))"
	monitor_stop

	monitor
	nft_do insert rule netdev t c limit rate 1/second
	expect_event ".rule.handle == $h and .rule.state == \"software\" and
		(.rule.reason | test(\"behind rule .* rate limit\"))"
	event '.rule.chain == "early"' && fail "an event for a rule that did not move"
	monitor_stop

	monitor
	echo 1 > "$HW0/capacity"
	nft_do insert rule netdev t c udp dport 13 drop comment '"full"'
	expect_event ".rule.handle == $(handle full) and .rule.state == \"failed\""
	echo 1024 > "$HW0/capacity"
	nfoctl policy set t c never
	expect_event '.policy.chain == "c" and .policy.policy == "never"'
	nfoctl policy set t c auto
	expect_event '.policy.chain == "c" and .policy.policy == "auto"'
	load < /dev/null
	offload 2
	expect_event '.status.mode == "strict"'
	nft 'table netdev t { chain c { type filter hook ingress device lo priority 0; drop; }; }' \
		2> /dev/null && fail "strict mode took it"
	expect_event '.event == "refused" and
		(.status.reason | test("rule .* of chain c: the device has no offload .lo."))'
	monitor_stop
	done_with
}

# Who listens hears of all that leaves the listing, and of other reasons.
t_farewell()
{
	local h set

	load_rules
	offload 1
	h=$(handle drop)
	set=$(handle set)
	send 9 nine
	flush_wire

	monitor
	nft_do insert rule netdev t c limit rate 1/second comment '"one"'
	nft_do insert rule netdev t c udp dport '{ 70, 71 }' drop comment '"two"'
	expect_event ".rule.handle == $h and (.rule.reason | test(\"rate limit\"))"
	expect_event ".rule.handle == $h and (.rule.reason | test(\"set lookup\"))"
	nft_do delete rule netdev t c handle "$h"
	expect_event ".event == \"rule-gone\" and .rule.handle == $h and
		.rule.table == \"t\" and .rule.device == \"sut0\" and
		.rule.packets == $N"
	event ".event == \"rule-gone\" and .rule.handle == $set" &&
		fail "a rule that is still there is said to be gone"
	offload 0
	expect_event ".event == \"rule-gone\" and .rule.handle == $set"
	monitor_stop
	done_with
}

# A flow table without any flow
t_flowtables()
{
	monitor
	offload 1
	load <<-END
		table inet f {
			flowtable ft {
				hook ingress priority 0
				devices = { sut0, sut1 }
			}
		}
	END
	expect_event '.event == "flowtable" and .flowtable.name == "ft" and
		.flowtable.state == "hardware"'
	nfoctl -j flowtables > "$TMP/fts"
	expect "what is listed" \
	       "$(jq -c '.[] | [.table, .name, .state, .devices, .flows_hw]' "$TMP/fts")" \
	       '["f","ft","hardware",["sut0","sut1"],0]'
	# hardware still, but not of both devices
	ethtool -K sut1 hw-tc-offload off
	expect_event '.event == "flowtable" and .flowtable.state == "hardware" and
		(.flowtable.reason // "" | test("sut1: hw-tc-offload"))'
	ethtool -K sut1 hw-tc-offload on
	load < /dev/null
	expect_event '.event == "flowtable-gone" and .flowtable.table == "f" and
		.flowtable.name == "ft"'
	monitor_stop
	expect "flow tables" "$(nfoctl -j flowtables)" "[]"
	done_with
}

# Root of another user namespace, but in this network namespace; and another
# network namespace.
t_strangers()
{
	local cmd

	load_rules
	offload 1
	nfoctl policy set t early never
	for cmd in rules flowtables 'policy get' 'policy set t c never' monitor; do
		# shellcheck disable=SC2086
		if unshare -U -r nfoctl $cmd > "$TMP/out" 2> "$TMP/err"; then
			fail "a stranger may: nfoctl $cmd: $(< "$TMP/out")"
		fi
		grep -q 'not permitted' "$TMP/err" || fail "nfoctl $cmd: $(< "$TMP/err")"
	done
	far "nfoctl -j monitor > $TMP/far.events 2> $TMP/far.ready & far_monitor=\$!"
	wait_until grep -q listening "$TMP/far.ready" || fail "no monitor at the far end"
	expect "rules of another namespace" "$(far 'nfoctl -j rules')" "[]"
	expect "policies of another namespace" "$(far 'nfoctl -j policy get')" "[]"
	far 'nfoctl policy set t c never; nfoctl policy set t early never'
	expect_entries 0
	nfoctl policy set t early auto
	expect_entries 2
	# Its own event must have come; none of ours.
	wait_until grep -q '"policy"' "$TMP/far.events" || fail "no event at the far end"
	grep -q '"rule"' "$TMP/far.events" &&
		fail "another namespace has heard: $(< "$TMP/far.events")"
	# shellcheck disable=SC2016
	far 'kill $far_monitor; wait $far_monitor'
	done_with
}

t_garbage()
{
	local before

	load_rules
	offload 1
	before=$(_as_proc)
	nfoctl fuzz --seed 7 --count 1500 > "$TMP/answers" || fail "fuzz: $(< "$TMP/answers")"
	ktap_print_msg "answers: $(< "$TMP/answers")"
	# Some must have been understood, or the rest proves nothing.
	jq -e '.ok > 0 and .EINVAL > 0' "$TMP/answers" > /dev/null ||
		fail "the kernel understood nothing of it"
	expect "listing" "$(_as_proc)" "$before"
	expect "policies of real tables" \
	       "$(nfoctl -j policy get | jq '[.[] | select(.table != "fuzz")] | length')" 0
	expect_entries 2
	unshare -U -r nfoctl fuzz --seed 8 --count 300 > "$TMP/answers" ||
		fail "fuzz: $(< "$TMP/answers")"
	expect "answers to a stranger's garbage" "$(jq '.ok // 0' "$TMP/answers")" 0
	done_with
}

# The family goes with the module, and nobody waits for it for ever.
t_unload()
{
	load_rules
	offload 1
	rmmod nft_offload || fail "cannot unload the module"
	nfoctl rules 2> "$TMP/err" && fail "the family is still there"
	grep -q 'is the module loaded' "$TMP/err" || fail "$(< "$TMP/err")"
	modprobe nft_offload
	expect "rules" "$(nfoctl -j rules)" "[]"
	done_with
}

TESTS="listing last_used selection long_listing events farewell flowtables strangers garbage unload"

ktap_print_header
setup_pair
need_offload
need_tools cmp diff jq nfoctl unshare
# shellcheck disable=SC2086
ktap_set_plan $(($(wc -w <<< $TESTS) + 1))
# shellcheck disable=SC2086
run_subtests $TESTS
subtest ledger expect_ledger_empty
ktap_finished
