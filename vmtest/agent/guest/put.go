// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// putter unpacks one put. The first error sticks and is its reply; the rest of
// the stream is then read and dropped, because the host has sent it already.
type putter struct {
	id    uint32
	out   *os.File
	name  string
	left  int64
	files int
	bytes int64
	err   error
}

func (p *putter) file(h *wire.File) {
	p.finish()
	if p.err != nil {
		return
	}
	p.files++
	if p.err = os.MkdirAll(filepath.Dir(h.Path), 0o755); p.err != nil {
		return
	}
	// A file that exists may be a link into the image, or be running.
	if err := os.Remove(h.Path); err != nil && !os.IsNotExist(err) {
		p.err = err
		return
	}
	if h.Link != "" {
		p.err = os.Symlink(h.Link, h.Path)
		return
	}
	p.out, p.err = os.OpenFile(h.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(h.Mode&0o777))
	p.name, p.left = h.Path, h.Size
}

func (p *putter) data(b []byte) {
	if p.err != nil {
		return
	}
	if p.out == nil || int64(len(b)) > p.left {
		p.err = fmt.Errorf("%d bytes more than %s has", int64(len(b))-p.left, p.name)
		return
	}
	n, err := p.out.Write(b)
	p.left -= int64(n)
	p.bytes += int64(n)
	p.err = err
}

func (p *putter) finish() {
	if p.out == nil {
		return
	}
	if err := p.out.Close(); p.err == nil {
		p.err = err
	}
	if p.err == nil && p.left != 0 {
		p.err = fmt.Errorf("%s: %d bytes are missing", p.name, p.left)
	}
	p.out = nil
}

func (p *putter) end() *wire.Reply {
	p.finish()
	r := errReply(p.err)
	r.Files, r.Bytes = p.files, p.bytes
	return r
}
