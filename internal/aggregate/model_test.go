package aggregate

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// kernel is a model of the part of the kernel that the table is about: sockets that
// live legal TCP lives at random, hooks that tell of them, walks, and a ring that
// loses records. It knows the truth.
type kernel struct {
	rng     *rand.Rand
	hooks   Hooks
	cookies bool
	now     int64
	queue   eventQueue
	seq     uint64
	sockets map[uint64]*socket // what a walk meets
	free    []uint64           // addresses to use again
	nextSK  uint64
	lives   []*life
	dropped int64
	losing  bool
	passing bool  // over all but transitions, uncounted
	refused int64 // timewait sockets since the last walk
	add     func(*events.Record)
	fed     int
}

type socket struct {
	sk, cookie uint64
	l          *life
	state      events.State
	tw         bool
	expires    int64
	lastRx     int64
	born       int64
}

// life is the truth about one connection.
type life struct {
	n        int
	local    netip.AddrPort
	remote   netip.AddrPort
	cookie   uint64
	steps    []step // true transitions
	closer   events.Side
	how      events.How
	reset    events.ResetKind
	twEnd    events.TimeWaitEnd
	overflow bool
	over     bool
	lost     bool // some record of it was
	unseen   bool // no walk met its timewait socket in the state that it ended in
	passive  bool
	rtt      int64
	accepted bool
}

type step struct {
	ts       int64
	old, new events.State
}

type eventQueue []queued

type queued struct {
	ts  int64
	seq uint64
	f   func()
}

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].ts, q[j].ts), cmp.Compare(q[i].seq, q[j].seq)) < 0
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *eventQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newKernel(seed uint64, hooks Hooks, cookies bool, add func(*events.Record)) *kernel {
	return &kernel{
		rng: rand.New(rand.NewPCG(seed, 1)), hooks: hooks, cookies: cookies, now: 1000 * sec,
		sockets: make(map[uint64]*socket), nextSK: 0x1000, add: add,
	}
}

func (k *kernel) after(d int64, f func()) {
	k.seq++
	heap.Push(&k.queue, queued{k.now + d, k.seq, f})
}

// between returns a random time.
func (k *kernel) between(lo, hi int64) int64 { return lo + k.rng.Int64N(hi-lo+1) }

func (k *kernel) run(until int64) {
	for len(k.queue) > 0 && k.queue[0].ts <= until {
		e := heap.Pop(&k.queue).(queued)
		k.now = max(k.now+1, e.ts)
		e.f()
	}
	k.now = max(k.now, until)
}

func (k *kernel) alloc() uint64 {
	if len(k.free) > 0 && k.rng.IntN(4) > 0 {
		n := k.rng.IntN(len(k.free))
		sk := k.free[n]
		k.free = slices.Delete(k.free, n, n+1)
		return sk
	}
	k.nextSK += 0x40
	return k.nextSK
}

func (k *kernel) release(s *socket) {
	delete(k.sockets, s.sk)
	k.free = append(k.free, s.sk)
}

// tell puts a record into the ring.
func (k *kernel) tell(l *life, r events.Record) {
	k.now++
	r.TS, r.NetNS = k.now, testNS
	if k.hooks == HooksPoll && r.Kind != events.KindTransition {
		return
	}
	if !k.cookies {
		r.Cookie = 0
	}
	if k.passing && r.Kind != events.KindTransition {
		l.lost = true
		return
	}
	if k.losing && k.rng.IntN(3) > 0 {
		k.dropped++
		l.lost = true
		return
	}
	k.fed++
	k.add(&r)
}

func (k *kernel) record(s *socket, kind events.Kind) events.Record {
	return events.Record{Kind: kind, SK: s.sk, Cookie: s.cookie, Local: s.l.local, Remote: s.l.remote, Family: 4}
}

// step makes a transition of a full socket that is told.
func (k *kernel) step(s *socket, to events.State, opts ...opt) {
	r := k.record(s, events.KindTransition)
	r.Old, r.New = s.state, to
	for _, o := range opts {
		o(&r)
	}
	old := s.state
	s.state = to
	k.tell(s.l, r)
	s.l.steps = append(s.l.steps, step{k.now, old, to})
}

