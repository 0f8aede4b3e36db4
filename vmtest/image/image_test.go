// SPDX-License-Identifier: GPL-2.0-only

package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/u-root/mkuimage/cpio"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

func TestBuildIsReproducible(t *testing.T) {
	if err := Check(); err != nil {
		t.Skip(err)
	}
	var sums [2]string
	for i := range sums {
		st, err := store.Open(t.TempDir())
		require.NoError(t, err)
		img, err := Build(t.Context(), st)
		require.NoError(t, err)
		sums[i], err = store.FileSum(img.Path)
		require.NoError(t, err)
		again, err := Build(t.Context(), st)
		require.NoError(t, err)
		require.True(t, again.Entry.Cached)
	}
	require.Equal(t, sums[0], sums[1])
}

func TestImageHasWhatItsProgramsNeed(t *testing.T) {
	if err := Check(); err != nil {
		t.Skip(err)
	}
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	img, err := Build(t.Context(), st)
	require.NoError(t, err)
	f, err := os.Open(img.Path)
	require.NoError(t, err)
	defer f.Close()
	a, err := cpio.ArchiveFromReader(cpio.Newc.Reader(f))
	require.NoError(t, err)
	for _, name := range []string{"init", "usr/bin/bash", "usr/bin/sh", "usr/bin/awk", "dev/console", "dev/null", "lib64"} {
		_, ok := a.Get(name)
		require.True(t, ok, name)
	}
	// Every link leads to something in the archive.
	for name, r := range a.Files {
		if r.Mode&cpio.S_IFMT != cpio.S_IFLNK {
			continue
		}
		to := make([]byte, r.FileSize)
		_, err := r.ReadAt(to, 0)
		require.NoError(t, err)
		target := string(to)
		if !filepath.IsAbs(target) {
			target = filepath.Join("/", filepath.Dir(name), target)
		}
		_, ok := a.Get(target[1:])
		require.True(t, ok, "%s -> %s", name, target)
	}
}

func TestCheckNamesAllThatIsMissing(t *testing.T) {
	old := packages
	defer func() { packages = old }()
	packages = append(packages[:len(packages):len(packages)], struct {
		pkg      string
		optional bool
		names    string
	}{"no-such-package", false, "no-such-tool another-missing-tool"})
	err := Check()
	var missing *MissingError
	require.ErrorAs(t, err, &missing)
	require.Contains(t, missing.Tools, "no-such-tool")
	require.Contains(t, missing.Tools, "another-missing-tool")
	require.ErrorContains(t, err, "apt install no-such-package")
}
