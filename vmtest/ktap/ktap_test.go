// SPDX-License-Identifier: GPL-2.0-only

package ktap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		verdict  Verdict
		leaves   []Leaf
		errs     string // in one of the errors
		unseen   bool
	}{
		{name: "nothing of KTAP", in: "PASS: it works\nok, done\nnot ok at all\n", verdict: Pass, unseen: true},
		{name: "empty", in: "", verdict: Pass, unseen: true},
		{name: "flat", in: "TAP version 13\n1..2\nok 1 one\nok 2 - two\n", verdict: Pass,
			leaves: []Leaf{{"one", Pass, ""}, {"two", Pass, ""}}},
		{name: "no newline at the end", in: "KTAP version 1\n1..1\nok 1 one", verdict: Pass, leaves: []Leaf{{"one", Pass, ""}}},
		{name: "carriage returns", in: "KTAP version 1\r\n1..1\r\nok 1 one\r\n", verdict: Pass, leaves: []Leaf{{"one", Pass, ""}}},
		{name: "failure", in: "1..2\nok 1 one\nnot ok 2 two\n", verdict: Fail, leaves: []Leaf{{"one", Pass, ""}, {"two", Fail, ""}}},
		{name: "directives", in: "1..5\nok 1 a # SKIP no device\nnot ok 2 b # TODO later\nnot ok 3 c # XFAIL known\nok 4 d # skip: lower\nnot ok 5 e # TIMEOUT 45 seconds\n",
			verdict: Fail, leaves: []Leaf{{"a", Skip, "no device"}, {"b", Todo, "later"}, {"c", XFail, "known"}, {"d", Skip, "lower"}, {"e", Fail, "45 seconds"}}},
		{name: "a hash in the name", in: "1..1\nok 1 rule #3 matches\n", verdict: Pass, leaves: []Leaf{{"rule #3 matches", Pass, ""}}},
		{name: "expected failures are no failure", in: "1..1\nnot ok 1 c # XFAIL known\n", verdict: Pass, leaves: []Leaf{{"c", XFail, "known"}}},
		{name: "all skipped", in: "1..2\nok 1 a # SKIP\nok 2 b # SKIP x\n", verdict: Skip, leaves: []Leaf{{"a", Skip, ""}, {"b", Skip, "x"}}},
		{name: "plan that skips all", in: "TAP version 13\n1..0 # SKIP no netdevsim\n", verdict: Skip},
		{name: "too few", in: "1..3\nok 1 a\n", verdict: Fail, errs: "3 results were planned, 1 came", leaves: []Leaf{{"a", Pass, ""}}},
		{name: "too many", in: "1..1\nok 1 a\nok 2 b\n", verdict: Fail, errs: "1 results were planned, 2 came", leaves: []Leaf{{"a", Pass, ""}, {"b", Pass, ""}}},
		{name: "no plan", in: "TAP version 13\nok 1 a\n", verdict: Fail, errs: "no plan", leaves: []Leaf{{"a", Pass, ""}}},
		{name: "version only", in: "TAP version 13\n", verdict: Fail, errs: "no plan"},
		{name: "plan at the end", in: "TAP version 13\nok 1 a\n1..1\n", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}}},
		{name: "number repeated", in: "1..2\nok 1 a\nok 1 b\n", verdict: Fail, errs: "result 1 where 2 was due", leaves: []Leaf{{"a", Pass, ""}, {"b", Pass, ""}}},
		{name: "bail out", in: "1..2\nok 1 a\nBail out! no memory\n", verdict: Fail, errs: "bailed out: no memory", leaves: []Leaf{{"a", Pass, ""}}},
		{name: "kernel lines between", in: "1..2\nok 1 a\n[   12.345678] ok 2 fake\n# comment\n[    1.0] BUG: x\nok 2 b\n", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}, {"b", Pass, ""}}},
		{name: "comments that look like results", in: "1..1\n# ok so far\n# not ok? we will see\nok 1 a\n", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}}},
		{name: "kunit nesting", in: `KTAP version 1
1..2
    KTAP version 1
    # Subtest: suite
    1..2
    ok 1 first
        KTAP version 1
        1..1
        not ok 1 deep
    not ok 2 second
not ok 1 suite
ok 2 other
`, verdict: Fail, leaves: []Leaf{{"suite/first", Pass, ""}, {"suite/second/deep", Fail, ""}, {"other", Pass, ""}}},
		{name: "kselftest nesting", in: `TAP version 13
1..1
# selftests: net: x.sh
# TAP version 13
# 1..2
# ok 1 first
# ok 2 second # SKIP why
ok 1 selftests: net: x.sh
`, verdict: Pass, leaves: []Leaf{{"selftests: net: x.sh/first", Pass, ""}, {"selftests: net: x.sh/second", Skip, "why"}}},
		{name: "outer ok does not forgive", in: "1..1\n    1..1\n    not ok 1 inner\nok 1 outer\n", verdict: Fail, leaves: []Leaf{{"outer/inner", Fail, ""}}},
		{name: "outer failure of its own", in: "1..1\n    1..1\n    ok 1 inner\nnot ok 1 outer\n", verdict: Fail, leaves: []Leaf{{"outer/inner", Pass, ""}, {"outer", Fail, ""}}},
		{name: "cut off inside", in: "1..1\n    KTAP version 1\n    1..2\n    ok 1 inner\n", verdict: Fail, errs: "ended inside", leaves: []Leaf{{"(unfinished)/inner", Pass, ""}, {"(unfinished)", Fail, ""}}},
		{name: "inner without a plan", in: "1..1\n    # Subtest: outer\n    ok 1 inner\nok 1 outer\n", verdict: Pass, leaves: []Leaf{{"outer/inner", Pass, ""}}},
		{name: "inner with nothing in it", in: "1..1\n    # Subtest: outer\nok 1 outer\n", verdict: Fail, errs: "outer: nothing in it", leaves: []Leaf{{"outer", Fail, ""}}},
		{name: "in a log, with a line that is not of it", in: "[    1.000000] KTAP version 1\n[    1.000000] 1..1\n[    1.000000] ok 1 a\nnot ok 1 broken\n", verdict: Fail,
			leaves: []Leaf{{"a", Pass, ""}, {"broken", Fail, ""}}, errs: "result 1 where 2 was due"},
		{name: "in a log", in: "[    9.000000] KTAP version 1\n[    9.000000] 1..1\n[   10.000000] ok 1 a\n", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}}},
		{name: "a skip does not forgive", in: "1..1\n    1..1\n    not ok 1 inner\nok 1 outer # SKIP why\n", verdict: Fail, leaves: []Leaf{{"outer/inner", Fail, ""}}},
		{name: "a failure before the plan", in: "not ok broken\n1..1\nok 1 a\n", verdict: Fail, errs: "a failure before the plan: not ok broken", leaves: []Leaf{{"a", Pass, ""}}},
		{name: "indented prose", in: "1..1\n  ok 1 so far\nok 1 a\n", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}}},
		{name: "indented failure", in: "1..1\n  not ok 1 inner\nok 1 a\n", verdict: Fail, leaves: []Leaf{{"a/inner", Fail, ""}}},
		{name: "inner plan not kept", in: "1..1\n    1..2\n    ok 1 inner\nok 1 outer\n", verdict: Fail, errs: "outer: 2 results were planned, 1 came", leaves: []Leaf{{"outer/inner", Pass, ""}, {"outer", Fail, ""}}},
		{name: "cut off in a line", in: "1..2\nok 1 a\nok", verdict: Pass, leaves: []Leaf{{"a", Pass, ""}, {"test 2", Pass, ""}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := Parse(tc.in)
			require.Equal(t, tc.verdict, r.Verdict(), "%+v", r)
			require.Equal(t, tc.leaves, r.Leaves())
			require.Equal(t, !tc.unseen, r.Seen)
			if tc.errs != "" {
				require.Contains(t, strings.Join(r.Errors, "\n"), tc.errs)
			} else {
				require.Empty(t, r.Errors)
			}
		})
	}
}

// FuzzParse wants no panic, and no document that loses its failures: a line
// that says "not ok" at the outermost level without a directive fails it.
func FuzzParse(f *testing.F) {
	f.Add("TAP version 13\n1..1\nok 1 a\n")
	f.Add("1..1\n    1..1\n    not ok 1 inner\nok 1 outer\n")
	f.Add("# # # ok 1\n        1..9999999999999999999\n")
	f.Fuzz(func(t *testing.T, in string) {
		r := Parse(in)
		r.Leaves()
		if r.Verdict() != Fail && Parse(in+"\nnot ok 1 added\n").Verdict() != Fail {
			t.Fatalf("%q swallows a failure", in)
		}
	})
}
