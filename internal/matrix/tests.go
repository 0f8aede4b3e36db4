// SPDX-License-Identifier: GPL-2.0-only

package matrix

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	goversion "github.com/hashicorp/go-version"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
)

// ourSuite names the tests of selftests/.
const ourSuite = "nft_offload"

// leastMemory is what a kernel and the image need, in MiB.
const leastMemory = 128

// accels are what a guest may run under.
var accels = []string{string(qemu.KVM), string(qemu.TCG)}

// Spec is one test before it meets a tree.
type Spec struct {
	// Name is suite/script without .sh.
	Name string `yaml:"name"`
	// Path is the script's place in the kernel tree; "" for one of ours.
	Path string `yaml:"path"`
	// Trees constrains the kernel versions; "" is every one.
	Trees   string        `yaml:"trees"`
	Taint   string        `yaml:"taint"`
	Timeout time.Duration `yaml:"timeout"`
	VCPUs   int           `yaml:"vcpus"`
	// Memory is the guest's in MiB, see vmtest.Test; 0 is the usual.
	Memory int      `yaml:"memory"`
	Files  []string `yaml:"files"`
	// ICount counts the guest's time by instructions, see vmtest.Test.
	ICount int `yaml:"icount"`
	// Seed is what the script's choices at random start from, see vmtest.Test.
	Seed int `yaml:"seed"`
	// StopAtFailure ends the test at its first failed subtest.
	StopAtFailure bool     `yaml:"-"`
	Args          []string `yaml:"args"`
	// Partly is what the test does not do in our kernels; "" is nothing.
	Partly string `yaml:"partly"`
	// Leak is why the test may leave something behind; "" is: it may not.
	Leak string `yaml:"leak"`
	// LeakOf are the functions of which kmemleak may report memory then.
	LeakOf []string `yaml:"leak_of"`
	// Skip is why the test cannot run in a flavor, under an accelerator, or
	// in a flavor under an accelerator: debug, tcg, debug/tcg.
	Skip map[string]string `yaml:"skip"`

	constraint goversion.Constraints
}

// Planned says whether the test is meant for a kernel version such as 7.3.4.
func (s *Spec) Planned(version *goversion.Version) bool {
	return s.constraint == nil || s.constraint.Check(version.Core())
}

// skipUnder is why the test cannot run in a flavor under an accelerator, by
// accelerator.
func (s *Spec) skipUnder(flavor string) map[string]string {
	under := map[string]string{}
	for _, accel := range accels {
		if why := cmp.Or(s.Skip[flavor+"/"+accel], s.Skip[accel]); why != "" {
			under[accel] = why
		}
	}
	return under
}

// skipsKnown says what is wrong with a key of Skip: a mistyped one would skip
// nothing.
func (s *Spec) skipsKnown(configs string) error {
	for key := range s.Skip {
		flavor, accel, both := strings.Cut(key, "/")
		if both && !slices.Contains(accels, accel) {
			return fmt.Errorf("skip: %s: unknown accelerator %q; known: %s", key, accel, strings.Join(accels, ", "))
		}
		if !both && slices.Contains(accels, key) {
			continue
		}
		if _, err := kconfig.Fragments(configs, flavor); err != nil {
			return fmt.Errorf("skip: %s: %w", key, err)
		}
	}
	return nil
}

// LoadSpecs reads configs/tests.yaml and finds the scripts of selftests/.
func LoadSpecs(configs, selftests string) ([]Spec, error) {
	file := filepath.Join(configs, "tests.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Tests []Spec `yaml:"tests"`
	}
	if err := yaml.NewDecoder(bytes.NewReader(raw), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
	}
	deflt, err := defaultTimeout(filepath.Join(selftests, "settings"))
	if err != nil {
		return nil, err
	}
	scripts, err := filepath.Glob(filepath.Join(selftests, "*.sh"))
	if err != nil {
		return nil, err
	}
	specs := doc.Tests
	for _, sc := range scripts {
		base := strings.TrimSuffix(filepath.Base(sc), ".sh")
		name := ourSuite + "/" + base
		if IsLibrary(sc) || slices.ContainsFunc(specs, func(s Spec) bool { return s.Name == name }) {
			continue
		}
		specs = append(specs, Spec{Name: name})
	}
	for i := range specs {
		s := &specs[i]
		if s.Path == "" {
			if _, err := os.Stat(filepath.Join(selftests, path.Base(s.Name)+".sh")); err != nil {
				return nil, fmt.Errorf("%s: test %s has neither a path nor a script: %w", file, s.Name, err)
			}
		}
		if s.Timeout == 0 {
			s.Timeout = deflt
		}
		if s.VCPUs == 0 {
			s.VCPUs = 1
		}
		if s.Memory != 0 && s.Memory < leastMemory {
			return nil, fmt.Errorf("%s: test %s: memory: %d MiB do not boot a kernel; at least %d", file, s.Name, s.Memory, leastMemory)
		}
		if err := s.skipsKnown(configs); err != nil {
			return nil, fmt.Errorf("%s: test %s: %w", file, s.Name, err)
		}
		if s.Trees != "" {
			if s.constraint, err = goversion.NewConstraint(s.Trees); err != nil {
				return nil, fmt.Errorf("%s: test %s: trees: %w", file, s.Name, err)
			}
		}
	}
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs, nil
}

// IsLibrary says whether a script of selftests/ is there for the others, and no
// test itself.
func IsLibrary(script string) bool {
	name := strings.TrimSuffix(filepath.Base(script), ".sh")
	return name == "lib" || strings.HasSuffix(name, "_lib")
}

// defaultTimeout reads the timeout=SECONDS line of a kselftest settings file.
func defaultTimeout(file string) (time.Duration, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "timeout="); ok {
			n, err := strconv.Atoi(v)
			if err != nil || n <= 0 {
				return 0, fmt.Errorf("%s: timeout=%s is no number of seconds", file, v)
			}
			return time.Duration(n) * time.Second, nil
		}
	}
	return 0, fmt.Errorf("%s: no timeout= line", file)
}

// ErrNoTests is a selection that matches nothing.
var ErrNoTests = errors.New("no test matches")

// Match selects the tests whose name matches any of the globs; none means all.
func Match(specs []Spec, globs []string) ([]Spec, error) {
	if len(globs) == 0 {
		return specs, nil
	}
	var out []Spec
	for _, g := range globs {
		found := false
		for _, s := range specs {
			ok, err := path.Match(g, s.Name)
			if err != nil {
				return nil, fmt.Errorf("test pattern %q: %w", g, err)
			}
			if ok {
				found = true
				if !slices.ContainsFunc(out, func(o Spec) bool { return o.Name == s.Name && o.Trees == s.Trees }) {
					out = append(out, s)
				}
			}
		}
		if !found {
			var names []string
			for _, s := range specs {
				names = append(names, s.Name)
			}
			return nil, fmt.Errorf("%w %q; known tests: %s", ErrNoTests, g, strings.Join(names, ", "))
		}
	}
	return out, nil
}