func (k *kernel) end(s *socket, how events.How, reset events.ResetKind, closer events.Side) {
	l := s.l
	l.how, l.reset, l.over = how, reset, true
	if l.closer == events.SideNone {
		l.closer = closer
	}
	k.release(s)
}

// newLife begins a connection.
func (k *kernel) newLife() {
	l := &life{n: len(k.lives), closer: events.SideNone, unseen: true}
	l.local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(l.n >> 16), 1}), uint16(1024+l.n%60000))
	l.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(l.n >> 8), byte(l.n)}), 80)
	l.cookie = uint64(l.n) + 1
	k.lives = append(k.lives, l)
	s := &socket{sk: k.alloc(), cookie: l.cookie, l: l, state: CLOSE, born: k.now}
	if l.passive = k.rng.IntN(2) == 0; l.passive {
		s.state = LISTEN
		k.step(s, SYNRECV, func(r *events.Record) {
			r.Cookie, r.Family, r.Local, r.Remote = 0, 0, netip.AddrPort{}, netip.AddrPort{}
		})
		k.sockets[s.sk] = s
		l.rtt = k.between(10, 5000) * us
		k.step(s, EST, srtt(uint32(l.rtt/us)))
		if k.rng.IntN(5) > 0 {
			k.after(k.between(us, ms), func() {
				if s.state == EST || s.state == CW {
					r := k.record(s, events.KindAccept)
					r.PID, r.Comm, r.Flags = 8, "nginx", events.FlagActor
					k.tell(l, r)
					l.accepted = true
				}
			})
		}
		k.after(k.between(ms, 3*sec), func() { k.established(s) })
		return
	}
	k.step(s, SYNSENT, curl, func(r *events.Record) { r.Local = netip.AddrPortFrom(l.local.Addr(), 0) })
	k.sockets[s.sk] = s
	r := k.record(s, events.KindConnect)
	r.PID, r.Comm, r.Flags = 7, "curl", events.FlagActor
	k.tell(l, r)
	k.after(k.between(20*us, 300*ms), func() {
		switch k.rng.IntN(12) {
		case 0:
			k.step(s, CLOSE, errno(errConnRefused))
			k.end(s, events.HowRefused, events.ResetPeer, events.SideRemote)
		case 1:
			k.step(s, CLOSE, curl, flags(held))
			k.end(s, events.HowAbort, 0, events.SideNone)
		case 2:
			k.step(s, CLOSE, errno(110))
			k.end(s, events.HowTimeout, 0, events.SideNone)
		default:
			k.step(s, EST)
			k.after(k.between(ms, 3*sec), func() { k.established(s) })
		}
	})
}

func (k *kernel) established(s *socket) {
	s.lastRx = k.now
	switch k.rng.IntN(9) {
	case 0:
		k.step(s, CLOSE, curl, flags(held|events.FlagLinger0), rx(0))
		k.end(s, events.HowRST, events.ResetLinger0, events.SideLocal)
	case 1:
		k.step(s, CLOSE, curl, flags(held), rx(9))
		k.end(s, events.HowRST, events.ResetUnread, events.SideLocal)
	case 2:
		k.step(s, CLOSE, errno(errConnReset))
		k.end(s, events.HowRST, events.ResetPeer, events.SideRemote)
	case 3:
		k.step(s, CLOSE, errno(110))
		k.end(s, events.HowTimeout, 0, events.SideNone)
	case 4, 5:
		s.l.closer = events.SideRemote
		k.step(s, CW, flags(held|finRecvd), rx(1))
		k.after(k.between(us, 2*sec), func() {
			if k.rng.IntN(4) == 0 {
				k.step(s, CLOSE, errno(errPipe))
				k.end(s, events.HowRST, events.ResetPeer, events.SideRemote)
				return
			}
			k.step(s, LASTACK, curl, flags(held|finRecvd))
			k.after(k.between(us, 50*ms), func() {
				k.step(s, CLOSE, flags(orphan|finRecvd))
				k.end(s, events.HowFIN, 0, events.SideRemote)
			})
		})
	default:
		s.l.closer = events.SideLocal
		isOrphan := k.rng.IntN(2) == 0
		k.step(s, FW1, curl, flags(held))
		k.after(k.between(us, 50*ms), func() { k.finWait1(s, isOrphan) })
	}
}

