// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/bisect"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/tree"
)

const (
	// history is how many commits there are to search, and guilty the one after
	// which hardware gets no rule that asks for a protocol.
	history = 64
	guilty  = 41
	// guiltyTest notices.
	guiltyTest = "nft_offload/chain_actions"
)

// guiltyFile and guiltySpot are where the guilty commit takes nft_meta's
// translation for hardware away.
const (
	guiltyFile = "net/netfilter/nft_meta.c"
	guiltySpot = "\tstruct nft_offload_reg *reg = &ctx->regs[priv->dreg];\n\n\tswitch (priv->key) {\n\tcase NFT_META_PROTOCOL:"
)

// commits makes a bare repository of the source and history commits on top of
// it, such as there are in a kernel: documents, comments, modules, what is built
// in. It returns the first, the last and the guilty commit.
func commits(ctx context.Context, src *tree.Source, dir string) (first, last, culprit string, err error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", "", "", err
	}
	run := func(stdin []byte, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_AUTHOR_NAME=nftvm", "GIT_AUTHOR_EMAIL=nftvm@localhost", "GIT_COMMITTER_NAME=nftvm", "GIT_COMMITTER_EMAIL=nftvm@localhost")
		cmd.Stdin = bytes.NewReader(stdin)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
		}
		return strings.TrimSpace(string(out)), err
	}
	git := func(stdin []byte, args ...string) (string, error) {
		return run(stdin, append([]string{"--git-dir", dir, "--work-tree", src.Dir}, args...)...)
	}
	if _, err := run(nil, "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return "", "", "", err
	}
	if _, err := git(nil, "-c", "core.bigFileThreshold=1", "-c", "core.compression=1", "add", "-A", "-f", "."); err != nil {
		return "", "", "", err
	}
	if _, err := git(nil, "commit", "-q", "--no-verify", "-m", "Linux "+src.Version); err != nil {
		return "", "", "", err
	}
	stream, err := historyOf(src.Dir)
	if err != nil {
		return "", "", "", err
	}
	if _, err := git(stream, "fast-import", "--quiet"); err != nil {
		return "", "", "", err
	}
	ids, err := git(nil, "rev-list", "--reverse", "main")
	if err != nil {
		return "", "", "", err
	}
	all := strings.Fields(ids)
	if len(all) != history+1 {
		return "", "", "", fmt.Errorf("%d commits in %s, wanted %d", len(all), dir, history+1)
	}
	return all[0], all[history], all[guilty], nil
}

// historyOf is the commits, for git fast-import.
func historyOf(src string) ([]byte, error) {
	files := map[string]string{}
	read := func(path string) (string, error) {
		if text, ok := files[path]; ok {
			return text, nil
		}
		raw, err := os.ReadFile(filepath.Join(src, path))
		return string(raw), err
	}
	var b bytes.Buffer
	for n := 1; n <= history; n++ {
		subject, path := fmt.Sprintf("doc: word %d", n), "Documentation/networking/index.rst"
		add := fmt.Sprintf("\n.. %d\n", n)
		switch {
		case n == guilty:
			subject, path = "netfilter: nft_meta: simplify the offload", guiltyFile
		case n%4 == 1:
			subject, path, add = fmt.Sprintf("netfilter: nft_counter: comment %d", n), "net/netfilter/nft_counter.c", fmt.Sprintf("/* %d */\n", n)
		case n%4 == 2:
			subject, path, add = fmt.Sprintf("netfilter: nft_limit: variable %d", n), "net/netfilter/nft_limit.c", fmt.Sprintf("int nft_limit_%d;\n", n)
		case n%4 == 3:
			subject, path, add = fmt.Sprintf("net: variable %d", n), "net/core/utils.c", fmt.Sprintf("int net_utils_%d;\n", n)
		}
		text, err := read(path)
		if err != nil {
			return nil, err
		}
		if n == guilty {
			if !strings.Contains(text, guiltySpot) {
				return nil, fmt.Errorf("%s has not the place that the guilty commit changes", path)
			}
			text = strings.Replace(text, guiltySpot, strings.Replace(guiltySpot, "\n\n\tswitch", "\n\n\tif (priv->key == NFT_META_L4PROTO)\n\t\treturn -EOPNOTSUPP;\n\n\tswitch", 1), 1)
		} else {
			text += add
		}
		files[path] = text
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter nftvm <nftvm@localhost> %d +0000\ndata %d\n%s\n", 1700000000+n, len(subject), subject)
		if n == 1 {
			b.WriteString("from refs/heads/main^0\n")
		}
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
	}
	return b.Bytes(), nil
}

