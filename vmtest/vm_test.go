// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// testKernel is the kernel that NFTVM_TEST_KERNEL and its companions name;
// without it the test is skipped.
func testKernel(t *testing.T) Kernel {
	t.Helper()
	image := os.Getenv("NFTVM_TEST_KERNEL")
	if image == "" {
		t.Skip("needs a guest kernel: NFTVM_TEST_KERNEL=<bzImage> NFTVM_TEST_MODULES=<dir with lib/modules> (make test sets them)")
	}
	flavor := os.Getenv("NFTVM_TEST_FLAVOR")
	if flavor == "" {
		flavor = "plain"
	}
	return Kernel{Tree: "test", Flavor: flavor, Image: image,
		Vmlinux: os.Getenv("NFTVM_TEST_VMLINUX"), Modules: os.Getenv("NFTVM_TEST_MODULES")}
}

// engine shares one store between the tests of a run, so that the image is
// built and KVM is proved once.
func engine(t *testing.T) *Engine {
	t.Helper()
	st, err := store.Open(os.Getenv("NFTVM_TEST_STORE"))
	require.NoError(t, err)
	return &Engine{Store: st, Accel: os.Getenv("NFTVM_TEST_ACCEL")}
}

// script writes a guest script and returns the test that runs it.
func script(t *testing.T, body string) Test {
	t.Helper()
	host := filepath.Join(t.TempDir(), "test.sh")
	require.NoError(t, os.WriteFile(host, []byte("#!/bin/bash\n"+body), 0o755))
	const guest = "/selftests/x/test.sh"
	return Test{Name: "x/test", Script: guest, Files: []File{{Host: host, Guest: guest}}}
}

func runTest(t *testing.T, tst Test) (Result, error) {
	t.Helper()
	dir := t.TempDir()
	k := testKernel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	res, err := engine(t).Run(ctx, k, tst, dir)
	t.Logf("%s %q accel %s start %.2fs script %.2fs err %v", res.Verdict, res.Reason, res.Accel, res.StartSeconds, res.Seconds, err)
	if t.Failed() || os.Getenv("NFTVM_TEST_VERBOSE") != "" {
		if b, err := os.ReadFile(filepath.Join(dir, ConsoleFile)); err == nil {
			t.Logf("console:\n%s", b)
		}
		if b, err := os.ReadFile(filepath.Join(dir, OutputFile)); err == nil {
			t.Logf("output:\n%s", b)
		}
	}
	return res, err
}

func output(t *testing.T, res Result) string {
	t.Helper()
	b, err := os.ReadFile(res.Log)
	require.NoError(t, err)
	return string(b)
}

func TestPass(t *testing.T) {
	testKernel(t)
	res, err := runTest(t, script(t, `
set -eu
uname -r
modprobe nf_tables
lsmod | grep -q nf_tables
nft --version; ip -V; jq --version; ethtool --version; socat -V | head -2; conntrack -V; ping -V; tc -V
ip link show lo | grep -q UP
mount | sort
test -d /sys/kernel/debug/tracing
echo "TAP version 13"; echo "1..2"; echo "ok 1 one"; echo "ok 2 two # SKIP no reason"
`))
	require.NoError(t, err)
	require.Equal(t, Pass, res.Verdict, output(t, res))
	require.Len(t, res.Subtests, 2)
	require.True(t, strings.Contains(output(t, res), "nftables v"))
	require.Positive(t, res.StartSeconds)
}

// TestClock wants a clock finer than a tick, on one processor and on two.
func TestClock(t *testing.T) {
	testKernel(t)
	for _, cpus := range []int{1, 2} {
		tst := script(t, `
nproc; cat /sys/devices/system/clocksource/clocksource0/current_clocksource
ping -q -c 50 -i 0.002 127.0.0.1 | sed -n 's/.*time \([0-9]*\)ms/\1/p'
grep -m1 resolution /proc/timer_list || true
`)
		tst.VCPUs = cpus
		res, err := runTest(t, tst)
		require.NoError(t, err)
		lines := strings.Fields(output(t, res))
		require.GreaterOrEqual(t, len(lines), 3)
		require.Equal(t, strconv.Itoa(cpus), lines[0])
		// tsc-early is the same counter, until the kernel has refined its
		// rate; a guest that boots in a second may be asked before that.
		require.Contains(t, []string{"tsc", "tsc-early", "kvm-clock"}, lines[1])
		t.Logf("50 pings, 2 ms apart: %s ms", lines[2])
	}
}

// TestPayload delivers more than any kernel's modules are.
func TestPayload(t *testing.T) {
	testKernel(t)
	big := filepath.Join(t.TempDir(), "big")
	b := make([]byte, 16<<20)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	require.NoError(t, os.WriteFile(big, b, 0o644))
	sum, err := store.FileSum(big)
	require.NoError(t, err)
	tst := script(t, "sha256sum /tmp/payload/big; stat -c %a /tmp/payload/big")
	tst.Files = append(tst.Files, File{Host: big, Guest: "/tmp/payload/big"})
	res, err := runTest(t, tst)
	require.NoError(t, err)
	require.Contains(t, output(t, res), sum)
	require.Contains(t, output(t, res), "644")
}
