// SPDX-License-Identifier: GPL-2.0-only

// Package ktap reads KTAP, the kernel's dialect of the Test Anything Protocol,
// as kselftests, KUnit and our own tests print it: nested, with kernel lines
// between, cut off anywhere.
package ktap

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Verdict of one result line or of a whole document.
type Verdict string

// The verdicts. An expected failure (XFAIL) and a TODO turn nothing red, but
// they are no pass either, so they keep their names.
const (
	Pass  Verdict = "pass"
	Fail  Verdict = "fail"
	Skip  Verdict = "skip"
	XFail Verdict = "xfail"
	Todo  Verdict = "todo"
)

// Test is a result with the results nested in it.
type Test struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Comment is what a directive gave as its reason.
	Comment string `json:"comment,omitempty"`
	Tests   []Test `json:"tests,omitempty"`
}

// Result is one document.
type Result struct {
	Tests []Test
	// Errors are faults of the document itself: no plan, fewer or more
	// results than planned, numbers out of order, a bail-out. Each makes
	// the document fail.
	Errors []string
	// SkipAll is the reason of a plan that skips everything ("1..0 # SKIP").
	SkipAll *string
	// Seen is false when there was nothing of KTAP in the input: a test that
	// speaks by its exit code alone.
	Seen bool
}

// Verdict is the document's: it fails by one failure or error, is skipped if
// everything was, and passes otherwise. Of a document without KTAP it says
// Pass; look at Seen first.
func (r *Result) Verdict() Verdict {
	if len(r.Errors) > 0 {
		return Fail
	}
	if r.SkipAll != nil && len(r.Tests) == 0 {
		return Skip
	}
	return sum(r.Tests)
}

func sum(tests []Test) Verdict {
	skipped := 0
	for _, t := range tests {
		switch t.Verdict {
		case Fail:
			return Fail
		case Skip:
			skipped++
		}
	}
	if skipped > 0 && skipped == len(tests) {
		return Skip
	}
	return Pass
}

// Leaf is one innermost result, named by its path.
type Leaf struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Comment is what a directive gave as its reason.
	Comment string `json:"comment,omitempty"`
}

// Leaves flattens the results: "outer/inner" for each that has none below it,
// and an outer one whose verdict its inner ones do not explain.
func (r *Result) Leaves() []Leaf {
	var out []Leaf
	var walk func(prefix string, tests []Test)
	walk = func(prefix string, tests []Test) {
		for _, t := range tests {
			name := prefix + t.Name
			walk(name+"/", t.Tests)
			if len(t.Tests) == 0 || t.Verdict == Fail && sum(t.Tests) != Fail {
				out = append(out, Leaf{name, t.Verdict, t.Comment})
			}
		}
	}
	walk("", r.Tests)
	return out
}

var (
	version = regexp.MustCompile(`^K?TAP version \d+$`)
	first   = regexp.MustCompile(`K?TAP version \d+$`)
	plan    = regexp.MustCompile(`^1\.\.(\d+)(?:\s*#\s*(?i:skip)\S*\s*(.*))?$`)
	result  = regexp.MustCompile(`^(not )?ok\b(?:\s+(\d+))?(?:\s+-\s|\s*)(.*)$`)
	// directive: "# SKIP why", wherever the description ends.
	directive = regexp.MustCompile(`(?:^|\s)#\s*(?i:(skip|todo|xfail|timeout|error))\b:?\s*(.*)$`)
	bail      = regexp.MustCompile(`^Bail out!\s*(.*)$`)
	// printk's time stamp: a kernel that speaks into the middle.
	kernelLine = regexp.MustCompile(`^\[ *\d+\.\d+\]`)
	stampRE    = regexp.MustCompile(`^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? `)
	subtest    = regexp.MustCompile(`^#?\s*Subtest:`)
)

// maxDepth bounds the nesting, which comes from a guest; maxIndent is how far to
// the right its lines may begin.
const (
	maxDepth  = 32
	maxIndent = 8 * maxDepth
)

// level is a document that is being read: the outermost, or one nested in a
// result that is still to come.
type level struct {
	indent  int // columns
	planned int // -1: no plan seen
	tests   []Test
	errors  []string
	skipAll *string
	opened  bool // by a version line or a name: then something is due
	plans   int
}

