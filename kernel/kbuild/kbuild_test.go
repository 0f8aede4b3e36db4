// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatters(t *testing.T) {
	for path, want := range map[string]bool{
		"net/netfilter/nft_offload_main.c": true, "net/netfilter/Kconfig": true, "Makefile": true, "tools/objtool/check.c": true,
		"Documentation/networking/nft_offload.rst": false, "tools/testing/selftests/net/x.sh": false, "MAINTAINERS": false,
		"Documentation/Kconfig": true, "samples/Kconfig": true,
	} {
		require.Equal(t, want, Matters(path), path)
	}
}
