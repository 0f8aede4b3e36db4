// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/ktap"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

const (
	// putWait bounds the delivery of the payload, on real hardware.
	putWait = 20 * time.Second
	// answerWait bounds a question to a guest that should be idle.
	answerWait = 10 * time.Second
	// markWait is how long a mark may take from the guest's log to the
	// console here.
	markWait = 5 * time.Second
	// leaveWait bounds how long what a test took away may take to be gone: a
	// network namespace is dismantled by a work item, and no event tells its end.
	leaveWait  = 5 * time.Second
	leavePause = 50 * time.Millisecond
	// dumpWait bounds the dump of all tasks of a hanging guest.
	dumpWait = 10 * time.Second
)

// leaksCap bounds kmemleak's report: the first of a thousand leaked objects
// tell as much as all of them.
const leaksCap = 32 << 10

// seedAndRun seeds the shell that runs a script, and none that it starts.
const seedAndRun = `echo "unset BASH_ENV; RANDOM=$0" > /tmp/nftvm-seed && BASH_ENV=/tmp/nftvm-seed exec "$@"`

const skipExit = 4 // kselftest's KSFT_SKIP

// run is one test in its machine.
type run struct {
	m     *machine
	k     Kernel
	t     Test
	out   *capped
	res   *Result
	scale int

	files         []File
	before, after *wire.Probe
	dmesg         string
	leaks         string // what kmemleak reports
	reply         *wire.Reply
}

func (r *run) wait(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d*time.Duration(r.scale))
}

// do runs the test and fills in the result; its error is that no verdict is
// possible.
func (r *run) do(ctx context.Context) error {
	r.res.Subtests, r.res.Splats, r.res.Taint = []ktap.Leaf{}, []splat.Splat{}, []string{}
	if err := r.deliver(ctx); err != nil {
		return r.broken(err)
	}
	pctx, cancel := r.wait(ctx, answerWait)
	defer cancel()
	var err error
	if r.before = r.m.probed; r.before == nil {
		if r.before, err = r.m.client.Probe(pctx); err != nil {
			return r.broken(err)
		}
	}
	if err := r.m.client.Mark(pctx, "nftvm: test begins: "+r.t.Name); err != nil {
		return r.broken(err)
	}

	limit := r.t.Timeout
	if limit == 0 {
		limit = DefaultTimeout
	}
	start := time.Now()
	var failure <-chan struct{}
	if r.t.StopAtFailure {
		failure = r.out.Seen("\nnot ok ")
	}
	proc, err := r.m.client.Start(pctx, r.command())
	if err != nil {
		return r.broken(err)
	}
	tctx, cancel := r.wait(ctx, limit)
	defer cancel()
	for again := true; again; {
		again = false
		select {
		case <-proc.Done():
		case <-r.m.vm.Done():
		case <-failure:
			// A directive may forgive it, and may still be on its way.
			if text := r.out.Text(); firstFailure(ktap.Parse(text[:strings.LastIndexByte(text, '\n')+1])) == "" {
				failure, again = r.out.Seen("\n"), true
			}
		case <-tctx.Done():
		}
	}
	r.res.Seconds = time.Since(start).Seconds()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-proc.Done():
	case <-r.m.vm.Done():
		return r.broken(agent.ErrClosed)
	case <-failure:
		r.res.Splats = append(r.res.Splats, splat.Find(r.m.console.Text())...)
		r.account()
		r.res.Verdict, r.res.Reason = Fail, "stopped at its first failure"+firstFailure(ktap.Parse(r.out.Text()))
		return nil
	default:
		r.hang(ctx, proc, fmt.Sprintf("no end within %v", limit*time.Duration(r.scale)))
		return nil
	}
	if r.reply, err = proc.Wait(ctx); err != nil {
		return r.broken(err)
	}
	if err := r.collect(ctx); err != nil {
		if errors.Is(err, errSilent) {
			r.hang(ctx, nil, "the test ended, but the guest answered nothing after it")
			return nil
		}
		return r.broken(err)
	}
	r.judge()
	return nil
}

func (r *run) command() *agent.Command {
	argv := append(interpreter(r.t), append([]string{r.t.Script}, r.t.Args...)...)
	if r.t.Seed != 0 {
		argv = append([]string{"bash", "-c", seedAndRun, strconv.Itoa(r.t.Seed)}, argv...)
	}
	dir := "/"
	if i := strings.LastIndexByte(r.t.Script, '/'); i > 0 {
		dir = r.t.Script[:i] // they source lib.sh from where they are
	}
	env := r.t.Env
	if r.k.Flavor == debugFlavor {
		// lib.sh waits this long for what must happen.
		env = maps.Clone(env)
		if env == nil {
			env = map[string]string{}
		}
		if env["DEADLINE_MS"] == "" {
			env["DEADLINE_MS"] = debugDeadlineMS
		}
	}
	return &agent.Command{Argv: argv, Env: env, Dir: dir, Output: r.out, Limit: outputCap}
}