func (k *kernel) finWait1(s *socket, isOrphan bool) {
	f := held
	if isOrphan {
		f = orphan
	}
	switch k.rng.IntN(6) {
	case 0:
		s.l.closer = events.SideBoth
		k.step(s, CLOSING, flags(f|finRecvd))
		k.after(k.between(us, 50*ms), func() { k.timeWait(s, TW, flags(f|finRecvd)) })
	case 1:
		k.step(s, CLOSE, errno(110), flags(f))
		k.end(s, events.HowTimeout, 0, events.SideLocal)
	default:
		k.step(s, FW2, flags(f))
		if isOrphan {
			k.timeWait(s, FW2, flags(orphan), curl)
			return
		}
		k.after(k.between(us, 2*sec), func() {
			if k.rng.IntN(5) == 0 {
				k.step(s, CLOSE, curl, flags(held|events.FlagLinger0), rx(0))
				k.end(s, events.HowRST, events.ResetLinger0, events.SideLocal)
				return
			}
			k.timeWait(s, TW, flags(held|finRecvd))
		})
	}
}

// timeWait replaces a full socket, unless there is no room.
func (k *kernel) timeWait(s *socket, sub events.State, opts ...opt) {
	l, old := s.l, s.state
	tw := &socket{sk: k.alloc(), cookie: s.cookie, l: l, state: sub, tw: true, born: k.now}
	r := k.record(s, events.KindTimeWaitAlloc)
	r.PeerSK, r.New = tw.sk, sub
	full := k.rng.IntN(20) == 0
	if full {
		r.PeerSK = 0
		k.refused++
		k.free = append(k.free, tw.sk)
	} else {
		k.sockets[tw.sk] = tw
	}
	k.tell(l, r)
	at := k.now
	r = k.record(s, events.KindTransition)
	r.Old, r.New = old, CLOSE
	for _, o := range opts {
		o(&r)
	}
	k.tell(l, r)
	if full {
		l.overflow = true
		l.steps = append(l.steps, step{k.now, old, CLOSE})
		if sub == TW {
			k.end(s, events.HowFIN, 0, events.SideLocal)
		} else {
			k.end(s, events.HowAbort, 0, events.SideLocal)
		}
		return
	}
	if k.hooks == HooksPoll {
		at = k.now // without hooks the transition's time is the time
	}
	k.release(s)
	if sub == FW2 {
		tw.expires = k.now + 5*sec
		k.after(k.between(us, 7*sec), func() { k.finWait2(tw) })
		return
	}
	l.steps = append(l.steps, step{at, old, TW})
	tw.expires = k.now + timeWaitNS
	k.lingers(tw)
}

func (k *kernel) finWait2(tw *socket) {
	l := tw.l
	if k.now >= tw.expires {
		k.destroy(tw, events.HowTimeout, 0, 0, 0)
		return
	}
	if k.rng.IntN(5) == 0 {
		k.destroy(tw, events.HowRST, events.ResetPeer, 0, bySegment|events.FlagSegmentRST)
		return
	}
	tw.state, l.unseen = TW, true
	r := k.record(tw, events.KindTimeWaitSchedule)
	r.New, r.TimerNS, r.Flags = TW, timeWaitNS, events.FlagTimer
	k.tell(l, r)
	l.steps = append(l.steps, step{k.now, FW2, TW})
	tw.expires = k.now + timeWaitNS
	k.lingers(tw)
}

// lingers plays TIME_WAIT to its end.
func (k *kernel) lingers(tw *socket) {
	switch k.rng.IntN(6) {
	case 0:
		k.after(k.between(us, 10*sec), func() {
			k.destroy(tw, events.HowFIN, 0, events.TimeWaitReset, bySegment|events.FlagSegmentRST)
		})
	case 1:
		k.after(k.between(us, 10*sec), func() {
			k.destroy(tw, events.HowFIN, 0, events.TimeWaitReused, bySegment|events.FlagSegmentSYN)
		})
	case 2:
		k.after(k.between(us, 10*sec), func() {
			r := k.record(tw, events.KindTimeWaitSchedule)
			r.New, r.TimerNS, r.Flags = TW, timeWaitNS, events.FlagTimer
			k.tell(tw.l, r)
			tw.expires = k.now + timeWaitNS
			k.expires(tw)
		})
	default:
		k.expires(tw)
	}
}

