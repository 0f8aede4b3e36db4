// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// repo is a signed Debian archive in a directory, with tiny kernels in it.
type repo struct {
	t       *testing.T
	dir     string
	home    string
	archive *archive
	debs    map[string]string // package_version to path below dir
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	for _, tool := range []string{"apt-get", "dpkg-deb", "gpg", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no " + tool)
		}
	}
	r := &repo{t: t, dir: t.TempDir(), home: t.TempDir(), debs: map[string]string{}}
	require.NoError(t, os.Chmod(r.home, 0o700))
	r.gpg("--batch", "--passphrase", "", "--quick-gen-key", "test@example.invalid", "ed25519", "sign", "never")
	keyring := filepath.Join(r.dir, "keyring.gpg")
	r.gpg("--batch", "-o", keyring, "--export")
	r.archive = &archive{main: "file:" + r.dir, keyring: keyring}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+r.home)
		_ = cmd.Run()
	})
	return r
}

func (r *repo) run(dir, name string, args ...string) {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GNUPGHOME="+r.home)
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s %v: %s", name, args, out)
}

func (r *repo) gpg(args ...string) { r.t.Helper(); r.run(r.dir, "gpg", args...) }

// add makes the package linux-source-<series> of a version.
func (r *repo) add(series, version string) {
	r.t.Helper()
	work := r.t.TempDir()
	v := strings.Split(strings.SplitN(version, "-", 2)[0], ".")
	put(r.t, work, "linux-source-"+series+"/Makefile", fmt.Sprintf("VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = %s\nEXTRAVERSION =\n", v[0], v[1], v[2]))
	put(r.t, work, "pkg/DEBIAN/control", fmt.Sprintf("Package: linux-source-%s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n", series, version))
	require.NoError(r.t, os.MkdirAll(filepath.Join(work, "pkg/usr/src"), 0o755))
	r.run(work, "tar", "cJf", "pkg/usr/src/linux-source-"+series+".tar.xz", "linux-source-"+series)
	rel := fmt.Sprintf("pool/linux-source-%s_%s_all.deb", series, version)
	require.NoError(r.t, os.MkdirAll(filepath.Join(r.dir, "pool"), 0o755))
	r.run(work, "dpkg-deb", "-b", "pkg", filepath.Join(r.dir, rel))
	r.debs["linux-source-"+series+" "+version] = rel
}

// publish writes and signs the index of a suite.
func (r *repo) publish(suite string, packages ...string) {
	r.t.Helper()
	var index strings.Builder
	for _, p := range packages {
		name, version, _ := strings.Cut(p, " ")
		raw, err := os.ReadFile(filepath.Join(r.dir, r.debs[p]))
		require.NoError(r.t, err)
		sum := sha256.Sum256(raw)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@y>\nFilename: %s\nSize: %d\nSHA256: %s\nDescription: x\n\n",
			name, version, r.debs[p], len(raw), hex.EncodeToString(sum[:]))
	}
	dist := filepath.Join(r.dir, "dists", suite)
	require.NoError(r.t, os.RemoveAll(dist))
	put(r.t, dist, "main/binary-amd64/Packages", index.String())
	sum := sha256.Sum256([]byte(index.String()))
	put(r.t, dist, "Release", fmt.Sprintf("Suite: %s\nCodename: %s\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %d main/binary-amd64/Packages\n",
		suite, suite, time.Now().UTC().Add(-time.Minute).Format("Mon, 02 Jan 2006 15:04:05 UTC"), hex.EncodeToString(sum[:]), index.Len()))
	r.gpg("--batch", "--clearsign", "-o", filepath.Join(dist, "InRelease"), filepath.Join(dist, "Release"))
}

func deb(suites ...string) Tree {
	return Tree{Name: "6.12", Debian: &Debian{Suites: suites, Package: "linux-source-6.12"}}
}

func (r *repo) fetcher() *Fetcher {
	r.t.Helper()
	f := fetcher(r.t)
	f.archive = r.archive
	return f
}

