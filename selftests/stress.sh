#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Everything at once, on two processors: packets, reloads, flow tables, policies,
# listings and listeners, the sysctl back and forth between its three values,
# devices and network namespaces that come and go with rules in hardware, the
# module unloaded and loaded. Each kind is done a number of times, not for a time,
# and must have succeeded often enough to have been in the way of the others; that
# strict mode refuses it is success, if it says so. At no time a packet may pass
# the one rule that takes it, and at the end nothing may be left in hardware.
#
# SEED=N repeats a choice of rulesets and pauses, ROUNDS=N takes N times as long.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"
# shellcheck source=flow_lib.sh
. "$(dirname "$0")/flow_lib.sh"

: "${SEED:=$((SRANDOM % 32768))}"
: "${ROUNDS:=1}"
t=stress
toggles=0

# What a worker does, how often, and how often at least with success. Those with
# 0 go on for as long as the others.
WORK="reload:60:55 device:12:11 netns:8:7 module:12:12 toggle:0:30 list:0:30"
! type -P nfoctl > /dev/null || WORK+=" policy:0:10 dump:0:10 monitor:0:2"
WORK+=" flows:0:5"

# strictly COMMAND...: with success, or refused by strict mode, if that is or was
# in force meanwhile; $TMP/mode changes with it
strictly()
{
	local before='' after='' said

	read -r before < "$TMP/mode"
	"$@" 2> "$TMP/said.$kind" && return
	said=$(< "$TMP/said.$kind")
	echo "$said" >&2
	[[ $said = *"peration not supported"* ]] || return
	read -r after < "$TMP/mode"
	[[ $before$after = *strict* ]] || [ "$before" != "$after" ] || return
	echo "$said" >> "$TMP/refused.$kind"
}

# A ruleset that somebody may have: between 1 and 40 rules, in up to three
# chains, half of them with one that hardware cannot do or what else keeps rules
# in software. Tables s1 and s2 only.
random_rules()
{
	local table=s$((RANDOM % 2 + 1)) chains=$((RANDOM % 3 + 1)) c i n devs
	local fits=$((RANDOM % 2))

	echo "table inet $table; delete table inet $table"
	[ $((RANDOM % 2)) -eq 0 ] || cat <<-END
		table inet $table {
			flowtable ft {
				hook ingress priority $((RANDOM % 200 + 1 + fits * 500))
				devices = { sut0, sut1 }
			}
			chain forward {
				type filter hook forward priority 0
				meta l4proto udp flow add @ft
			}
		}
	END
	echo "table netdev $table; delete table netdev $table"
	[ $((RANDOM % 8)) -ne 0 ] || return
	echo "table netdev $table {"
	[ $((RANDOM % 8)) -ne 0 ] || echo "flags dormant;"
	for ((c = 0; c < chains; c++)); do
		devs=sut0
		[ $((RANDOM % 2)) -eq 0 ] || devs="sut0, sut1"
		echo "chain c$c { type filter hook ingress devices = { $devs }" \
		     "priority $((RANDOM % 100 + 1));"
		n=$((RANDOM % 14))
		for ((i = 0; i < n; i++)); do
			case $((RANDOM % (16 - 2 * fits) + 2 * fits)) in
			0)	echo "udp dport { $i, $((i + 20)) } counter accept" ;;
			1)	echo "udp dport $((i + 20)) limit rate 1/second accept" ;;
			2)	echo "udp dport $((i + 20)) counter fwd to sut1" ;;
			3|4|5)	echo "udp dport $((i + 20)) counter accept" ;;
			*)	echo "udp dport $((i + 20)) counter drop" ;;
			esac
		done
		echo "}"
	done
	echo "}"
}

do_reload()
{
	random_rules > "$TMP/rules.reload"
	strictly nft -f "$TMP/rules.reload"
}

# The one device of this namespace that is not known, by name. In sysfs there
# are those of the namespace in which it was mounted.
other_device()
{
	local name rest

	while read -r name rest; do
		case $name in
		lo:|sut?:|*\|*)	;;
		*:)	echo "${name%:}" ;;
		esac
	done < /proc/net/dev
}

