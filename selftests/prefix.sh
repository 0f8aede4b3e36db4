#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Hardware may hold no more than a prefix of what software evaluates on a
# device: behind a rule that cannot be offloaded a packet may be meant for that
# rule, and a drop in hardware would swallow it. Each subtest proves it with
# packets that the rule in software takes, and checks what /proc/net/nft_offload
# says about it.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5

stop()
{
	load < /dev/null
	expect_entries 0
}

# A set lookup is in the way of a drop that covers it.
t_rule_in_chain()
{
	local re

	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 7 accept comment "flush"
				udp dport 9 counter drop comment "first"
				udp dport { 10, 11 } counter accept comment "set"
				ip saddr $FAR_IP counter drop comment "all"
				udp dport 12 counter accept comment "last"
			}
		}
	END
	expect_entries 2
	expect_state first hardware
	expect_state set software
	expect_state all software
	expect_why first '^-$'
	re='^rule %set%: set lookup cannot be offloaded; '
	re+='rules %all%-%last% stay in software behind it$'
	expect_why set "$re"
	expect_why all '^behind rule %set% of chain c: set lookup cannot be offloaded$'
	send 9 nine
	send 10 ten
	send 13 thirteen
	flush_wire
	expect_seen nine 0
	expect_seen ten "$N"
	expect "counter of the set's rule" "$(nft_counter set)" "$N"
	expect "counter of the drop behind it" "$(nft_counter all)" "$N"
	expect "hardware counter of the first rule" "$(listed_packets first)" "$N"
	stop
}

# Growing and shrinking with the ruleset.
t_prefix_moves()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter drop comment "first"
				udp dport 10 limit rate 1000/second counter accept comment "limit"
				udp dport 10 counter drop comment "second"
				udp dport 11 counter drop comment "third"
			}
		}
	END
	expect_entries 1
	nft_do delete rule netdev t c handle "$(handle limit)"
	expect_entries 3
	expect_state third hardware
	nft_do insert rule netdev t c handle "$(handle second)" \
		udp dport 10 limit rate 1000/second counter accept comment '"limit"'
	expect_entries 1
	expect_state second software
	send 10 ten
	flush_wire
	expect "counter of the limited accept" "$(nft_counter limit)" "$N"
	expect_seen ten "$N"
	nft_do replace rule netdev t c handle "$(handle limit)" \
		udp dport 10 counter accept comment '"limit"'
	expect_entries 4
	send 10 again
	flush_wire
	expect "counter of the accept" "$(nft_counter limit)" "$N"
	expect_seen again "$N"
	nft_do insert rule netdev t c limit rate 1000/second
	expect_entries 0
	stop
}

# load_r VERDICT: one rule, which is called r
load_r()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter $1 comment "r"
			}
		}
	END
}

# A rule passes its handle on to the one that replaces it.
t_replaced()
{
	local h verdict

	load_r drop
	h=$(handle r)
	for verdict in accept 'fwd:to:"sut1"' drop; do
		nft_do replace rule netdev t c handle "$h" \
			udp dport 9 counter "${verdict//:/ }" comment '"r"'
		expect "handle" "$(handle r)" "$h"
		expect_entries 1
		send 9 "${verdict%%:*}"
		flush_wire
		case $verdict in
		accept)	expect_seen "${verdict%%:*}" "$N" ;;
		*)	expect_seen "${verdict%%:*}" 0 ;;
		esac
		expect "counter of the $verdict" "$(nft_counter r)" "$N"
	done
	stop
}

# The rule is in a chain of lower priority, in another table, and younger.
t_chain_before()
{
	load <<-END
		table netdev late {
			chain c {
				type filter hook ingress device sut0 priority 10;
				udp dport 9 counter drop comment "late"
			}
		}
	END
	expect_entries 1
	nft_do -f - <<-END
		table netdev early {
			chain guard {
				type filter hook ingress device sut0 priority -10;
				udp dport 9 limit rate 1000/second counter \
					fwd to "sut1" comment "early"
			}
		}
	END
	expect_entries 0
	expect_state late software
	expect_why late 'behind rule %early% of chain guard: rate limit cannot be offloaded'
	send 9 nine
	wait_value "$N" tap_count far1 "$t.nine"
	flush_far1
	expect "packets forwarded" "$(tap_count far1 "$t.nine")" "$N"
	expect "counter of the drop behind" "$(nft_counter late)" 0
	nft_do delete table netdev early
	expect_entries 1
	send 9 late
	flush_wire
	expect "counter of the drop, now in hardware" "$(nft_counter late)" "$N"
	expect_seen late 0
	stop
}

