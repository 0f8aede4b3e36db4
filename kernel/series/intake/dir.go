// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// readDir takes a directory of patch files: in the order of their numbers where
// all have one, else of their names, as a shell has it.
func readDir(ctx context.Context, t *Taken, dir string) ([]letter, error) {
	paths, err := filepath.Glob(filepath.Join(escape(dir), "*.patch"))
	if err != nil {
		return nil, err
	}
	var letters []letter
	numbered := true
	for _, path := range paths {
		l, ok, err := readFile(ctx, path)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		for _, other := range letters {
			if other.name == l.name {
				return nil, fmt.Errorf("%s and %s would both be named %s; rename one", other.from, l.from, l.name)
			}
		}
		letters = append(letters, l)
		// One of one says nothing about its place.
		numbered = numbered && l.tag.m > 1
	}
	if len(letters) == 0 {
		return nil, fmt.Errorf("%s holds neither a list named series nor a *.patch file with a patch in it", dir)
	}
	if numbered {
		return t.order(letters)
	}
	return letters, twice(letters)
}

// escape keeps a glob from reading a directory's name as a pattern.
func escape(dir string) string {
	return regexp.MustCompile(`[\\*?\[]`).ReplaceAllString(dir, `\$0`)
}

// mailsRE is the line that begins each mail of git format-patch.
var mailsRE = regexp.MustCompile(`(?m)^From [0-9a-f]{40} Mon Sep 17 00:00:00 2001\r?$`)

// readFile takes a patch file; ok is false for a cover letter. The file stays
// byte for byte, unless it was encoded for mail.
func readFile(ctx context.Context, path string) (l letter, ok bool, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return l, false, err
	}
	if n := len(mailsRE.FindAllIndex(raw, 2)); n > 1 {
		return l, false, fmt.Errorf("%s holds several patches; give the file itself as the series", path)
	}
	l = letter{from: path, name: fileName(filepath.Base(path)), content: raw}
	h := header(raw)
	l.tag = parseTag(subject(h))
	if l.tag.cover() || strings.Contains(l.name, "cover-letter") && !bytes.Contains(raw, []byte("\n+++ ")) {
		return l, false, nil
	}
	if !plain(h) {
		letters, err := mails(ctx, path, raw)
		if err != nil {
			return l, false, err
		}
		if len(letters) != 1 {
			return l, false, fmt.Errorf("%s holds %d mails; give the file itself as the series", path, len(letters))
		}
		l.content = letters[0].content
	}
	return l, true, nil
}

// header is that of a mail, empty for a plain diff.
func header(raw []byte) mail.Header {
	if bytes.HasPrefix(raw, []byte("From ")) {
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil
	}
	return m.Header
}

func subject(h mail.Header) string {
	s := h.Get("Subject")
	if dec, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return dec
	}
	return s
}

// plain tells whether the body of a mail is the patch as it is.
func plain(h mail.Header) bool {
	encoding := strings.ToLower(strings.TrimSpace(h.Get("Content-Transfer-Encoding")))
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return slices.Contains([]string{"", "7bit", "8bit", "binary"}, encoding) && !strings.HasPrefix(kind, "multipart/")
}
