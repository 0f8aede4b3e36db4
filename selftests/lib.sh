# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Helpers of the nft_offload selftests: KTAP, a pair of linked netdevsim
# devices, packets of a chosen kind in an exact number, and three ways to see
# where they went: the simulated hardware's own table, the counters of nft, and
# AF_PACKET taps.
#
#     netns $FAR                          netns of the script (the SUT)
#     far0  192.0.2.1  2001:db8::1   <->  sut0  192.0.2.2  2001:db8::2   $HW0
#     far1  198.51.100.1             <->  sut1  198.51.100.2             $HW1
#
# Sourcing this file moves the script into a network namespace of its own.
#
# Packets carry a tag of the test's choice in their payload, so that a tap can
# tell them from everything else.
#
# In an emulated guest a test spends its time on programs, on subshells, and on
# bash's "read", which goes back in a file at the end of each line: in one of
# proc or debugfs all the lines before are made again. So programs are started
# as rarely as possible, and such files are read with mapfile.

KSFT_PASS=0
KSFT_FAIL=1
KSFT_SKIP=4

NSIM_BUS=/sys/bus/netdevsim
NSIM_DEBUGFS=/sys/kernel/debug/netdevsim
LEDGER=$NSIM_DEBUGFS/hwft_ledger

# Milliseconds to wait for something that must happen. Generous: it is used up
# only by a failure, and the guest may be an emulated debug kernel.
: "${DEADLINE_MS:=20000}"

FAR=far-$$
SUT_ID=$((10000 + $$ % 10000))
FAR_ID=$((30000 + $$ % 10000))
HW0=$NSIM_DEBUGFS/netdevsim$SUT_ID/ports/0/hwft
HW1=$NSIM_DEBUGFS/netdevsim$SUT_ID/ports/1/hwft
TMP=

FAR_IP=192.0.2.1
SUT_IP=192.0.2.2
FAR_IP6=2001:db8::1
SUT_IP6=2001:db8::2
FAR_MAC=02:00:00:00:00:01
SUT_MAC=02:00:00:00:00:02

### KTAP

_t_count=0
_t_failed=0
_t_skipped=0
_t_bad=

ktap_print_header()
{
	echo "TAP version 13"
}

ktap_set_plan()
{
	echo "1..$1"
	_t_plan=$1
}

ktap_print_msg()
{
	echo "# $*"
}

