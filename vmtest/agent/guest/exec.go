// SPDX-License-Identifier: GPL-2.0-only

//go:build linux

package guest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kmod-nft-offload/kmod-nft-offload/vmtest/agent/wire"
)

// stragglerGrace is how long the output of a finished command may stay open in
// a process it left behind before the whole process group is killed.
const stragglerGrace = time.Second

// drainMost is how much output is read of a command that has ended and been
// killed: more than a pipe holds.
const drainMost = 256 << 10

// reaper is the one place that waits for children: PID 1 inherits every
// orphan, and a second waiter would steal statuses.
type reaper struct {
	mu      sync.Mutex
	cond    *sync.Cond
	started int
	wanted  map[int]chan syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{wanted: map[int]chan syscall.WaitStatus{}}
	r.cond = sync.NewCond(&r.mu)
	go r.loop()
	return r
}

// start runs a command and returns its pid and where its status will come.
func (r *reaper) start(argv0 string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	// The lock is held over the fork, or a child that ends at once would
	// be reaped before anybody wants it.
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv0, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	ch := make(chan syscall.WaitStatus, 1)
	r.wanted[pid] = ch
	r.started++
	r.cond.Signal()
	return pid, ch, nil
}

func (r *reaper) loop() {
	seen := 0
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		r.mu.Lock()
		switch err {
		case syscall.ECHILD:
			// Orphans come only from children of ours, so without a
			// child there is nothing to wait for until the next start.
			for seen == r.started {
				r.cond.Wait()
			}
			seen = r.started
		case nil:
			if ch := r.wanted[pid]; ch != nil {
				delete(r.wanted, pid)
				ch <- ws
			}
		}
		r.mu.Unlock()
	}
}

// exec starts the command of a request; its reply comes when it has ended.
func (s *server) exec(id uint32, req *wire.Request) error {
	p, err := s.start(id, req)
	if err != nil {
		return s.reply(id, &wire.Reply{Error: err.Error()})
	}
	s.mu.Lock()
	s.runs[id] = p
	s.mu.Unlock()
	if p.in != nil {
		go s.feed(p)
	}
	go s.async(id, func() *wire.Reply { return s.follow(p, req.Limit) })
	return nil
}

func (s *server) start(id uint32, req *wire.Request) (p *process, err error) {
	if len(req.Argv) == 0 {
		return nil, errors.New("exec without a command")
	}
	path, err := exec.LookPath(req.Argv[0])
	if err != nil {
		return nil, err
	}
	p = &process{id: id, input: make(chan []byte, wire.InputWindow), done: make(chan struct{})}
	attr, err := p.files(req)
	defer func() {
		p.closeTheirs()
		if err != nil {
			p.closeOurs()
		}
	}()
	if err != nil {
		return nil, err
	}
	env := os.Environ()
	for k, v := range req.Env {
		env = append(env, k+"="+v)
	}
	attr.Env, attr.Dir = dedup(env), req.Dir
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	if p.pid, p.status, err = s.reap.start(path, req.Argv, attr); err != nil {
		return nil, errors.New(path + ": " + err.Error())
	}
	return p, nil
}

// follow streams a command's output and waits for its end.
func (s *server) follow(p *process, limit int64) *wire.Reply {
	reply := &wire.Reply{}
	eof := make(chan error, 1)
	go func() {
		dropped, err := s.streams(p, limit)
		reply.Dropped = dropped
		eof <- err
	}()
	ws := <-p.status
	s.mu.Lock()
	delete(s.runs, p.id)
	s.mu.Unlock()
	close(p.done)

	var err error
	grace := time.NewTimer(stragglerGrace)
	defer grace.Stop()
	select {
	case err = <-eof:
	case <-grace.C:
		// The group is the test's own session; whoever left it as well
		// keeps running, and only loses its output.
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		p.drain.Store(true)
		for _, o := range p.out {
			_ = o.f.SetReadDeadline(time.Now().Add(stragglerGrace))
		}
		err = <-eof
		reply.Straggler = true
	}
	p.closeOurs()
	if err != nil {
		reply.Error = err.Error()
	}
	if ws.Signaled() {
		reply.Signal = int(ws.Signal())
	} else {
		reply.Exit = ws.ExitStatus()
	}
	return reply
}

// streams sends a command's outputs until they end; limit is for all of them.
func (s *server) streams(p *process, limit int64) (dropped int64, err error) {
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, o := range p.out {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]byte, 32<<10)
			more := drainMost
			for {
				draining := p.drain.Load()
				if draining {
					// The host may take its time for what is in the
					// pipe; who still writes may not.
					_ = o.f.SetReadDeadline(time.Now().Add(stragglerGrace))
				}
				n, rerr := o.f.Read(buf)
				if draining {
					if more -= n; more <= 0 {
						rerr = io.EOF
					}
				}
				mu.Lock()
				if err == nil && n > 0 {
					var d int64
					d, err = s.sendStream(o.as, p.id, buf[:n], &limit)
					dropped += d
				}
				broken := err != nil
				mu.Unlock()
				if rerr != nil || broken {
					return
				}
			}
		}()
	}
	wg.Wait()
	return dropped, err
}

func (s *server) kill(target uint32) error {
	p := s.process(target)
	if p == nil {
		// It ended while the order to kill it was on its way.
		return nil
	}
	return os.NewSyscallError("kill", syscall.Kill(-p.pid, syscall.SIGKILL))
}

// dedup keeps the last of each variable.
func dedup(env []string) []string {
	last := map[string]int{}
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		last[k] = i
	}
	out := make([]string, 0, len(last))
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if last[k] == i {
			out = append(out, kv)
		}
	}
	return out
}
