// SPDX-License-Identifier: GPL-2.0-only

package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Progress shows what a run is doing: on a terminal a line per running step
// with its elapsed and expected time, elsewhere a plain line as each step ends.
// Its methods may be called from any goroutine.
type Progress struct {
	mu      sync.Mutex
	out     io.Writer
	bars    *mpb.Progress // nil where out is no terminal
	started time.Time
}

// NewProgress writes to out.
func NewProgress(out *os.File) *Progress {
	p := &Progress{out: out, started: time.Now()}
	if term.IsTerminal(int(out.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(24), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return p
}

// NewProgressTo writes plain lines to what is no terminal.
func NewProgressTo(out io.Writer) *Progress { return &Progress{out: out, started: time.Now()} }

// Line writes one line of its own.
func (p *Progress) Line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("[%6.1fs] ", time.Since(p.started).Seconds()) + fmt.Sprintf(format, args...) + "\n"
	if p.bars != nil {
		_, _ = p.bars.Write([]byte(line))
		return
	}
	_, _ = io.WriteString(p.out, line)
}

// Step is one running stage or test.
type Step struct {
	p     *Progress
	label string
	bar   *mpb.Bar
	wait  *time.Timer // where there is no bar
	start time.Time
	once  sync.Once
}

// announceAfter is how long a step may take before its start gets a line.
const announceAfter = 3 * time.Second

// Start shows a step of a cell; expected is its last duration in seconds, 0
// when it is not known.
func (p *Progress) Start(cell, name string, expected float64) *Step {
	s := &Step{p: p, label: fmt.Sprintf("%-12s %s", cell, name), start: time.Now()}
	if p.bars == nil {
		// Most steps come from the store and end at once; only one that
		// somebody waits for is worth two lines.
		s.wait = time.AfterFunc(announceAfter, func() {
			if expected > 0 {
				p.Line("%s: running, last time it took %.0f s", s.label, expected)
			} else {
				p.Line("%s: running", s.label)
			}
		})
		return s
	}
	s.bar = p.bars.New(0, mpb.SpinnerStyle(),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(s.label, decor.WC{W: 44, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			if expected > 0 {
				return fmt.Sprintf("%.0f s of about %.0f s", time.Since(s.start).Seconds(), expected)
			}
			return fmt.Sprintf("%.0f s", time.Since(s.start).Seconds())
		})),
	)
	return s
}

// End takes the step off the display and leaves a line that says how it went.
func (s *Step) End(format string, args ...any) {
	s.once.Do(func() {
		s.off()
		s.p.Line("%s: %s", s.label, firstLine(fmt.Sprintf(format, args...)))
	})
}

// Drop takes the step off the display and leaves nothing.
func (s *Step) Drop() { s.once.Do(s.off) }

func (s *Step) off() {
	if s.bar != nil {
		s.bar.Abort(true)
	}
	if s.wait != nil {
		s.wait.Stop()
	}
}

// Close waits until the display is still.
func (p *Progress) Close() {
	if p.bars != nil {
		p.bars.Shutdown()
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