# The whole script cannot run here.
ktap_skip_all()
{
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

# The machine should have been able to, but something broke under the test.
ktap_bail()
{
	echo "Bail out! $*"
	exit $KSFT_FAIL
}

# subtest NAME FUNCTION [ARG...]: fails if FUNCTION calls fail or returns nonzero
subtest()
{
	local name=$1; shift

	_t_bad=
	_t_count=$((_t_count + 1))
	"$@" || fail "$1 returned $?"
	if [ -n "$_t_bad" ]; then
		_t_failed=$((_t_failed + 1))
		echo "not ok $_t_count $name"
	else
		echo "ok $_t_count $name"
	fi
}

subtest_skip()
{
	local name=$1; shift

	_t_count=$((_t_count + 1))
	_t_skipped=$((_t_skipped + 1))
	echo "ok $_t_count $name # SKIP $*"
}

# To be called last.
ktap_finished()
{
	echo "# Totals: pass:$((_t_count - _t_failed - _t_skipped))" \
	     "fail:$_t_failed skip:$_t_skipped"
	if [ "$_t_count" -ne "$_t_plan" ]; then
		ktap_print_msg "planned $_t_plan subtests, ran $_t_count"
		exit $KSFT_FAIL
	fi
	[ "$_t_failed" -eq 0 ] || exit $KSFT_FAIL
	[ "$_t_skipped" -lt "$_t_count" ] || exit $KSFT_SKIP
	exit $KSFT_PASS
}

fail()
{
	ktap_print_msg "$*"
	_t_bad=1
}

# expect WHAT GOT WANTED
expect()
{
	[ "$2" = "$3" ] || fail "$1: $2, expected $3"
}

need_tools()
{
	local tool

	for tool in "$@"; do
		type -P "$tool" > /dev/null || ktap_skip_all "needs $tool"
	done
}

### Waiting

# wait_until COMMAND...: until it succeeds, DEADLINE_MS at most
wait_until()
{
	local now start=${EPOCHREALTIME/[.,]/}

	while ! "$@"; do
		now=${EPOCHREALTIME/[.,]/}
		[ $(((now - start) / 1000)) -lt "$DEADLINE_MS" ] || return 1
	done
}

# wait_value WANTED COMMAND...: until COMMAND prints WANTED; complains itself
wait_value()
{
	local want=$1; shift

	wait_until _prints "$want" "$@" ||
		fail "$*: $("$@") after $DEADLINE_MS ms, expected $want"
}

_prints()
{
	local want=$1; shift

	[ "$("$@")" = "$want" ]
}

### What older kernels do not have

# kernel_before MAJOR MINOR
kernel_before()
{
	local release major minor

	read -r release < /proc/sys/kernel/osrelease
	IFS=.- read -r major minor _ <<< "$release"
	[ $((major * 1000 + minor)) -lt $(($1 * 1000 + $2)) ]
}

# lacks SUBTEST: what it needs is not here, no longer or not yet; says why
lacks()
{
	case ${0##*/}/$1 in
	hw_flowtable.sh/vlan|flowtable.sh/vlan*|flowtable.sh/stacked)
		kernel_before 5 13 || return
		echo "flows know no VLAN tags before 5.13"
		;;
	flowtable.sh/device_leaves)
		kernel_before 5 16 || return
		echo "devices have no egress chains before 5.16"
		;;
	flowtable_gone.sh/owner|lifetime.sh/owner_goes|lifetime.sh/owner_of_eight)
		kernel_before 5 12 || return
		echo "tables have no owners before 5.12"
		;;
	lifetime.sh/device_added)
		kernel_before 6 4 || return
		echo "devices cannot be added to a chain before 6.4"
		;;
	strict.sh/words|prefix.sh/odd_shape|prefix.sh/short_and_wide|\
	prefix.sh/stale_register)
		! type -P nfoctl > /dev/null || return
		echo "needs nfoctl"
		;;
	flowtable.sh/output_watched)
		! kernel_before 7 0 || return
		echo "flows leave by devices of their flow table only, since 7.0"
		;;
	prefix.sh/xdp|flowtable.sh/xdp_comes_first)
		[ ! -e /proc/sys/kernel/unprivileged_bpf_disabled ] || return
		echo "needs CONFIG_BPF_SYSCALL"
		;;
	*)	return 1 ;;
	esac
}

# run_subtests NAME...: t_NAME for each
run_subtests()
{
	local why

	# Packets carry its name.
	for t in "$@"; do
		if why=$(lacks "$t"); then
			subtest_skip "$t" "$why"
		else
			subtest "$t" "t_$t"
		fi
	done
}

# udp_flow_timeout SECONDS: how long an idle UDP flow of a flow table lives.
# Before 5.14 that is a constant. Prints what is in force.
udp_flow_timeout()
{
	local file=/proc/sys/net/netfilter/nf_flowtable_udp_timeout

	if [ -e "$file" ]; then
		echo "$1" > "$file"
		echo "$1"
	else
		echo 30
	fi
}

### The far end

# _ask WHOSE IN OUT COMMAND-LINE: of the shell behind the descriptors IN and OUT
_ask()
{
	local line

	printf '%s\necho "=far= $?"\n' "$4" >&"$2"
	while read -r line <&"$3"; do
		case $line in
		"=far= "*)	return "${line#=far= }" ;;
		*)		echo "$line" ;;
		esac
	done
	ktap_bail "the shell of $1 died at: $4"
}

# far COMMAND-LINE: in a shell that lives in the far end's namespace; that
# shell's variables and descriptors stay from one call to the next.
far()
{
	_ask "the far end" "$_far_in" "$_far_out" "$1"
}

### Setup

# del_stray ID: a netdevsim whose namespace goes. It moves to the initial one,
# which is that of sysfs. Kernels before 6.3 do not wait for that, and use the
# old namespace after it has been freed.
del_stray()
{
	if kernel_before 6 3; then
		wait_until _is_home "$NSIM_BUS/devices/netdevsim$1/net" ||
			fail "netdevsim$1 has not left its namespace"
	fi
	echo "$1" > "$NSIM_BUS"/del_device
}

_is_home()
{
	compgen -G "$1/*" > /dev/null
}

# _port_dump ID: lines "PORT IFINDEX NAME" for netdevsim ID, from ip -d -o link
_port_dump()
{
	local line re

	re='^([0-9]+): ([^:@]+)[:@].* portname p([0-9]+) '
	while read -r line; do
		[[ "$line " =~ $re ]] || continue
		# 5.10 does not name the parent; there is no other device here.
		[[ "$line " != *" parentdev "* ]] ||
			[[ "$line " = *" parentdev netdevsim$1 "* ]] || continue
		echo "$((BASH_REMATCH[3] - 1)) ${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
	done
}