func (k *kernel) expires(tw *socket) {
	k.after(tw.expires-k.now+k.between(0, 4*sec), func() {
		k.destroy(tw, events.HowFIN, 0, events.TimeWaitExpired, 0)
	})
}

func (k *kernel) destroy(tw *socket, how events.How, reset events.ResetKind, end events.TimeWaitEnd, f events.Flags) {
	r := k.record(tw, events.KindTimeWaitDestroy)
	r.New, r.TimerNS, r.Flags = tw.state, tw.expires-k.now, events.FlagTimer|f
	k.tell(tw.l, r)
	tw.l.steps = append(tw.l.steps, step{k.now, tw.state, CLOSE})
	tw.l.twEnd = end
	k.end(tw, how, reset, events.SideLocal)
}

func (k *kernel) emit(r events.Record) {
	r.NetNS = testNS
	if !k.cookies {
		r.Cookie = 0
	}
	k.fed++
	k.add(&r)
}

// tick tells the time, and first what was lost until then.
func (k *kernel) tick() (lost bool) {
	if k.dropped > 0 {
		k.now++
		k.emit(events.Record{Kind: events.KindLost, TS: k.now, Count: k.dropped})
		k.dropped, lost = 0, true
	}
	k.now++
	k.emit(events.Record{Kind: events.KindTick, TS: k.now})
	return lost
}

func (k *kernel) walk() { k.walkFor(0) }

// walkFor walks for some time, in which the connections go on. It meets sockets in the
// order of their addresses, as they are then.
func (k *kernel) walkFor(d int64) {
	k.now++
	k.emit(events.Record{Kind: events.KindScanBegin, TS: k.now})
	each, last := d/int64(len(k.sockets)+1), uint64(0)
	for {
		if each > 0 {
			k.run(k.now + each)
		}
		k.now++
		var next uint64
		for sk := range k.sockets {
			if sk > last && (next == 0 || sk < next) {
				next = sk
			}
		}
		if next == 0 {
			break
		}
		last = next
		s := k.sockets[next]
		r := k.record(s, events.KindSocket)
		r.TS, r.New = k.now, s.state
		if s.tw {
			r.TimerNS, r.Flags = s.expires-k.now, events.FlagTimer
			s.l.unseen = false
		} else {
			r.Flags = events.FlagPendingKnown
		}
		k.emit(r)
	}
	k.emit(events.Record{Kind: events.KindScanEnd, TS: k.now, Count: k.refused})
	k.refused = 0
}

// play lets n connections come and go.
func (k *kernel) play(n int, lossy bool) {
	k.walk()
	for i := range n {
		k.after(int64(i)*20*ms, k.newLife)
	}
	stop := k.now + int64(n)*20*ms
	for k.now < stop {
		k.losing = lossy && k.rng.IntN(4) == 0
		k.run(k.now + sec)
		if k.tick() || k.hooks == HooksPoll {
			k.walk()
		}
	}
	k.losing = false
}

// compareLiving demands that the table has the sockets that there are, each in its
// state, and no other.
func (k *kernel) compareLiving(t *testing.T, table *Table) {
	t.Helper()
	want := make(map[netip.AddrPort]events.State)
	for _, s := range k.sockets {
		want[s.l.local] = s.state
	}
	table.Each(func(i *Info) bool {
		s, ok := want[i.Local]
		if !ok {
			t.Errorf("ghost: %v in %v", i.Local, i.State)
		} else if s != i.State {
			t.Errorf("%v is in %v, the table has %v", i.Local, s, i.State)
		}
		delete(want, i.Local)
		return true
	})
	for l, s := range want {
		t.Errorf("%v in %v is missing", l, s)
	}
}

