// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// archive is where packages come from: a mirror for the distribution's
// suites, one for the security suites, and the keys that sign both.
type archive struct {
	main, security string
	keyring        string
}

// archiveKeyring is where the package debian-archive-keyring puts its keys.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// errNoMirror is what is wrong when the machine's apt knows no Debian mirror.
var errNoMirror = errors.New("no Debian mirror in the machine's apt configuration; " +
	"add one to /etc/apt/sources.list.d, or give the tree in configs/trees.yaml a dir: origin")

// Suites that only Debian's own archive has; other distributions' mirrors
// carry other names and must not be asked for ours.
var (
	debianSuiteRE = regexp.MustCompile(`^(stretch|buster|bullseye|bookworm|trixie|forky|duke|sid|stable|oldstable|oldoldstable|testing|unstable)(-updates|-proposed-updates|-backports|-backports-sloppy)?$`)
	securityRE    = regexp.MustCompile(`^[a-z]+(-security|/updates)$`)
)

// aptSource is one line or stanza of apt's configuration, as far as we read it.
type aptSource struct {
	uri    string
	suites []string
}

// machineArchive reads the mirrors from the apt configuration below etc
// (normally /etc/apt).
func machineArchive(etc string) (*archive, error) {
	var all []aptSource
	paths := []string{filepath.Join(etc, "sources.list")}
	more, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	sort.Strings(more)
	for _, path := range append(paths, more...) {
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch filepath.Ext(path) {
		case ".list":
			all = append(all, parseOneLine(string(raw))...)
		case ".sources":
			all = append(all, parseDeb822(string(raw))...)
		}
	}
	a := &archive{keyring: archiveKeyring}
	for _, s := range all {
		for _, suite := range s.suites {
			if a.main == "" && debianSuiteRE.MatchString(suite) {
				a.main = s.uri
			}
			if a.security == "" && securityRE.MatchString(suite) && debianSuiteRE.MatchString(securityBase(suite)) {
				a.security = s.uri
			}
		}
	}
	if a.main == "" {
		return nil, errNoMirror
	}
	return a, nil
}

func securityBase(suite string) string {
	return strings.TrimSuffix(strings.TrimSuffix(suite, "-security"), "/updates")
}

// parseOneLine reads "deb [options] uri suite component..." lines.
func parseOneLine(content string) []aptSource {
	var out []aptSource
	sc := bufio.NewScanner(strings.NewReader(content))
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '\t') {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, after, ok := strings.Cut(rest, "]")
			if !ok {
				continue
			}
			rest = after
		}
		if f := strings.Fields(rest); len(f) >= 2 {
			out = append(out, aptSource{uri: f[0], suites: []string{f[1]}})
		}
	}
	return out
}

// parseDeb822 reads the stanzas of a .sources file.
func parseDeb822(content string) []aptSource {
	var out []aptSource
	for _, st := range stanzas(content) {
		if !contains(strings.Fields(st["types"]), "deb") || strings.EqualFold(st["enabled"], "no") {
			continue
		}
		for _, uri := range strings.Fields(st["uris"]) {
			out = append(out, aptSource{uri: uri, suites: strings.Fields(st["suites"])})
		}
	}
	return out
}

// stanzas reads deb822: fields "Name: value" with indented continuations, in
// blocks parted by blank lines. Names come out in lower case.
func stanzas(content string) []map[string]string {
	var out []map[string]string
	cur, last := map[string]string{}, ""
	flush := func() {
		if len(cur) > 0 {
			out = append(out, cur)
		}
		cur, last = map[string]string{}, ""
	}
	for _, line := range strings.Split(content, "\n") {
		line = strings.TrimRight(line, "\r")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				cur[last] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			last = strings.ToLower(strings.TrimSpace(name))
			cur[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return out
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// line is the apt source line of one suite.
func (a *archive) line(suite string) (string, error) {
	uri := a.main
	if securityRE.MatchString(suite) {
		uri = a.security
	}
	if uri == "" {
		return "", fmt.Errorf("no security mirror in the machine's apt configuration, wanted for suite %s", suite)
	}
	return fmt.Sprintf("deb [signed-by=%s] %s %s main\n", a.keyring, uri, suite), nil
}
