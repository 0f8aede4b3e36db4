#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# "flags offload" in a ruleset: without the module it is a demand that fails the
# whole ruleset, with the module it is a wish that falls back to software. What
# was loaded in the one way has to go in the same way, whatever happens to the
# module in between.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"
# shellcheck source=flow_lib.sh
. "$(dirname "$0")/flow_lib.sh"

N=5

# A ruleset that mainline refuses for four reasons at least.
explicit_rules()
{
	cat <<-END
		table netdev e {
			chain c {
				type filter hook ingress device sut0 priority 0; flags offload;
				udp dport 9 counter drop comment "first"
				udp dport { 10, 11 } counter drop comment "set"
				udp dport 12 counter drop comment "behind"
			}
			chain d {
				type filter hook ingress device sut0 priority -10; flags offload;
				udp dport 13 counter drop comment "other"
			}
			chain l {
				type filter hook ingress device lo priority 5; flags offload;
				udp dport 9 counter drop comment "lo"
			}
		}
	END
}

# One that mainline takes.
plain_rules()
{
	cat <<-END
		table netdev e {
			chain c {
				type filter hook ingress device sut0 priority 1; flags offload;
				udp dport 9 drop comment "plain"
			}
		}
	END
}

flags()
{
	nft list ruleset | grep -c 'flags offload'
}

# must_fail NFT-ARG...
must_fail()
{
	! nft "$@" 2> "$TMP/nft.err" || fail "it took: nft $*"
}

done_with()
{
	offload 0
	load < /dev/null
	expect_ledger_empty
}

t_refused_without()
{
	offload 0
	explicit_rules > "$TMP/explicit"
	must_fail -f "$TMP/explicit"
	expect "chains" "$(nft list chains | grep -c chain)" 0
	must_fail 'table netdev e { chain c {
		type filter hook ingress device lo priority 1; flags offload; }; }'
	done_with
}

t_falls_back()
{
	local re

	offload 1
	explicit_rules | load
	expect "chains that show the flag" "$(flags)" 3
	expect_entries 2
	expect_state other hardware
	expect_state first hardware
	expect_state set software
	expect_state behind software
	re='^rule %set%: set lookup cannot be offloaded; '
	re+='rule %behind% stays in software behind it$'
	expect_why set "$re"
	expect_state lo software lo
	expect_why lo 'the device has no offload' lo
	send 9 nine
	send 10 ten
	send 12 twelve
	flush_wire
	expect_seen nine 0
	expect_seen ten "$N"
	expect "counter of the first" "$(nft_counter first)" "$N"
	expect "counter of the set" "$(nft_counter set)" "$N"
	expect "counter behind it" "$(nft_counter behind)" "$N"
	# inserts, replaces and reloads, which mainline does not know
	nft_do insert rule netdev e c udp dport 14 drop
	expect_entries 3
	nft_do replace rule netdev e c handle "$(handle set)" \
		udp dport 10 counter drop comment '"set"'
	expect_entries 5
	ruleset > "$TMP/again"
	explicit_rules | load
	expect_entries 2
	nft_do chain netdev e c '{ policy drop; }'
	expect_entries 1
	nft_do delete chain netdev e d
	expect_entries 0
	done_with
}

# Chains that the module had, and then has no longer.
t_off_and_unload()
{
	local how

	for how in off unload; do
		offload 1
		explicit_rules | load
		expect_entries 2
		if [ "$how" = off ]; then
			offload 0
		else
			rmmod nft_offload || fail "cannot unload the module"
		fi
		expect_ledger_empty
		expect "chains that show the flag" "$(flags)" 3
		send 9 "$how"
		flush_wire
		expect_seen "$how" "$N"
		expect "counter of the first" "$(nft_counter first)" "$N"
		# It stays a chain of software: nothing is refused, nothing bound.
		nft_do add rule netdev e c udp dport '{ 20, 21 }' drop
		nft_do insert rule netdev e c udp dport 22 drop
		nft_do delete rule netdev e c handle "$(handle first)"
		nft_do flush chain netdev e c
		expect_ledger_empty
		nft_do delete chain netdev e d
		nft_do delete table netdev e
		expect_ledger_empty
		[ "$how" = off ] || modprobe nft_offload || fail "cannot load the module again"
		# New ones are mainline's again.
		plain_rules | load
		expect "entries of a chain of nf_tables' own" "$(hw_stat entries)" 1
		done_with
	done
}