// story is what the table said of one connection.
type story struct {
	steps  []events.Transition
	closed []events.Closed
}

func tellings(r *recorder) map[netip.AddrPort]*story {
	all := make(map[netip.AddrPort]*story)
	of := func(c *events.Conn) *story {
		s := all[c.Local]
		if s == nil {
			s = &story{}
			all[c.Local] = s
		}
		return s
	}
	for i := range r.transitions {
		s := of(&r.transitions[i].Conn)
		s.steps = append(s.steps, r.transitions[i])
	}
	for i := range r.closed {
		s := of(&r.closed[i].Conn)
		s.closed = append(s.closed, r.closed[i])
	}
	return all
}

func (s *story) String() string {
	var b strings.Builder
	for i := range s.steps {
		x := &s.steps[i]
		fmt.Fprintf(&b, "  %d %v>%v in %d exact %v\n", x.TS, x.Old, x.New, x.InOld, x.Exact)
	}
	for i := range s.closed {
		fmt.Fprintf(&b, "  %+v\n", s.closed[i])
	}
	return b.String()
}

// checkAccount demands that an account agrees with itself.
func checkAccount(t *testing.T, l *life, c *events.Closed) {
	t.Helper()
	var sum int64
	for _, st := range c.States {
		if st.NS == events.Unknown {
			if c.Exact && st.State != SYNRECV {
				t.Errorf("%v: exact, with an unknown time in %v", l.local, st.State)
			}
			return
		}
		sum += st.NS
	}
	// The child's first two transitions are microseconds apart; the handshake
	// stands for both.
	if d := c.TotalNS - sum; c.Exact && (d < 0 || d > 10*us) {
		t.Errorf("%v: states make %d, total is %d: %+v", l.local, sum, c.TotalNS, c)
	}
}

func TestModelWithHooks(t *testing.T) {
	for seed := range uint64(20) {
		for _, cookies := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed %d cookies %v", seed, cookies), func(t *testing.T) {
				out := &recorder{}
				table := New(Config{}, out)
				k := newKernel(seed, HooksFull, cookies, table.Add)
				k.play(300, false)
				k.compareLiving(t, table)
				k.run(k.now + 200*sec)
				k.tick()
				if table.Len() != 0 {
					t.Errorf("%d connections are left", table.Len())
				}
				check(t, table)
				told := tellings(out)
				for _, l := range k.lives {
					k.compareWhole(t, l, told[l.local])
				}
				if st := table.Stats(); st.Mismatches != 0 || st.Vanished != 0 {
					t.Errorf("nothing was lost, yet %+v", st)
				}
			})
		}
	}
}

// compareWhole demands the truth, all of it.
func (k *kernel) compareWhole(t *testing.T, l *life, s *story) {
	t.Helper()
	if s == nil || len(s.closed) != 1 || len(s.steps) != len(l.steps) {
		t.Fatalf("%v: want %d transitions and one account, got\n%v", l.local, len(l.steps), s)
	}
	for i, want := range l.steps {
		got := &s.steps[i]
		inOld := events.Unknown
		switch {
		case i > 0 && want.old == SYNRECV:
			inOld = l.rtt
		case i > 0:
			inOld = want.ts - l.steps[i-1].ts
		}
		if got.TS != want.ts || got.Old != want.old || got.New != want.new || got.InOld != inOld || got.InOldMin != events.Unknown || !got.Exact {
			t.Errorf("%v: transition %d: want %d %v>%v in %d, got\n%v", l.local, i, want.ts, want.old, want.new, inOld, s)
			return
		}
	}
	c := &s.closed[0]
	if c.How != l.how || c.Reset != l.reset || c.Closer != l.closer || c.TimeWaitEnd != l.twEnd || c.TimeWaitOverflow != l.overflow ||
		!c.Exact || c.TS != l.steps[len(l.steps)-1].ts {
		t.Errorf("%v: want %+v, got\n%v", l.local, l, s)
	}
	checkAccount(t, l, c)
}

