// SPDX-License-Identifier: GPL-2.0-only

package qemu

import (
	"os"
	"slices"
	"strings"
)

// onTerminal is the console of a machine that somebody boots by hand.
type onTerminal struct{}

func (onTerminal) args(func(*os.File) string) []string {
	return []string{"-device", "virtio-serial-device,id=serial",
		"-chardev", "stdio,id=console,mux=on,signal=off",
		"-device", "virtconsole,chardev=console,bus=serial.0,nr=0",
		"-mon", "chardev=console,mode=readline"}
}
func (onTerminal) kargs() []string { return []string{"console=hvc0"} }

// byHand tells init that no harness is there, so it offers a shell.
type byHand struct{}

func (byHand) args(func(*os.File) string) []string { return nil }
func (byHand) kargs() []string                     { return []string{"nftvm.shell"} }

// printable is the command for the machine of o on a terminal.
func (o Options) printable() []string {
	devices := slices.Concat(o.board(), []device{directBoot{o.Kernel, o.Initrd}}, o.guest(),
		[]device{onTerminal{}, byHand{}, extraArgs(o.Append)})
	words := append([]string{o.Host.Binary}, nameAndArgs(devices, nil)...)
	for i, w := range words {
		words[i] = Quote(w)
	}
	return words
}

// Quote makes one shell word of s.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("-_./,=:+@%^~", r)
	}
	if s != "" && s[0] != '~' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
