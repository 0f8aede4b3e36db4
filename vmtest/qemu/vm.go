// SPDX-License-Identifier: GPL-2.0-only

// Package qemu starts one guest, says how it ended, and never leaves a QEMU
// behind.
package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

const (
	// monitorWait is how long QEMU may take to greet on its monitor.
	monitorWait = 20 * time.Second
	// stderrLimit is how much of QEMU's own complaints is kept.
	stderrLimit = 16 << 10
	// consoleBuffer is asked for on the console's socket: QEMU drops what
	// does not fit, because a console must not stall the guest.
	consoleBuffer = 4 << 20
)

// Options says what to boot. The zero value of a field means its default.
type Options struct {
	Host   *Host
	Accel  Accel
	Kernel string   // bzImage, or a vmlinux with a PVH note
	Initrd string   // cpio, compressed as the kernel likes
	Append []string // further kernel parameters
	Memory int      // MiB, 256
	CPUs   int      // 1
	// ICount lets the guest's clock go by instructions, 2^ICount ns each,
	// and skip what it idles, instead of by the host's; 0 is the host's.
	// TCG only.
	ICount int
	// Console gets what the kernel says. It is written to by one goroutine
	// at a time and must not block for long.
	Console io.Writer
	// EarlyConsole adds the messages from before the console proper. It
	// costs about half a second.
	EarlyConsole bool
	// RAM is a file that holds the guest's memory, for a machine that is to
	// be saved or restored; "" is memory of its own.
	RAM string
	// State is what Save wrote of the same machine, with RAM beside it. The
	// guest goes on where it was, and writes to a copy of RAM. Without RAM
	// its memory is in State, too.
	State string
	// Shared has the guest write to RAM itself, so that Save leaves its
	// memory there once more.
	Shared bool
}

// board is what every machine of o is built on, and guest what its kernel gets to
// know besides its consoles.
func (o Options) board() []device {
	return []device{noExtras{}, microvm{o.Accel}, size{o.Memory, o.CPUs}}
}

func (o Options) guest() []device {
	return []device{exitOnPanic{}, steadyClock{o.Accel, o.CPUs, o.ICount}, sameAddresses{o.Accel}}
}

// Machine is all of o that a saved machine depends on, but for the files.
func (o Options) Machine() string {
	return strings.Join(nameAndArgs(slices.Concat(o.board(), o.guest(), []device{extraArgs(o.Append)}), nil), " ")
}

// ExitKind says how a machine ended.
type ExitKind string

// The ends of a machine.
const (
	Reset    ExitKind = "reset"    // the guest restarted: by itself, or because it panicked
	Shutdown ExitKind = "shutdown" // the guest switched itself off
	Killed   ExitKind = "killed"   // we ended it
	Died     ExitKind = "died"     // QEMU ended and nobody had asked it to
)

// Exit is the end of a machine.
type Exit struct {
	Kind   ExitKind
	Status string // of the process
	Stderr string // QEMU's own words
}

// String is a clause for an error message.
func (e Exit) String() string {
	s := "QEMU " + string(e.Kind) + " (" + e.Status + ")"
	if e.Kind == Reset || e.Kind == Shutdown {
		s = "guest " + string(e.Kind)
	}
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}

// VM is a machine that was started.
type VM struct {
	// Agent is the channel to the guest's init.
	Agent net.Conn
	// Started is when QEMU was executed.
	Started time.Time

	cmd     *exec.Cmd
	mon     *qmp.SocketMonitor
	console net.Conn
	args    []string

	mu       sync.Mutex
	killed   bool
	shutdown string // reason of QMP's SHUTDOWN event

	monDone  chan struct{}
	readers  sync.WaitGroup
	done     chan struct{}
	exit     Exit
	migrated chan string // how a migration ended
}

