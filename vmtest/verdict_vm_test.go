// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// lost says what kmemleak would.
const lost = `printf '<4>unreferenced object 0xffff88802ea49400 (size 192):\n' > /dev/kmsg
printf '<4>  comm "nft", pid 92, jiffies 4294905019\n' > /dev/kmsg
printf '<4>  backtrace (crc 5cf305f3):\n' > /dev/kmsg
printf '<4>    __kmalloc_noprof+0x25a/0x299\n' > /dev/kmsg
printf '<4>    forgetful+0x36/0xdd\n' > /dev/kmsg`

// TestVerdicts runs one guest per way a test can end, and wants the right
// verdict for each.
func TestVerdicts(t *testing.T) {
	testKernel(t)
	for _, tc := range []struct {
		name, body string
		set        func(*Test)
		want       Verdict
		reason     string
		console    string // what the console's file must have
		check      func(t *testing.T, r Result)
	}{
		{name: "exit code", body: `echo hello; exit 3`, want: Fail, reason: "exit code 3"},
		{name: "signal", body: `kill -SEGV $$`, want: Fail, reason: "signal 11"},
		{name: "skip", body: `echo "needs a unicorn"; exit 4`, want: Skip, reason: "needs a unicorn"},
		{name: "skip of a part", body: `echo "SKIP: no bridge"; echo "PASS: the rest"`, want: Pass, reason: "SKIP: no bridge"},
		{name: "stop at failure", body: `echo TAP version 13; echo 1..2; echo ok 1 one; echo not ok 2 two; sleep 1000`,
			set: func(x *Test) { x.StopAtFailure = true }, want: Fail, reason: "first failure: two"},
		{name: "interpreter's argument", body: `#!/bin/bash -e
false; exit 0`, set: func(x *Test) {
			b, err := os.ReadFile(x.Files[0].Host)
			if err == nil {
				_ = os.WriteFile(x.Files[0].Host, bytes.TrimPrefix(b, []byte("#!/bin/bash\n")), 0o755)
			}
		}, want: Fail, reason: "exit code 1"},
		{name: "not ok but exit 0", body: `echo 1..1; echo not ok 1 thing; exit 0`, want: Fail, reason: "not ok: thing"},
		{name: "fewer results than planned", body: `echo 1..2; echo ok 1 thing; exit 0`, want: Fail, reason: "2 results were planned, 1 came"},
		{name: "no such script", set: func(x *Test) { x.Script = "/selftests/none.sh" }, want: Fail, reason: "exit code 127"},
		{name: "taint", body: `echo 64 > /proc/sys/kernel/tainted`, want: Fail, reason: "new taint U"},
		{name: "allowed taint", body: `echo 64 > /proc/sys/kernel/tainted`, set: func(x *Test) { x.AllowTaint = "U" }, want: Pass,
			check: func(t *testing.T, r Result) { require.Equal(t, []string{"U"}, r.Taint) }},
		{name: "netns left", body: `ip netns add forgotten; echo "<4>a last word" > /dev/kmsg`, want: Leak, reason: "network namespace forgotten",
			check: func(t *testing.T, r Result) {
				for file, has := range map[string]string{DmesgFile: "a last word", StateFile: `"forgotten"`, CmdlineFile: "qemu-system"} {
					b, err := os.ReadFile(filepath.Join(filepath.Dir(r.Log), file))
					require.NoError(t, err)
					require.Contains(t, string(b), has)
				}
			}},
		{name: "process left in a netns", body: `unshare -n sleep 1000 >/dev/null 2>&1 & for i in $(seq 500); do [ "$(readlink /proc/$!/ns/net)" = "$(readlink /proc/$$/ns/net)" ] || break; done; exit 0`,
			want: Leak, reason: "network namespace of process"},
		{name: "rules left", body: `nft add table inet t && nft add chain inet t c '{ type filter hook input priority 0; }' && nft add rule inet t c ct state new accept`,
			want: Leak, reason: "module nft_ct"},
		{name: "rules cleaned", body: `set -e; nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }'; nft add rule inet t c ct state new accept
			nft flush ruleset; ip netns add a; ip netns exec a nft add table inet t; ip netns del a; modprobe netdevsim; echo "1 1" > /sys/bus/netdevsim/new_device; echo 1 > /sys/bus/netdevsim/del_device`, want: Pass},
		{name: "warning", body: `echo "<4>WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 some_func+0x1/0x2 [mod]" > /dev/kmsg`, want: Fail, reason: "WARNING in some_func"},
		{name: "memory left", body: lost, want: Leak, reason: "memory leak in forgetful"},
		{name: "memory left, as it may", body: lost, set: func(x *Test) { x.AllowLeakOf = []string{"forgetful"} }, want: Pass},
		{name: "memory left by another", body: lost, set: func(x *Test) { x.AllowLeakOf = []string{"forget"} }, want: Leak, reason: "memory leak in forgetful"},
		{name: "panic", body: `echo c > /proc/sysrq-trigger`, want: Crash, reason: "sysrq triggered crash"},
		{name: "timeout", body: `echo begun; sleep 1000`, set: func(x *Test) { x.Timeout = time.Second }, want: Timeout, reason: "no end within 3s", console: "sysrq: HELP",
			check: func(t *testing.T, r Result) {
				require.Contains(t, output(t, r), "begun")
				console, err := os.ReadFile(r.Console)
				require.NoError(t, err)
				require.Contains(t, string(console), "task:sleep")
				require.Contains(t, string(console), "RIP=")
				require.NotContains(t, r.Reason, "does not")
			}},
		{name: "straggler", body: `sleep 1000 & echo done`, want: Pass},
		{name: "output cap", body: `head -c 20000000 /dev/zero | tr '\0' x`, want: Pass, check: func(t *testing.T, r Result) {
			st, err := os.Stat(r.Log)
			require.NoError(t, err)
			require.LessOrEqual(t, st.Size(), int64(outputCap))
			require.Equal(t, int64(20000000-outputCap), r.Dropped)
		}},
		{name: "console cap", body: `dmesg -n 8; l=$(printf 'x%.0s' $(seq 900)); for i in $(seq 5200); do echo "<3>$i $l" > /dev/kmsg; done`, set: func(x *Test) { x.Timeout = 2 * time.Minute }, want: Pass, check: func(t *testing.T, r Result) {
			st, err := os.Stat(r.Console)
			require.NoError(t, err)
			require.Less(t, st.Size(), int64(consoleCap+2*lastKept))
			require.Positive(t, r.Dropped)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tst := script(t, tc.body)
			if tc.set != nil {
				tc.set(&tst)
			}
			res, err := runTest(t, tst)
			require.NoError(t, err)
			require.Equal(t, tc.want, res.Verdict, "%s\n%s", res.Reason, output(t, res))
			require.Contains(t, res.Reason, tc.reason)
			if tc.console != "" {
				console, err := os.ReadFile(res.Console)
				require.NoError(t, err)
				require.Contains(t, string(console), tc.console)
			}
			if tc.check != nil {
				tc.check(t, res)
			}
		})
	}
}

