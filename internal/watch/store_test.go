package watch

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

const (
	sec = int64(1e9)
	ms  = int64(1e6)
	ns1 = uint32(4026531840)
)

// feeder writes records as the tracer does.
type feeder struct {
	s     *Store
	ts    int64
	procs fakeProcs
}

type fakeProcs map[uint32]Process

func (fakeProcs) Refresh() {}

func (f fakeProcs) Process(pid uint32) (Process, bool) {
	p, ok := f[pid]
	return p, ok
}

func process(comm string, start int64) Process {
	return Process{Comm: comm, UID: 1000, Cmdline: []string{"/usr/bin/" + comm}, NofileSoft: 1024, OpenFDs: 10, StartTS: start}
}

func newFeeder(states ...events.State) *feeder {
	f := &feeder{ts: 100 * sec, procs: fakeProcs{}}
	f.s = NewStore(Config{States: events.Set(states...), Processes: f.procs})
	return f
}

// sock makes a socket with everything that a test may change.
func (f *feeder) sock(sk uint64, state events.State) events.Record {
	return events.Record{
		Kind: events.KindSocket, SK: sk, Cookie: sk + 1000, NetNS: ns1, Family: 4, New: state, UID: 33,
		Local:  netip.MustParseAddrPort("10.0.0.1:8080"),
		Remote: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(10000+sk%50000)),
		PeerSK: sk + 1<<40,
		Flags:  events.FlagHasSocket | events.FlagPendingKnown | events.FlagFINReceived | events.FlagTimer,
	}
}

func (f *feeder) listener(sk uint64, local string, family uint8) events.Record {
	return events.Record{
		Kind: events.KindSocket, SK: sk, Cookie: sk + 1000, NetNS: ns1, Family: family, New: events.Listen,
		Local: netip.MustParseAddrPort(local), PeerSK: sk + 1<<40, Flags: events.FlagHasSocket | events.FlagPendingKnown,
	}
}

func (f *feeder) add(rs ...events.Record) {
	for _, r := range rs {
		if r.TS == 0 {
			f.ts += 1000
			r.TS = f.ts
		}
		f.s.Add(&r)
	}
}

// move tells of a transition of the socket r, which it returns in its new state.
func (f *feeder) move(r events.Record, to events.State) events.Record {
	t := r
	t.Kind, t.Old, t.New = events.KindTransition, r.New, to
	f.add(t)
	r.New = to
	return r
}

type hold1 struct {
	sk   uint64
	pid  uint32
	comm string
	fd   uint32
}

// scan walks over one namespace.
func (f *feeder) scan(netns uint32, socks ...events.Record) {
	f.add(events.Record{Kind: events.KindScanBegin, NetNS: netns})
	f.add(socks...)
	f.add(events.Record{Kind: events.KindScanEnd, NetNS: netns})
}

func (f *feeder) holders(holds ...hold1) {
	f.add(events.Record{Kind: events.KindHoldersBegin})
	for _, h := range holds {
		f.add(events.Record{Kind: events.KindHolder, SK: h.sk, PeerSK: h.sk + 1<<40, PID: h.pid, Comm: h.comm, FD: h.fd})
	}
	f.add(events.Record{Kind: events.KindHoldersEnd})
}

func (f *feeder) snapshot() *Snapshot {
	f.ts += 1000
	return f.s.Snapshot(f.ts)
}

