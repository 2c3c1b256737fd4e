package account

import (
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Summary is the account at the end of a trace.
type Summary struct {
	Begin, End int64 // of what was traced, CLOCK_MONOTONIC ns
	Hooks      string
	By         By
	// Now is the sockets by state, request sockets as SYN_RECV (but where they are
	// asked for by their owner, which request sockets do not tell). FromWalk: as a
	// walk at the end met them; else as the events tell, without request sockets.
	Now      [events.NumStates]int64
	FromWalk bool

	Total  *Group   // of all connections; its Key is empty
	Groups []*Group // most closed first
	// Others joins the groups that were folded, Folded of them; nil: none were. The
	// counts of Groups may be lower bounds then, those of Total are not.
	Others *Group
	Folded uint64

	// ClosedBy is who called close, most first, where that was seen.
	ClosedBy       []Closer
	ClosedByOthers uint64
	TimeWait       TimeWait
	// Ports is the use of local ports towards remote endpoints, fullest first.
	Ports []watch.PortUse

	Advice []advice.Item // what matters most first

	Lost     Lost
	Resyncs  Resyncs
	Vanished uint64 // connections that were gone without having been seen to close
	// Forgotten connections made room for others (aggregate.Config.MaxConns);
	// Untracked sockets were met by the last walks and found none.
	Forgotten, Untracked uint64
}

// Exact reports whether nothing was lost or forgotten: else all counts of events are
// lower bounds.
func (s *Summary) Exact() bool { return s.Lost.Count == 0 && s.Forgotten == 0 && s.Untracked == 0 }

// Span returns the time that was traced, ns.
func (s *Summary) Span() int64 { return s.End - s.Begin }

// State is one state of a group.
type State struct {
	Now uint64 // connections in it at the end
	// Oldest is how long the oldest of these has been in it, ns: at least, unless
	// OldestExact. events.Unknown for none.
	Oldest      int64
	OldestExact bool
	// Entered and Left count the transitions; what was in the state before the trace
	// began did not enter.
	Entered, Left uint64
	Stay          Stay
}

// Group is the account of one group.
type Group struct {
	Key    Key
	States [events.NumStates]State
	Opened [3]uint64 // by events.Opened; what was there before the trace is not counted
	Ends   Ends
	// TimeWaitEnded is by events.TimeWaitEnd; Overflow counts connections that
	// should have had a TIME_WAIT, and for which the kernel had no room.
	TimeWaitEnded    [6]uint64
	TimeWaitOverflow uint64
}

// Living returns the number of connections and listeners at the end.
func (g *Group) Living() uint64 {
	n := uint64(0)
	for s := range g.States {
		n += g.States[s].Now
	}
	return n
}

func (g *group) result(key Key) *Group {
	r := &Group{Key: key, Opened: g.opened, Ends: g.ends, TimeWaitEnded: g.timeWait.ended, TimeWaitOverflow: g.timeWait.overflow}
	r.TimeWaitEnded[events.TimeWaitNone] = 0
	for s := range r.States {
		state := &r.States[s]
		*state = State{Now: g.now[s], Oldest: events.Unknown, Entered: g.entered[s], Left: g.left[s]}
		if g.now[s] > 0 {
			state.Oldest, state.OldestExact = g.oldest[s], g.oldestExact[s]
		}
		st := g.stays[s]
		if st == nil {
			st = &stay{bound: events.Unknown}
		}
		state.Stay = st.result()
	}
	return r
}

// Closer is a process that called close.
type Closer struct {
	Process events.Process
	Closed  uint64
	First   [5]uint64 // by events.Side: who had sent the first FIN or RST
}

// TimeWait is the account of TIME_WAIT.
type TimeWait struct {
	Entered   uint64
	PerSecond float64 // below 0: unknown
	// Steady is how many there are in the long run at this rate: each stays 60 s.
	Steady   int64
	Ended    [6]uint64 // by events.TimeWaitEnd
	Overflow uint64    // there was no room for one (tcp_max_tw_buckets) or no memory
	Mean     int64     // of those that began and ended in the trace, ns
	// By is who closed, and towards whom, most first; PID 0 and an invalid address
	// are unknown. Others counts what was folded.
	By     []TimeWaitBy
	Others uint64
}

// TimeWaitBy is the TIME_WAITs that one process entered towards one remote end.
type TimeWaitBy struct {
	Process   events.Process
	Remote    netip.AddrPort // port 0: they came in from there, from any port
	Entered   uint64
	PerSecond float64
}

// Lost is what the kernel could not hand over.
type Lost struct {
	Count uint64 // events
	Times uint64
	Since int64 // up to here nothing is missing, ns, or events.Unknown: since the start
}

// Resyncs is what was put right after losses.
type Resyncs struct{ Times, Corrected, Removed, Added uint64 }
