// SPDX-License-Identifier: GPL-2.0-only

// Package kernel is the host side of the pipeline: a kernel tree and a patch
// series become a built kernel.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/kmake"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kconfig"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kver"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/worktree"
)

// Plain is the flavor without a fragment of its own.
const Plain = "plain"

// Stages are the names of the stages in the order in which Build runs them.
var Stages = []string{tree.Stage, series.Stage, kconfig.Stage, kbuild.Stage, kbuild.ModuleStage}

// Stage is what became of one stage.
type Stage struct {
	Name string `json:"name"`
	// Seconds is how long it took this time; next to nothing when cached.
	Seconds float64 `json:"seconds"`
	Cached  bool    `json:"cached"`
	Log     string  `json:"log"`
	Error   string  `json:"error"`
}

// Event tells of the start or the end of a stage.
type Event struct {
	Tree, Flavor, Stage string
	// Expected is how long the stage took the last time that it had to run,
	// in seconds; 0 when it never did here.
	Expected float64
	// Done is nil at the start, and what became of the stage at the end.
	Done *Stage
	// Warning is a message for the user; the event is neither start nor end.
	Warning string
}

// Builder builds kernels.
type Builder struct {
	Store *store.Store
	// Series is the directory of the patch series.
	Series string
	// Extra are patch files that go on top of the series on every tree.
	Extra []string
	// Choose, when set, takes from the patches that a tree gets those to apply.
	// A symbol that is lost for want of a patch is no error then.
	Choose func([]series.Patch) []series.Patch
	// Edited, when set, is what to build instead of the series; it is in a
	// directory (Overlay.Write), and made for the source of EditedOf.
	Edited   *series.Overlay
	EditedOf store.Key
	// Config, when it is not nil, is laid over the fragments, and whatever of
	// them gets lost is no error then.
	Config []kconfig.Request
	// Strict are C files to compile once more, with all that compilers and
	// sparse can say; Built.Warnings has it. Nothing else is built behind that.
	Strict []string
	// Cocci are files to show to the tree's semantic patches; Built.Remarks
	// has what they say. Nothing is built then.
	Cocci []string
	// CompileOnly stops behind the compiler and the linker: it tells whether a
	// tree builds, and leaves nothing to boot.
	CompileOnly bool
	// Configs is the directory of the config fragments.
	Configs string
	// Jobs is make's -j, 0 for the number of CPUs.
	Jobs int
	// Refresh asks the mirrors for newer sources whatever their index's age.
	Refresh bool
	// Slot, when set, names work trees apart from those of other builders: a
	// build that nobody wants to go on from leaves theirs as they are.
	Slot string
	// Notify, when set, is told of stages; from several goroutines when
	// several builds run.
	Notify func(Event)

	mu        sync.Mutex
	toolchain *kmake.Toolchain
}

// Built is a built kernel, or how far it got.
type Built struct {
	Tree, Flavor string
	// Version is the source's, such as 7.3.4, and Release what uname -r says.
	Version, Release string
	Origin           tree.Origin
	// Image is the bzImage, Vmlinux its ELF file with symbols, Config the
	// .config, all paths.
	Image, Vmlinux, Config string
	// Modules is the directory that holds lib/modules/RELEASE.
	Modules string
	// Manual is the directory of the modules that "make M=" made.
	Manual string
	// Source is the pristine source tree; nothing may write to it.
	Source string
	// Overlay is what the series makes of the source: every file that it
	// changes or adds, in full.
	Overlay *series.Overlay
	// Symbols is what became of the symbols that the configuration asks for.
	Symbols *kconfig.Report
	// Key names the build; equal keys mean equal kernels.
	Key store.Key
	// ManualKey names the manual build.
	ManualKey store.Key
	// Warnings are what strict compilers say of the Builder's Strict.
	Warnings []kbuild.Warning
	// LeftOut are those of Strict that the configuration does not compile.
	LeftOut []string
	// Remarks are what semantic patches say of the Builder's Cocci.
	Remarks []kbuild.Warning
	// Compiled is how many objects the build compiled when it was made.
	Compiled int
	Stages   []Stage

	objects string
	source  *tree.Source
	kit     string
}

