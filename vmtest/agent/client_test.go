// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// guest is the other end of a client, for what a real guest does not do.
func guest(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := NewClient(ours)
	t.Cleanup(func() { c.Close(); _ = theirs.Close() })
	return c, theirs
}

func send(t *testing.T, conn net.Conn, typ wire.Type, id uint32, payload string) {
	t.Helper()
	b, err := (&wire.Frame{Type: typ, ID: id, Payload: []byte(payload)}).Append(nil)
	require.NoError(t, err)
	_, err = conn.Write(b)
	require.NoError(t, err)
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryWaitEndsAndSaysWhatItWaitedFor(t *testing.T) {
	c, conn := guest(t)
	_, err := c.Hello(short(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "the agent's hello")

	// A guest that takes a request and never answers.
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, err = c.Probe(short(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "answer to probe")
}

func TestGuestThatTakesNothing(t *testing.T) {
	c, _ := guest(t)
	_, err := c.Probe(short(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "takes no data")
	<-c.Dead()
}

func TestWrongProtocolVersion(t *testing.T) {
	c, conn := guest(t)
	go send(t, conn, wire.TypeHello, 0, `{"version":99}`)
	_, err := c.Hello(t.Context())
	require.ErrorContains(t, err, "speaks protocol 99")
}

// TestNonsense has a guest send what is whole but makes no sense: all of it is
// a garbled channel, and whoever waits learns it.
func TestNonsense(t *testing.T) {
	for _, tc := range []struct {
		name string
		typ  wire.Type
		id   uint32
		text string
	}{
		{"reply to nobody", wire.TypeReply, 77, `{}`},
		{"data for nobody", wire.TypeData, 77, `x`},
		{"request", wire.TypeRequest, 1, `{}`},
		{"no JSON", wire.TypeReply, 1, `{`},
		{"no probe", wire.TypeReply, 1, `{}`},
		{"data without leave", wire.TypeData, 1, `more than nothing`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, conn := guest(t)
			go func() {
				if _, err := wire.Read(conn); err == nil {
					send(t, conn, tc.typ, tc.id, tc.text)
				}
			}()
			_, err := c.Probe(t.Context())
			require.ErrorIs(t, err, ErrGarbled)
		})
	}
}

func TestOutputBeyondItsLimitIsRefused(t *testing.T) {
	c, conn := guest(t)
	go func() {
		if _, err := wire.Read(conn); err == nil {
			send(t, conn, wire.TypeData, 1, "12345678")
			send(t, conn, wire.TypeData, 1, "9 is too much")
		}
	}()
	var out strings.Builder
	_, err := c.Run(t.Context(), &Command{Argv: []string{"x"}, Output: &out, Limit: 8})
	require.ErrorIs(t, err, ErrGarbled)
	require.Equal(t, "12345678", out.String())
}

func TestClosedChannel(t *testing.T) {
	c, conn := guest(t)
	go func() {
		_, _ = wire.Read(conn)
		_ = conn.Close()
	}()
	_, err := c.Probe(t.Context())
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Probe(t.Context())
	require.ErrorIs(t, err, ErrClosed)
}

// FuzzClient lets a guest say anything: no wait hangs, nothing panics.
func FuzzClient(f *testing.F) {
	f.Add([]byte("garbage"), false)
	for _, seed := range []*wire.Frame{
		{Type: wire.TypeHello, Payload: []byte(`{"version":2}`)},
		{Type: wire.TypeReply, ID: 1, Payload: []byte(`{"probe":{}}`)},
		{Type: wire.TypeReply, ID: joinedIDs + 1, Payload: []byte(`{"error":"no"}`)},
		{Type: wire.TypeData, ID: 1, Payload: []byte("more than was allowed")},
		{Type: wire.TypePing, ID: 1},
		{Type: wire.TypeTaken, ID: 1},
	} {
		whole, _ := seed.Append(nil)
		f.Add(whole, false)
		f.Add(append([]byte("the rest of a frame"), whole...), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, join bool) {
		ours, theirs := net.Pipe()
		client := NewClient
		if join {
			client = Join
		}
		c := client(ours)
		defer c.Close()
		go func() {
			_, _ = wire.Read(theirs)
			_, _ = theirs.Write(b)
			_ = theirs.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		p, err := c.Probe(ctx)
		if ctx.Err() != nil {
			t.Fatalf("still waiting: %v", err)
		}
		if err == nil && p == nil {
			t.Fatal("neither a probe nor an error")
		}
	})
}

// A guest that was saved while it talked goes on talking to a host that is gone.
func TestJoinedClientHearsOnlyWhatIsForIt(t *testing.T) {
	ours, theirs := net.Pipe()
	c := Join(ours)
	t.Cleanup(func() { c.Close(); _ = theirs.Close() })
	go func() {
		_, _ = theirs.Write([]byte("of a frame that another host began to read"))
		for _, f := range []*wire.Frame{
			{Type: wire.TypeData, ID: 4, Payload: []byte("for another host")},
			{Type: wire.TypeReply, ID: 4, Payload: []byte("{}")},
		} {
			b, _ := f.Append(nil)
			_, _ = theirs.Write(b)
		}
		req, err := wire.Read(theirs)
		if err != nil {
			return
		}
		b, _ := (&wire.Frame{Type: wire.TypeReply, ID: req.ID, Payload: []byte(`{"probe":{"taint":64}}`)}).Append(nil)
		_, _ = theirs.Write(b)
	}()
	p, err := c.Probe(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(64), p.Taint)
	require.NoError(t, c.Err())
}