// infra runs a test that must end in a harness fault of the given kind.
func infra(t *testing.T, tst Test, kind string) {
	t.Helper()
	_, err := runTest(t, tst)
	var ie *InfraError
	require.ErrorAs(t, err, &ie)
	require.Equal(t, kind, ie.Kind, "%v", err)
	require.Equal(t, store.Harness, store.FaultOf(err))
}

func TestGuestReboots(t *testing.T) {
	testKernel(t)
	infra(t, script(t, `echo b > /proc/sysrq-trigger`), KindRebooted)
}

// TestGarbledChannel has a guest program steal the agent's port and write
// nonsense to it.
func TestGarbledChannel(t *testing.T) {
	testKernel(t)
	bin := filepath.Join(t.TempDir(), "garble")
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/garble")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOAMD64=v1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	tst := script(t, `/selftests/x/garble; sleep 1000`)
	tst.Files = append(tst.Files, File{Host: bin, Guest: "/selftests/x/garble"})
	infra(t, tst, KindGarbled)
}

// children are the QEMUs that this process has started.
func children(t *testing.T) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		name := string(b[strings.IndexByte(string(b), '(')+1 : strings.LastIndexByte(string(b), ')')])
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if ppid, _ := strconv.Atoi(f[1]); ppid == os.Getpid() && strings.HasPrefix(name, "qemu") && f[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// during runs a test and calls fn once its script has said so.
func during(t *testing.T, tst Test, fn func(pid int, cancel func())) (Result, error) {
	t.Helper()
	k := testKernel(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			b, _ := os.ReadFile(filepath.Join(dir, OutputFile))
			if strings.Contains(string(b), "running") {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		for _, pid := range children(t) {
			fn(pid, cancel)
		}
	}()
	res, err := engine(t).Run(ctx, k, tst, dir)
	t.Logf("%s %q err %v", res.Verdict, res.Reason, err)
	return res, err
}

func TestQEMUKilled(t *testing.T) {
	testKernel(t)
	_, err := during(t, script(t, `echo running; sleep 1000`), func(pid int, _ func()) { _ = syscall.Kill(pid, syscall.SIGKILL) })
	var ie *InfraError
	require.ErrorAs(t, err, &ie)
	require.Equal(t, KindDied, ie.Kind)
}

// TestQEMUStopped has neither agent nor console nor monitor answer: every wait
// has to end by itself.
func TestQEMUStopped(t *testing.T) {
	testKernel(t)
	tst := script(t, `echo running; sleep 1000`)
	tst.Timeout = 2 * time.Second
	res, err := during(t, tst, func(pid int, _ func()) { _ = syscall.Kill(pid, syscall.SIGSTOP) })
	require.NoError(t, err)
	require.Equal(t, Timeout, res.Verdict)
	require.Contains(t, res.Reason, "does not answer")
	require.Empty(t, children(t))
}

func TestCancel(t *testing.T) {
	testKernel(t)
	start := time.Now()
	_, err := during(t, script(t, `echo running; sleep 1000`), func(_ int, cancel func()) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(start), 30*time.Second)
	require.Empty(t, children(t))
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "nftvm-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestQEMUIsNobody has root look at whose its QEMU is.
func TestQEMUIsNobody(t *testing.T) {
	testKernel(t)
	if os.Geteuid() != 0 {
		t.Skip("QEMU is whoever we are, unless we are root")
	}
	var uids string
	_, err := during(t, script(t, `echo running; sleep 1000`), func(pid int, cancel func()) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, _ := strings.Cut(string(b), "\nUid:\t")
		uids, _, _ = strings.Cut(rest, "\n")
		cancel()
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "65534\t65534\t65534\t65534", uids)
}
