// SPDX-License-Identifier: GPL-2.0-only

package bisect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/report"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// plant builds fake kernels: which image a point has, and how its runs go.
type plant struct {
	image func(key string) string
	run   func(key string, n int) Attempt
	// faults are what building a point comes to.
	faults map[string]error
	built  []string
	tried  []string
	only   [][]string
}

func (f *plant) build(_ context.Context, p Point) (*Kernel, error) {
	f.built = append(f.built, p.Key)
	if err := f.faults[p.Key]; err != nil {
		return nil, err
	}
	image := p.Key
	if f.image != nil {
		image = f.image(p.Key)
	}
	return &Kernel{Image: image, Try: func(_ context.Context, n int, only []string) (Attempt, error) {
		f.tried = append(f.tried, fmt.Sprintf("%s/%d", p.Key, n))
		f.only = append(f.only, only)
		a := f.run(p.Key, n)
		if a.Reason == "harness" {
			return a, errors.New("the disk is full")
		}
		return a, nil
	}}, nil
}

var (
	pass = Attempt{Verdict: Good}
	fail = Attempt{Verdict: Bad, Class: ClassTest, Reason: "t: fail: x", Failed: []string{"t"}, How: []string{"one"}}
)

func journal(t *testing.T, dir string, resume bool) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, []Asked{{"tests", "t"}}, resume)
	require.NoError(t, err)
	return j
}

func TestJudge(t *testing.T) {
	f := &plant{run: func(key string, _ int) Attempt {
		switch key {
		case "bad":
			return fail
		case "no boot":
			return Attempt{Verdict: Bad, Class: ClassBoot, Reason: "t: crash: boot: panic"}
		case "skips":
			return Attempt{Verdict: Skip, Reason: "needs tc"}
		case "no guest":
			return Attempt{Reason: "harness"}
		}
		return pass
	}, faults: map[string]error{
		"no build": store.KernelFault(errors.New("build: undeclared")),
		"no disk":  errors.New("no space left"),
	}}
	p := &Pipeline{Build: f.build, Journal: journal(t, t.TempDir(), false)}
	judge := func(key string) Result {
		r, err := p.Judge(t.Context(), Point{Key: key, Title: key})
		require.NoError(t, err)
		return r
	}
	require.Equal(t, Good, judge("good").Verdict)
	require.Equal(t, Skip, judge("no build").Verdict)
	require.Contains(t, judge("no build").Reason, "undeclared")
	require.Equal(t, Skip, judge("skips").Verdict)

	// Before anybody knows what is looked for, a kernel that does not boot is
	// as bad as any.
	r := judge("no boot")
	require.Equal(t, Bad, r.Verdict)
	require.Equal(t, ClassBoot, r.Class)
	bad := judge("bad")
	require.Equal(t, Bad, bad.Verdict)
	require.Equal(t, []string{"t"}, bad.Failed)
	p.Focus(bad)
	p.Journal = journal(t, t.TempDir(), false)
	r = judge("no boot")
	require.Equal(t, Skip, r.Verdict, "it does not boot for another reason")
	require.Contains(t, r.Reason, "does not boot, which is not the failure that is looked for")
	require.Equal(t, []string{"t"}, f.only[len(f.only)-1])
	// And the other way round.
	p.Focus(Result{Class: ClassBoot})
	p.Journal = journal(t, t.TempDir(), false)
	require.Equal(t, Skip, judge("bad").Verdict)
	require.Equal(t, Bad, judge("no boot").Verdict)

	// The harness's own faults are nobody's verdict, and are not kept.
	_, err := p.Judge(t.Context(), Point{Key: "no disk", Title: "no disk"})
	require.ErrorContains(t, err, "no disk: no space left")
	var stopped *StoppedError
	require.ErrorAs(t, err, &stopped)
	require.Empty(t, p.Journal.Get("no disk").Verdict)
	_, err = p.Judge(t.Context(), Point{Key: "no guest", Title: "no guest"})
	require.ErrorContains(t, err, "no guest: the disk is full")
	require.Empty(t, p.Journal.Get("no guest").Verdict)
}

