package events

import "net/netip"

// Process names a process by what does not change with time.
type Process struct {
	PID  uint32 // 0: unknown
	Comm string // raw, as the process chose it: escape before showing
}

// OwnerSource says how an owner is known (DESIGN: `owner`).
type OwnerSource uint8

// Sources of ownership, weakest first.
const (
	OwnerUnknown OwnerSource = iota
	OwnerScan                // found holding a descriptor
	OwnerListen              // called listen
	OwnerClose               // closed it
	OwnerAccept              // called accept
	OwnerConnect             // called connect
)

// Conn identifies one connection (or listener) in every line about it.
type Conn struct {
	ID       uint64 // unique in the run; printed as text
	Cookie   uint64 // 0 unknown
	NetNS    uint32
	Family   uint8 // 4 or 6
	Local    netip.AddrPort
	Remote   netip.AddrPort
	Owner    Process
	OwnerSrc OwnerSource
	UID      int64 // -1 unknown
	CgroupID uint64
	Cgroup   string // path below the cgroup2 mount; empty unknown
	MPTCP    bool
}

// Unknown stands for a duration or time that is not known; it becomes null.
const Unknown int64 = -1

// Transition is one change of state of one connection.
type Transition struct {
	Conn
	TS  int64 // ns, CLOCK_MONOTONIC
	Old State
	New State
	// InOld is the time spent in Old, ns, or Unknown. InOldMin is a lower bound
	// where the start is not known, else Unknown.
	InOld, InOldMin int64
	// Exact is false where TS itself lies between two scans (--hooks poll) or
	// where events were lost.
	Exact bool
	// Err is the errno that the kernel set on the socket, or 0.
	Err uint16
	// Opened and, where New is TimeWait, ClosedBy (PID 0: unknown) are for those
	// who count; the JSON line has neither, its connection's closed line does.
	Opened   Opened
	ClosedBy Process
}

// Side is who sent the first FIN or RST.
type Side uint8

// Sides.
const (
	SideUnknown Side = iota
	SideLocal
	SideRemote
	SideBoth
	SideNone // nobody: it timed out, or never got that far
)

// How is the manner in which a connection ended.
type How uint8

// Manners of ending.
const (
	HowUnknown How = iota
	HowFIN
	HowRST
	HowTimeout
	HowRefused
	HowAbort
)

// ResetKind is why an RST ended a connection.
type ResetKind uint8

// Kinds of reset.
const (
	ResetNone    ResetKind = iota // no reset: null
	ResetLinger0                  // SO_LINGER with time 0, this side
	ResetUnread                   // closed with data unread (RFC 2525 2.17), this side
	ResetPeer                     // by the remote
	ResetOther                    // by this side for another reason
)

// TimeWaitEnd is how TIME_WAIT ended.
type TimeWaitEnd uint8

// Ends of TIME_WAIT.
const (
	TimeWaitNone    TimeWaitEnd = iota // there was none: null
	TimeWaitExpired                    // the timer ran out
	TimeWaitReused                     // by a new connection with the same addresses and ports
	TimeWaitReset                      // by an RST from the peer
	TimeWaitKilled                     // by ss -K or the end of its namespace
	TimeWaitUnknown
)

// Opened is which side opened the connection.
type Opened uint8

// Ways of opening.
const (
	OpenedUnknown Opened = iota
	OpenedActive
	OpenedPassive
)

// StateTime is the time that a connection spent in a state, ns.
type StateTime struct {
	State State
	NS    int64
}

// Closed is the account of one connection, once, when it is really over.
type Closed struct {
	Conn
	TS          int64
	Opened      Opened
	Closer      Side
	How         How
	Reset       ResetKind
	ClosedBy    Process // PID 0: unknown
	States      []StateTime
	Exact       bool // every duration and the end are exact
	TimeWaitEnd TimeWaitEnd
	// TimeWaitOverflow: there should have been a TIME_WAIT, but the kernel had
	// no room (tcp_max_tw_buckets) or memory for it.
	TimeWaitOverflow bool
	TotalNS          int64
	Err              uint16 // errno on the socket at its end, 0 none
}

// Lost reports records that the kernel could not hand over.
type Lost struct {
	TS    int64
	Count uint64 // since the previous Lost
	Total uint64
	Since int64 // TS of the last record that is known to be whole, or Unknown
	Cause LostCause
}

// LostCause says why events were lost.
type LostCause uint8

// Causes of loss.
const (
	// LostNoRoom: the ring buffer was full, which a larger one helps against.
	LostNoRoom LostCause = iota
	// LostUnseen: the kernel ran no program for them.
	LostUnseen
)

// String returns the name in JSON.
func (c LostCause) String() string {
	if c == LostUnseen {
		return "unseen"
	}
	return "buffer"
}

// Resync reports what a rescan after a loss corrected.
type Resync struct {
	TS        int64
	Corrected uint64 // connections whose state was wrong
	Removed   uint64 // connections that were gone
	Added     uint64 // connections that were not known
}

// Limit reports that there is no room for more connections (--max-connections).
type Limit struct {
	TS    int64
	Max   uint64 // connections that are tracked at most
	Count uint64 // connections forgotten since the previous Limit, to make room
	Total uint64
	// Untracked is how many sockets the last walks met that are not tracked.
	Untracked uint64
}

// Header is the first line of every JSON stream and recording.
type Header struct {
	Schema  int
	Version string
	Kernel  string
	Hooks   string // fentry, kprobe or poll
	TS      int64
	Filters map[string]string // flag -> value, as given
}
