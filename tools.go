//go:build tools

package tools

import (
	_ "github.com/bluekeyes/go-gitdiff/gitdiff"
	_ "github.com/digitalocean/go-qemu/qmp"
	_ "github.com/gofrs/flock"
	_ "github.com/hashicorp/go-version"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/stretchr/testify/require"
	_ "github.com/u-root/mkuimage/cpio"
	_ "github.com/u-root/u-root/pkg/ldd"
	_ "github.com/goccy/go-yaml"
	_ "github.com/vbauerster/mpb/v8"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "github.com/klauspost/compress/zstd"
)