# Sets SUT_IFINDEX and FAR_IFINDEX, by port.
_create_ports()
{
	local port ifindex name knob

	declare -gA SUT_IFINDEX FAR_IFINDEX

	# No packet that a test did not send; devices are born with these.
	for knob in accept_dad=0 router_solicitations=0 addr_gen_mode=1; do
		knob="echo ${knob#*=} > /proc/sys/net/ipv6/conf/default/${knob%=*}"
		eval "$knob" && far "$knob" || return 1
	done

	# A device is born in the namespace of the writer.
	echo "$SUT_ID 2" > $NSIM_BUS/new_device || return 1
	far "echo '$FAR_ID 2' > $NSIM_BUS/new_device" || return 1

	while read -r port ifindex name; do
		SUT_IFINDEX[$port]=$ifindex
		echo "link set $name name sut$port"
	done < <(ip -d -o link show | _port_dump $SUT_ID) > "$TMP/sut.ip"
	while read -r port ifindex name; do
		FAR_IFINDEX[$port]=$ifindex
		echo "link set $name name far$port"
	done < <(far "ip -d -o link show" | _port_dump $FAR_ID) > "$TMP/far.ip"
	[ ${#SUT_IFINDEX[@]} -eq 2 ] && [ ${#FAR_IFINDEX[@]} -eq 2 ]
}

_configure_ports()
{
	cat >> "$TMP/sut.ip" <<-END
		link set lo up
		link set sut0 address $SUT_MAC
		link set sut1 address 02:00:00:00:01:02
		addr add $SUT_IP/24 dev sut0
		addr add $SUT_IP6/64 dev sut0 nodad
		addr add 198.51.100.2/24 dev sut1
		link set sut0 up
		link set sut1 up
	END
	neighbours >> "$TMP/sut.ip"
	cat >> "$TMP/far.ip" <<-END
		link set lo up
		link set far0 address $FAR_MAC
		link set far1 address 02:00:00:00:01:01
		addr add $FAR_IP/24 dev far0
		addr add $FAR_IP6/64 dev far0 nodad
		addr add 198.51.100.1/24 dev far1
		link set far0 up
		link set far1 up
		neigh replace $SUT_IP lladdr $SUT_MAC dev far0 nud permanent
		neigh replace $SUT_IP6 lladdr $SUT_MAC dev far0 nud permanent
	END
	ip -batch "$TMP/sut.ip" && far "ip -batch $TMP/far.ip" || return 1
	# Errors that answer a test's packets would hit the sender's socket.
	far 'nft "table inet quiet { chain input {
			type filter hook input priority 0;
			icmp type destination-unreachable drop;
			icmpv6 type destination-unreachable drop; }; }"' || return 1
	ethtool -K sut0 hw-tc-offload on && ethtool -K sut1 hw-tc-offload on
}

# Permanent neighbours of the SUT's ports, which a port that goes down loses
neighbours()
{
	cat <<-END
		neigh replace $FAR_IP lladdr $FAR_MAC dev sut0 nud permanent
		neigh replace $FAR_IP6 lladdr $FAR_MAC dev sut0 nud permanent
		neigh replace 198.51.100.1 lladdr 02:00:00:00:01:01 dev sut1 nud permanent
	END
}

_link_ports()
{
	local port fd_sut fd_far ret=0

	exec {fd_sut}< /proc/self/ns/net {fd_far}< "/run/netns/$FAR" || return 1
	for port in 0 1; do
		echo "$fd_sut:${SUT_IFINDEX[$port]} $fd_far:${FAR_IFINDEX[$port]}" \
			> $NSIM_BUS/link_device || ret=1
	done
	exec {fd_sut}<&- {fd_far}<&-
	return $ret
}

# carrier_up PORT [NAME]: is sut PORT up?
carrier_up()
{
	[[ $(ip -o link show "${2:-sut$1}") = *LOWER_UP* ]]
}

