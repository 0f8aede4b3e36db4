#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2317
#
# A device goes while a chain of it is offloaded: nf_tables must take its rules
# and its flow block out of the hardware while that is still there, must not
# call the driver any more afterwards, and the ruleset must stay usable.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

stale=0
purged=0

load()
{
	nft -f - <<-END
		flush ruleset
		table netdev t {
			chain c {
				type filter hook ingress device sut0 priority 1; flags offload;
				udp dport 9 counter drop
				udp dport 19 counter accept
			}
		}
	END
}

t_offloaded()
{
	load || fail "cannot load the ruleset"
	expect "entries" "$(ledger entries)" 2
	expect "bindings" "$(ledger bound)" 1
	stale=$(ledger stale)
	purged=$(ledger purged)
}

t_unbound()
{
	echo "$SUT_ID" > "$NSIM_BUS/del_device" || fail "cannot delete the device"
	expect "entries" "$(ledger entries)" 0
	expect "bindings" "$(ledger bound)" 0
	expect "entries left behind" "$(ledger purged)" "$purged"
}

t_not_called_again()
{
	nft list ruleset > /dev/null || fail "cannot list the ruleset"
	nft flush ruleset || fail "cannot flush the ruleset"
	expect "tables" "$(nft list tables)" ""
	expect "late calls" "$(ledger stale)" "$stale"
}

ktap_print_header
setup_pair
ktap_set_plan 3
subtest "a chain is offloaded" t_offloaded
subtest "the hardware is empty when the device is gone" t_unbound
subtest "the driver is not called afterwards" t_not_called_again
ktap_finished
