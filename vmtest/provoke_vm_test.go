// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestProvoke has the kernel complain in every way that a module can make it,
// and wants each seen and named. It needs the build directory of the kernel in
// NFTVM_TEST_KBUILD; with NFTVM_TEST_CORPUS it adds what the consoles showed
// to the corpus in that directory.
func TestProvoke(t *testing.T) {
	testKernel(t)
	objdir := os.Getenv("NFTVM_TEST_KBUILD")
	if objdir == "" {
		t.Skip("needs the kernel's build directory in NFTVM_TEST_KBUILD")
	}
	src := t.TempDir()
	for _, name := range []string{"provoke.c", "Kbuild"} {
		b, err := os.ReadFile(filepath.Join("testdata/provoke", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(src, name), b, 0o644))
	}
	out, err := exec.Command("make", "-C", objdir, "M="+src, "modules").CombinedOutput()
	require.NoError(t, err, string(out))
	module := File{Host: filepath.Join(src, "provoke.ko"), Guest: "/lib/nftvm/manual/provoke.ko"}

	const inFunc = ` in provoke_`
	for _, tc := range []struct {
		kind    string
		before  string // commands
		timeout time.Duration
		cpus    int
		want    Verdict
		title   string
		// needs is a config symbol without which the kernel is silent.
		needs string
	}{
		{kind: "warn", want: Fail, title: "WARNING" + inFunc + "warn"},
		{kind: "warn-text", want: Fail, title: "WARNING" + inFunc + "warn_text"},
		{kind: "bug", want: Crash, title: "kernel BUG" + inFunc + "bug"},
		{kind: "null", want: Crash, title: "BUG: NULL pointer dereference" + inFunc + "null"},
		{kind: "page-fault", want: Crash, title: "BUG: bad page fault" + inFunc + "page_fault"},
		{kind: "gpf", want: Crash, title: "general protection fault" + inFunc + "gpf"},
		{kind: "divide", want: Crash, title: "divide error" + inFunc + "divide"},
		{kind: "refcount", want: Fail, title: "refcount: decrement hit 0; leaking memory" + inFunc + "refcount"},
		{kind: "list", want: Fail, title: "list corruption: list_del" + inFunc + "list", needs: "CONFIG_DEBUG_LIST"},
		{kind: "atomic", want: Fail, title: "BUG: scheduling while atomic" + inFunc + "atomic", needs: "CONFIG_PREEMPT_COUNT"},
		{kind: "stack", want: Crash, title: "BUG: stack overflow" + inFunc + "stack", needs: "CONFIG_VMAP_STACK"},
		{kind: "oom", want: Fail, title: "out of memory"},
		{kind: "panic", want: Crash, title: "kernel panic: provoked at ADDR with N" + inFunc + "panic"},
		{kind: "hung", before: "echo 1 > /proc/sys/kernel/hung_task_timeout_secs", timeout: 3 * time.Second, want: Timeout, title: "INFO: task hung" + inFunc + "hung", needs: "CONFIG_DETECT_HUNG_TASK"},
		{kind: "rcu", before: "echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", timeout: 4 * time.Second, cpus: 2, want: Timeout, title: "INFO: rcu detected stall" + inFunc + "spin"},
		{kind: "spin", before: "echo 2 > /proc/sys/kernel/watchdog_thresh", timeout: 4 * time.Second, want: Timeout, title: "BUG: soft lockup" + inFunc + "spin", needs: "CONFIG_SOFTLOCKUP_DETECTOR"},
		{kind: "irqs-off", timeout: time.Second, want: Timeout},
		{kind: "leak", want: Leak, title: "kmemleak: memory leak" + inFunc + "leak", needs: "CONFIG_DEBUG_KMEMLEAK"},
		{kind: "use-after-free", want: Fail, title: "KASAN: slab-use-after-free Write" + inFunc + "use_after_free", needs: "CONFIG_KASAN"},
		{kind: "deadlock", want: Fail, title: "possible deadlock (circular locking dependency)" + inFunc + "deadlock", needs: "CONFIG_PROVE_LOCKING"},
		{kind: "odebug", want: Fail, title: "ODEBUG: free active timer_list" + inFunc + "odebug", needs: "CONFIG_DEBUG_OBJECTS_FREE"},
		{kind: "sleep", want: Fail, title: "BUG: sleeping function called from invalid context" + inFunc + "sleep", needs: "CONFIG_DEBUG_ATOMIC_SLEEP"},
		{kind: "preemptible", want: Fail, title: "BUG: using smp_processor_id() in preemptible code" + inFunc + "preemptible", needs: "CONFIG_DEBUG_PREEMPT"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			t.Parallel()
			config, err := os.ReadFile(filepath.Join(objdir, ".config"))
			require.NoError(t, err)
			if tc.needs != "" && !strings.Contains(string(config), tc.needs+"=y") {
				t.Skip("needs " + tc.needs)
			}
			tst := script(t, fmt.Sprintf("%s\ninsmod %s kind=%s\nexit 0\n", tc.before, module.Guest, tc.kind))
			tst.Files = append(tst.Files, module)
			tst.AllowTaint, tst.Timeout, tst.VCPUs, tst.AllowRefs = "O", tc.timeout, tc.cpus, true
			res, err := runTest(t, tst)
			require.NoError(t, err)
			console, err := os.ReadFile(res.Console)
			require.NoError(t, err)
			want := tc.want
			if tc.kind == "oom" && res.Verdict == Crash {
				want = Crash // where the kernel finds nobody to kill
			}
			require.Equal(t, want, res.Verdict, "%s\n%s", res.Reason, console)
			if tc.title != "" {
				require.NotEmpty(t, res.Splats, string(console))
				require.Equal(t, tc.title, res.Splats[0].Title, string(console))
			}
			if tc.kind == "irqs-off" {
				require.Contains(t, res.Reason, "does not take sysrq")
				require.Contains(t, string(console), "RIP=")
			}
			if dir := os.Getenv("NFTVM_TEST_CORPUS"); dir != "" && tc.title != "" {
				addToCorpus(t, dir, tc.kind, res, string(console))
			}
		})
	}
}

var linuxVersion = regexp.MustCompile(`Linux version (\d+\.\d+)`)

// addToCorpus keeps the part of the console that the test is about.
func addToCorpus(t *testing.T, dir, kind string, res Result, console string) {
	t.Helper()
	m := linuxVersion.FindStringSubmatch(console)
	require.NotNil(t, m)
	_, text, ok := strings.Cut(console, "nftvm: test begins: "+res.Name+"\n")
	require.True(t, ok)
	for _, end := range []string{"nftvm: test ended", "\n[nftvm: "} {
		if i := strings.Index(text, end); i >= 0 {
			text = text[:strings.LastIndexByte(text[:i], '\n')+1]
		}
	}
	var b strings.Builder
	b.WriteString("SPDX-License-Identifier: GPL-2.0-only\n")
	for _, s := range res.Splats {
		fatal := ""
		if s.Fatal {
			fatal = " (fatal)"
		}
		fmt.Fprintf(&b, "TITLE: %s%s\nKIND: %s\n", s.Title, fatal, s.Kind)
	}
	b.WriteString("\n" + text)
	name := kind + "-" + m[1]
	if flavor := testKernel(t).Flavor; flavor != "plain" {
		name += "-" + flavor
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".txt"), []byte(b.String()), 0o644))
}