# The other way round: mainline has put it there, and takes it away.
t_loaded_before()
{
	plain_rules | load
	expect "entries" "$(hw_stat entries)" 1
	offload 1
	expect_entries 1
	nft_do add rule netdev e c udp dport 10 drop
	expect_entries 2
	must_fail add rule netdev e c 'udp dport { 11, 12 } drop'
	must_fail insert rule netdev e c udp dport 11 drop
	expect_entries 2
	offload 2
	expect_entries 2
	rmmod nft_offload || fail "cannot unload the module"
	expect "entries" "$(hw_stat entries)" 2
	nft_do delete table netdev e
	expect_ledger_empty
	modprobe nft_offload || fail "cannot load the module again"
	done_with
}

# Both in one netns, one after the other on the same device.
t_reload_across()
{
	plain_rules | load
	offload 1
	explicit_rules | load
	expect_entries 2
	expect_state first hardware
	offload 0
	plain_rules | load
	expect "entries" "$(hw_stat entries)" 1
	offload 1
	plain_rules | load
	expect_entries 1
	expect_state plain hardware
	done_with
}

t_device_goes()
{
	offload 1
	load <<-END
		table netdev e {
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				flags offload;
				udp dport 9 drop comment "both"
			}
		}
	END
	expect_entries 1 1
	ip link set sut1 netns "$FAR" || fail "cannot move sut1"
	expect "entries on sut1" "$(hw_stat entries 1)" 0
	expect "blocks bound to sut1" "$(hw_stat bound 1)" 0
	expect_entries 1
	move_back
	done_with
}

# lo has nothing that could offload a flow table.
t_flowtable()
{
	local ft='table inet f { flowtable ft {
		hook ingress priority 0; devices = { lo }; flags offload; }; }'

	offload 0
	must_fail "$ft"
	offload 1
	nft_do "$ft"
	expect "flow tables that show the flag" "$(flags)" 1
	# the same again, as a reload does, and one device more
	nft_do "$ft"
	nft_do 'table inet f { flowtable ft {
		hook ingress priority 0; devices = { lo, sut1 }; flags offload; }; }'
	must_fail 'table inet f { flowtable ft { hook ingress priority 0; devices = { lo }; }; }'
	expect "flow tables that show the flag" "$(flags)" 1
	offload 0
	expect "flow tables that show the flag" "$(flags)" 1
	nft_do "$ft"
	rmmod nft_offload || fail "cannot unload the module"
	nft_do 'table inet g { flowtable g { hook ingress priority 5; devices = { lo }; }; }'
	nft_do 'delete table inet f; delete table inet g'
	modprobe nft_offload || fail "cannot load the module again"
	must_fail "$ft"
	done_with
}

# A chain that the module has is like any other: flows go to hardware behind it.
t_flowtable_behind()
{
	offload 1
	flowtable_rules > "$TMP/flows"
	load <<-END
		$(< "$TMP/flows")
		table netdev e {
			chain c {
				type filter hook ingress device sut0 priority -10; flags offload;
				udp dport 16 counter drop comment "front"
			}
		}
	END
	expect_state front hardware
	expect_ft hardware "^-$"
	open_flow 5 9
	expect_flows 1
	say 5 "$N" "$t.flow"
	send_udp "$N" 16 "$t.front" "$FAR2_IP"
	settle 5
	expect "packets of the flow that the host saw" "$(tap_count sut0 "$t.flow")" 0
	expect "packets of the flow that arrived" "$(tap_count far1 "$t.flow")" "$N"
	expect "dropped packets that the host saw" "$(tap_count sut0 "$t.front")" 0
	expect "dropped packets that arrived" "$(tap_count far1 "$t.front")" 0
	expect "counter of the chain" "$(nft_counter front)" "$N"
	close_flow 5
	done_with
}

TESTS="refused_without falls_back off_and_unload loaded_before reload_across
	device_goes flowtable flowtable_behind"

ktap_print_header
setup_router
need_tools diff
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