// groups writes a snapshot's groups as lines.
func groups(snap *Snapshot) []string {
	var out []string
	for _, g := range snap.Groups {
		var reasons []string
		for _, r := range slices.Sorted(maps.Keys(g.Reasons)) {
			reasons = append(reasons, fmt.Sprintf("%s=%d", r, g.Reasons[r]))
		}
		line := fmt.Sprintf("%s %d/%s %d %s", g.State, g.PID, g.Comm, g.Count, strings.Join(reasons, ","))
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

func wantGroups(t *testing.T, snap *Snapshot, want ...string) {
	t.Helper()
	if got := groups(snap); !slices.Equal(got, want) {
		t.Errorf("groups\n got %q\nwant %q", got, want)
	}
}

func TestReasons(t *testing.T) {
	const noSocket = ^events.FlagHasSocket
	tests := []struct {
		name    string
		change  func(r *events.Record)
		held    bool
		reason  Reason
		rx      uint32
		fin     bool
		known   bool
		verdict string
		pid     uint32
	}{
		{"drained", func(r *events.Record) {}, true, ReasonDrained, 0, false, true,
			"1 socket drained, never closed: look for a missing close() after read returns 0", 7},
		{"fin unread", func(r *events.Record) { r.RXPending = 1 }, true, ReasonFinUnread, 0, true, true,
			"1 socket read to the end but for the peer's FIN, nobody looks at them: a pool's idle connections, responses never closed, or handlers that are busy elsewhere", 7},
		{"unread", func(r *events.Record) { r.RXPending = 20481 }, true, ReasonUnread, 20480, true, true,
			"1 socket unread, 20 KiB waiting: the process does not read them", 7},
		{"not accepted", func(r *events.Record) { r.RXPending = 101; r.Flags &= noSocket; r.PeerSK = 0 }, false,
			ReasonNotAccepted, 100, true, true, "backlog of :8080 not accepted: 1 waiting", 8},
		{"kernel", func(r *events.Record) { r.Flags |= events.FlagKernelSocket; r.RXPending = 5 }, false,
			ReasonKernel, 4, true, true, "1 socket of the kernel itself: no process can close them", 0},
		{"kernel's, but a process holds it", func(r *events.Record) { r.Flags |= events.FlagKernelSocket }, true,
			ReasonDrained, 0, false, true, "1 socket drained, never closed: look for a missing close() after read returns 0", 7},
		{"MPTCP subflow without holder", func(r *events.Record) { r.Flags |= events.FlagKernelSocket | events.FlagMPTCP }, false,
			ReasonDrained, 0, false, true,
			"1 socket drained, never closed: look for a missing close() after read returns 0; no process is seen to hold them", 0},
		{"no holder", func(r *events.Record) { r.RXPending = 2 }, false, ReasonUnread, 1, true, true,
			"1 socket unread, 1 byte waiting: the process does not read them; no process is seen to hold them", 0},
		{"orphan", func(r *events.Record) { r.Flags = r.Flags&noSocket | events.FlagOrphan }, false, ReasonNone, 0, false, true,
			"1 socket for a reason that is not known; no process is seen to hold them", 0},
		{"pending unknown", func(r *events.Record) { r.Flags &^= events.FlagPendingKnown }, true, ReasonNone, 0, false, false,
			"1 socket for a reason that is not known", 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(events.CloseWait)
			f.procs[7], f.procs[8] = process("app", 0), process("srv", 0)
			r := f.sock(1, events.CloseWait)
			tt.change(&r)
			f.scan(ns1, f.listener(50, "0.0.0.0:8080", 4), r)
			holds := []hold1{{50, 8, "srv", 3}}
			if tt.held {
				holds = append(holds, hold1{1, 7, "app", 12})
			}
			f.holders(holds...)
			snap := f.snapshot()
			if len(snap.Groups) != 1 || len(snap.Groups[0].Sockets) != 1 || snap.Total != 1 {
				t.Fatalf("got %d groups, total %d: want one socket", len(snap.Groups), snap.Total)
			}
			g := snap.Groups[0]
			s := g.Sockets[0]
			if s.Reason != tt.reason || s.RXPending != tt.rx || s.FinPend != tt.fin || s.PendingKnown != tt.known {
				t.Errorf("got %v, %d bytes, fin %v, known %v: want %v, %d, %v, %v",
					s.Reason, s.RXPending, s.FinPend, s.PendingKnown, tt.reason, tt.rx, tt.fin, tt.known)
			}
			if g.Verdict != tt.verdict {
				t.Errorf("verdict\n got %q\nwant %q", g.Verdict, tt.verdict)
			}
			if g.PID != tt.pid {
				t.Errorf("under process %d: want %d", g.PID, tt.pid)
			}
			if (tt.reason == ReasonNotAccepted) != (s.Listener != nil) {
				t.Errorf("listener is %v", s.Listener)
			}
		})
	}
}

func TestSeveralReasonsDominatingFirst(t *testing.T) {
	f := newFeeder(events.CloseWait)
	var socks []events.Record
	var holds []hold1
	for sk := range uint64(9) {
		r := f.sock(sk+1, events.CloseWait)
		switch {
		case sk < 2:
			r.RXPending = 11
		case sk < 3:
			r.RXPending = 1
		case sk < 4:
			r.RXPending = 7
			r.Flags &^= events.FlagHasSocket
		}
		socks = append(socks, r)
		if sk != 3 {
			holds = append(holds, hold1{sk + 1, 7, "app", uint32(sk) + 4})
		}
	}
	f.scan(ns1, append(socks, f.listener(50, "0.0.0.0:8080", 4))...)
	f.holders(append(holds, hold1{50, 7, "app", 3})...)
	snap := f.snapshot()
	wantGroups(t, snap, "CLOSE_WAIT 7/app 9 not-accepted=1,unread=2,fin-unread=1,drained=5")
	want := "5 sockets drained, never closed: look for a missing close() after read returns 0; " +
		"2 sockets unread, 20 bytes waiting: the process does not read them; " +
		"backlog of :8080 not accepted: 1 waiting; 1 socket read to the end but for the peer's FIN, nobody looks at them: a pool's idle connections, responses never closed, or handlers that are busy elsewhere"
	if got := snap.Groups[0].Verdict; got != want {
		t.Errorf("verdict\n got %q\nwant %q", got, want)
	}
	if got := snap.Groups[0].Unread; got != 26 {
		t.Errorf("got %d bytes unread: want 26", got)
	}
}

func TestAge(t *testing.T) {
	t.Run("a lower bound never decreases, a transition makes it exact", func(t *testing.T) {
		f := newFeeder(events.CloseWait)
		r := f.sock(1, events.CloseWait)
		r.TimerNS = 30 * sec
		f.scan(ns1, r)
		first := f.snapshot().Groups[0].Sockets[0]
		if first.AgeExact || first.Since != events.Unknown || first.Age < 30*sec || first.Age > 30*sec+ms {
			t.Errorf("got age %d, exact %v, since %d: want a bound of 30 s", first.Age, first.AgeExact, first.Since)
		}
		// The application sent; its ACK is the last segment now.
		f.ts += sec
		r.TimerNS = ms
		f.scan(ns1, r)
		second := f.snapshot().Groups[0].Sockets[0]
		if second.Age < first.Age+sec || second.AgeExact {
			t.Errorf("got age %d after %d: want a second more", second.Age, first.Age)
		}
		f.ts += sec
		r = f.move(r, events.LastAck)
		if snap := f.snapshot(); snap.Total != 0 || len(snap.Groups) != 0 {
			t.Errorf("got %d sockets after the close: want none", snap.Total)
		}
		r = f.sock(2, events.Established)
		r = f.move(r, events.CloseWait)
		at := f.ts
		f.ts += 5 * sec
		r.TimerNS = 20 * sec // rcv_tstamp has the resolution of a jiffy: the transition counts
		f.scan(ns1, r)
		got := f.snapshot().Groups[0].Sockets[0]
		if !got.AgeExact || got.Since != at || got.Age != f.ts-at {
			t.Errorf("got age %d, exact %v, since %d: want %d since %d", got.Age, got.AgeExact, got.Since, f.ts-at, at)
		}
	})
	t.Run("others since first seen", func(t *testing.T) {
		f := newFeeder(events.Established)
		r := f.sock(1, events.Established)
		r.TimerNS = 30 * sec
		f.scan(ns1, r)
		f.ts += 3 * sec
		f.scan(ns1, r)
		got := f.snapshot().Groups[0].Sockets[0]
		if got.AgeExact || got.Age < 3*sec || got.Age > 4*sec {
			t.Errorf("got age %d, exact %v: want a bound of 3 s", got.Age, got.AgeExact)
		}
	})
	t.Run("the walk saw the state before the hook's record", func(t *testing.T) {
		f := newFeeder(events.CloseWait)
		r := f.sock(1, events.CloseWait)
		r.TimerNS = 40
		f.scan(ns1, r)
		r.New = events.Established
		f.move(r, events.CloseWait)
		at := f.ts
		if got := f.snapshot().Groups[0].Sockets[0]; !got.AgeExact || got.Since != at {
			t.Errorf("got since %d, exact %v: want %d", got.Since, got.AgeExact, at)
		}
	})
}

func TestLeaving(t *testing.T) {
	f := newFeeder(events.CloseWait)
	a, b, c := f.sock(1, events.CloseWait), f.sock(2, events.CloseWait), f.sock(3, events.Established)
	f.scan(ns1, a, b)
	f.holders(hold1{1, 7, "app", 4}, hold1{2, 7, "app", 5})
	if got := f.snapshot().Total; got != 2 {
		t.Fatalf("got %d sockets: want 2", got)
	}
	// One leaves with its transition, at once. A walk that read its state before
	// it was stored does not bring it back.
	f.move(a, events.LastAck)
	f.add(a)
	if got := f.snapshot().Total; got != 1 {
		t.Errorf("got %d sockets after one left: want 1", got)
	}
	// One leaves unseen; another enters after the scan has begun, which misses it.
	f.ts += sec
	f.add(events.Record{Kind: events.KindScanBegin, NetNS: ns1})
	c = f.move(c, events.CloseWait)
	f.add(events.Record{Kind: events.KindScanEnd, NetNS: ns1})
	snap := f.snapshot()
	if snap.Total != 1 || snap.Groups[0].Sockets[0].Cookie != c.Cookie {
		t.Errorf("got %d sockets after the scan: want the one that entered meanwhile", snap.Total)
	}
	// A scan of another namespace, and one that does not end, remove nothing.
	f.ts += sec
	f.scan(ns1 + 1)
	f.add(events.Record{Kind: events.KindScanBegin, NetNS: ns1})
	if got := f.snapshot().Total; got != 1 {
		t.Errorf("got %d sockets: want 1", got)
	}
}

func TestNamespaceEnds(t *testing.T) {
	f := newFeeder(events.CloseWait)
	a := f.sock(1, events.CloseWait)
	b := f.sock(2, events.CloseWait)
	b.NetNS = ns1 + 1
	never := f.sock(3, events.Established)
	never.NetNS = ns1 + 2 // cannot be entered: only transitions tell of it
	f.scan(ns1, a)
	f.scan(ns1+1, b)
	f.holders()
	f.move(never, events.CloseWait)
	if got := f.snapshot().Total; got != 3 {
		t.Fatalf("got %d sockets: want 3", got)
	}
	f.ts += sec
	f.scan(ns1, a)
	f.holders()
	snap := f.snapshot()
	var left []uint32
	for _, s := range snap.Groups[0].Sockets {
		left = append(left, s.NetNS)
	}
	slices.Sort(left)
	if want := []uint32{ns1, ns1 + 2}; !slices.Equal(left, want) {
		t.Errorf("got sockets of namespaces %v: want %v", left, want)
	}
}

func TestAddressReuse(t *testing.T) {
	f := newFeeder(events.CloseWait)
	old := f.sock(1, events.CloseWait)
	old.TimerNS = 600 * sec
	f.scan(ns1, old)
	id := f.snapshot().Groups[0].Sockets[0].ID
	for _, tt := range []struct {
		name string
		next func(r *events.Record)
		same bool
	}{
		{"the same socket", func(r *events.Record) {}, true},
		{"another cookie", func(r *events.Record) { r.Cookie = 77 }, false},
		{"no cookies, another remote", func(r *events.Record) {
			r.Cookie, r.Remote = 0, netip.MustParseAddrPort("10.9.9.9:9")
		}, false},
	} {
		next := old
		next.TimerNS = sec
		tt.next(&next)
		f.ts += sec
		f.scan(ns1, next)
		got := f.snapshot().Groups[0].Sockets[0]
		if (got.ID == id) != tt.same || (got.Age > 500*sec) != tt.same {
			t.Errorf("%s: got id %d after %d, age %d: same %v", tt.name, got.ID, id, got.Age, tt.same)
		}
		id, old = got.ID, next
	}
}

func TestProcessDies(t *testing.T) {
	f := newFeeder(events.CloseWait)
	a, b := f.sock(1, events.CloseWait), f.sock(2, events.CloseWait)
	f.scan(ns1, a, b)
	f.holders(hold1{1, 7, "app", 4}, hold1{2, 7, "app", 5}, hold1{2, 9, "child", 5})
	wantGroups(t, f.snapshot(), "CLOSE_WAIT 7/app 2 drained=2", "CLOSE_WAIT 9/child 1 drained=1")
	// Its death closed the socket that it alone held.
	f.move(a, events.LastAck)
	f.scan(ns1, b)
	f.holders(hold1{2, 9, "child", 5})
	wantGroups(t, f.snapshot(), "CLOSE_WAIT 9/child 1 drained=1")
}

func TestSharedSocketCountsOnce(t *testing.T) {
	f := newFeeder(events.CloseWait)
	f.scan(ns1, f.sock(1, events.CloseWait))
	// The walk goes by thread: a process' descriptors may come in pieces.
	f.holders(hold1{1, 9, "child", 6}, hold1{1, 7, "app", 4}, hold1{1, 9, "child", 5})
	snap := f.snapshot()
	wantGroups(t, snap, "CLOSE_WAIT 7/app 1 drained=1", "CLOSE_WAIT 9/child 1 drained=1")
	if snap.Total != 1 || snap.Counts[events.CloseWait] != 1 {
		t.Errorf("got total %d, %d in CLOSE_WAIT: want 1", snap.Total, snap.Counts[events.CloseWait])
	}
	var got []string
	for _, h := range snap.Groups[0].Sockets[0].Holders {
		got = append(got, fmt.Sprint(h.PID, h.FDs))
	}
	if want := []string{"7 [4]", "9 [5 6]"}; !slices.Equal(got, want) {
		t.Errorf("got holders %q: want %q", got, want)
	}
}

func TestPIDReuse(t *testing.T) {
	f := newFeeder(events.CloseWait)
	r := f.sock(1, events.CloseWait)
	f.procs[7] = process("app", 10*sec)
	f.scan(ns1, r)
	f.holders(hold1{1, 7, "app", 4})
	if h := f.snapshot().Groups[0].Holder; h.NofileSoft != 1024 || h.Cmdline == nil {
		t.Fatalf("got %+v: want what /proc tells", h)
	}
	// Between the walk and the look into /proc another program got the number.
	f.procs[7] = process("app", f.ts+sec)
	f.ts += 2 * sec
	if h := f.snapshot().Groups[0].Holder; h.NofileSoft != -1 || h.OpenFDs != -1 || h.Cmdline != nil || h.Comm != "app" {
		t.Errorf("got %+v: want nothing of the other process", h)
	}
	// As where /proc counts otherwise than the kernel does.
	f.procs[7] = process("other", sec)
	if h := f.snapshot().Groups[0].Holder; h.Cmdline != nil || h.UID != events.Unknown {
		t.Errorf("got %+v: want nothing of the other process", h)
	}
	// The new one is a group of its own, whose growth begins anew.
	started := f.ts
	f.procs[7] = process("app", started)
	for range 70 {
		f.ts += sec
		f.scan(ns1, r)
		f.holders(hold1{1, 7, "app", 4})
		f.snapshot()
	}
	if g := f.snapshot().Groups[0]; !g.GrowthKnown || g.GrowthPerMin != 0 {
		t.Errorf("got growth %v, known %v: want 0", g.GrowthPerMin, g.GrowthKnown)
	}
	f.procs[7] = process("app", f.ts)
	f.ts += sec
	f.scan(ns1, r)
	f.holders(hold1{1, 7, "app", 4})
	if g := f.snapshot().Groups[0]; g.GrowthKnown {
		t.Errorf("got growth %v of a process that began a second ago: want none", g.GrowthPerMin)
	}
}

func TestGrowth(t *testing.T) {
	for _, interval := range []int64{200 * ms, 2 * sec, 7 * sec} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			f := newFeeder(events.CloseWait)
			p := process("leaky", sec)
			var socks []events.Record
			var holds []hold1
			leak := func() {
				sk := uint64(len(socks) + 1)
				r := f.move(f.sock(sk, events.Established), events.CloseWait)
				socks = append(socks, r)
				holds = append(holds, hold1{sk, 7, "leaky", uint32(sk) + 3})
			}
			begin := f.ts
			last := begin
			for f.ts < begin+150*sec {
				f.ts = last + interval
				last = f.ts
				for want := (f.ts - begin) * 7 / sec; int64(len(socks)) < want; {
					leak()
				}
				p.OpenFDs = int64(len(socks)) + 3
				p.NofileSoft = 4096
				f.procs[7] = p
				f.scan(ns1, socks...)
				f.holders(holds...)
				snap := f.snapshot()
				if len(snap.Groups) == 0 {
					continue
				}
				g := snap.Groups[0]
				// From the first snapshot with the group on.
				if age := f.ts - begin - interval; g.GrowthKnown && age < 60*sec-sec {
					t.Fatalf("growth is known after %d s", age/sec)
				} else if !g.GrowthKnown && age > 70*sec {
					t.Fatalf("growth is not known after %d s", age/sec)
				}
				if !g.GrowthKnown {
					continue
				}
				if g.GrowthPerMin < 0.9*420 || g.GrowthPerMin > 1.1*420 {
					t.Errorf("got %.1f per minute: want 420 within 10 %%", g.GrowthPerMin)
				}
				truth := float64(4096-p.OpenFDs) / 7 * 1e9
				if got := float64(g.LimitIn); got < 0.8*truth || got > 1.2*truth {
					t.Errorf("got %.1f s to the limit: want %.1f within 20 %%", got/1e9, truth/1e9)
				}
			}
			if len(socks) != 1050 && interval != 7*sec {
				t.Errorf("leaked %d: the test is wrong", len(socks))
			}
			points := 0
			for _, h := range f.s.growth {
				points += len(h.points)
			}
			if points > 65 {
				t.Errorf("%d points kept: want at most one in 5 s", points)
			}
		})
	}
}

