package aggregate

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// A scenario is a list of records, written in the order of their times. Times are
// in µs from the start unless a unit is given by a constant.
const (
	us  int64 = 1000
	ms        = 1000 * us
	sec       = 1000 * ms
)

const testNS = 4026531840

// rec builds records: rec(...).with(...) reads as what the kernel says.
type opt func(*events.Record)

func rec(kind events.Kind, ts int64, sk uint64, opts ...opt) events.Record {
	r := events.Record{Kind: kind, TS: ts, SK: sk, NetNS: testNS}
	for _, o := range opts {
		o(&r)
	}
	return r
}

// tr is a transition.
func tr(ts int64, sk uint64, old, new events.State, opts ...opt) events.Record {
	r := rec(events.KindTransition, ts, sk, opts...)
	r.Old, r.New = old, new
	return r
}

func alloc(ts int64, sk, tw uint64, s events.State, opts ...opt) events.Record {
	r := rec(events.KindTimeWaitAlloc, ts, sk, opts...)
	r.PeerSK, r.New = tw, s
	return r
}

func schedule(ts int64, tw uint64, s events.State, timer int64, opts ...opt) events.Record {
	r := rec(events.KindTimeWaitSchedule, ts, tw, opts...)
	r.New, r.TimerNS = s, timer
	r.Flags |= events.FlagTimer
	return r
}

func destroy(ts int64, tw uint64, s events.State, left int64, opts ...opt) events.Record {
	r := rec(events.KindTimeWaitDestroy, ts, tw, opts...)
	r.New, r.TimerNS = s, left
	r.Flags |= events.FlagTimer
	return r
}

// seen is a socket that a walk met.
func seen(ts int64, sk uint64, s events.State, opts ...opt) events.Record {
	r := rec(events.KindSocket, ts, sk, opts...)
	r.New = s
	return r
}

func holds(ts int64, sk uint64, opts ...opt) events.Record {
	return rec(events.KindHolder, ts, sk, opts...)
}

func begin(ts int64) events.Record { return rec(events.KindScanBegin, ts, 0) }
func end(ts int64) events.Record   { return rec(events.KindScanEnd, ts, 0) }
func tick(ts int64) events.Record  { return rec(events.KindTick, ts, 0) }

// endCount is the end of a walk since whose predecessor n timewait sockets found
// no room.
func endCount(ts, n int64) events.Record {
	r := end(ts)
	r.Count = n
	return r
}

func lostRecords(ts, n int64) events.Record {
	r := rec(events.KindLost, ts, 0)
	r.Count = n
	return r
}

// in sets the namespace.
func in(ns uint32) opt { return func(r *events.Record) { r.NetNS = ns } }

func cookie(n uint64) opt { return func(r *events.Record) { r.Cookie = n } }

// flow sets both ends; "-" leaves an end unknown.
func flow(local, remote string) opt {
	return func(r *events.Record) {
		r.Local, r.Remote = addrPort(local), addrPort(remote)
		r.Family = 6
		if r.Local.Addr().Is4() || r.Remote.Addr().Is4() {
			r.Family = 4
		}
	}
}