# Tools, a directory and the driver, or the whole script is skipped.
_begin()
{
	need_tools nft ip ethtool socat
	TMP=$(mktemp -d) || ktap_bail "no temporary directory"
	modprobe -q netdevsim || [ -d $NSIM_BUS ] ||
		ktap_skip_all "needs netdevsim (CONFIG_NETDEVSIM)"
	[ -e $LEDGER ] ||
		ktap_skip_all "needs netdevsim with a flow table ($LEDGER)"
	declare -gA _ledger_before
	_ledger_before[stale]=$(_value_in $LEDGER stale)
	_ledger_before[purged]=$(_value_in $LEDGER purged)
}

# The picture above, or Bail out. cleanup() is left to run at exit.
setup_pair()
{
	trap cleanup EXIT
	_begin
	ip netns add "$FAR" || ktap_bail "cannot create a network namespace"
	coproc FARSH { exec ip netns exec "$FAR" bash 2>&1; }
	# Subshells do not get the descriptors of a coprocess.
	exec {_far_in}>&"${FARSH[1]}" {_far_out}<&"${FARSH[0]}"
	far true || ktap_bail "no shell at the far end"

	_create_ports || ktap_bail "cannot create netdevsim devices"
	_configure_ports || ktap_bail "cannot configure the ports"
	_link_ports || ktap_bail "cannot link the ports"
	wait_until carrier_up 0 || ktap_bail "no carrier on sut0"
	wait_until carrier_up 1 || ktap_bail "no carrier on sut1"

	_tap_port 0 sut0
	_tap far1 "far socat -u INTERFACE:far1,$_INCOMING_ONLY"
	_tap_port 1 sut1
	_raw_sender
}

# _tap_port PORT NAME: what comes in at sut0, and what goes out at sut1
_tap_port()
{
	if [ "$1" = 0 ]; then
		_tap sut0 "socat -u INTERFACE:$2,$_INCOMING_ONLY"
	else
		_tap sut1 "socat -u INTERFACE:$2"
	fi
}

# rename_port PORT NAME NEW: kernels before 6.2 want it to be down for that, and
# then it loses its neighbours, its IPv6 addresses and its tap. $renamed_down
# tells whether it had to be.
# shellcheck disable=SC2034
rename_port()
{
	local pid=${_tap_pids[sut$1]}

	renamed_down=0
	ip link set "$2" name "$3" 2> /dev/null && return
	renamed_down=1
	# It may have died with the device's way through a namespace.
	kill "$pid" 2> /dev/null || pid=
	wait "$pid" 2> /dev/null
	ip link set "$2" down && ip link set "$2" name "$3" &&
		ip link set "$3" up || return
	if [ "$3" = "sut$1" ]; then
		{
			[ "$1" != 0 ] || echo "addr add $SUT_IP6/64 dev sut0 nodad"
			neighbours
		} > "$TMP/neigh.ip"
		ip -force -batch "$TMP/neigh.ip" 2> /dev/null
	fi
	wait_until carrier_up "$1" "$3" || fail "no carrier on $3"
	[ -z "$pid" ] || _tap_port "$1" "$3"
}

cleanup()
{
	local rc=$? pid

	trap - EXIT
	# shellcheck disable=SC2016
	[ -z "${FARSH_PID:-}" ] || far 'kill $(jobs -p)' > /dev/null
	for pid in $_pids "${_tap_pids[@]}" ${FARSH_PID:-}; do
		kill "$pid" 2> /dev/null
		wait "$pid" 2> /dev/null
	done
	nft flush ruleset 2> /dev/null
	[ ! -d "$NSIM_BUS/devices/netdevsim$SUT_ID" ] ||
		echo $SUT_ID > $NSIM_BUS/del_device
	[ ! -d "$NSIM_BUS/devices/netdevsim$FAR_ID" ] ||
		echo $FAR_ID > $NSIM_BUS/del_device
	ip netns del "$FAR" 2> /dev/null
	[ -z "$TMP" ] || rm -rf "$TMP"
	exit $rc
}

### What the hardware says

# _value_in FILE NAME: the rest of its line
_value_in()
{
	local line lines

	mapfile -t lines < "$1"
	for line in "${lines[@]}"; do
		[[ $line != "$2 "* ]] || echo "${line##* }"
	done
}

# hw_stat NAME [PORT]
hw_stat()
{
	local dir=$HW0

	[ "${2:-0}" = 0 ] || dir=$HW1
	_value_in "$dir/stats" "$1"
}

