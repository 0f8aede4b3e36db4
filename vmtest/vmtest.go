// SPDX-License-Identifier: GPL-2.0-only

// Package vmtest turns a built kernel into verdicts: each test runs in a
// machine of its own that nobody has used before, and passes only if the
// kernel stayed well.
package vmtest

import (
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/ktap"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/splat"
)

// Kernel is a built kernel: what the host's side hands over.
type Kernel struct {
	Tree    string // name in configs/trees.yaml
	Flavor  string // plain, debug
	Release string // uname -r; "" is not checked
	// Image is the bzImage.
	Image string
	// Vmlinux is booted instead of Image when set, by way of PVH: it saves
	// the guest a second of decompressing. A debug kernel boots its Image.
	Vmlinux string
	// Modules is a directory that holds lib/modules/<release>, "" if none.
	Modules string
	// Manual is a directory of M=-built *.ko for /lib/nftvm/manual, "" if none.
	Manual string
	// Key names the build; it is in what the store remembers of it.
	Key string
}

// File is a host's file and its place in the guest.
type File = agent.File

// Test is one script and what it needs.
type Test struct {
	Name   string // as "nft_offload/chain_actions"
	Script string // path in the guest; run by bash if it is no program
	Args   []string
	// Files are delivered besides the kernel's modules.
	Files []File
	Env   map[string]string
	// Timeout is that of the test's settings, on real hardware; it is
	// scaled for the accelerator and the flavor. 0 means DefaultTimeout.
	Timeout time.Duration
	VCPUs   int // 1; of a debug kernel 2 at least, unless ICount is set
	Memory  int // MiB of a plain kernel's guest, see Engine.GuestMemory
	// ICount makes the guest's time that of a processor which takes 2^ICount
	// ns per instruction and skips what it idles: for a test that works or
	// waits for a fixed number of seconds. 0 is real time. TCG only. A debug
	// kernel takes many more instructions for the same: its processor is as
	// much faster.
	ICount int
	// Seed is what bash's $RANDOM starts from in the script; 0: anything.
	Seed int
	// StopAtFailure ends the test with its first "not ok": of what follows
	// nothing more is wanted.
	StopAtFailure bool
	// SkipUnder is why the test cannot run, by accelerator: kvm or tcg.
	SkipUnder map[string]string
	// AllowTaint are letters of taints that are no failure, as "O" for a
	// module built outside the tree.
	AllowTaint string
	// AllowLeak says why the test may leave bindings and references behind;
	// "" is the rule: it may not.
	AllowLeak string
	// AllowLeakOf are functions of which kmemleak may report memory.
	AllowLeakOf []string
	// AllowRefs leaves module references unchecked: for a test that is
	// about leaving something loaded.
	AllowRefs bool
}

// DefaultTimeout is kselftest's own.
const DefaultTimeout = 45 * time.Second

// Verdict of a test.
type Verdict string

// The verdicts, as results.json has them.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"
	Skip    Verdict = "skip"
	Crash   Verdict = "crash"   // the kernel died
	Timeout Verdict = "timeout" // the test did not end in time
	Leak    Verdict = "leak"    // something was left behind
)

// Ledger is the simulated hardware's account after the test.
type Ledger struct {
	Entries int64 `json:"entries"` // live in hardware
	Bound   int64 `json:"bound"`   // devices still bound
	Stale   int64 `json:"stale"`   // calls for what was gone already
	Purged  int64 `json:"purged"`  // entries that an unbind had to remove
}

// Result is one test's outcome.
type Result struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	// Reason says why the verdict is no pass, in one line.
	Reason string `json:"reason,omitempty"`
	// Seconds is the script's own time; StartSeconds QEMU's exec to the
	// first command answered.
	Seconds      float64 `json:"seconds"`
	StartSeconds float64 `json:"start_seconds"`
	// Log and Console are paths of the script's output and the console.
	Log      string        `json:"log"`
	Console  string        `json:"console"`
	Subtests []ktap.Leaf   `json:"subtests"`
	Splats   []splat.Splat `json:"splats"`
	// Taint are the letters that came up during the test.
	Taint  []string `json:"taint"`
	Ledger Ledger   `json:"ledger"`
	// Trace is the path of what the console showed from the first complaint
	// on, for who can say more of it; "" if there was none.
	Trace string `json:"trace,omitempty"`
	// Kept is true when the machine was saved where the test failed.
	Kept bool `json:"kept,omitempty"`
	// Left is what the test left behind.
	Left []string `json:"left,omitempty"`
	// Dropped are the bytes of output and console beyond their caps.
	Dropped int64  `json:"dropped,omitempty"`
	Accel   string `json:"accel"`
	// Cmdline boots the machine by hand.
	Cmdline string `json:"cmdline"`
}