# Another device is not concerned.
t_other_device()
{
	load <<-END
		table netdev t {
			chain both {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				udp dport 9 counter drop comment "both"
			}
			chain one {
				type filter hook ingress device sut0 priority -1;
				udp dport { 9, 10 } counter accept comment "one"
			}
		}
	END
	expect_entries 0
	expect_entries 1 1
	expect_state both hardware sut1
	expect_state both software sut0
	stop
}

# An accept ends its own chain only; priorities below and above 0 in order.
t_accept_ends_its_chain()
{
	load <<-END
		table netdev t {
			chain third {
				type filter hook ingress device sut0 priority 300;
				ip saddr $FAR_IP udp dport 11 counter drop comment "c"
			}
			chain first {
				type filter hook ingress device sut0 priority -300;
				udp dport 9 counter accept comment "a"
			}
			chain second {
				type filter hook ingress device sut0 priority 0;
				ip saddr $FAR_IP udp dport 9 counter drop comment "b"
			}
		}
	END
	expect_entries 3
	expect "order of the entries' ports" \
	       "$(hw_list 'dport=([0-9]+)')" \
	       "9 9 11 "
	expect "priorities" "$(hw_list 'prio=([0-9]+)')" \
	       "32468 32768 33068 "
	send 9 nine
	send 11 eleven
	flush_wire
	expect_seen nine "$N"
	expect "counter of the accept" "$(nft_counter a)" "$N"
	expect "counter of the drop behind it" "$(nft_counter b)" "$N"
	expect_seen eleven 0
	expect "counter of the third chain" "$(nft_counter c)" "$N"
	stop
}

# One rule per thing that hardware cannot express, each with its reason.
t_reasons()
{
	local rule re

	while IFS='|' read -r rule re; do
		load <<-END
			table netdev t {
				counter o { }
				chain sub { counter accept; }
				chain c {
					type filter hook ingress device sut0 priority 0;
					$rule comment "r"
					counter drop comment "behind"
				}
			}
		END
		expect_state r software
		expect_why r "^rule %r%: $re; rule %behind% stays in software behind it$"
		expect_state behind software
	done <<-'END'
		meta mark set 1|setting a mark or the like cannot be offloaded
		limit rate 1/second drop|rate limit cannot be offloaded
		udp dport 9 jump sub|a jump to another chain cannot be offloaded
		udp dport 9 counter name o drop|named object cannot be offloaded
		udp dport 9 counter|its match or action has no form that hardware knows
		udp dport != 9 drop|its match or action has no form that hardware knows
		ip ttl 5 drop|its match or action has no form that hardware knows
		tcp flags syn drop|its match or action has no form that hardware knows
		counter udp dport 9 drop|a counter in front of a match cannot be offloaded
		ip saddr 192.0.2.1 ip saddr 192.0.2.9 drop|it matches the same field twice
		ip6 nexthdr udp drop|the first next header of IPv6 cannot be offloaded .*
		dup to "sut1" drop|it does more than one thing
		ip protocol & 0xfe == 6 drop|it does not compare the whole of a protocol
		@ll,128,16 0x0800 drop|it does not compare the whole of a protocol
	END
	stop
}

# Two addresses in one rule can never match; hardware would see one of them.
t_contradiction()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				ip saddr 192.0.2.7 ip saddr $FAR_IP counter drop comment "never"
			}
		}
	END
	send 9 nine
	flush_wire
	expect_seen nine "$N"
	expect "counter of the rule" "$(nft_counter never)" 0
	stop
}

