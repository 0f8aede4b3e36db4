// SPDX-License-Identifier: GPL-2.0-only

package splat

import (
	"regexp"
	"strings"
)

// pattern is one way a kernel begins to complain.
type pattern struct {
	kind string
	// word is in every line that re matches; "" if there is none.
	word string
	re   *regexp.Regexp
	// title makes the title of re's groups and the report's lines.
	title func(m []string, lines []string) string
	// fatal: the kernel does not go on (oops=panic is set in our guests).
	fatal bool
	// absorbs are the kinds of lines that belong to this report.
	absorbs []string
}

const symbol = `([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+`

var (
	// machinery are functions that report, or get there: never the subject.
	machinery = regexp.MustCompile(`^(?:` +
		`_?_?dump_stack(?:_lvl)?|show_stack|print_(?:report|address_description|circular_bug|deadlock_bug|usage_bug|irq_inversion_bug)|` +
		`kasan_\w+|__kasan_\w+|__asan_\w+|check_region_inline|__ubsan_\w+|ubsan_\w+|handle_overflow|` +
		`kfence_\w+|__kfence_\w+|` +
		`__warn(?:_printk)?|warn_slowpath_\w+|report_bug|handle_bug|exc_\w+|asm_\w+|do_error_trap|do_trap|` +
		`panic|vpanic|nmi_panic|die|oops_end|die_addr|page_fault_oops|` +
		`refcount_warn_saturate|__refcount_\w+|refcount_(?:add|inc|sub|dec)\w*|` +
		`__list_(?:add|del)_\w+|__list_del_entry\w*|list_(?:add|del)\w*|` +
		`check_preemption_disabled|debug_smp_processor_id|__this_cpu_preempt_check|preempt_count_\w+|` +
		`debug_print_object|__debug_\w+|debug_\w*(?:object|check)\w*|` +
		`object_err|slab_err|slab_fix|check_(?:bytes_and_report|object|slab)|slab_bug|print_trailer|` +
		`__schedule(?:_bug)?|schedule(?:_\w+)?|__might_(?:sleep|resched|fault)|preempt_schedule\w*|` +
		`io_schedule\w*|wait_for_\w*completion\w*|__wait_for_common|do_wait_for_common|` +
		`__?mutex_lock\w*|mutex_lock\w*|rwsem_down_\w+|down_(?:read|write)\w*|` +
		`lockdep_\w+|__?lock_acquire\w*|lock_acquire\w*|validate_chain|check_\w*(?:deadlock|noncircular|prev_add|prevs_add)|mark_lock\w*|` +
		`_raw_\w+|mem(?:cpy|set|move|cmp)(?:_\w+)?|__mem(?:cpy|set|move)\w*|` +
		`rcu_(?:sched_clock_irq|check_\w+|dump_\w+)|print_(?:cpu|other_cpu)_stall\w*|` +
		`native_\w+|sysvec_\w+|irq_\w+|__irq_exit\w*|ret_from_\w+|nmi_\w+|default_idle\w*|` +
		`oom_kill_process|out_of_memory|dump_header|__alloc_pages\w*|alloc_pages\w*|kmem_cache_alloc\w*|__kmalloc\w*|kmalloc\w*` +
		`)$`)
	// afterLock skips what takes locks for somebody, to name the somebody.
	afterLock = regexp.MustCompile(`^(?:rtnl_lock\w*|nfnl_lock|spin_lock\w*)$`)
)

// nullDeref is the title of an access to the first page.
const nullDeref = "BUG: NULL pointer dereference"

// allocators are between the leaked memory and who wanted it.
var allocators = regexp.MustCompile(`^(?:kmemleak_\w+|create_object\w*|slab_\w+|__?kmem_cache_\w+|__?kvmalloc\w*|kmem_cache_\w+|` +
	`_?_?k[a-z]*alloc\w*|kmemdup\w*|kstrdup\w*|kvasprintf\w*|kasprintf\w*|__?vmalloc\w*|pcpu_alloc\w*|__alloc_percpu\w*|__do_kmalloc\w*|krealloc\w*)$`)

