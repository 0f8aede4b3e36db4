#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Whatever is written to the sysctl or to the simulated hardware's knobs, however
# odd a ruleset, and whoever asks: what is wrong is an error, the rest works, and
# the packets that a rule takes are taken all the time, in hardware where they
# were before. (A complaint of the kernel turns the test red by itself.)

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5
DUMMIES=40
# shellcheck disable=SC2034
KEEP_LAST=2147483647
_n=0

printf -v LONG '%5000s' ''
LONG=${LONG// /1}
printf -v NAME '%254s' ''
NAME=n${NAME// /a}

# expect_verdict PACKETS: of N to port 9 the hardware drops so many, the rule in
# software the rest
expect_verdict()
{
	local drops all

	drops=$(hw_stat drop)
	all=$(nft_counter keep)
	_n=$((_n + 1))
	send 9 n"$_n"
	flush_wire
	expect "packets dropped in hardware" $(($(hw_stat drop) - drops)) "$1"
	expect "packets taken" $(($(nft_counter keep) - all)) "$N"
	expect "packets that escaped" "$(nft_counter escaped)" 0
}

# try_write FILE TEXT: in one piece; the error goes to $TMP/err
try_write()
{
	{ printf '%s' "$2" > "$1"; } 2> "$TMP/err"
}

t_sysctl()
{
	local on v

	load_keep < /dev/null
	for on in 0 1; do
		offload "$on"
		for v in x 1x "-" - -1 3 4 32768 65537 2147483648 4294967297 \
			 18446744073709551617 1.0 0.5 on $'\n' ' ' $'\t\n' \
			 "$LONG" "-$LONG" $'\xff\xfe' '%s%n' "1;0"; do
			! try_write "$SYSCTL_FILE" "$v" ||
				fail "$SYSCTL took '${v:0:30}'"
			expect "value after '${v:0:30}'" "$(< "$SYSCTL_FILE")" "$on"
		done
		expect_verdict $((on * N))
	done
}

# Every knob there is. What only a number can be must refuse everything else;
# what happens to be valid is taken back.
t_debugfs()
{
	local dir file old v

	load_keep < /dev/null
	for dir in "$HW0" "$HW1"; do
		for file in "$dir"/*; do
			old=$(< "$file")
			for v in x "1x" "x 5" "5 x" -x $'\n\n' "$LONG" "-$LONG" \
				 "99999999999999999999 99999999999999999999" \
				 '%s%n' $'\xff\xfe' "1 2 3 4 5"; do
				! try_write "$file" "$v" ||
					fail "${file##*/} took '${v:0:30}'"
			done
			case $file in
			*/table|*/stats)
				! try_write "$file" 0 || fail "$file was written" ;;
			*)	expect "${file##*/}" "$(< "$file")" "$old"
				for v in -1 0 1 4294967295 4294967296 \
					 "0 0" "-1 -1" "1 -5000" "1 5" "4294967295 1"; do
					try_write "$file" "$v"
				done
				# What it has injected stays readable.
				try_write "$file" "${old% injected *}"
				expect "${file##*/} afterwards" "$(< "$file")" "$old" ;;
			esac
		done
	done
	for v in x 0 -1; do
		! try_write "$LEDGER" "$v" || fail "the ledger was written"
	done
	expect_verdict "$N"
}

# odd WHAT HARDWARE-PACKETS: a ruleset from stdin beside the usual one
odd()
{
	load_keep
	expect_verdict "$2"
	[ -z "$_t_bad" ] || ktap_print_msg "... with $1"
}

