// SPDX-License-Identifier: GPL-2.0-only

package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakePath makes a PATH that holds just the named tools, each exiting 0.
func fakePath(t *testing.T, tools ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, tool := range tools {
		require.NoError(t, os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\necho \"$0 $*\" >> "+dir+"/called\n"), 0o755))
	}
	t.Setenv("PATH", dir)
	return dir
}

func TestCheckNamesEveryMissingTool(t *testing.T) {
	fakePath(t)
	missing := Check(t.Context())
	var what []string
	for _, m := range missing {
		what = append(what, m.What)
	}
	require.Contains(t, what, "C compiler")
	require.Contains(t, what, "libelf headers", "without a compiler no header is found")
	require.Contains(t, Packages(missing), "libelf-dev")
	require.NotContains(t, Required(missing), "compile cache", "it only saves time")
}

func TestPackagesNamesEachOnce(t *testing.T) {
	require.Equal(t, []string{"iproute2", "nftables"},
		Packages([]Missing{{Packages: []string{"nftables", "iproute2"}}, {Packages: []string{"iproute2"}}}))
}

func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("as another user sudo would be called")
	}
	missing := []Missing{{What: "flex", Packages: []string{"flex"}, dnf: "flex", pacman: "flex"}}
	t.Run("nothing missing, nothing called", func(t *testing.T) {
		dir := fakePath(t, "apt-get")
		require.NoError(t, Install(t.Context(), nil, os.Stderr))
		require.NoFileExists(t, filepath.Join(dir, "called"))
	})
	t.Run("only what is missing", func(t *testing.T) {
		dir := fakePath(t, "apt-get")
		require.NoError(t, Install(t.Context(), missing, os.Stderr))
		called, err := os.ReadFile(filepath.Join(dir, "called"))
		require.NoError(t, err)
		require.Contains(t, string(called), "install -q -y --no-install-recommends flex\n")
	})
}

func TestRemedyWithoutApt(t *testing.T) {
	missing := []Missing{{What: "libelf headers", Packages: []string{"libelf-dev"}, dnf: "elfutils-libelf-devel", pacman: "libelf"}}
	for _, tt := range []struct{ manager, want string }{
		{"dnf", "sudo dnf install elfutils-libelf-devel"},
		{"pacman", "sudo pacman -S --needed libelf"},
		{"apk", "install, by whatever means this system has: libelf-dev"},
	} {
		fakePath(t, tt.manager)
		if FindTool("apt-get") != "" {
			t.Skip("apt-get stands in an sbin directory here")
		}
		require.Equal(t, tt.want, Remedy(missing), tt.manager)
		require.ErrorIs(t, Install(t.Context(), missing, os.Stderr), ErrNotDebian)
	}
}