# Rules that nft never writes: two comparisons of one thing
t_odd_shape()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter accept comment "a"
			}
		}
	END
	nfoctl add-odd-rule t c 192.0.2.7 "$FAR_IP" || fail "the kernel refuses it"
	expect_entries 1
	send 10 ten
	flush_wire
	expect_seen ten "$N"
	grep -q 'an order that hardware cannot follow$' "$PROC" ||
		fail "no such reason in: $(< "$PROC")"
	stop
}

# ... and those that compare less than they have loaded, or more
t_short_and_wide()
{
	local kind

	for kind in short wide; do
		load <<-END
			table netdev t {
				chain c {
					type filter hook ingress device sut0 priority 0;
				}
			}
		END
		nfoctl "add-$kind-rule" t c "$FAR_IP" || fail "the kernel refuses it"
		nft_do add rule netdev t c ip saddr "$FAR_IP" counter drop \
			comment '"behind"'
		send 10 "$kind"
		flush_wire
		expect_seen "$kind" "$N"
		expect "counter of the drop, $kind" "$(nft_counter behind)" 0
		stop
	done
}

# ... and those that compare again what they have compared, between two loads
t_stale_register()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 7 accept comment "flush"
			}
		}
	END
	nfoctl add-stale-rule t c 192.0.2.7 "$FAR_IP" || fail "the kernel refuses it"
	expect_entries 1
	send 10 ten
	flush_wire
	expect_seen ten "$N"
	stop
}

# What is not a rule but stands in the way as well.
t_chains_in_the_way()
{
	load_r drop
	expect_entries 1

	nft_do add table inet i
	nft_do add chain inet i early \
		'{ type filter hook ingress device sut0 priority -5; }'
	expect_state r software
	expect_why r 'behind inet chain early: an inet ingress chain comes first'
	expect_entries 0
	nft_do delete table inet i
	expect_entries 1

	nft_do add table inet i
	nft_do add flowtable inet i ft \
		'{ hook ingress priority -5; devices = { sut0 }; }'
	expect_why r 'a flowtable comes first'
	expect_entries 0
	nft_do delete table inet i
	expect_entries 1

	nft_do add chain netdev t p \
		'{ type filter hook ingress device sut0 priority -5; policy drop; }'
	expect_why r "behind chain p: the chain's policy is drop"
	expect_entries 0
	send 9 policy
	flush_wire
	expect_seen policy "$N"
	expect "packets that got by the policy" "$(nft_counter r)" 0
	nft_do chain netdev t p '{ policy accept; }'
	expect_entries 1
	nft_do delete chain netdev t p

	nft_do add table netdev t '{ flags dormant; }'
	expect_entries 0
	expect_why r '^the table is dormant$' -
	send 9 nine
	flush_wire
	expect_seen nine "$N"
	nft_do add table netdev t
	expect_entries 1
	stop
}

# XDP would run before, be it of the stack or of the driver.
t_xdp()
{
	local mode

	load_r drop
	for mode in xdpgeneric xdpdrv; do
		expect_entries 1
		xdp_on sut0 "$mode"
		wait_value 0 hw_stat entries
		expect_state r software
		expect_why r "^the device has an XDP program, which would run before$"
		send 9 "$mode"
		flush_wire
		expect_seen "$mode" "$N"
		if type -P nfoctl > /dev/null; then
			policy t c force
			expect_entries 1
			send 9 "forced.$mode"
			flush_wire
			expect_seen "forced.$mode" 0
			expect "packets in hardware" "$(hw_field packets dport=9/)" "$N"
			policy t c auto
			expect_entries 0
		fi
		ip link set dev sut0 "$mode" off
		wait_value 1 hw_stat entries
	done
	stop
}

