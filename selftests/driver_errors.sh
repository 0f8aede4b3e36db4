#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Each command of the driver fails once, while rules come and go: the ruleset
# loads in any case, no verdict changes, and what could not be done is told or
# made good.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/offload_lib.sh"

N=5
EIO=5
EAGAIN=11
ENOMEM=12
before=0

# knob NAME NTH ERRNO: the NTH such command from now on fails
knob()
{
	before=$(injected "$1")
	echo "$2 $3" > "$HW0/$1" || fail "cannot write to $1"
}

# A failure that was not injected proves nothing.
expect_injected()
{
	expect "failures of $1" $(($(injected "$1") - before)) "$2"
}

load_rules()
{
	load <<-END
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 0;
				udp dport 9 counter drop comment "nine"
				udp dport 10 counter drop comment "ten"
				udp dport 11 counter drop comment "eleven"
				udp dport { 9, 10, 11 } counter comment "escaped"
			}
		}
	END
}

# All three rules that drop are in hardware.
load_offloaded()
{
	offload 0
	load_rules
	offload 1
	expect_entries 3
}

# expect_dropped PORT TAG: whether in hardware or in software
expect_dropped()
{
	local before

	before=$(nft_counter escaped)
	send "$1" "$2"
	flush_wire
	expect "packets to $1 that escaped" "$(nft_counter escaped)" "$before"
}

expect_passes()
{
	local before

	before=$(nft_counter escaped)
	send "$1" "$2"
	flush_wire
	expect "packets to $1 that the last rule saw" \
		"$(($(nft_counter escaped) - before))" "$N"
}

t_bind()
{
	offload 0
	load_rules
	knob fail_bind 1 "$ENOMEM"
	offload 1
	expect_injected fail_bind 1
	expect_state nine software
	expect_why nine "as it was told to"
	expect_dropped 9 bind
	# The next look at the device finds the driver well again.
	offload 1
	expect_state nine hardware
	expect_entries 3
}

t_replace()
{
	offload 0
	load_rules
	knob fail_replace 2 "$EIO"
	offload 1
	expect_injected fail_replace 1
	expect_state nine hardware
	expect_state ten failed
	expect_state eleven software
	expect_why ten "error -$EIO"
	expect_dropped 9 replace9
	expect_dropped 10 replace10
	expect_dropped 11 replace11
	offload 1
	expect_state eleven hardware
	expect_entries 3
}

t_destroy()
{
	local purged

	load_offloaded
	purged=$(ledger purged)
	knob fail_destroy 1 "$EIO"
	nft_do delete rule netdev t c handle "$(handle ten)"
	expect_injected fail_destroy 1
	# With the block, so that the one it keeps never stands alone.
	expect "entries that the driver had to purge" \
		"$(($(ledger purged) - purged))" 3
	expect_passes 10 destroy10
	expect_dropped 9 destroy9
	expect_dropped 11 destroy11
	expect_state nine hardware
	expect_state eleven hardware
	expect_entries 2
}

t_destroy_off()
{
	load_offloaded
	knob fail_destroy 2 "$EIO"
	offload 0
	expect_injected fail_destroy 1
	expect "entries" "$(ledger entries)" 0
	expect "bindings" "$(ledger bound)" 0
	expect_dropped 9 off
}

t_unbind()
{
	load_offloaded
	knob fail_unbind 1 "$EIO"
	offload 0
	expect_injected fail_unbind 1
	expect "entries" "$(ledger entries)" 0
	expect "bindings" "$(ledger bound)" 0
	expect_dropped 9 unbind
	offload 1
	expect_state nine hardware
	expect_entries 3
}

t_stats()
{
	load_offloaded
	send 9 stats
	flush_wire
	knob fail_stats 1 "$EIO"
	listed nine
	expect_injected fail_stats 1
	# Nothing is lost: it comes with the next answer.
	expect "packets" "$(nft_counter nine)" "$N"
	expect_state nine hardware
}

# To nf_tables this error of a driver would mean to begin again, for ever.
t_try_again()
{
	local cmd

	for cmd in bind replace; do
		offload 0
		load < /dev/null
		offload 2
		knob "fail_$cmd" 1 "$EAGAIN 1000"
		if timeout 60 nft -f - 2> "$TMP/nft" <<-END
			table netdev t {
				chain c {
					type filter hook ingress device sut0 priority 0;
					udp dport 9 counter drop comment "nine"
				}
			}
		END
		then
			fail "strict mode takes what the driver refuses"
		fi
		grep -q 'resource busy' "$TMP/nft" || fail "$cmd: $(< "$TMP/nft")"
		expect_injected "fail_$cmd" 1
		echo 0 > "$HW0/fail_$cmd"
	done
	load_offloaded
}

TESTS="bind replace destroy destroy_off unbind stats try_again"

ktap_print_header
setup_pair
need_offload
# shellcheck disable=SC2086
set -- $TESTS
ktap_set_plan $#
run_subtests "$@"
ktap_finished
