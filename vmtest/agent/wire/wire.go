// SPDX-License-Identifier: GPL-2.0-only

// Package wire is what the agent in the guest and its client on the host say
// to each other: length-prefixed, checksummed frames. It imports the standard
// library only, because it is compiled into the guest's init.
package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// Version of the protocol. The guest says it in its Hello; the host
	// refuses another one.
	Version = 2
	// PortName is the virtio-serial port the agent listens on.
	PortName = "org.nftvm.agent.0"
	// MaxPayload bounds a frame, so that a guest cannot make the host
	// allocate what it likes.
	MaxPayload = 1 << 18
	// ChunkSize is how much data the sender of a stream puts in one frame.
	ChunkSize = 1 << 16
	// InputWindow is how many frames of a command's input may be on their
	// way: a command that does not read must not block the channel.
	InputWindow = 16

	magic      = 0x4e46564d // "NFVM"
	headerSize = 20
	// MaxFrame is the largest frame, encoded.
	MaxFrame = headerSize + MaxPayload
)

// Type says what a frame's payload is.
type Type uint8

// The frame types. Requests come from the host, each with its own id; what
// belongs to a request carries that id.
const (
	// TypeHello (guest to host, id 0) is the agent's Hello, in JSON.
	TypeHello Type = iota + 1
	// TypeRequest (host to guest) is a Request, in JSON.
	TypeRequest
	// TypeReply (guest to host) is a Reply, in JSON; it ends its request.
	TypeReply
	// TypeData is a piece of a request's byte stream, in either direction.
	TypeData
	// TypeFile (host to guest) begins the next file of a put: File, in JSON.
	TypeFile
	// TypeEnd (host to guest) says that a put, or a command's input, is
	// complete.
	TypeEnd
	// TypeErr (guest to host) is a piece of a command's standard error,
	// where its request asked for that apart.
	TypeErr
	// TypeTaken (guest to host) says that a frame of a command's input was
	// taken.
	TypeTaken
	// TypePing (host to guest) is a request that comes back as it is: the
	// one that costs a guest least whose code is all to be translated.
	TypePing
	typeLimit
)

// Frame is one message.
type Frame struct {
	Type    Type
	ID      uint32
	Payload []byte
}

// ErrGarbled is in the chain of every error caused by bytes that are no frame.
// After it the channel cannot be trusted any more.
var ErrGarbled = errors.New("agent channel garbled")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends the encoded frame to buf.
func (f *Frame) Append(buf []byte) ([]byte, error) {
	if len(f.Payload) > MaxPayload {
		return nil, fmt.Errorf("frame of %d bytes, at most %d are allowed", len(f.Payload), MaxPayload)
	}
	var h [headerSize]byte
	binary.LittleEndian.PutUint32(h[0:], magic)
	h[4] = byte(f.Type)
	binary.LittleEndian.PutUint32(h[8:], f.ID)
	binary.LittleEndian.PutUint32(h[12:], uint32(len(f.Payload)))
	crc := crc32.Update(0, castagnoli, h[:16])
	crc = crc32.Update(crc, castagnoli, f.Payload)
	binary.LittleEndian.PutUint32(h[16:], crc)
	return append(append(buf, h[:]...), f.Payload...), nil
}

// Read takes the next frame from r. io.EOF means that r ended between two
// frames; anything that is no frame is ErrGarbled.
func Read(r io.Reader) (*Frame, error) {
	var h [headerSize]byte
	if n, err := io.ReadFull(r, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it ended inside a frame header: % x", ErrGarbled, h[:n])
		}
		return nil, err
	}
	if m := binary.LittleEndian.Uint32(h[0:]); m != magic {
		return nil, fmt.Errorf("%w: bytes that begin no frame: %q", ErrGarbled, h[:])
	}
	f := &Frame{Type: Type(h[4]), ID: binary.LittleEndian.Uint32(h[8:])}
	size := binary.LittleEndian.Uint32(h[12:])
	if f.Type == 0 || f.Type >= typeLimit || h[5]|h[6]|h[7] != 0 {
		return nil, fmt.Errorf("%w: frame of unknown type: % x", ErrGarbled, h[:8])
	}
	if size > MaxPayload {
		return nil, fmt.Errorf("%w: frame that claims %d bytes, at most %d are allowed", ErrGarbled, size, MaxPayload)
	}
	f.Payload = make([]byte, size)
	if n, err := io.ReadFull(r, f.Payload); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: it ended after %d of a frame's %d bytes", ErrGarbled, n, size)
		}
		return nil, err
	}
	crc := crc32.Update(0, castagnoli, h[:16])
	crc = crc32.Update(crc, castagnoli, f.Payload)
	if want := binary.LittleEndian.Uint32(h[16:]); crc != want {
		return nil, fmt.Errorf("%w: frame of %d bytes with checksum %08x, its header says %08x", ErrGarbled, size, crc, want)
	}
	return f, nil
}

// Seek passes over what is no frame, and takes the first that is. r must buffer
// MaxFrame bytes. Its error is that of r.
func Seek(r *bufio.Reader) (*Frame, error) {
	for {
		h, err := r.Peek(headerSize)
		if err != nil {
			return nil, err
		}
		if size := binary.LittleEndian.Uint32(h[12:]); binary.LittleEndian.Uint32(h[0:]) == magic && size <= MaxPayload {
			if b, err := r.Peek(headerSize + int(size)); err == nil {
				if f, err := Read(bytes.NewReader(b)); err == nil {
					_, err = r.Discard(len(b))
					return f, err
				}
			}
		}
		if _, err := r.Discard(1); err != nil {
			return nil, err
		}
	}
}

// Decode reads a frame's JSON into v. A frame that is whole but says nonsense
// is as garbled as a broken one.
func (f *Frame) Decode(v any) error {
	if err := json.NewDecoder(bytes.NewReader(f.Payload)).Decode(v); err != nil {
		return fmt.Errorf("%w: frame of type %d: %w", ErrGarbled, f.Type, err)
	}
	return nil
}

// JSON makes a frame of v.
func JSON(t Type, id uint32, v any) (*Frame, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &Frame{Type: t, ID: id, Payload: raw}, nil
}