// Start boots a machine. It lives until it ends by itself, Kill is called, or
// ctx ends.
func Start(ctx context.Context, o Options) (*VM, error) {
	if o.Host == nil {
		h, err := Probe(ctx, "")
		if err != nil {
			return nil, err
		}
		o.Host = h
	}
	if o.Accel == "" {
		o.Accel = TCG
	}
	if o.Memory == 0 {
		o.Memory = 256
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if o.Console == nil {
		o.Console = io.Discard
	}
	v := &VM{monDone: make(chan struct{}), done: make(chan struct{}), migrated: make(chan string, 1)}
	if err := v.start(ctx, o); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *VM) start(ctx context.Context, o Options) (err error) {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	pair := func(buffer int) (net.Conn, error) {
		ours, f, err := socketpair(buffer)
		if err == nil {
			theirs = append(theirs, f)
		}
		return ours, err
	}
	defer func() {
		if err != nil {
			v.closeConns()
		}
	}()

	if v.Agent, err = pair(0); err != nil {
		return err
	}
	agent := theirs[len(theirs)-1]
	if v.console, err = pair(consoleBuffer); err != nil {
		return err
	}
	console := theirs[len(theirs)-1]
	sock, dir, listener, err := listen()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	theirs = append(theirs, listener)

	// Not CommandContext: the end of ctx has to pass through Kill, so that
	// the machine's end is told from a QEMU that died.
	cmd := exec.Command(o.Host.Binary)
	fd := func(f *os.File) string {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return fmt.Sprint(2 + len(cmd.ExtraFiles))
	}
	v.args = o.printable()
	// A machine that is made to be saved writes to RAM itself.
	shared := o.State == "" || o.Shared
	user := o.Host.credential(o.Accel, o.Kernel, o.Initrd)
	if user != nil {
		for _, path := range []*string{&o.Kernel, &o.Initrd, &o.RAM} {
			if *path == "" {
				continue
			}
			var f *os.File
			if path == &o.RAM {
				f, err = memoryOf(*path, user, shared)
			} else {
				f, err = os.Open(*path)
			}
			if err != nil {
				return err
			}
			theirs = append(theirs, f)
			*path = "/proc/self/fd/" + fd(f)
		}
	}

	devices := o.board()
	if o.RAM != "" {
		devices = append(devices, memoryFile{o.RAM, o.Memory, shared})
	} else {
		devices = append(devices, ownMemory{o.Memory})
	}
	if o.State != "" {
		devices = append(devices, incoming{})
	}
	devices = slices.Concat(devices, []device{directBoot{o.Kernel, o.Initrd}}, o.guest(),
		[]device{kernelConsole{console}, agentPort{agent}, monitor{listener}})
	var early net.Conn
	if o.EarlyConsole {
		if early, err = pair(consoleBuffer); err != nil {
			return err
		}
		devices = append(devices, earlyConsole{theirs[len(theirs)-1]})
	}
	if o.Host.Sandbox {
		devices = append(devices, sandbox{})
	}
	devices = append(devices, extraArgs(o.Append))

	cmd.Args = append(cmd.Args, nameAndArgs(devices, fd)...)
	stderr := &tail{max: stderrLimit}
	cmd.Stderr = stderr
	// Its own process group, or a terminal's Ctrl-C would reach it before us
	// and look like a QEMU that died.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: user}
	v.cmd = cmd
	v.Started = time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", o.Host.Binary, err)
	}
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil

	sink := &lockedWriter{w: o.Console}
	v.copyConsole(sink, v.console)
	if early != nil {
		v.copyConsole(sink, early)
	}
	go v.wait(stderr)
	context.AfterFunc(ctx, v.Kill)

	if err := v.connect(sock); err != nil {
		v.Kill()
		<-v.done
		if v.exit.Kind == Died || v.exit.Stderr != "" {
			return fmt.Errorf("%s; command: %s", v.exit, v.Cmdline())
		}
		return fmt.Errorf("QEMU's monitor: %w", err)
	}
	if o.State == "" {
		return nil
	}
	if err := v.load(ctx, o.State); err != nil {
		// A QEMU that does not take it says so, and ends.
		select {
		case <-v.done:
		case <-time.After(lastWords):
		}
		exit := v.Close()
		if strings.Contains(exit.Stderr, "load of migration failed") {
			err = fmt.Errorf("%w: %w", ErrState, err)
		}
		return fmt.Errorf("%w: %s; command: %s", err, exit, v.Cmdline())
	}
	return nil
}