func TestGrowthOfBacklogTakesNoDescriptor(t *testing.T) {
	f := newFeeder(events.CloseWait)
	p := process("srv", sec)
	f.procs[8] = p
	var socks []events.Record
	for i := range 100 {
		f.ts += sec
		r := f.sock(uint64(i)+1, events.CloseWait)
		r.Flags &^= events.FlagHasSocket
		socks = append(socks, r)
		f.scan(ns1, append(slices.Clone(socks), f.listener(500, "0.0.0.0:8080", 4))...)
		f.holders(hold1{500, 8, "srv", 3})
		f.snapshot()
	}
	g := f.snapshot().Groups[0]
	if g.PID != 8 || g.Count != 100 || !g.GrowthKnown || g.GrowthPerMin < 54 || g.GrowthPerMin > 66 {
		t.Errorf("got %d under %d, growth %v: want 100 under 8, 60", g.Count, g.PID, g.GrowthPerMin)
	}
	if g.LimitIn != events.Unknown {
		t.Errorf("got the limit in %d: a backlog takes no descriptors", g.LimitIn)
	}
}

func TestRanks(t *testing.T) {
	f := newFeeder(events.CloseWait)
	var socks []events.Record
	var holds []hold1
	for i, h := range []struct {
		pid uint32
		age int64
	}{{5, 10}, {6, 50}, {7, 20}, {7, 1}} {
		sk := uint64(i + 1)
		r := f.sock(sk, events.CloseWait)
		r.TimerNS = h.age * sec
		socks = append(socks, r)
		holds = append(holds, hold1{sk, h.pid, "app", 4})
	}
	f.scan(ns1, socks...)
	f.holders(holds...)
	snap := f.snapshot()
	wantGroups(t, snap, "CLOSE_WAIT 7/app 2 drained=2", "CLOSE_WAIT 6/app 1 drained=1", "CLOSE_WAIT 5/app 1 drained=1")
	g := snap.Groups[0]
	if g.AllAges || g.Oldest/sec != 20 || g.Median/ms < 10500 || g.Median/ms > 10502 {
		t.Errorf("got oldest %d, median %d, exact %v: want 20 s, 10.5 s, bounds", g.Oldest, g.Median, g.AllAges)
	}
	if g.Sockets[0].Age < g.Sockets[1].Age {
		t.Error("the younger socket comes first")
	}
}