// interpreter is what the script's first line asks for. Upstream's scripts are
// not all executable, and a clone may have lost the bit.
func interpreter(t Test) []string {
	if !strings.HasSuffix(t.Script, ".sh") {
		return nil
	}
	words := []string{"bash"}
	for _, f := range t.Files {
		if f.Guest != t.Script {
			continue
		}
		b, err := os.ReadFile(f.Host)
		if err != nil {
			break // delivering it says so
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line, ok := strings.CutPrefix(line, "#!"); ok {
			// "bash -e": the rest of the line is one argument.
			if _, arg, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasSuffix(strings.Fields(line)[0], "env") {
				words = append(words, strings.TrimSpace(arg))
			}
		}
	}
	return words
}

func (r *run) deliver(ctx context.Context) error {
	var err error
	r.files, err = payload(r.k, r.t.Files)
	if err != nil {
		return &InfraError{Kind: KindIO, Err: err}
	}
	files := r.files
	if r.m.loaded {
		files = r.t.Files
	}
	if len(files) == 0 {
		return nil
	}
	pctx, cancel := r.wait(ctx, putWait)
	defer cancel()
	_, err = r.m.client.Put(pctx, files)
	return err
}

// errSilent is a guest that runs but does not answer.
var errSilent = errors.New("no answer")

// collect asks for everything that says whether the kernel is still well.
func (r *run) collect(ctx context.Context) error {
	actx, cancel := r.wait(ctx, answerWait)
	defer cancel()
	c := r.m.client
	fail := func(err error) error {
		if actx.Err() != nil && ctx.Err() == nil {
			return fmt.Errorf("%w: %w", errSilent, err)
		}
		return err
	}
	var err error
	if err = r.probeAfter(actx); err != nil {
		return fail(err)
	}
	if r.k.Flavor == debugFlavor {
		var b strings.Builder
		if err := c.Leaks(actx, &b, leaksCap); err != nil {
			return fail(err)
		}
		r.leaks = b.String()
	}
	// What the kernel said is complete when a line behind it has come.
	mark := fmt.Sprintf("nftvm: test ended: %s: %d", r.t.Name, time.Now().UnixNano())
	seen := r.m.console.Seen(mark)
	if err := c.Mark(actx, mark); err != nil {
		return fail(err)
	}
	select {
	case <-seen:
	case <-r.m.vm.Done():
		return agent.ErrClosed
	case <-time.After(markWait * time.Duration(r.scale)):
		// The console loses what it cannot print in time; the kernel's
		// own buffer has it.
		var b strings.Builder
		if err := c.Dmesg(actx, &b, outputCap); err != nil {
			return fail(err)
		}
		r.dmesg = b.String()
		fmt.Fprintf(r.m.console, "\n[nftvm: the console stopped; the kernel's buffer follows]\n%s\n", r.dmesg)
	}
	if r.leaks != "" {
		fmt.Fprintf(r.m.console, "\n[nftvm: kmemleak found]\n%s\n", r.leaks)
	}
	return nil
}

// probeAfter fills in after, once nothing of the test is left or leaveWait is
// over.
func (r *run) probeAfter(ctx context.Context) error {
	deadline := time.Now().Add(leaveWait * time.Duration(r.scale))
	for {
		var err error
		if r.after, err = r.m.client.Probe(ctx); err != nil {
			return err
		}
		if r.t.AllowLeak != "" || len(r.left()) == 0 || time.Now().After(deadline) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leavePause):
		}
	}
}

// broken is a machine that cannot be talked to any more: the kernel's death is
// a verdict, everything else is the harness's fault.
func (r *run) broken(err error) error {
	var ie *InfraError
	if errors.As(err, &ie) {
		return err
	}
	var re *agent.RemoteError
	if errors.As(err, &re) {
		return &InfraError{Kind: KindAgent, Err: err, Console: r.res.Console, Tail: r.m.console.Tail(tailLines)}
	}
	r.m.settle()
	if fatal := r.m.diedOf(); fatal != nil {
		r.crash(fatal)
		return nil
	}
	return r.m.fault(err)
}

func firstFatal(splats []splat.Splat) *splat.Splat {
	for i := range splats {
		if splats[i].Fatal {
			return &splats[i]
		}
	}
	return nil
}

// otherThan is the first complaint of another kind.
func otherThan(splats []splat.Splat, kind string) *splat.Splat {
	for i := range splats {
		if splats[i].Kind != kind {
			return &splats[i]
		}
	}
	return nil
}

