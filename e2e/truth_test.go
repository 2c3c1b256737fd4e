package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Span is a bracket of CLOCK_MONOTONIC times, ns: what it describes happened
// between Lo and Hi.
type Span struct{ Lo, Hi int64 }

// now reads the clock of bpf_ktime_get_ns.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// ProcID names a process as the output does.
type ProcID struct {
	PID  int
	Comm string
	UID  int
}

func (p *ProcID) String() string {
	if p == nil {
		return "null"
	}
	return fmt.Sprintf("%d/%s", p.PID, p.Comm)
}

// Owner is one way in which the owner of a socket may be told.
type Owner struct {
	// Src is connect, accept, listen or close as in the field owner, or hold: the
	// process has a descriptor, which only a scan can see.
	Src  string
	Proc *ProcID
	// Since is when it became so.
	Since Span
	// Optional: it may be so without being seen.
	Optional bool
}

// Step is one transition that must be seen.
type Step struct {
	Old, New string
	At       Span
	// Timer, if not zero: the step ends a timer of this length that started with
	// the previous step, so it lies Timer after that, less a tick of the kernel,
	// plus the slack of the timer wheel.
	Timer time.Duration
	// Scanned: with --hooks poll the step is only found by the next scan.
	Scanned bool
	// PollHi, if not zero: with --hooks poll the time may be as late as this.
	PollHi int64
	// RoundTrip, if not zero, is the least and the most, ns, that the handshake
	// took which ended SYN_RECV by this step.
	RoundTrip Span
	// Err is the errno name in the field error that this step must carry, or
	// empty: not looked at.
	Err string
}

// End is what the closed line must say. Text fields hold the value, or several
// separated by |; empty means null.
type End struct {
	Opened      string
	Closer      string
	How         string
	Reset       string
	TimeWaitEnd string
	ClosedBy    *ProcID // nil: null
	Overflow    bool    // time_wait_overflow
	Err         string  // error
	// AnyClosedBy: closed_by may be any process that owns or holds the socket,
	// or null.
	AnyClosedBy bool
}

// Conn is the truth about one end of one connection, or about one listener.
// Its methods may be called by one goroutine at a time.
type Conn struct {
	NetNS  uint32
	Family int
	Local  netip.AddrPort
	// Remote is invalid for a listener.
	Remote netip.AddrPort
	// AnyLocalPort: the workload cannot know the local port, only that it is not 0.
	AnyLocalPort bool
	// NoLocalPort: there never was a local port.
	NoLocalPort bool
	Cookie      uint64 // of the full socket; 0: not known
	UID         int    // of the socket; -1: not looked at
	Steps       []Step
	Owners      []Owner
	End         *End // nil: a listener, which has no closed line
	// FreeFrom, if not zero: from the step of this index on the order of states
	// is not the workload's to know (MPTCP closes its subflows by itself). The
	// steps must then be a legal chain down to CLOSE, between the bracket of the
	// step FreeFrom and the next one, if there is one.
	FreeFrom int
	// Inexact: exact may be either.
	Inexact bool
}

func (c *Conn) String() string {
	return fmt.Sprintf("[%d] %s > %s", c.NetNS, c.Local, c.Remote)
}

// State is the state after the last step.
func (c *Conn) State() string {
	if len(c.Steps) == 0 {
		return "CLOSE"
	}
	return c.Steps[len(c.Steps)-1].New
}

// Last is the last step.
func (c *Conn) Last() *Step { return &c.Steps[len(c.Steps)-1] }

// To adds a step from the present state to the state next and returns it.
func (c *Conn) To(next string, at Span) *Step {
	c.Steps = append(c.Steps, Step{Old: c.State(), New: next, At: at})
	return c.Last()
}

// Own adds an owner.
func (c *Conn) Own(src string, p *ProcID, since Span) {
	c.Owners = append(c.Owners, Owner{Src: src, Proc: p, Since: since})
}

// Truth is what the cases have stated so far.
type Truth struct {
	mu    sync.Mutex
	conns []*Conn
	// netns maps each namespace of a case to its case.
	netns map[uint32]string
}

func (t *Truth) add(conns ...*Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = append(t.conns, conns...)
}
