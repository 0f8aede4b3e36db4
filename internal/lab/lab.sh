#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2034
#
# What a person finds in a guest: the module loaded, and the pair of netdevsim
# devices that the selftests use (see lib.sh), in the initial network namespace
# with the far end in one called "far".

# lib.sh would go to a network namespace of its own.
export _NFT_OFFLOAD_SELF=$$
# shellcheck source=lib.sh
. /selftests/nft_offload/lib.sh
FAR=far
SUT_ID=1
FAR_ID=2

modprobe nft_offload || ktap_bail "no nft_offload.ko"
_begin
ip netns add $FAR || ktap_bail "no network namespace"
coproc FARSH { exec ip netns exec $FAR bash 2>&1; }
exec {_far_in}>&"${FARSH[1]}" {_far_out}<&"${FARSH[0]}"
if ! _create_ports || ! _configure_ports || ! _link_ports; then
	ktap_bail "no ports"
fi
if ! wait_until carrier_up 0 || ! wait_until carrier_up 1; then
	ktap_bail "no carrier"
fi
rm -rf "$TMP"

cat > /etc/nftvm.rc <<-'END'
	_NFT_OFFLOAD_SELF=$$
	. /selftests/nft_offload/lib.sh
	. /selftests/nft_offload/offload_lib.sh
	FAR=far
	HW0=$NSIM_DEBUGFS/netdevsim1/ports/0/hwft
	HW1=$NSIM_DEBUGFS/netdevsim1/ports/1/hwft
	TMP=/tmp
	far() { ip netns exec $FAR bash -c "$1"; }
	PS1="\[\e[1m\]$(uname -r)\[\e[m\]:\w# "
END