// stageRE is a line of progress about a stage that had to run.
var stageRE = regexp.MustCompile(`(?m)^\[ *[0-9.]+s\] \S+\s+(source|patch|config|build|module): done in ([0-9.]+) s$`)

// bisect measures a search through a history: the number of steps, and what a
// step costs beyond the build that somebody by hand would have to do as well.
func (b *Bench) bisect(ctx context.Context) ([]Figure, error) {
	src, err := (&tree.Fetcher{Store: b.Store}).Source(ctx, b.Tree)
	if err != nil {
		return nil, err
	}
	repo, out := filepath.Join(b.Out, "history.git"), filepath.Join(b.Out, "bisect")
	b.Say("%d commits on %s", history, src.Version)
	first, last, culprit, err := commits(ctx, src, repo)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bisect", "--tree", repo, "--good", first, "--bad", last, "--tests", guiltyTest, "--out", out, "--store", b.Store.Dir()}
	b.Say("nftvm %s", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir = b.Root
	var errs bytes.Buffer
	cmd.Stderr = &errs
	said, err := cmd.Output()
	log := filepath.Join(b.Out, "bisect.log")
	if werr := os.WriteFile(log, append(errs.Bytes(), said...), 0o644); werr != nil {
		return nil, errors.Join(err, werr)
	}
	if err != nil {
		return nil, fmt.Errorf("nftvm bisect: %w; see %s", err, log)
	}
	if !bytes.Contains(said, []byte(culprit[:12])) {
		return nil, fmt.Errorf("the guilty commit is %s, nftvm bisect says otherwise; see %s", culprit[:12], log)
	}
	raw, err := os.ReadFile(filepath.Join(out, bisect.JSONFile))
	if err != nil {
		return nil, err
	}
	var journal bisect.Journal
	if err := json.Unmarshal(raw, &journal); err != nil {
		return nil, err
	}
	steps := len(journal.Points) - 2 // the ends
	// The first point is built from nothing: that is no step.
	builds, rest, n := stages(errs.String())
	if n == 0 {
		return nil, fmt.Errorf("nothing was built; see %s", log)
	}
	builds, rest = builds/float64(n), rest/float64(n)
	return []Figure{
		{
			Name: "bisect", Value: float64(steps), Unit: "steps", Target: 7,
			How: fmt.Sprintf("%d commits on %s, the guilty one found by %s", history, src.Version, guiltyTest),
		},
		{
			Name: "bisect-step", Value: builds + rest, Unit: "s", Target: 1.1*builds + 2,
			How: fmt.Sprintf("to a built kernel and module, average of %d; of that %.1f s are the incremental build. At most 1.1 times that + 2 s", n, builds),
		},
	}, nil
}

// stages sums up what a bisection's stages took behind the first of the points
// that were built, by whether it is the build; n is how many points that are.
func stages(log string) (builds, rest float64, n int) {
	warm := false
	for _, m := range stageRE.FindAllStringSubmatch(log, -1) {
		if !warm {
			warm = m[1] == "module"
			continue
		}
		s, err := strconv.ParseFloat(m[2], 64)
		switch {
		case err != nil:
		case m[1] == "build" || m[1] == "module":
			builds += s
			if m[1] == "build" {
				n++
			}
		default:
			rest += s
		}
	}
	return builds, rest, n
}
