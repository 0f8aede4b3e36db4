// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

func hasWord(line, word string) bool { return slices.Contains(strings.Fields(line), word) }

// shell gives whoever booted the machine by hand a prompt on its console; the
// machine ends with it.
func shell() {
	console, err := os.OpenFile("/dev/hvc0", os.O_RDWR, 0)
	if err != nil {
		die("no console for a shell: " + err.Error())
	}
	cmd := exec.Command("bash", "-i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.Env = append(os.Environ(), "TERM=vt220", "PS1=nftvm:\\w# ")
	// Job control needs a controlling terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Run(); err != nil {
		_ = kmsg(4, "nftvm-init: shell: "+err.Error())
	}
	powerOff()
}
