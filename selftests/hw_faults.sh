#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2015,SC2086,SC2317
#
# The knobs of the simulated NIC: each makes exactly the command fail that it is
# told to, with that errno, and the ledger stays true. Bad writes are refused, to
# the files that wire ports as well.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

N=3
KNOBS="fail_bind fail_unbind fail_replace fail_destroy fail_stats"

knob()
{
	echo "$2" > "$HW0/$1" || fail "cannot write '$2' to $1"
}

expect_knob()
{
	expect "$1" "$(< "$HW0/$1")" "$2"
}

# load: rules of a chain at sut0 from stdin, with an explicit "flags offload"
load()
{
	{
		echo "flush ruleset"
		echo "table netdev t { chain c {"
		echo "type filter hook ingress device sut0 priority 1; flags offload;"
		cat
		echo "}; }"
	} | nft -f - 2> "$TMP/nft.err"
}

# flower PREF PORT [ACTION]
flower()
{
	tc filter add dev sut0 ingress protocol ip pref $1 flower skip_sw \
		ip_proto udp dst_port $2 action ${3:-drop} 2> "$TMP/tc.err"
}

# expect_table ENTRIES BOUND
expect_table()
{
	expect "entries" "$(hw_stat entries)" $1
	expect "bindings" "$(hw_stat bound)" $2
}

# tc_packets PREF: what tc knows of hardware's counters
tc_packets()
{
	local line

	line=$(tc -s filter show dev sut0 ingress pref $1)
	[[ $line =~ Sent\ hardware\ [0-9]+\ bytes\ ([0-9]+)\ pkt ]]
	echo "${BASH_REMATCH[1]:-none}"
}

t_bad_writes()
{
	local knob value long

	printf -v long '%0100d' 1
	for knob in $KNOBS; do
		for value in "" " " x 1 "0 5" "-1 5" "1 0" "1 -5" "1 4096" \
			     "1 x" "x 1" "1 5 x" "1 2 3 4" "99999999999 1" \
			     "1 5 99999999999" "0x1 5" $long "$long 5"; do
			if echo "$value" 2> /dev/null > "$HW0/$knob"; then
				fail "$knob took '$value'"
			fi
		done
		printf '\0\0\0' 2> /dev/null > "$HW0/$knob" &&
			fail "$knob took zeroes"
		expect_knob $knob "0 injected 0"
	done
	for value in x -1 10000001 99999999999999999999 "1 2"; do
		if echo "$value" 2> /dev/null > "$HW0/delay_us"; then
			fail "delay_us took '$value'"
		fi
	done
	expect_knob delay_us 0
	for value in x -1 4294967296 "1 2"; do
		if echo "$value" 2> /dev/null > "$HW0/capacity"; then
			fail "capacity took '$value'"
		fi
	done
	expect_knob capacity 1024
}

t_state()
{
	knob fail_bind "7 12"
	expect_knob fail_bind "7 12 1 injected 0"
	knob fail_bind "	2   5	0 "
	expect_knob fail_bind "2 5 0 injected 0"
	knob fail_bind 0
	expect_knob fail_bind "0 injected 0"
}

t_bind()
{
	knob fail_bind "1 12"
	if load <<< "udp dport 9 drop"; then
		fail "nft bound a block that hardware refused"
	fi
	[[ $(< "$TMP/nft.err") = *"Cannot allocate memory"* ]] ||
		fail "not for lack of memory: $(< "$TMP/nft.err")"
	expect_table 0 0
	expect_knob fail_bind "0 injected 1"
	load <<< "udp dport 9 drop" || fail "nft: $(< "$TMP/nft.err")"
	expect_table 1 1
	nft flush ruleset
	expect_table 0 0
}

t_bind_flowtable()
{
	knob fail_bind "1 16"
	if nft "table inet t { flowtable f { hook ingress priority 0
			devices = { sut0 }; flags offload; }; }" 2> "$TMP/nft.err"; then
		fail "nft bound a flowtable that hardware refused"
	fi
	[[ $(< "$TMP/nft.err") = *busy* ]] ||
		fail "not because it is busy: $(< "$TMP/nft.err")"
	expect_table 0 0
	expect "injected" "$(injected fail_bind)" 2
}

