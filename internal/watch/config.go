package watch

import (
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Config says what a Store watches and whom it asks.
type Config struct {
	States events.StateSet // what is watched
	// Walked is the states that scans report; 0: all. Listeners must be among
	// them, and for TIME_WAIT, whose port use counts sockets in any state, all.
	Walked events.StateSet
	Hooks  string // copied into each Snapshot
	// Processes tells of the holders; nil: nothing is known of them but what the
	// walk over the descriptors told.
	Processes Processes
	// Cgroup returns the path of a cgroup by its kernfs id, empty if unknown.
	Cgroup func(id uint64) string
	// Ports returns the local ports that the kernel gives out in a network
	// namespace; false: not known.
	Ports func(netns uint32) (PortRange, bool)
	// MaxSockets bounds the sockets that are kept; 0: none. At the limit a new one
	// takes the place of one in TIME_WAIT, or is only counted.
	MaxSockets int
	// PortUse counts the local ports in use also where TIME_WAIT, whose watch always
	// has them, is not among States.
	PortUse bool
	// Match says which sockets are wanted; nil: all.
	Match func(*Socket) bool
}

func (c *Config) portUse() bool { return c.PortUse || c.States.Has(events.TimeWait) }

// Process is what is known of a process beyond its descriptors.
type Process struct {
	Comm       string
	PPID       uint32   // 0 unknown
	UID        int64    // effective, -1 unknown
	Cmdline    []string // nil unknown
	NofileSoft int64    // soft RLIMIT_NOFILE, -1 unknown or without limit
	OpenFDs    int64    // descriptors in use, -1 unknown
	Unit       Unit
	// StartTS is when it started, CLOCK_MONOTONIC ns, or events.Unknown. A
	// process that started after a descriptor was seen under its number is
	// another one.
	StartTS int64
}

// Processes tells of processes by their number.
type Processes interface {
	// Refresh begins a new round: within one, answers do not change.
	Refresh()
	// Process returns false where there is no such process or nothing is to be
	// known of it.
	Process(pid uint32) (Process, bool)
}

// PortSpan is the ports from Low to High, both included.
type PortSpan struct{ Low, High uint16 }

// PortRange is the local ports that the kernel chooses from for connect():
// ip_local_port_range less ip_local_reserved_ports.
type PortRange struct {
	PortSpan
	Reserved []PortSpan // ascending, disjoint
}

// Usable returns the number of ports.
func (r PortRange) Usable() int {
	n := span(r.Low, r.High)
	for _, s := range r.Reserved {
		n -= span(max(s.Low, r.Low), min(s.High, r.High))
	}
	return n
}

// Has reports whether the kernel would choose port.
func (r PortRange) Has(port uint16) bool {
	return port >= r.Low && port <= r.High &&
		!slices.ContainsFunc(r.Reserved, func(s PortSpan) bool { return port >= s.Low && port <= s.High })
}

func span(low, high uint16) int {
	if high < low {
		return 0
	}
	return int(high) - int(low) + 1
}
