// SPDX-License-Identifier: GPL-2.0-only

// Garble takes the agent's port out of init and writes nonsense to it: what a
// guest gone wrong may do. A port can be opened once only, hence the theft.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	fds, err := os.ReadDir("/proc/1/fd")
	check(err)
	for _, e := range fds {
		to, _ := os.Readlink("/proc/1/fd/" + e.Name())
		if !strings.HasPrefix(to, "/dev/vport") {
			continue
		}
		n, err := strconv.Atoi(e.Name())
		check(err)
		pidfd, err := unix.PidfdOpen(1, 0)
		check(err)
		fd, err := unix.PidfdGetfd(pidfd, n, 0)
		check(err)
		_, err = unix.Write(fd, []byte(strings.Repeat("this is no frame ", 10)))
		check(err)
		return
	}
	check(fmt.Errorf("init has no port open"))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