# The table must be as it was when a transaction has failed at any of its rules.
t_replace()
{
	local nth

	for nth in 1 2 3; do
		knob fail_replace "$nth 28"
		if load <<-END
			udp dport 9 drop
			udp dport 19 drop
			tcp dport 80 drop
			END
		then
			fail "nft took what hardware refused, rule $nth"
		fi
		[[ $(< "$TMP/nft.err") = *"No space left"* ]] ||
			fail "not for lack of space: $(< "$TMP/nft.err")"
		expect_table 0 0
		expect_knob fail_replace "0 injected $nth"
	done
}

t_replace_times()
{
	tc qdisc add dev sut0 clsact || fail "no clsact"
	knob fail_replace "2 5 2"
	flower 1 9 || fail "tc: $(< "$TMP/tc.err")"
	! flower 2 19 || fail "the second rule did not fail"
	expect_knob fail_replace "1 5 1 injected 4"
	! flower 3 29 || fail "the third rule did not fail"
	flower 4 39 || fail "tc: $(< "$TMP/tc.err")"
	knob fail_replace "1 5 0"
	! flower 5 49 || fail "rule after rule does not fail"
	! flower 6 59 || fail "rule after rule does not fail"
	knob fail_replace 0
	flower 7 69 || fail "tc: $(< "$TMP/tc.err")"
	expect_table 3 1
	# What hardware cannot do anyway does not count.
	knob fail_replace "1 5"
	tc filter add dev sut0 ingress protocol ip pref 9 flower skip_sw \
		ip_proto icmp type 8 action drop 2> /dev/null &&
		fail "hardware matches on ICMP"
	expect_knob fail_replace "1 5 1 injected 7"
	knob fail_replace 0
	tc filter del dev sut0 ingress
	expect_table 0 1
}

# Hardware goes on with what it could not let go of, until it is unbound.
t_destroy()
{
	local purged

	purged=$(ledger purged)
	flower 1 9 || fail "tc: $(< "$TMP/tc.err")"
	knob fail_destroy "1 5"
	tc filter del dev sut0 ingress pref 1
	expect_knob fail_destroy "0 injected 1"
	expect_table 1 1
	send_udp $N 9 $t.kept
	flush_wire
	expect "packets that the host saw" "$(tap_count sut0 $t.kept)" 0
	tc qdisc del dev sut0 clsact
	expect_table 0 0
	expect "purged entries" "$(ledger purged)" $((purged + 1))
	expect "stale calls" "$(ledger stale)" 0
	send_udp $N 9 $t.gone
	flush_wire
	expect "packets after the unbind" "$(tap_count sut0 $t.gone)" $N
}

# Counts that could not be reported are not lost.
t_stats()
{
	tc qdisc add dev sut0 clsact || fail "no clsact"
	flower 1 9 || fail "tc: $(< "$TMP/tc.err")"
	send_udp $N 9 $t.drop
	flush_wire
	knob fail_stats "1 5"
	# tc shows no line for hardware then
	expect "packets while statistics fail" "$(tc_packets 1)" none
	expect_knob fail_stats "0 injected 1"
	expect "packets afterwards" "$(tc_packets 1)" $N
	tc filter del dev sut0 ingress
}

t_delay()
{
	local start ms

	knob delay_us 400000
	start=${EPOCHREALTIME/[.,]/}
	flower 1 9 || fail "tc: $(< "$TMP/tc.err")"
	ms=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	[ $ms -ge 400 ] || fail "a rule took $ms ms"
	start=${EPOCHREALTIME/[.,]/}
	tc filter del dev sut0 ingress pref 1
	ms=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	[ $ms -ge 400 ] || fail "its removal took $ms ms"
	knob delay_us 0
	expect_knob delay_us 0
}

# Packets do not wait for a command that does.
t_delay_and_packets()
{
	local pid

	flower 1 9 || fail "tc: $(< "$TMP/tc.err")"
	knob delay_us 3000000
	flower 2 19 &
	pid=$!
	send_udp $N 9 $t.drop
	flush_wire
	expect "packets that the host saw" "$(tap_count sut0 $t.drop)" 0
	expect "packets in hardware" "$(hw_field packets dport=9/)" $N
	expect "entries while a command waits" "$(hw_stat entries)" 1
	knob delay_us 0
	wait $pid || fail "tc: $(< "$TMP/tc.err")"
	expect_table 2 1
	tc filter del dev sut0 ingress
}

