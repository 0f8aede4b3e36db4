// SPDX-License-Identifier: GPL-2.0-only

// Package agent is the host's side of the conversation with a guest's init.
// Every wait takes a context, and its error says what was waited for.
package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// ErrGarbled is in the chain of an error caused by bytes from the guest that
// are no protocol.
var ErrGarbled = wire.ErrGarbled

// ErrClosed is in the chain of an error caused by a channel that ended: the
// machine stopped, or QEMU is gone.
var ErrClosed = errors.New("agent channel closed")

// writeWait bounds how long a guest may refuse to take what it is sent.
const writeWait = 30 * time.Second

// Client talks to one agent. Its methods may be used from several goroutines.
type Client struct {
	conn  net.Conn
	hello chan wire.Hello

	writeMu sync.Mutex
	buf     []byte

	firstID uint32 // those below are another host's

	mu      sync.Mutex
	nextID  uint32
	pending map[uint32]*call
	err     error
	dead    chan struct{}
}

// call is a request on its way.
type call struct {
	what   string
	out    io.Writer
	errOut io.Writer
	limit  int64
	taken  chan struct{} // a slot of the input's window each
	done   chan struct{}
	reply  *wire.Reply
	err    error
}

// NewClient takes over conn, which carries the agent's channel.
func NewClient(conn net.Conn) *Client { return newClient(conn, 0) }

// joinedIDs is where the requests of a client that joined begin.
const joinedIDs = 1 << 31

// Join takes over conn, whose agent had another host before: what it still has
// to say to that one, and the end of what it was saying, are passed over.
func Join(conn net.Conn) *Client { return newClient(conn, joinedIDs) }

func newClient(conn net.Conn, firstID uint32) *Client {
	c := &Client{
		conn:    conn,
		hello:   make(chan wire.Hello, 1),
		firstID: firstID,
		nextID:  firstID,
		pending: map[uint32]*call{},
		dead:    make(chan struct{}),
	}
	go c.read()
	return c
}

// Close ends the channel; whoever waits gets ErrClosed.
func (c *Client) Close() {
	c.fail(ErrClosed)
	_ = c.conn.Close() // nothing is buffered here that could be lost
}

// Dead is closed when the channel has ended; Err then says why.
func (c *Client) Dead() <-chan struct{} { return c.dead }

// Err is why the channel ended, nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for id, p := range c.pending {
		p.err = err
		close(p.done)
		delete(c.pending, id)
	}
	close(c.dead)
}

func (c *Client) read() {
	r := bufio.NewReaderSize(c.conn, wire.MaxFrame)
	next := wire.Read
	if c.firstID > 0 {
		next = func(io.Reader) (*wire.Frame, error) { return wire.Seek(r) }
	}
	for {
		f, err := next(r)
		next = wire.Read
		if err == nil {
			err = c.handle(f)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrGarbled):
			c.fail(err)
			return
		default:
			c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
	}
}

func (c *Client) handle(f *wire.Frame) error {
	if f.Type == wire.TypeHello {
		var h wire.Hello
		if err := f.Decode(&h); err != nil {
			return err
		}
		// Only the newest matters: after a restore the old one is stale.
		select {
		case <-c.hello:
		default:
		}
		c.hello <- h
		return nil
	}
	c.mu.Lock()
	p := c.pending[f.ID]
	if p != nil && (f.Type == wire.TypeReply || f.Type == wire.TypePing) {
		delete(c.pending, f.ID)
	}
	c.mu.Unlock()
	if p == nil && (f.ID < c.firstID || f.Type == wire.TypeTaken) {
		// Of another host, or of a command that ended with input to come.
		return nil
	}
	if p == nil {
		return fmt.Errorf("%w: frame of type %d for request %d, which nobody made", ErrGarbled, f.Type, f.ID)
	}
	switch f.Type {
	case wire.TypePing:
		p.reply = &wire.Reply{}
		close(p.done)
		return nil
	case wire.TypeTaken:
		select {
		case <-p.taken:
			return nil
		default:
			return fmt.Errorf("%w: %s took more input than it was sent", ErrGarbled, p.what)
		}
	case wire.TypeData, wire.TypeErr:
		// The guest keeps to the limit; a guest gone wrong does not, and
		// must not fill the host's disk.
		if p.limit -= int64(len(f.Payload)); p.limit < 0 {
			return fmt.Errorf("%w: %s sent more than it was allowed", ErrGarbled, p.what)
		}
		out := p.out
		if f.Type == wire.TypeErr {
			out = p.errOut
		}
		if out != nil {
			if _, err := out.Write(f.Payload); err != nil {
				return fmt.Errorf("output of %s: %w", p.what, err)
			}
		}
		return nil
	case wire.TypeReply:
		var r wire.Reply
		err := f.Decode(&r)
		if err == nil && r.Error != "" {
			err = &RemoteError{What: p.what, Text: r.Error}
			p.reply, p.err = &r, err
			close(p.done)
			return nil
		}
		p.reply, p.err = &r, err
		close(p.done)
		return err
	}
	return fmt.Errorf("%w: frame of type %d from the guest", ErrGarbled, f.Type)
}