# A tc filter comes and goes, and nobody tells of it.
t_unannounced()
{
	load_r 'fwd to "sut1"'
	expect_entries 1
	tc qdisc add dev sut1 clsact || fail "no clsact"
	tc filter add dev sut1 egress protocol ip flower skip_hw ip_proto udp \
		dst_port 9 action drop || fail "no filter"
	wait_value 0 hw_stat entries
	expect_why r "^rule %r%: sut1 has a tc egress hook"
	send 9 dropped
	flush_wire
	tc qdisc del dev sut1 clsact
	wait_value 1 hw_stat entries
	send 9 sent
	flush_wire
	wait_value "$N" tap_count far1 "$t.sent"
	expect "packets that got by tc" "$(tap_count far1 "$t.dropped")" 0
	stop
}

# Devices whose hardware is not ours.
t_device_taken()
{
	load_r drop
	expect_entries 1
	# While the module is active it takes charge of such chains.
	offload 0
	nft_do add table netdev e
	nft_do add chain netdev e x \
		'{ type filter hook ingress device sut0 priority 1; flags offload; }'
	nft_do add rule netdev e x udp dport 10 counter drop comment '"explicit"'
	offload 1
	expect_state r software
	expect_why r "^a chain with 'flags offload' has the device's hardware$"
	expect_entries 1
	expect "the entry is the chain's own" "$(hw_list 'dport=([0-9]+)')" "10 "
	nft_do delete table netdev e
	expect_state r hardware
	expect_entries 1

	load < /dev/null
	expect "blocks bound without a ruleset" "$(hw_stat bound)" 0
	if tc qdisc add dev sut0 clsact 2> "$TMP/tc.err"; then
		# Before 6.6 a qdisc without any filter is no hook.
		tc filter add dev sut0 ingress protocol ip flower skip_hw \
			ip_proto tcp action pass || fail "no filter"
		load_r drop
		expect_state r software
		expect_why r 'the device has a tc ingress hook'
		tc qdisc del dev sut0 clsact
		nft_do add rule netdev t c udp dport 10 drop
		expect_state r hardware
	else
		fail "tc qdisc add clsact: $(cat "$TMP/tc.err")"
	fi
	load < /dev/null
	ethtool -K sut0 hw-tc-offload off || fail "ethtool refuses to switch off"
	load_r drop
	expect_state r software
	expect_why r '^hw-tc-offload of the device is off$'
	ethtool -K sut0 hw-tc-offload on
	expect_state r hardware
	stop
}

# A full table ends the prefix like anything else.
t_hardware_full()
{
	echo 2 > "$HW0/capacity"
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter drop comment "a"
				udp dport 10 counter drop comment "b"
				udp dport 11 counter accept comment "c"
				ip saddr $FAR_IP counter drop comment "d"
			}
		}
	END
	expect_entries 2
	expect_state b hardware
	expect_state c failed
	expect_state d software
	expect_why c 'full.*error -28.*rule %d% stays in software behind it'
	send 11 eleven
	flush_wire
	expect_seen eleven "$N"
	expect "counter of the accept" "$(nft_counter c)" "$N"

	# One more in front: what was last must go.
	nft_do insert rule netdev t c udp dport 12 counter drop comment '"z"'
	expect_entries 2
	expect_state z hardware
	expect_state b failed
	echo 1024 > "$HW0/capacity"
	nft_do add rule netdev t c udp dport 13 counter accept comment '"y"'
	expect_entries 6
	stop
}

# A rule that forwards, and one behind it, both in hardware.
load_fwd()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter fwd to "sut1" comment "f"
				udp dport 10 counter drop comment "d"
			}
		}
	END
	expect_entries 2
}

# A rule that forwards to a device which goes away.
t_target_gone()
{
	load_fwd
	ip link set sut1 netns "$FAR" || fail "cannot move sut1 away"
	expect_entries 0
	expect_state f software
	expect_state d software
	# as in software: a forward to nowhere is a drop
	send 9 nine
	flush_wire
	expect "counter of the rule" "$(nft_counter f)" "$N"
	expect_why f 'the device it forwards to does not exist'
	move_back
	stop
}

# expect_forced ENTRIES TAG: unless the administrator does not mind
expect_forced()
{
	type -P nfoctl > /dev/null || return 0
	policy t c force
	expect_entries "$1"
	send 9 "$2"
	flush_wire
	wait_value "$N" tap_count far1 "$t.$2"
	expect_seen "$2" 0
	policy t c auto
	expect_entries 0
}

