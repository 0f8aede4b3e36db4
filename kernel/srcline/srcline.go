// SPDX-License-Identifier: GPL-2.0-only

// Package srcline finds the source lines of places in a kernel that was built
// without debug information: it compiles the few files once more that somebody
// asks about, with it. That changes no code, and costs nothing until a kernel
// complains.
package srcline

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
)

// place is one as the kernel writes it: function+0xoffset/0xsize [module].
type place struct {
	fn           string
	offset, size uint64
	module       string
}

var placeRE = regexp.MustCompile(`\b([A-Za-z_][\w.]*)\+0x([0-9a-f]+)/0x([0-9a-f]+)(?: \[(\w+)[^\]]*\])?`)

// maxPlaces bounds how many different ones are looked up: a report has a dozen.
const maxPlaces = 200

// Annotate writes behind each place in text what line of the source it is in,
// as far as the build in objdir can tell. The kernel that wrote text must have
// come from that build.
func Annotate(ctx context.Context, objdir, text string) (string, error) {
	index, err := objects(ctx, objdir)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp("", "nftvm-srcline-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	f := &finder{objdir: objdir, tmp: tmp, index: index, compiled: map[string]string{}, lines: map[place]string{}}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = f.annotate(ctx, line)
	}
	return strings.Join(lines, "\n"), ctx.Err()
}

// annotate writes behind each place in a line where it is.
func (f *finder) annotate(ctx context.Context, text string) string {
	var b strings.Builder
	done := 0
	for _, at := range placeRE.FindAllStringIndex(text, -1) {
		p := parse(text[at[0]:at[1]])
		if p.offset > 0 && frameRE.MatchString(text[:at[0]]) {
			// It returns to here: the call is before it.
			p.offset--
		}
		b.WriteString(text[done:at[1]])
		if line := f.line(ctx, p); line != "" {
			b.WriteString(" (" + line + ")")
		}
		done = at[1]
	}
	return b.String() + text[done:]
}

// frameRE is what may be before a place in a line of a backtrace.
var frameRE = regexp.MustCompile(`^(?:<\d+>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])?)?\s*(?:\? )?$`)

func parse(s string) place {
	m := placeRE.FindStringSubmatch(s)
	p := place{fn: m[1], module: m[4]}
	p.offset, _ = strconv.ParseUint(m[2], 16, 64)
	p.size, _ = strconv.ParseUint(m[3], 16, 64)
	return p
}

// symbol is a function in an object file.
type symbol struct {
	object string // path below the objects' directory
	size   uint64
}