# refused REASON FILE TEXT: by the bus
refused()
{
	if { echo "$3" > "$NSIM_BUS/$2"; } 2> "$TMP/wire.err"; then
		fail "$2 took '$3'"
	elif [[ $(< "$TMP/wire.err") != *"$1"* ]]; then
		fail "$2: '$3' is refused, but not for '$1': $(< "$TMP/wire.err")"
	fi
}

# carriers: of sut1 and far1
carriers()
{
	local line list=

	for line in "$(ip -o link show sut1)" "$(far 'ip -o link show far1')"; do
		case $line in
		*LOWER_UP*" state UP "*) list+=" up" ;;
		# the queueing discipline may still throw packets away
		*LOWER_UP*)		 list+=" soon" ;;
		*)			 list+=" down" ;;
		esac
	done
	echo ${list# }
}

# What hardware sends knows no carrier: only the wire itself can stop it.
t_wires()
{
	local fd_sut fd_far fd_mnt sut0 sut1 far0 far1 text

	exec {fd_sut}< /proc/self/ns/net {fd_far}< "/run/netns/$FAR" \
	     {fd_mnt}< /proc/self/ns/mnt
	sut0=$fd_sut:${SUT_IFINDEX[0]} sut1=$fd_sut:${SUT_IFINDEX[1]}
	far0=$fd_far:${FAR_IFINDEX[0]} far1=$fd_far:${FAR_IFINDEX[1]}

	flower 1 9 "mirred egress redirect dev sut1" || fail "tc: $(< "$TMP/tc.err")"
	refused "resource busy" link_device "$sut1 $far1"
	echo "$far1" > "$NSIM_BUS/unlink_device" || fail "cannot cut the wire"
	expect "carriers at the ends of a cut wire" "$(carriers)" "down down"
	send_udp $N 9 $t.cut
	flush_wire
	expect "packets redirected to it" "$(hw_field packets dport=9/)" $N

	for text in "" x "$sut1" "$sut1 $fd_far" "$sut1 $fd_far:" "$sut1 $fd_far:x" \
		    "$sut1 9999:1" "$sut1 -1:1" "9999:1 $far1" "$sut1 $fd_mnt:1" \
		    "$sut1 $fd_far:0" "$sut1 $fd_far:1" "$sut1 $fd_far:9999" \
		    "$fd_sut:1 $far1" "$fd_sut:9999 $far1" "$sut1 $sut1"; do
		refused "Invalid argument" link_device "$text"
	done
	refused "resource busy" link_device "$sut0 $far1"
	refused "resource busy" link_device "$sut1 $far0"
	for text in "" x "$fd_sut" "$fd_sut:" 9999:1 -1:1 "$fd_mnt:1" \
		    "$fd_sut:0" "$fd_sut:1" "$fd_sut:9999" "$sut1" "$far1"; do
		refused "Invalid argument" unlink_device "$text"
	done
	expect "carriers after bad writes" "$(carriers)" "down down"

	echo "$sut1 $far1" > "$NSIM_BUS/link_device" || fail "cannot connect again"
	wait_value "up up" carriers
	send_udp $N 9 $t.again
	flush_wire
	flush_far1
	expect "packets from the cut wire" "$(tap_count far1 $t.cut)" 0
	expect "packets when connected again" "$(tap_count far1 $t.again)" $N
	tc filter del dev sut0 ingress
	exec {fd_sut}<&- {fd_far}<&- {fd_mnt}<&-
}

t_ledger()
{
	tc qdisc del dev sut0 clsact
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "ledger: purged entries" "$(ledger purged)" 1
}

TESTS="bad_writes state bind bind_flowtable replace replace_times destroy stats
	delay delay_and_packets wires ledger"

ktap_print_header
setup_pair
need_tools tc
ktap_set_plan "$(wc -w <<< "$TESTS")"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
