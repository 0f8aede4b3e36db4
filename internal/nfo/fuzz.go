// SPDX-License-Identifier: GPL-2.0-only

package nfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Fuzz sends n messages to the family that nobody in his right mind would, and
// returns how often the kernel gave which answer: "ok", a name of an errno, or
// "none" if it did not answer. The same seed gives the same messages. Policies
// are only set for a table named "fuzz".
func (c *Client) Fuzz(seed uint64, n int) (map[string]int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	// A broken length may get no answer at all.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(seed, seed))
	answers := map[string]int{}
	for i := range n {
		seq := uint32(i + 1)
		msg := garbage(rnd, c.family.ID, seq)
		if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			answers[unix.ErrnoName(errno(err))]++
			continue
		}
		a, err := answer(fd, seq)
		if err != nil {
			return answers, err
		}
		answers[a]++
	}
	return answers, nil
}

func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// answer reads until the kernel has acknowledged message seq.
func answer(fd int, seq uint32) (string, error) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return "none", nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return "", fmt.Errorf("the kernel sent a message of %d bytes in %d", length, len(b))
			}
			kind := binary.NativeEndian.Uint16(b[4:])
			mine := binary.NativeEndian.Uint32(b[8:]) == seq
			if mine && (kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE) && length >= unix.NLMSG_HDRLEN+4 {
				if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code < 0 {
					return unix.ErrnoName(unix.Errno(-code)), nil
				}
				return "ok", nil
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// garbage is one message: a header of the family's with a command that may
// exist, and attributes of which some may even be right.
func garbage(rnd *rand.Rand, family uint16, seq uint32) []byte {
	cmd := byte(1 + rnd.UintN(4))
	if rnd.UintN(8) == 0 {
		cmd = byte(rnd.UintN(256))
	}
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if (cmd != cmdPolicySet) == (rnd.UintN(8) != 0) {
		flags |= unix.NLM_F_DUMP
	}
	if rnd.UintN(8) == 0 {
		flags |= uint16(rnd.UintN(1 << 16))
	}
	body := []byte{cmd, byte(rnd.UintN(3)), 0, 0}
	if rnd.UintN(16) == 0 {
		body = body[:rnd.UintN(4)]
	}
	for range rnd.UintN(5) {
		body = append(body, garbageAttr(rnd)...)
	}
	if rnd.UintN(8) == 0 {
		body = append(body, make([]byte, rnd.UintN(7))...)
	}
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, family)
	msg = binary.NativeEndian.AppendUint16(msg, flags)
	msg = binary.NativeEndian.AppendUint32(msg, seq)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	msg = append(msg, body...)
	if rnd.UintN(128) == 0 {
		binary.NativeEndian.PutUint32(msg, uint32(rnd.UintN(64)))
	}
	return msg
}

func garbageAttr(rnd *rand.Rand) []byte {
	kind := uint16(rnd.UintN(16))
	if rnd.UintN(8) == 0 {
		kind = uint16(rnd.UintN(1 << 16))
	}
	var value []byte
	switch rnd.UintN(5) {
	case 0:
		value = []byte("fuzz\x00")
	case 1:
		value = binary.NativeEndian.AppendUint32(nil, uint32(rnd.UintN(5)))
	case 2:
		value = binary.NativeEndian.AppendUint64(nil, rnd.Uint64())
	case 3:
		value = make([]byte, rnd.UintN(300))
		for i := range value {
			value[i] = 'f'
		}
	}
	length := uint16(4 + len(value))
	if rnd.UintN(16) == 0 {
		length = uint16(rnd.UintN(1 << 16))
	}
	attr := binary.NativeEndian.AppendUint16(nil, length)
	attr = binary.NativeEndian.AppendUint16(attr, kind)
	attr = append(attr, value...)
	for len(attr)%4 != 0 {
		attr = append(attr, 0)
	}
	return attr
}
