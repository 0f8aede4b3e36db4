// SPDX-License-Identifier: GPL-2.0-only

package kmake

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kmod-nft-offload/kmod-nft-offload/internal/store"
)

func failed(t *testing.T) error {
	t.Helper()
	return exec.Command("false").Run()
}

func TestBuildErrorShowsTheCompilersMessage(t *testing.T) {
	for name, c := range map[string]struct{ log, want string }{
		"compiler": {`  CC [M]  net/netfilter/nft_ct.o
In file included from /s/src/include/net/x.h:3,
                 from /s/src/net/netfilter/nft_offload.c:9:
/s/src/net/netfilter/nft_offload.c: In function 'nft_offload_init':
/s/src/net/netfilter/nft_offload.c:12:9: error: 'foo' undeclared (first use in this function)
   12 |  return foo;
      |         ^~~
/s/src/net/netfilter/nft_offload.c:12:9: note: each undeclared identifier is reported only once
make[4]: *** [/s/src/scripts/Makefile.build:287: net/netfilter/nft_offload.o] Error 1
make[3]: *** [net/netfilter] Error 2
`, `make failed
  In file included from include/net/x.h:3,
                   from net/netfilter/nft_offload.c:9:
  net/netfilter/nft_offload.c: In function 'nft_offload_init':
  net/netfilter/nft_offload.c:12:9: error: 'foo' undeclared (first use in this function)
     12 |  return foo;
        |         ^~~`},
		"linker": {
			"ld: vmlinux.o: in function `f':\nnet/core/dev.c:(.text+0x1): undefined reference to `missing_one'\nmake[2]: *** [vmlinux] Error 1\n",
			"undefined reference to `missing_one'",
		},
		"modpost": {
			"ERROR: modpost: \"nft_offload_x\" [net/netfilter/nft_offload.ko] undefined!\nmake: *** [modpost] Error 1\n",
			`ERROR: modpost: "nft_offload_x" [net/netfilter/nft_offload.ko] undefined!`,
		},
		"rule": {
			"make[3]: *** No rule to make target 'net/netfilter/gone.o', needed by 'net/netfilter/built-in.a'.  Stop.\n",
			"No rule to make target 'net/netfilter/gone.o'",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := explain(t.Context(), failed(t), "make", c.log, &Make{Src: "/s/src"})
			require.Equal(t, store.Kernel, store.FaultOf(err))
			require.Contains(t, err.Error(), c.want)
		})
	}
}

func TestBuildErrorOfTheMachine(t *testing.T) {
	m := &Make{Src: "/s/src"}
	err := explain(t.Context(), failed(t), "make", "fatal error: error writing to /tmp/x.s: No space left on device\n", m)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, store.Harness, store.FaultOf(err))

	err = explain(t.Context(), failed(t), "make", "gcc: fatal error: Killed signal terminated program cc1\n", m)
	require.Equal(t, store.Harness, store.FaultOf(err))
	require.ErrorContains(t, err, "Killed signal")

	err = explain(t.Context(), failed(t), "make", "/s/src/certs/extract-cert.c:21:10: fatal error: openssl/bio.h: No such file or directory\n", m)
	require.Equal(t, store.Harness, store.FaultOf(err))
	require.ErrorContains(t, err, "openssl/bio.h")

	// Somebody else ended it, as the OOM killer does.
	for _, how := range []string{"Terminated", "Killed"} {
		err = explain(t.Context(), failed(t), "make", "  CC      a.o\n"+how+"\nmake[4]: *** [scripts/Makefile.build:234: a.o] "+how+"\n", m)
		require.Equal(t, store.Harness, store.FaultOf(err))
		require.ErrorContains(t, err, "make failed for a reason of this machine: make[4]: *** ")
	}

	err = explain(t.Context(), exec.Command("sh", "-c", "kill -9 $$").Run(), "make", "a.c:1:1: error: half a mess", m)
	require.Equal(t, store.Harness, store.FaultOf(err))
	require.ErrorContains(t, err, "make was ended from outside: signal: killed")
	err = explain(t.Context(), failed(t), "make", "/bin/sh: 1: bc: not found\n", m)
	require.Equal(t, store.Harness, store.FaultOf(err))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, explain(ctx, context.Canceled, "make", "x.c:1:1: error: y\n", m), context.Canceled)
	gone := errors.New("no make")
	require.ErrorIs(t, explain(t.Context(), gone, "make", "", m), gone)
}

func TestManyErrorsAreCut(t *testing.T) {
	log := strings.Repeat("a.c:1:1: error: one\na.c:2:1: error: two\na.c:3:1: error: three\na.c:4:1: error: four\n", 2)
	err := explain(t.Context(), failed(t), "make", log, &Make{Src: "/s"})
	require.Equal(t, "make failed\n  a.c:1:1: error: one\n  a.c:2:1: error: two\n  a.c:3:1: error: three\n  ... and 1 more", err.Error())
}
