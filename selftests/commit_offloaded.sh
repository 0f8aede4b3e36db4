#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Rules of a chain with 'flags offload' come and go, in transactions that are
# committed and in some that are not. Hardware must have what the ruleset says,
# and what described the rules to it must be freed once: its references to the
# targets of fwd show that, as a device that is held by too many or by too few
# cannot go, and so does the allocator, which hands out twice what was freed
# twice.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

ROUNDS=10
RULES=24

# _rules COUNT VERDICT: commands that add so many
_rules()
{
	local i

	for ((i = 0; i < $1; i++)); do
		echo "add rule netdev t c udp dport $((1000 + i)) $2"
	done
}

# batch: from stdin, which has to succeed
batch()
{
	nft -f - 2> "$TMP/nft.err" || fail "nft -f: $(< "$TMP/nft.err")"
}

# refused WHAT: from stdin, which must fail
refused()
{
	! nft -f - 2> /dev/null || fail "$1 was accepted"
}

# rounds VERDICT: load RULES rules, and take them out again
rounds()
{
	local round

	for ((round = 0; round < ROUNDS; round++)); do
		{ echo "flush chain netdev t c"; _rules "$RULES" "$1"; } | batch
		expect "entries in round $round" "$(ledger entries)" "$RULES"
	done
	echo "flush chain netdev t c" | batch
	expect "entries left" "$(ledger entries)" 0
}

t_chain()
{
	batch <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 1; flags offload;
			}
		}
	END
	expect "bindings" "$(ledger bound)" 1
}

# A replace is an insert and a delete; offloaded chains have neither insert nor
# replace, so the first rule of the transaction is taken back.
t_replace_refused()
{
	local round line handle=

	_rules 2 "fwd to sut1" | batch
	while read -r line; do
		[[ ! "$line" =~ "dport 1000 ".*"# handle "([0-9]+) ]] ||
			handle=${BASH_REMATCH[1]}
	done < <(nft -a list table netdev t)
	for ((round = 0; round < ROUNDS; round++)); do
		refused "a replace" <<-END
			add rule netdev t c udp dport 2000 fwd to sut1
			replace rule netdev t c handle $handle udp dport 2001 fwd to sut1
		END
		expect "entries in round $round" "$(ledger entries)" 2
	done
}

# Given up before the hardware was asked
t_never_committed()
{
	local round

	for ((round = 0; round < ROUNDS; round++)); do
		refused "a chain that does not exist" <<-END
			flush chain netdev t c
			add rule netdev t c udp dport 2000 fwd to sut1
			delete chain netdev t nosuch
		END
		expect "entries in round $round" "$(ledger entries)" 2
	done
}

t_counts()
{
	echo "flush chain netdev t c
	      add rule netdev t c udp dport 1000 fwd to sut1" | batch
	send_udp 20 1000 fwd
	# What goes to port 7 is the only thing that sut0 sees.
	flush_wire
	flush_far1
	expect "forwarded packets" "$(tap_count far1 fwd)" 20
	expect "packets at sut0" "$(tap_count sut0 fwd)" 0
}

_del_port()
{
	echo 1 > "$NSIM_BUS/devices/netdevsim$SUT_ID/del_port"
}

_gone()
{
	! kill -0 "$1" 2> /dev/null
}

t_target_goes()
{
	echo "flush chain netdev t c" | batch
	_del_port &
	wait_until _gone $! || fail "sut1 cannot go: its references are wrong"
	expect "entries" "$(ledger entries)" 0
	nft flush ruleset || fail "cannot flush the ruleset"
	expect "bindings" "$(ledger bound)" 0
	expect "late calls" "$(ledger stale)" 0
	expect "entries left behind" "$(ledger purged)" 0
}

ktap_print_header
setup_pair
ktap_set_plan 7
subtest "a chain is offloaded" t_chain
subtest "rules that drop come and go" rounds drop
subtest "rules that forward come and go" rounds "fwd to sut1"
subtest "a replace is refused" t_replace_refused
subtest "a transaction fails before its commit" t_never_committed
subtest "the hardware does what it was told" t_counts
subtest "the target of the rules can go" t_target_goes
ktap_finished