# In software what is forwarded passes by the egress hooks of its target.
t_target_watched()
{
	local re

	load_fwd
	if nft add chain netdev t out \
	   '{ type filter hook egress device sut1 priority 0; }' 2> "$TMP/egress"; then
		nft_do add rule netdev t out udp dport 9 counter drop comment '"out"'
		expect_entries 0
		re='^rule %f%: sut1 has an egress chain, which hardware would bypass; '
		re+='rule %d% stays'
		expect_why f "$re"
		send 9 nine
		flush_wire
		flush_far1
		expect "packets that got by the egress chain" \
		       "$(tap_count far1 "$t.nine")" 0
		expect_forced 2 by-chain
		expect "counter of the egress rule" "$(nft_counter out)" "$N"
		nft_do delete chain netdev t out
		expect_entries 2
	elif kernel_before 5 16; then
		ktap_print_msg "no egress chains before 5.16: $(head -n 1 "$TMP/egress")"
	else
		fail "no egress chain: $(< "$TMP/egress")"
	fi

	tc qdisc add dev sut1 clsact || fail "no clsact"
	tc filter add dev sut1 egress protocol ip flower ip_proto udp dst_port 9 \
		action drop || fail "no filter"
	nft_do add rule netdev t c udp dport 11 counter drop
	expect_entries 0
	expect_why f '^rule %f%: sut1 has a tc egress hook, which hardware would bypass'
	send 9 tc
	flush_wire
	flush_far1
	expect "packets that got by tc" "$(tap_count far1 "$t.tc")" 0
	expect_forced 3 by-tc
	tc qdisc del dev sut1 clsact
	nft_do add rule netdev t c udp dport 12 counter drop
	expect_entries 4
	stop
}

# frame_pppoe PORT TAG: $N UDP datagrams in a PPPoE session
frame_pppoe()
{
	local packet

	packet=$(hex_ip4 17 0 "$(hex_udp "$1" "$(hex_tag "$t.$2")")")
	send_raw "$N" 8864 "$(printf '11000001%04x0021' $((${#packet} / 2 + 2)))$packet"
}

# Since 7.2 nf_tables finds ports and protocols below PPPoE; hardware does not.
t_below_pppoe()
{
	local found=$N

	! kernel_before 7 2 || found=0
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 7 accept comment "flush"
				udp dport 9 counter accept comment "nine"
				counter drop comment "rest"
			}
		}
	END
	expect_state nine hardware
	if [ "$found" -gt 0 ]; then
		expect_state rest software
		expect_why rest '^rule %rest%: it may match PPPoE or stacked tags'
	else
		expect_state rest hardware
	fi
	frame_pppoe 9 session
	flush_wire
	expect "packets that software finds in the session" "$(nft_counter nine)" "$found"
	expect "packets dropped behind" "$(nft_counter rest)" $((N - found))

	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				meta protocol 0x8864 counter drop comment "meta"
			}
		}
	END
	expect_state meta software
	expect_why meta "^rule %meta%: 'meta protocol' never is PPPoE or a VLAN tag"
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				ether type 0x8864 counter drop comment "ether"
			}
		}
	END
	expect_state ether hardware
	frame_pppoe 9 ether
	flush_wire
	expect_seen ether 0
	expect "counter of the drop" "$(nft_counter ether)" "$N"
	stop
}