// objects lists the functions of every object file that was compiled.
func objects(ctx context.Context, objdir string) (map[string][]symbol, error) {
	var paths []string
	err := filepath.WalkDir(objdir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".o") {
			return err
		}
		// Objects that were linked of others have no source of their own.
		cmd, rerr := os.ReadFile(kbuild.CmdFile(path))
		if rerr == nil && compileRE.Match(firstLine(cmd)) {
			rel, rerr := filepath.Rel(objdir, path)
			paths = append(paths, rel)
			return rerr
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no object files in %s", objdir)
	}
	cmd := exec.CommandContext(ctx, "xargs", "-0", "nm", "--print-file-name", "--print-size", "--defined-only")
	cmd.Dir = objdir
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00"))
	out, err := cmd.Output()
	if err != nil && len(out) == 0 {
		return nil, fmt.Errorf("nm of the objects in %s: %w", objdir, err)
	}
	index := map[string][]symbol{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		// file:address size type name
		object, rest, ok := strings.Cut(sc.Text(), ":")
		w := strings.Fields(rest)
		if !ok || len(w) != 4 || !slices.Contains([]string{"t", "T", "w", "W"}, w[2]) {
			continue
		}
		size, err := strconv.ParseUint(w[1], 16, 64)
		if err == nil {
			index[w[3]] = append(index[w[3]], symbol{object, size})
		}
	}
	return index, nil
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

// compileRE is the command that compiles a C file, up to the name of its output, and
// the file.
var compileRE = regexp.MustCompile(`^(?:saved)?cmd_\S+ := (.*\sgcc\s.*\s-c -o )\S+\.o( \S+\.c)\s*(?:;.*)?$`)

// depsRE has it write down what the file depends on.
var depsRE = regexp.MustCompile(`-Wp,-MM?D,\S+`)

type finder struct {
	objdir, tmp string
	index       map[string][]symbol
	compiled    map[string]string // object to its twin with debug information, "" if there is none
	lines       map[place]string
}

func (f *finder) line(ctx context.Context, p place) string {
	if line, ok := f.lines[p]; ok {
		return line
	}
	if len(f.lines) >= maxPlaces || ctx.Err() != nil {
		return ""
	}
	f.lines[p] = ""
	object, ok := f.object(p)
	if !ok {
		return ""
	}
	twin, ok := f.compiled[object.object]
	if !ok {
		twin = f.compile(ctx, object.object)
		f.compiled[object.object] = twin
	}
	if twin != "" {
		f.lines[p] = lineIn(ctx, twin, p, object.size)
	}
	return f.lines[p]
}

// padding is what may be between a function's end and the next function, which is
// the end to the kernel.
const padding = 64

// object is the one that p's function is in. Static functions of one name are
// told apart by module and size; what is still open has no answer.
func (f *finder) object(p place) (symbol, bool) {
	found := slices.DeleteFunc(slices.Clone(f.index[p.fn]), func(s symbol) bool {
		return p.size < s.size || p.offset >= max(s.size, 1) || (p.module != "") != f.modular(s.object, p.module)
	})
	near := slices.DeleteFunc(slices.Clone(found), func(s symbol) bool { return p.size-s.size > padding })
	if len(near) == 0 && p.module != "" {
		// Behind the last function of a module comes the end of its memory, in
		// whole pages.
		near = found
	}
	if len(near) != 1 {
		return symbol{}, false
	}
	return near[0], true
}

// modular says whether an object is part of a module: of that one, or if it has
// no name, of any.
func (f *finder) modular(object, module string) bool {
	cmd, err := os.ReadFile(kbuild.CmdFile(filepath.Join(f.objdir, object)))
	if err != nil || !bytes.Contains(firstLine(cmd), []byte("-DMODULE")) {
		return false
	}
	if module == "" {
		return true
	}
	mods, _ := filepath.Glob(filepath.Join(f.objdir, filepath.Dir(object), "*.mod"))
	for _, mod := range mods {
		if strings.ReplaceAll(strings.TrimSuffix(filepath.Base(mod), ".mod"), "-", "_") != module {
			continue
		}
		b, err := os.ReadFile(mod)
		return err == nil && slices.ContainsFunc(strings.Fields(string(b)), func(o string) bool {
			return filepath.Base(o) == filepath.Base(object)
		})
	}
	return false
}

// compile makes an object once more, with debug information.
func (f *finder) compile(ctx context.Context, object string) string {
	raw, err := os.ReadFile(kbuild.CmdFile(filepath.Join(f.objdir, object)))
	if err != nil {
		return ""
	}
	m := compileRE.FindSubmatch(firstLine(raw))
	if m == nil {
		return ""
	}
	twin := filepath.Join(f.tmp, strconv.Itoa(len(f.compiled))+".o")
	text := string(m[1]) + twin + " -g" + string(m[2])
	// The dependencies would be written over those of the build.
	text = depsRE.ReplaceAllString(text, "")
	cmd := exec.CommandContext(ctx, "sh", "-c", text)
	cmd.Dir = f.objdir
	if cmd.Run() != nil {
		return ""
	}
	return twin
}

// lineIn looks p up in an object with debug information.
func lineIn(ctx context.Context, object string, p place, size uint64) string {
	file, err := elf.Open(object)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	symbols, err := file.Symbols()
	if err != nil {
		return ""
	}
	for _, s := range symbols {
		if s.Name != p.fn || elf.ST_TYPE(s.Info) != elf.STT_FUNC || int(s.Section) >= len(file.Sections) {
			continue
		}
		if s.Size != size {
			return "" // the source has changed meanwhile
		}
		section := file.Sections[s.Section].Name
		out, err := exec.CommandContext(ctx, "addr2line", "-e", object, "-j", section, fmt.Sprintf("%#x", s.Value+p.offset)).Output()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		if err != nil || strings.HasPrefix(line, "??") || strings.HasSuffix(line, ":?") {
			return ""
		}
		return strings.TrimPrefix(line, "./")
	}
	return ""
}
