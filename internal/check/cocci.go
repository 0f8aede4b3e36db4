// SPDX-License-Identifier: GPL-2.0-only

package check

import (
	"context"
	"slices"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/kbuild"
)

// cocci compares what semantic patches say without the series and with all of
// it: patch by patch it would take a day. A new remark about a file that only
// one patch touches is that patch's.
func (w *walk) cocci(ctx context.Context) error {
	if w.Cocci == nil {
		return nil
	}
	by := map[string][]int{}
	var files []string
	for i, p := range w.patches {
		more, err := touches(p, ".c", ".h")
		if err != nil {
			return err
		}
		for _, f := range more {
			by[f] = append(by[f], i+1)
		}
		files = append(files, more...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	var said [2][]kbuild.Warning
	step := w.Progress.Start(w.tree.Name, "coccicheck", 0)
	for i, n := range []int{0, len(w.patches)} {
		there := w.there(n, files)
		if len(there) == 0 {
			continue
		}
		var err error
		if said[i], err = w.Cocci(ctx, w.tree, n, there); err != nil {
			step.End("failed: %v", err)
			return err
		}
	}
	whole := &w.res.Whole
	whole.ran("coccicheck")
	fresh := newWarnings(said[0], said[1])
	step.End("%d remarks", len(fresh))
	for _, remark := range said[1] {
		if remark.OfCocci() {
			whole.Notes = append(whole.Notes, "coccicheck without "+remark.String())
		}
	}
	for _, remark := range fresh {
		if guilty := by[remark.File]; len(guilty) == 1 {
			cell := w.cell(guilty[0])
			cell.ran("coccicheck")
			cell.add("coccicheck", remark.String())
			continue
		}
		whole.add("coccicheck", remark.String())
	}
	return nil
}