# More rules than there are numbers between two others: they get new ones, while
# a rule behind them counts.
t_renumber()
{
	local i insert before after last ports prio prios sent verdict

	for ((i = 0; i < 8; i++)); do
		before+=";udp dport $((1000 + i)) drop"
		after+=";udp dport $((2000 + i)) drop"
	done
	ports="8 1000 1001 1002 1003 1004 1005 1006 1007 10 "
	ports+="2000 2001 2002 2003 2004 2005 2006 2007 10 9 "
	load_keep <<< "table netdev t { chain c {
		type filter hook ingress device sut0 priority -1; }; }"
	expect_entries 1
	flood 9
	# Behind a new rule with another verdict nothing stays in hardware meanwhile:
	# there are two ways to new numbers.
	for verdict in drop accept drop; do
		nft_do "flush chain netdev t c
			add rule netdev t c udp dport 8 drop
			add rule netdev t c ip saddr $FAR_IP udp dport 10 counter drop \
				comment \"back\""
		read -r -a prios <<< "$(hw_list 'prio=([0-9]+)')"
		expect "entries" ${#prios[@]} 3
		expect "numbers between the first two" $((prios[1] - prios[0] - 1)) 15
		flood_more 20
		insert="insert rule netdev t c handle $(handle back) "
		i="$before;udp dport 10 counter $verdict comment \"middle\"$after"
		nft_do "${i//;/$'\n'$insert}"
		flood_more 20
		expect "order of the entries' ports" "$(hw_list 'dport=([0-9]+)')" "$ports"
		last=0
		for prio in $(hw_list 'prio=([0-9]+)'); do
			[ "$prio" -gt "$last" ] || fail "priority $prio behind $last"
			last=$prio
		done
		send 10 "$verdict"
		flush_wire
		[ "$verdict" = accept ] || expect_seen "$verdict" 0
		expect "counter of the $verdict" "$(nft_counter middle)" "$N"
		expect "counter of the drop behind it" "$(nft_counter back)" 0
	done
	sent=$(flood_stop)
	flush_wire
	[ "$(listed_packets keep)" -gt 0 ] || fail "hardware has counted none"
	expect "counter of the last rule" "$(nft_counter keep)" "$sent"
	expect "packets that escaped" "$(nft_counter escaped)" 0
	stop
}

# swap OLD NEW RULE: in one transaction OLD and what is in front of it go; RULE
# with comment NEW takes its place, and three hundred others come in front of it
swap()
{
	local i line lines

	command nft -a list ruleset > "$TMP/list"
	mapfile -t lines < "$TMP/list"
	{
		for line in "${lines[@]}"; do
			[[ ! "$line" =~ (comment \"($1|fill)\" # handle ([0-9]+)) ]] ||
				echo "delete rule netdev t c handle ${BASH_REMATCH[3]}"
		done
		echo "insert rule netdev t c $3 comment \"$2\""
		for ((i = 0; i < 300; i++)); do
			echo "insert rule netdev t c udp dport $((1000 + i)) drop comment \"fill\""
		done
	} > "$TMP/swap"
	nft_do -f "$TMP/swap"
}

# Packets that every ruleset either accepts or forwards must never meet the
# drop behind, while the one takes the place of the other and hardware is busy
# with the rules in front of them.
t_never_swallowed()
{
	local i sent drops redirects

	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter accept comment "accept"
				ip saddr $FAR_IP counter drop comment "all"
			}
		}
	END
	expect_entries 2
	drops=$(hw_stat drop)
	redirects=$(hw_stat redirect)
	flood 9
	for ((i = 0; i < 5; i++)); do
		swap accept fwd 'udp dport 9 fwd to "sut1"'
		expect_entries 302
		flood_more 20
		swap fwd accept 'udp dport 9 counter accept'
		expect_entries 302
		flood_more 20
	done
	sent=$(flood_stop)
	[ "$(hw_stat redirect)" -gt "$redirects" ] || fail "hardware has forwarded none"
	expect "packets dropped in hardware, of $sent" "$(hw_stat drop)" "$drops"
	expect "packets the last drop has taken" "$(nft_counter all)" 0
	load < /dev/null
}

TESTS="rule_in_chain prefix_moves replaced chain_before other_device
	accept_ends_its_chain renumber reasons contradiction odd_shape short_and_wide
	stale_register chains_in_the_way device_taken xdp unannounced hardware_full
	target_gone target_watched below_pppoe never_swallowed"

ktap_print_header
setup_pair
need_offload
need_tools tc
# shellcheck disable=SC2086
ktap_set_plan $(($(wc -w <<< $TESTS) + 1))
offload 1
# shellcheck disable=SC2086
run_subtests $TESTS
offload 0
subtest ledger expect_ledger_empty
ktap_finished