// Commits that change nothing that is built are answered for without a boot.
func TestIdenticalImage(t *testing.T) {
	a := newAuthor(t, row(65)...)
	number := a.numbers()
	// Between the 10th and the 60th only the 41st changes what is built.
	f := &plant{image: func(key string) string {
		switch n := number[key]; {
		case n < 10 || n > 60:
			return key
		case n <= 40:
			return "before"
		}
		return "after"
	}, run: func(key string, _ int) Attempt {
		if number[key] >= 41 {
			return fail
		}
		return pass
	}}
	p := &Pipeline{Build: f.build, Journal: journal(t, t.TempDir(), false)}
	var said []string
	p.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	c, err := a.bisect(t.TempDir(), a.ids["0"], "master", p.Judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["41"]}, c.IDs)
	require.Len(t, f.tried, 4, "the ends, one image before and one after: %v", f.tried)
	require.GreaterOrEqual(t, len(f.built), 7)
	require.Contains(t, strings.Join(said, "\n"), "identical image")

	// The ends themselves.
	f.image = func(string) string { return "one" }
	p.Journal = journal(t, t.TempDir(), false)
	_, err = a.bisect(t.TempDir(), a.ids["0"], "master", p.Judge)
	require.ErrorContains(t, err, "are the same kernel")
}

// Wherever it is interrupted, it goes on to the same answer and asks nothing
// twice.
func TestResume(t *testing.T) {
	a := newAuthor(t, row(9)...)
	number := a.numbers()
	run := func(key string, n int) Attempt {
		if number[key] >= 6 && n == 2 {
			return fail // flaky: not at the first run
		}
		return pass
	}
	whole := &plant{run: run}
	out := t.TempDir()
	p := &Pipeline{Build: whole.build, Journal: journal(t, out, false), Runs: 3}
	c, err := a.bisect(out, a.ids["0"], "master", p.Judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["6"]}, c.IDs)
	log, err := os.ReadFile(filepath.Join(out, LogFile))
	require.NoError(t, err)

	for stop := 0; stop < len(whole.tried); stop += 2 {
		ctx, cancel := context.WithCancel(t.Context())
		f := &plant{}
		f.run = func(key string, n int) Attempt {
			if len(f.tried) > stop {
				cancel()
			}
			return run(key, n)
		}
		out := t.TempDir()
		p := &Pipeline{Build: f.build, Journal: journal(t, out, false), Runs: 3}
		_, err := a.bisect(out, a.ids["0"], "master", func(_ context.Context, pt Point) (Result, error) { return p.Judge(ctx, pt) })
		require.ErrorIs(t, err, context.Canceled)

		g := &plant{run: run}
		p = &Pipeline{Build: g.build, Journal: journal(t, out, true), Runs: 3}
		c, err := a.bisect(out, a.ids["0"], "master", p.Judge)
		require.NoError(t, err)
		require.Equal(t, []string{a.ids["6"]}, c.IDs)
		// The one that was interrupted has no verdict and is run again.
		require.Equal(t, whole.tried, append(f.tried[:stop:stop], g.tried...))
		again, err := os.ReadFile(filepath.Join(out, LogFile))
		require.NoError(t, err)
		require.Equal(t, string(log), string(again))
	}
}

func TestResumeOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenJournal(dir, []Asked{{"tests", "t"}}, true)
	require.ErrorContains(t, err, "nothing to resume")
	j := journal(t, dir, false)
	require.NoError(t, j.Put(Point{Key: "k"}, Result{Verdict: Good}))
	_, err = OpenJournal(dir, []Asked{{"tests", "u"}}, true)
	require.ErrorContains(t, err, `its tests is "t", not "u"`)
	require.Equal(t, Good, journal(t, dir, true).Get("k").Verdict)
	require.Empty(t, journal(t, dir, false).Get("k").Verdict, "a new one begins with nothing")

	require.NoError(t, os.WriteFile(filepath.Join(dir, JSONFile), []byte("{"), 0o644))
	_, err = OpenJournal(dir, nil, true)
	require.ErrorContains(t, err, JSONFile)
	require.NoError(t, os.WriteFile(filepath.Join(dir, JSONFile), []byte("{}"), 0o644))
	_, err = OpenJournal(dir, nil, true)
	require.ErrorContains(t, err, "another nftvm")
}

