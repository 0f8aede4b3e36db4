// SPDX-License-Identifier: GPL-2.0-only

package wire

// Hello is the first thing a booted or restored agent says.
type Hello struct {
	Version int    `json:"version"`
	Release string `json:"release"` // uname -r
	BootID  string `json:"boot_id"`
	// Uptime is the guest's own seconds from its start to this hello.
	Uptime float64 `json:"uptime"`
	// Notes are what init could not set up (a mount the kernel lacks).
	Notes []string `json:"notes,omitempty"`
}

// The operations a Request can ask for.
const (
	OpFresh    = "fresh"    // be another machine than the one that was saved
	OpPut      = "put"      // take files: TypeFile and TypeData frames until TypeEnd
	OpExec     = "exec"     // run a command; its output comes as TypeData
	OpKill     = "kill"     // kill the process group of the exec with id Target
	OpResize   = "resize"   // the terminal of the exec with id Target has another Window
	OpRead     = "read"     // read the file Path; its content comes as TypeData
	OpProbe    = "probe"    // look at the kernel's health
	OpDmesg    = "dmesg"    // the kernel's log buffer, as TypeData
	OpMark     = "mark"     // write Text into the kernel log
	OpLeaks    = "leaks"    // have kmemleak scan; what it found comes as TypeData
	OpPoweroff = "poweroff" // sync and power the guest off; no reply
)

// Request is what the host wants.
type Request struct {
	Op   string            `json:"op"`
	Argv []string          `json:"argv,omitempty"`
	Env  map[string]string `json:"env,omitempty"`
	Dir  string            `json:"dir,omitempty"`
	Path string            `json:"path,omitempty"`
	Text string            `json:"text,omitempty"`
	// Entropy is for the kernel's random numbers, Time what its clock is
	// set to, in nanoseconds since 1970.
	Entropy []byte `json:"entropy,omitempty"`
	Time    int64  `json:"time,omitempty"`
	Target  uint32 `json:"target,omitempty"`
	// Input says that a command's standard input follows as TypeData, until
	// TypeEnd; without it there is none. Split wants its standard error
	// apart, as TypeErr. Window makes it run in a terminal of that size.
	Input  bool    `json:"input,omitempty"`
	Split  bool    `json:"split,omitempty"`
	Window *Window `json:"window,omitempty"`
	// Limit is how many bytes of output or content are sent at most; what
	// is beyond is read and dropped, and Reply.Dropped counts it.
	Limit int64 `json:"limit,omitempty"`
}

// Window is the size of a terminal, in characters.
type Window struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// File begins a file of a put.
type File struct {
	Path string `json:"path"`           // absolute in the guest
	Mode uint32 `json:"mode"`           // permission bits
	Size int64  `json:"size"`           // bytes of TypeData that follow
	Link string `json:"link,omitempty"` // target, if it is a symbolic link
}

// Reply ends a request.
type Reply struct {
	// Error is why the request failed, "" if it did not. A command that
	// ran and failed is no error.
	Error string `json:"error,omitempty"`
	// Exit is the command's exit status; Signal what killed it, 0 if none.
	Exit   int `json:"exit,omitempty"`
	Signal int `json:"signal,omitempty"`
	// Dropped is how many bytes were beyond the request's limit.
	Dropped int64 `json:"dropped,omitempty"`
	// Straggler is true when processes of a finished command kept its
	// output open and were killed.
	Straggler bool `json:"straggler,omitempty"`
	// Files and Bytes are what a put wrote.
	Files int   `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`

	Probe *Probe `json:"probe,omitempty"`
}

// Probe is the state of a kernel that a test must not leave behind.
type Probe struct {
	// Taint is /proc/sys/kernel/tainted.
	Taint uint64 `json:"taint"`
	// Modules are the loaded ones, by name.
	Modules map[string]Module `json:"modules"`
	// NetNS names the network namespaces: those in /run/netns by name,
	// others by a process that lives in them.
	NetNS []string `json:"netns,omitempty"`
	// Ledger is netdevsim's hardware ledger, nil when there is none.
	Ledger map[string]int64 `json:"ledger,omitempty"`
}

// Module is a line of /proc/modules.
type Module struct {
	// Refs is the reference count, of which Holders are modules.
	Refs    int `json:"refs"`
	Holders int `json:"holders"`
}
