package account

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
)

const (
	ms  = int64(1e6)
	sec = int64(1e9)
)

var (
	client = events.Process{PID: 10, Comm: "client"}
	server = events.Process{PID: 20, Comm: "server"}
	worker = events.Process{PID: 21, Comm: "worker"}
)

func connOf(p events.Process, local, remote string) events.Conn {
	c := events.Conn{NetNS: 7, Family: 4, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Owner: p, UID: 0}
	if p.PID != 0 {
		c.OwnerSrc = events.OwnerConnect
	}
	return c
}

// step is a transition of c after a stay of exactly ns.
func step(c events.Conn, opened events.Opened, from, to events.State, ns int64) *events.Transition {
	return &events.Transition{Conn: c, Old: from, New: to, InOld: ns, InOldMin: events.Unknown, Exact: true, Opened: opened}
}

// churn tells a of n connections that the client opens, and closes first, and whose
// server's side a worker closes.
func churn(a *Account, n int) {
	out := connOf(client, "10.0.0.1:40000", "10.0.0.2:80")
	in := connOf(server, "10.0.0.2:80", "10.0.0.1:40000")
	for i := range int64(n) {
		a.Transition(step(out, events.OpenedActive, events.Close, events.SynSent, events.Unknown))
		a.Transition(step(out, events.OpenedActive, events.SynSent, events.Established, ms))
		a.Transition(step(in, events.OpenedPassive, events.Listen, events.SynRecv, events.Unknown))
		a.Transition(step(in, events.OpenedPassive, events.SynRecv, events.Established, 2*ms))
		a.Transition(step(out, events.OpenedActive, events.Established, events.FinWait1, (i+1)*ms))
		a.Transition(step(in, events.OpenedPassive, events.Established, events.CloseWait, (i+1)*ms))
		a.Transition(step(out, events.OpenedActive, events.FinWait1, events.FinWait2, ms/2))
		a.Transition(step(in, events.OpenedPassive, events.CloseWait, events.LastAck, 3*ms))
		tw := step(out, events.OpenedActive, events.FinWait2, events.TimeWait, 3*ms)
		tw.ClosedBy = client
		a.Transition(tw)
		a.Transition(step(in, events.OpenedPassive, events.LastAck, events.Close, ms))
		a.Closed(&events.Closed{Conn: in, Opened: events.OpenedPassive, Closer: events.SideRemote, How: events.HowFIN, ClosedBy: worker, Exact: true})
	}
}

