// SPDX-License-Identifier: GPL-2.0-only

package intake

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/series"
)

const zero = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"

// change makes a diff of one line of a file.
func change(file, from, to string) string {
	return fmt.Sprintf("diff --git a/%s b/%s\n--- a/%s\n+++ b/%s\n@@ -1 +1 @@\n-%s\n+%s\n", file, file, file, file, from, to)
}

// posted is a mail of an mbox.
func posted(subject, body string, headers ...string) string {
	return zero + "From: =?UTF-8?q?J=C3=BCrg?= <j@b.c>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nSubject: " + subject + "\n" +
		strings.Join(append(headers, ""), "\n") + "\n" + body + "\n"
}

func words(diff string) string {
	return "Why.\n\nSigned-off-by: J <j@b.c>\n---\n x | 2 +-\n\n" + diff + "-- \n2.39.5\n"
}

func put(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	return dir
}

func take(t *testing.T, path string) (*Taken, error) {
	t.Helper()
	st, err := store.Open(t.TempDir())
	require.NoError(t, err)
	return From(t.Context(), st, path)
}

// takeBox takes an mbox, and forgets where it was in what was said of it.
func takeBox(t *testing.T, content string) (*Taken, error) {
	t.Helper()
	dir := put(t, map[string]string{"box": content})
	tk, err := take(t, filepath.Join(dir, "box"))
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), dir+"/", ""))
	}
	for i, n := range tk.Notes {
		tk.Notes[i] = strings.ReplaceAll(n, dir+"/", "")
	}
	return tk, nil
}

func names(s *series.Series) (out []string) {
	for _, p := range s.Patches {
		out = append(out, p.Name)
	}
	return out
}

func applied(t *testing.T, s *series.Series, files map[string]string) *series.Overlay {
	t.Helper()
	o, err := series.Apply(put(t, files), s.Patches)
	require.NoError(t, err)
	return o
}

func TestListedDirectoryStaysAsItIs(t *testing.T) {
	list := "# supports: >= 6.1\nb.patch\t>= 7.0\na.patch\n"
	dir := put(t, map[string]string{"series": list, "a.patch": change("a", "1", "2"), "b.patch": change("b", "1", "2"), "c.patch": "not of it"})
	tk, err := take(t, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"b.patch", "a.patch"}, names(tk.Series))
	require.Equal(t, ">= 6.1", tk.Series.Supports.String())
	require.NotEqual(t, dir, tk.Dir, "what is being checked must not change under the check")
	raw, err := os.ReadFile(filepath.Join(tk.Dir, "series"))
	require.NoError(t, err)
	require.Equal(t, list, string(raw))
}

func TestOurOwnSeriesIsTaken(t *testing.T) {
	_, err := take(t, "../../../patches")
	require.NoError(t, err)
}

func TestBrokenThirdIsTaken(t *testing.T) {
	tk, err := take(t, "../../../testdata/broken-third")
	require.NoError(t, err)
	require.Len(t, tk.Series.Patches, 4)
	require.True(t, strings.HasPrefix(tk.Series.Patches[2].Name, "0003-"))
}

func TestBareDirectory(t *testing.T) {
	a, b, c := change("a", "1", "2"), change("b", "1", "2"), change("c", "1", "2")
	for name, x := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"by name":      {map[string]string{"2.patch": b, "1.patch": a, "3.patch": c, "README": "x"}, []string{"1.patch", "2.patch", "3.patch"}},
		"by number":    {map[string]string{"x.patch": posted("[PATCH 2/2] x", words(b)), "y.patch": posted("[PATCH 1/2] y", words(a))}, []string{"y.patch", "x.patch"}},
		"not all have": {map[string]string{"x.patch": posted("[PATCH 2/2] x", words(b)), "y.patch": a}, []string{"x.patch", "y.patch"}},
		"cover letter": {map[string]string{
			"0000-cover-letter.patch": posted("[PATCH 0/1] all", "Words.\n"), "0001-a.patch": posted("[PATCH 1/1] a", words(a)),
		}, []string{"0001-a.patch"}},
		"odd name": {map[string]string{"my #1 patch.patch": a}, []string{"my-1-patch.patch"}},
	} {
		t.Run(name, func(t *testing.T) {
			tk, err := take(t, put(t, x.files))
			require.NoError(t, err)
			require.Equal(t, x.want, names(tk.Series))
		})
	}
}