// Supported returns those of the trees that the series is meant for. A tree of
// which the version is not known before it is fetched counts as supported.
func Supported(trees []tree.Tree, s *series.Series) ([]tree.Tree, error) {
	var out []tree.Tree
	for _, t := range trees {
		v := t.Hint()
		if v == "" {
			out = append(out, t)
			continue
		}
		err := s.Check(v)
		var un *series.UnsupportedError
		if errors.As(err, &un) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", t.Name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// run is one Build on its way.
type run struct {
	*Builder
	tree   tree.Tree
	flavor string
	built  *Built
	src    *tree.Source
}

// Build takes a tree through all stages. Whatever happens it returns how far it
// got; an error that is a stage's is a *store.StageError.
func (b *Builder) Build(ctx context.Context, t tree.Tree, flavor string) (*Built, error) {
	r := &run{Builder: b, tree: t, flavor: flavor, built: &Built{Tree: t.Name, Flavor: flavor}}
	r.built.objects = b.Store.SlotDir(t.Name+"-"+r.slotFlavor(), objects)
	return r.built, r.all(ctx)
}

func (r *run) all(ctx context.Context) error {
	s, err := series.Load(r.Series)
	if err != nil {
		return err
	}
	requests, err := r.requests(r.flavor)
	if err != nil {
		return err
	}
	if r.Choose != nil || r.Config != nil {
		for i := range requests {
			requests[i].Optional, requests[i].Forgiven = true, kver.Range{}
		}
	}

	if err := r.source(ctx); err != nil {
		return err
	}
	if err := r.overlay(ctx, s); err != nil {
		return err
	}
	if len(r.Cocci) > 0 {
		c, err := r.stage(ctx, kbuild.CocciStage, func() (*store.Entry, error) { return r.cocci(ctx) })
		if err != nil {
			return err
		}
		r.built.Remarks, err = kbuild.ReadCocci(c.Dir)
		return err
	}
	config, err := r.stage(ctx, kconfig.Stage, func() (*store.Entry, error) {
		if err := r.detect(ctx); err != nil {
			return nil, err
		}
		return r.config(ctx, requests)
	})
	if err != nil {
		return err
	}
	if r.built.Symbols, err = kconfig.ReadReport(config.Dir); err != nil {
		return err
	}
	if r.CompileOnly {
		c, err := r.stage(ctx, kbuild.CompileStage, func() (*store.Entry, error) { return r.compile(ctx, config) })
		if err != nil {
			return err
		}
		r.built.Key, r.built.Compiled = c.Key, kbuild.ReadCompiled(c.Dir)
		return r.strict(ctx, config)
	}
	image, err := r.stage(ctx, kbuild.Stage, func() (*store.Entry, error) { return r.image(ctx, config) })
	if err != nil {
		return err
	}
	b := r.built
	b.Key = image.Key
	b.Image, b.Vmlinux = filepath.Join(image.Dir, kbuild.Image), filepath.Join(image.Dir, kbuild.Vmlinux)
	b.Config, b.Modules = filepath.Join(image.Dir, kbuild.Config), filepath.Join(image.Dir, kbuild.Modules)
	b.kit = filepath.Join(image.Dir, kbuild.Kit)
	b.Compiled = kbuild.ReadCompiled(image.Dir)
	if b.Release, err = kbuild.ReadRelease(image.Dir); err != nil {
		return err
	}
	if len(r.Strict) > 0 {
		return r.strict(ctx, config)
	}
	if r.Choose != nil && !b.Overlay.Has(kbuild.ModuleSource) {
		return nil // the module that is built by hand is not there yet
	}
	manual, err := r.stage(ctx, kbuild.ModuleStage, func() (*store.Entry, error) { return r.manual(ctx, image) })
	if err != nil {
		return err
	}
	b.Manual, b.ManualKey = manual.Dir, manual.Key
	return nil
}

// requests are the symbols that a flavor's fragments ask for, and Config.
func (b *Builder) requests(flavor string) ([]kconfig.Request, error) {
	fragments, err := kconfig.Fragments(b.Configs, flavor)
	if err != nil {
		return nil, err
	}
	var requests []kconfig.Request
	for _, f := range fragments {
		more, err := kconfig.ReadFragment(f)
		if err != nil {
			return nil, err
		}
		requests = append(requests, more...)
	}
	return append(requests, b.Config...), nil
}

// source gets the pristine tree.
func (r *run) source(ctx context.Context) error {
	_, err := r.stage(ctx, tree.Stage, func() (*store.Entry, error) {
		f := &tree.Fetcher{Store: r.Store, Refresh: r.Refresh, Warn: func(msg string) {
			r.notify(Event{Tree: r.tree.Name, Flavor: r.flavor, Stage: tree.Stage, Warning: msg})
		}}
		src, err := f.Source(ctx, r.tree)
		if err != nil {
			return nil, err
		}
		r.src, r.built.source, r.built.Version, r.built.Origin, r.built.Source = src, src, src.Version, src.Origin, src.Dir
		return src.Entry, nil
	})
	return err
}

// strict has the files of Strict compiled once more, if there are any.
func (r *run) strict(ctx context.Context, config *store.Entry) error {
	if len(r.Strict) == 0 {
		return nil
	}
	w, err := r.stage(ctx, kbuild.WarningsStage, func() (*store.Entry, error) { return r.warnings(ctx, config) })
	if err != nil {
		return err
	}
	if r.built.Warnings, err = kbuild.ReadWarnings(w.Dir); err != nil {
		return err
	}
	r.built.LeftOut, err = kbuild.ReadLeftOut(w.Dir)
	return err
}

// Ground is everything but the patches that a verdict about a tree stands on.
type Ground struct {
	// Version is the source's, Source the directory of the pristine tree.
	Version, Source string
	Origin          tree.Origin
	// SourceKey names the source alone, Key also the configuration that is
	// asked for and the tools.
	SourceKey, Key store.Key
}

// Ground gets the pristine tree and names what verdicts about it stand on.
func (b *Builder) Ground(ctx context.Context, t tree.Tree, flavor string) (*Ground, error) {
	r := &run{Builder: b, tree: t, flavor: flavor, built: &Built{}}
	requests, err := b.requests(flavor)
	if err != nil {
		return nil, err
	}
	if err := r.source(ctx); err != nil {
		return nil, err
	}
	if err := b.detect(ctx); err != nil {
		return nil, err
	}
	want, _, err := kconfig.Wanted(requests, r.src.Version)
	if err != nil {
		return nil, err
	}
	k := store.NewKey("ground").Str("source", string(r.src.Entry.Key)).Str("toolchain", b.toolchain.ID).
		Str("sparse", kbuild.Sparse(r.src.Version))
	for _, q := range want {
		k.Str("request", q.String())
	}
	return &Ground{Version: r.src.Version, Source: r.src.Dir, Origin: r.src.Origin, SourceKey: r.src.Entry.Key, Key: k.Key()}, nil
}

// detect looks for the toolchain, once for all builds of the Builder.
func (b *Builder) detect(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.toolchain != nil {
		return nil
	}
	tc, err := kmake.DetectToolchain(ctx, b.Store.Dir())
	b.toolchain = tc
	return err
}

// overlay has what is made of the source.
func (r *run) overlay(ctx context.Context, s *series.Series) error {
	if r.Edited != nil {
		if r.EditedOf != r.src.Entry.Key {
			return fmt.Errorf("tree %s is %s now, and was another source when it was opened for editing", r.tree.Name, r.src.Version)
		}
		r.built.Overlay = r.Edited
		return nil
	}
	patched, err := r.stage(ctx, series.Stage, func() (*store.Entry, error) { return r.patch(ctx, s) })
	if err != nil {
		return err
	}
	r.built.Overlay, err = series.ReadOverlay(patched.Dir)
	return err
}

func (r *run) patch(ctx context.Context, s *series.Series) (*store.Entry, error) {
	unsupported := s.Check(r.src.Version)
	patches, err := s.Select(r.src.Version)
	if err != nil {
		return nil, err
	}
	if unsupported != nil {
		return nil, store.KernelFault(unsupported)
	}
	if r.Choose != nil {
		patches = r.Choose(patches)
	}
	for _, path := range r.Extra {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("extra patch: %w", err)
		}
		patches = append(patches, series.Patch{Name: filepath.Base(path), Content: content})
	}
	return r.Store.Do(ctx, series.Stage, series.Key(r.src.Entry.Key, patches),
		func(_ context.Context, dir string, log io.Writer) error {
			for _, p := range patches {
				fmt.Fprintf(log, "patch %s\n", p.Name)
			}
			o, err := series.Apply(r.src.Dir, patches)
			if err != nil {
				return err
			}
			return o.Write(dir)
		})
}

// inSlot runs fn with the patched source and a make for the named object
// directory of the slot.
func (r *run) inSlot(ctx context.Context, obj string, log io.Writer, fn func(ctx context.Context, m *kmake.Make) error) error {
	wt, err := worktree.Open(ctx, r.Store, r.tree.Name, r.slotFlavor())
	if err != nil {
		return err
	}
	defer wt.Close()
	return wt.Use(ctx, r.src.Entry.Key, r.src.Dir, r.built.Overlay, log, func(ctx context.Context) error {
		dir, err := wt.Dir(obj)
		if err != nil {
			return err
		}
		jobs := r.Jobs
		if jobs == 0 {
			jobs = runtime.NumCPU()
		}
		return fn(ctx, &kmake.Make{Src: wt.Src, Obj: dir, Jobs: jobs, Toolchain: r.toolchain, Log: log})
	})
}

func (r *run) config(ctx context.Context, requests []kconfig.Request) (*store.Entry, error) {
	want, _, err := kconfig.Wanted(requests, r.src.Version)
	if err != nil {
		return nil, err
	}
	k, err := r.key(kconfig.Stage, "1", kconfig.Matters, "toolchain", r.toolchain.ID)
	if err != nil {
		return nil, err
	}
	for _, q := range want {
		k.Str("request", fmt.Sprintf("%s optional=%t %s", q, q.Optional, q.Forgiven))
	}
	return r.Store.Do(ctx, kconfig.Stage, k.Key(), func(ctx context.Context, dir string, log io.Writer) error {
		return r.inSlot(ctx, "cfg", log, func(ctx context.Context, m *kmake.Make) error {
			return kconfig.Make(ctx, m, r.src.Version, requests, dir)
		})
	})
}

// key begins the key of a stage with a tool and those files of the patched source
// that matter to it: commits that differ elsewhere have it in common.
func (r *run) key(stage, format string, matters func(path string) bool, tool, version string) (*store.Hasher, error) {
	part, err := r.src.Part(matters)
	if err != nil {
		return nil, err
	}
	k := store.NewKey(stage).Str("format", format).Str("source", part).Str(tool, version)
	r.built.Overlay.Key(k, matters)
	return k, nil
}

// slotFlavor is the flavor, and whose work trees they are.
func (r *run) slotFlavor() string {
	if r.Slot != "" {
		return r.flavor + "-" + r.Slot
	}
	return r.flavor
}

const (
	// objects is the directory of object files in a slot.
	objects = "obj"
	// builtMark in it names the build that they are from.
	builtMark = ".nftvm-build"
)

// Objects is the directory with the object files that the kernel was linked of,
// "" when another build has taken their place.
func (b *Built) Objects() string {
	key, err := os.ReadFile(filepath.Join(b.objects, builtMark))
	if err != nil || string(key) != string(b.Key) {
		return ""
	}
	return b.objects
}

func (r *run) image(ctx context.Context, config *store.Entry) (*store.Entry, error) {
	return r.build(ctx, kbuild.Stage, "2", config, kbuild.Build)
}

func (r *run) compile(ctx context.Context, config *store.Entry) (*store.Entry, error) {
	return r.build(ctx, kbuild.CompileStage, "1", config, kbuild.Compile)
}

// build runs one of kbuild's builds in the slot's directory of objects.
func (r *run) build(ctx context.Context, stage, format string, config *store.Entry,
	fn func(ctx context.Context, m *kmake.Make, config, dir string) error,
) (*store.Entry, error) {
	path := filepath.Join(config.Dir, kconfig.ConfigFile)
	k, err := r.key(stage, format, kbuild.Matters, "toolchain", r.toolchain.ID)
	if err != nil {
		return nil, err
	}
	if err := k.File("config", path); err != nil {
		return nil, err
	}
	key := k.Key()
	return r.Store.Do(ctx, stage, key, func(ctx context.Context, dir string, log io.Writer) error {
		return r.inSlot(ctx, objects, log, func(ctx context.Context, m *kmake.Make) error {
			mark := filepath.Join(m.Obj, builtMark)
			if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := fn(ctx, m, path, dir); err != nil {
				return err
			}
			return os.WriteFile(mark, []byte(key), 0o644)
		})
	})
}

func (r *run) manual(ctx context.Context, image *store.Entry) (*store.Entry, error) {
	k := store.NewKey(kbuild.ModuleStage).Str("format", "1").Str("build", string(image.Key))
	return r.Store.Do(ctx, kbuild.ModuleStage, k.Key(), func(ctx context.Context, dir string, log io.Writer) error {
		return r.inSlot(ctx, "manual", log, func(ctx context.Context, m *kmake.Make) error {
			return kbuild.BuildManual(ctx, m, kbuild.ManualDir, filepath.Join(image.Dir, kbuild.Kit), r.src.Version, dir)
		})
	})
}

func (r *run) warnings(ctx context.Context, config *store.Entry) (*store.Entry, error) {
	path := filepath.Join(config.Dir, kconfig.ConfigFile)
	k, err := r.key(kbuild.WarningsStage, "2", kbuild.Matters, "toolchain", r.toolchain.ID)
	if err != nil {
		return nil, err
	}
	if err := k.File("config", path); err != nil {
		return nil, err
	}
	k.Str("sparse", kbuild.Sparse(r.src.Version))
	for _, f := range r.Strict {
		k.Str("file", f)
	}
	return r.Store.Do(ctx, kbuild.WarningsStage, k.Key(), func(ctx context.Context, dir string, log io.Writer) error {
		return r.inSlot(ctx, "strict", log, func(ctx context.Context, m *kmake.Make) error {
			return kbuild.Warnings(ctx, m, path, r.src.Version, r.Strict, dir)
		})
	})
}

func (r *run) cocci(ctx context.Context) (*store.Entry, error) {
	spatch, err := kbuild.Spatch(ctx)
	if err != nil {
		return nil, err
	}
	k, err := r.key(kbuild.CocciStage, "1", kbuild.Matters, "spatch", spatch)
	if err != nil {
		return nil, err
	}
	for _, f := range r.Cocci {
		k.Str("file", f)
	}
	return r.Store.Do(ctx, kbuild.CocciStage, k.Key(), func(ctx context.Context, dir string, log io.Writer) error {
		return r.inSlot(ctx, "strict", log, func(ctx context.Context, m *kmake.Make) error {
			return kbuild.Cocci(ctx, m, r.Cocci, dir)
		})
	})
}

func (r *run) notify(e Event) {
	if r.Notify != nil {
		r.Notify(e)
	}
}

// stage runs one stage and keeps what became of it.
func (r *run) stage(ctx context.Context, name string, fn func() (*store.Entry, error)) (*store.Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e := Event{Tree: r.tree.Name, Flavor: r.flavor, Stage: name, Expected: r.Store.Expected(r.timing(name))}
	r.notify(e)
	start := time.Now()
	entry, err := fn()
	st := Stage{Name: name, Seconds: time.Since(start).Seconds()}
	if entry != nil {
		st.Cached, st.Log = entry.Cached, entry.Log
		if !entry.Cached {
			r.Store.Took(r.timing(name), st.Seconds)
		}
	}
	if err != nil {
		var se *store.StageError
		if !errors.As(err, &se) && ctx.Err() == nil {
			se = &store.StageError{Stage: name, Fault: store.FaultOf(err), Err: err}
			err = se
		}
		if se != nil {
			st.Log = se.Log
		}
		st.Error = err.Error()
	}
	r.built.Stages = append(r.built.Stages, st)
	e.Done = &st
	r.notify(e)
	return entry, err
}

// timing is the store's name for how long a stage of this cell takes.
func (r *run) timing(stage string) string {
	name := stage + " " + r.tree.Name + " " + r.flavor
	if r.Slot != "" {
		name += " " + r.Slot
	}
	return name
}
