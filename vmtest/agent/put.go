// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// File is a host's file and its place in the guest.
type File struct {
	Host  string // path on the host; a symbolic link is sent as one
	Guest string // absolute path in the guest
}

// Tree lists the files below a host's directory for a place in the guest, in
// the order of their names. Links that lead out of what is sent ("build" in a
// module directory) are left out.
func Tree(host, guest string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			if to, err := os.Readlink(p); err != nil || filepath.IsAbs(to) {
				return err
			}
		} else if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		files = append(files, File{Host: p, Guest: path.Join(guest, filepath.ToSlash(rel))})
		return nil
	})
	sort.Slice(files, func(i, j int) bool { return files[i].Guest < files[j].Guest })
	return files, err
}

// Put sends files into the guest, making directories as needed, and returns
// how many bytes they had.
func (c *Client) Put(ctx context.Context, files []File) (int64, error) {
	id, p, err := c.begin("put", nil, 0)
	if err != nil {
		return 0, err
	}
	if err := c.sendJSON(ctx, wire.TypeRequest, id, &wire.Request{Op: wire.OpPut}); err != nil {
		return 0, fmt.Errorf("put: %w", err)
	}
	for _, f := range files {
		if err := c.putFile(ctx, id, f); err != nil {
			// The guest still waits for the rest of this put.
			return 0, fmt.Errorf("put %s as %s: %w", f.Host, f.Guest, err)
		}
	}
	if err := c.send(ctx, &wire.Frame{Type: wire.TypeEnd, ID: id}); err != nil {
		return 0, fmt.Errorf("put: %w", err)
	}
	r, err := c.wait(ctx, p)
	if err != nil {
		return 0, err
	}
	if r.Files != len(files) {
		return 0, fmt.Errorf("%w: put of %d files, the guest took %d", ErrGarbled, len(files), r.Files)
	}
	return r.Bytes, nil
}

func (c *Client) putFile(ctx context.Context, id uint32, f File) error {
	st, err := os.Lstat(f.Host)
	if err != nil {
		return err
	}
	h := &wire.File{Path: f.Guest, Mode: uint32(st.Mode().Perm()), Size: st.Size()}
	if st.Mode()&fs.ModeSymlink != 0 {
		if h.Link, err = os.Readlink(f.Host); err != nil {
			return err
		}
		h.Size = 0
		return c.sendJSON(ctx, wire.TypeFile, id, h)
	}
	in, err := os.Open(f.Host)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := c.sendJSON(ctx, wire.TypeFile, id, h); err != nil {
		return err
	}
	// No more than the header promised, should the file grow meanwhile.
	r := io.LimitReader(in, h.Size)
	buf := make([]byte, wire.ChunkSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := c.send(ctx, &wire.Frame{Type: wire.TypeData, ID: id, Payload: buf[:n]}); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