func TestBadDirectories(t *testing.T) {
	a := change("a", "1", "2")
	for name, x := range map[string]struct {
		files map[string]string
		want  string
	}{
		"empty":     {map[string]string{"README": "x"}, "DIR holds neither a list named series nor a *.patch file with a patch in it"},
		"words":     {map[string]string{"1.patch": "words\n"}, "DIR: 1.patch changes no file"},
		"gap":       {map[string]string{"1.patch": posted("[PATCH 1/3] a", words(a)), "3.patch": posted("[PATCH 3/3] c", words(change("c", "1", "2")))}, "DIR lacks patch 2 of 3"},
		"duplicate": {map[string]string{"1.patch": a, "2.patch": a}, "DIR/1.patch and DIR/2.patch are the same change"},
		"mbox":      {map[string]string{"1.patch": posted("a", a) + posted("b", a)}, "DIR/1.patch holds several patches; give the file itself as the series"},
		"crlf":      {map[string]string{"1.patch": strings.ReplaceAll(posted("a", words(a)), "\n", "\r\n")}, "DIR: 1.patch has CRLF line ends, a kernel tree has LF; convert it, for instance with dos2unix"},
		"outside":   {map[string]string{"1.patch": change("../../etc/passwd", "1", "2")}, "DIR: 1.patch: ../../etc/passwd: the path leaves the tree; refused"},
		"binary":    {map[string]string{"1.patch": "diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n"}, "DIR: 1.patch: x: the patch says that this binary file differs, but not how; make it with --binary"},
		"bad list":  {map[string]string{"series": "1.patch >= x\n", "1.patch": a}, `DIR/series:1: version range ">= x": ">= x" is not like ">= 6.12, < 7.0"`},
		"no patch":  {map[string]string{"series": "# nothing\n"}, "DIR/series names no patch"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := put(t, x.files)
			_, err := take(t, dir)
			require.Error(t, err)
			require.Equal(t, x.want, strings.ReplaceAll(err.Error(), dir, "DIR"))
		})
	}
	_, err := take(t, "/nowhere/series")
	require.ErrorContains(t, err, "there is no series /nowhere/series; give a directory")
}

func TestMailIsDecoded(t *testing.T) {
	diff := change("a", "ä=1", "ö=2")
	body := words(diff)
	var quoted bytes.Buffer
	w := quotedprintable.NewWriter(&quoted)
	_, _ = w.Write([]byte(body))
	require.NoError(t, w.Close())
	wrapped := func(s string) string {
		s = base64.StdEncoding.EncodeToString([]byte(s))
		var b strings.Builder
		for ; len(s) > 76; s = s[76:] {
			b.WriteString(s[:76] + "\n")
		}
		return b.String() + s + "\n"
	}
	utf8 := "Content-Type: text/plain; charset=UTF-8"
	encoded := func(how string) []string { return []string{utf8, "Content-Transfer-Encoding: " + how} }
	subject := mime.QEncoding.Encode("UTF-8", "[PATCH 1/1] größer")
	for name, mail := range map[string]string{
		"8bit":             posted(subject, body, encoded("8bit")...),
		"quoted-printable": posted(subject, quoted.String(), encoded("quoted-printable")...),
		"base64":           posted(subject, wrapped(body), encoded("base64")...),
		"base64 of CRLF":   posted(subject, wrapped(strings.ReplaceAll(body, "\n", "\r\n")), encoded("base64")...),
		"sent with CRLF":   strings.ReplaceAll(posted(subject, body, encoded("8bit")...), "\n", "\r\n"),
		"without From_":    strings.TrimPrefix(posted(subject, body, encoded("8bit")...), zero),
		"folded subject":   posted(strings.Replace(subject, " ", "\n ", 1), body, encoded("8bit")...),
		"attached": posted(subject, "--x\n"+utf8+"\n\nWhy.\n\nSigned-off-by: J <j@b.c>\n---\n x | 2 +-\n\n--x\nContent-Type: text/x-patch; charset=UTF-8\n\n"+diff+"--x--\n",
			"MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=x"),
	} {
		t.Run(name, func(t *testing.T) {
			tk, err := takeBox(t, mail)
			require.NoError(t, err)
			require.Equal(t, []string{"0001-gr-er.patch"}, names(tk.Series))
			text := string(tk.Series.Patches[0].Content)
			require.True(t, strings.HasPrefix(text, "From: Jürg <j@b.c>\nSubject: [PATCH] größer\n\nWhy.\n\nSigned-off-by: J <j@b.c>\n---\n"), "%s", text)
			require.NotContains(t, text, "\r")
			o := applied(t, tk.Series, map[string]string{"a": "ä=1\n"})
			require.Len(t, o.Files, 1)

			// The same mail in a directory is the same patch.
			if !strings.Contains(mail, "\r") {
				tk, err = take(t, put(t, map[string]string{"1.patch": mail}))
				require.NoError(t, err)
				applied(t, tk.Series, map[string]string{"a": "ä=1\n"})
			}
		})
	}
}