func (r *run) crash(s *splat.Splat) {
	r.res.Verdict, r.res.Reason = Crash, s.Title
	r.res.Splats = splat.Find(r.m.console.Text())
	r.account()
}

// hang collects what can be known of a guest that did not end in time.
func (r *run) hang(ctx context.Context, proc *agent.Process, why string) {
	// Before sysrq: its own dumps are no complaints.
	text := r.m.console.Text()
	r.res.Verdict, r.res.Reason = Timeout, why
	r.res.Splats = append(r.res.Splats, splat.Find(text)...)
	if s := firstFatal(r.res.Splats); s != nil {
		r.res.Verdict, r.res.Reason = Crash, s.Title+"; then "+why
	}
	fmt.Fprintf(r.m.console, "\n[nftvm: %s; sysrq l, t, w and the registers follow]\n", why)
	// The help text is the last to be asked for, so it comes when the
	// others are complete.
	done := r.m.console.Seen("sysrq: HELP")
	for _, key := range "ltwh" {
		if err := r.m.vm.SysRq(byte(key)); err != nil {
			fmt.Fprintf(r.m.console, "[nftvm: sysrq: %v]\n", err)
			break
		}
	}
	select {
	case <-done:
	case <-r.m.vm.Done():
	case <-ctx.Done():
	case <-time.After(dumpWait):
		r.res.Reason += "; the kernel does not take sysrq either"
	}
	rctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	if regs, err := r.m.vm.Registers(rctx); err == nil {
		fmt.Fprintf(r.m.console, "\n[nftvm: registers]\n%s\n", regs)
	}
	if proc != nil {
		// A guest that still answers can say more.
		if p, err := r.m.client.Probe(rctx); err == nil {
			r.after = p
		} else {
			r.res.Reason += "; the guest does not answer"
		}
	}
	r.account()
}

// account fills in what is in every result, whatever its verdict.
func (r *run) account() {
	r.res.Dropped = r.out.Dropped() + r.m.console.Dropped()
	if r.reply != nil {
		r.res.Dropped += r.reply.Dropped
	}
	doc := ktap.Parse(r.out.Text())
	if doc.Seen {
		r.res.Subtests = append(r.res.Subtests, doc.Leaves()...)
	}
	if r.after == nil || r.before == nil {
		return
	}
	r.res.Taint = taints(r.after.Taint &^ r.before.Taint)
	l := r.after.Ledger
	r.res.Ledger = Ledger{Entries: l["entries"], Bound: l["bound"], Stale: l["stale"], Purged: l["purged"]}
	r.res.Left = r.left()
}

// left is what was there after the test and not before it.
func (r *run) left() []string {
	subjects := map[string]bool{}
	if !r.t.AllowRefs {
		subjects = netModules(r.files)
	}
	return left(r.before, r.after, subjects)
}

// netModules are the names of the delivered modules that belong to the network
// or were built by hand. References to others say nothing about a test: once
// 6.12's libcrc32c is loaded it holds crc32c_generic for good.
func netModules(files []File) map[string]bool {
	names := map[string]bool{}
	for _, f := range files {
		name, ok := moduleName(f.Guest)
		if ok && (strings.Contains(f.Guest, "/net/") || strings.HasPrefix(f.Guest, manualDir)) {
			names[name] = true
		}
	}
	return names
}