// freeing is between a freed object that is in use and who freed it.
var freeing = regexp.MustCompile(`^(?:k|kv|v|kmem_cache_|free_)free\w*$|^slab_free\w*$|^__slab_free$`)

func fixed(title string) func(m, lines []string) string {
	return func(_, lines []string) string { return in(title, function(lines, afterLock)) }
}

func group(format string) func(m, lines []string) string {
	return func(m, _ []string) string {
		out := format
		for i := len(m) - 1; i > 0; i-- {
			g := clone.ReplaceAllString(m[i], "")
			out = strings.ReplaceAll(out, "$"+string(rune('0'+i)), g)
		}
		return out
	}
}

var fatalLines = []string{"oops", "panic"}

// table is searched from its top; the first match wins. It holds for all
// kernels from 5.10: where a message has changed, both forms are here.
var table = []pattern{
	// Memory checkers.
	{kind: "kasan", word: "KASAN", re: regexp.MustCompile(`^BUG: KASAN: (\S+(?: [a-z][\w-]*)*?) in ` + symbol),
		title: func(m, lines []string) string {
			// A report's first line says where, its second what was done.
			access := ""
			for _, l := range lines[1:min(len(lines), 4)] {
				if a := kasanAccess.FindStringSubmatch(l); a != nil {
					access = " " + a[1]
					break
				}
			}
			fn := clone.ReplaceAllString(m[2], "")
			if machinery.MatchString(fn) {
				if f := function(lines[1:], nil); f != "" {
					fn = f
				}
			}
			return "KASAN: " + m[1] + access + " in " + fn
		}, absorbs: []string{"panic"}},
	{kind: "kasan", word: "KASAN", re: regexp.MustCompile(`^BUG: KASAN: ([\w-]+)$`), title: func(m, lines []string) string {
		return in("KASAN: "+m[1], function(lines, nil))
	}, absorbs: []string{"panic"}},
	{kind: "kfence", word: "KFENCE", re: regexp.MustCompile(`^BUG: KFENCE: (.+?) in ` + symbol), title: group("KFENCE: $1 in $2"), absorbs: []string{"panic"}},
	{kind: "ubsan", word: "UBSAN", re: regexp.MustCompile(`^UBSAN: (.+?) in (?:\.\./)*([\w./-]+?):\d+(?::\d+)?$`), title: func(m, lines []string) string {
		if fn := function(lines[1:], nil); fn != "" {
			return "UBSAN: " + m[1] + " in " + fn
		}
		return "UBSAN: " + m[1] + " in " + m[2]
	}, absorbs: []string{"panic"}},
	// kmemleak's own line in the log only suspects; its report is read when
	// a later scan has confirmed it.
	{kind: "kmemleak", word: "unreferenced object", re: regexp.MustCompile(`^unreferenced (?:percpu )?object 0x[0-9a-f]+ \(size \d+\):`), title: func(_, lines []string) string {
		return Leak(function(lines, allocators))
	}},
	{kind: "slab", word: "BUG ", re: regexp.MustCompile(`^BUG ([\w:-]+)(?: \([^)]*\))?: (.+)$`), title: func(m, _ []string) string {
		return "slab corruption: " + strings.TrimRight(stripNumbers(m[2]), ". ") + " in " + cacheName(m[1])
	}, absorbs: []string{"panic"}},
	{kind: "bad-page", word: "BUG: Bad ", re: regexp.MustCompile(`^BUG: Bad (page state|page map|page cache|rss-counter state|swap file entry)`), title: group("BUG: Bad $1")},

	// Locking.
	{kind: "lockdep", word: "WARNING: possible", re: regexp.MustCompile(`^WARNING: possible (circular locking dependency|recursive locking|irq lock inversion dependency)`), title: func(m, lines []string) string {
		return in("possible deadlock ("+m[1]+")", lockTaker(lines))
	}},
	{kind: "lockdep", word: "WARNING: ", re: regexp.MustCompile(`^WARNING: (\w+-safe -> \w+-unsafe lock order|inconsistent lock state|suspicious RCU usage|bad unlock balance|bad contention|Nested lock was not taken|held lock freed|lock held when returning to user space|chain_key collision)`), title: func(m, lines []string) string {
		return in(m[1], lockTaker(lines))
	}},
	{kind: "lockdep", word: "still has locks held", re: regexp.MustCompile(`^WARNING: .+/\d+ still has locks held!`), title: fixed("locks held")},
	{kind: "lockdep", word: "Invalid wait context", re: regexp.MustCompile(`^\[ BUG: Invalid wait context \]`), title: fixed("invalid wait context")},
	{kind: "lockdep", word: "INFO: trying to register non-static key", re: regexp.MustCompile(`^INFO: trying to register non-static key`), title: fixed("non-static lock key")},
	{kind: "lockdep", word: "has not been registered", re: regexp.MustCompile(`^BUG: key \S+ has not been registered!`), title: fixed("unregistered lock key")},
	{kind: "lockdep", word: "BUG: MAX_", re: regexp.MustCompile(`^BUG: (MAX_\w+) too low`), title: group("lockdep: $1 too low")},
	{kind: "spinlock", word: "BUG: ", re: regexp.MustCompile(`^BUG: (spinlock|rwlock) (.+?) on CPU#\d+`), title: func(m, lines []string) string {
		return in("BUG: "+m[1]+" "+m[2], function(lines, nil))
	}},
	{kind: "atomic", word: "scheduling while atomic", re: regexp.MustCompile(`^BUG: scheduling while atomic: `), title: fixed("BUG: scheduling while atomic"), absorbs: []string{"panic"}},
	{kind: "atomic", word: "sleeping function", re: regexp.MustCompile(`^BUG: sleeping function called from invalid context`), title: fixed("BUG: sleeping function called from invalid context"), absorbs: []string{"panic"}},
	{kind: "atomic", word: "in preemptible", re: regexp.MustCompile(`^BUG: using (\w+)\(\) in preemptible`), title: func(m, lines []string) string {
		return in("BUG: using "+m[1]+"() in preemptible code", function(lines, nil))
	}},

	// Stuck.
	{kind: "rcu-stall", word: "stall", re: regexp.MustCompile(`(?:rcu: )?INFO: rcu_\w+ (?:self-)?detected (?:expedited )?stalls? on `), title: func(_, lines []string) string {
		return in("INFO: rcu detected stall", atRIP(lines))
	}, absorbs: []string{"panic"}},
	{kind: "rcu-stall", word: "kthread starved", re: regexp.MustCompile(`rcu: rcu_\w+ kthread starved for`), title: func(_, _ []string) string { return "INFO: rcu kthread starved" }},
	{kind: "hung-task", word: "blocked for more than", re: regexp.MustCompile(`^INFO: task .+:\d+ blocked (?:in I/O wait )?for more than \d+ seconds`), title: fixed("INFO: task hung"), absorbs: []string{"panic"}},
	{kind: "soft-lockup", word: "soft lockup", re: regexp.MustCompile(`BUG: soft lockup - CPU#\d+ stuck for`), title: func(_, lines []string) string {
		return in("BUG: soft lockup", atRIP(lines))
	}, absorbs: []string{"panic"}},
	{kind: "hard-lockup", word: "hard LOCKUP", re: regexp.MustCompile(`(?:Watchdog|watchdog): .*hard LOCKUP on cpu`), title: func(_, lines []string) string {
		return in("BUG: hard lockup", atRIP(lines))
	}, absorbs: []string{"panic"}},
	{kind: "workqueue", word: "workqueue lockup", re: regexp.MustCompile(`BUG: workqueue lockup`), title: func(_, _ []string) string { return "BUG: workqueue lockup" }},
	{kind: "netdev-refs", word: "unregister_netdevice", re: regexp.MustCompile(`unregister_netdevice: waiting for \S+ to become free`), title: func(_, _ []string) string {
		return "unregister_netdevice: waiting for a device to become free"
	}},

	// Messages of the hardening checks; the WARNING or BUG below is theirs.
	{kind: "refcount", word: "refcount_t: ", re: regexp.MustCompile(`^refcount_t: (.+?)\.?$`), title: func(m, lines []string) string {
		return in("refcount: "+m[1], function(lines, nil))
	}, absorbs: []string{"warning"}},
	{kind: "list", word: "list_", re: regexp.MustCompile(`^(list_add|list_del|list_add_rcu|slist)(?: corruption|_corruption| double add|\. )`), title: func(m, lines []string) string {
		return in("list corruption: "+m[1], function(lines, nil))
	}, absorbs: append([]string{"warning", "bug"}, fatalLines...)},
	{kind: "odebug", word: "ODEBUG: ", re: regexp.MustCompile(`^ODEBUG: (\w+) (\w+).*object type: (\w+)`), title: func(m, lines []string) string {
		return in("ODEBUG: "+m[1]+" "+m[2]+" "+m[3], function(lines, freeing))
	}, absorbs: []string{"warning"}},

	// The plain ones. 7.x puts file and line first, before it CPU and PID.
	{kind: "warning", word: "WARNING: ", re: regexp.MustCompile(`^WARNING: (?:CPU: \d+ PID: \d+ )?(?:at )?(?:\S+:\d+ )?(?:at )?` + symbol), title: func(m, lines []string) string {
		fn := clone.ReplaceAllString(m[1], "")
		if machinery.MatchString(fn) {
			if f := function(lines[1:], nil); f != "" {
				fn = f
			}
		}
		return "WARNING in " + fn
	}, absorbs: []string{"panic"}},
	{kind: "warning", word: "WARNING: ", re: regexp.MustCompile(`^WARNING: (?:CPU: \d+ PID: \d+ )?at (?:\S+:\d+ )?0x[0-9a-f]+`), title: fixed("WARNING"), absorbs: []string{"panic"}},
	{kind: "bug", word: "kernel BUG at", re: regexp.MustCompile(`^kernel BUG at (\S+?):\d+!`), fatal: true, title: func(m, lines []string) string {
		if fn := atRIP(lines[1:]); fn != "" {
			return "kernel BUG in " + fn
		}
		return "kernel BUG at " + m[1]
	}, absorbs: fatalLines},
	{kind: "null-deref", word: "NULL pointer dereference", re: regexp.MustCompile(`^BUG: (?:kernel NULL pointer dereference|unable to handle kernel NULL pointer dereference)`), fatal: true, title: func(_, lines []string) string {
		return in(nullDeref, atRIP(lines[1:]))
	}, absorbs: fatalLines},
	{kind: "page-fault", word: "BUG: unable to handle", re: regexp.MustCompile(`^BUG: unable to handle (?:page fault|kernel paging request|kernel)`), fatal: true, title: func(_, lines []string) string {
		return in("BUG: bad page fault", atRIP(lines[1:]))
	}, absorbs: fatalLines},
	{kind: "stack", word: "stack guard page", re: regexp.MustCompile(`^BUG: (?:\S+ )?stack guard page was hit`), fatal: true, title: func(_, lines []string) string {
		return in("BUG: stack overflow", atRIP(lines[1:]))
	}, absorbs: fatalLines},
	{kind: "gpf", word: "general protection fault", re: regexp.MustCompile(`^(?:Oops: )?general protection fault[ ,:].*\[#\d+\]`), fatal: true, title: func(_, lines []string) string {
		// KASAN's checks in line fault on the shadow of an address, and
		// what that was is said next.
		if len(lines) > 1 && strings.HasPrefix(lines[1], "KASAN: null-ptr-deref in range ") {
			return in(nullDeref, atRIP(lines[1:]))
		}
		return in("general protection fault", atRIP(lines[1:]))
	}, absorbs: fatalLines},
	{kind: "oops", word: "[#", re: regexp.MustCompile(`^(?:Oops: )?(divide error|invalid opcode|double fault|int3|stack segment|bounds|stack guard page|control protection|unexpected #NM exception|[A-Za-z ]+?)?(?:: )?(?:[0-9a-f]{4}|0x[0-9a-f]+)? ?\[#\d+\]`), fatal: true, title: func(m, lines []string) string {
		what := strings.TrimSpace(strings.TrimPrefix(m[1], "Oops"))
		if what == "" {
			what = "Oops"
		}
		return in(what, atRIP(lines[1:]))
	}, absorbs: fatalLines},
	{kind: "bug", word: "BUG: ", re: regexp.MustCompile(`^BUG: (?:looking up invalid subclass|sleeping|stack|arch topology)`), title: fixed("BUG"), absorbs: fatalLines},

	// Out of memory: a test that does that cannot be believed either way.
	{kind: "oom", word: "invoked oom-killer", re: regexp.MustCompile(`invoked oom-killer: `), title: func(_, _ []string) string { return "out of memory" }, absorbs: []string{"oom", "panic"}},
	{kind: "oom", word: "Out of memory", re: regexp.MustCompile(`^Out of memory[ :(]`), title: func(_, _ []string) string { return "out of memory" }, absorbs: []string{"panic"}},

	{kind: "panic", word: "Kernel panic", re: regexp.MustCompile(`^Kernel panic - not syncing: (.+)$`), fatal: true, title: func(m, lines []string) string {
		why := stripNumbers(m[1])
		if strings.HasPrefix(why, "sysrq triggered crash") {
			return "kernel panic: sysrq triggered crash"
		}
		return in("kernel panic: "+why, function(lines[1:], nil))
	}},
}