// RemoteError is a request that the guest refused or could not do.
type RemoteError struct{ What, Text string }

func (e *RemoteError) Error() string { return "guest: " + e.What + ": " + e.Text }

func (c *Client) begin(what string, out io.Writer, limit int64) (uint32, *call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, fmt.Errorf("%s: %w", what, c.err)
	}
	c.nextID++
	p := &call{what: what, out: out, limit: limit, done: make(chan struct{})}
	c.pending[c.nextID] = p
	return c.nextID, p, nil
}

func (c *Client) wait(ctx context.Context, p *call) (*wire.Reply, error) {
	select {
	case <-p.done:
		if p.err != nil {
			var re *RemoteError
			if errors.As(p.err, &re) {
				return p.reply, p.err
			}
			return nil, fmt.Errorf("waiting for the guest's answer to %s: %w", p.what, p.err)
		}
		return p.reply, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the guest's answer to %s: %w", p.what, context.Cause(ctx))
	}
}

func (c *Client) send(ctx context.Context, f *wire.Frame) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	buf, err := f.Append(c.buf[:0])
	if err != nil {
		return err
	}
	c.buf = buf
	deadline := time.Now().Add(writeWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	// A cancelled context ends a write that the guest does not take.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.conn.Write(buf); err != nil {
		// Part of a frame may be out: nothing can follow it.
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = context.DeadlineExceeded
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			err = fmt.Errorf("guest takes no data: %w", err)
		} else {
			err = fmt.Errorf("%w: %w", ErrClosed, err)
		}
		c.fail(err)
		return err
	}
	return nil
}

func (c *Client) sendJSON(ctx context.Context, t wire.Type, id uint32, v any) error {
	f, err := wire.JSON(t, id, v)
	if err != nil {
		return err
	}
	return c.send(ctx, f)
}

// roundTrip makes a request and waits for its reply.
func (c *Client) roundTrip(ctx context.Context, what string, req *wire.Request, out io.Writer) (*wire.Reply, error) {
	id, p, err := c.begin(what, out, req.Limit)
	if err != nil {
		return nil, err
	}
	if err := c.sendJSON(ctx, wire.TypeRequest, id, req); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return c.wait(ctx, p)
}

// Hello waits for the agent's first words.
func (c *Client) Hello(ctx context.Context) (wire.Hello, error) {
	select {
	case h := <-c.hello:
		if h.Version != wire.Version {
			return h, fmt.Errorf("agent speaks protocol %d, this harness %d: the image is stale", h.Version, wire.Version)
		}
		return h, nil
	case <-c.dead:
		return wire.Hello{}, fmt.Errorf("waiting for the agent's hello: %w", c.Err())
	case <-ctx.Done():
		return wire.Hello{}, fmt.Errorf("waiting for the agent's hello: %w", context.Cause(ctx))
	}
}

// Ping asks an agent that runs already, as after a restore, for an answer.
func (c *Client) Ping(ctx context.Context) error {
	id, p, err := c.begin("ping", nil, 0)
	if err != nil {
		return err
	}
	if err := c.send(ctx, &wire.Frame{Type: wire.TypePing, ID: id}); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	_, err = c.wait(ctx, p)
	return err
}

// Fresh tells a guest that was restored that it is another than its siblings:
// random numbers of its own, and the time of day.
func (c *Client) Fresh(ctx context.Context, entropy []byte, now time.Time) error {
	_, err := c.roundTrip(ctx, "fresh", &wire.Request{Op: wire.OpFresh, Entropy: entropy, Time: now.UnixNano()}, nil)
	return err
}

// Probe looks at the guest kernel's health.
func (c *Client) Probe(ctx context.Context) (*wire.Probe, error) {
	r, err := c.roundTrip(ctx, "probe", &wire.Request{Op: wire.OpProbe}, nil)
	if err != nil {
		return nil, err
	}
	if r.Probe == nil {
		return nil, fmt.Errorf("%w: a probe's reply without a probe", ErrGarbled)
	}
	return r.Probe, nil
}

// Read copies at most limit bytes of a guest's file to w.
func (c *Client) Read(ctx context.Context, path string, w io.Writer, limit int64) error {
	_, err := c.roundTrip(ctx, "read of "+path, &wire.Request{Op: wire.OpRead, Path: path, Limit: limit}, w)
	return err
}

