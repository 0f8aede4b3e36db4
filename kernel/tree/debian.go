// SPDX-License-Identifier: GPL-2.0-only

package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
	"github.com/kmod-nft-offload/kmod-nft-offload/kernel/internal/proc"
)

const packagePrefix = "linux-source-"

// retryAfter is how long a mirror that did not answer is left alone while an
// older index serves.
const retryAfter = time.Hour

// pin is what a suite's index last said of a package. It spares apt, and the
// network, to every run until it is MaxIndexAge old.
type pin struct {
	Package string    `json:"package"`
	Version string    `json:"version"`
	Suite   string    `json:"suite"`
	SHA256  string    `json:"sha256"`
	Checked time.Time `json:"checked"`
	// Failed is when the mirror last did not answer, zero when it did.
	Failed time.Time `json:"failed,omitzero"`
}

func (p *pin) serves(d *Debian) bool {
	return p != nil && p.Package == d.Package && p.SHA256 != "" &&
		(d.Version == "" || d.Version == p.Version) && (d.SHA256 == "" || d.SHA256 == p.SHA256)
}

// fresh tells whether the pin needs no look at the mirror. A pinned version
// never gets stale: nothing newer is wanted.
func (p *pin) fresh(d *Debian, now time.Time) bool {
	return p.serves(d) && (d.Version != "" || now.Sub(p.Checked) < MaxIndexAge || now.Sub(p.Failed) < retryAfter)
}

func readPin(path string) *pin {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	p := &pin{}
	if json.Unmarshal(raw, p) != nil {
		return nil // written by nobody we know: ask the mirror again
	}
	return p
}

func (p *pin) write(path string) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (f *Fetcher) resolveDebian(ctx context.Context, t Tree) (*resolved, error) {
	d := t.Debian
	name := strings.ReplaceAll(strings.Join(d.Suites, "+"), "/", "_")
	a := &apt{root: filepath.Join(f.Store.Dir(), "apt", name), suites: d.Suites, archive: f.archive}
	pinPath := filepath.Join(a.root, d.Package+".json")

	p := readPin(pinPath)
	if f.Refresh || !p.fresh(d, time.Now()) {
		var err error
		if p, err = f.repin(ctx, a, d, pinPath); err != nil {
			return nil, err
		}
	}
	o := Origin{Kind: "debian", Suite: p.Suite, Package: p.Package, Version: p.Version, SHA256: p.SHA256}
	return &resolved{origin: o, key: keyOf(o), fetch: func(ctx context.Context, dir string, log io.Writer) error {
		unlock, err := f.Store.Lock(ctx, "apt-"+name)
		if err != nil {
			return err
		}
		deb, err := a.download(ctx, p, dir, log)
		unlock()
		if err != nil {
			return err
		}
		return unpackDeb(ctx, deb, p.SHA256, dir, log)
	}}, nil
}

// repin asks the mirror what it has. When it does not answer, an older pin
// serves, unless the user asked for a refresh.
func (f *Fetcher) repin(ctx context.Context, a *apt, d *Debian, pinPath string) (*pin, error) {
	unlock, err := f.Store.Lock(ctx, "apt-"+filepath.Base(a.root))
	if err != nil {
		return nil, err
	}
	defer unlock()
	old := readPin(pinPath)
	if !f.Refresh && old.fresh(d, time.Now()) {
		return old, nil // another process was here while we waited
	}
	if err := a.open(); err != nil {
		return f.fallback(old, d, err, pinPath)
	}
	defer a.close()
	if err := a.update(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return f.fallback(old, d, err, pinPath)
	}
	p, err := a.find(ctx, d)
	if err != nil {
		return nil, err
	}
	p.Checked = time.Now().UTC()
	return p, p.write(pinPath)
}

func (f *Fetcher) fallback(old *pin, d *Debian, why error, pinPath string) (*pin, error) {
	if f.Refresh || !old.serves(d) {
		return nil, why
	}
	f.warn("using %s %s as of %s, because: %v", old.Package, old.Version, old.Checked.Format(time.DateOnly), why)
	old.Failed = time.Now().UTC()
	return old, old.write(pinPath)
}

// apt is apt-get with a state of its own below root: no file of the system's
// apt is written, and of its configuration only the mirror's address and the
// Acquire settings (proxies, timeouts) are taken over.
type apt struct {
	root    string
	suites  []string
	archive *archive

	log *os.File
}

func (a *apt) logPath() string { return filepath.Join(a.root, "apt.log") }

