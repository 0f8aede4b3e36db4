// SPDX-License-Identifier: GPL-2.0-only

// The guest's init: sets up what a test expects of a running system and then
// serves the harness on its virtio-serial port.
package main

import "github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/guest"

func main() { guest.Main() }