// connect takes up the monitor, with a deadline that go-qemu does not have.
func (v *VM) connect(sock string) error {
	result := make(chan error, 1)
	go func() {
		mon, err := qmp.NewSocketMonitor("unix", sock, monitorWait)
		if err != nil {
			close(v.monDone)
			result <- err
			return
		}
		if err := mon.Connect(); err != nil {
			close(v.monDone)
			result <- err
			return
		}
		events, err := mon.Events(context.Background())
		if err != nil {
			close(v.monDone)
			result <- err
			return
		}
		v.mon = mon
		go v.watch(events)
		result <- nil
	}()
	select {
	case err := <-result:
		return err
	case <-v.done:
		return errors.New("QEMU ended before its monitor was up")
	case <-time.After(monitorWait):
		return fmt.Errorf("no greeting within %v", monitorWait)
	}
}

func (v *VM) watch(events <-chan qmp.Event) {
	defer close(v.monDone)
	for e := range events {
		if e.Event == "MIGRATION" {
			v.migration(e)
		}
		if e.Event != "SHUTDOWN" {
			continue
		}
		reason, _ := e.Data["reason"].(string)
		v.mu.Lock()
		if v.shutdown == "" {
			v.shutdown = reason
		}
		v.mu.Unlock()
	}
}

// copyConsole passes on what comes from conn until it ends.
func (v *VM) copyConsole(w io.Writer, conn net.Conn) {
	v.readers.Add(1)
	go func() {
		defer v.readers.Done()
		_, _ = io.Copy(w, conn)
		_ = conn.Close()
	}()
}

// wait collects everything about the machine's end.
func (v *VM) wait(stderr *tail) {
	err := v.cmd.Wait()
	// The console's last words are still in the socket.
	v.readers.Wait()
	// The event that says why may be in the monitor's socket, too.
	select {
	case <-v.monDone:
	case <-time.After(time.Second):
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	status := "exit status 0"
	if err != nil {
		status = err.Error()
	}
	byKill := false
	if ws, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		byKill = v.killed && ws.Signaled() && ws.Signal() == syscall.SIGKILL
	}
	v.exit = Exit{Status: status, Stderr: strings.TrimSpace(stderr.String())}
	switch {
	case v.shutdown == "guest-reset" || v.shutdown == "guest-panic":
		v.exit.Kind = Reset
	case v.shutdown == "guest-shutdown":
		v.exit.Kind = Shutdown
	case byKill:
		v.exit.Kind = Killed
	default:
		v.exit.Kind = Died
	}
	close(v.done)
}

// Done is closed when QEMU has ended and the console is complete.
func (v *VM) Done() <-chan struct{} { return v.done }

// Exit says how the machine ended; only after Done.
func (v *VM) Exit() Exit { return v.exit }

// Pid is QEMU's process id.
func (v *VM) Pid() int { return v.cmd.Process.Pid }

// Kill ends QEMU at once. It does not wait.
func (v *VM) Kill() {
	v.mu.Lock()
	v.killed = true
	v.mu.Unlock()
	select {
	case <-v.done:
	default:
		_ = v.cmd.Process.Kill() // it has no children: the sandbox denies them
	}
}

// Close kills QEMU if it still runs, waits for its end and frees everything.
func (v *VM) Close() Exit {
	v.Kill()
	<-v.done
	if v.mon != nil {
		_ = v.mon.Disconnect()
	}
	v.closeConns()
	return v.exit
}

