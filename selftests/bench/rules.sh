#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# Rules per second through one transaction: with offload off, on, and with
# mainline's own "flags offload". The clock runs from the exec of nft until the
# hardware has every rule, if it is to have them.
#
# Figures come out as "# figure NAME VALUE"; times are microseconds.

# shellcheck source=lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=offload_lib.sh
. "$(dirname "$0")/../offload_lib.sh"

SIZES="10 100 1000 10000"
declare -A CHAIN=(
	[off]="type filter hook ingress device sut0 priority 0;"
	[on]="type filter hook ingress device sut0 priority 0;"
	[mainline]="type filter hook ingress device sut0 priority 1; flags offload;"
)

# rules_file N: one transaction with N rules that hardware can take
rules_file()
{
	local i

	{
		echo "table netdev b { chain c {"
		for ((i = 0; i < $1; i++)); do
			echo "ip saddr 10.$((i >> 16)).$((i >> 8 & 255)).$((i & 255)) udp dport $((i % 50000 + 10)) drop"
		done
		echo "}; }"
	} > "$TMP/rules.$1"
}

# Sets $entries.
entries()
{
	local name value

	while read -r name value; do
		[ "$name" != entries ] || entries=$value
	done < "$HW0/stats"
}

has_entries()
{
	entries
	[ "$entries" -eq "$1" ]
}

# once MODE N: sets $took
once()
{
	local mode=$1 n=$2 want=0 start

	[ "$mode" = off ] || want=$n
	echo "table netdev b { chain c { ${CHAIN[$mode]} }; }" | load
	start=${EPOCHREALTIME/[.,]/}
	nft -f "$TMP/rules.$n" 2> "$TMP/nft.err" ||
		fail "$mode, $n rules: $(< "$TMP/nft.err")"
	if ! has_entries "$want"; then
		wait_until has_entries "$want" ||
			fail "$mode: $entries entries, expected $want"
	fi
	took=$((${EPOCHREALTIME/[.,]/} - start))
}

# measure MODE N: median of some rounds
measure()
{
	local mode=$1 n=$2 rounds=5 i all=()

	[ "$n" -lt 10000 ] || rounds=3
	for ((i = 0; i < rounds; i++)); do
		once "$mode" "$n"
		all+=("$took")
	done
	mapfile -t all < <(printf '%s\n' "${all[@]}" | sort -n)
	ktap_print_msg "figure $mode.$n ${all[rounds / 2]}"
}

t_mode()
{
	local n

	[ "$1" != on ] || offload 1
	once "$1" 100
	for n in $SIZES; do
		measure "$1" "$n"
	done
	load < /dev/null
	offload 0
	wait_until has_entries 0 || fail "entries are left"
}

ktap_print_header
setup_pair
need_offload
ktap_set_plan 3
echo 20000 > "$HW0/capacity"
for n in $SIZES; do
	rules_file "$n"
done
for mode in off on mainline; do
	subtest "$mode" t_mode $mode
done
ktap_finished