func TestListeners(t *testing.T) {
	v6 := func(local string) func(*events.Record) {
		return func(r *events.Record) {
			r.Family, r.Local = 6, netip.MustParseAddrPort(local)
			r.Remote = netip.MustParseAddrPort("[2001:db8::2]:4000")
		}
	}
	v4 := func(*events.Record) {}
	type l struct {
		local  string
		family uint8
		holds  []hold1
	}
	held := func(pids ...uint32) (list []hold1) {
		for _, pid := range pids {
			list = append(list, hold1{0, pid, "srv", 3})
		}
		return list
	}
	const alone = "backlog of :8080 not accepted: 1 waiting"
	tests := []struct {
		name      string
		child     func(*events.Record)
		listeners []l
		want      uint32
		all       []uint32 // who could accept
		fds       int      // of each of these
		verdict   string
	}{
		{"wildcard", v4, []l{{"0.0.0.0:8080", 4, held(8)}}, 8, []uint32{8}, 1, alone},
		{"exact", v4, []l{{"10.0.0.1:8080", 4, held(8)}}, 8, []uint32{8}, 1, alone},
		{"exact before wildcard", v4, []l{{"0.0.0.0:8080", 4, held(8)}, {"10.0.0.1:8080", 4, held(9)}}, 9, []uint32{9}, 1, alone},
		{"another address", v4, []l{{"10.0.0.9:8080", 4, held(8)}}, 0, nil, 0, alone},
		{"another port", v4, []l{{"10.0.0.1:8081", 4, held(8)}}, 0, nil, 0, alone},
		{"IPv4 on ::", v4, []l{{"[::]:8080", 6, held(8)}}, 8, []uint32{8}, 1, alone},
		{"IPv4 before ::", v4, []l{{"[::]:8080", 6, held(8)}, {"0.0.0.0:8080", 4, held(9)}}, 9, []uint32{9}, 1, alone},
		{"IPv6 on ::", v6("[2001:db8::1]:8080"), []l{{"[::]:8080", 6, held(8)}, {"0.0.0.0:8080", 4, held(9)}}, 8, []uint32{8}, 1, alone},
		{"link-local", v6("[fe80::1%2]:8080"), []l{{"[fe80::1]:8080", 6, held(8)}}, 8, []uint32{8}, 1, alone},
		{"no IPv6 on IPv4", v6("[2001:db8::1]:8080"), []l{{"0.0.0.0:8080", 4, held(9)}}, 0, nil, 0, alone},
		{"SO_REUSEPORT, one process", v4, []l{{"0.0.0.0:8080", 4, held(8)}, {"0.0.0.0:8080", 4, held(8)}}, 8, []uint32{8}, 2, alone},
		{"SO_REUSEPORT, two processes", v4, []l{{"0.0.0.0:8080", 4, held(9)}, {"0.0.0.0:8080", 4, held(8)}}, 0, []uint32{8, 9}, 1,
			"backlog of :8080 not accepted by srv[8] and srv[9]: 1 waiting"},
		{"forked: the parent", v4, []l{{"0.0.0.0:8080", 4, held(20, 21, 22)}}, 20, []uint32{20, 21, 22}, 1,
			"backlog of :8080 not accepted by srv[20], srv[21] and srv[22]: 1 waiting"},
		{"many", v4, []l{{"0.0.0.0:8080", 4, held(1, 8, 9, 20, 21, 22)}}, 0, []uint32{1, 8, 9, 20, 21, 22}, 1,
			"backlog of :8080 not accepted by srv[8], srv[9], srv[20] and 2 more: 1 waiting"},
		{"passed by the service manager", v4, []l{{"0.0.0.0:8080", 4, held(1, 8)}}, 8, []uint32{1, 8}, 1, alone},
		{"the service manager alone", v4, []l{{"0.0.0.0:8080", 4, held(1)}}, 1, []uint32{1}, 1, alone},
		{"strangers", v4, []l{{"0.0.0.0:8080", 4, held(8, 9)}}, 0, []uint32{8, 9}, 1,
			"backlog of :8080 not accepted by srv[8] and srv[9]: 1 waiting"},
		{"nobody", v4, []l{{"0.0.0.0:8080", 4, nil}}, 0, nil, 0, alone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(events.CloseWait)
			for pid, ppid := range map[uint32]uint32{1: 0, 8: 1, 9: 1, 20: 1, 21: 20, 22: 21} {
				p := process("srv", 0)
				p.PPID = ppid
				f.procs[pid] = p
			}
			r := f.sock(1, events.CloseWait)
			r.Flags &^= events.FlagHasSocket
			tt.child(&r)
			socks := []events.Record{r}
			var holds []hold1
			for i, l := range tt.listeners {
				sk := uint64(100 + i)
				socks = append(socks, f.listener(sk, l.local, l.family))
				for _, h := range l.holds {
					h.sk = sk
					holds = append(holds, h)
				}
			}
			f.scan(ns1, socks...)
			f.holders(holds...)
			snap := f.snapshot()
			g := snap.Groups[0]
			if g.PID != tt.want || g.Sockets[0].Reason != ReasonNotAccepted {
				t.Errorf("got %v under process %d: want not-accepted under %d", g.Sockets[0].Reason, g.PID, tt.want)
			}
			sock := g.Sockets[0]
			if got := sock.Listener; (got == nil) != (tt.want == 0) || (got != nil && got.PID != tt.want) {
				t.Errorf("got listener %+v", got)
			}
			var all []uint32
			for _, h := range sock.Listeners {
				all = append(all, h.PID)
				if want := slices.Repeat([]uint32{3}, tt.fds); !slices.Equal(h.FDs, want) {
					t.Errorf("process %d holds it as %v, want %v", h.PID, h.FDs, want)
				}
			}
			if !slices.Equal(all, tt.all) {
				t.Errorf("got %v who could accept, want %v", all, tt.all)
			}
			if g.Verdict != tt.verdict {
				t.Errorf("got verdict %q, want %q", g.Verdict, tt.verdict)
			}
		})
	}
}

