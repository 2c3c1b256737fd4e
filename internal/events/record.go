package events

import "net/netip"

// Kind says what a Record reports; the values are those of enum record_kind in
// bpf/records.h.
type Kind uint8

// Kinds of Record.
const (
	KindTransition       Kind = 1 // inet_sock_set_state
	KindConnect          Kind = 2 // tcp_connect: the local port is known
	KindAccept           Kind = 3 // security_sock_graft: PID accepted SK
	KindTimeWaitAlloc    Kind = 4 // inet_twsk_alloc: SK is replaced by PeerSK (0: by none)
	KindTimeWaitSchedule Kind = 5 // __inet_twsk_schedule, rearm: timewait SK is now in New
	KindTimeWaitDestroy  Kind = 6 // tcp_twsk_destructor: timewait SK is gone
	KindSocket           Kind = 7 // iter/tcp: SK as it stands, in state New
	KindHolder           Kind = 8 // iter/task_file: PID holds the socket in FD

	KindFork   Kind = 9  // sched_process_fork: the traced process FD started PID
	KindReaped Kind = 10 // sched_process_free: the traced process PID is gone

	// Kinds that user space makes itself.

	// KindLost reports Count records that the kernel could not hand over
	// before TS; with FlagNested those for which it ran no program.
	KindLost Kind = 32
	// KindScanBegin and KindScanEnd bracket the KindSocket records of one walk
	// over the sockets of namespace NetNS (all records of the walk have TS
	// between the two). A socket that existed, unchanged, from before the begin
	// until after the end is among them. Count of the end is how often
	// TCPTimeWaitOverflow grew since the namespace's previous scan, or -1 where
	// that is not known.
	KindScanBegin Kind = 33
	KindScanEnd   Kind = 34
	// KindTick carries nothing but the time: no record with an older TS will
	// follow.
	KindTick Kind = 35
	// KindHoldersBegin and KindHoldersEnd bracket the KindHolder records of one
	// walk over all descriptors.
	KindHoldersBegin Kind = 36
	KindHoldersEnd   Kind = 37
)

// Flags of a Record; the values are those of enum record_flags.
type Flags uint16

// Flags of Record.
const (
	FlagActor        Flags = 1 << 0  // PID and Comm acted on the socket, in their own context
	FlagHasSocket    Flags = 1 << 1  // sk->sk_socket is set
	FlagOrphan       Flags = 1 << 2  // SOCK_DEAD: the last descriptor is closed
	FlagFINReceived  Flags = 1 << 3  // SOCK_DONE: the peer's FIN came
	FlagLinger0      Flags = 1 << 4  // SO_LINGER with a time of 0
	FlagLocked       Flags = 1 << 5  // a task, not the softirq, works on the socket
	FlagSegmentRST   Flags = 1 << 6  // the segment that the timewait socket handles is an RST
	FlagSegmentSYN   Flags = 1 << 7  // ... is a SYN
	FlagSegment      Flags = 1 << 8  // a segment is being handled at all (else: timer or a task)
	FlagPendingKnown Flags = 1 << 9  // RXPending and TXPending are known
	FlagMPTCP        Flags = 1 << 10 // a subflow of an MPTCP connection
	FlagTimer        Flags = 1 << 11 // TimerNS is known
	FlagKernelSocket Flags = 1 << 12 // the kernel's own socket
	FlagNested       Flags = 1 << 13 // seen by the second program on the tracepoint
)

// Record is one observation by the kernel side, decoded: struct record of
// bpf/records.h. Zero means unknown in Cookie, CgroupID, NetNS, PID, ports and
// Family; an invalid netip.Addr is an unknown address.
type Record struct {
	TS       int64  // CLOCK_MONOTONIC, ns
	SK       uint64 // kernel address of the socket: identity while it lives
	Cookie   uint64
	CgroupID uint64
	// PeerSK is the timewait socket of KindTimeWaitAlloc, or the struct socket
	// of KindSocket and KindHolder.
	PeerSK uint64
	// TimerNS, with FlagTimer: of a timewait socket the time that its timer has
	// left (<= 0: expired); of another KindSocket the time since its last
	// segment came.
	TimerNS   int64
	Count     int64
	Local     netip.AddrPort // IPv4-mapped IPv6 is IPv4; link-local has its scope as zone (ifindex)
	Remote    netip.AddrPort
	NetNS     uint32
	PID       uint32 // thread group id
	UID       uint32 // the socket's (sk_uid)
	RXPending uint32 // bytes received and not read; a FIN counts 1
	TXPending uint32 // bytes written and not acknowledged
	SRTTUS    uint32 // smoothed round trip time, µs; 0 unknown
	FD        uint32 // descriptor; of KindFork the parent's PID
	Err       uint16 // sk_err, an errno; 0 none
	Flags     Flags
	Kind      Kind
	Family    uint8 // 4, 6, or 0
	Old, New  State
	Comm      string // of the thread group's leader; set with PID
}
