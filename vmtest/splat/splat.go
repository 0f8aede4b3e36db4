// SPDX-License-Identifier: GPL-2.0-only

// Package splat finds the kernel's complaints in a console log and gives each
// a title that stays the same over versions, machines and runs: no addresses,
// offsets, pids, times or CPUs.
package splat

import (
	"regexp"
	"strings"
)

// Splat is one complaint.
type Splat struct {
	Kind  string `json:"kind"`  // as "warning", "kasan"; see the table
	Title string `json:"title"` // as "KASAN: slab-use-after-free Read in foo"
	// Fatal is true when the kernel died of it.
	Fatal bool `json:"fatal,omitempty"`
	// Line is where it begins, from 1, in the text that was searched.
	Line int `json:"line"`
}

var (
	// prefix is what printk puts before a message: a raw level, the time,
	// the caller (thread or CPU).
	prefix = regexp.MustCompile(`^(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?`)
	// color is what terminals and some consoles add.
	color = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)
	frame = regexp.MustCompile(`^\s*(?:\[<[0-9a-f]+>\] )?(?:RIP: [0-9a-f]{4}:)?(\? )?([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+`)
	rip   = regexp.MustCompile(`^RIP: [0-9a-f]{4}:([A-Za-z_][\w.]*)\+0x`)
	// clone is what the compiler adds to the name of a function it copied.
	clone = regexp.MustCompile(`\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)*`)
	ended = regexp.MustCompile(`^---\[ end (?:trace|Kernel panic)`)
)

// window is how many lines after its first a report is searched for the
// function it is about.
const window = 80

// Clean removes from a line what printk and terminals put around a message.
func Clean(line string) string {
	line = strings.TrimRight(line, "\r\n")
	if strings.IndexByte(line, 0x1b) >= 0 {
		line = color.ReplaceAllString(line, "")
	}
	return prefix.ReplaceAllString(line, "")
}

// Find returns the complaints in a console log, in order. Each of them is
// there once, however many lines it has; the same complaint made twice is
// there twice.
func Find(text string) []Splat {
	raw := strings.Split(text, "\n")
	lines := make([]string, len(raw))
	for i, l := range raw {
		lines[i] = Clean(l)
	}
	var (
		found []Splat
		open  = -1 // the report that has not ended yet
		rule  *pattern
	)
	for i, line := range lines {
		if ended.MatchString(line) {
			open = -1
			continue
		}
		p, m := match(line)
		if p == nil {
			continue
		}
		if open >= 0 && i-found[open].Line < window && follows(rule, p) {
			found[open].Fatal = found[open].Fatal || p.fatal
			if p.kind == "panic" {
				open = -1
			}
			continue
		}
		if p.kind == "panic" && consequence.MatchString(line) && len(found) > 0 {
			// The report before it has ended, and this is its end.
			found[len(found)-1].Fatal = true
			continue
		}
		found = append(found, Splat{Kind: p.kind, Title: p.title(m, lines[i:min(len(lines), i+window)]), Fatal: p.fatal, Line: i + 1})
		open, rule = len(found)-1, p
	}
	return found
}

// consequence is a panic that only ends a report made before it.
var consequence = regexp.MustCompile(`not syncing: (?:Fatal exception|.*panic_on_warn|hung_task: blocked tasks|softlockup: hung tasks|RCU Stall|UBSAN: panic_on_warn|KASAN: panic_on_warn)`)

// follows says whether a line that matches next is part of the report that
// began with one that matched first.
func follows(first, next *pattern) bool {
	for _, k := range first.absorbs {
		if k == next.kind {
			return true
		}
	}
	return false
}

func match(line string) (*pattern, []string) {
	for i := range table {
		p := &table[i]
		// Most lines have none of the words; a regexp for each would
		// make a long console slow.
		if p.word != "" && !strings.Contains(line, p.word) {
			continue
		}
		if m := p.re.FindStringSubmatch(line); m != nil {
			return p, m
		}
	}
	return nil, nil
}

// function is the first frame below the report's first line that is not part
// of the reporting itself.
func function(lines []string, skip *regexp.Regexp) string {
	for i, l := range lines {
		if i > 0 && ended.MatchString(l) {
			break
		}
		m := frame.FindStringSubmatch(l)
		if m == nil || m[1] != "" {
			continue
		}
		fn := clone.ReplaceAllString(m[2], "")
		if machinery.MatchString(fn) || skip != nil && skip.MatchString(fn) {
			continue
		}
		return fn
	}
	return ""
}

// atRIP is the function that the processor was in.
func atRIP(lines []string) string {
	for i, l := range lines {
		if i > 0 && ended.MatchString(l) {
			break
		}
		if m := rip.FindStringSubmatch(l); m != nil {
			fn := clone.ReplaceAllString(m[1], "")
			if !machinery.MatchString(fn) {
				return fn
			}
			break
		}
	}
	return function(lines, nil)
}

// Leak is the title of memory that fn wanted and nobody refers to any more.
func Leak(fn string) string { return in("kmemleak: memory leak", fn) }

func in(title, fn string) string {
	if fn == "" {
		return title
	}
	return title + " in " + fn
}