func TestMPTCP(t *testing.T) {
	f := newFeeder(events.CloseWait)
	f.procs[8] = process("goserver", 0)
	// The listener's descriptor leads to an MPTCP socket; the walk joined it with
	// the TCP listener. Of a socket that came between the walks only the struct
	// socket is the same.
	child := f.sock(1, events.CloseWait)
	child.Flags |= events.FlagMPTCP | events.FlagKernelSocket
	waiting := f.sock(2, events.CloseWait)
	waiting.Flags = waiting.Flags&^events.FlagHasSocket | events.FlagMPTCP | events.FlagKernelSocket
	waiting.PeerSK = 0
	ls := f.listener(50, "[::]:8080", 6)
	ls.Flags |= events.FlagMPTCP | events.FlagKernelSocket
	f.scan(ns1, ls, waiting)
	f.add(events.Record{Kind: events.KindHoldersBegin})
	f.add(events.Record{Kind: events.KindHolder, SK: 50, PeerSK: 50 + 1<<40, PID: 8, Comm: "goserver", FD: 3, Flags: events.FlagMPTCP})
	f.add(events.Record{Kind: events.KindHolder, SK: 999, PeerSK: child.PeerSK, PID: 8, Comm: "goserver", FD: 9, Flags: events.FlagMPTCP})
	f.add(events.Record{Kind: events.KindHoldersEnd})
	child.New = events.Established
	f.move(child, events.CloseWait)
	snap := f.snapshot()
	wantGroups(t, snap, "CLOSE_WAIT 8/goserver 2 not-accepted=1,drained=1")
	for _, s := range snap.Groups[0].Sockets {
		if !s.MPTCP {
			t.Errorf("socket %d is not shown as MPTCP", s.ID)
		}
	}
}

