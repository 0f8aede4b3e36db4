// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// process is a command that runs for a request.
type process struct {
	id     uint32
	pid    int
	status <-chan syscall.WaitStatus
	// done is closed when it has ended.
	done chan struct{}
	// drain is set when only what is in its pipes is wanted any more.
	drain atomic.Bool

	out []stream
	// in is where its input is written, nil if it gets none. In a terminal
	// that is the terminal.
	in    *os.File
	input chan []byte
	ended bool // the input; only the channel's reader looks at it

	tty    *os.File
	theirs []*os.File
}

// stream is where one of a process's outputs comes from, and what frames of it
// are called.
type stream struct {
	f  *os.File
	as wire.Type
}

// files opens what the process reads and writes.
func (p *process) files(req *wire.Request) (*syscall.ProcAttr, error) {
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}
	if req.Window != nil {
		slave, err := p.terminal(*req.Window)
		if err != nil {
			return nil, err
		}
		attr.Sys.Setctty = true
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		return attr, nil
	}
	stdin, err := p.stdin(req.Input)
	if err != nil {
		return nil, err
	}
	stdout, err := p.output(wire.TypeData)
	if err != nil {
		return nil, err
	}
	stderr := stdout
	if req.Split {
		if stderr, err = p.output(wire.TypeErr); err != nil {
			return nil, err
		}
	}
	attr.Files = []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()}
	return attr, nil
}

func (p *process) stdin(wanted bool) (*os.File, error) {
	if !wanted {
		null, err := os.Open(os.DevNull)
		if err == nil {
			p.theirs = append(p.theirs, null)
		}
		return null, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.in, p.theirs = w, append(p.theirs, r)
	return r, nil
}

func (p *process) output(as wire.Type) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.out, p.theirs = append(p.out, stream{r, as}), append(p.theirs, w)
	return w, nil
}

// terminal opens a new one, and returns the side for the process.
func (p *process) terminal(w wire.Window) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	p.tty, p.in, p.out = master, master, []stream{{master, wire.TypeData}}
	var (
		number uint32
		unlock int32
	)
	if err := p.ttyctl(syscall.TIOCGPTN, unsafe.Pointer(&number)); err != nil {
		return nil, os.NewSyscallError("TIOCGPTN", err)
	}
	if err := p.ttyctl(syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		return nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	if err := p.resize(w); err != nil {
		return nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err == nil {
		p.theirs = append(p.theirs, slave)
	}
	return slave, err
}

// ttyctl leaves the file with the runtime's poller, which Fd would take it from.
func (p *process) ttyctl(request uintptr, arg unsafe.Pointer) (err error) {
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = ioctl(int(fd), request, arg) })
	if cerr != nil {
		return cerr
	}
	return err
}

func (p *process) resize(w wire.Window) error {
	if p.tty == nil {
		return nil
	}
	size := [4]uint16{w.Rows, w.Cols}
	return os.NewSyscallError("TIOCSWINSZ", p.ttyctl(syscall.TIOCSWINSZ, unsafe.Pointer(&size)))
}

func (p *process) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
	p.theirs = nil
}

func (p *process) closeOurs() {
	for _, o := range p.out {
		o.f.Close()
	}
	if p.in != nil {
		p.in.Close()
	}
}

// take queues a piece of input. The host sends no more than the window before
// it hears that some was taken.
func (p *process) take(b []byte) {
	if p.in == nil || p.ended {
		return
	}
	select {
	case p.input <- b:
	default:
	}
}

func (p *process) endInput() {
	if p.in != nil && !p.ended {
		p.ended = true
		close(p.input)
	}
}

// feed writes a process's input, beside the channel's reader: the process may
// never read it.
func (s *server) feed(p *process) {
	for {
		select {
		case b, more := <-p.input:
			if !more {
				if p.tty == nil {
					p.in.Close()
				}
				return
			}
			// One that has closed its input gets the rest for nothing.
			_, _ = p.in.Write(b)
			if err := s.send(&wire.Frame{Type: wire.TypeTaken, ID: p.id}); err != nil {
				return
			}
		case <-p.done:
			return
		}
	}
}

func (s *server) process(id uint32) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

func (s *server) resize(target uint32, w *wire.Window) error {
	p := s.process(target)
	if p == nil || w == nil {
		return nil
	}
	return p.resize(*w)
}
