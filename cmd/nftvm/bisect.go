// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest"
	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/qemu"
)

// bisectFlags are those of nftvm bisect.
type bisectFlags struct {
	runFlags
	repo, good, bad string
	seriesOf        string
	config          bool
	on              string
	flavor          string
	point           string
	runs            int
}

func newBisect(p *project) *cobra.Command {
	f := bisectFlags{}
	cmd := &cobra.Command{
		Use:   "bisect [--config GOOD BAD]",
		Short: "Find what breaks a test: the commit, the patch of the series, the tree, the config symbols",
		Long: `Find what breaks a test.

  nftvm bisect --tree REPO --good REV --bad REV --tests GLOB
      the commit, by git bisect; REPO is only read. The series is applied anew at
      each step, and the configuration made anew.
  nftvm bisect --series-of TREE --tests GLOB
      the patch of the series that breaks or mends it on TREE, between the first
      patch with which it can run and the last; or between --good and --bad, each
      the name of a patch, or how many patches.
  nftvm bisect --trees 5.10,6.1,6.12 --tests GLOB
      the first of the trees on which it is other than on the first of all.
  nftvm bisect --config GOOD BAD --on TREE --tests GLOB
      of the symbols in which two configurations (.config or fragment) differ,
      some that flip the verdict and of which none can be left out.

Both ends are judged before anything is searched between them. Good is: the tests
that fail at the bad end pass. What does not build, does not boot while the bad
end does, or cannot run the tests is a skip. A kernel that is byte by byte one
that was run already is not run again. With --runs N a point is good when N runs
have passed, and bad at its first failure.

Every verdict is in DIR/bisect.json as soon as there is one, and with --resume
none is asked for twice. DIR/bisect.log is for git bisect replay.

Exit code: 0 found; 1 it is one of several, and what lies between them cannot be
judged; 2 the harness could not do its job, or there is nothing to find. With
--point, which judges a single one: 0 good, 1 bad, 125 cannot be judged.`,
		Args: func(_ *cobra.Command, args []string) error {
			if f.config && len(args) != 2 || !f.config && len(args) != 0 {
				return errors.New("wanted: nftvm bisect --config GOOD BAD, or one of --tree, --series-of and --trees without arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.point != "" && !cmd.Flags().Changed("out") {
				f.out = "out/bisect-point" // it leaves the search's journal alone
			}
			return doBisect(cmd.Context(), p, f, args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.repo, "tree", "", "git repository of kernels to search; it is only read")
	fl.StringVar(&f.good, "good", "", "revision (or patch) at which the tests pass")
	fl.StringVar(&f.bad, "bad", "", "revision (or patch) at which one of them fails")
	fl.StringVar(&f.seriesOf, "series-of", "", "tree on which to search the series")
	fl.StringSliceVar(&f.trees, "trees", nil, "trees to search, in their order")
	fl.BoolVar(&f.config, "config", false, "search two configurations, GOOD and BAD")
	fl.StringVar(&f.on, "on", "", "tree of --config")
	fl.StringSliceVar(&f.tests, "tests", nil, "globs of test names")
	fl.StringVar(&f.flavor, "flavor", kernel.Plain, "flavor of the kernels")
	fl.IntVar(&f.runs, "runs", 1, "how often the tests must pass")
	fl.StringVar(&f.out, "out", "out/bisect", "directory for the results")
	fl.BoolVar(&f.resume, "resume", false, "go on from the verdicts in --out")
	fl.StringVar(&f.point, "point", "", "judge this one point only: a revision, a number of patches, symbols (none, all)")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.NumCPU(), "compiler processes at once")
	f.addSources(cmd)
	return cmd
}

// subject is what is searched.
type subject interface {
	// asked is what, besides the tests, makes the question.
	asked() []bisect.Asked
	// build builds a point. It makes the tree, and prepares the builder.
	build(ctx context.Context, p bisect.Point) (tree.Tree, error)
	// again is the arguments of nftvm with which a point is judged once more.
	again(p bisect.Point) []string
	// named is the point that --point names.
	named(ctx context.Context, name string) (bisect.Point, error)
	search(ctx context.Context, pipe *bisect.Pipeline) (*bisect.Finding, error)
}

// bisection is a search on its way.
type bisection struct {
	*setup
	flags   bisectFlags
	out     string
	builder *kernel.Builder
	engine  *vmtest.Engine
	subject subject
}

// bisectSlot names the work trees that a bisection builds in: the plain ones
// stay as the series left them.
const bisectSlot = "bisect"

// check says what is wrong with the flags alone.
func (f *bisectFlags) check() error {
	var modes []string
	for _, m := range []struct {
		flag string
		set  bool
	}{{"--tree", f.repo != ""}, {"--series-of", f.seriesOf != ""}, {"--trees", len(f.trees) > 0}, {"--config", f.config}} {
		if m.set {
			modes = append(modes, m.flag)
		}
	}
	ends := f.good != "" && f.bad != ""
	switch {
	case len(modes) != 1:
		return errors.New("wanted: one of --tree, --series-of, --trees and --config; see: nftvm bisect --help")
	case len(f.tests) == 0:
		return errors.New("which test is it about? give --tests GLOB")
	case f.runs < 1:
		return fmt.Errorf("--runs %d: a test must run once at least", f.runs)
	case (f.good != "") != (f.bad != ""):
		return errors.New("--good and --bad need each other")
	case f.repo != "" && !ends && f.point == "":
		return errors.New("--tree needs --good REV and --bad REV")
	case ends && f.repo == "" && f.seriesOf == "":
		return fmt.Errorf("--good and --bad are for --tree and --series-of; %s has its ends already", modes[0])
	case f.config != (f.on != ""):
		return errors.New("--config needs --on TREE, and only --config does")
	case f.point != "" && len(f.trees) > 0:
		return errors.New("--point is for the other searches; judge one tree with: nftvm run --trees TREE --tests GLOB")
	case f.point != "" && f.resume:
		return errors.New("--point judges anew; --resume is for searches")
	}
	return nil
}

func doBisect(ctx context.Context, p *project, f bisectFlags, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	b, err := newBisection(ctx, p, f, args)
	if err != nil {
		return err
	}
	defer b.progress.Close()
	question, err := b.question()
	if err != nil {
		return err
	}
	journal, err := bisect.OpenJournal(b.out, question, f.resume)
	if err != nil {
		return err
	}
	if _, err := b.engine.Prepare(ctx); err != nil {
		return err
	}
	pipe := &bisect.Pipeline{Runs: f.runs, Build: b.kernel, Journal: journal, Say: b.progress.Line}
	if f.point != "" {
		return b.one(ctx, pipe)
	}
	found, err := b.subject.search(ctx, pipe)
	if err == nil {
		err = journal.Finish(found)
	}
	b.progress.Close()
	var stopped *bisect.StoppedError
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; every verdict is kept, go on with: " + resumed(os.Args))
	case errors.As(err, &stopped):
		return fmt.Errorf("%w\nevery verdict is kept; when that is mended, go on with: %s", err, resumed(os.Args))
	case err != nil:
		return err
	}
	fmt.Println()
	found.Write(os.Stdout)
	fmt.Printf("\n%d points judged; results: %s\n", len(journal.Points), filepath.Join(b.out, bisect.JSONFile))
	if code := found.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// newBisection checks everything that can be checked before anything is built.
func newBisection(ctx context.Context, p *project, f bisectFlags, args []string) (*bisection, error) {
	cfg, _, err := p.trees()
	if err != nil {
		return nil, err
	}
	// Which trees there are to search is the subject's matter.
	rf := f.runFlags
	rf.trees = nil
	s, err := prepare(ctx, p, rf)
	if err != nil {
		return nil, err
	}
	wanted := f.trees
	f.runFlags = s.flags
	b := &bisection{setup: s, flags: f, builder: s.builder(s.store)}
	b.builder.Slot, b.builder.Notify = bisectSlot, notify(s.progress, true)
	b.engine = &vmtest.Engine{Store: s.store, Accel: f.accel, Loaded: len(s.specs) > 1}
	if b.out, err = filepath.Abs(f.out); err != nil {
		return nil, err
	}
	switch {
	case f.repo != "":
		b.subject, err = newCommits(ctx, b)
	case f.seriesOf != "":
		var t tree.Tree
		if t, err = oneTree(cfg, f.seriesOf); err == nil {
			b.subject, err = newPrefixes(ctx, b, t)
		}
	case f.config:
		var t tree.Tree
		if t, err = oneTree(cfg, f.on); err == nil {
			b.subject, err = newConfigs(ctx, b, t, args[0], args[1])
		}
	default:
		var trees []tree.Tree
		var names []string
		for _, name := range wanted {
			t, terr := oneTree(cfg, strings.TrimSpace(name))
			if terr != nil {
				return nil, terr
			}
			trees, names = append(trees, t), append(names, strings.TrimSpace(name))
		}
		b.subject, err = newTreeRow(b, trees, names)
	}
	return b, err
}

// question is all that a verdict depends on besides the point.
func (b *bisection) question() ([]bisect.Asked, error) {
	var names []string
	for _, s := range b.specs {
		names = append(names, s.Name)
	}
	q := append(b.subject.asked(),
		bisect.Asked{What: "tests", Value: strings.Join(names, " ")},
		bisect.Asked{What: "flavor", Value: b.flags.flavor},
		bisect.Asked{What: "number of runs", Value: strconv.Itoa(b.flags.runs)})
	for _, dir := range []struct{ what, path string }{
		{"series", b.flags.patches}, {"selftests", b.flags.selftests}, {"configuration", b.configs()},
	} {
		k := store.NewKey("bisect")
		if err := k.Dir(dir.what, dir.path); err != nil {
			return nil, err
		}
		q = append(q, bisect.Asked{What: dir.what, Value: k.Key().Short()})
	}
	return q, nil
}

// one judges a single point.
func (b *bisection) one(ctx context.Context, pipe *bisect.Pipeline) error {
	p, err := b.subject.named(ctx, b.flags.point)
	if err != nil {
		return err
	}
	p.Measure = true
	r, err := pipe.Judge(ctx, p)
	b.progress.Close()
	if err != nil {
		return err
	}
	if a := r.Evidence(); a != nil {
		fmt.Printf("output:  %s\nconsole: %s\n", a.Log, a.Console)
	}
	switch {
	case r.Verdict == bisect.Good:
		return nil
	case r.Verdict == bisect.Bad && r.Class == bisect.ClassTest:
		return exitCode(1)
	}
	return exitCode(bisect.ExitCannotJudge)
}

// again is the command line that judges a point once more.
func (b *bisection) again(p bisect.Point) string {
	return b.command(append(b.subject.again(p), "--tests", strings.Join(b.flags.tests, ","))...)
}

// command is a command line of this nftvm for this project.
func (b *bisection) command(args ...string) string {
	exe, err := os.Executable()
	if err != nil {
		exe = "nftvm"
	}
	line := append([]string{exe}, args...)
	line = append(line, "--project", b.root)
	for _, d := range []struct{ flag, path, usual string }{
		{"--series", b.flags.patches, "patches"}, {"--selftests", b.flags.selftests, "selftests"},
	} {
		abs, err := filepath.Abs(d.path)
		if err == nil && abs != filepath.Join(b.root, d.usual) {
			line = append(line, d.flag, abs)
		}
	}
	if b.flags.accel != "" {
		line = append(line, "--accel", b.flags.accel)
	}
	return quoted(line)
}

// resumed is the command line that goes on from where this one ends.
func resumed(args []string) string {
	for _, a := range args {
		if a == "--resume" {
			return quoted(args)
		}
	}
	return quoted(append(append([]string{}, args...), "--resume"))
}

func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = qemu.Quote(a)
	}
	return strings.Join(words, " ")
}