func TestPatchSentAgainIsTheSame(t *testing.T) {
	one, err := takeBox(t, posted("[PATCH 1/1] a", words(change("a", "1", "2"))))
	require.NoError(t, err)
	two, err := takeBox(t, strings.Replace(posted("[PATCH v2 1/2] a", words(change("a", "1", "2"))), "1 Jan", "2 Jan", 1)+
		posted("[PATCH v2 2/2] b", words(change("b", "1", "2"))))
	require.NoError(t, err)
	require.Equal(t, string(one.Series.Patches[0].Content), string(two.Series.Patches[0].Content))
}

func TestThread(t *testing.T) {
	a, b := words(change("a", "1", "2")), words(change("b", "1", "2"))
	cover := posted("[PATCH 0/2] all of it", "Words.\n")
	for name, x := range map[string]struct {
		box  string
		want []string
		note string
	}{
		"in order":      {posted("[PATCH net-next 1/2] a", a) + posted("[PATCH net-next 2/2] b", b), nil, ""},
		"out of order":  {posted("[PATCH 2/2] b", b) + cover + posted("[PATCH 1/2] a", a), nil, ""},
		"with answers":  {cover + posted("[PATCH 1/2] a", a) + posted("Re: [PATCH 1/2] a", "> "+a+"\nWhy?\n\n"+change("a", "1", "3")) + posted("[PATCH 2/2] b", b), nil, ""},
		"without tags":  {posted("a", a) + posted("b", b), nil, ""},
		"two versions":  {posted("[PATCH 1/1] x", words(change("x", "1", "2"))) + posted("[PATCH v2 1/2] a", a) + posted("[PATCH v2 2/2] b", b), nil, "box holds v1 and v2 of the series; v2 is taken, it is the newest"},
		"over two ways": {posted("[PATCH 1/2] a", a) + posted("[PATCH 2/2] b", b) + posted("[PATCH 2/2] b", b), nil, "box holds patch 2/2 twice, and they are the same: mail 2 of box and mail 3 of box"},
	} {
		t.Run(name, func(t *testing.T) {
			tk, err := takeBox(t, x.box)
			require.NoError(t, err)
			require.Equal(t, []string{"0001-a.patch", "0002-b.patch"}, names(tk.Series))
			require.Equal(t, x.note, strings.Join(tk.Notes, "; "))
			applied(t, tk.Series, map[string]string{"a": "1\n", "b": "1\n"})
		})
	}
}

