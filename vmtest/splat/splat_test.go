// SPDX-License-Identifier: GPL-2.0-only

package splat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCorpus reads testdata: a header with the splats that are expected, in
// order, an empty line, and the console. Files named after a kernel come from
// a guest that ran it (see TestProvoke in vmtest).
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			header, console, ok := strings.Cut(string(b), "\n\n")
			require.True(t, ok, "no empty line behind the header")
			var want, got []string
			for _, line := range strings.Split(header, "\n") {
				if !strings.HasPrefix(line, "SPDX") {
					want = append(want, line)
				}
			}
			for _, s := range Find(console) {
				title := s.Title
				if s.Fatal {
					title += " (fatal)"
				}
				got = append(got, "TITLE: "+title, "KIND: "+s.Kind)
			}
			require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"))
		})
	}
}

func TestCleanTakesOffWhatPrintkPutsOn(t *testing.T) {
	for in, want := range map[string]string{
		"[    1.234567] BUG: x":             "BUG: x",
		"[12345.234567][  T123] BUG: x":     "BUG: x",
		"[    1.234567][    C0] BUG: x\r":   "BUG: x",
		"<4>[    1.234567] BUG: x":          "BUG: x",
		"\x1b[1;31m[    1.2] BUG: x\x1b[0m": "BUG: x",
		"BUG: x":                            "BUG: x",
		"[ BUG: Invalid wait context ]":     "[ BUG: Invalid wait context ]",
	} {
		require.Equal(t, want, Clean(in), "%q", in)
	}
}

// TestTitlesAreStable adds to the corpus what differs between two runs of the
// same kernel, and wants the same titles.
func TestTitlesAreStable(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		_, console, _ := strings.Cut(string(b), "\n\n")
		other := strings.NewReplacer("ffff8880", "ffff9a1b", "PID: ", "PID: 9", "+0x", "+0x1", "CPU: 0", "CPU: 3", "CPU#0", "CPU#3").Replace(console)
		require.Equal(t, titles(console), titles(other), file)
	}
}

func titles(console string) []string {
	var out []string
	for _, s := range Find(console) {
		out = append(out, fmt.Sprint(s.Kind, s.Title, s.Fatal))
	}
	return out
}

func FuzzFind(f *testing.F) {
	f.Add("[    1.0] BUG: KASAN: x in y+0x1/0x2\nRead of size 8")
	f.Add("refcount_t: \nKernel panic - not syncing: ")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range Find(text) {
			if s.Title == "" || s.Kind == "" || s.Line < 1 {
				t.Fatalf("%+v", s)
			}
		}
	})
}
