// SPDX-License-Identifier: GPL-2.0-only

package ktap

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// theirs has the kernel's own parser read documents: a JSON object of text by
// name comes in, one of results by name goes out.
const theirs = `
import inspect, io, json, sys
sys.path.insert(0, sys.argv[1])
import kunit_parser as p
if 'printer' not in inspect.signature(p.parse_run_tests).parameters:
    sys.exit(4)
import kunit_printer
def leaves(test, prefix):
    if not test.subtests:
        return [[prefix + test.name, test.status.name]]
    return [l for t in test.subtests for l in leaves(t, prefix + test.name + '/')]
out = {}
for name, text in json.load(sys.stdin).items():
    t = p.parse_run_tests(text.splitlines(), kunit_printer.Printer(output=io.StringIO()))
    out[name] = {'status': t.status.name, 'errors': t.counts.errors,
                 'leaves': [l for s in t.subtests for l in leaves(s, '')]}
json.dump(out, sys.stdout)
`

type theirResult struct {
	Status string
	Errors int
	Leaves [][2]string
}

// red says whether theirs would call it a failure.
func (r theirResult) red() bool {
	return r.Errors > 0 || r.Status != "SUCCESS" && r.Status != "SKIPPED"
}

// differ are documents on which we want to know better.
var differ = map[string]string{
	"no-plan.ktap":           noPlan,
	"more-than-planned.ktap": "they ignore what comes behind the last planned result",
	"plan-skips-all.ktap":    skipsAll,

	"kunit/test_is_test_passed-missing_plan.log":             noPlan,
	"kunit/test_output_isolated_correctly.log":               noPlan,
	"kunit/test_output_with_prefix_isolated_correctly.log":   noPlan,
	"kunit/test_is_test_passed-no_tests_run_with_header.log": skipsAll,
	"kunit/test_is_test_passed-kselftest.log":                "they do not look into the results that kselftest's runner passes on",
}

const (
	noPlan   = "without a plan nobody knows whether these are all results; they used to complain, too"
	skipsAll = "kselftests skip with an empty plan; no KUnit does"
)

// TestAgreesWithKUnit reads documents with the parser of the kernel tree, too:
// those that the tree has for its own tests, and ours.
func TestAgreesWithKUnit(t *testing.T) {
	source := os.Getenv("NFTVM_TEST_SOURCE")
	if source == "" {
		t.Skip("needs a kernel tree: NFTVM_TEST_SOURCE=<dir> (make test sets it)")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3: the kernel's parser is written in it")
	}
	kunit := filepath.Join(source, "tools/testing/kunit")
	docs := map[string]string{}
	for prefix, glob := range map[string]string{
		"kunit/": filepath.Join(kunit, "test_data/*.log"),
		"":       "testdata/*.ktap",
	} {
		paths, err := filepath.Glob(glob)
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			docs[prefix+filepath.Base(path)] = string(b)
		}
	}
	in, err := json.Marshal(docs)
	require.NoError(t, err)
	cmd := exec.Command(python, "-B", "-c", theirs, kunit)
	cmd.Stdin = strings.NewReader(string(in))
	var said strings.Builder
	cmd.Stderr = &said
	raw, err := cmd.Output()
	if cmd.ProcessState.ExitCode() == 4 {
		t.Skip("this tree's parser can only print; the newer ones are asked")
	}
	require.NoError(t, err, said.String())
	var all map[string]theirResult
	require.NoError(t, json.Unmarshal(raw, &all))
	require.Len(t, all, len(docs))
	for name, text := range docs {
		t.Run(name, func(t *testing.T) {
			ours, theirs := Parse(text), all[name]
			agree := ours.Seen == (theirs.Status != "FAILURE_TO_PARSE_TESTS") && (!ours.Seen || (ours.Verdict() == Fail) == theirs.red())
			if agree && !theirs.red() {
				agree = sameLeaves(ours.Leaves(), theirs.Leaves)
			}
			if why := differ[name]; why != "" {
				require.False(t, agree, "they agree now, yet it says: %s", why)
				return
			}
			require.True(t, agree, "ours %s %v %v\ntheirs %+v", ours.Verdict(), ours.Errors, ours.Leaves(), theirs)
		})
	}
}

func sameLeaves(ours []Leaf, theirs [][2]string) bool {
	if len(ours) != len(theirs) {
		return false
	}
	words := map[Verdict]string{Pass: "SUCCESS", Fail: "FAILURE", Skip: "SKIPPED"}
	for i, l := range ours {
		if theirs[i] != [2]string{l.Name, words[l.Verdict]} {
			return false
		}
	}
	return true
}