func TestBadMail(t *testing.T) {
	a, b := words(change("a", "1", "2")), words(change("b", "1", "2"))
	for name, x := range map[string]struct{ box, want string }{
		"nothing":           {"just words\n", "box is neither mail nor a patch"},
		"no patch":          {posted("hello", "words\n") + posted("Re: hello", a), "box: none of its 2 mails is a patch"},
		"gap":               {posted("[PATCH 1/4] a", a) + posted("[PATCH 3/4] b", b), "box lacks patch 2, 4 of 4"},
		"gap in v2":         {posted("[PATCH 1/2] a", a) + posted("[PATCH 2/2] b", b) + posted("[PATCH v2 2/2] b", b), "v2 in box lacks patch 1 of 2"},
		"twice":             {posted("[PATCH 1/1] a", a) + posted("[PATCH 1/1] b", b), "box holds patch 1/1 twice, and they differ: mail 1 of box and mail 2 of box"},
		"two series":        {posted("[PATCH 1/2] a", a) + posted("[PATCH 1/3] b", b), "box holds parts of two series, one of 2 and one of 3 patches (mail 2 of box); give one of them"},
		"one has none":      {posted("[PATCH 1/1] a", a) + posted("[PATCH] b", b), "mail 2 of box (b) has no number, others have; which place is its own is not known"},
		"versions of one":   {posted("[PATCH] a", a) + posted("[PATCH v2] a", b), "mail 1 of box (a) has no number, others have; which place is its own is not known"},
		"beyond the last":   {posted("[PATCH 3/2] a", a), "mail 1 of box says that it is patch 3 of 2"},
		"the same again":    {posted("a", a) + posted("b", a), "mail 1 of box and mail 2 of box are the same change"},
		"CR in the patch":   {posted("a", strings.ReplaceAll(a, change("a", "1", "2"), strings.ReplaceAll(change("a", "1", "2"), "\n", "\r\n"))), "box: 0001-a.patch has CRLF line ends, a kernel tree has LF; convert it, for instance with dos2unix"},
		"leaves the tree":   {posted("a", words(change("../x", "1", "2"))), "box: 0001-a.patch: ../x: the path leaves the tree; refused"},
		"cut in the middle": {posted("a", "Why.\n---\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,9 +1,9 @@\n-1\n+2\n"), "mail 1 of box cannot be read as a patch: gitdiff: line 10: fragment header miscounts lines"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := takeBox(t, x.box)
			require.Error(t, err)
			require.Contains(t, err.Error(), x.want)
			require.NotContains(t, err.Error(), "\n", "one sentence")
		})
	}
}

func TestOtherFiles(t *testing.T) {
	plain, err := takeBox(t, change("a", "1", "2"))
	require.NoError(t, err)
	require.Equal(t, []string{"box"}, names(plain.Series))

	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(posted("[PATCH] a", words(change("a", "1", "2")))))
	require.NoError(t, w.Close())
	zipped, err := takeBox(t, z.String())
	require.NoError(t, err)
	require.Equal(t, []string{"0001-a.patch"}, names(zipped.Series))
}

func TestRenamesAndBinariesApply(t *testing.T) {
	tk, err := takeBox(t, posted("[PATCH] move", words("diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n"+
		"diff --git a/bin b/bin\nnew file mode 100644\nindex 0000000000000000000000000000000000000000..f76dd238ade08917e6712764a16a22005a50573d\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\nliteral 0\nHcmV?d00001\n\n")))
	require.NoError(t, err)
	o := applied(t, tk.Series, map[string]string{"a": "1\n"})
	require.Len(t, o.Files, 3)
}

func TestTag(t *testing.T) {
	for subject, want := range map[string]tag{
		"[PATCH 03/10] net: x":           {version: 1, n: 3, m: 10, subject: "net: x"},
		"[RFC PATCH v12 net-next 1/2] x": {version: 12, n: 1, m: 2, subject: "x"},
		"[PATCHv3 2/2] x":                {version: 3, n: 2, m: 2, subject: "x"},
		"[net-next,v2,4/7] x":            {version: 2, n: 4, m: 7, subject: "x"},
		"[PATCH] a 1/2 b":                {version: 1, subject: "a 1/2 b"},
		"Re: [PATCH 1/2] x":              {version: 1, n: 1, m: 2, subject: "x", reply: true},
		"ipv4: rev2/3 [x]":               {version: 1, subject: "ipv4: rev2/3 [x]"},
		"[PATCH 0/3] x":                  {version: 1, m: 3, subject: "x"},
	} {
		require.Equal(t, want, parseTag(subject), subject)
	}
}