func TestTimeWait(t *testing.T) {
	const tw, sk = uint64(0x9000), uint64(0x1000)
	conn := func(f *feeder) events.Record {
		r := f.sock(sk, events.Established)
		r.Local = netip.MustParseAddrPort("10.0.0.1:40000")
		r.Remote = netip.MustParseAddrPort("10.0.0.2:443")
		return r
	}
	closed := func(f *feeder, r events.Record) events.Record {
		r.Flags |= events.FlagActor
		r.PID, r.Comm = 7, "client"
		return f.move(r, events.FinWait1)
	}
	one := func(t *testing.T, f *feeder) *Socket {
		t.Helper()
		snap := f.snapshot()
		if snap.Total != 1 || len(snap.Groups) != 1 {
			t.Fatalf("got %d sockets in %d groups: want 1", snap.Total, len(snap.Groups))
		}
		return snap.Groups[0].Sockets[0]
	}
	t.Run("by hooks", func(t *testing.T) {
		f := newFeeder(events.TimeWait)
		r := closed(f, conn(f))
		alloc := r
		alloc.Kind, alloc.PeerSK, alloc.New = events.KindTimeWaitAlloc, tw, events.FinWait2
		f.add(alloc)
		if got := f.snapshot().Total; got != 0 {
			t.Errorf("got %d in TIME_WAIT during FIN_WAIT2: want none", got)
		}
		begin := r
		begin.SK, begin.Kind, begin.New, begin.TimerNS, begin.Flags = tw, events.KindTimeWaitSchedule, events.TimeWait, 60*sec, events.FlagTimer
		f.add(begin)
		at := f.ts
		f.ts += 20 * sec
		s := one(t, f)
		if !s.AgeExact || s.Since != at || s.Remaining != 40*sec-1000 {
			t.Errorf("got since %d, exact %v, %d left: want %d, 40 s", s.Since, s.AgeExact, s.Remaining, at)
		}
		if s.Owner != (events.Process{PID: 7, Comm: "client"}) || s.OwnerSrc != events.OwnerClose || s.Holders != nil || s.Reason != ReasonNone {
			t.Errorf("got owner %+v by %d: want client by close", s.Owner, s.OwnerSrc)
		}
		// A FIN again: the timer starts anew, the state does not.
		f.add(begin)
		if s := one(t, f); s.Since != at || s.Remaining < 59*sec {
			t.Errorf("got since %d, %d left after a restart: want %d, 60 s", s.Since, s.Remaining, at)
		}
		f.add(events.Record{Kind: events.KindTimeWaitDestroy, SK: tw, Cookie: r.Cookie, TimerNS: 0, Flags: events.FlagTimer})
		if got := f.snapshot().Total; got != 0 {
			t.Errorf("got %d after the end: want none", got)
		}
	})
	t.Run("at once", func(t *testing.T) {
		f := newFeeder(events.TimeWait)
		r := closed(f, conn(f))
		alloc := r
		alloc.Kind, alloc.PeerSK, alloc.New = events.KindTimeWaitAlloc, tw, events.TimeWait
		f.add(alloc)
		at := f.ts
		f.move(r, events.Close)
		if s := one(t, f); s.Since != at || !s.AgeExact || s.Owner.PID != 7 {
			t.Errorf("got since %d, owner %v: want %d, 7", s.Since, s.Owner, at)
		}
		none := alloc
		none.SK, none.PeerSK = sk+8, 0
		f.add(none)
		if got := f.snapshot().Total; got != 1 {
			t.Errorf("got %d where no timewait socket could be had: want 1", got)
		}
	})
	t.Run("by scans", func(t *testing.T) {
		f := newFeeder(events.TimeWait)
		r := closed(f, conn(f))
		r.SK, r.Kind, r.New, r.Flags, r.TimerNS = tw, events.KindSocket, events.TimeWait, events.FlagTimer, 45*sec
		f.scan(ns1, r)
		at := f.ts - 1000
		s := one(t, f)
		if !s.AgeExact || s.Since != at-15*sec || s.Owner.PID != 7 || s.UID != events.Unknown {
			t.Errorf("got since %d, exact %v, owner %v: want %d, 7", s.Since, s.AgeExact, s.Owner, at-15*sec)
		}
		if s.Remaining < 44*sec || s.Remaining > 45*sec {
			t.Errorf("got %d left: want 45 s", s.Remaining)
		}
		f.ts += 46 * sec
		f.scan(ns1)
		if got := f.snapshot().Total; got != 0 {
			t.Errorf("got %d after a scan without it: want none", got)
		}
	})
	t.Run("another connection's closer", func(t *testing.T) {
		f := newFeeder(events.TimeWait)
		r := closed(f, conn(f))
		r.SK, r.Kind, r.New, r.Flags, r.TimerNS, r.Cookie = tw, events.KindSocket, events.TimeWait, events.FlagTimer, 45*sec, 4711
		f.scan(ns1, r)
		if s := one(t, f); s.Owner.PID != 0 {
			t.Errorf("got owner %v: want none", s.Owner)
		}
	})
}

func TestTimeWaitGroups(t *testing.T) {
	f := newFeeder(events.TimeWait)
	var socks []events.Record
	tw := func(sk uint64, local, remote string, pid uint32) {
		r := f.sock(sk, events.Established)
		r.Local, r.Remote = netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
		if pid != 0 {
			r.Flags |= events.FlagActor
			r.PID, r.Comm = pid, "client"
			f.move(r, events.FinWait1)
		}
		r.SK, r.New, r.Flags, r.TimerNS = sk+1<<20, events.TimeWait, events.FlagTimer, 30*sec
		socks = append(socks, r)
	}
	for i := range uint64(5) {
		tw(10+i, fmt.Sprintf("10.0.0.1:%d", 40000+i), "10.0.0.2:443", 7)
	}
	for i := range uint64(3) {
		tw(20+i, fmt.Sprintf("10.0.0.1:%d", 41000+i), "10.0.0.3:443", 0)
	}
	for i := range uint64(2) {
		tw(30+i, "10.0.0.1:8080", fmt.Sprintf("10.0.0.9:%d", 50000+i), 0)
	}
	f.scan(ns1, append(socks, f.listener(99, "0.0.0.0:8080", 4))...)
	f.holders()
	snap := f.snapshot()
	var got []string
	for _, g := range snap.Groups {
		got = append(got, fmt.Sprintf("%d %s %d: %s", g.PID, g.Remote, g.Count, g.Verdict))
	}
	want := []string{
		"7 10.0.0.2:443 5: 5 sockets closed first by this side: reuse connections (keep-alive, a pool)",
		"0 10.0.0.3:443 3: 3 sockets closed first by this side: reuse connections (keep-alive, a pool)",
		"0 10.0.0.9 2: 2 sockets closed first by this side, the server: let clients close, or keep connections alive",
	}
	if !slices.Equal(got, want) {
		t.Errorf("groups\n got %q\nwant %q", got, want)
	}
}

