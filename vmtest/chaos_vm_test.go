// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestChaos kills QEMUs at random moments of tests whose verdicts are known: each
// comes out right, or as the harness's fault.
func TestChaos(t *testing.T) {
	k := testKernel(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NFTVM_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("NFTVM_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	e := engine(t)
	cases := []struct {
		body string
		want Verdict
	}{
		{"echo 1..1; echo ok 1 fine", Pass},
		{"echo 1..2; echo ok 1 fine; echo not ok 2 broken; exit 1", Fail},
		{"ip netns add forgotten", Leak},
		{"echo c > /proc/sysrq-trigger", Crash},
		{"exit 4", Skip},
	}
	one := func(i int) (Result, error) {
		tst := script(t, cases[i].body)
		return e.Run(t.Context(), k, tst, t.TempDir())
	}
	// How long it takes when nobody disturbs it.
	start := time.Now()
	for i := range cases {
		res, err := one(i)
		require.NoError(t, err)
		require.Equal(t, cases[i].want, res.Verdict, res.Reason)
	}
	usual := time.Since(start) / time.Duration(len(cases))

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killed := 0
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rnd.Int64N(int64(usual)))):
			}
			if pids := children(t); len(pids) > 0 {
				if unix.Kill(pids[rnd.IntN(len(pids))], unix.SIGKILL) == nil {
					killed++
				}
			}
		}
	})
	right, died := 0, 0
	const rounds = 8
	for i := range rounds * len(cases) {
		res, err := one(i % len(cases))
		if err == nil {
			require.Equal(t, cases[i%len(cases)].want, res.Verdict, res.Reason)
			right++
			continue
		}
		var ie *InfraError
		require.True(t, errors.As(err, &ie), "%v", err)
		require.Contains(t, []string{KindDied, KindStart}, ie.Kind, "%v", err)
		died++
	}
	close(stop)
	killer.Wait()
	t.Logf("%d killed: %d verdicts, all right, and %d faults of the harness", killed, right, died)
	require.Positive(t, right)
	require.Positive(t, died)
	require.Empty(t, children(t))
}
