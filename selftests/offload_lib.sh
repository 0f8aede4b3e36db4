# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Helpers for the module under test, on top of lib.sh: its sysctl, its listing,
# and the ruleset without counters.

SYSCTL=net.netfilter.nf_flow_offload
PROC=/proc/net/nft_offload

# offload 0|1, in the SUT's netns
offload()
{
	sut sysctl -qw "$SYSCTL=$1" || fail "cannot set $SYSCTL to $1"
}

need_offload()
{
	modprobe -q nft_offload
	sut test -e $PROC ||
		ktap_bail "no $PROC: nft_offload.ko is not loaded, see dmesg"
}

# load: a ruleset from stdin instead of the one there is, in one transaction
load()
{
	{ echo "flush ruleset"; cat; } > "$TMP/rules"
	sut nft -f "$TMP/rules" 2> "$TMP/nft.err" ||
		fail "nft -f: $(cat "$TMP/nft.err")"
}

# nft_do COMMAND...: changes the SUT's ruleset
nft_do()
{
	sut nft "$@" 2> "$TMP/nft.err" || fail "nft $*: $(cat "$TMP/nft.err")"
}

# The ruleset as text, handles included, counters not.
ruleset()
{
	sut nft -s -a list ruleset
}

# handle COMMENT: of the SUT's rule with it
handle()
{
	sut nft -j -a list ruleset | jq --arg c "$1" \
		'.nftables[].rule | select(. and .comment == $c) | .handle'
}

# listed COMMENT [DEV]: the rule's line in /proc/net/nft_offload
listed()
{
	local h dev=${2:-sut0}

	h=$(handle "$1")
	# Reading it also waits for a device that could not be bound at once.
	sut awk -v h="$h" -v dev="$dev" '$3 == h && $4 == dev' $PROC
}

# state COMMENT [DEV]: hardware, software, failed, or nothing
state()
{
	listed "$@" | cut -d' ' -f5
}

# why COMMENT [DEV]: the words at the end of its line
why()
{
	listed "$@" | cut -d' ' -f9-
}

# expect_state COMMENT STATE [DEV]
expect_state()
{
	expect "state of rule $1" "$(state "$1" "${3:-sut0}")" "$2"
}

# expect_why COMMENT REGEX [DEV]: the reason, with %NAME% for the handle of NAME
expect_why()
{
	local got re=$2 name

	got=$(why "$1" "${3:-sut0}")
	while [[ $re =~ %([a-z0-9]+)% ]]; do
		name=${BASH_REMATCH[1]}
		re=${re//"%$name%"/$(handle "$name")}
	done
	[[ $got =~ $re ]] || fail "reason of rule $1: '$got', expected '$re'"
}

# listed_packets COMMENT: what the listing says hardware has counted
listed_packets()
{
	listed "$1" | cut -d' ' -f7
}

# expect_entries WANTED [PORT]
expect_entries()
{
	sut cat $PROC > /dev/null	# waits for pending work
	expect "entries in hardware" "$(hw_stat entries "${2:-0}")" "$1"
}

expect_ledger_empty()
{
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
}

# Packets all over the place until flood_stop; how many is in $TMP/flood.TAG.
# flood PORT TAG
flood()
{
	# shellcheck disable=SC2016
	far bash -c '
		exec 3<> "/dev/udp/$0/$1" || exit 1
		trap "stop=1" TERM
		for ((i = 0; !stop; i++)); do
			printf "%s:%06d;\n" "$2" $i >&3
			((i % 16)) || echo $i > "$3.now"
		done
		echo $i > "$3"
	' "$SUT_IP" "$1" "$2" "$TMP/flood.$2" &
	_flood_pid=$!
	_flood_tag=$2
	wait_until test -s "$TMP/flood.$2.now" || fail "no packets are sent"
}

flood_sent()
{
	cat "$TMP/flood.$_flood_tag.now"
}

_flood_beyond()
{
	[ "$(flood_sent)" -gt "$1" ]
}

# flood_more COUNT: until that many packets more are sent
flood_more()
{
	local now

	now=$(flood_sent)
	wait_until _flood_beyond $((now + $1)) || fail "the flood has stopped"
}

# flood_stop: prints the number of packets
flood_stop()
{
	# ip netns exec has become the shell
	kill -TERM $_flood_pid
	wait $_flood_pid 2> /dev/null
	cat "$TMP/flood.$_flood_tag"
}