// moduleName is the name that the kernel gives to a module's file.
func moduleName(file string) (string, bool) {
	name, ok := strings.CutSuffix(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok
}

// left names what the test did not clean up. References are counted to the
// modules named.
func left(before, after *wire.Probe, modules map[string]bool) []string {
	var out []string
	for _, what := range []string{"entries", "bound"} {
		if n := after.Ledger[what]; n > 0 {
			out = append(out, fmt.Sprintf("hardware ledger: %s %d", what, n))
		}
	}
	had := map[string]bool{}
	for _, ns := range before.NetNS {
		had[ns] = true
	}
	for _, ns := range after.NetNS {
		if !had[ns] {
			out = append(out, "network namespace "+ns)
		}
	}
	var held []string
	for name, m := range after.Modules {
		own := m.Refs - m.Holders
		if b := before.Modules[name]; modules[name] && own > b.Refs-b.Holders && own > 0 {
			held = append(held, fmt.Sprintf("module %s: %d references", name, own))
		}
	}
	sort.Strings(held)
	return append(out, held...)
}

// judge gives the verdict of a test that ended in a kernel that answers.
func (r *run) judge() {
	r.account()
	text := r.m.console.Text()
	r.res.Splats = append(r.res.Splats, splat.Find(text)...)
	doc := ktap.Parse(r.out.Text())
	set := func(v Verdict, reason string) { r.res.Verdict, r.res.Reason = v, reason }

	var bad []string
	for _, letter := range r.res.Taint {
		if !strings.Contains(r.t.AllowTaint, letter) {
			bad = append(bad, letter)
		}
	}
	s := r.res.Splats
	lost := slices.DeleteFunc(slices.Clone(s), func(one splat.Splat) bool {
		return slices.ContainsFunc(r.t.AllowLeakOf, func(fn string) bool { return one.Title == splat.Leak(fn) })
	})
	switch {
	case firstFatal(s) != nil:
		set(Crash, firstFatal(s).Title)
	case otherThan(s, "kmemleak") != nil:
		set(Fail, otherThan(s, "kmemleak").Title)
	case r.reply.Signal != 0:
		set(Fail, fmt.Sprintf("killed by signal %d", r.reply.Signal))
	case r.reply.Exit != 0 && r.reply.Exit != skipExit:
		set(Fail, fmt.Sprintf("exit code %d%s", r.reply.Exit, firstFailure(doc)))
	case doc.Seen && doc.Verdict() == ktap.Fail:
		set(Fail, "exit code 0, but "+ktapReason(doc))
	case len(bad) > 0:
		set(Fail, "new taint "+strings.Join(bad, ""))
	case r.res.Ledger.Stale > 0:
		set(Fail, fmt.Sprintf("hardware ledger: %d stale calls", r.res.Ledger.Stale))
	case len(lost) > 0:
		set(Leak, lost[0].Title)
	case len(r.res.Left) > 0 && r.t.AllowLeak == "":
		set(Leak, strings.Join(r.res.Left, "; "))
	case r.reply.Exit == skipExit, doc.Seen && doc.Verdict() == ktap.Skip:
		set(Skip, skipReason(doc, r.out))
	case len(r.res.Left) > 0:
		set(Pass, fmt.Sprintf("left behind, as it may (%s): %s", r.t.AllowLeak, strings.Join(r.res.Left, "; ")))
	default:
		set(Pass, skippedParts(doc, r.out))
	}
}

// traceLines bounds the trace: what comes much later is not about the complaint.
const traceLines = 2000

// evidence leaves in dir what helps to understand a failure. A machine that does
// not answer any more leaves what it said before.
func (r *run) evidence(ctx context.Context, dir string) error {
	if r.m.alive() {
		ectx, cancel := r.wait(ctx, answerWait)
		defer cancel()
		var b strings.Builder
		if r.m.client.Dmesg(ectx, &b, outputCap) == nil {
			if err := os.WriteFile(filepath.Join(dir, DmesgFile), []byte(b.String()), 0o644); err != nil {
				return err
			}
		}
		if p, err := r.m.client.Probe(ectx); err == nil && r.after == nil {
			r.after = p
		}
	}
	if len(r.res.Splats) > 0 {
		lines := strings.Split(r.m.console.Text(), "\n")
		lines = lines[min(max(r.res.Splats[0].Line-1, 0), len(lines)):]
		r.res.Trace = filepath.Join(dir, TraceFile)
		if err := os.WriteFile(r.res.Trace, []byte(strings.Join(lines[:min(len(lines), traceLines)], "\n")), 0o644); err != nil {
			return err
		}
	}
	raw, err := json.MarshalIndent(struct {
		Before *wire.Probe `json:"before"`
		After  *wire.Probe `json:"after,omitempty"`
		Left   []string    `json:"left,omitempty"`
	}{r.before, r.after, r.res.Left}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, StateFile), raw, 0o644)
}

func firstFailure(doc *ktap.Result) string {
	for _, l := range doc.Leaves() {
		if l.Verdict == ktap.Fail {
			return ": " + l.Name
		}
	}
	return ""
}

func ktapReason(doc *ktap.Result) string {
	if len(doc.Errors) > 0 {
		return doc.Errors[0]
	}
	return "not ok" + firstFailure(doc)
}

// skippedParts is what a test that passed says it left out, "" for nothing.
// KTAP has subtests for that; others write a line.
func skippedParts(doc *ktap.Result, out *capped) string {
	if doc.Seen {
		return ""
	}
	var parts []string
	for line := range strings.Lines(out.Text()) {
		if strings.HasPrefix(line, "SKIP") {
			parts = append(parts, strings.TrimSpace(line))
		}
	}
	return strings.Join(parts, "; ")
}

func skipReason(doc *ktap.Result, out *capped) string {
	if doc.SkipAll != nil && *doc.SkipAll != "" {
		return *doc.SkipAll
	}
	if last := out.Tail(1); len(last) == 1 {
		return last[0]
	}
	return "the test skipped itself"
}