func TestFlaky(t *testing.T) {
	a := newAuthor(t, row(17)...)
	number := a.numbers()
	// From the 9th on the second of four runs fails; the end fails twice.
	f := &plant{run: func(key string, n int) Attempt {
		if number[key] >= 9 && (n == 2 || n == 4) {
			return fail
		}
		return pass
	}}
	p := &Pipeline{Build: f.build, Journal: journal(t, t.TempDir(), false), Runs: 4}
	c, err := a.bisect(t.TempDir(), a.ids["0"], "master", p.Judge)
	require.NoError(t, err)
	require.Equal(t, []string{a.ids["9"]}, c.IDs)

	end := p.Journal.Get(a.ids["16"])
	require.Len(t, end.Runs, 4, "the bad end is measured")
	require.Equal(t, 2, end.Failures())
	for _, e := range p.Journal.Points {
		switch {
		case e.Key == a.ids["16"]:
		case e.Result.Verdict == Good:
			require.Len(t, e.Result.Runs, 4, "good only after every run")
		default:
			require.Len(t, e.Result.Runs, 2, "bad at the first failure")
		}
	}
	again := func(Point) string { return "again" }
	fd := p.Journal.NewFinding("x", c.IDs, true, Point{Key: a.ids["16"]}, again)
	require.Equal(t, 2, p.Journal.Goods())
	require.InDelta(t, 0.0625, fd.Confidence.Each, 1e-9)
	require.InDelta(t, 1-0.9375*0.9375, fd.Confidence.Any, 1e-9)
	require.Equal(t, "at the bad end 2 of 4 runs failed; at that rate a good verdict (4 runs without a failure) is wrong with probability 6.2 %, "+
		"any of the 2 there are with 12 %", fd.Confidence.String())

	// One run would have been wrong.
	p = &Pipeline{Build: f.build, Journal: journal(t, t.TempDir(), false)}
	_, err = a.bisect(t.TempDir(), a.ids["0"], "master", p.Judge)
	require.ErrorContains(t, err, "passes on both ends")
}

func TestTried(t *testing.T) {
	bailed := func(t report.Test) bool { return strings.Contains(t.Reason, "bail") }
	test := func(name string, v report.Verdict, reason string) report.Test {
		return report.Test{Name: name, Verdict: v, Reason: reason, StartSeconds: 0.1, Console: name + ".console"}
	}
	boot := test("a", report.Crash, "boot: panic")
	boot.StartSeconds = 0
	midway := test("a", report.Fail, "bail")
	midway.Subtests = []report.Subtest{{Name: "s", Verdict: report.Pass}}
	for _, tt := range []struct {
		name    string
		tests   []report.Test
		want    []string
		verdict Verdict
		class   string
		reason  string
		step    int
	}{
		{"passes", []report.Test{test("a", report.Pass, "")}, []string{"a"}, Good, "", "", 0},
		{"fails", []report.Test{test("a", report.Fail, "exit code 1")}, nil, Bad, ClassTest, "a: fail: exit code 1", 1},
		{"leaks", []report.Test{test("a", report.Leak, "x")}, nil, Bad, ClassTest, "a: leak: x", 1},
		{"crashes", []report.Test{test("a", report.Crash, "KASAN")}, nil, Bad, ClassTest, "KASAN", 1},
		{"does not boot", []report.Test{boot}, nil, Bad, ClassBoot, "boot: panic", 125},
		{"gives up", []report.Test{test("a", report.Fail, "bail")}, nil, Bad, ClassBail, "bail", 125},
		{"gives up midway", []report.Test{midway}, nil, Bad, ClassTest, "bail", 1},
		{"one gives up, one fails", []report.Test{test("a", report.Fail, "bail"), test("b", report.Fail, "x")}, nil, Bad, ClassTest, "b: fail: x", 1},
		{"skips itself", []report.Test{test("a", report.Skip, "needs tc")}, nil, Skip, "", "needs tc", 125},
		{"one skips, one fails", []report.Test{test("a", report.Skip, "needs tc"), test("b", report.Fail, "x")}, nil, Bad, ClassTest, "b: fail: x", 1},
		{"is not for this kernel", []report.Test{test("a", report.Pass, "")}, []string{"a", "b"}, Skip, "", "b is not meant for this kernel", 0},
		{"no test at all", nil, nil, Skip, "", "none of the tests", 125},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Tried(tt.tests, tt.want, bailed)
			require.NoError(t, err)
			require.Equal(t, tt.verdict, a.Verdict)
			require.Equal(t, tt.class, a.Class)
			require.Contains(t, a.Reason, tt.reason)

			code, why := Step(t.Context(), []report.Cell{{Tests: tt.tests}}, bailed)
			require.Equal(t, tt.step, code)
			require.Equal(t, code == 0, why == "")
		})
	}
	_, err := Tried([]report.Test{test("a", report.Error, "no QEMU")}, nil, bailed)
	require.ErrorContains(t, err, "no QEMU")
}

