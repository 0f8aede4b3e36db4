// SPDX-License-Identifier: GPL-2.0-only

package srcline

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
)

// build compiles files as kbuild does, and leaves what kbuild leaves.
func build(t *testing.T, dir string, files map[string]string, flags string) {
	t.Helper()
	for name, text := range files {
		src := filepath.Join(dir, name+".c")
		require.NoError(t, os.MkdirAll(filepath.Dir(src), 0o755))
		require.NoError(t, os.WriteFile(src, []byte(text), 0o644))
		object := name + ".o"
		cmd := "ccache gcc -Wp,-MMD," + name + ".d -O2 -fno-inline " + flags + " -c -o " + object + " " + src
		run := exec.Command("sh", "-c", strings.TrimPrefix(cmd, "ccache "))
		run.Dir = dir
		out, err := run.CombinedOutput()
		require.NoError(t, err, string(out))
		require.NoError(t, os.WriteFile(kbuild.CmdFile(filepath.Join(dir, object)),
			[]byte("savedcmd_"+object+" := "+strings.Replace(cmd, "ccache", "env", 1)+" ; ./tools/objtool/objtool "+object+"\n\nsource := x\n"), 0o644))
	}
}

const twoFunctions = `
static volatile int sink;
static int twice(int x)
{
	sink = x;
	sink = x + 1;
	return 2 * x;
}

int NAME(int x) { return twice(x) + 1; }
`

func TestAnnotate(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, map[string]string{"net/a": strings.Replace(twoFunctions, "NAME", "of_a", 1)}, "")
	build(t, dir, map[string]string{"net/m": strings.Replace(twoFunctions, "NAME", "of_m", 1)}, "-DMODULE")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "net/my-mod.mod"), []byte("net/m.o\n"), 0o644))
	deps, err := os.ReadFile(filepath.Join(dir, "net/a.d"))
	require.NoError(t, err)

	index, err := objects(t.Context(), dir)
	require.NoError(t, err)
	size := func(fn string) string { return fmt.Sprintf("%#x", index[fn][0].size) }
	for _, tc := range []struct{ name, in, want string }{
		{"kernel", " twice+0x0/" + size("twice"), `/net/a\.c:[4-8]\)$`},
		{"module", " twice+0x0/" + size("twice") + " [my_mod]", `/net/m\.c:[4-8]\)$`},
		{"module with what taints", " of_m+0x0/" + size("of_m") + " [my_mod(O)]", `/net/m\.c:10\)$`},
		{"last of a module", " of_m+0x0/0x1000 [my_mod]", `/net/m\.c:10\)$`},
		{"padding counts", "RIP: 0010:of_a+0x0/0x30", `/net/a\.c:10\)$`},
	} {
		got, err := Annotate(t.Context(), dir, tc.in)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(got, tc.in+" ("), "%s: %s", tc.name, got)
		require.Regexp(t, tc.want, got, tc.name)
	}
	for _, in := range []string{"unknown+0x1/0x10", "twice+0x0/0x4000", "twice+0x0/" + size("twice") + " [another]", "of_m+0x800/0x1000 [my_mod]", "no place at all"} {
		got, err := Annotate(t.Context(), dir, in)
		require.NoError(t, err)
		require.Equal(t, in, got)
	}
	// The caller of a frame is where the call is, not behind it.
	call := findCall(t, dir, "net/a.o", "of_a")
	got, err := Annotate(t.Context(), dir, fmt.Sprintf("[    1.000000]  of_a+%#x/%s", call, size("of_a")))
	require.NoError(t, err)
	require.Regexp(t, `a\.c:10\)$`, got)

	after, err := os.ReadFile(filepath.Join(dir, "net/a.d"))
	require.NoError(t, err)
	require.Equal(t, deps, after, "the build's dependencies were written over")
	_, err = Annotate(t.Context(), t.TempDir(), "x")
	require.ErrorContains(t, err, "no object files")
}

// findCall is the offset behind a function's first call.
func findCall(t *testing.T, dir, object, fn string) uint64 {
	t.Helper()
	cmd := exec.Command("objdump", "-d", "--disassemble="+fn, object)
	cmd.Dir = dir
	out, err := cmd.Output()
	require.NoError(t, err)
	start := regexp.MustCompile(`(?m)^([0-9a-f]+) <` + fn + `>:`).FindStringSubmatch(string(out))
	next := regexp.MustCompile(`call .*\n\s*([0-9a-f]+):`).FindStringSubmatch(string(out))
	require.NotNil(t, start)
	require.NotNil(t, next, string(out))
	a, err := strconv.ParseUint(start[1], 16, 64)
	require.NoError(t, err)
	b, err := strconv.ParseUint(next[1], 16, 64)
	require.NoError(t, err)
	return b - a
}
