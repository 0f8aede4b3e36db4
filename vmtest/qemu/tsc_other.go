// SPDX-License-Identifier: GPL-2.0-only

//go:build !amd64

package qemu

// tscKHz is unknown: what TCG shows its guests as a time stamp counter on
// other machines has a rate of its own.
func tscKHz() int { return 0 }