func TestStep(t *testing.T) {
	never := func(report.Test) bool { return false }
	good, bad := report.Test{Verdict: report.Pass}, report.Test{Name: "b", Verdict: report.Fail}
	skip, broken := report.Test{Verdict: report.Skip}, report.Test{Name: "e", Verdict: report.Error, Reason: "no QEMU"}
	step := func(tests ...report.Test) int {
		code, _ := Step(t.Context(), []report.Cell{{Tests: tests}}, never)
		return code
	}
	require.Equal(t, 0, step(good, skip))
	require.Equal(t, 1, step(good, bad, broken), "a failure that was seen stays one")
	require.Equal(t, 125, step(good, broken))
	require.Equal(t, 125, step(skip, skip))
	code, why := Step(t.Context(), []report.Cell{{Verdict: report.Fail, Reason: "build: undeclared"}}, never)
	require.Equal(t, 125, code, "what does not build is not bad")
	require.Equal(t, "build: undeclared", why)
	code, _ = Step(t.Context(), []report.Cell{{}, {}}, never)
	require.Equal(t, 125, code)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 125, Fault(t.Context()))
	require.Equal(t, 130, Fault(ctx))
	code, _ = Step(ctx, []report.Cell{{Tests: []report.Test{bad}}}, never)
	require.Equal(t, 130, code, "git bisect run must stop")
}

func TestFinding(t *testing.T) {
	dir := t.TempDir()
	j := journal(t, dir, false)
	console := filepath.Join(dir, "console.log")
	require.NoError(t, os.WriteFile(console, []byte("one\ntwo\nthree\nfour\nfive\nsix\nseven\n"), 0o644))
	other := fail
	other.How, other.Console, other.Log = []string{"WARNING: other"}, console, "output.log"
	ends := []Point{{Key: "g", Title: "the one before"}, {Key: "b", Title: "the culprit"}, {Key: "end", Title: "the end"}}
	for i, r := range []Result{
		{Verdict: Good, Same: "another"},
		{Verdict: Bad, Reason: "t: fail: x\nmore", Runs: []Attempt{other}},
		{Verdict: Bad, Runs: []Attempt{fail}},
	} {
		require.NoError(t, j.Put(ends[i], r))
	}
	f := j.NewFinding("the first bad commit is b", []string{"b"}, true, ends[2], func(p Point) string { return "nftvm again " + p.Key }, ends[:2]...)
	f.Stat = " file | 1 +"
	require.NoError(t, j.Finish(f))
	var b strings.Builder
	f.Write(&b)
	require.Equal(t, `the first bad commit is b

 file | 1 +

good: the one before
  identical image: booted at another
  again: nftvm again g

bad: the culprit: t: fail: x
  output:  output.log
  console: `+console+`
  | two
  | three
  | four
  | five
  | six
  | seven
  again: nftvm again b

note: the culprit fails in another way (WARNING: other) than the bad end (one): there may be more than one cause
`, b.String())
	require.Equal(t, 0, f.ExitCode())
	f.Exact, f.Names = false, []string{"a", "b"}
	b.Reset()
	f.Write(&b)
	require.Contains(t, b.String(), "is b\n  a\n  b\n")
	require.Equal(t, ExitAmong, f.ExitCode())
	raw, err := os.ReadFile(filepath.Join(dir, JSONFile))
	require.NoError(t, err)
	require.Contains(t, string(raw), `"again": "nftvm again b"`)
}