func TestSummary(t *testing.T) {
	a := New(Config{Hooks: "fentry"})
	churn(a, 100)
	// One is reset by the server with data unread, one is refused, one times out.
	in := connOf(server, "10.0.0.2:80", "10.0.0.3:40001")
	a.Closed(&events.Closed{Conn: in, Closer: events.SideLocal, How: events.HowRST, Reset: events.ResetUnread, ClosedBy: server, Exact: true})
	out := connOf(client, "10.0.0.1:40002", "10.0.0.9:81")
	a.Closed(&events.Closed{Conn: out, Closer: events.SideRemote, How: events.HowRefused, Reset: events.ResetPeer, Exact: true})
	a.Closed(&events.Closed{Conn: out, Closer: events.SideNone, How: events.HowTimeout, Exact: false})
	// A TIME_WAIT from before the trace ends, another is seen whole.
	nobody := connOf(events.Process{}, "10.0.0.1:40003", "10.0.0.2:80")
	bound := step(nobody, events.OpenedUnknown, events.TimeWait, events.Close, events.Unknown)
	bound.InOldMin = 20 * sec
	a.Transition(bound)
	a.Closed(&events.Closed{Conn: nobody, Closer: events.SideUnknown, How: events.HowFIN, TimeWaitEnd: events.TimeWaitExpired})
	whole := step(out, events.OpenedActive, events.TimeWait, events.Close, 61*sec)
	whole.Exact = false
	a.Transition(whole)
	a.Closed(&events.Closed{Conn: out, Closer: events.SideLocal, How: events.HowFIN, TimeWaitEnd: events.TimeWaitReused, ClosedBy: client, Exact: true})
	a.Closed(&events.Closed{Conn: out, Closer: events.SideLocal, How: events.HowFIN, TimeWaitOverflow: true, ClosedBy: client, Exact: true})
	// It never came out how long this one was.
	a.Transition(step(nobody, events.OpenedUnknown, events.CloseWait, events.Close, events.Unknown))
	// Of those that are in TIME_WAIT now, three closed in the trace.
	for range 3 {
		a.Living(&aggregate.Info{Conn: out, State: events.TimeWait, Since: 90 * sec, SinceExact: true, Closer: events.SideLocal, ClosedBy: client}, 100*sec)
	}
	a.Living(&aggregate.Info{Conn: out, State: events.TimeWait, Since: 80 * sec, Closer: events.SideUnknown}, 100*sec)

	counts := [events.NumStates]int{events.TimeWait: 4, events.SynRecv: 5}
	s := a.Summary(End{Begin: 50 * sec, End: 100 * sec, Walked: true, Now: &counts})
	if s.Span() != 50*sec || !s.Exact() || !s.FromWalk || s.Hooks != "fentry" {
		t.Errorf("got %+v", s)
	}
	if s.Now[events.TimeWait] != 4 || s.Now[events.SynRecv] != 5 || s.Now[events.Established] != 0 {
		t.Errorf("now %v", s.Now)
	}
	total := s.Total
	if got, want := total.Opened, [3]uint64{0, 100, 100}; got != want {
		t.Errorf("opened %v, want %v", got, want)
	}
	if got, want := total.Ends.First, [5]uint64{events.SideUnknown: 1, events.SideLocal: 6, events.SideRemote: 101, events.SideNone: 1}; got != want {
		t.Errorf("first %v, want %v", got, want)
	}
	if got, want := total.Ends.How, [6]uint64{events.HowFIN: 106, events.HowRST: 1, events.HowRefused: 1, events.HowTimeout: 1}; got != want {
		t.Errorf("how %v, want %v", got, want)
	}
	if got, want := total.Ends.Reset, [5]uint64{events.ResetNone: 107, events.ResetUnread: 1, events.ResetPeer: 1}; got != want {
		t.Errorf("resets %v, want %v", got, want)
	}
	if total.Ends.Closed != 109 || total.Ends.Inexact != 2 || total.Ends.Matrix[events.SideLocal][events.HowRST][events.ResetUnread] != 1 {
		t.Errorf("ends %+v", total.Ends)
	}
	est := total.States[events.Established]
	if est.Left != 200 || est.Entered != 200 || est.Stay.Count != 200 || est.Stay.Max != 100*ms || est.Stay.Mean != 50*ms+ms/2 {
		t.Errorf("ESTABLISHED %+v", est)
	}
	tw := total.States[events.TimeWait]
	if tw.Entered != 100 || tw.Left != 2 || tw.Now != 4 || tw.Oldest != 20*sec || tw.OldestExact {
		t.Errorf("TIME_WAIT %+v", tw)
	}
	// The lower bound is in no quantile.
	if st := tw.Stay; st.Count != 1 || st.Approx != 1 || st.AtLeast != 1 || st.AtLeastMax != 20*sec || st.P50 != 61*sec || st.Max != 61*sec {
		t.Errorf("TIME_WAIT %+v", st)
	}
	if st := total.States[events.CloseWait].Stay; st.Unknown != 1 || st.Count != 100 {
		t.Errorf("CLOSE_WAIT %+v", st)
	}
	w := s.TimeWait
	if w.Entered != 100 || w.PerSecond != 2 || w.Steady != 120 || w.Mean != 61*sec || w.Overflow != 1 ||
		w.Ended != [6]uint64{events.TimeWaitExpired: 1, events.TimeWaitReused: 1} {
		t.Errorf("TIME_WAIT %+v", w)
	}
	if want := []TimeWaitBy{{Process: client, Remote: out80(), Entered: 100, PerSecond: 2}}; !reflect.DeepEqual(w.By, want) {
		t.Errorf("by %+v, want %+v", w.By, want)
	}
	var by []events.Process
	for _, c := range s.ClosedBy {
		by = append(by, c.Process)
	}
	if want := []events.Process{worker, client, server}; !slices.Equal(by, want) || s.ClosedBy[0].First[events.SideRemote] != 100 {
		t.Errorf("closed by %+v, want %v", s.ClosedBy, want)
	}
	var names []events.Process
	closed := uint64(0)
	for _, g := range s.Groups {
		names = append(names, g.Key.Process)
		closed += g.Ends.Closed
	}
	if want := []events.Process{server, client, {}}; !slices.Equal(names, want) || closed != total.Ends.Closed || s.Others != nil {
		t.Errorf("groups %v, want %v; closed %d", names, want, closed)
	}
}

