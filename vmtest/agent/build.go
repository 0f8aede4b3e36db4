// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

// The init's source travels inside the harness, so that an installed binary
// can build images as well as a clone can. It needs the standard library only.
//
//go:embed wire/*.go guest/*.go init/*.go
var source embed.FS

const (
	modulePath = "github.com/kmod-nft-offload/kmod-nft-offload"
	sourceDir  = "vmtest/agent"
)

// buildFlags and buildEnv make a small static binary that runs on the plainest
// x86-64 and is the same whoever builds it.
var (
	buildFlags = []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="}
	buildEnv   = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GO111MODULE=on",
		"GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off", "GOTOOLCHAIN=local", "GOEXPERIMENT="}
)

// HashInit adds what the init is built from to a key: its source, the flags,
// and the compiler's version.
func HashInit(ctx context.Context, k *store.Hasher) error {
	version, err := goCommand(ctx, "", "env", "GOVERSION")
	if err != nil {
		return err
	}
	k.Str("init.go", strings.TrimSpace(version)).
		Str("init.flags", strings.Join(append(buildFlags, buildEnv...), " "))
	return eachSource(func(path string, content []byte) error {
		k.Str("init:"+path, string(content))
		return nil
	})
}

// BuildInit compiles the guest's init to out.
func BuildInit(ctx context.Context, out string, log io.Writer) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nftvm-init-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = eachSource(func(path string, content []byte) error {
		dst := filepath.Join(dir, sourceDir, path)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		return os.WriteFile(dst, content, 0o644)
	})
	if err != nil {
		return err
	}
	mod := "module " + modulePath + "\n\ngo 1.24\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
		return err
	}
	text, err := goCommand(ctx, dir, append(append([]string{}, buildFlags...), "-o", out, "./"+sourceDir+"/init")...)
	if _, werr := io.WriteString(log, text); err == nil {
		err = werr
	}
	return err
}

// BuildTool compiles a program of the harness's own module in dir to out, the
// same way as the init.
func BuildTool(ctx context.Context, dir, pkg, out string) error {
	text, err := goCommand(ctx, dir, append(append([]string{}, buildFlags...), "-o", out, pkg)...)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", pkg, err, text)
	}
	return nil
}

func eachSource(fn func(path string, content []byte) error) error {
	return fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := source.ReadFile(path)
		if err != nil {
			return err
		}
		return fn(path, content)
	})
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), buildEnv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), fmt.Errorf("go %s: %w\n%s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String() + stderr.String(), nil
}
