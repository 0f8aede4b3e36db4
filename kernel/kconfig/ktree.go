// SPDX-License-Identifier: GPL-2.0-only

package kconfig

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// Definition is one config entry of a Kconfig file, as far as it takes to tell
// why a symbol is not set.
type Definition struct {
	File string
	// Prompt is true when a user can set the symbol.
	Prompt bool
	// Depends are the conditions that must all hold: the entry's own
	// "depends on" lines and the menus and ifs of its file around it.
	Depends []string
}

// KTree is what the Kconfig files of a tree define.
type KTree struct {
	Symbols map[string][]Definition
	// Selects maps a symbol to those that select it.
	Selects map[string][]string
}

// otherArch matches Kconfig files that are not part of an x86 configuration.
var otherArch = regexp.MustCompile(`^arch/(?:[^/]+)/`)

// ScanTree reads the Kconfig files of a kernel tree. It is meant for the case
// that something went wrong: it takes a moment.
func ScanTree(src string) (*KTree, error) {
	t := &KTree{Symbols: map[string][]Definition{}, Selects: map[string][]string{}}
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "Documentation" || rel == "tools" || rel == ".git" ||
				(otherArch.MatchString(rel+"/") && !strings.HasPrefix(rel+"/", "arch/x86/")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasPrefix(d.Name(), "Kconfig") || !d.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		t.parse(rel, string(raw))
		return nil
	})
	return t, err
}

// scope is an if or menu block.
type scope struct{ depends []string }

func (t *KTree) parse(file, content string) {
	content = strings.ReplaceAll(content, "\\\n", " ")
	var stack []scope
	var cur *Definition
	name := ""
	flush := func() {
		if cur != nil && name != "" {
			t.Symbols[name] = append(t.Symbols[name], *cur)
		}
		cur, name = nil, ""
	}
	helpIndent := -1 // -1: not in a help text; 0: its first line is to come
	inMenu := false
	for _, raw := range strings.Split(content, "\n") {
		text := strings.TrimSpace(raw)
		if text == "" {
			continue
		}
		indent := len(strings.ReplaceAll(raw, "\t", "        ")) - len(strings.TrimLeft(strings.ReplaceAll(raw, "\t", "        "), " "))
		if helpIndent >= 0 {
			if helpIndent == 0 && indent > 0 {
				helpIndent = indent
				continue
			}
			if helpIndent > 0 && indent >= helpIndent {
				continue
			}
			helpIndent = -1
		}
		if strings.HasPrefix(text, "#") {
			continue
		}
		word, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "config", "menuconfig":
			flush()
			inMenu = false
			name, cur = rest, &Definition{File: file}
			for _, s := range stack {
				cur.Depends = append(cur.Depends, s.depends...)
			}
		case "if":
			flush()
			inMenu = false
			stack = append(stack, scope{[]string{rest}})
		case "menu", "choice":
			flush()
			inMenu = true
			stack = append(stack, scope{})
		case "endif", "endmenu", "endchoice":
			flush()
			inMenu = false
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		case "comment", "source", "mainmenu":
			flush()
			inMenu = false
		case "depends":
			cond := strings.Join(strings.Fields(strings.TrimPrefix(rest, "on")), " ")
			if c, when, ok := strings.Cut(cond, " if "); ok {
				cond = "!(" + when + ") || (" + c + ")"
			}
			if cur != nil {
				cur.Depends = append(cur.Depends, cond)
			} else if inMenu && len(stack) > 0 {
				top := &stack[len(stack)-1]
				top.depends = append(top.depends, cond)
			}
		case "select", "imply":
			if cur != nil && word == "select" {
				target, _, _ := strings.Cut(rest, " ")
				t.Selects[target] = append(t.Selects[target], name)
			}
		case "bool", "tristate", "int", "hex", "string", "prompt":
			if cur != nil && (strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "'")) {
				cur.Prompt = true
			}
		case "help", "---help---":
			helpIndent = 0
		}
	}
	flush()
}

// all is the conjunction of the conditions, as Kconfig would write it.
func (d Definition) all() string {
	terms := make([]string, len(d.Depends))
	for i, t := range d.Depends {
		if terms[i] = t; len(d.Depends) > 1 && len(splitTop(t, "||")) > 1 {
			terms[i] = "(" + t + ")"
		}
	}
	return strings.Join(terms, " && ")
}

// missing are the conditions of a definition that a configuration does not
// meet, taken apart as far as "&&" reaches.
func (d Definition) missing(got Values) []string {
	var out []string
	seen := map[string]bool{}
	for _, cond := range d.Depends {
		for _, term := range conjuncts(cond) {
			if !seen[term] && eval(term, got) == 0 {
				seen[term] = true
				out = append(out, term)
			}
		}
	}
	return out
}

// selectors are the symbols that select the given one and are set.
func (t *KTree) selectors(symbol string, got Values) []string {
	var out []string
	for _, s := range t.Selects[symbol] {
		if got.Get(s) != "n" {
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return out
}
