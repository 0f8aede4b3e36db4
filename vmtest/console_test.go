// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

func write(t *testing.T, c *capped, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
}

func TestCapKeepsBeginningAndEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := newCapped(path, 10)
	require.NoError(t, err)
	write(t, c, "0123456")
	write(t, c, "789abc")
	write(t, c, strings.Repeat("x", lastKept)+"end")
	require.Equal(t, int64(3+lastKept+3), c.Dropped())
	require.NoError(t, c.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, c.Text(), string(b))
	require.True(t, strings.HasPrefix(string(b), "0123456789\n[nftvm: 6 bytes left out here]\n"))
	require.True(t, strings.HasSuffix(string(b), "xend"))
}

func TestSeenAcrossWritesAndBeyondTheCap(t *testing.T) {
	c, err := newCapped(filepath.Join(t.TempDir(), "log"), 16)
	require.NoError(t, err)
	seen, late := c.Seen("needle"), c.Seen("late needle")
	write(t, c, "hay nee")
	select {
	case <-seen:
		t.Fatal("half a needle was seen")
	default:
	}
	write(t, c, "dle hay")
	<-seen
	write(t, c, "hay hay late need")
	write(t, c, "le")
	<-late
}

func TestRebase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c, err := newCapped(path, 1000)
	require.NoError(t, err)
	write(t, c, "partial boot log\n[ 1.0] ready\nafter\n")
	c.Rebase("ready", "the whole boot log\n[ 1.0] ready\n")
	write(t, c, "later\n")
	require.NoError(t, c.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "the whole boot log\n[ 1.0] ready\nafter\nlater\n", string(b))
	require.Equal(t, string(b), c.Text())
}

func TestTaintLetters(t *testing.T) {
	require.Empty(t, taints(0))
	require.Equal(t, []string{"P", "D", "W", "O", "N", "?"}, taints(1|1<<7|1<<9|1<<12|1<<18|1<<40))
}

func TestLeft(t *testing.T) {
	before := &wire.Probe{NetNS: []string{"old"}, Modules: map[string]wire.Module{"nf_tables": {Refs: 1, Holders: 1}}}
	after := &wire.Probe{
		NetNS:  []string{"old", "new"},
		Ledger: map[string]int64{"entries": 2, "bound": 0, "stale": 5},
		Modules: map[string]wire.Module{
			"nf_tables":      {Refs: 3, Holders: 2},
			"nft_ct":         {Refs: 1, Holders: 1},
			"crc32c_generic": {Refs: 1},
		},
	}
	files := []File{
		{Guest: "/lib/modules/1/kernel/net/netfilter/nf_tables.ko"},
		{Guest: "/lib/modules/1/kernel/net/netfilter/nft_ct.ko"},
		{Guest: "/lib/modules/1/kernel/crypto/crc32c_generic.ko"},
	}
	require.Equal(t, []string{"hardware ledger: entries 2", "network namespace new", "module nf_tables: 1 references"},
		left(before, after, netModules(files)))
	require.Empty(t, left(after, &wire.Probe{}, nil))
}