func TestPorts(t *testing.T) {
	f := newFeeder(events.TimeWait)
	f.s.cfg.Ports = func(netns uint32) (PortRange, bool) {
		return PortRange{PortSpan{40000, 40999}, []PortSpan{{40500, 40599}}}, netns == ns1
	}
	var socks []events.Record
	add := func(netns uint32, port uint16, remote string, state events.State, left int64) {
		r := f.sock(uint64(len(socks)+1), state)
		r.NetNS = netns
		r.Local = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
		r.Remote = netip.MustParseAddrPort(remote)
		r.TimerNS = left
		if state == events.TimeWait {
			r.Flags = events.FlagTimer
		}
		socks = append(socks, r)
	}
	// 30 a second for 10 s, all of them there still, and 7 connections: 593 ports
	// are free, which 30 a second take in 19.8 s, before any leaves.
	for i := range 300 {
		add(ns1, uint16(40000+i), "10.0.0.2:443", events.TimeWait, 60*sec-int64(i)*sec/30-1)
	}
	for i := range 7 {
		add(ns1, uint16(40300+i), "10.0.0.2:443", events.Established, 0)
	}
	// 2 a second never fill it.
	for i := range 20 {
		add(ns1, uint16(40000+i), "10.0.0.3:443", events.TimeWait, 60*sec-int64(i)*sec/2-1)
	}
	add(ns1, 40550, "10.0.0.2:443", events.Established, 0) // reserved: bound by its program
	add(ns1, 39999, "10.0.0.2:443", events.Established, 0) // out of the range
	add(ns1, 40800, "10.0.0.9:999", events.Established, 0) // through a listener
	add(ns1+1, 1234, "10.0.0.4:80", events.TimeWait, 30*sec)
	ls := f.listener(5000, "0.0.0.0:40800", 4)
	var here, there []events.Record
	for _, r := range append(socks, ls) {
		if r.NetNS == ns1 {
			here = append(here, r)
		} else {
			there = append(there, r)
		}
	}
	f.scan(ns1, here...)
	f.scan(ns1+1, there...)
	f.holders()
	snap := f.snapshot()
	want := []PortUse{
		{NetNS: ns1, Local: "10.0.0.1", Remote: "10.0.0.2:443", Used: 307, TimeWait: 300, Range: 900, FullIn: 20 * sec},
		{NetNS: ns1, Local: "10.0.0.1", Remote: "10.0.0.3:443", Used: 20, TimeWait: 20, Range: 900, FullIn: events.Unknown},
		{NetNS: ns1 + 1, Local: "10.0.0.1", Remote: "10.0.0.4:80", Used: 1, TimeWait: 1, Range: -1, FullIn: events.Unknown},
	}
	if !slices.Equal(snap.Ports, want) {
		t.Errorf("got\n%+v\nwant\n%+v", snap.Ports, want)
	}
	if got := snap.Counts[events.Established]; got != 10 {
		t.Errorf("got %d in ESTABLISHED: want 10", got)
	}
}

func TestPortRange(t *testing.T) {
	for _, tt := range []struct {
		r    PortRange
		want int
	}{
		{PortRange{PortSpan{32768, 60999}, nil}, 28232},
		{PortRange{PortSpan{1, 65535}, []PortSpan{{1, 1023}, {65535, 65535}}}, 64511},
		{PortRange{PortSpan{1000, 1009}, []PortSpan{{900, 1001}, {1009, 2000}, {3000, 4000}}}, 7},
		{PortRange{PortSpan{1000, 999}, nil}, 0},
	} {
		got := 0
		for port := range 1 << 16 {
			if tt.r.Has(uint16(port)) {
				got++
			}
		}
		if got != tt.want || tt.r.Usable() != tt.want {
			t.Errorf("%v: %d ports by Has, %d by Usable: want %d", tt.r, got, tt.r.Usable(), tt.want)
		}
	}
}

func TestClose(t *testing.T) {
	f := newFeeder(events.Close)
	f.scan(ns1)
	// Reset by the peer: still held. Closed: gone.
	reset := f.move(f.sock(1, events.Established), events.Close)
	f.move(f.sock(2, events.LastAck), events.Close)
	f.add(events.Record{Kind: events.KindHoldersBegin})
	f.add(events.Record{Kind: events.KindHolder, SK: 1, Cookie: reset.Cookie, PID: 7, Comm: "app", FD: 4, New: events.Close})
	f.add(events.Record{Kind: events.KindHolder, SK: 3, Cookie: 5, PID: 7, Comm: "app", FD: 5, New: events.Close, NetNS: ns1})
	f.add(events.Record{Kind: events.KindHoldersEnd})
	snap := f.snapshot()
	wantGroups(t, snap, "CLOSE 7/app 2")
	if got := snap.Groups[0].TopRemotes; len(got) != 1 || got[0].Addr != reset.Remote.String() {
		t.Errorf("got remotes %v: want that of the reset one", got)
	}
	// A descriptor that a walk saw before the socket's end says nothing of it.
	f.holders(hold1{9, 7, "app", 6})
	f.move(f.sock(9, events.Listen), events.Close)
	if snap := f.snapshot(); snap.Total != 0 {
		t.Errorf("got %d sockets: want none that is known to be held", snap.Total)
	}
	f.ts += sec
	f.scan(ns1)
	f.holders()
	if snap := f.snapshot(); snap.Total != 0 || len(f.s.socks) != 0 {
		t.Errorf("got %d sockets, %d kept after their descriptors were closed: want none", snap.Total, len(f.s.socks))
	}
}

func TestCountsAndMatch(t *testing.T) {
	f := newFeeder(events.CloseWait)
	f.s.cfg.Walked = events.Set(events.CloseWait, events.Listen)
	f.s.cfg.Hooks = "poll"
	f.scan(ns1, f.sock(1, events.CloseWait), f.sock(2, events.CloseWait), f.listener(50, "0.0.0.0:8080", 4))
	f.add(events.Record{Kind: events.KindLost, Count: 3}, events.Record{Kind: events.KindLost, Count: 4})
	snap := f.snapshot()
	if snap.Counts[events.CloseWait] != 2 || snap.Counts[events.Listen] != 1 || snap.Counts[events.Established] != -1 {
		t.Errorf("got counts %v: want 2 in CLOSE_WAIT, 1 in LISTEN, others not counted", snap.Counts)
	}
	if snap.Lost != 7 || snap.Hooks != "poll" || snap.States != events.Set(events.CloseWait) {
		t.Errorf("got lost %d, hooks %q, states %v", snap.Lost, snap.Hooks, snap.States)
	}
	f.s.cfg.Match = func(s *Socket) bool { return s.Cookie == 1001 }
	if snap := f.snapshot(); snap.Total != 1 || snap.Counts[events.CloseWait] != 1 || snap.Counts[events.Listen] != -1 {
		t.Errorf("got total %d, counts %v with a filter: want 1", snap.Total, snap.Counts)
	}
}