# with_device ID: a netdevsim of that number, its rules, the end of it
with_device()
{
	local dev ok=1

	echo "$1 1" > "$NSIM_BUS"/new_device || return
	dev=$(other_device)
	ethtool -K "$dev" hw-tc-offload on &&
	nft "table netdev d$1 { chain c {
		type filter hook ingress device $dev priority $((RANDOM % 9 - 4));
		udp dport 9 counter drop
		udp dport 10 counter accept; }; }" || ok=
	[ $((RANDOM % 2)) -eq 0 ] || nft delete table netdev "d$1" || ok=
	echo "$1" > "$NSIM_BUS"/del_device || ok=
	# with the device went the chain's last hook, not always the table
	nft "table netdev d$1; delete table netdev d$1" || ok=
	[ "$ok" ]
}

do_device()
{
	with_device $((SUT_ID + 1))
}

# Half of the namespaces die with their rules in force.
do_netns()
{
	unshare --net bash -c "$(declare -f other_device with_device)
		NSIM_BUS=$NSIM_BUS RANDOM=$RANDOM
		echo $((RANDOM % 2 + 1)) 2> /dev/null > $SYSCTL_FILE
		if ((RANDOM % 2)); then
			with_device $1
		else
			echo '$1 1' > $NSIM_BUS/new_device || exit
			dev=\$(other_device)
			ethtool -K \$dev hw-tc-offload on
			echo $((RANDOM % 2 + 1)) 2> /dev/null > $SYSCTL_FILE
			nft \"table netdev t { chain c {
				type filter hook ingress device \$dev priority 0;
				udp dport 9 counter drop; }; }\"
		fi" || return
	# A device outlives its namespace. That goes in its own time, and the
	# device may be on its way.
	[ ! -e "$NSIM_BUS/devices/netdevsim$1" ] || del_stray "$1"
}

# Who dumps by netlink holds the module meanwhile.
do_module()
{
	wait_until rmmod nft_offload 2> "$TMP/rmmod" && modprobe nft_offload
}

_set_mode()
{
	echo "$1" > "$SYSCTL_FILE"
}

do_toggle()
{
	local modes=(0 1 1 2 2) mode

	mode=${modes[RANDOM % 5]}
	[ "$mode" -lt 2 ] || echo strict > "$TMP/mode"
	strictly _set_mode "$mode" && read -r mode < "$SYSCTL_FILE" || return
	toggles=$((toggles + 1))
	if [ "$mode" -eq 2 ]; then
		echo "$toggles" >> "$TMP/strict"
		# or hardly a reload would meet it
		read -r -t 0.2 <> "$TMP/pause"
		return 0
	fi
	echo "$mode $toggles" > "$TMP/mode"
}

do_list()
{
	mapfile < "$PROC"
}

_others_work()
{
	[ ! -e "$TMP/enough" ]
}

do_policy()
{
	local policies=(auto auto auto never force)

	strictly nfoctl policy set s$((RANDOM % 2 + 1)) c$((RANDOM % 3)) \
		"${policies[RANDOM % 5]}"
}

do_dump()
{
	nfoctl -j rules > /dev/null && nfoctl -j flowtables > /dev/null
}

# The module may be unloaded meanwhile.
do_monitor()
{
	timeout 10 nfoctl -j monitor --count 20 >> "$TMP/events"
}

# Hardware has flows, and has forwarded packets of theirs.
do_flows()
{
	local line lines

	mapfile -t lines < "$HW0/table"
	for line in "${lines[@]}"; do
		[[ ! $line =~ ^flow\ .*dport=17/.*\ packets=[1-9] ]] || return 0
	done
	return 1
}

# Runs in the far end's shell, instead of that of offload_lib.sh: with each packet
# one that is forwarded, and now and then that begins another flow. No rule takes
# those to port 17: they arrive, whoever forwards them.
_flood()
{
	local i stop=

	exec 3<> "/dev/udp/$1/$2" || exit 1
	trap 'stop=1' TERM
	for ((i = 0; !stop; i++)); do
		((i % 25)) || exec 5<> "/dev/udp/$FAR2_IP/17"
		printf 'flood;' >&3
		printf 'through;' >&5
		((i % 16)) || echo "$i" > "$3"
	done
	echo "$i" > "$3"
}

# worker KIND TIMES: one after the other; a line per success
worker()
{
	local kind=$1 times=$2 i

	RANDOM=$3
	for ((i = 0; times ? i < times : 1; i++)); do
		if [ "$times" -eq 0 ]; then
			_others_work || break
			# Builtins would take the processors from all others.
			read -r -t 0.0$((RANDOM % 5)) <> "$TMP/pause"
		fi
		if "do_$kind" "$4"; then
			echo ok
		fi 2>> "$TMP/$kind.err" >> "$TMP/$kind.ok"
	done
	: >> "$TMP/$kind.ok"
}