var (
	numbers = regexp.MustCompile(`0x[0-9a-f]+|\b[0-9a-f]{8,16}\b`)
	digits  = regexp.MustCompile(`\b\d+\b`)
)

// stripNumbers takes addresses and counts out of a message.
func stripNumbers(s string) string {
	return digits.ReplaceAllString(numbers.ReplaceAllString(s, "ADDR"), "N")
}

// cacheName makes caches that differ only in how many there were before them
// the same.
func cacheName(s string) string {
	return regexp.MustCompile(`^:\w+-\d+$`).ReplaceAllString(s, "merged cache")
}

var kasanAccess = regexp.MustCompile(`^(Read|Write) (?:of|at) `)

var (
	lockAt   = regexp.MustCompile(`^\s*(?:[0-9a-f]{8,} .*?)?(?:, )?at: ` + symbol)
	tryingTo = regexp.MustCompile(`is trying to (?:acquire|release) lock`)
)

// lockTaker is the function that a lockdep report is about: the one that wants
// the lock, else the first of the trace.
func lockTaker(lines []string) string {
	for i, l := range lines {
		if !tryingTo.MatchString(l) {
			continue
		}
		for _, at := range lines[i+1 : min(len(lines), i+3)] {
			if k := strings.Index(at, "at: "); k >= 0 {
				if m := lockAt.FindStringSubmatch(at[k:]); m != nil {
					fn := clone.ReplaceAllString(m[1], "")
					if !machinery.MatchString(fn) && !afterLock.MatchString(fn) {
						return fn
					}
				}
			}
		}
	}
	// Behind the stack backtrace line, or the frames are those of the
	// dependency chain.
	for i, l := range lines {
		if strings.HasPrefix(l, "stack backtrace:") || strings.HasPrefix(l, "Call Trace:") {
			return function(lines[i:], afterLock)
		}
	}
	return function(lines, afterLock)
}