# hw_field NAME REGEX [PORT]: field NAME= of the one entry whose line matches
hw_field()
{
	local line lines found=none dir=$HW0

	[ "${3:-0}" = 0 ] || dir=$HW1
	mapfile -t lines < "$dir/table"
	for line in "${lines[@]}"; do
		[[ "$line" =~ $2 ]] || continue
		if [ "$found" != none ]; then
			found=many
			break
		fi
		found=${line#* "$1"=}
		found=${found%% *}
	done
	echo "$found"
}

# injected KNOB: number of failures so far
injected()
{
	local line

	line=$(< "$HW0/$1")
	echo "${line##* }"
}

# ledger NAME: entries and bound as they are; stale and purged since the setup
ledger()
{
	local value

	value=$(_value_in $LEDGER "$1")
	echo $((value - ${_ledger_before[$1]:-0}))
}

### What nft says

# nft_counter COMMENT [bytes]: counter of the rule with that comment
nft_counter()
{
	local line lines re found=none

	re="counter packets ([0-9]+) bytes ([0-9]+).* comment \"$1\""
	command nft list ruleset > "$TMP/list"
	mapfile -t lines < "$TMP/list"
	for line in "${lines[@]}"; do
		[[ "$line" =~ $re ]] || continue
		if [ "$found" != none ]; then
			found=many
			break
		fi
		found=${BASH_REMATCH[1]}
		[ "${2:-}" != bytes ] || found=${BASH_REMATCH[2]}
	done
	echo "$found"
}

### What taps say

_pids=
declare -A _tap_pids
# SOL_PACKET, PACKET_IGNORE_OUTGOING
_INCOMING_ONLY=setsockopt-int=263:23:1

# _packet_sockets IFINDEX: number of AF_PACKET sockets bound to that interface
_packet_sockets()
{
	local line lines n=0

	mapfile -t lines < /proc/net/packet
	for line in "${lines[@]}"; do
		# sk, references, type, protocol, interface
		[[ ! $line =~ ^[^\ ]+\ +[^\ ]+\ +[^\ ]+\ +[^\ ]+\ +$1\  ]] || n=$((n + 1))
	done
	echo $n
}

_far_packet_sockets()
{
	far "$(declare -f _packet_sockets); _packet_sockets $1"
}

# _tap DEV COMMAND: packets from now on to $TMP/tap.DEV
_tap()
{
	local dev=$1 cmd=$2 file=$TMP/tap.$1

	: >> "$file"
	case $cmd in
	far\ *)	far "${cmd#far } OPEN:$file,append 2> $file.err &"
		wait_until _prints 1 _far_packet_sockets "${FAR_IFINDEX[${dev#far}]}" ||
			ktap_bail "no tap on $dev: $(< "$file.err")"
		;;
	*)	$cmd "OPEN:$file,append" 2> "$file.err" &
		_tap_pids[$dev]=$!
		wait_until _prints 1 _packet_sockets "${SUT_IFINDEX[${dev#sut}]}" ||
			ktap_bail "no tap on $dev: $(< "$file.err")"
		;;
	esac
}

# tap_count DEV TAG: packets with TAG which the tap of DEV has seen so far
tap_count()
{
	_count_tap "$@"
	echo $REPLY
}

_count_tap()
{
	local piece n=0

	while IFS= read -r -d ';' piece; do
		case $piece in
		*"<$2>")	n=$((n + 1)) ;;
		esac
	done < "$TMP/tap.$1"
	REPLY=$n
}

_tap_has()
{
	_count_tap "$@"
	[ $REPLY -ge 1 ]
}

_n_flush=0
_flush_frame=

# After this, everything that the far end has sent to sut0 is through the port
# and the tap: the wire is a queue, and these are its last packets. They go to
# port 7, which no rule of a test may take.
flush_wire()
{
	local n

	_n_flush=$((_n_flush + 1))
	printf -v n '%04d' $_n_flush
	# No checksum covers what differs from one to the next.
	if [ -z "$_flush_frame" ]; then
		_frame 0800 "$(hex_ip4 17 0 "$(hex_udp 7 "$(hex_tag raw0000)")")"
		# without the tag, ten bytes as \x3c
		_flush_frame=${REPLY:0:-40}
	fi
	far "printf '$_flush_frame<raw$n>;' >&4" || fail "cannot send a frame"
	wait_until _tap_has sut0 "raw$n" ||
		fail "the frame that ends a burst never came to sut0"
	send_udp 1 7 "end$n"
	wait_until _tap_has sut0 "end$n" ||
		fail "the packet that ends a burst never came to sut0"
}