// open writes the configuration.
func (a *apt) open() error {
	if a.archive == nil {
		m, err := machineArchive("/etc/apt")
		if err != nil {
			return err
		}
		a.archive = m
	}
	if _, err := os.Stat(a.archive.keyring); err != nil {
		return fmt.Errorf("no archive keyring of Debian: %w; apt-get install debian-archive-keyring", err)
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "parts", "sources.d"} {
		if err := os.MkdirAll(filepath.Join(a.root, d), 0o755); err != nil {
			return err
		}
	}
	var lines strings.Builder
	for _, s := range a.suites {
		l, err := a.archive.line(s)
		if err != nil {
			return err
		}
		lines.WriteString(l)
	}
	for name, content := range map[string]string{
		"status": "", "preferences": "", "sources.list": lines.String(), "apt.conf": a.conf(),
	} {
		if err := os.WriteFile(filepath.Join(a.root, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	log, err := os.Create(a.logPath())
	if err != nil {
		return err
	}
	a.log = log
	return nil
}

func (a *apt) close() { a.log.Close() }

func (a *apt) conf() string {
	var b strings.Builder
	// The machine's proxies and timeouts; its other settings, such as hooks
	// that clean the system's cache, are none of our business.
	out, err := proc.Output(context.Background(), proc.Cmd{Args: []string{"apt-config", "dump", "Acquire"}})
	if err == nil {
		b.Write(out)
	}
	for _, kv := range [][2]string{
		{"Dir::State", a.root},
		{"Dir::State::lists", a.root + "/lists"},
		{"Dir::State::status", a.root + "/status"},
		{"Dir::State::extended_states", a.root + "/extended_states"},
		{"Dir::Cache", a.root + "/cache"},
		{"Dir::Etc::main", "/dev/null"},
		{"Dir::Etc::parts", a.root + "/parts"},
		{"Dir::Etc::sourcelist", a.root + "/sources.list"},
		{"Dir::Etc::sourceparts", a.root + "/sources.d"},
		{"Dir::Etc::preferences", a.root + "/preferences"},
		{"Dir::Etc::preferencesparts", a.root + "/parts"},
		{"Dir::Log", a.root},
		// The store may be where the user _apt cannot read.
		{"APT::Sandbox::User", "root"},
		// A suite that could not be had is an error, not a warning.
		{"APT::Update::Error-Mode", "any"},
		{"Acquire::Languages", "none"},
		{"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"},
		{"Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled", "false"},
		{"Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled", "false"},
		{"Acquire::IndexTargets::deb::CNF::DefaultEnabled", "false"},
		{"Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false"},
		{"Acquire::http::Timeout", "30"},
		{"Acquire::https::Timeout", "30"},
		{"Acquire::Retries", "2"},
	} {
		fmt.Fprintf(&b, "%s \"%s\";\n", kv[0], kv[1])
	}
	b.WriteString("#clear APT::Architectures;\nAPT::Architectures { \"amd64\"; };\n")
	return b.String()
}

func (a *apt) cmd(args ...string) proc.Cmd {
	return proc.Cmd{
		Args: args,
		Env: []string{
			"APT_CONFIG=" + filepath.Join(a.root, "apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
		},
		Log: a.log,
	}
}

func (a *apt) update(ctx context.Context) error {
	out, err := proc.Output(ctx, a.cmd("apt-get", "-q", "update"))
	_, _ = a.log.Write(out)
	if err == nil || ctx.Err() != nil {
		return err
	}
	var missing *proc.MissingError
	if errors.As(err, &missing) {
		return fmt.Errorf("%w; or give the tree in configs/trees.yaml a dir: origin", err)
	}
	return fmt.Errorf("no package index for %s from %s: %s (log: %s)",
		strings.Join(a.suites, ", "), a.mirrors(), aptSays(err.Error()+"\n"+string(out)), a.logPath())
}

func (a *apt) mirrors() string {
	if a.archive.security != "" && securityRE.MatchString(strings.Join(a.suites, " ")) {
		return a.archive.security
	}
	return a.archive.main
}

// aptSays picks the first thing apt complains of.
func aptSays(out string) string {
	for _, prefix := range []string{"E: ", "W: ", "Err:"} {
		for _, line := range strings.Split(out, "\n") {
			if i := strings.Index(line, prefix); i >= 0 {
				return strings.TrimSpace(strings.TrimPrefix(line[i:], prefix))
			}
		}
	}
	return strings.TrimSpace(out)
}

// offer is one linux-source package that the suites have.
type offer struct{ pkg, version, suite string }

// offers lists what the suites have, newest version of each package first.
func (a *apt) offers(ctx context.Context, pkgs ...string) ([]offer, error) {
	if len(pkgs) == 0 {
		out, err := proc.Output(ctx, a.cmd("apt-cache", "pkgnames", packagePrefix))
		if err != nil {
			return nil, err
		}
		if pkgs = strings.Fields(string(out)); len(pkgs) == 0 {
			return nil, nil
		}
	}
	out, err := proc.Output(ctx, a.cmd(append([]string{"apt-cache", "madison"}, pkgs...)...))
	if err != nil {
		return nil, err
	}
	var list []offer
	for _, line := range strings.Split(string(out), "\n") {
		// name | version | mirror suite/component arch Packages
		f := strings.Split(line, "|")
		if len(f) != 3 {
			continue
		}
		o := offer{pkg: strings.TrimSpace(f[0]), version: strings.TrimSpace(f[1])}
		if where := strings.Fields(f[2]); len(where) >= 2 && where[len(where)-1] == "Packages" {
			o.suite = strings.TrimSuffix(where[1], "/main")
			list = append(list, o)
		}
	}
	return list, nil
}

// find pins down the wanted version, or the newest.
func (a *apt) find(ctx context.Context, d *Debian) (*pin, error) {
	have, err := a.offers(ctx, d.Package)
	if err != nil {
		return nil, err
	}
	var hit *offer
	for i := range have {
		if have[i].pkg == d.Package && (d.Version == "" || have[i].version == d.Version) {
			hit = &have[i]
			break
		}
	}
	if hit == nil {
		return nil, a.movedOn(ctx, d)
	}
	out, err := proc.Output(ctx, a.cmd("apt-cache", "show", hit.pkg+"="+hit.version))
	if err != nil {
		return nil, err
	}
	for _, st := range stanzas(string(out)) {
		if st["package"] != hit.pkg || st["version"] != hit.version {
			continue
		}
		if d.SHA256 != "" && st["sha256"] != d.SHA256 {
			return nil, fmt.Errorf("%s %s has sha256 %s in the index of %s, configs/trees.yaml wants %s",
				hit.pkg, hit.version, st["sha256"], hit.suite, d.SHA256)
		}
		if sha256RE.MatchString(st["sha256"]) {
			return &pin{Package: hit.pkg, Version: hit.version, Suite: hit.suite, SHA256: st["sha256"]}, nil
		}
	}
	return nil, fmt.Errorf("the index of %s gives no SHA256 for %s %s", hit.suite, hit.pkg, hit.version)
}

// OfferError says that a suite has not what a tree wants, and what it has.
type OfferError struct {
	Want   string
	Suites []string
	Has    []string
}

func (e *OfferError) Error() string {
	has := "no " + packagePrefix + "* at all"
	if len(e.Has) > 0 {
		has = strings.Join(e.Has, ", ")
	}
	return fmt.Sprintf("%s has no %s; it offers: %s", strings.Join(e.Suites, ", "), e.Want, has)
}

func (a *apt) movedOn(ctx context.Context, d *Debian) error {
	all, err := a.offers(ctx)
	if err != nil {
		return err
	}
	e := &OfferError{Want: strings.TrimSpace(d.Package + " " + d.Version), Suites: a.suites}
	for _, o := range all {
		e.Has = append(e.Has, o.pkg+" "+o.version)
	}
	return e
}

// download fetches exactly the pinned version into dir.
func (a *apt) download(ctx context.Context, p *pin, dir string, log io.Writer) (string, error) {
	if err := a.open(); err != nil {
		return "", err
	}
	defer a.close()
	c := a.cmd("apt-get", "-q", "download", p.Package+"="+p.Version)
	c.Dir, c.Log = dir, log
	out, err := proc.Output(ctx, c)
	_, _ = log.Write(out)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return "", fmt.Errorf("cannot get %s %s from %s: %s", p.Package, p.Version, a.mirrors(), aptSays(err.Error()+"\n"+string(out)))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages, wanted one", len(debs))
	}
	return debs[0], nil
}

// ChecksumError says that a package is not the one that the signed index
// describes.
type ChecksumError struct{ File, Got, Want string }

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s has sha256 %s, the signed index says %s: refused and removed; the next run fetches it again",
		filepath.Base(e.File), e.Got, e.Want)
}

// unpackDeb checks a linux-source package and unpacks the kernel in it below
// dir. The package itself is removed in any case.
func unpackDeb(ctx context.Context, deb, sum, dir string, log io.Writer) error {
	defer os.Remove(deb)
	got, err := store.FileSum(deb)
	if err != nil {
		return err
	}
	if got != sum {
		return &ChecksumError{File: deb, Got: got, Want: sum}
	}
	logf(log, "%s: sha256 %s as in the signed index", filepath.Base(deb), got)
	dst := filepath.Join(dir, treeDir)
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	// The kernel is an xz'ed tar inside the package's own tar: three tools in
	// a pipe read the 160 MB once and write nothing but the tree.
	const pipe = `set -o pipefail
dpkg-deb --fsys-tarfile "$1" |
tar -xO --wildcards -f - './usr/src/linux-source-*.tar.xz' |
xz -dc -T0 |
tar -x --strip-components=1 --no-same-owner --no-same-permissions -C "$2" -f -`
	for _, tool := range []string{"dpkg-deb", "tar", "xz"} {
		if err := proc.Have(tool); err != nil {
			return err
		}
	}
	if err := proc.Run(ctx, proc.Cmd{Args: []string{"bash", "-c", pipe, "unpack", deb, dst}, Log: log}); err != nil {
		return fmt.Errorf("cannot unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}
