// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	// consoleCap and outputCap bound what a guest can write on the host's
	// disk, in bytes.
	consoleCap = 4 << 20
	outputCap  = 8 << 20
	// tailLines is how much of the console an error message carries.
	tailLines = 20
)

// capped is a file that takes only so much, remembers that it was more, and
// keeps a copy in memory to search in. It is safe for concurrent use.
type capped struct {
	mu      sync.Mutex
	f       *os.File
	buf     bytes.Buffer
	left    int
	dropped int64
	// last is what came after the cap: the end of a console matters most.
	last   []byte
	err    error
	closed bool
	watch  map[string]chan struct{}
}

// lastKept is how much of what is beyond the cap is kept.
const lastKept = 64 << 10

func newCapped(path string, limit int) (*capped, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &capped{f: f, left: limit, watch: map[string]chan struct{}{}}, nil
}

// Write never fails: a full disk must not stop the reader, or the guest. The
// error comes out of Close.
func (c *capped) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(b), max(c.left, 0))
	from := max(0, c.buf.Len()-256)
	c.buf.Write(b[:n])
	c.left -= n
	if n > 0 && c.err == nil && !c.closed {
		_, c.err = c.f.Write(b[:n])
	}
	if over := b[n:]; len(over) > 0 {
		c.dropped += int64(len(over))
		c.last = append(c.last, over...)
		if extra := len(c.last) - lastKept; extra > 0 {
			c.last = c.last[extra:]
		}
	}
	for text, ch := range c.watch {
		if bytes.Contains(c.buf.Bytes()[min(from, c.buf.Len()):], []byte(text)) || bytes.Contains(c.last, []byte(text)) {
			close(ch)
			delete(c.watch, text)
		}
	}
	return len(b), nil
}

// Seen returns a channel that is closed once text (at most 256 bytes) was
// written after this call.
func (c *capped) Seen(text string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	c.watch[text] = ch
	return ch
}

// Rebase puts text in the place of everything up to the line that has mark,
// which must have been seen, that line included.
func (c *capped) Rebase(mark, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.buf.Bytes()
	at := bytes.Index(old, []byte(mark))
	if at < 0 {
		return
	}
	end := len(old)
	if nl := bytes.IndexByte(old[at:], '\n'); nl >= 0 {
		end = at + nl + 1
	}
	c.left += end - len(text)
	var buf bytes.Buffer
	buf.WriteString(text)
	buf.Write(old[end:])
	c.buf = buf
	if c.err == nil {
		c.err = c.f.Truncate(0)
	}
	if c.err == nil {
		_, c.err = c.f.WriteAt(buf.Bytes(), 0)
	}
	if c.err == nil {
		_, c.err = c.f.Seek(int64(buf.Len()), io.SeekStart)
	}
}

// withoutCR drops the carriage returns that a console puts before newlines.
type withoutCR struct{ w io.Writer }

func (c withoutCR) Write(b []byte) (int, error) {
	if _, err := c.w.Write(bytes.ReplaceAll(b, []byte("\r"), nil)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Text is everything that was kept: the beginning up to the cap, and the end.
func (c *capped) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped == 0 {
		return c.buf.String()
	}
	return c.buf.String() + c.gap() + string(c.last)
}

func (c *capped) gap() string {
	return fmt.Sprintf("\n[nftvm: %d bytes left out here]\n", c.dropped-int64(len(c.last)))
}

// Dropped is how many bytes were beyond the cap.
func (c *capped) Dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// Tail is the last lines, without the trailing empty one.
func (c *capped) Tail(n int) []string { return lastLines(c.Text(), n) }

func lastLines(text string, n int) []string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines[max(0, len(lines)-n):]
}

// Close appends what was kept from beyond the cap. Its error is the first that
// happened to the file. What is written after it is in Text only.
func (c *capped) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.err
	}
	c.closed = true
	if c.dropped > 0 && c.err == nil {
		_, c.err = io.WriteString(c.f, c.gap()+string(c.last))
	}
	if err := c.f.Close(); c.err == nil {
		c.err = err
	}
	return c.err
}