func TestOtherStates(t *testing.T) {
	for _, tt := range []struct {
		name   string
		states []events.State
		do     func(f *feeder)
		groups []string
		first  string // verdict
	}{
		{"last ack", []events.State{events.LastAck}, func(f *feeder) {
			r := f.sock(1, events.CloseWait)
			r.Flags |= events.FlagActor
			r.PID, r.Comm = 7, "app"
			f.move(r, events.LastAck)
		}, []string{"LAST_ACK 7/app 1"}, "1 socket closed on both sides, the last FIN not acknowledged: the peer or the path does not answer"},
		{"handshakes", []events.State{events.SynRecv}, func(f *feeder) {
			r := f.sock(1, events.NewSynRecv)
			r.Flags = 0
			f.scan(ns1, r, f.listener(50, "0.0.0.0:8080", 4))
			f.holders(hold1{50, 8, "srv", 3})
		}, []string{"SYN_RECV 8/srv 1"}, "1 socket of :8080 without the handshake's last ACK"},
		{"listeners", []events.State{events.Listen}, func(f *feeder) {
			l := f.listener(50, "0.0.0.0:8080", 4)
			l.RXPending, l.TXPending = 129, 128
			f.scan(ns1, l)
			f.holders(hold1{50, 8, "srv", 3})
		}, []string{"LISTEN 8/srv 1"}, "1 socket listening, backlog full at 1: 129 connections wait for accept()"},
		{"two states", []events.State{events.Established, events.CloseWait}, func(f *feeder) {
			a := f.sock(1, events.Established)
			a.RXPending = 5
			a.Flags &^= events.FlagFINReceived
			b := f.sock(2, events.Established)
			b.Flags &^= events.FlagFINReceived
			f.scan(ns1, a, b, f.sock(3, events.CloseWait))
			f.holders(hold1{1, 7, "app", 3}, hold1{2, 7, "app", 4}, hold1{3, 7, "app", 5})
		}, []string{"ESTABLISHED 7/app 2", "CLOSE_WAIT 7/app 1 drained=1"}, "2 sockets open, 5 bytes waiting to be read"},
		{"orphans in FIN_WAIT2", []events.State{events.FinWait2}, func(f *feeder) {
			r := f.sock(1, events.FinWait2)
			r.Flags, r.TimerNS = events.FlagTimer, 20*sec
			f.scan(ns1, r)
			f.holders()
		}, []string{"FIN_WAIT2 0/ 1"}, "1 socket closed here, not by the peer: tcp_fin_timeout ends those without a process"},
		{"no answer", []events.State{events.SynSent}, func(f *feeder) {
			r := f.sock(1, events.Close)
			f.move(r, events.SynSent)
			f.holders(hold1{1, 7, "app", 3})
		}, []string{"SYN_SENT 7/app 1"}, "1 socket without an answer to the SYN: look at the remote's firewall, route and backlog"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeeder(tt.states...)
			tt.do(f)
			snap := f.snapshot()
			wantGroups(t, snap, tt.groups...)
			if len(snap.Groups) > 0 && snap.Groups[0].Verdict != tt.first {
				t.Errorf("verdict\n got %q\nwant %q", snap.Groups[0].Verdict, tt.first)
			}
		})
	}
}

func TestTopRemotes(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		remotes map[netip.AddrPort]int
		want    string
	}{
		{map[netip.AddrPort]int{ap("10.0.0.1:80"): 2, ap("10.0.0.2:80"): 9}, "[{10.0.0.2:80 9} {10.0.0.1:80 2}]"},
		{map[netip.AddrPort]int{ap("10.0.0.1:80"): 1}, "[{10.0.0.1:80 1}]"},
		{map[netip.AddrPort]int{ap("10.0.0.1:8001"): 1, ap("10.0.0.1:8002"): 1, ap("[::1]:7"): 1}, "[{10.0.0.1 2} {::1 1}]"},
		{map[netip.AddrPort]int{ap("10.0.0.1:8001"): 1, ap("10.0.0.2:8002"): 1}, "[{10.0.0.1:8001 1} {10.0.0.2:8002 1}]"},
	} {
		if got := fmt.Sprint(top(tt.remotes)); got != tt.want {
			t.Errorf("got %s: want %s", got, tt.want)
		}
	}
}

func FuzzStoreAdd(f *testing.F) {
	f.Add([]byte{1, 1, 8, 33, 1, 8, 7, 1, 8, 34, 1, 0, 36, 1, 0, 8, 1, 7, 37, 1, 0})
	f.Add([]byte{4, 1, 6, 5, 2, 6, 6, 2, 6, 7, 2, 6, 32, 0, 0})
	addrs := []netip.AddrPort{{}, netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("[::]:80"), netip.MustParseAddrPort("[fe80::1%9]:0")}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewStore(Config{States: events.AllStates, Ports: func(uint32) (PortRange, bool) { return PortRange{PortSpan{9, 3}, nil}, true }})
		ts := int64(0)
		for len(data) >= 3 {
			a, b, c := data[0], data[1], data[2]
			data = data[3:]
			ts += int64(c) << (a % 32)
			s.Add(&events.Record{
				Kind: events.Kind(a & 63), TS: ts, SK: uint64(b & 7), PeerSK: uint64(c & 7), Cookie: uint64(b >> 6),
				Old: events.State(c >> 4), New: events.State(c & 15), Flags: events.Flags(uint16(b)<<8 | uint16(a)<<3),
				NetNS: uint32(b & 1), PID: uint32(c & 3), FD: uint32(a), RXPending: uint32(c), TimerNS: int64(int8(b)) << 32,
				Count: int64(int8(c)), Local: addrs[b&3], Remote: addrs[c&3], Family: []uint8{0, 4, 6}[a%3], Comm: "c",
			})
			if c&1 == 0 {
				snap := s.Snapshot(ts)
				total := 0
				for _, g := range snap.Groups {
					if g.Count != len(g.Sockets) || g.Count == 0 || g.Verdict == "" {
						t.Fatalf("group %+v", g)
					}
					total += g.Count
				}
				if total < snap.Total {
					t.Fatalf("%d sockets in groups: want at least %d", total, snap.Total)
				}
			}
		}
	})
}
