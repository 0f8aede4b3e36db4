// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// Tarball is an origin: a kernel release as kernel.org publishes them.
type Tarball struct {
	// URL is the archive's http(s) address or its path.
	URL string
	// SHA256 is the archive's, in hex.
	SHA256 string
	// Signature is the detached signature's address or path, "" for none. One
	// that ends in .tar.sign is over the archive before it was compressed, as
	// kernel.org's are.
	Signature string
	// Keyring is the path of a file with the keys that may sign, as gpg
	// --export writes it.
	Keyring string
}

// releaseRE finds the version in an archive's name.
var releaseRE = regexp.MustCompile(`^linux-([0-9]+\.[0-9]+(?:\.[0-9]+)?)(?:-rc[0-9]+)?\.tar`)

func (b *Tarball) version() string {
	if m := releaseRE.FindStringSubmatch(path.Base(b.URL)); m != nil {
		return m[1]
	}
	return ""
}

// webRE tells what is fetched from what is a path.
var webRE = regexp.MustCompile(`^https?://`)

func (f *Fetcher) resolveTarball(_ context.Context, t Tree) (*resolved, error) {
	b := t.Tarball
	o := Origin{Kind: "tarball", URL: b.URL, SHA256: b.SHA256}
	return &resolved{origin: o, key: keyOf(o), fetch: func(ctx context.Context, dir string, log io.Writer) error {
		return b.unpack(ctx, dir, log)
	}}, nil
}

func (b *Tarball) unpack(ctx context.Context, dir string, log io.Writer) error {
	archive, done, err := obtain(ctx, b.URL, dir, log)
	if err != nil {
		return err
	}
	defer done()
	got, err := store.FileSum(archive)
	if err != nil {
		return err
	}
	if got != b.SHA256 {
		return fmt.Errorf("%s has sha256 %s, configs/trees.yaml wants %s: refused", b.URL, got, b.SHA256)
	}
	if b.Signature != "" {
		if err := b.verify(ctx, archive, dir, log); err != nil {
			return err
		}
	}
	dst := filepath.Join(dir, treeDir)
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	err = proc.Run(ctx, proc.Cmd{Log: log, Args: []string{
		"tar", "-x", "--strip-components=1", "--no-same-owner", "--no-same-permissions", "-C", dst, "-f", archive,
	}})
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", b.URL, err)
	}
	return nil
}

// verify has gpgv look at the signature.
func (b *Tarball) verify(ctx context.Context, archive, dir string, log io.Writer) error {
	sig, done, err := obtain(ctx, b.Signature, dir, log)
	if err != nil {
		return err
	}
	defer done()
	if err := proc.Have("gpgv"); err != nil {
		return err
	}
	// tar knows more compressions than we do; it hands on what is in them.
	const signed = `set -o pipefail
case $3 in
*.tar.sign|*.tar.asc)
	case $(head -c 6 "$1" | od -An -tx1 | tr -d ' \n') in
	fd377a585a00) xz -dc -- "$1" ;;
	1f8b*) gzip -dc -- "$1" ;;
	28b52ffd*) zstd -dc -- "$1" ;;
	425a68*) bzip2 -dc -- "$1" ;;
	*) cat -- "$1" ;;
	esac ;;
*) cat -- "$1" ;;
esac | gpgv --keyring "$4" -- "$2" -`
	if err := proc.Run(ctx, proc.Cmd{Log: log, Args: []string{"bash", "-c", signed, "verify", archive, sig, b.Signature, b.Keyring}}); err != nil {
		return fmt.Errorf("%s is not signed by a key of %s: %w: refused", b.URL, b.Keyring, err)
	}
	return nil
}

// stall is how long a server may take to begin with its answer.
const stall = time.Minute

// obtain has what is at an address in a file below dir, until done; what is at a
// path stays there.
func obtain(ctx context.Context, from, dir string, log io.Writer) (file string, done func(), err error) {
	if !webRE.MatchString(from) {
		return from, func() {}, nil
	}
	logf(log, "fetching %s", from)
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return "", nil, errors.New("no transport for http")
	}
	transport = transport.Clone()
	transport.ResponseHeaderTimeout = stall
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", nil, fmt.Errorf("cannot get it: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("cannot get %s: %s", from, resp.Status)
	}
	out, err := os.CreateTemp(dir, "download-*-"+strings.ReplaceAll(path.Base(req.URL.Path), "/", "_"))
	if err != nil {
		return "", nil, err
	}
	done = func() { _ = os.Remove(out.Name()) }
	_, err = io.Copy(out, resp.Body)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		done()
		return "", nil, fmt.Errorf("cannot get %s: %w", from, err)
	}
	return out.Name(), done, nil
}
