// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// A snapshot is of files as they were sent: another content, mode, place or
// target of a link makes another one.
func TestSetupKey(t *testing.T) {
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	e, dir := &Engine{Store: st}, t.TempDir()
	tool, link := filepath.Join(dir, "tool"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(tool, []byte("a"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("a"), 0o644))
	require.NoError(t, os.Symlink("tool", link))
	seen := map[store.Key]string{}
	fresh := func(what, guest, setup string) {
		t.Helper()
		files := []File{{Host: tool, Guest: guest}, {Host: link, Guest: "/link"}}
		key, err := e.setupKey("base", files, setup)
		require.NoError(t, err)
		again, err := e.setupKey("base", files, setup)
		require.NoError(t, err)
		require.Equal(t, key, again)
		require.Empty(t, seen[key], "%s is no other machine than %s", what, seen[key])
		seen[key] = what
	}
	fresh("first", "/tool", "")
	fresh("setup", "/tool", "/setup")
	fresh("place", "/tool2", "")
	require.NoError(t, os.Chmod(tool, 0o755))
	fresh("mode", "/tool", "")
	require.NoError(t, os.WriteFile(tool, []byte("b"), 0o755))
	fresh("content", "/tool", "")
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("other", link))
	fresh("link", "/tool", "")
	// A link to nothing is sent as well.
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("nothing", link))
	fresh("dangling link", "/tool", "")
}

func TestGuestMemory(t *testing.T) {
	for _, c := range []struct {
		engine, want  int
		plain, debugs int
	}{
		{0, 0, 256, 768},
		{0, 512, 512, 1536},
		{1024, 0, 1024, 1024},
		{1024, 512, 512, 512},
	} {
		e := &Engine{Memory: c.engine}
		require.Equal(t, c.plain, e.GuestMemory("plain", c.want))
		require.Equal(t, c.debugs, e.GuestMemory("debug", c.want))
	}
}