func out80() netip.AddrPort { return netip.MustParseAddrPort("10.0.0.2:80") }

func TestGroups(t *testing.T) {
	out, in := connOf(client, "10.0.0.1:40000", "10.0.0.2:80"), connOf(server, "10.0.0.2:80", "10.0.0.1:40000")
	in.Cgroup, in.CgroupID, in.NetNS = "/a", 5, 8
	listener := connOf(server, "10.0.0.2:80", "0.0.0.0:0")
	for by, want := range map[By][]Key{
		ByProcess:   {{Process: client}, {Process: server}},
		ByRemote:    {{Remote: out80()}, {Remote: netip.MustParseAddrPort("10.0.0.1:0")}, {}},
		ByLocalPort: {{Port: 40000}, {Port: 80}},
		ByCgroup:    {{}, {Cgroup: "/a", CgroupID: 5}},
		ByNetNS:     {{NetNS: 7}, {NetNS: 8}},
	} {
		t.Run(by.String(), func(t *testing.T) {
			a := New(Config{By: by})
			a.Closed(&events.Closed{Conn: out, Opened: events.OpenedActive, Closer: events.SideLocal, How: events.HowFIN})
			a.Closed(&events.Closed{Conn: in, Opened: events.OpenedPassive, Closer: events.SideLocal, How: events.HowFIN})
			if by == ByRemote {
				a.Transition(step(listener, events.OpenedUnknown, events.Listen, events.Close, sec))
			}
			var got []Key
			for _, g := range a.Summary(End{End: 1}).Groups {
				got = append(got, g.Key)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if parsed, ok := ParseBy(by.String()); !ok || parsed != by {
				t.Errorf("%s is not read back", by)
			}
		})
	}
}

// A loss is in the summary, and the counts of the kernel's last walk beside it.
func TestLost(t *testing.T) {
	a := New(Config{})
	a.Lost(&events.Lost{TS: 5, Count: 3, Total: 3, Since: 2})
	a.Lost(&events.Lost{TS: 9, Count: 4, Total: 7, Since: 8})
	a.Resync(&events.Resync{Corrected: 1, Removed: 2, Added: 3})
	a.Resync(&events.Resync{Corrected: 10})
	s := a.Summary(End{End: 10, Stats: aggregate.Stats{Vanished: 5}})
	if s.Exact() || s.Lost != (Lost{Count: 7, Times: 2, Since: 2}) || s.Resyncs != (Resyncs{2, 11, 2, 3}) || s.Vanished != 5 {
		t.Errorf("got %+v", s)
	}
}

// Beyond the limit nothing is lost but who it was; those that matter stay.
func TestFolded(t *testing.T) {
	a := New(Config{})
	const crowd, busy = 5000, 7
	total := uint64(0)
	for i := range crowd {
		c := connOf(events.Process{PID: uint32(i + 1000), Comm: "short"}, "10.0.0.1:40000", "10.0.0.2:80")
		a.Transition(step(c, events.OpenedActive, events.SynSent, events.Established, int64(i)))
		a.Closed(&events.Closed{Conn: c, Closer: events.SideLocal, How: events.HowFIN, ClosedBy: c.Owner})
		total++
		if i%100 == 0 {
			for range 10 {
				p := events.Process{PID: uint32(i/100%busy + 1), Comm: "busy"}
				a.Closed(&events.Closed{Conn: connOf(p, "10.0.0.1:1", "10.0.0.2:80"), Closer: events.SideRemote, How: events.HowFIN, ClosedBy: p})
				total++
			}
		}
	}
	s := a.Summary(End{End: sec})
	if len(s.Groups) > maxGroups || s.Folded == 0 || s.Others == nil {
		t.Fatalf("%d groups, %d folded", len(s.Groups), s.Folded)
	}
	sum := s.Others.Ends.Closed
	stays := s.Others.States[events.SynSent].Stay.Count
	for i, g := range s.Groups {
		if (i < busy) != (g.Key.Process.Comm == "busy") {
			t.Errorf("group %d is %v", i, g.Key.Process)
		}
		sum += g.Ends.Closed
		stays += g.States[events.SynSent].Stay.Count
	}
	if s.Total.Ends.Closed != total || sum != total {
		t.Errorf("closed %d, in groups %d, want %d", s.Total.Ends.Closed, sum, total)
	}
	if st := s.Total.States[events.SynSent].Stay; st.Count != crowd || stays != crowd || st.Max != crowd-1 {
		t.Errorf("%d stays, in groups %d, want %d; max %d", st.Count, stays, crowd, st.Max)
	}
	by := s.ClosedByOthers
	for _, c := range s.ClosedBy {
		by += c.Closed
	}
	if by != total {
		t.Errorf("closed by %d, want %d", by, total)
	}
}

// The same records give the same account, also where it was folded.
func TestDeterministic(t *testing.T) {
	run := func() *Summary {
		a := New(Config{By: ByRemote})
		r := rand.New(rand.NewPCG(1, 2))
		for range 20000 {
			remote := fmt.Sprintf("10.%d.%d.1:80", r.IntN(20), r.IntN(200))
			c := connOf(client, "10.0.0.1:40000", remote)
			a.Transition(step(c, events.OpenedActive, events.SynSent, events.Established, r.Int64N(sec)))
			a.Closed(&events.Closed{Conn: c, Opened: events.OpenedActive, Closer: events.Side(r.IntN(5)), How: events.HowFIN, ClosedBy: client})
		}
		return a.Summary(End{End: sec})
	}
	first := run()
	if first.Folded == 0 {
		t.Fatal("nothing was folded: the test shows too little")
	}
	for range 3 {
		if !reflect.DeepEqual(run(), first) {
			t.Fatal("two runs differ")
		}
	}
}

// What most events do, once the groups and histograms are there, allocates nothing.
func TestAllocs(t *testing.T) {
	a := New(Config{})
	churn(a, 1000)
	if n := testing.AllocsPerRun(100, func() { churn(a, 10) }); n > 0 {
		t.Errorf("%v allocations in 110 events", n)
	}
}

func BenchmarkAccount(b *testing.B) {
	for _, by := range []By{ByProcess, ByRemote} {
		b.Run(by.String(), func(b *testing.B) {
			a := New(Config{By: by})
			events := benchEvents()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				switch e := events[i%len(events)].(type) {
				case *transition:
					a.Transition(e)
				case *closed:
					a.Closed(e)
				}
			}
		})
	}
}

