// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrNotLoaded says that the kernel has no family of that name.
var ErrNotLoaded = errors.New("the kernel does not know nft_offload: is the module loaded?")

// Client is a connection to the kernel, in the network namespace of the thread
// that made it. All its functions need CAP_NET_ADMIN there.
type Client struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

// Dial connects. Its error is ErrNotLoaded if there is nobody to talk to.
func Dial() (*Client, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, err
	}
	// The kernel's words for what it refuses; old kernels have none.
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	family, err := conn.GetFamily(Family)
	if err != nil {
		conn.Close()
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotLoaded
		}
		return nil, err
	}
	return &Client{conn: conn, family: family}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// explain puts the kernel's own words first.
func explain(err error) error {
	var op *netlink.OpError
	if errors.As(err, &op) && op.Message != "" {
		return fmt.Errorf("%s: %w", op.Message, op.Err)
	}
	return err
}

func (c *Client) execute(cmd uint8, flags netlink.HeaderFlags, data []byte) ([]genetlink.Message, error) {
	m := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: Version}, Data: data}
	msgs, err := c.conn.Execute(m, c.family.ID, netlink.Request|flags)
	return msgs, explain(err)
}

func dump[T any](c *Client, cmd uint8, data []byte, decode func([]byte) (T, error)) ([]T, error) {
	msgs, err := c.execute(cmd, netlink.Dump, data)
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, len(msgs))
	for _, m := range msgs {
		v, err := decode(m.Data)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// Rules lists rules in the order of evaluation, device by device.
func (c *Client) Rules(f Filter) ([]Rule, error) {
	data, err := encodeFilter(f)
	if err != nil {
		return nil, err
	}
	return dump(c, cmdRuleGet, data, decodeRule)
}

// Flowtables lists flow tables.
func (c *Client) Flowtables() ([]Flowtable, error) {
	fts, err := dump(c, cmdFlowtableGet, nil, decodeFlowtable)
	for i, f := range fts {
		for _, n := range f.Ifindexes {
			fts[i].Devices = append(fts[i].Devices, deviceName(n))
		}
	}
	return fts, err
}

// deviceName is the name of a device, or its index after a '#' if it has gone
// meanwhile.
func deviceName(ifindex uint32) string {
	dev, err := net.InterfaceByIndex(int(ifindex))
	if err != nil {
		return fmt.Sprintf("#%d", ifindex)
	}
	return dev.Name
}

// Policies lists the policies that were set, in no particular order.
func (c *Client) Policies() ([]PolicyEntry, error) {
	return dump(c, cmdPolicyGet, nil, decodePolicy)
}

// SetPolicy sets a policy, which is in force on return; auto clears it.
func (c *Client) SetPolicy(p PolicyEntry) error {
	data, err := encodePolicy(p)
	if err != nil {
		return err
	}
	_, err = c.execute(cmdPolicySet, netlink.Acknowledge, data)
	return err
}

// RestorePolicies makes want the policies that are set, and no others. If it
// fails, some of them may be in force.
func (c *Client) RestorePolicies(want []PolicyEntry) error {
	have, err := c.Policies()
	if err != nil {
		return err
	}
	for _, p := range changes(have, want) {
		if err := c.SetPolicy(p); err != nil {
			return fmt.Errorf("%s %s %d: %w", p.Table, p.Chain, p.Handle, err)
		}
	}
	return nil
}

// changes are the steps from have to want, those that make room first.
func changes(have, want []PolicyEntry) []PolicyEntry {
	key := func(p PolicyEntry) PolicyEntry {
		p.Policy = Auto
		return p
	}
	wanted := map[PolicyEntry]Policy{}
	for _, p := range want {
		wanted[key(p)] = p.Policy
	}
	var steps []PolicyEntry
	had := map[PolicyEntry]Policy{}
	for _, p := range have {
		had[key(p)] = p.Policy
		if wanted[key(p)] == Auto {
			steps = append(steps, key(p))
		}
	}
	for _, p := range want {
		if p.Policy != Auto && p.Policy == wanted[key(p)] && p.Policy != had[key(p)] {
			steps = append(steps, p)
		}
	}
	return steps
}

// Monitor calls fn with each event until ctx is done or fn returns an error.
// It calls ready when events from then on will not be missed.
func (c *Client) Monitor(ctx context.Context, ready func(), fn func(Event) error) error {
	var group uint32
	for _, g := range c.family.Groups {
		if g.Name == Events {
			group = g.ID
		}
	}
	if group == 0 {
		return fmt.Errorf("the family has no group %q", Events)
	}
	if err := c.conn.JoinGroup(group); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	ready()
	for {
		msgs, _, err := c.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("events were lost, there were too many at once: %w", err)
		case err != nil:
			return err
		}
		for _, m := range msgs {
			e, err := decodeEvent(m)
			if err == nil {
				err = fn(e)
			}
			if err != nil {
				return err
			}
		}
	}
}
