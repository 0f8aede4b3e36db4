// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// release is a signed tarball of a tiny kernel, and who signed it.
func release(t *testing.T) (r *repo, dir, sum string) {
	t.Helper()
	r = newRepo(t)
	dir = t.TempDir()
	src := mini(t)
	r.run(filepath.Dir(src), "tar", "cf", filepath.Join(dir, "linux-7.3.4.tar"), "--transform", "s,^"+filepath.Base(src)+",linux-7.3.4,", filepath.Base(src))
	r.gpg("--batch", "--detach-sign", "-o", filepath.Join(dir, "linux-7.3.4.tar.sign"), filepath.Join(dir, "linux-7.3.4.tar"))
	r.run(dir, "xz", "linux-7.3.4.tar")
	sum, err := store.FileSum(filepath.Join(dir, "linux-7.3.4.tar.xz"))
	require.NoError(t, err)
	return r, dir, sum
}

func TestTarball(t *testing.T) {
	r, dir, sum := release(t)
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	for name, at := range map[string]string{"address": srv.URL, "path": dir} {
		t.Run(name, func(t *testing.T) {
			b := &Tarball{URL: at + "/linux-7.3.4.tar.xz", SHA256: sum, Signature: at + "/linux-7.3.4.tar.sign", Keyring: r.archive.keyring}
			tr := Tree{Name: "t", Tarball: b}
			require.Equal(t, "7.3.4", tr.Hint())
			f := fetcher(t)
			s, err := f.Source(t.Context(), tr)
			require.NoError(t, err)
			require.Equal(t, "7.3.4", s.Version)
			require.FileExists(t, filepath.Join(s.Dir, "net/a.c"))
			require.Equal(t, "tarball "+b.URL+" sha256:"+sum, s.Origin.String())
			left, err := os.ReadDir(s.Entry.Dir)
			require.NoError(t, err)
			for _, e := range left {
				require.NotContains(t, e.Name(), "download")
			}
			require.FileExists(t, filepath.Join(dir, "linux-7.3.4.tar.xz"), "it is the user's")
		})
	}
}

func TestTarballRefused(t *testing.T) {
	_, dir, sum := release(t)
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	stranger := newRepo(t)
	tarball := dir + "/linux-7.3.4.tar.xz"
	for name, c := range map[string]struct {
		b    Tarball
		want string
	}{
		"another sum":    {Tarball{URL: tarball, SHA256: sum[1:] + "0"}, "configs/trees.yaml wants " + sum[1:] + "0: refused"},
		"another signer": {Tarball{URL: tarball, SHA256: sum, Signature: dir + "/linux-7.3.4.tar.sign", Keyring: stranger.archive.keyring}, "is not signed by a key of"},
		"not signed":     {Tarball{URL: tarball, SHA256: sum, Signature: tarball, Keyring: stranger.archive.keyring}, "is not signed by a key of"},
		"not there":      {Tarball{URL: srv.URL + "/linux-9.9.tar.xz", SHA256: sum}, "404 Not Found"},
		"no server":      {Tarball{URL: "http://127.0.0.1:1/linux-7.3.4.tar.xz", SHA256: sum}, "cannot get it"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fetcher(t)
			_, err := f.Source(t.Context(), Tree{Name: "t", Tarball: &c.b})
			require.ErrorContains(t, err, c.want)
			require.Equal(t, store.Harness, store.FaultOf(err))
		})
	}
}