# The same for what sut1 has sent to far1.
flush_far1()
{
	_n_flush=$((_n_flush + 1))
	printf '<%s>;' "end$_n_flush" > /dev/udp/198.51.100.1/7
	wait_until _tap_has far1 "end$_n_flush" ||
		fail "the packet that ends a burst never came to far1"
}

### Packets

# send_udp COUNT PORT TAG [ADDRESS]: datagrams from a socket; their payload is
# three bytes longer than TAG
send_udp()
{
	far "exec 3<> /dev/udp/${4:-$SUT_IP}/$2 &&
	     for ((i = 0; i < $1; i++)); do printf '<%s>;' '$3' >&3; done" ||
		fail "cannot send to port $2"
}

send_udp6()
{
	send_udp "$@" $SUT_IP6
}

# Each datagram to port 9999 of the far end's own lo becomes a frame of far0.
_raw_sender()
{
	far "socat -u UDP4-RECV:9999,bind=127.0.0.1 INTERFACE:far0 \
		2> $TMP/raw.err &"
	wait_until _prints 1 _far_packet_sockets "${FAR_IFINDEX[0]}" ||
		ktap_bail "no sender of raw frames: $(< "$TMP/raw.err")"
	far 'exec 4<> /dev/udp/127.0.0.1/9999' ||
		ktap_bail "no way to the sender of raw frames"
}

# _frame ETHERTYPE HEX [VLANHEX]: sets REPLY to a frame from far0 to sut0, in
# words of printf
_frame()
{
	local frame=${SUT_MAC//:/}${FAR_MAC//:/}${3:-}$1$2 i

	REPLY=
	for ((i = 0; i < ${#frame}; i += 2)); do
		# bash would send what is before it as a datagram of its own
		[ "${frame:i:2}" != 0a ] ||
			ktap_bail "a frame with a line feed at byte $((i / 2))"
		REPLY+="\\x${frame:i:2}"
	done
}

# send_raw COUNT ETHERTYPE HEX [VLANHEX]: frames from far0 to sut0
send_raw()
{
	_frame "${@:2}"
	far "for ((i = 0; i < $1; i++)); do printf '$REPLY' >&4; done" ||
		fail "cannot send a frame"
}

# hex_* print parts of a frame in hexadecimal, for send_raw.

hex_text()
{
	local i

	for ((i = 0; i < ${#1}; i++)); do
		printf '%02x' "'${1:i:1}"
	done
}

# hex_tag TAG: a payload that tap_count can find
hex_tag()
{
	hex_text "<$1>;"
}

# hex_ip4 PROTO FRAG PAYLOAD [TOS]: header with checksum, and payload
hex_ip4()
{
	local proto=$1 frag=$2 payload=$3 sum=0 i hdr

	hdr=$(printf '45%02x%04x1234%04x40%02x0000c0000201c0000202' \
	      "${4:-0}" $((20 + ${#payload} / 2)) "$frag" "$proto")
	for ((i = 0; i < 40; i += 4)); do
		sum=$((sum + 0x${hdr:i:4}))
	done
	sum=$(((sum & 0xffff) + (sum >> 16)))
	sum=$(((~(sum + (sum >> 16))) & 0xffff))
	printf '%s%04x%s%s' "${hdr:0:20}" $sum "${hdr:24}" "$payload"
}

# hex_ip6 NEXTHDR PAYLOAD [TOS]
hex_ip6()
{
	printf '6%02x00000%04x%02x40' "${3:-0}" $((${#2} / 2)) "$1"
	printf '20010db8000000000000000000000001'
	printf '20010db8000000000000000000000002%s' "$2"
}

# hex_udp PORT PAYLOAD [SOURCE-PORT]: no checksum
hex_udp()
{
	printf '%04x%04x%04x0000%s' "${3:-12345}" "$1" $((8 + ${#2} / 2)) "$2"
}

# hex_tcp PORT FLAGS PAYLOAD: no checksum
hex_tcp()
{
	printf '3039%04x000000010000000050%02xffff00000000%s' "$1" "$2" "$3"
}

# hex_icmp TYPE PAYLOAD: no checksum
hex_icmp()
{
	printf '%02x00000000010001%s' "$1" "$2"
}

### A network namespace for the script

if [ "${_NFT_OFFLOAD_SELF:-}" != $$ ]; then
	[ "$(id -u)" -eq 0 ] || ktap_skip_all "needs root"
	need_tools unshare
	export _NFT_OFFLOAD_SELF=$$
	exec unshare --net "$BASH" "$0" "$@"
fi
