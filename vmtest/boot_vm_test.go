// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/u-root/mkuimage/cpio"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// archive writes an initramfs with these files.
func archive(t *testing.T, records ...cpio.Record) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "initramfs")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	w := cpio.Newc.Writer(f)
	require.NoError(t, cpio.WriteRecords(w, records))
	require.NoError(t, cpio.WriteTrailer(w))
	return path
}

// TestBootFails has kernels that never get to init's hello.
func TestBootFails(t *testing.T) {
	k := testKernel(t)
	for _, tc := range []struct {
		name  string
		image func(t *testing.T) string
		boots time.Duration
		kargs []string
		why   string
		tail  string
	}{
		{name: "panic", image: func(t *testing.T) string { return archive(t, cpio.StaticFile("nothing", "", 0o644)) },
			why: "kernel stopped before init said hello", tail: "Kernel panic"},
		{name: "hang", image: func(t *testing.T) string {
			img, err := engine(t).Prepare(t.Context())
			require.NoError(t, err)
			f, err := os.Open(img)
			require.NoError(t, err)
			defer f.Close()
			a, err := cpio.ArchiveFromReader(cpio.Newc.Reader(f))
			require.NoError(t, err)
			var records []cpio.Record
			for _, name := range a.Order {
				if name != "init" {
					records = append(records, a.Files[name])
				}
			}
			return archive(t, append(records, cpio.StaticFile("init", "#!/bin/bash\nwhile :; do sleep 100; done\n", 0o755))...)
		}, boots: time.Second, why: "no hello from init within"},
		{name: "before the console", boots: time.Second, kargs: []string{"mem=12M"}, why: "Cannot find place for new RAMDISK", tail: "not syncing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := engine(t)
			e.Accel = "tcg"
			e.boots = tc.boots
			if tc.image != nil {
				e.Image = tc.image(t)
			}
			e.kargs = tc.kargs
			_, err := e.Run(t.Context(), k, script(t, "true"), t.TempDir())
			t.Log(err)
			var be *BootError
			require.ErrorAs(t, err, &be)
			require.Contains(t, be.Why, tc.why)
			require.Equal(t, store.Kernel, store.FaultOf(err))
			require.Contains(t, err.Error(), be.Console)
			require.Contains(t, err.Error(), tc.tail)
		})
	}
}

func TestNoKernelInTheFile(t *testing.T) {
	k := testKernel(t)
	k.Vmlinux = ""
	k.Image = filepath.Join(t.TempDir(), "bzImage")
	require.NoError(t, os.WriteFile(k.Image, []byte("this is no kernel"), 0o644))
	_, err := engine(t).Run(t.Context(), k, script(t, "true"), t.TempDir())
	var ie *InfraError
	require.ErrorAs(t, err, &ie)
	require.Equal(t, KindStart, ie.Kind)
	t.Log(err)
}

func TestStaleKernelIsRefused(t *testing.T) {
	k := testKernel(t)
	k.Release = "1.2.3"
	_, err := engine(t).Run(t.Context(), k, script(t, "true"), t.TempDir())
	var ie *InfraError
	require.ErrorAs(t, err, &ie)
	require.ErrorContains(t, err, "expected 1.2.3")
}

// Nobody knows what the guests run under on a machine whose KVM is unproven: the
// boot that proves it decides. Those behind it are skipped without one.
func TestSkipUnderWhatTheBootShows(t *testing.T) {
	k := testKernel(t)
	img, err := engine(t).Prepare(t.Context())
	require.NoError(t, err)
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	e := &Engine{Store: st, Image: img}
	host, err := e.Host(t.Context())
	require.NoError(t, err)
	host.KVM = true // a boot must show whether it works
	tst := script(t, "exit 1")
	tst.SkipUnder = map[string]string{"tcg": "under tcg", "kvm": "under kvm"}
	for _, boots := range []bool{true, false} {
		res, err := e.Run(t.Context(), k, tst, t.TempDir())
		require.NoError(t, err)
		require.Equal(t, Skip, res.Verdict)
		require.Equal(t, "under "+res.Accel, res.Reason)
		require.Equal(t, boots, res.StartSeconds > 0)
	}
}