// Parse reads a whole output. Lines that are no KTAP are diagnostics of the
// test, or the kernel's; they mean nothing here.
func Parse(text string) *Result {
	p := &parser{levels: []*level{{planned: -1}}}
	lines := strings.Split(text, "\n")
	for _, line := range lines[isolate(lines):] {
		p.line(strings.TrimSuffix(line, "\r"))
	}
	for len(p.levels) > 1 {
		// Cut off inside a nested document: what it had is kept, under
		// a result that never came.
		l := p.levels[len(p.levels)-1]
		p.levels = p.levels[:len(p.levels)-1]
		if len(l.tests) == 0 && l.planned < 0 && !l.opened {
			continue
		}
		l.check()
		top := p.top()
		top.tests = append(top.tests, Test{Name: "(unfinished)", Verdict: Fail, Tests: l.tests})
		top.errors = append(append(top.errors, l.errors...), "the output ended inside a nested test")
	}
	root := p.levels[0]
	r := &Result{Seen: p.seen}
	if p.seen {
		root.check()
		if p.early != "" {
			root.errors = append(root.errors, "a failure before the plan: "+p.early)
		}
	}
	r.Tests, r.Errors, r.SkipAll = root.tests, root.errors, root.skipAll
	return r
}

// isolate finds a document in a kernel's log, where a time stamp is before each
// line, or whatever is before its first: it takes that much off all of them.
// It returns the line where the document begins, 0 for one that stands alone.
func isolate(lines []string) int {
	for i, line := range lines {
		line = strings.TrimRight(line, " \t\r")
		at := first.FindStringIndex(line)
		if at == nil {
			if _, text := depth(line); plan.MatchString(text) || result.MatchString(text) && looksLikeResult(text) {
				return 0
			}
			continue
		}
		prefix := at[0]
		blank := strings.Trim(line[:prefix], " \t") == ""
		if strings.Trim(line[:prefix], " \t#") == "" && (!blank || !allBegin(lines[i:], line[:prefix])) {
			return 0
		}
		text := line[:prefix]
		stamped := kernelLine.MatchString(text)
		for j := i; j < len(lines); j++ {
			switch stamp := stampRE.FindString(lines[j]); {
			case strings.HasPrefix(lines[j], text):
				lines[j] = lines[j][prefix:]
			case stamped && stamp != "":
				lines[j] = lines[j][len(stamp):]
			}
			// A line with neither is no line of that log: it counts as
			// it is.
		}
		return i
	}
	return 0
}

// allBegin says whether every line that is not empty begins with prefix.
func allBegin(lines []string, prefix string) bool {
	return !slices.ContainsFunc(lines, func(line string) bool {
		return strings.TrimSpace(line) != "" && !strings.HasPrefix(line, prefix)
	})
}

type parser struct {
	levels []*level
	seen   bool
	// early is a failure before anything else of KTAP: prose, unless that
	// comes.
	early string
}

func (p *parser) top() *level { return p.levels[len(p.levels)-1] }

// line takes one line. KTAP nests by two spaces, KUnit by four, once it was by a
// tab; kselftest's runner puts "# " before each line of an inner test. So what
// is further to the right is deeper, by however much.
func (p *parser) line(raw string) {
	if kernelLine.MatchString(raw) {
		return
	}
	indent, text := depth(raw)
	if indent > maxIndent {
		return
	}
	switch {
	case version.MatchString(text):
		p.seen = true
		p.enter(indent).opened = true
	case plan.MatchString(text):
		m := plan.FindStringSubmatch(text)
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return
		}
		p.seen = true
		l := p.enter(indent)
		if l.plans++; l.plans > 1 {
			l.errors = append(l.errors, "more than one plan")
			return
		}
		l.planned = n
		if n == 0 {
			reason := m[2]
			l.skipAll = &reason
		}
	case subtest.MatchString(text) && indent > p.top().indent:
		p.enter(indent).opened = true
	case bail.MatchString(text) && indent == 0:
		p.seen = true
		p.levels[0].errors = append(p.levels[0].errors, "bailed out: "+bail.FindStringSubmatch(text)[1])
	default:
		// Without a number it is a result only in a document that has
		// begun; before, it is a script that says "ok".
		m := result.FindStringSubmatch(text)
		if m != nil && looksLikeResult(text) && m[1] != "" && m[2] == "" && !p.seen {
			p.early = text
		}
		if m != nil && looksLikeResult(text) && (m[2] != "" || p.seen) && p.belongs(indent, m[1] != "") {
			p.seen = true
			p.result(indent, m)
		}
	}
}

// looksLikeResult keeps prose out: "ok, that worked" is no result, "ok" alone
// or followed by a number, a dash or a name is.
func looksLikeResult(text string) bool {
	rest := strings.TrimPrefix(strings.TrimPrefix(text, "not "), "ok")
	return rest == "" || rest[0] == ' ' && !subtest.MatchString(rest)
}

// belongs says whether a result so far to the right is one of a level that has
// begun. If none has, it is prose of a test; but no failure is taken for that.
func (p *parser) belongs(indent int, failed bool) bool {
	return indent <= p.top().indent || failed
}