// Dmesg copies at most limit bytes of the kernel's log buffer to w.
func (c *Client) Dmesg(ctx context.Context, w io.Writer, limit int64) error {
	_, err := c.roundTrip(ctx, "dmesg", &wire.Request{Op: wire.OpDmesg, Limit: limit}, w)
	return err
}

// Leaks copies at most limit bytes of what kmemleak finds to w: nothing when
// all is well, or when the kernel has no kmemleak. It takes seconds.
func (c *Client) Leaks(ctx context.Context, w io.Writer, limit int64) error {
	_, err := c.roundTrip(ctx, "search for leaks", &wire.Request{Op: wire.OpLeaks, Limit: limit}, w)
	return err
}

// Mark writes a line into the kernel log. It comes out on the console behind
// everything the kernel said before it.
func (c *Client) Mark(ctx context.Context, text string) error {
	_, err := c.roundTrip(ctx, "mark", &wire.Request{Op: wire.OpMark, Text: text}, nil)
	return err
}

// Poweroff ends the guest. It does not wait until QEMU has gone.
func (c *Client) Poweroff(ctx context.Context) error {
	return c.sendJSON(ctx, wire.TypeRequest, 0, &wire.Request{Op: wire.OpPoweroff})
}

// Command is what Start runs in the guest. It is the leader of its own session,
// and its standard output and error are one stream, unless Errors is there.
type Command struct {
	Argv []string
	Env  map[string]string
	Dir  string // "" is /
	// Output gets what the command writes, as it comes, at most Limit bytes.
	Output io.Writer
	Limit  int64
	// Errors gets the standard error, if it is to be apart; it counts
	// towards Limit.
	Errors io.Writer
	// Input is the standard input; nil is none. It is read until the
	// command ends, and once more by a read that is under way then.
	Input io.Reader
	// Window runs the command in a terminal of this size.
	Window *wire.Window
}

// Process is a command that runs in the guest.
type Process struct {
	c  *Client
	id uint32
	p  *call
}

// Start runs a command. Its failure to start is the error of Wait.
func (c *Client) Start(ctx context.Context, cmd *Command) (*Process, error) {
	what := "exec"
	if len(cmd.Argv) > 0 {
		what += " of " + cmd.Argv[0]
	}
	id, p, err := c.begin(what, cmd.Output, cmd.Limit)
	if err != nil {
		return nil, err
	}
	p.errOut, p.taken = cmd.Errors, make(chan struct{}, wire.InputWindow)
	req := &wire.Request{Op: wire.OpExec, Argv: cmd.Argv, Env: cmd.Env, Dir: cmd.Dir, Limit: cmd.Limit,
		Input: cmd.Input != nil, Split: cmd.Errors != nil, Window: cmd.Window}
	if err := c.sendJSON(ctx, wire.TypeRequest, id, req); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	proc := &Process{c: c, id: id, p: p}
	if cmd.Input != nil {
		go proc.feed(ctx, cmd.Input)
	}
	return proc, nil
}

// feed sends the process its input, as fast as it takes it.
func (p *Process) feed(ctx context.Context, r io.Reader) {
	buf := make([]byte, wire.ChunkSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			select {
			case p.p.taken <- struct{}{}:
			case <-p.p.done:
				return
			}
			// Whoever waits for the process hears of a channel that broke.
			if p.c.send(ctx, &wire.Frame{Type: wire.TypeData, ID: p.id, Payload: buf[:n]}) != nil {
				return
			}
		}
		if err != nil {
			_ = p.c.send(ctx, &wire.Frame{Type: wire.TypeEnd, ID: p.id})
			return
		}
	}
}

// Resize tells the process's terminal its new size.
func (p *Process) Resize(ctx context.Context, w wire.Window) error {
	_, err := p.c.roundTrip(ctx, "resize", &wire.Request{Op: wire.OpResize, Target: p.id, Window: &w}, nil)
	return err
}

// Wait returns how the command ended, or ctx's error if it has not by then; it
// may be waited for again.
func (p *Process) Wait(ctx context.Context) (*wire.Reply, error) { return p.c.wait(ctx, p.p) }

// Done is closed when Wait would not block.
func (p *Process) Done() <-chan struct{} { return p.p.done }

// Kill kills the command's process group.
func (p *Process) Kill(ctx context.Context) error {
	_, err := p.c.roundTrip(ctx, "kill", &wire.Request{Op: wire.OpKill, Target: p.id}, nil)
	return err
}

// Run is Start and Wait.
func (c *Client) Run(ctx context.Context, cmd *Command) (*wire.Reply, error) {
	p, err := c.Start(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return p.Wait(ctx)
}
