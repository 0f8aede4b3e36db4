# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Helpers for the module under test, on top of lib.sh: its sysctl, its listing,
# the ruleset without counters, and packets without end.

SYSCTL=net.netfilter.nf_flow_offload
SYSCTL_FILE=/proc/sys/${SYSCTL//.//}
PROC=/proc/net/nft_offload

# offload 0|1
offload()
{
	echo "$1" > "$SYSCTL_FILE" || fail "cannot set $SYSCTL to $1"
}

need_offload()
{
	modprobe -q nft_offload
	test -e $PROC ||
		ktap_bail "no $PROC: nft_offload.ko is not loaded, see dmesg"
}

# load: a ruleset from stdin instead of the one there is, in one transaction
load()
{
	{ echo "flush ruleset"; cat; } > "$TMP/rules"
	nft -f "$TMP/rules" 2> "$TMP/nft.err" ||
		fail "nft -f: $(cat "$TMP/nft.err")"
}

# load_keep: tables from stdin after "keep", which subtests never touch: it takes
# each packet to port 9, in hardware or in software. Its last chain has the
# priority KEEP_LAST.
KEEP_LAST=500
load_keep()
{
	load <<-END
		table netdev keep {
			chain c {
				type filter hook ingress devices = { sut0, sut1 } priority 0;
				udp dport 9 counter drop comment "keep"
			}
			chain last {
				type filter hook ingress device sut0 priority $KEEP_LAST;
				udp dport 9 counter comment "escaped"
			}
		}
		$(cat)
	END
}

# nft COMMAND...: forgets where rules have been
nft()
{
	[ -z "$TMP" ] || : > "$TMP/places"
	command nft "$@"
}

# nft_do COMMAND...: changes the ruleset
nft_do()
{
	nft "$@" 2> "$TMP/nft.err" || fail "nft $*: $(cat "$TMP/nft.err")"
}

# The ruleset as text, handles included, counters not.
ruleset()
{
	command nft -s -a list ruleset
}

# _place COMMENT: sets REPLY to "TABLE CHAIN HANDLE" of the rule with it
_place()
{
	local line lines table chain

	# Who changes the ruleset without nft() leaves a list that is too old.
	_places_have "$1" || command nft -a list ruleset > "$TMP/places"
	mapfile -t lines < "$TMP/places"
	REPLY=
	for line in "${lines[@]}"; do
		case $line in
		"table netdev "*)
			line=${line#table netdev }
			table=${line%% *} ;;
		$'\tchain '*)
			line=${line#*chain }
			chain=${line%% *} ;;
		*" comment \"$1\" # handle "*)
			REPLY="$table $chain ${line##* }" ;;
		esac
	done
}

_places_have()
{
	local places

	[ -s "$TMP/places" ] || return
	read -r -d '' places < "$TMP/places"
	[[ $places = *" comment \"$1\" # handle "* ]]
}

# handle COMMENT: of the rule with it
handle()
{
	_place "$1"
	echo "${REPLY##* }"
}

# listed COMMENT [DEV]: sets REPLY to the rule's line in /proc/net/nft_offload,
# and LISTED to its words
listed()
{
	local place line lines

	_place "$1"
	place=$REPLY
	REPLY=
	# Reading it also waits for a device that could not be bound at once.
	mapfile -t lines < "$PROC"
	for line in "${lines[@]}"; do
		[[ "$line" != "$place ${2:-sut0} "* ]] || REPLY=$line
	done
	read -r -a LISTED <<< "$REPLY"
}

# state COMMENT [DEV]: hardware, software, failed, or nothing
state()
{
	listed "$@"
	echo "${LISTED[4]:-}"
}

# expect_state COMMENT STATE [DEV]
expect_state()
{
	listed "$1" "${3:-sut0}"
	expect "state of rule $1" "${LISTED[4]:-}" "$2"
}