func TestDebianSource(t *testing.T) {
	r := newRepo(t)
	r.add("6.12", "6.12.90-1")
	r.add("6.12", "6.12.95-1")
	r.publish("bookworm", "linux-source-6.12 6.12.90-1")
	r.publish("bookworm-backports", "linux-source-6.12 6.12.95-1")
	f := r.fetcher()
	s, err := f.Source(t.Context(), deb("bookworm", "bookworm-backports"))
	require.NoError(t, err)
	require.Equal(t, "6.12.95", s.Version)
	require.Equal(t, "debian bookworm-backports linux-source-6.12 6.12.95-1 sha256:"+s.Origin.SHA256, s.Origin.String())
	require.Len(t, s.Origin.SHA256, 64)
	left, err := filepath.Glob(filepath.Join(s.Entry.Dir, "*.deb"))
	require.NoError(t, err)
	require.Empty(t, left)

	// Warm and offline: nothing of the mirror is needed.
	require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "dists")))
	s, err = f.Source(t.Context(), deb("bookworm", "bookworm-backports"))
	require.NoError(t, err)
	require.True(t, s.Entry.Cached)

	pinned := deb("bookworm")
	pinned.Debian.Version = "6.12.90-1"
	r.publish("bookworm", "linux-source-6.12 6.12.90-1")
	s, err = f.Source(t.Context(), pinned)
	require.NoError(t, err)
	require.Equal(t, "6.12.90", s.Version)
}

func TestDebianMovesOn(t *testing.T) {
	r := newRepo(t)
	for _, v := range []string{"6.12.90-1", "6.12.95-1"} {
		r.add("6.12", v)
	}
	r.add("7.3", "7.3.4-1")
	r.publish("bookworm", "linux-source-6.12 6.12.90-1")
	f := r.fetcher()
	s, err := f.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err)
	require.Equal(t, "6.12.90", s.Version)

	r.publish("bookworm", "linux-source-6.12 6.12.95-1")
	s, err = f.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err)
	require.Equal(t, "6.12.90", s.Version, "the index is young: the mirror is not asked")
	fresh := *f
	fresh.Refresh = true
	s, err = fresh.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err)
	require.Equal(t, "6.12.95", s.Version)

	r.publish("bookworm", "linux-source-7.3 7.3.4-1")
	_, err = fresh.Source(t.Context(), deb("bookworm"))
	var oe *OfferError
	require.ErrorAs(t, err, &oe)
	require.ErrorContains(t, err, "bookworm has no linux-source-6.12; it offers: linux-source-7.3 7.3.4-1")
	require.Equal(t, store.Harness, store.FaultOf(err))
	r.publish("bookworm")
	_, err = fresh.Source(t.Context(), deb("bookworm"))
	require.ErrorContains(t, err, "it offers: no linux-source-* at all")
}

// The mirror has dropped the version that a young index names.
func TestDebianIndexIsBehind(t *testing.T) {
	r := newRepo(t)
	r.add("6.12", "6.12.90-1")
	r.add("6.12", "6.12.95-1")
	r.publish("bookworm", "linux-source-6.12 6.12.90-1")
	f := r.fetcher()
	_, _, err := f.Resolve(t.Context(), deb("bookworm"))
	require.NoError(t, err)
	r.publish("bookworm", "linux-source-6.12 6.12.95-1")
	require.NoError(t, os.Remove(filepath.Join(r.dir, r.debs["linux-source-6.12 6.12.90-1"])))
	var warned string
	f.Warn = func(msg string) { warned = msg }
	s, err := f.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err)
	require.Equal(t, "6.12.95", s.Version)
	require.Contains(t, warned, "6.12.90-1 is gone from the mirror; taking 6.12.95-1")
}

