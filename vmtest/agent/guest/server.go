// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"bufio"
	"errors"
	"sync"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// reconnectPoll is how often a port without a host is looked at again: the
// port then reads as ended at once, and poll(2) on it does not wait either.
const reconnectPoll = 5 * time.Millisecond

type server struct {
	port  port
	hello wire.Hello
	reap  *reaper

	sendMu sync.Mutex
	buf    []byte

	mu   sync.Mutex
	runs map[uint32]*process // by request id
	put  *putter
}

func newServer(fd int, h wire.Hello) *server {
	return &server{port: port(fd), hello: h, reap: newReaper(), runs: map[uint32]*process{}}
}

// serve answers requests until the channel breaks, which is its error.
func (s *server) serve() error {
	if err := s.sendJSON(wire.TypeHello, 0, s.hello); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s.port, wire.ChunkSize)
	for {
		f, err := wire.Read(r)
		if errors.Is(err, errHostGone) {
			// The next host begins with a frame of its own.
			r.Reset(s.port)
			s.put = nil
			time.Sleep(reconnectPoll)
			continue
		}
		if err != nil {
			return err
		}
		if f.Type == wire.TypePing {
			err = s.send(f)
		} else {
			err = s.handle(f)
		}
		if err != nil {
			return err
		}
	}
}

func (s *server) handle(f *wire.Frame) error {
	switch f.Type {
	case wire.TypeRequest:
		var req wire.Request
		if err := f.Decode(&req); err != nil {
			return err
		}
		return s.request(f.ID, &req)
	case wire.TypeFile:
		var hdr wire.File
		if err := f.Decode(&hdr); err != nil {
			return err
		}
		if s.put != nil && s.put.id == f.ID {
			s.put.file(&hdr)
		}
	case wire.TypeData:
		if s.put != nil && s.put.id == f.ID {
			s.put.data(f.Payload)
		} else if p := s.process(f.ID); p != nil {
			p.take(f.Payload)
		}
	case wire.TypeEnd:
		if s.put != nil && s.put.id == f.ID {
			p := s.put
			s.put = nil
			return s.reply(f.ID, p.end())
		} else if p := s.process(f.ID); p != nil {
			p.endInput()
		}
	}
	return nil
}

// request starts a request. What may take time runs beside the reader, so
// that a kill or a probe gets through while a test hangs.
func (s *server) request(id uint32, req *wire.Request) error {
	switch req.Op {
	case wire.OpFresh:
		return s.reply(id, errReply(fresh(req.Entropy, req.Time)))
	case wire.OpPut:
		s.put = &putter{id: id}
		return nil
	case wire.OpExec:
		return s.exec(id, req)
	case wire.OpKill:
		return s.reply(id, errReply(s.kill(req.Target)))
	case wire.OpResize:
		return s.reply(id, errReply(s.resize(req.Target, req.Window)))
	case wire.OpRead:
		go s.async(id, func() *wire.Reply { return s.readFile(id, req.Path, req.Limit) })
	case wire.OpProbe:
		go s.async(id, func() *wire.Reply { return &wire.Reply{Probe: probe()} })
	case wire.OpDmesg:
		go s.async(id, func() *wire.Reply { return s.dmesg(id, req.Limit) })
	case wire.OpLeaks:
		go s.async(id, func() *wire.Reply { return s.leaks(id, req.Limit) })
	case wire.OpMark:
		return s.reply(id, errReply(kmsg(0, req.Text)))
	case wire.OpPoweroff:
		powerOff()
	default:
		return s.reply(id, &wire.Reply{Error: "unknown operation " + req.Op})
	}
	return nil
}

func (s *server) async(id uint32, fn func() *wire.Reply) {
	if err := s.reply(id, fn()); err != nil {
		die("agent channel: " + err.Error())
	}
}

func errReply(err error) *wire.Reply {
	if err != nil {
		return &wire.Reply{Error: err.Error()}
	}
	return &wire.Reply{}
}

func (s *server) reply(id uint32, r *wire.Reply) error { return s.sendJSON(wire.TypeReply, id, r) }

func (s *server) sendJSON(t wire.Type, id uint32, v any) error {
	f, err := wire.JSON(t, id, v)
	if err != nil {
		return err
	}
	return s.send(f)
}

func (s *server) send(f *wire.Frame) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	buf, err := f.Append(s.buf[:0])
	if err != nil {
		return err
	}
	s.buf = buf
	_, err = s.port.Write(buf)
	return err
}

// sendData sends b as the data of a request, within what is left of its
// limit, and returns how many bytes were beyond it.
func (s *server) sendData(id uint32, b []byte, left *int64) (dropped int64, err error) {
	return s.sendStream(wire.TypeData, id, b, left)
}

func (s *server) sendStream(t wire.Type, id uint32, b []byte, left *int64) (dropped int64, err error) {
	for len(b) > 0 {
		n := int64(min(len(b), wire.ChunkSize))
		if n > *left {
			n = *left
		}
		if n == 0 {
			return int64(len(b)), nil
		}
		if err := s.send(&wire.Frame{Type: t, ID: id, Payload: b[:n]}); err != nil {
			return 0, err
		}
		*left -= n
		b = b[n:]
	}
	return 0, nil
}
