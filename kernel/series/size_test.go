// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
)

func TestSize(t *testing.T) {
	p := Patch{Name: "p", Content: []byte("Subject: x\n\n--- not a header\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n" +
		"@@ -1,3 +1,4 @@\n 1\n-2\n+two\n+more\n 3\ndiff --git a/y b/y\nnew file mode 100644\n--- /dev/null\n+++ b/y\n@@ -0,0 +1,2 @@\n+1\n+2\n")}
	added, removed, err := p.Size()
	require.NoError(t, err)
	require.Equal(t, 4, added)
	require.Equal(t, 1, removed)
}

func TestFor(t *testing.T) {
	supports, err := kver.ParseRange(">= 6.12")
	require.NoError(t, err)
	r, err := kver.ParseRange("< 7.0")
	require.NoError(t, err)
	s := &Series{Supports: supports}
	got, err := s.For(Patch{Range: r}, []string{"5.10.262", "6.12.95", "7.3.4"})
	require.NoError(t, err)
	require.Equal(t, []string{"6.12.95"}, got)
}
