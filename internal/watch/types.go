package watch

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// Reason says why a socket sits in CLOSE_WAIT. It follows from what the socket
// has left to read: pending = rcv_nxt - copied_seq, where the FIN counts 1.
type Reason uint8

// Reasons.
const (
	ReasonNone        Reason = iota // not in CLOSE_WAIT
	ReasonNotAccepted               // no sk_socket: in the backlog, nobody called accept
	ReasonUnread                    // pending > 1: bytes and the FIN wait
	ReasonFinUnread                 // pending == 1: all bytes read, the FIN not looked at
	ReasonDrained                   // pending == 0: nothing left to read, not closed
	ReasonKernel                    // the kernel's own socket
)

func (r Reason) String() string {
	return [...]string{"", "not-accepted", "unread", "fin-unread", "drained", "kernel"}[r]
}

// Holder is a process with descriptors on a socket.
type Holder struct {
	PID     uint32
	Comm    string
	FDs     []uint32 // ascending
	UID     int64    // effective user of the process, -1 unknown
	PPID    uint32   // parent, 0 unknown
	Cmdline []string // nil unknown
	// NofileSoft is the soft RLIMIT_NOFILE, OpenFDs the descriptors in use;
	// -1 unknown.
	NofileSoft int64
	OpenFDs    int64
	// Unit is what the process' cgroup tells of it.
	Unit Unit
}

// Unit names the service manager's or container runtime's view of a process.
type Unit struct {
	Kind string // systemd, docker, containerd, cri-o, podman, kubernetes; empty: unknown
	Name string // unit name, container id or pod
	Path string // the cgroup path
}

// Socket is one socket in a watched state.
type Socket struct {
	events.Conn
	State State
	// Since is when the state was entered (CLOCK_MONOTONIC ns), or
	// events.Unknown; Age is exact with AgeExact, else a lower bound.
	Since     int64
	Age       int64
	AgeExact  bool
	RXPending uint32 // bytes, a FIN not counted
	TXPending uint32
	FinPend   bool
	// PendingKnown says that RXPending, TXPending and FinPend are; a timewait or
	// request socket has no queues. Of a listener they are the connections in its
	// backlog and the backlog's limit.
	PendingKnown bool
	Reason       Reason
	Holders      []*Holder // by PID
	// Listener should accept a socket that waits in a backlog: it holds the
	// listening socket, alone or as the ancestor of the others; nil unknown.
	Listener *Holder
	// Listeners is every process that holds a listening socket through which the
	// socket may have come, by PID.
	Listeners []*Holder
	// Remaining is what the timer of a timewait socket has left, ns, or
	// events.Unknown.
	Remaining int64
}

// State is events.State; named here for the field's readers.
type State = events.State

// Remote is a remote endpoint and the number of sockets towards it.
type Remote struct {
	Addr  string // address and port
	Count int
}

// Group is the sockets of one state under one process; for TIME_WAIT, whose
// sockets nobody holds, under the process that closed them (PID 0: not known)
// and the remote endpoint.
type Group struct {
	State   State
	PID     uint32
	Comm    string
	Holder  *Holder // nil where there is no process
	Remote  string  // TIME_WAIT only
	Count   int
	Oldest  int64 // ns
	Median  int64 // ns
	AllAges bool  // every age is exact; else Oldest and Median are lower bounds
	// GrowthPerMin is the change of Count per minute, valid with GrowthKnown
	// (not in the first minute).
	GrowthPerMin float64
	GrowthKnown  bool
	Reasons      map[Reason]int
	TopRemotes   []Remote // most first, at most 5
	// LimitIn is the time until the descriptor limit at the present growth, ns,
	// or events.Unknown.
	LimitIn int64
	// Unread is the bytes that wait in the sockets to be read.
	Unread int64
	// Verdict is one sentence that a person can act on.
	Verdict string
	Sockets []*Socket // oldest first
}

// PortUse is how many local ports towards one remote endpoint are taken.
type PortUse struct {
	NetNS  uint32
	Local  string // local address
	Remote string // remote address and port
	Used   int    // distinct local ports in use, in any state
	// TimeWait is how many of them a TIME_WAIT holds.
	TimeWait int
	Range    int // ports of ip_local_port_range less the reserved; -1 unknown
	// FullIn is the time until "Cannot assign requested address" at the present
	// rate, ns, or events.Unknown.
	FullIn int64
}

// Snapshot is the answer at one moment.
type Snapshot struct {
	TS     int64
	States events.StateSet // what is watched
	Groups []*Group        // worst first
	Total  int             // sockets in the watched states, each once
	// Counts is the sockets by state; -1: not counted, for the walk leaves out
	// what is not watched. Request sockets count as SYN_RECV.
	Counts [events.NumStates]int
	Ports  []PortUse // for TIME_WAIT, fullest first
	Hooks  string
	Lost   uint64 // events lost since the start
	// Untracked is how many sockets in the watched states the last walks met that
	// are not among Groups: there is no room for them (Config.MaxSockets).
	Untracked uint64
	Notes     []string
}