t_names_and_priorities()
{
	local hook="type filter hook ingress device sut0 priority"

	odd "long names" "$N" <<-END
		table netdev $NAME {
			chain $NAME {
				type filter hook ingress device sut0 priority -2147483648;
				udp dport 10 counter drop comment "${NAME:0:127}"
				udp dport 11 counter drop
			}
		}
	END
	grep -q "^$NAME $NAME [0-9]* sut0 hardware [0-9]* " "$PROC" ||
		fail "the listing lacks the long names: $(cut -c1-600 "$PROC")"
	# the reason names chain and rule, which must fit
	odd "long names in a reason" 0 <<-END
		table netdev $NAME {
			chain $NAME {
				type filter hook ingress device sut0 priority -2147483648;
				udp dport { 10, 11 } counter drop
			}
		}
	END
	expect_why keep "^behind rule [0-9]+ of chain $NAME: set lookup cannot be offloaded\$"
	odd "priorities at the ends" "$N" <<-END
		table netdev p {
			chain a { $hook -2147483648; udp dport 11 drop; }
			chain b { $hook -32769; udp dport 12 drop; }
			chain c { $hook -32768; udp dport 13 drop; }
			chain d { $hook 32767; udp dport 14 drop; }
			chain e { $hook 32768; udp dport 15 drop; }
			chain f { $hook 2147483646; udp dport 16 drop; }
		}
	END
	expect "order of the entries" "$(hw_list 'dport=([0-9]+)')" \
	       "11 12 13 9 14 15 16 "
}

t_shapes()
{
	local i

	odd "many empty chains" "$N" < <(
		echo "table netdev e {"
		for ((i = 0; i < 60; i++)); do
			echo "chain c$i {"
			echo "type filter hook ingress device sut0 priority $((i % 7 - 3)); }"
			echo "chain d$i { }"
		done
		echo "}")
	odd "chains with the same priority" "$N" < <(
		echo "table netdev e {"
		for ((i = 0; i < 20; i++)); do
			echo "chain c$i {"
			echo "type filter hook ingress devices = { sut0, sut1 } priority 0;"
			echo "udp dport $((100 + i)) drop; }"
		done
		echo "}")
	expect_entries 21
	odd "nested jumps in front" 0 < <(
		echo "table netdev j {"
		echo "chain j13 { udp dport 10 drop; }"
		for ((i = 12; i >= 0; i--)); do
			echo "chain j$i { jump j$((i + 1)); goto j$((i + 1)); }"
		done
		echo "chain b { type filter hook ingress device sut0 priority -1; jump j0; }"
		echo "}")
	odd "maps in front" 0 <<-END
		table netdev m {
			map v {
				type inet_service : verdict; elements = { 10 : drop, 11 : accept };
			}
			set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }
			chain b {
				type filter hook ingress device sut0 priority -1;
				ip saddr @s drop
				udp dport vmap @v
				meta l4proto . ip saddr vmap { 6 . 192.0.2.77 : drop }
			}
		}
	END
	odd "two thousand rules" "$N" < <(
		echo "table netdev r { chain c { type filter hook ingress device sut0 priority 1;"
		for ((i = 0; i < 2000; i++)); do
			echo "udp dport $((1000 + i)) drop"
		done
		echo "}; }")
	expect "entries, as many as hardware has room for" \
	       "$(hw_stat entries)" "$(< "$HW0/capacity")"
	odd "raw payloads" 0 <<-END
		table netdev x {
			chain c {
				type filter hook ingress device sut0 priority -1;
				udp dport 200 @th,0,16 1 @th,16,8 2 @nh,7,3 1 drop
				@ll,0,4 0xf @ll,96,128 1 drop
			}
		}
	END
	odd "a device without hardware" "$N" <<-END
		table netdev l {
			chain c {
				type filter hook ingress device lo priority 0;
				udp dport 9 drop
			}
		}
	END
}