func TestModelWithWalks(t *testing.T) {
	for seed := range uint64(20) {
		for _, cookies := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed %d cookies %v", seed, cookies), func(t *testing.T) {
				out := &recorder{}
				table := New(Config{Hooks: HooksPoll}, out)
				k := newKernel(seed, HooksPoll, cookies, table.Add)
				k.play(300, false)
				for range 200 {
					k.run(k.now + sec)
					k.tick()
					k.walk()
					k.compareLiving(t, table)
				}
				if table.Len() != 0 {
					t.Errorf("%d connections are left", table.Len())
				}
				check(t, table)
				told := tellings(out)
				for _, l := range k.lives {
					k.compareWalked(t, l, told[l.local])
				}
			})
		}
	}
}

// compareWalked demands the truth as far as walks each second can tell it.
func (k *kernel) compareWalked(t *testing.T, l *life, s *story) {
	t.Helper()
	if s == nil || len(s.closed) != 1 {
		t.Fatalf("%v: want one account, got\n%v", l.local, s)
	}
	c := &s.closed[0]
	checkAccount(t, l, c)
	hidden := len(l.steps) // the first transition that has a walk's time
	for i, st := range l.steps {
		if st.old == TW || st.old == FW2 && st.new == CLOSE && l.reset != events.ResetLinger0 && !l.overflow {
			hidden = i
		}
	}
	if hidden < len(l.steps) && l.unseen || l.overflow {
		return // what became of the socket cannot be told for sure
	}
	if len(s.steps) != len(l.steps) {
		t.Fatalf("%v: want %d transitions, got\n%v", l.local, len(l.steps), s)
	}
	for i, want := range l.steps {
		got := &s.steps[i]
		if got.Old != want.old || got.New != want.new {
			t.Fatalf("%v: transition %d: want %v>%v, got\n%v", l.local, i, want.old, want.new, s)
		}
		switch {
		case i < hidden && want.new == TW && want.old == FW2:
			// Found by the timer, which a later segment may have set anew
			// before the first walk.
			if !got.Exact || got.TS < want.ts-ms || got.TS > want.ts+2*sec {
				t.Errorf("%v: TIME_WAIT began at %d, got\n%v", l.local, want.ts, s)
			}
		case i < hidden:
			if got.TS != want.ts || !got.Exact {
				t.Errorf("%v: transition %d: want %d, got\n%v", l.local, i, want.ts, s)
			}
		case got.Exact || c.Exact || got.TS < want.ts || got.TS > want.ts+2*sec:
			t.Errorf("%v: the end at %d is not marked or not in the next walk:\n%v", l.local, want.ts, s)
		}
	}
	if c.Closer != l.closer {
		t.Errorf("%v: closer is %v, want %v", l.local, c.Closer, l.closer)
	}
	if hidden == len(l.steps) && (c.How != l.how || c.Reset != l.reset || !c.Exact) {
		t.Errorf("%v: want %+v, got\n%v", l.local, l, s)
	}
	if l.twEnd == events.TimeWaitExpired && c.TimeWaitEnd != events.TimeWaitExpired {
		t.Errorf("%v: TIME_WAIT ran out, got\n%v", l.local, s)
	}
}

// What the kernel passes over in kprobes, without a word, is put right by the next walk,
// and what that met is told to have been unseen.
func TestModelWithKprobes(t *testing.T) {
	for seed := range uint64(40) {
		for _, cookies := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed %d cookies %v", seed, cookies), func(t *testing.T) {
				out := &recorder{}
				table := New(Config{Hooks: HooksKprobe}, out)
				k := newKernel(seed, HooksKprobe, cookies, table.Add)
				for i := range 300 {
					k.after(int64(i)*20*ms, k.newLife)
				}
				for i := range 40 {
					for range 5 {
						// All that comes within a softirq, or nothing.
						k.passing = seed > 9 && i < 20 && k.rng.IntN(4) == 0
						k.run(k.now + sec)
						k.passing = false
						k.tick()
					}
					k.walk()
					k.compareLiving(t, table)
					check(t, table)
				}
				if table.Len() != 0 {
					t.Errorf("%d connections are left", table.Len())
				}
				told := tellings(out)
				for _, l := range k.lives {
					s := told[l.local]
					switch {
					case s == nil || len(s.closed) != 1:
						t.Errorf("%v: want one account, got\n%v", l.local, s)
					case l.lost:
						checkAccount(t, l, &s.closed[0])
					default:
						k.compareWhole(t, l, s)
					}
				}
				var unseen uint64
				for _, l := range out.lost {
					unseen += l.Count
				}
				if (unseen > 0) != (seed > 9) {
					t.Errorf("%d told to be unseen", unseen)
				}
			})
		}
	}
}