func (v *VM) closeConns() {
	for _, c := range []net.Conn{v.Agent, v.console} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// SysRq has the kernel do a sysrq command by way of its console, which works
// when no process runs any more, as long as interrupts do.
func (v *VM) SysRq(key byte) error {
	if err := v.console.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := v.console.Write([]byte{0x0f, key}) // ^O is hvc's break key
	return err
}

// Registers asks QEMU for the registers of all processors: what is left to
// know of a guest that answers nothing.
func (v *VM) Registers(ctx context.Context) (string, error) {
	text, err := v.monitorCommand(ctx, "info registers -a")
	var keep []string
	for _, l := range strings.Split(text, "\n") {
		// The floating point and vector registers are many and say little.
		if vectorLine.MatchString(l) {
			continue
		}
		keep = append(keep, l)
	}
	return strings.Join(keep, "\n"), err
}

var vectorLine = regexp.MustCompile(`^(?:FCW|FPR|[XYZ]MM|Opmask)`)

// Debug stops the machine and has QEMU wait for a gdb at a socket, in a directory
// that is ours.
func (v *VM) Debug(ctx context.Context, socket string) error {
	if user := v.cmd.SysProcAttr.Credential; user != nil {
		if err := os.Chown(filepath.Dir(socket), int(user.Uid), int(user.Gid)); err != nil {
			return err
		}
	}
	if _, err := v.qmp(ctx, "stop", nil, nil); err != nil {
		return err
	}
	said, err := v.monitorCommand(ctx, "gdbserver unix:"+socket+",server=on,wait=off")
	if err == nil && !strings.Contains(said, "Waiting for gdb connection") {
		err = fmt.Errorf("QEMU's gdb server: %s", strings.TrimSpace(said))
	}
	return err
}

// monitorCommand is a line for the monitor that people use.
func (v *VM) monitorCommand(ctx context.Context, line string) (string, error) {
	raw, err := v.qmp(ctx, "human-monitor-command", map[string]any{"command-line": line}, nil)
	if err != nil {
		return "", err
	}
	var r struct {
		Return string `json:"return"`
	}
	err = json.Unmarshal(raw, &r)
	return strings.ReplaceAll(r.Return, "\r", ""), err
}

// qmp runs a command, which may come with a file.
func (v *VM) qmp(ctx context.Context, name string, arguments map[string]any, file *os.File) ([]byte, error) {
	command := qmp.Command{Execute: name}
	if len(arguments) > 0 {
		command.Args = arguments // QEMU takes no null
	}
	cmd, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	type answer struct {
		raw []byte
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		raw, err := v.mon.RunWithFile(cmd, file)
		ch <- answer{raw, err}
	}()
	select {
	case a := <-ch:
		if a.err != nil {
			return nil, fmt.Errorf("QEMU monitor, %s: %w", cmd, a.err)
		}
		return a.raw, nil
	case <-v.done:
		return nil, fmt.Errorf("QEMU monitor, %s: %s", cmd, v.exit)
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for QEMU's monitor to answer %s: %w", cmd, context.Cause(ctx))
	}
}

// Cmdline boots the same machine by hand: kernel console and monitor on the
// terminal, no agent's channel.
func (v *VM) Cmdline() string { return strings.Join(v.args, " ") }

func socketpair(buffer int) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if buffer > 0 {
		// Forced as root, else as much as the system allows.
		if unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
		}
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "qemu's")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// listen makes the monitor's socket in a directory that only we can enter.
func listen() (sock, dir string, f *os.File, err error) {
	if dir, err = os.MkdirTemp("", "nftvm-qmp-"); err != nil {
		return "", "", nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	sock = filepath.Join(dir, "qmp")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return "", "", nil, err
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	f, err = l.File()
	return sock, dir, f, err
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	max int
	b   []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = t.b[over:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
