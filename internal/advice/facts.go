package advice

// Unknown stands for a number that is not known, as events.Unknown does. No rule
// speaks because of it.
const Unknown int64 = -1

// Facts is what was measured in a run. Counts are those of the run unless they say
// now. Every number may be Unknown; zero never makes a rule speak.
type Facts struct {
	Duration int64 // what was observed, ns
	// Lost is how many events were lost: with any, the counts of the run are
	// lower bounds.
	Lost uint64

	Processes  []Process
	Remotes    []Remote
	Ports      []PortUse
	Listeners  []Listener
	Left       []LeftPort
	Namespaces []Namespace
}

// Process is what is known of one process' sockets. Descriptors belong to the
// process, everything else to its sockets in NetNS.
type Process struct {
	NetNS uint32 // 0 unknown
	PID   uint32 // 0: not known whose they are
	Comm  string // as the process chose it

	CloseWait  CloseWait
	OpenFDs    int64 // descriptors in use now
	NofileSoft int64 // soft RLIMIT_NOFILE; Unknown without limit

	Accepted  Closes // of the connections that it accepted
	Connected Closes // of those that it opened
	TimeWaits int64  // TIME_WAIT entered by those that it accepted

	ResetUnread  int64 // RSTs by this side: closed with data unread
	ResetLinger0 int64 // RSTs by this side: SO_LINGER with a time of 0
}

// CloseWait is the sockets of a process in CLOSE_WAIT.
type CloseWait struct {
	Now int64
	// Stuck is how many of them have been there for StuckAfter or longer.
	Stuck  int64
	Oldest int64 // ns
	// OldestExact is false where Oldest is a lower bound.
	OldestExact bool
	// GrowthPerMin is the change of Now per minute, valid with GrowthKnown.
	GrowthPerMin float64
	GrowthKnown  bool
	// Why they are there, as watch.Reason words it.
	NotAccepted, Unread, FinUnread, Drained, Kernel int64
}

// Closes counts connections that ended by who sent the first FIN or RST.
type Closes struct{ Local, Remote, Both, Other int64 }

func (c Closes) total() int64 {
	return max(c.Local, 0) + max(c.Remote, 0) + max(c.Both, 0) + max(c.Other, 0)
}

// Remote is how connections to one remote endpoint failed.
type Remote struct {
	NetNS uint32
	Addr  string // address and port
	// NoPort is the connects that found no local port (EADDRNOTAVAIL).
	NoPort          int64
	Refused         int64 // answered with an RST
	ConnectTimeouts int64 // SYN_SENT given up
	Timeouts        int64 // given up after the handshake
}

// PortUse is how many local ports towards one remote endpoint are taken now.
type PortUse struct {
	NetNS    uint32
	Local    string // local address
	Remote   string // remote address and port
	Used     int64  // distinct local ports, in any state
	TimeWait int64  // how many of them a TIME_WAIT holds
	Range    int64  // ports of ip_local_port_range less the reserved
	// FullIn is the time until they are all taken at the present rate, ns.
	FullIn int64
}

// Listener is one listening socket now.
type Listener struct {
	NetNS uint32
	Local string // address and port
	PID   uint32 // 0 unknown
	Comm  string
	Queue int64 // connections that wait for accept()
	Limit int64 // min(listen()'s backlog, somaxconn)
}

// LeftPort is a local port on which sockets are left while nobody listens on it.
type LeftPort struct {
	NetNS uint32
	Local string // address and port; of several addresses one
	// ListenerClosed: the end of its listener was seen in the run. Without it,
	// the port must be none that the kernel gives out by itself (Ephemeral
	// false), for else it is a client's. Where the range is not known, it may be.
	ListenerClosed bool
	Ephemeral      bool
	TimeWait       int64
	// TimeWaitLeft is what the last of them has left, ns.
	TimeWaitLeft int64
	Open         int64 // sockets in any other state
	Remotes      int64 // distinct remote endpoints, at least
	PID          uint32
	Comm         string // who holds the most of the open ones; PID 0 unknown
}

// Namespace is what the kernel tells of one network namespace.
type Namespace struct {
	NetNS uint32
	Name  string // under /run/netns, or empty
	// Sysctls holds values as the kernel writes them, by name
	// (net.ipv4.tcp_fin_timeout). One that is not there is unknown.
	Sysctls map[string]string
	// Counters holds what the counters of /proc/net/netstat and /proc/net/snmp
	// grew by in the run, by the kernel's name (ListenOverflows). One that is
	// not there is unknown.
	Counters map[string]int64

	TimeWait int64 // timewait sockets now, those in FIN_WAIT2 included
	SynRecv  int64 // request sockets now
	// OrphanFinWait2 is the sockets in FIN_WAIT2 now that no process holds.
	OrphanFinWait2 int64
	// FinTimeouts is how many FIN_WAIT2 tcp_fin_timeout ended, FinWait2Max the
	// longest of them, ns.
	FinTimeouts int64
	FinWait2Max int64
	// TimeWaitRefused is the connections that should have been in TIME_WAIT but
	// for which there was no room.
	TimeWaitRefused int64
}
