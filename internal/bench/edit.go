// SPDX-License-Identifier: GPL-2.0-only

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/matrix"
	"github.com/kmod-nft-offload/kmod-nft-offload/internal/watch"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/dev"
)

const (
	// edits is how many edits the edit figure is the median of.
	edits = 5
	// edited is the file, and editTest the test of which the verdict is waited
	// for.
	edited   = "net/netfilter/nft_offload_main.c"
	editTest = "nft_offload/device_gone"
)

// edit measures the loop of who changes a line of the module and waits for the
// verdict of a test.
func (b *Bench) edit(ctx context.Context) ([]Figure, error) {
	repo := filepath.Join(b.Out, "dev")
	if err := os.RemoveAll(repo); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(repo) }()
	builder, m := b.Builder(b.Store), b.Run()
	m.Out = filepath.Join(b.Out, "watch")
	i := slices.IndexFunc(m.Tests, func(s matrix.Spec) bool { return s.Name == editTest })
	if i < 0 {
		return nil, fmt.Errorf("there is no test %s", editTest)
	}
	m.Tests = m.Tests[i : i+1]
	if _, _, err := dev.OpenTree(ctx, b.Store, b.Tree, builder.Series, "", repo); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	w := watch.Over(builder, m, b.Tree, repo, &said)
	file := filepath.Join(repo, edited)
	var took []float64
	// The first brings the kernel up to date, the second what make M= needs.
	for n := range edits + 2 {
		b.Say("edit %d of %d", n, edits+1)
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		_, err = fmt.Fprintf(f, "int nft_offload_edited_%d;\n", n)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, err
		}
		said.Reset()
		start := time.Now()
		if err := w.Round(ctx, ctx); err != nil {
			return nil, err
		}
		if !w.Good() {
			return nil, fmt.Errorf("the edited module does not pass:\n%s", said.String())
		}
		if n > 1 {
			took = append(took, time.Since(start).Seconds())
		}
	}
	if !bytes.Contains(said.Bytes(), []byte("modules of "+filepath.Dir(edited))) {
		return nil, fmt.Errorf("for a line of %s the kernel was built:\n%s", edited, said.String())
	}
	slices.Sort(took)
	return []Figure{{
		Name: "edit", Value: took[edits/2], Unit: "s", Target: 5,
		How: fmt.Sprintf("a line more in %s to the verdict of %s, by nftvm watch; median of %d, the test itself included", edited, editTest, edits),
	}}, nil
}
