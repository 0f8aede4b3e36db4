// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFramesComeBack(t *testing.T) {
	frames := []*Frame{
		{Type: TypeHello, Payload: []byte("{}")},
		{Type: TypeData, ID: 1 << 31, Payload: bytes.Repeat([]byte{0xff, 0}, MaxPayload/2)},
		{Type: TypeEnd, ID: 7, Payload: []byte{}},
	}
	var stream []byte
	for _, f := range frames {
		var err error
		stream, err = f.Append(stream)
		require.NoError(t, err)
	}
	r := bytes.NewReader(stream)
	for _, want := range frames {
		got, err := Read(r)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := Read(r)
	require.Equal(t, io.EOF, err)
}

func TestTooLargeIsNotSent(t *testing.T) {
	_, err := (&Frame{Type: TypeData, Payload: make([]byte, MaxPayload+1)}).Append(nil)
	require.Error(t, err)
}

// TestEveryFlippedBitIsSeen flips each bit of a frame in turn.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	whole, err := (&Frame{Type: TypeReply, ID: 3, Payload: []byte(`{"exit":0}`)}).Append(nil)
	require.NoError(t, err)
	for bit := range len(whole) * 8 {
		broken := bytes.Clone(whole)
		broken[bit/8] ^= 1 << (bit % 8)
		_, err := Read(bytes.NewReader(broken))
		require.ErrorIs(t, err, ErrGarbled, "bit %d", bit)
	}
	for n := 1; n < len(whole); n++ {
		_, err := Read(bytes.NewReader(whole[:n]))
		require.ErrorIs(t, err, ErrGarbled, "cut to %d bytes", n)
	}
}

func FuzzRead(f *testing.F) {
	whole, _ := (&Frame{Type: TypeData, ID: 3, Payload: []byte("x")}).Append(nil)
	f.Add(whole)
	f.Add([]byte("MVFN"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := fr.Append(nil)
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Fatalf("%x reads as %+v, which is written as %x (%v)", b, fr, again, err)
		}
	})
}

func TestSeekPassesOverWhatIsNoFrame(t *testing.T) {
	whole, err := (&Frame{Type: TypeReply, ID: 3, Payload: []byte(`{"exit":0}`)}).Append(nil)
	require.NoError(t, err)
	for name, before := range map[string][]byte{
		"nothing":               nil,
		"the end of a frame":    whole[5:],
		"a header and no frame": whole[:headerSize],
		"more than is buffered": bytes.Repeat([]byte("NFVM"), MaxFrame),
	} {
		r := bufio.NewReaderSize(bytes.NewReader(append(bytes.Clone(before), whole...)), MaxFrame)
		f, err := Seek(r)
		require.NoError(t, err, name)
		require.Equal(t, uint32(3), f.ID, name)
		_, err = Seek(r)
		require.ErrorIs(t, err, io.EOF, name)
	}
}