type (
	transition = events.Transition
	closed     = events.Closed
)

// benchEvents is the events of connections of 16 processes to 16 remotes, mixed.
func benchEvents() []any {
	r := rand.New(rand.NewPCG(3, 4))
	var lives [][]any
	for i := range 1000 {
		p := events.Process{PID: uint32(100 + i%16), Comm: "worker"}
		c := connOf(p, fmt.Sprintf("10.0.0.1:%d", 30000+i), fmt.Sprintf("10.0.0.%d:80", 2+i%16))
		stay := func() int64 { return int64(float64(ms) * r.ExpFloat64() * 20) }
		lives = append(lives, []any{
			step(c, events.OpenedActive, events.Close, events.SynSent, events.Unknown),
			step(c, events.OpenedActive, events.SynSent, events.Established, stay()),
			step(c, events.OpenedActive, events.Established, events.FinWait1, stay()),
			step(c, events.OpenedActive, events.FinWait1, events.FinWait2, stay()),
			step(c, events.OpenedActive, events.FinWait2, events.TimeWait, stay()),
			step(c, events.OpenedActive, events.TimeWait, events.Close, 60*sec+stay()),
			&closed{Conn: c, Opened: events.OpenedActive, Closer: events.SideLocal, How: events.HowFIN, TimeWaitEnd: events.TimeWaitExpired, ClosedBy: p, Exact: true},
		})
	}
	var all []any
	for len(lives) > 0 {
		i := r.IntN(min(len(lives), 50))
		all = append(all, lives[i][0])
		if lives[i] = lives[i][1:]; len(lives[i]) == 0 {
			lives = slices.Delete(lives, i, i+1)
		}
	}
	return all
}
