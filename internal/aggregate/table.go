package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// Hooks says what the kernel side can tell.
type Hooks uint8

// Kinds of Hooks.
const (
	// HooksFull: connects, accepts and timewait sockets are told by hooks of
	// their own.
	HooksFull Hooks = iota
	// HooksKprobe: as HooksFull, but what a softirq brings while its CPU is in the
	// handler of another hook is passed over, on some kernels without a count. Walks
	// show it: they come by all the time.
	HooksKprobe
	// HooksPoll: transitions alone are told. Timewait sockets are known from
	// walks, holders from walks and from the close.
	HooksPoll
)

// Config is what a Table needs to know of its source.
type Config struct {
	Hooks Hooks
	// MaxConns bounds the connections and listeners that are tracked; 0: none.
	// At the limit a new one takes the place of an old one, see makeRoom.
	MaxConns int
}

// Sink takes what the table makes of the records. What the pointers lead to is
// valid during the call only.
type Sink interface {
	Transition(*events.Transition)
	Closed(*events.Closed)
	Lost(*events.Lost)
	Resync(*events.Resync)
	// Limit comes at most once for each events.KindTick, and once in Flush.
	Limit(*events.Limit)
}

// Stats counts what happened in the table beside its output.
type Stats struct {
	// TimeWaitRestarts is how often a segment set a TIME_WAIT back to its full
	// 60 s (a retransmitted FIN among them).
	TimeWaitRestarts uint64
	// Mismatches is how many records told of another state than the table had:
	// something before them was not seen.
	Mismatches uint64
	// Vanished is how many connections were found to be gone without having
	// been seen to close.
	Vanished uint64
	// Forgotten is how many connections were dropped to make room for others.
	Forgotten uint64
	// Untracked is how many sockets the last walks met that found no room.
	Untracked uint64
}

// Table is the table of living connections and listeners. It is not safe for
// concurrent use.
type Table struct {
	cfg   Config
	sink  Sink
	stats Stats

	slab    slab
	index   map[uint64]uint32 // kernel address -> connection
	procs   processes
	origins origins
	spaces  map[uint32]*namespace
	zones   []string // of link-local addresses; 0 is none
	nextID  uint64

	held    []uint32         // first transition waits for an identity; conn.aux is the position
	refused refused          // see there
	moved   []moved          // timewait sockets whose full socket has not closed yet
	pending []pending        // closed; whether a timewait socket took over is open
	waiting map[tuple]uint32 // pending connections
	live    int              // connections that are in the slab

	walk    walk
	born    map[tuple]uint32 // timewait sockets first seen by the walk under way
	odd     []odd            // states that the walk under way saw and the table has not
	holders holders
	loss    loss
	limit   limit
	lastTS  int64 // of the last record

	// The output, used again and again.
	tr     events.Transition
	cl     events.Closed
	states [maxPast + 1]events.StateTime
	last   events.StateTime // the state that the last move to CLOSE left
	gone   []uint32
}

// New returns an empty table that writes to sink.
func New(cfg Config, sink Sink) *Table {
	t := &Table{
		cfg:     cfg,
		sink:    sink,
		index:   make(map[uint64]uint32),
		spaces:  make(map[uint32]*namespace),
		zones:   []string{""},
		waiting: make(map[tuple]uint32),
		born:    make(map[tuple]uint32),
	}
	t.procs.init()
	t.origins.init(t.namespace(0))
	t.loss.whole = events.Unknown
	return t
}

// Add takes one record. Records come in the order of their times, those of one
// socket in the order in which they happened.
func (t *Table) Add(r *events.Record) {
	if r.Old >= events.NumStates || r.New >= events.NumStates {
		return
	}
	t.lastTS = r.TS
	switch r.Kind {
	case events.KindTransition:
		t.transition(r)
	case events.KindConnect:
		t.connect(r)
	case events.KindAccept:
		t.accept(r)
	case events.KindTimeWaitAlloc:
		t.timeWaitAlloc(r)
	case events.KindTimeWaitSchedule:
		t.timeWaitSchedule(r)
	case events.KindTimeWaitDestroy:
		t.timeWaitDestroy(r)
	case events.KindSocket:
		t.socket(r)
	case events.KindScanBegin:
		t.scanBegin(r)
	case events.KindScanEnd:
		t.scanEnd(r)
	case events.KindHolder:
		t.holder(r)
	case events.KindHoldersBegin:
		t.holdersBegin()
	case events.KindHoldersEnd:
		t.holdersEnd(r)
	case events.KindLost:
		t.lost(r)
	case events.KindTick:
		t.tick(r)
	}
}

// Len returns the number of living connections and listeners.
func (t *Table) Len() int { return t.live }

// Stats returns the counts since New.
func (t *Table) Stats() Stats {
	s := t.stats
	s.Forgotten, s.Untracked = t.limit.forgotten, t.untracked()
	return s
}

// Flush writes what still waits for a later record: to be called once, after the
// last record. Connections that live on are not written.
func (t *Table) Flush() {
	for len(t.held) > 0 {
		i := t.held[0]
		if c := t.slab.at(i); c.state == events.SynSent {
			t.release(c)
			continue
		}
		// A child whose addresses never came.
		t.drop(i)
	}
	t.eachPending(func(p *pending) bool {
		return p.doubt || t.cfg.Hooks == HooksKprobe && !p.limbo && mayBeAbort(t.slab.at(p.conn).state, p.fin)
	}, t.resolveAbort)
	t.tellUnseen()
	t.tellLimit(t.lastTS)
}

// Info is what the table knows of one living connection or listener.
type Info struct {
	events.Conn
	State events.State
	// Since is when State was entered, ns; a time at or after the entry where
	// SinceExact is false.
	Since      int64
	SinceExact bool
	// First is the time from which on the connection is known, ns.
	First  int64
	Opened events.Opened
	Closer events.Side // so far
	// ClosedBy called close, PID 0: nobody has, or it is not known.
	ClosedBy events.Process
	// Expires is when the timer of a timewait socket runs out, ns, or
	// events.Unknown.
	Expires int64
	// TimeWait: the connection lives as a timewait socket (or, where only a walk
	// can tell, probably does).
	TimeWait bool
}

// Each calls f with every connection and listener that is known to live, and with
// which addresses, until f returns false. The pointer is valid during the call only; f must
// not call the table.
func (t *Table) Each(f func(*Info) bool) {
	var info Info
	t.slab.each(func(_ uint32, c *conn) bool {
		if c.has(isHeld) || c.has(isPending) && t.pending[c.aux].limbo {
			return true
		}
		info = Info{
			State:      c.state,
			Since:      c.entered,
			SinceExact: c.has(startKnown),
			First:      c.first,
			Opened:     c.opened,
			Closer:     c.closer,
			ClosedBy:   t.procs.get(c.closedBy),
			Expires:    events.Unknown,
			TimeWait:   c.has(isTimeWait),
		}
		if c.has(isTimeWait) {
			info.Expires = c.expires()
		}
		if c.has(isPending) {
			info.TimeWait = true
			if p := &t.pending[c.aux]; p.fin {
				info.State, info.Since, info.SinceExact = events.TimeWait, p.ts, true
			}
		}
		t.identify(&info.Conn, c)
		return f(&info)
	})
}