lines()
{
	mapfile < "$1"
	echo ${#MAPFILE[@]}
}

# Strict mode was in force, has refused, and has told listeners why.
expect_refusals()
{
	local kind line heard=0

	ktap_print_msg "strict mode: $(lines "$TMP/strict") times in force, has refused" \
		       "$(lines "$TMP/refused.reload") reloads," \
		       "$(lines "$TMP/refused.policy") policies," \
		       "$(lines "$TMP/refused.toggle") times itself"
	for kind in strict refused.reload refused.toggle; do
		[ "$(lines "$TMP/$kind")" -ge $((2 * ROUNDS)) ] || fail "$kind: too few"
	done
	mapfile -t < "$TMP/events"
	for line in "${MAPFILE[@]}"; do
		[[ $line = *'"event":"refused"'* ]] || continue
		heard=$((heard + 1))
		[[ $line =~ '"reason":"'[^\"]*' ['.*']"' ]] || fail "no reason in $line"
	done
	ktap_print_msg "listeners were told of $heard refusals"
}

t_everything_at_once()
{
	local work kind times least pids='' forever='' pid sent i=0

	load <<-END
		table netdev keep {
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				udp dport 9 counter drop comment "keep"
			}
			chain last {
				type filter hook ingress device sut0 priority 500;
				udp dport 9 counter accept comment "escaped"
			}
		}
	END
	for kind in strict events refused.reload refused.policy refused.toggle; do
		: > "$TMP/$kind"
	done
	echo 1 > "$TMP/mode"
	mkfifo "$TMP/pause"
	offload 1
	# Flows that have ended leave soon.
	udp_flow_timeout 2 > /dev/null
	far "FAR2_IP=$FAR2_IP"
	flood 9
	for work in $WORK; do
		IFS=: read -r kind times least <<< "$work"
		worker "$kind" $((times * ROUNDS)) $((SEED + i)) \
		       $((SUT_ID + 100 + i)) &
		if [ "$times" -gt 0 ]; then
			pids+=" $!"
		else
			forever+=" $!"
		fi
		i=$((i + 1))
	done
	for pid in $pids; do
		wait "$pid"
	done
	: > "$TMP/enough"
	for pid in $forever; do
		wait "$pid"
	done
	sent=$(flood_stop)
	flush_wire
	for work in $WORK; do
		IFS=: read -r kind times least <<< "$work"
		ktap_print_msg "$kind: $(lines "$TMP/$kind.ok") done," \
			       "$(lines "$TMP/$kind.err") lines of errors"
		[ "$(lines "$TMP/$kind.ok")" -ge $((least * ROUNDS)) ] ||
			fail "$kind: too few succeeded: $(tail -n 3 "$TMP/$kind.err")"
	done
	expect_refusals
	[ "$sent" -ge $((1000 * ROUNDS)) ] || fail "no more than $sent packets"
	expect "packets that escaped, of $sent" "$(nft_counter escaped)" 0
	expect "packets counted" "$(nft_counter keep)" "$sent"
	wait_value "$sent" arrived settle
}

t_still_works()
{
	modprobe nft_offload || fail "cannot load the module"
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				udp dport 9 counter drop comment "drop"
			}
		}
	END
	offload 1
	expect_entries 1
	expect_entries 1 1
	send_udp 5 9 still
	flush_wire
	expect "counter of the drop" "$(nft_counter drop)" 5
	expect "packets that the host saw" "$(tap_count sut0 still)" 0
}

t_nothing_left()
{
	load < /dev/null
	offload 0
	expect "rules listed" "$(grep -vc '^#' "$PROC")" 0
	# namespaces go in their own time
	wait_value 0 ledger entries
	wait_value 0 ledger bound
	expect_ledger_empty
	expect "references to the module" \
	       "$(< /sys/module/nft_offload/refcnt)" 0
	rmmod nft_offload || fail "cannot unload the module"
	expect "taint" "$(< /proc/sys/kernel/tainted)" "$taint"
}

ktap_print_header
setup_router
read -r taint < /proc/sys/kernel/tainted
ktap_print_msg "SEED=$SEED"
ktap_set_plan 3
subtest "everything at once" t_everything_at_once
subtest "offload still works" t_still_works
subtest "nothing is left" t_nothing_left
ktap_finished
