// SPDX-License-Identifier: GPL-2.0-only

package vmtest

// taintLetters are those of Documentation/admin-guide/tainted-kernels.rst, by
// bit.
const taintLetters = "PFSRMBUDAWCIOELKXTNJ"

// taints names the bits of /proc/sys/kernel/tainted, a letter each.
func taints(mask uint64) []string {
	out := []string{}
	for i := 0; i < 64; i++ {
		if mask&(1<<i) == 0 {
			continue
		}
		if i < len(taintLetters) {
			out = append(out, taintLetters[i:i+1])
		} else {
			out = append(out, "?")
		}
	}
	return out
}