// depth is the column in which a line begins, and the line without what nests
// it.
func depth(line string) (int, string) {
	n := 0
	for {
		switch {
		case strings.HasPrefix(line, " "):
			n, line = n+1, line[1:]
		case strings.HasPrefix(line, "\t"):
			n, line = n+8, line[1:]
		case strings.HasPrefix(line, "# ") && nests(line[2:]):
			n, line = n+2, line[2:]
		default:
			return n, strings.TrimRight(line, " \t")
		}
	}
}

// nests says whether what follows "# " is KTAP of an inner document: else it
// is a diagnostic, and must not open a level.
func nests(rest string) bool {
	rest = strings.TrimRight(rest, " \t")
	for strings.HasPrefix(rest, "# ") || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "\t") {
		rest = strings.TrimLeft(strings.TrimPrefix(rest, "# "), " \t")
	}
	if m := result.FindStringSubmatch(rest); m != nil {
		// A diagnostic may begin with "ok"; an inner result has a number.
		return m[2] != ""
	}
	return version.MatchString(rest) || plan.MatchString(rest)
}

// enter makes indent the level that is being read.
func (p *parser) enter(indent int) *level {
	for p.top().indent > indent {
		p.leave()
	}
	if p.top().indent < indent && len(p.levels) < maxDepth {
		p.levels = append(p.levels, &level{indent: indent, planned: -1})
	}
	return p.top()
}

// leave ends a level whose result line did not come.
func (p *parser) leave() {
	l := p.top()
	p.levels = p.levels[:len(p.levels)-1]
	if len(l.tests) == 0 && l.planned < 0 {
		return
	}
	l.check()
	top := p.top()
	top.tests = append(top.tests, Test{Name: "(unnamed)", Verdict: Fail, Tests: l.tests})
	top.errors = append(append(top.errors, l.errors...), "nested results without a result of their own")
}

func (p *parser) result(indent int, m []string) {
	// Everything deeper belongs to this result.
	var inner *level
	for p.top().indent > indent {
		l := p.top()
		if p.levels[len(p.levels)-2].indent >= indent && inner == nil {
			inner = l
			p.levels = p.levels[:len(p.levels)-1]
			continue
		}
		p.leave()
	}
	l := p.enter(indent)

	t := Test{Verdict: Pass}
	if m[1] != "" {
		t.Verdict = Fail
	}
	desc := strings.TrimSpace(m[3])
	if d := directive.FindStringSubmatchIndex(desc); d != nil {
		word := strings.ToLower(desc[d[2]:d[3]])
		t.Comment = strings.TrimSpace(desc[d[4]:d[5]])
		desc = strings.TrimSpace(desc[:d[0]])
		switch word {
		case "skip":
			t.Verdict = Skip
		case "todo":
			t.Verdict = Todo
		case "xfail":
			t.Verdict = XFail
		default: // timeout, error
			t.Verdict = Fail
		}
	}
	t.Name = strings.TrimSpace(strings.TrimPrefix(desc, "- "))
	number := len(l.tests) + 1
	if m[2] != "" {
		n, err := strconv.Atoi(m[2])
		if err != nil || n != number {
			l.errors = append(l.errors, "result "+m[2]+" where "+strconv.Itoa(number)+" was due")
		}
	}
	if t.Name == "" {
		t.Name = "test " + strconv.Itoa(number)
	}
	if inner != nil {
		inner.check()
		t.Tests = inner.tests
		if len(inner.errors) > 0 {
			for _, e := range inner.errors {
				l.errors = append(l.errors, t.Name+": "+e)
			}
			t.Verdict = Fail
		}
		// An outer "ok" does not forgive an inner "not ok", skipped or not.
		if (t.Verdict == Pass || t.Verdict == Skip) && sum(t.Tests) == Fail {
			t.Verdict = Fail
		}
	}
	l.tests = append(l.tests, t)
}

// check compares plan and results once a level is complete.
func (l *level) check() {
	switch {
	case l.planned < 0 && l.indent > 0:
		// KUnit does not count the values of a parameter before. The
		// result that these belong to says that they are all.
		if l.opened && len(l.tests) == 0 {
			l.errors = append(l.errors, "nothing in it")
		}
	case l.planned < 0:
		if l.opened || len(l.tests) > 0 {
			l.errors = append(l.errors, "no plan: nobody knows whether "+strconv.Itoa(len(l.tests))+" results are all")
		}
	case l.planned != len(l.tests):
		l.errors = append(l.errors, strconv.Itoa(l.planned)+" results were planned, "+strconv.Itoa(len(l.tests))+" came")
	}
}
