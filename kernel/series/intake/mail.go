// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

// mailRE is how mail begins: the line between two mails of an mbox, or a header.
var mailRE = regexp.MustCompile(`^(From \S|[A-Za-z][A-Za-z0-9-]*:[ \t])`)

// diffRE is a line that a patch has and words do not.
var diffRE = regexp.MustCompile(`(?m)^(\+\+\+ \S|diff --git \S|GIT binary patch$)`)

// readMail takes a file: mail, one or many, or a diff without any.
func readMail(ctx context.Context, t *Taken, path string) ([]letter, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(raw, []byte("\x1f\x8b")) { // as archives of lists give a thread away
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			raw, err = io.ReadAll(z)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if !mailRE.Match(raw) {
		if !diffRE.Match(raw) {
			return nil, fmt.Errorf("%s is neither mail nor a patch", path)
		}
		return []letter{{from: path, name: fileName(filepath.Base(path)), content: raw}}, nil
	}
	all, err := mails(ctx, path, raw)
	if err != nil {
		return nil, err
	}
	var letters []letter
	numbered := 0
	for _, l := range all {
		// Whoever answers a patch quotes it; only the author may resend it.
		if l.tag.reply || l.tag.cover() || !diffRE.Match(l.content) {
			continue
		}
		letters = append(letters, l)
		if l.tag.m > 0 {
			numbered++
		}
	}
	switch {
	case len(letters) == 0:
		return nil, fmt.Errorf("%s: none of its %d mails is a patch", path, len(all))
	case numbered == len(letters):
		letters, err = t.order(letters)
	case numbered > 0 || len(letters) > 1 && bySubject(letters):
		i := slices.IndexFunc(letters, func(l letter) bool { return l.tag.m == 0 })
		err = fmt.Errorf("%s (%s) has no number, others have; which place is its own is not known", letters[i].from, letters[i].tag.subject)
	default:
		err = twice(letters)
	}
	for i := range letters {
		letters[i].name = slugged(i+1, letters[i].tag.subject)
	}
	return letters, err
}

// bySubject tells whether one patch is there in several versions, without
// numbers.
func bySubject(letters []letter) bool {
	return slices.ContainsFunc(letters, func(l letter) bool { return l.tag.version != letters[0].tag.version })
}

// mails are the mails of an mbox, or of a file with one, each as a patch file.
// git takes them apart and decodes them, as git am would.
func mails(ctx context.Context, path string, raw []byte) ([]letter, error) {
	dir, err := os.MkdirTemp("", "nftvm-mail-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	box := filepath.Join(dir, "box")
	if err := os.WriteFile(box, raw, 0o600); err != nil {
		return nil, err
	}
	// A CR may be the patch's own: who decodes a mail knows all of it.
	if _, err := deaf(ctx, dir, nil, "mailsplit", "-b", "-d6", "--mboxrd", "--keep-cr", "-o"+dir, "--", box); err != nil {
		return nil, fmt.Errorf("%s cannot be read as mail: %w", path, err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "0*"))
	if err != nil {
		return nil, err
	}
	var out []letter
	for i, p := range paths {
		l, err := letterOf(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: mail %d: %w", path, i+1, err)
		}
		l.from = fmt.Sprintf("mail %d of %s", i+1, path)
		out = append(out, l)
	}
	return out, nil
}

// letterOf decodes a mail.
func letterOf(ctx context.Context, path string) (letter, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return letter{}, err
	}
	dir := filepath.Dir(path)
	msg, patch := path+".msg", path+".patch"
	info, err := deaf(ctx, dir, raw, "mailinfo", "-k", "--encoding=UTF-8", msg, patch)
	if err != nil {
		return letter{}, err
	}
	said := map[string]string{}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			said[name] = value
		}
	}
	words, err := os.ReadFile(msg)
	if err != nil {
		return letter{}, err
	}
	diff, err := os.ReadFile(patch)
	if err != nil {
		return letter{}, err
	}
	if converted(words) || converted(diff) {
		// By the rules of mail text has CRLF on its way, and where it is
		// encoded.
		words, diff = unix(words), unix(diff)
	}
	l := letter{tag: parseTag(said["Subject"])}
	l.content = compose(said["Author"]+" <"+said["Email"]+">", l.tag.subject, string(words), diff)
	return l, nil
}

// converted tells whether every line of a text ends in CRLF.
func converted(text []byte) bool {
	n := bytes.Count(text, []byte("\n"))
	return n > 0 && n == bytes.Count(text, []byte("\r\n"))
}

func unix(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) }

// compose is a patch file with nothing in it that differs when the same patch
// is sent once more: no number, no version, no date.
func compose(author, subject, words string, diff []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: %s\nSubject: [PATCH] %s\n\n", author, subject)
	if words = strings.TrimSpace(words); words != "" {
		b.WriteString(words + "\n")
	}
	if !bytes.HasPrefix(diff, []byte("---\n")) {
		b.WriteString("---\n")
	}
	b.Write(diff)
	return b.Bytes()
}

// deaf runs git in a directory that is no repository, without anybody's
// configuration.
func deaf(ctx context.Context, dir string, stdin []byte, args ...string) ([]byte, error) {
	return proc.Output(ctx, proc.Cmd{
		Dir: dir, Args: append([]string{"git"}, args...), Stdin: bytes.NewReader(stdin),
		Env: []string{
			"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CEILING_DIRECTORIES=" + filepath.Dir(dir), "LC_ALL=C",
		},
		Unset: gitLeaks,
	})
}