# expect_why COMMENT REGEX [DEV]: the reason, with %NAME% for the handle of NAME
expect_why()
{
	local got re=$2 name

	listed "$1" "${3:-sut0}"
	got=${LISTED[*]:9}
	while [[ $re =~ %([a-z0-9]+)% ]]; do
		name=${BASH_REMATCH[1]}
		_place "$name"
		re=${re//"%$name%"/${REPLY##* }}
	done
	[[ $got =~ $re ]] || fail "reason of rule $1: '$got', expected '$re'"
}

# listed_packets COMMENT: what the listing says hardware has counted
listed_packets()
{
	listed "$1"
	echo "${LISTED[6]:-}"
}

# hw_list REGEX [PORT]: what it captures in the lines of a port's table, in order
hw_list()
{
	local line lines list='' dir=$HW0

	[ "${2:-0}" = 0 ] || dir=$HW1
	mapfile -t lines < "$dir/table"
	for line in "${lines[@]}"; do
		[[ ! "$line" =~ $1 ]] || list+="${BASH_REMATCH[1]} "
	done
	echo "$list"
}

# expect_entries WANTED [PORT]
expect_entries()
{
	mapfile < "$PROC"	# waits for pending work
	expect "entries in hardware" "$(hw_stat entries "${2:-0}")" "$1"
}

expect_ledger_empty()
{
	expect "ledger: entries" "$(ledger entries)" 0
	expect "ledger: bound" "$(ledger bound)" 0
	expect "ledger: stale calls" "$(ledger stale)" 0
	expect "ledger: purged entries" "$(ledger purged)" 0
}

# sut1, which a test has moved to the far end's namespace, comes home
move_back()
{
	far "ip link set sut1 netns $$" || fail "cannot move sut1 back"
	ip link set sut1 up
	neighbours > "$TMP/neigh.ip"
	ip addr add 198.51.100.2/24 dev sut1 && ip -force -batch "$TMP/neigh.ip"
	ethtool -K sut1 hw-tc-offload on
	wait_until carrier_up 1 || fail "no carrier on sut1"
}

# expect_seen TAG PACKETS: by the tap of sut0, which is before any hook
expect_seen()
{
	expect "packets $1 that the host saw" "$(tap_count sut0 "${t:?}.$1")" "$2"
}

# send PORT TAG: $N datagrams
send()
{
	send_udp "$N" "$1" "$t.$2"
}

# policy ARG...: of nfoctl policy set
policy()
{
	nfoctl policy set "$@" 2> "$TMP/policy.err" ||
		fail "policy set $*: $(< "$TMP/policy.err")"
}

# _little_endian BYTES:NUMBER...: prints them
_little_endian()
{
	local word size value text=

	for word; do
		size=${word%:*}
		for ((value = ${word#*:}; size; size--, value >>= 8)); do
			printf -v word '\\x%02x' $((value & 255))
			text+=$word
		done
	done
	printf '%b' "$text"
}

# xdp_on DEV MODE: an XDP program that passes every packet; MODE: xdpgeneric or
# xdpdrv
xdp_on()
{
	{
		# ELF header: relocatable, for BPF, 4 section headers at 0x98
		printf '\x7fELF'
		_little_endian 1:2 1:1 1:1 1:0 8:0 2:1 2:247 4:1 8:0 8:0 8:0x98 \
			4:0 2:64 2:0 2:0 2:64 2:4 2:3
		# 0x40: r0 = XDP_PASS; exit
		_little_endian 4:0xb7 4:2 4:0x95 4:0
		# 0x50: symbols: none, and the function "xdp" in section 1
		_little_endian 8:0 8:0 8:0 4:1 1:0x12 1:0 2:1 8:0 8:16
		# 0x80: names
		printf '\0xdp\0.symtab\0.strtab\0\0\0\0'
		# 0x98: sections: none, code, symbols, names
		_little_endian 8:0 8:0 8:0 8:0 8:0 8:0 8:0 8:0
		_little_endian 4:1 4:1 8:6 8:0 8:0x40 8:16 4:0 4:0 8:8 8:0
		_little_endian 4:5 4:2 8:0 8:0 8:0x50 8:48 4:3 4:1 8:8 8:24
		_little_endian 4:13 4:3 8:0 8:0 8:0x80 8:21 4:0 4:0 8:1 8:0
	} > "$TMP/xdp.o"
	ip link set dev "$1" "$2" obj "$TMP/xdp.o" sec xdp 2> "$TMP/xdp.err" ||
		fail "no XDP program: $(< "$TMP/xdp.err")"
}

# Runs in the far end's shell.
_flood()
{
	local i stop=

	exec 3<> "/dev/udp/$1/$2" || exit 1
	trap 'stop=1' TERM
	for ((i = 0; !stop; i++)); do
		printf 'flood;' >&3
		((i % 16)) || echo $i > "$3"
	done
	echo $i > "$3"
}

# flood PORT: datagrams without end, until flood_stop
flood()
{
	rm -f "$TMP/flood"
	far "$(declare -f _flood); _flood $SUT_IP $1 $TMP/flood > /dev/null 2>&1 &"
	wait_until test -s "$TMP/flood" || fail "no packets are sent"
}

_flood_beyond()
{
	local now

	now=$(< "$TMP/flood")
	[ "${now:-0}" -gt "$1" ]
}

# flood_more COUNT: until that many packets more are sent
flood_more()
{
	local now

	now=$(< "$TMP/flood")
	wait_until _flood_beyond $((${now:-0} + $1)) || fail "the flood has stopped"
}

# flood_stop: prints the number of packets
flood_stop()
{
	# shellcheck disable=SC2016
	far 'kill -TERM %_flood; wait %_flood' > /dev/null 2>&1
	cat "$TMP/flood"
}
