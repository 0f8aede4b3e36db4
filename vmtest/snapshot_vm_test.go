// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSiblingsDiffer restores one snapshot twice.
func TestSiblingsDiffer(t *testing.T) {
	testKernel(t)
	random := map[string]bool{}
	for range 2 {
		res, err := runTest(t, script(t, `
od -An -N16 -tx1 /dev/urandom | tr -d ' '
date +%s
cut -d' ' -f1 /proc/uptime
ls /tmp/mine 2> /dev/null
touch /tmp/mine
`))
		require.NoError(t, err)
		require.Equal(t, Pass, res.Verdict, output(t, res))
		lines := strings.Fields(output(t, res))
		require.NotEmpty(t, lines)
		require.False(t, random[lines[0]], "both have the same random numbers to come")
		random[lines[0]] = true
		now, err := strconv.ParseInt(lines[1], 10, 64)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), time.Unix(now, 0), time.Minute)
		// The memory of one is nothing to the other.
		require.Len(t, lines, 3)
	}
}

// TestSnapshotKeepsTheBootLog wants a warning of the boot to be found in every
// machine that is restored from it.
func TestSnapshotKeepsTheBootLog(t *testing.T) {
	testKernel(t)
	for range 2 {
		res, err := runTest(t, script(t, "true"))
		require.NoError(t, err)
		console, err := os.ReadFile(filepath.Join(filepath.Dir(res.Log), ConsoleFile))
		require.NoError(t, err)
		require.Contains(t, string(console), "Linux version")
		require.Contains(t, string(console), "Command line")
	}
}