func addrPort(s string) netip.AddrPort {
	if s == "-" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

func flags(f events.Flags) opt { return func(r *events.Record) { r.Flags |= f } }

// by is a process that acts on the socket, under its lock.
func by(pid uint32, comm string) opt {
	return func(r *events.Record) {
		r.PID, r.Comm = pid, comm
		r.Flags |= events.FlagActor | events.FlagLocked
	}
}

// pid names the process of an accept, a connect or a descriptor.
func pid(n uint32, comm string) opt {
	return func(r *events.Record) {
		r.PID, r.Comm = n, comm
		r.Flags |= events.FlagActor
	}
}

func errno(n uint16) opt { return func(r *events.Record) { r.Err = n } }
func srtt(us uint32) opt { return func(r *events.Record) { r.SRTTUS = us } }
func cgroup(id uint64, uid uint32) opt {
	return func(r *events.Record) { r.CgroupID, r.UID = id, uid }
}

// rx sets the bytes not read, a FIN counting one.
func rx(n uint32) opt {
	return func(r *events.Record) {
		r.RXPending = n
		r.Flags |= events.FlagPendingKnown
	}
}

func timer(ns int64) opt {
	return func(r *events.Record) {
		r.TimerNS = ns
		r.Flags |= events.FlagTimer
	}
}

// Shorthands of the states.
const (
	CLOSE     = events.Close
	LISTEN    = events.Listen
	SYNSENT   = events.SynSent
	SYNRECV   = events.SynRecv
	EST       = events.Established
	FW1       = events.FinWait1
	FW2       = events.FinWait2
	CLOSING   = events.Closing
	TW        = events.TimeWait
	CW        = events.CloseWait
	LASTACK   = events.LastAck
	held      = events.FlagHasSocket
	orphan    = events.FlagOrphan
	finRecvd  = events.FlagFINReceived
	bySegment = events.FlagSegment
)

// recorder writes what the table says in a form to compare:
//
//	+12.5ms #1 ESTABLISHED > FIN_WAIT1 in 12ms owner 7/curl(connect)
//	+60s #1 closed active local fin ...
type recorder struct {
	lines       []string
	transitions []events.Transition
	closed      []events.Closed
	lost        []events.Lost
	resyncs     []events.Resync
	verbose     bool // with addresses
}

func dur(ns int64) string {
	switch {
	case ns == events.Unknown:
		return "?"
	case ns%sec == 0:
		return fmt.Sprintf("%ds", ns/sec)
	case ns%ms == 0:
		return fmt.Sprintf("%dms", ns/ms)
	case ns%us == 0:
		return fmt.Sprintf("%dus", ns/us)
	}
	return fmt.Sprintf("%dns", ns)
}

func ownerText(c *events.Conn) string {
	if c.OwnerSrc == events.OwnerUnknown {
		if c.Owner != (events.Process{}) {
			return " owner without source"
		}
		return ""
	}
	return fmt.Sprintf(" %s=%d/%s", c.OwnerSrc, c.Owner.PID, c.Owner.Comm)
}

func (r *recorder) addresses(c *events.Conn) string {
	if !r.verbose {
		return ""
	}
	return fmt.Sprintf(" %v>%v", c.Local, c.Remote)
}

func (r *recorder) Transition(t *events.Transition) {
	r.transitions = append(r.transitions, *t)
	s := fmt.Sprintf("%s #%d%s %v>%v", dur(t.TS), t.ID, r.addresses(&t.Conn), t.Old, t.New)
	if t.InOld != events.Unknown {
		s += " in " + dur(t.InOld)
	}
	if t.InOldMin != events.Unknown {
		s += " in>=" + dur(t.InOldMin)
	}
	s += ownerText(&t.Conn)
	if t.Err != 0 {
		s += " " + events.ErrnoName(t.Err)
	}
	if !t.Exact {
		s += " ~"
	}
	r.lines = append(r.lines, s)
}

func (r *recorder) Closed(c *events.Closed) {
	keep := *c
	keep.States = append([]events.StateTime(nil), c.States...)
	r.closed = append(r.closed, keep)
	how := c.How.String()
	if how == "" {
		how = "?"
	}
	s := fmt.Sprintf("%s #%d%s closed %v by %v %s", dur(c.TS), c.ID, r.addresses(&c.Conn), c.Opened, c.Closer, how)
	if c.Reset != events.ResetNone {
		s += "/" + c.Reset.String()
	}
	if c.TimeWaitEnd != events.TimeWaitNone {
		s += " tw=" + c.TimeWaitEnd.String()
	}
	if c.TimeWaitOverflow {
		s += " overflow"
	}
	s += ownerText(&c.Conn)
	if c.ClosedBy.PID != 0 {
		s += fmt.Sprintf(" closed_by=%d/%s", c.ClosedBy.PID, c.ClosedBy.Comm)
	}
	if c.Err != 0 {
		s += " " + events.ErrnoName(c.Err)
	}
	var states []string
	for _, st := range c.States {
		states = append(states, fmt.Sprintf("%v=%s", st.State, dur(st.NS)))
	}
	s += " [" + strings.Join(states, " ") + "] total " + dur(c.TotalNS)
	if !c.Exact {
		s += " ~"
	}
	r.lines = append(r.lines, s)
}

func (r *recorder) Lost(l *events.Lost) {
	r.lost = append(r.lost, *l)
	r.lines = append(r.lines, fmt.Sprintf("%s lost %d of %d since %s", dur(l.TS), l.Count, l.Total, dur(l.Since)))
}

func (r *recorder) Limit(l *events.Limit) {
	r.lines = append(r.lines, fmt.Sprintf("%s limit %d forgotten %d of %d, untracked %d", dur(l.TS), l.Max, l.Count, l.Total, l.Untracked))
}

func (r *recorder) Resync(s *events.Resync) {
	r.resyncs = append(r.resyncs, *s)
	r.lines = append(r.lines, fmt.Sprintf("%s resync corrected %d removed %d added %d", dur(s.TS), s.Corrected, s.Removed, s.Added))
}

// scenario is records in and lines out.
type scenario struct {
	name    string
	hooks   Hooks
	records []events.Record
	want    string
	living  int  // connections left
	flush   bool // ends with Flush
	verbose bool
}

func (s *scenario) run(t *testing.T) {
	t.Helper()
	out := &recorder{verbose: s.verbose}
	table := New(Config{Hooks: s.hooks}, out)
	for i := range s.records {
		table.Add(&s.records[i])
	}
	if s.flush {
		table.Flush()
	}
	want := lines(s.want)
	for i := range max(len(want), len(out.lines)) {
		g, w := "", ""
		if i < len(out.lines) {
			g = out.lines[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("line %d:\n got %s\nwant %s", i+1, g, w)
		}
	}
	if got := table.Len(); got != s.living {
		t.Errorf("living: got %d, want %d", got, s.living)
	}
	check(t, table)
}

func lines(s string) (out []string) {
	for l := range strings.SplitSeq(s, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// check verifies that the table's parts agree with each other.
func check(t *testing.T, table *Table) {
	t.Helper()
	live, indexed, held, waits := 0, map[*namespace]int{}, 0, map[*namespace]int{}
	procs := make(map[uint32]uint32)
	orig := make(map[uint32]uint32)
	table.slab.each(func(i uint32, c *conn) bool {
		live++
		if c.sk != 0 {
			indexed[table.space(c)]++
			if table.index[c.sk] != i {
				t.Errorf("connection %d is at %x, the index has %d there", i, c.sk, table.index[c.sk])
			}
		}
		if c.has(isHeld) {
			held++
			if table.held[c.aux] != i {
				t.Errorf("connection %d is held at %d, where %d is", i, c.aux, table.held[c.aux])
			}
		}
		if c.has(isPending) {
			waits[table.space(c)]++
			if table.pending[c.aux].conn != i {
				t.Errorf("connection %d is pending at %d, where %d is", i, c.aux, table.pending[c.aux].conn)
			}
			if c.sk != 0 {
				t.Errorf("connection %d is pending and has an address", i)
			}
		}
		procs[c.owner]++
		procs[c.closedBy]++
		orig[c.origin]++
		return true
	})
	if live != table.Len() {
		t.Errorf("%d connections in the slab, Len is %d", live, table.Len())
	}
	total := 0
	for _, ns := range table.spaces {
		if ns.live != indexed[ns] || ns.pending != waits[ns] {
			t.Errorf("namespace %d: live %d pending %d, counted %d and %d", ns.inode, ns.live, ns.pending, indexed[ns], waits[ns])
		}
		total += ns.live
	}
	if total != len(table.index) {
		t.Errorf("%d connections of namespaces, %d in the index", total, len(table.index))
	}
	if held != len(table.held) {
		t.Errorf("%d held connections, list of %d", held, len(table.held))
	}
	for n, e := range table.procs.entries {
		if n != 0 && e.refs != procs[uint32(n)] {
			t.Errorf("process %v has %d references, counted %d", e.Process, e.refs, procs[uint32(n)])
		}
	}
	for n, e := range table.origins.entries {
		if n != 0 && e.refs != orig[uint32(n)] {
			t.Errorf("origin %v has %d references, counted %d", e.origin, e.refs, orig[uint32(n)])
		}
	}
}