// Whatever is lost: after the walk that follows the table is right again, and no
// connection is told of twice.
func TestModelWithLoss(t *testing.T) {
	for seed := range uint64(40) {
		for _, hooks := range []Hooks{HooksFull, HooksPoll} {
			t.Run(fmt.Sprintf("seed %d hooks %d", seed, hooks), func(t *testing.T) {
				out := &recorder{}
				table := New(Config{Hooks: hooks}, out)
				k := newKernel(seed, hooks, true, table.Add)
				k.walk()
				for i := range 300 {
					k.after(int64(i)*20*ms, k.newLife)
				}
				losses := 0
				for range 8 {
					k.losing = k.rng.IntN(2) == 0
					k.run(k.now + sec)
					k.losing = false
					lost := k.tick()
					if lost {
						losses++
					}
					if lost || hooks == HooksPoll {
						k.walk()
						k.compareLiving(t, table)
					}
					check(t, table)
				}
				for range 150 {
					k.run(k.now + sec)
					if k.tick() || hooks == HooksPoll {
						k.walk()
					}
				}
				if len(out.lost) != losses || len(out.resyncs) != losses {
					t.Errorf("%d losses: told of %d, and of %d resyncs", losses, len(out.lost), len(out.resyncs))
				}
				k.compareLiving(t, table)
				if table.Len() != 0 {
					t.Errorf("%d connections are left", table.Len())
				}
				check(t, table)
				told := tellings(out)
				for _, l := range k.lives {
					s := told[l.local]
					switch {
					case s == nil && !l.lost:
						t.Errorf("%v: not a word", l.local)
					case s != nil && len(s.closed) > 1:
						t.Errorf("%v: %d accounts:\n%v", l.local, len(s.closed), s)
					case s != nil && len(s.closed) == 0:
						t.Errorf("%v: no account:\n%v", l.local, s)
					case s != nil:
						checkAccount(t, l, &s.closed[0])
						if !l.lost && hooks == HooksFull {
							k.compareWhole(t, l, s)
						}
					}
				}
			})
		}
	}
}

// A walk takes its time, and the connections go on meanwhile: in the addresses of those
// whose end was lost, too. The next tick knows of each what became of it.
func TestModelWithLossAroundWalks(t *testing.T) {
	for seed := range uint64(200) {
		for _, hooks := range []Hooks{HooksFull, HooksPoll} {
			t.Run(fmt.Sprintf("seed %d hooks %d", seed, hooks), func(t *testing.T) {
				table := New(Config{Hooks: hooks}, &recorder{})
				k := newKernel(seed, hooks, true, table.Add)
				k.walk()
				for i := range 300 {
					k.after(int64(i)*20*ms, k.newLife)
				}
				for range 8 {
					k.losing = true
					k.run(k.now + sec)
					k.losing = false
					k.tick()
					k.walkFor(k.between(0, 200*ms))
					k.run(k.now + 100*ms)
					k.tick()
					if hooks == HooksPoll {
						k.walk() // what closed meanwhile
					}
					k.compareLiving(t, table)
					if got := table.Len(); got != len(k.sockets) {
						t.Errorf("%d connections are tracked, there are %d", got, len(k.sockets))
					}
					check(t, table)
				}
			})
		}
	}
}

// The same records give the same output.
func TestDeterministic(t *testing.T) {
	var first []string
	for range 3 {
		out := &recorder{}
		k := newKernel(3, HooksPoll, false, New(Config{Hooks: HooksPoll}, out).Add)
		k.play(300, true)
		if first == nil {
			first = out.lines
		}
		if !slices.Equal(first, out.lines) {
			t.Fatal("two runs differ")
		}
	}
}