func TestDebianAlteredPackage(t *testing.T) {
	r := newRepo(t)
	r.add("6.12", "6.12.95-1")
	path := filepath.Join(r.dir, r.debs["linux-source-6.12 6.12.95-1"])
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	r.publish("bookworm", "linux-source-6.12 6.12.95-1")
	f := r.fetcher()

	altered := append([]byte{}, whole...)
	altered[len(altered)/2] ^= 1
	for name, bad := range map[string][]byte{"altered": altered, "truncated": whole[:len(whole)/2]} {
		require.NoError(t, os.WriteFile(path, bad, 0o644))
		_, err = f.Source(t.Context(), deb("bookworm"))
		require.Error(t, err, name)
		require.Equal(t, store.Harness, store.FaultOf(err))

		// Ours, should apt ever let one through.
		got := filepath.Join(t.TempDir(), "x.deb")
		require.NoError(t, os.WriteFile(got, bad, 0o644))
		sum := sha256.Sum256(whole)
		var ce *ChecksumError
		require.ErrorAs(t, unpackDeb(t.Context(), got, hex.EncodeToString(sum[:]), t.TempDir(), &strings.Builder{}), &ce)
		require.NoFileExists(t, got)
		require.Contains(t, ce.Error(), "refused and removed; the next run fetches it again")
	}
	require.NoError(t, os.WriteFile(path, whole, 0o644))
	_, err = f.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err, "the next run fetches again")
}

func TestDebianOffline(t *testing.T) {
	r := newRepo(t)
	r.add("6.12", "6.12.95-1")
	r.publish("bookworm", "linux-source-6.12 6.12.95-1")
	f := r.fetcher()
	_, err := f.Source(t.Context(), deb("bookworm"))
	require.NoError(t, err)

	// The index is old and the mirror gone: the old one serves, with a word.
	p := filepath.Join(f.Store.Dir(), "apt/bookworm/linux-source-6.12.json")
	old := readPin(p)
	old.Checked = time.Now().Add(-2 * MaxIndexAge)
	require.NoError(t, old.write(p))
	require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "dists")))
	var warned []string
	f.Warn = func(msg string) { warned = append(warned, msg) }
	for range 2 {
		s, err := f.Source(t.Context(), deb("bookworm"))
		require.NoError(t, err)
		require.True(t, s.Entry.Cached)
	}
	require.Len(t, warned, 1, "a mirror that did not answer is not asked at every run")
	require.Contains(t, warned[0], "using linux-source-6.12 6.12.95-1 as of ")

	// Asked for in so many words, or never seen: an error, one sentence.
	fresh := *f
	fresh.Refresh = true
	for _, ft := range []*Fetcher{&fresh, r.fetcher()} {
		_, err = ft.Source(t.Context(), deb("bookworm"))
		require.ErrorContains(t, err, "source: no package index for bookworm from file:"+r.dir)
		require.Equal(t, store.Harness, store.FaultOf(err))
	}
}

func TestDebianWrongKey(t *testing.T) {
	r := newRepo(t)
	r.add("6.12", "6.12.95-1")
	r.publish("bookworm", "linux-source-6.12 6.12.95-1")
	other := newRepo(t)
	r.archive.keyring = other.archive.keyring
	_, err := r.fetcher().Source(t.Context(), deb("bookworm"))
	require.ErrorContains(t, err, "no package index for bookworm")
}

func TestPinAge(t *testing.T) {
	now := time.Now()
	d := &Debian{Package: "p"}
	p := &pin{Package: "p", Version: "1", SHA256: "s", Checked: now}
	require.True(t, p.fresh(d, now.Add(MaxIndexAge-time.Minute)))
	require.False(t, p.fresh(d, now.Add(MaxIndexAge+time.Minute)))
	require.True(t, p.fresh(&Debian{Package: "p", Version: "1"}, now.Add(9*MaxIndexAge)), "a pinned version does not age")
	require.False(t, p.fresh(&Debian{Package: "p", Version: "2"}, now))
	require.False(t, p.fresh(&Debian{Package: "q"}, now))
	require.False(t, (*pin)(nil).fresh(d, now))
}
