#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Whatever goes away while rules are in hardware - the ruleset, a table's owner,
# a device or its name, a network namespace, the module - takes its entries and
# its binding with it, leaves no reference behind, and no packet uncounted.
# toggle.sh and device_gone.sh have the plain cases.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"
# shellcheck source=flow_lib.sh
. "$(dirname "$0")/flow_lib.sh"

N=5
NS=gone-$$
DUMMY=dum-$$
NSIM_REFS=/sys/module/netdevsim/refcnt
REFS=/sys/module/nft_offload/refcnt

# N packets to port 9 meet the hardware, or not
expect_offloaded()
{
	local before

	before=$(hw_stat drop)
	send 9 hw
	flush_wire
	expect "packets that hardware dropped, of $N" \
	       $(($(hw_stat drop) - before)) "$1"
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

# What flood has sent "keep" has counted, every single one.
expect_exact()
{
	local sent

	sent=$(flood_stop)
	flush_wire
	expect "packets counted" "$(nft_counter keep)" "$sent"
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

expect_no_trace()
{
	mapfile < "$PROC"
	expect "entries on sut0" "$(hw_stat entries)" 0
	expect "entries on sut1" "$(hw_stat entries 1)" 0
	expect_ledger_empty
	expect "references to nft_offload.ko" "$(< "$REFS")" 0
	expect "references to netdevsim.ko" "$(< "$NSIM_REFS")" "$nsim_refs"
}

done_with()
{
	load < /dev/null
	expect_no_trace
}

# A ruleset on several devices, one of which has no hardware. That device goes,
# first as one of the chain, then as the target of a forward.
t_other_kind_of_device()
{
	local kind

	for kind in chain target; do
		ip link add "$DUMMY" type dummy || fail "cannot create $DUMMY"
		if [ "$kind" = chain ]; then
			load_keep <<-END
				table netdev other {
					chain c {
						type filter hook ingress \
							devices = { sut0, $DUMMY } priority 10;
						udp dport 10 counter drop comment "other"
					}
				}
			END
			expect_state other hardware
			expect_why other '^the device has no offload$' "$DUMMY"
			expect_entries 2
		else
			load_keep <<-END
				table netdev other {
					chain c {
						type filter hook ingress device sut0 priority 10;
						udp dport 10 counter fwd to "$DUMMY" comment "other"
					}
				}
			END
			expect_state other failed
			expect_entries 1
		fi
		# Does not return before the last reference is gone.
		timeout 20 ip link del "$DUMMY" ||
			fail "$DUMMY is still in use: $(dmesg | tail -n 1)"
		expect "lines of the device" "$(grep -c " $DUMMY " "$PROC")" 0
		expect_offloaded "$N"
	done
	done_with
}

# A chain with "flags offload" must be rid of such a rule as well.
t_target_of_flags_offload()
{
	local how

	# While the module is active it has such chains, too.
	offload 0
	for how in "flush ruleset" "flush chain netdev x c"; do
		nft_do flush ruleset
		nft_do -f - <<-END
			table netdev x {
				chain c {
					type filter hook ingress device sut0 priority 1;
					flags offload;
					udp dport 9 counter fwd to "sut1"
					udp dport 10 counter drop
				}
			}
		END
		expect "entries" "$(hw_stat entries)" 2
		ip link set sut1 netns "$FAR" || fail "cannot move sut1"
		# shellcheck disable=SC2086
		nft_do $how
		expect "entries" "$(hw_stat entries)" 0
		move_back
	done
	nft_do flush ruleset
	offload 1
	done_with
}

# Filters of tc run before nf_tables. Whoever adds them is refused, or the rules
# leave the hardware; both at once would change verdicts.
t_tc_comes_later()
{
	load_keep < /dev/null
	expect_entries 1
	if tc qdisc add dev sut0 clsact 2> "$TMP/tc.err"; then
		expect_entries 0
		tc qdisc del dev sut0 clsact
	else
		ktap_print_msg "tc: $(< "$TMP/tc.err")"
		expect_entries 1
	fi
	offload 0
	tc qdisc add dev sut0 clsact || fail "tc is still refused"
	offload 1
	expect_entries 0
	expect_offloaded 0
	tc qdisc del dev sut0 clsact
	done_with
}

t_flush_ruleset()
{
	local drops misses sent

	load_keep < /dev/null
	drops=$(hw_stat drop)
	misses=$(hw_stat miss)
	flood 9
	flood_more 50
	nft_do flush ruleset
	expect_no_trace
	flood_more 50
	sent=$(flood_stop)
	flush_wire
	expect "packets through the port, flush_wire's two included" \
	       $(($(hw_stat drop) - drops + $(hw_stat miss) - misses)) $((sent + 2))
	[ "$(hw_stat miss)" -gt $((misses + 50)) ] || fail "the host saw none"
}

# The table sleeps and wakes while packets come. What it lets through then, the
# chain behind it counts.
t_dormant()
{
	local i sent

	load_keep <<-END
		table netdev t {
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority -10;
				udp dport 19 counter drop comment "sleeper"
				udp dport 20 counter accept
			}
			chain d {
				type filter hook ingress device sut0 priority -20;
				udp dport 21 counter drop
			}
			chain e {
				type filter hook ingress device sut0 priority 300;
				udp dport 19 counter drop comment "e"
			}
		}
		table netdev u {
			chain c {
				type filter hook ingress device sut0 priority 100;
				udp dport 19 counter comment "behind"
			}
		}
	END
	expect_entries 4
	flood 19
	for i in 1 2 3; do
		flood_more 50
		nft_do add table netdev t '{ flags dormant; }'
		expect_entries 1
		expect_entries 1 1
		flood_more 50
		nft_do add table netdev t
		expect_entries 4
		expect_entries 3 1
	done
	sent=$(flood_stop)
	flush_wire
	expect "packets of the table and of those behind" \
	       $(($(nft_counter sleeper) + $(nft_counter behind))) "$sent"
	# nf_tables takes its hooks away one by one.
	[ "$(nft_counter e)" -lt 50 ] || fail "hardware has a chain that sleeps"
	[ "$(nft_counter behind)" -ge 150 ] || fail "the table never slept"
	nft_do add table netdev t '{ flags dormant; }'
	nft_do delete table netdev t
	expect "dormant rules listed" "$(grep -c '^t ' "$PROC")" 0
	done_with
}

# reload_rules I: in front of "keep", every other time something that hardware
# cannot do
reload_rules()
{
	local i

	echo "table netdev t; delete table netdev t"
	echo "table netdev t {"
	echo "chain c { type filter hook ingress device sut0 priority -10;"
	[ $(($1 % 2)) -eq 0 ] || echo "udp dport { 40, 41 } counter accept"
	for ((i = 0; i <= $1 % 5; i++)); do
		echo "udp dport $((20 + i)) counter drop"
	done
	echo "}"
	echo "chain d { type filter hook ingress device sut1 priority -1;"
	echo "udp dport 30 counter accept"
	echo "}; }"
}

t_reload()
{
	local i binds

	load_keep < /dev/null
	# The flow block lasts: nothing is bound again.
	binds=$(injected fail_bind)
	echo "1 5 1000" > "$HW0/fail_bind"
	flood 9
	for ((i = 0; i < 10; i++)); do
		reload_rules "$i" > "$TMP/reload"
		nft_do -f "$TMP/reload"
		if [ $((i % 2)) -eq 0 ]; then
			expect_entries $((2 + i % 5))
		else
			expect_entries 0
		fi
		expect_entries 2 1
		flood_more 20
	done
	expect "times that the device was bound again" \
	       "$(injected fail_bind)" "$binds"
	echo 0 > "$HW0/fail_bind"
	expect_exact
	done_with
}

# start_owner COMMANDS: as the owner of tables
start_owner()
{
	rm -f "$TMP/owner"
	mkfifo "$TMP/owner"
	command nft -i < "$TMP/owner" > "$TMP/owner.out" 2>&1 &
	owner_pid=$!
	exec {owner_in}> "$TMP/owner"
	printf '%s\n' "$1" >&"$owner_in"
}

_table_exists()
{
	nft list table netdev "$1" > /dev/null 2>&1
}

stop_owner()
{
	exec {owner_in}>&-
	wait "$owner_pid" || fail "nft -i: $(< "$TMP/owner.out")"
}

# The tables of a socket go with it, without a transaction.
t_owner_goes()
{
	local i cmds=

	load_keep < /dev/null
	cmds='add table netdev own { flags owner; }
add chain netdev own c { type filter hook ingress device sut0 priority -10; }
add rule netdev own c udp dport { 9, 10 } limit rate 1/day accept
add chain netdev own d { type filter hook ingress device sut1 priority -10; }
add rule netdev own d udp dport 13 counter drop
add chain netdev own e { type filter hook ingress device sut1 priority -20; }
add rule netdev own e udp dport 14 counter accept'
	# nf_tables lets go of eight tables at a time
	for ((i = 0; i < 9; i++)); do
		cmds+="
add table netdev own$i { flags owner; }
add chain netdev own$i c { type filter hook ingress device sut1 priority $((i - 5)); }
add rule netdev own$i c udp dport $((50 + i)) drop"
	done
	start_owner "$cmds
add table netdev ready { flags owner; }"
	wait_until _table_exists ready || fail "nft -i: $(< "$TMP/owner.out")"
	expect_entries 0
	expect_entries 12 1
	flood 9
	flood_more 50
	stop_owner
	expect "tables" "$(nft list tables)" "table netdev keep"
	expect_entries 1
	expect_entries 1 1
	expect "rules listed" "$(grep -vc '^#' "$PROC")" 3
	flood_more 50
	# the limit has let one packet through
	expect_exact
	done_with
}

# As many tables as nf_tables lets go of at a time; the first is in the way.
t_owner_of_eight()
{
	local i cmds=

	load_keep < /dev/null
	for ((i = 0; i < 8; i++)); do
		cmds+="add table netdev own$i { flags owner; }
add chain netdev own$i c { type filter hook ingress device sut0 priority $((i - 9)); }
add rule netdev own$i c limit rate 1000/second
"
	done
	start_owner "$cmds"
	wait_until _table_exists own7 || fail "nft -i: $(< "$TMP/owner.out")"
	expect_entries 0
	stop_owner
	expect "tables" "$(nft list tables)" "table netdev keep"
	expect_entries 1
	expect_offloaded "$N"
	done_with
}

# A chain gets one more device. The flow table behind it there waits for its rules.
t_device_added()
{
	load_keep <<-END
		table netdev t {
			chain front {
				type filter hook ingress device sut1 priority -10;
				udp dport 10 counter drop comment "added"
			}
		}
		table inet f {
			flowtable ft {
				hook ingress priority -5;
				devices = { sut0 };
			}
		}
	END
	expect_entries 0
	expect_state added ""
	nft_do add chain netdev t front \
		'{ type filter hook ingress devices = { sut0, sut1 } priority -10; }'
	expect_entries 1
	expect_state added hardware
	expect_ft hardware
	send 10 added
	flush_wire
	expect_seen added 0
	expect "counter of the rule" "$(nft_counter added)" "$N"
	expect "the same, listed" "$(listed_packets added)" "$N"
	nft_do add rule netdev t front udp dport '{ 11, 12 }' drop
	expect_state added hardware
	expect_ft software \
		"sut0: rule [0-9]* of chain front comes first and is in software"
	done_with
}

# A chain is bound to names. What software makes of a device that gets one, or
# loses it, is for the kernel to say: hardware does the same.
t_rename()
{
	local name

	load_keep < /dev/null
	nft_do -f - <<-END
		table netdev t {
			chain old {
				type filter hook ingress device sut1 priority -10;
				udp dport 20 counter drop
			}
		}
	END
	[ -z "$by_name" ] || nft_do -f - <<-END
		table netdev t {
			chain new {
				type filter hook ingress device away1 priority -10;
				udp dport 21 counter drop
				udp dport 22 counter drop
			}
		}
	END
	expect_entries 2 1
	for name in away1 sut1 away1 sut1; do
		if [ "$name" = away1 ]; then
			rename_port 1 sut1 away1
		else
			rename_port 1 away1 sut1
		fi || fail "cannot rename to $name"
		expect_entries 2 1
		if [ "$name" = away1 ] && [ -n "$by_name" ]; then
			expect "entries of the other chain" \
			       "$(hw_list 'dport=([0-9]+)' 1)" "21 22 "
		fi
	done
	expect "ports" "$(hw_list 'dport=([0-9]+)' 1)" "20 9 "
	done_with
}

# A chain for all names that begin with "away", which old nft cannot ask for:
# NFT_MSG_NEWCHAIN with NFTA_DEVICE_PREFIX, byte by byte.
hex_attr()
{
	local len=$((4 + ${#2} / 2)) pad=

	while [ $(((${#2} / 2 + ${#pad} / 2) % 4)) -ne 0 ]; do
		pad+=00
	done
	printf '%02x%02x%02x%02x%s%s' $((len & 255)) $((len >> 8)) \
	       $(($1 & 255)) $(($1 >> 8)) "$2" "$pad"
}

# hex_msg TYPE FLAGS NFGENMSG ATTRIBUTES
hex_msg()
{
	local len=$((16 + (${#3} + ${#4}) / 2))

	printf '%02x%02x0000%02x%02x%02x%02x0100000000000000%s%s' \
	       $((len & 255)) $((len >> 8)) $(($1 & 255)) $(($1 >> 8)) \
	       $(($2 & 255)) $(($2 >> 8)) "$3" "$4"
}

add_prefix_chain()
{
	local nested=0x8000 devs hook chain msgs i text=

	devs=$(hex_attr 2 "$(hex_text away)00")
	hook=$(hex_attr 1 00000000)$(hex_attr 2 fffffff6)
	hook+=$(hex_attr $((nested | 4)) "$devs")
	chain=$(hex_attr 1 "$(hex_text t)00")$(hex_attr 3 "$(hex_text any)00")
	chain+=$(hex_attr $((nested | 4)) "$hook")
	chain+=$(hex_attr 7 "$(hex_text filter)00")
	msgs=$(hex_msg 0x10 1 0000000a '')
	msgs+=$(hex_msg 0xa03 0x401 05000000 "$chain")
	msgs+=$(hex_msg 0x11 1 0000000a '')
	for ((i = 0; i < ${#msgs}; i += 2)); do
		text+="\\x${msgs:i:2}"
	done
	# shellcheck disable=SC2059
	printf "$text" | socat -u - SOCKET-SENDTO:16:3:12:x00000000000000000000
}

t_rename_wildcard()
{
	local i

	load_keep <<-END
		table netdev t { }
	END
	add_prefix_chain || fail "cannot send a netlink message"
	nft_do add rule netdev t any udp dport 23 counter drop
	expect_entries 1 1
	for i in 1 2; do
		rename_port 1 sut1 away"$i" || fail "cannot rename sut1"
		expect "entries" "$(hw_list 'dport=([0-9]+)' 1)" "23 "
		rename_port 1 away"$i" sut1
		expect "entries" "$(hw_list 'dport=([0-9]+)' 1)" "9 "
	done
	done_with
}

# Both namespaces have a chain for sut1, which goes from one to the other.
t_device_moves()
{
	load_keep < /dev/null
	[ -z "$by_name" ] || far "nft 'table netdev t {
		chain c {
			type filter hook ingress device sut1 priority 5;
			udp dport 33 counter drop
			udp dport 34 counter accept
		}; }'" || fail "cannot load the ruleset of the far end"
	far "echo 1 > $SYSCTL_FILE"
	expect_entries 1 1
	ip link set sut1 netns "$FAR" || fail "cannot move sut1"
	far "ethtool -K sut1 hw-tc-offload on; cat $PROC > /dev/null"
	expect "entries after the move" "$(hw_stat entries 1)" $((by_name ? 2 : 0))
	expect "bindings" "$(hw_stat bound 1)" $((by_name ? 1 : 0))
	expect_entries 1
	move_back
	expect_entries $((by_name ? 1 : 0)) 1
	far "echo 0 > $SYSCTL_FILE; nft delete table netdev t 2> /dev/null"
	done_with
}

# Runs in a namespace that will go: gone_setup ID
_gone_setup()
{
	local d=/sys/bus/netdevsim/devices/netdevsim$1/net dev devs=

	echo "$1 2" > "$NSIM_BUS"/new_device || return 1
	for dev in "$d"/*; do
		devs+="${dev##*/}, "
		ethtool -K "${dev##*/}" hw-tc-offload on || return 1
	done
	nft -f - <<-END || return 1
		table netdev t {
			chain c {
				type filter hook ingress devices = { $devs } priority 0;
				udp dport 9 counter drop
				udp dport 10 counter accept
			}
			chain d {
				type filter hook ingress devices = { $devs } priority -300;
				udp dport 11 counter drop
			}
		}
		table netdev s {
			flags dormant
			chain c {
				type filter hook ingress devices = { $devs } priority 0;
				udp dport 9 counter drop
			}
		}
	END
	echo 1 > "$SYSCTL_FILE"
}

_outsider_says()
{
	local answer

	echo >&"$out_in"
	read -r answer <&"$out_out"
	[ "$answer" = "$1" ]
}

# Two at once, with rules in force and asleep, while somebody outside has the
# sysctl open. That somebody sees when the namespace is really gone.
t_netns_exit()
{
	local id=$((SUT_ID + 1)) i pid

	load_keep < /dev/null
	for i in 1 2; do
		ip netns add "$NS.$i" || fail "cannot create a namespace"
		ip netns exec "$NS.$i" bash -c "$(declare -f _gone_setup)
			NSIM_BUS=$NSIM_BUS SYSCTL_FILE=$SYSCTL_FILE
			_gone_setup $((id + i))" ||
			fail "cannot set up the namespace"
	done
	expect "ledger: entries" "$(ledger entries)" $((2 + 2 * 6))
	expect "ledger: bound" "$(ledger bound)" $((2 + 2 * 2))
	mkfifo "$TMP/outsider" "$TMP/answers"
	ip netns exec "$NS.1" bash -c "exec 3> $SYSCTL_FILE
		exec nsenter --net=/proc/$$/ns/net bash -c '
			while read -r _; do
				echo 1 >&3 && echo alive || echo dead
			done'" < "$TMP/outsider" > "$TMP/answers" 2> /dev/null &
	pid=$!
	exec {out_in}> "$TMP/outsider" {out_out}< "$TMP/answers"
	_outsider_says alive || fail "cannot write the sysctl from outside"
	flood 9
	flood_more 20
	ip netns del "$NS.1"
	ip netns del "$NS.2"
	wait_value 2 ledger entries
	wait_value 2 ledger bound
	wait_until _outsider_says dead || fail "the namespace lives on"
	exec {out_in}>&- {out_out}<&-
	wait "$pid"
	expect "ledger: purged entries" "$(ledger purged)" 0
	expect_exact
	for i in 1 2; do
		del_stray "$((id + i))"
	done
	done_with
}

# The module goes, whatever it is doing.
t_rmmod_any_state()
{
	local what left

	for what in off empty on dormant claimed policy full elsewhere; do
		load_keep < /dev/null
		left=0
		case $what in
		off)	offload 0 ;;
		empty)	load < /dev/null ;;
		dormant)
			nft_do add table netdev keep '{ flags dormant; }' ;;
		claimed)
			# While the module is active, it takes charge of such chains.
			offload 0
			nft_do -f - <<-END
				table netdev e {
					chain x {
						type filter hook ingress device sut0 priority 1;
						flags offload;
						udp dport 10 counter drop
					}
				}
			END
			offload 1
			left=1 ;;
		policy)	nft_do chain netdev keep last '{ policy drop; }' ;;
		full)	echo 0 > "$HW0/capacity"
			load_keep < /dev/null ;;
		elsewhere)
			far "nft 'table netdev t { chain c {
				type filter hook ingress device far1 priority 5;
				udp dport 33 counter drop; }; }'
			     ethtool -K far1 hw-tc-offload on
			     echo 1 > $SYSCTL_FILE"
			expect "ledger: entries" "$(ledger entries)" 3 ;;
		esac
		expect "references to the module" "$(< "$REFS")" 0
		rmmod nft_offload || fail "$what: cannot unload the module"
		expect "$what: entries on sut0" "$(hw_stat entries)" "$left"
		expect "$what: ledger, entries" "$(ledger entries)" "$left"
		expect "$what: ledger, bound" "$(ledger bound)" "$left"
		[ ! -e "$SYSCTL_FILE" ] || fail "$what: the sysctl is still there"
		load < /dev/null
		echo 1024 > "$HW0/capacity"
		modprobe nft_offload || fail "$what: cannot load the module again"
		offload 1
	done
	far "nft delete table netdev t"
	load_keep < /dev/null
	expect_offloaded "$N"
	done_with
}

# What a process has open does not keep the module, and is dead afterwards.
t_rmmod_open_files()
{
	local proc sysctl line

	load_keep < /dev/null
	exec {proc}< "$PROC" {sysctl}<> "$SYSCTL_FILE"
	read -r line <&"$proc"
	rmmod nft_offload || fail "cannot unload the module"
	if { echo 1 >&"$sysctl"; } 2> /dev/null; then
		fail "the sysctl of a module that is gone can be written"
	fi
	# bash has read ahead
	while read -r line; do :; done <&"$proc" 2> /dev/null
	expect_ledger_empty
	exec {proc}<&- {sysctl}<&-
	modprobe nft_offload || fail "cannot load the module again"
	offload 1
	expect_offloaded "$N"
	done_with
}

_reloads()
{
	local i

	for ((i = 0; i < 30; i++)); do
		reload_rules "$i" > "$TMP/reloads"
		nft -f "$TMP/reloads" || exit 1
		echo "$i" > "$TMP/reloads.done"
	done
}

_reload_beyond()
{
	local now

	now=$(< "$TMP/reloads.done")
	[ "${now:-0}" -gt "$1" ]
}

t_rmmod_under_reload()
{
	local i pid

	load_keep < /dev/null
	flood 9
	echo 0 > "$TMP/reloads.done"
	_reloads &
	pid=$!
	for i in 1 2 3 4 5; do
		rmmod nft_offload || fail "cannot unload the module"
		expect "ledger: entries" "$(ledger entries)" 0
		expect "ledger: bound" "$(ledger bound)" 0
		flood_more 20
		modprobe nft_offload || fail "cannot load the module again"
		offload 1
		wait_until _reload_beyond $((4 * i)) || fail "the reloads hang"
	done
	wait "$pid" || fail "a reload failed"
	expect_exact
	done_with
}

# The device and the hardware's own driver go as well.
t_nothing_pins_the_driver()
{
	load_keep < /dev/null
	nft_do list ruleset > /dev/null
	echo "$SUT_ID" > "$NSIM_BUS"/del_device
	echo "$FAR_ID" > "$NSIM_BUS"/del_device
	expect_ledger_empty
	rmmod netdevsim || fail "netdevsim is in use: $(< "$NSIM_REFS")"
	modprobe netdevsim
	rmmod nft_offload || fail "nft_offload is in use"
	nft_do flush ruleset
	modprobe nft_offload
	expect_ledger_empty
}

TESTS="other_kind_of_device target_of_flags_offload tc_comes_later flush_ruleset
	dormant reload owner_goes owner_of_eight device_added rename rename_wildcard
	device_moves netns_exit rmmod_any_state rmmod_open_files rmmod_under_reload
	nothing_pins_the_driver"

ktap_print_header
setup_pair
need_offload
need_tools nsenter tc timeout
modprobe -q dummy
# Can a chain be bound to the name of a device that is not there yet?
by_name=
if nft 'table netdev t { chain c {
	  type filter hook ingress device away1 priority 0; }; }' 2> /dev/null; then
	by_name=1
fi
nsim_refs=$(< "$NSIM_REFS")
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
offload 1
for t in $TESTS; do
	if [ "$t" = rename_wildcard ] && [ -z "$by_name" ]; then
		subtest_skip "$t" "chains are bound to devices, not to names"
	else
		run_subtests "$t"
	fi
done
ktap_finished
