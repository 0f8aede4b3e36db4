// SPDX-License-Identifier: GPL-2.0-only

package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Files that Write makes in a run's directory.
const (
	JSONFile = "results.json"
	KTAPFile = "results.ktap"
)

// Write puts every rendering into dir, each by a rename: a reader, or a run
// that dies, never leaves half a file.
func (r *Results) Write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, JSONFile), append(raw, '\n')); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, KTAPFile), r.KTAP())
}

// Load reads the results of an earlier run from its directory.
func Load(dir string) (*Results, error) {
	raw, err := os.ReadFile(filepath.Join(dir, JSONFile))
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, JSONFile), err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s: schema %q, this nftvm reads %q", filepath.Join(dir, JSONFile), r.Schema, Schema)
	}
	return r, nil
}

// WriteFile replaces a file by a rename: whoever reads it never sees half of it.
func WriteFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// KTAP renders the run as nested KTAP: cells, tests, subtests.
func (r *Results) KTAP() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "KTAP version 1\n1..%d\n", len(r.Cells))
	for i, c := range r.Cells {
		b.WriteString("    KTAP version 1\n")
		fmt.Fprintf(&b, "    1..%d\n", len(c.Tests))
		for j, t := range c.Tests {
			if len(t.Subtests) > 0 {
				b.WriteString("        KTAP version 1\n")
				fmt.Fprintf(&b, "        1..%d\n", len(t.Subtests))
				for k, s := range t.Subtests {
					ktapLine(&b, "        ", k+1, s.Name, s.Verdict, s.Reason)
				}
			}
			ktapLine(&b, "    ", j+1, t.Name, t.Verdict, t.Reason)
		}
		ktapLine(&b, "", i+1, c.Tree+"/"+c.Flavor, c.Verdict, c.Reason)
	}
	return b.Bytes()
}

func ktapLine(b *bytes.Buffer, indent string, n int, name string, v Verdict, reason string) {
	word := "ok"
	if v.Bad() {
		word = "not ok"
		// The words of a failure go before its line as diagnostics: after a
		// '#' on the line itself a parser would look for a directive.
		fmt.Fprintf(b, "%s# %s: %s", indent, v, name)
		if reason != "" {
			fmt.Fprintf(b, ": %s", strings.ReplaceAll(reason, "\n", "\n"+indent+"# "))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "%s%s %d %s", indent, word, n, strings.ReplaceAll(name, "#", `\#`))
	if v == Skip {
		first, _, _ := strings.Cut(reason, "\n")
		fmt.Fprintf(b, " # SKIP %s", first)
	}
	b.WriteByte('\n')
}