t_many_devices()
{
	local i devs=sut0

	for ((i = 0; i < DUMMIES; i++)); do
		echo "link add dum$i type dummy"
		devs+=", dum$i"
	done > "$TMP/dummies"
	ip -batch "$TMP/dummies" || fail "cannot create the devices"
	odd "many devices" "$N" <<-END
		table netdev d {
			chain c {
				type filter hook ingress devices = { $devs } priority 5;
				udp dport 10 counter drop comment "all"
			}
		}
	END
	expect "devices listed" "$(grep -c '^d c .* software ' "$PROC")" "$DUMMIES"
	sed -i 's/add \(dum[0-9]*\) type dummy/del \1/' "$TMP/dummies"
	ip -batch "$TMP/dummies" || fail "cannot delete the devices"
	expect_verdict "$N"
}

# What nf_tables refuses must leave everything as it was.
t_refused_rulesets()
{
	local i loop

	# A chain that jumps to itself.
	loop="add rule netdev keep l jump l; add rule netdev keep c jump l"
	load_keep < /dev/null
	while IFS= read -r i; do
		if nft "$i" 2> "$TMP/nft.err"; then
			fail "nft took: ${i:0:60}"
		fi
	done <<-END
		add rule netdev keep c udp dport 10 drop; add rule netdev keep nowhere drop
		delete chain netdev keep c; add rule netdev keep c udp dport 10 drop
		add chain netdev keep x { type nat hook ingress device sut0 priority 0; }
		add chain netdev keep ${NAME}b
		flush chain netdev keep c; add chain netdev keep l; $loop
		add table netdev keep { flags dormant; }; add rule netdev keep c jump nowhere
	END
	expect_verdict "$N"
}

# as_nobody COMMANDS, or as_nobody -n COMMANDS with a network namespace of its
# own: as root of a user namespace that belongs to a nobody
as_nobody()
{
	local net=''

	[ "$1" != -n ] || { net="unshare -n"; shift; }
	# The owner of /proc/net is known only if it is mapped by then.
	# shellcheck disable=SC2086
	unshare -S 65534 -G 65534 unshare -U -r $net bash -c "$1" 2>&1
}

t_foreign_namespace()
{
	local got

	load_keep < /dev/null
	got=$(as_nobody "
		echo 0 > $SYSCTL_FILE && echo DONE: sysctl written
		cat $PROC > /dev/null && echo DONE: listing read
		nft list ruleset | grep . && echo DONE: ruleset read
		nft flush ruleset && echo DONE: ruleset flushed
		cat $HW0/table && echo DONE: hardware read
		echo 0 > $HW0/capacity && echo DONE: capacity set
		echo 99 1 > $NSIM_BUS/new_device && echo DONE: device made
		true")
	! grep DONE: <<< "$got" || fail "nobody may do the above"
	[ "$(grep -c "Permission denied\|Operation not permitted" <<< "$got")" -ge 5 ] ||
		fail "said: $got"
	expect "value" "$(< "$SYSCTL_FILE")" 1
	expect_verdict "$N"
}

t_own_namespace()
{
	local got

	got=$(as_nobody -n "
		cat $SYSCTL_FILE
		nft 'table netdev t { chain c {
			type filter hook ingress device lo priority 0; udp dport 9 drop; }; }'
		echo 1 > $SYSCTL_FILE
		cat $SYSCTL_FILE
		echo 7 2> /dev/null > $SYSCTL_FILE || echo refused
		cat $SYSCTL_FILE
		grep -v '^#' $PROC")
	expect "what its root sees" "${got//$'\n'/|}" \
	       "0|1|refused|1|t c 2 lo software - 0 0 - the device has no offload"
	expect_verdict "$N"
}

t_nothing_left()
{
	load < /dev/null
	expect_entries 0
	offload 0
	expect_ledger_empty
}

TESTS="sysctl debugfs names_and_priorities shapes many_devices refused_rulesets
	foreign_namespace own_namespace nothing_left"

ktap_print_header
setup_pair
need_offload
need_tools grep sed
modprobe -q dummy
# shellcheck disable=SC2086
ktap_set_plan "$(wc -w <<< $TESTS)"
# shellcheck disable=SC2086
run_subtests $TESTS
ktap_finished
