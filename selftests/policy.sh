#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Policies: what the administrator wants to stay in software stays there, with
# all that is behind it; what he forces is offloaded in spite of a tc hook. It is
# in force at once, and still there when the ruleset is loaded anew.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5

rules()
{
	cat <<-END
		table netdev t {
			chain early {
				type filter hook ingress device sut0 priority -7;
				udp dport 8 counter drop comment "early"
			}
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter drop comment "a"
				udp dport 10 counter drop comment "b"
				udp dport 11 counter drop comment "c"
			}
		}
	END
}

# policies: "TABLE CHAIN HANDLE POLICY;..." in order
policies()
{
	nfoctl -j policy get |
		jq -r 'sort_by(.table, .chain, .handle) | .[] |
			"\(.table) \(.chain) \(.handle // "-") \(.policy);"' | tr -d '\n'
}

done_with()
{
	offload 0
	load < /dev/null
	echo '[]' | nfoctl policy restore
}

t_never_rule()
{
	rules | load
	offload 1
	expect_entries 4
	policy t c "$(handle b)" never
	expect_entries 2
	expect_state a hardware
	expect_state b software
	expect_state c software
	expect_why b '^rule %b%: its policy is never; rule %c% stays in software behind it$'
	expect_why c '^behind rule %b% of chain c: its policy is never$'
	send 10 ten
	send 11 eleven
	flush_wire
	expect_seen ten "$N"
	expect_seen eleven "$N"
	expect "counter of the rule" "$(nft_counter b)" "$N"
	expect "counter of the one behind" "$(nft_counter c)" "$N"
	policy t c "$(handle b)" auto
	expect_entries 4
	expect "policies" "$(policies)" ""
	send 10 again
	flush_wire
	expect_seen again 0
	done_with
}

t_never_chain()
{
	local re

	rules | load
	offload 1
	policy t early never
	expect_entries 0
	re='^rule %early%: the policy of its chain is never; '
	re+='rules %a%-%c% stay in software behind it$'
	expect_why early "$re"
	# a rule's own comes first
	policy t early "$(handle early)" force
	expect_entries 4
	policy t early "$(handle early)" auto
	expect_entries 0
	policy t early auto
	expect_entries 4
	done_with
}

# In force when the chain comes, goes and comes again.
t_survives()
{
	local b

	rules | load
	b=$(handle b)
	load < /dev/null
	policy t c "$b" never
	policy gone nowhere never
	offload 1
	rules | load
	expect_state a hardware
	expect_state b software
	rules | load
	expect_state b software
	expect_entries 2
	nft_do delete table netdev t
	expect "policies" "$(policies)" "gone nowhere - never;t c $b never;"
	rules | load
	expect_state b software
	offload 0
	offload 1
	expect_state b software
	nfoctl -j rules | jq -e ".[] | select(.handle == $b and .chain == \"c\") |
		.policy == \"never\"" > /dev/null || fail "it is not listed with the rule"
	done_with
}

# With the device's hardware free, and a tc hook that will not let go.
t_force()
{
	rules | load
	offload 1
	expect_entries 4
	# The qdisc must not get the device's one block: refuse it, once.
	offload 0
	echo "1 95" > "$HW0/fail_bind"
	tc qdisc add dev sut0 clsact 2> "$TMP/tc.err" ||
		fail "tc qdisc add clsact: $(< "$TMP/tc.err")"
	expect "blocks refused" "$(injected fail_bind)" 1
	# Before 6.6 a qdisc without any filter is no hook.
	tc filter add dev sut0 ingress protocol ip flower skip_hw ip_proto tcp action pass ||
		fail "no filter"
	offload 1
	expect_entries 0
	expect_why early 'the device has a tc ingress hook'
	policy t early force
	expect_state early hardware
	expect_why a 'the device has a tc ingress hook'
	expect_entries 1
	send 8 eight
	flush_wire
	expect_seen eight 0
	policy t c force
	expect_state c hardware
	policy t early auto
	expect_entries 0
	tc qdisc del dev sut0 clsact
	policy t c auto
	nft_do add rule netdev t c udp dport 13 drop
	expect_state early hardware
	done_with
}

# Not even then does hardware get in front of what stays in software.
t_force_is_no_lie()
{
	rules | load
	nft_do insert rule netdev t c udp dport '{ 9, 20 }' counter accept comment '"set"'
	offload 1
	policy t c force
	policy t c "$(handle set)" force
	expect_entries 1
	expect_state set software
	expect_state a software
	send 9 nine
	flush_wire
	expect_seen nine "$N"
	expect "counter of the accept" "$(nft_counter set)" "$N"
	done_with
}

t_strict()
{
	rules | load
	offload 2
	nfoctl policy set t c never 2> "$TMP/policy.err" &&
		fail "strict mode took a policy that keeps rules in software"
	grep -q 'strict mode: not all rules would be in hardware' "$TMP/policy.err" ||
		fail "$(< "$TMP/policy.err")"
	expect_entries 4
	expect "policies" "$(policies)" ""
	policy other chain never
	offload 1
	policy t c never
	if { echo 2 > "$SYSCTL_FILE"; } 2> /dev/null; then
		fail "strict mode took a policy that keeps rules in software"
	fi
	done_with
}

# As many as there may be, and not one more; and all of them at once again.
t_limit()
{
	local i

	{
		echo '[{"table":"t","chain":"c0","policy":"force"}'
		for ((i = 1; i < 1024; i++)); do
			printf ',{"table":"t","chain":"c%d","handle":%d,"policy":"never"}\n' \
			       "$i" "$i"
		done
		echo ']'
	} > "$TMP/many"
	nfoctl policy restore < "$TMP/many" || fail "cannot restore 1024 policies"
	nfoctl -j policy get > "$TMP/got"
	jq -S 'sort_by(.chain)' "$TMP/many" > "$TMP/many.sorted"
	jq -S 'sort_by(.chain)' "$TMP/got" > "$TMP/got.sorted"
	cmp "$TMP/many.sorted" "$TMP/got.sorted" || fail "not what was restored"
	nfoctl policy set t one-more never 2> "$TMP/policy.err" && fail "one more"
	grep -q 'there are too many policies' "$TMP/policy.err" ||
		fail "$(< "$TMP/policy.err")"
	policy t c0 never
	policy t c5 5 auto
	policy t one-more never
	done_with
	expect "policies" "$(policies)" ""
}

t_bad_input()
{
	local args

	while read -r args; do
		# shellcheck disable=SC2086
		nfoctl policy set $args 2> /dev/null && fail "it took: $args"
	done <<-'END'
		t c sometimes
		t c 0 never
		t c -1 never
		t c 18446744073709551616 never
		t
	END
	nfoctl policy set "" c never 2> /dev/null && fail "it took a table without a name"
	nfoctl policy set t "" never 2> /dev/null && fail "it took a chain without a name"
	printf -v args '%300s' x
	nfoctl policy set "${args// /x}" c never 2> /dev/null && fail "it took a long name"
	expect "policies" "$(policies)" ""
	done_with
}

TESTS="never_rule never_chain survives force force_is_no_lie strict limit bad_input"

ktap_print_header
setup_pair
need_offload
need_tools cmp jq nfoctl tc
# shellcheck disable=SC2086
ktap_set_plan $(($(wc -w <<< $TESTS) + 1))
# shellcheck disable=SC2086
run_subtests $TESTS
subtest ledger expect_ledger_empty
ktap_finished
