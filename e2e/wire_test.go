package e2e

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/tcptrace/tcptrace/internal/testnet"
	"golang.org/x/sys/unix"
)

// wire is a case whose client (at A) and server (at B) are in namespaces of their
// own. What the network causes is bracketed by the time at which the segment that
// causes it was handed to the receiving kernel. Where that may happen while a
// system call holds the receiving socket, which then handles the segment before it
// returns, the bracket ends with the call (within).
//
// The test's own process hands the segments over, so it is the current task of
// all that the network causes: an owner that was taken from there is a wrong one.
type wire struct {
	*testnet.Wire
	c        *C
	ctx      context.Context
	cli, srv *Proc
}

// wireTimeout is for one case; it waits for a minute at most, and for that only
// in the comparison.
const wireTimeout = 90 * time.Second

// onWire makes a case of f, which runs once, under the tracers, for both
// families: they share the wire.
func onWire(cs Case, f func(w *wire)) Case {
	cs.Early, cs.Families = true, []int{46}
	cs.Run = func(c *C) {
		net, err := testnet.Connect(c.NS, c.NewNS("b"))
		if err != nil {
			c.Fatalf("%v", err)
		}
		defer func() {
			if err := net.Close(); err != nil {
				c.Fatalf("%v", err)
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), wireTimeout)
		defer cancel()
		w := &wire{Wire: net, c: c, ctx: ctx, cli: c.ProcIn(net.NS(testnet.A), "wcli"), srv: c.ProcIn(net.NS(testnet.B), "wsrv")}
		c.Traced()
		f(w)
	}
	return cs
}

// sideAt is the side of a pair at an end.
func sideAt(p *Pair, e testnet.End) *Side {
	if e == testnet.A {
		return p.Cli
	}
	return p.Srv
}

func sidesAt(pairs []*Pair, e testnet.End) []*Side {
	if e == testnet.A {
		return clients(pairs)
	}
	return servers(pairs)
}

// flow is the direction of one connection on the wire.
type flow struct{ src, dst netip.AddrPort }

func flowOf(s testnet.Segment) flow { return flow{s.Src, s.Dst} }

func (f flow) reverse() flow { return flow{f.dst, f.src} }

func noZone(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().WithZone(""), ap.Port())
}

// matcher tells the segments that are meant.
type matcher func(testnet.Segment) bool

func hasFlags(f testnet.Flags) matcher {
	return func(s testnet.Segment) bool { return s.Flags.Has(f) }
}

// acks matches a plain acknowledgement of everything before next.
func acks(next uint32) matcher {
	return func(s testnet.Segment) bool {
		return s.Ack == next && s.Flags.Has(testnet.ACK) && s.Flags&(testnet.SYN|testnet.FIN|testnet.RST) == 0
	}
}

var (
	isSYN    = func(s testnet.Segment) bool { return s.Flags&(testnet.SYN|testnet.ACK) == testnet.SYN }
	isSYNACK = hasFlags(testnet.SYN | testnet.ACK)
	isFIN    = hasFlags(testnet.FIN)
	isRST    = hasFlags(testnet.RST)
	isData   = func(s testnet.Segment) bool { return len(s.Payload) > 0 }
)

// passages waits for n segments of the pair that come from an end and match; if
// delivered, for those that have reached the other end.
func (w *wire) passages(p *Pair, from testnet.End, n int, delivered bool, match matcher) []testnet.Passage {
	sender := sideAt(p, from).Conn
	f := flow{noZone(sender.Local), noZone(sender.Remote)}
	since := p.Cli.Conn.Steps[0].At.Lo // an older connection may have had the same ports
	list, err := w.Wait(w.ctx, n, func(s testnet.Passage) bool {
		return s.From == from && flowOf(s.Segment) == f && s.Read >= since && (s.End != 0 || !delivered) && match(s.Segment)
	})
	if err != nil {
		w.c.Fatalf("%s from %v: %v", sender, from, err)
	}
	return list
}

// delivered waits for the first segment that matches to reach the other end.
func (w *wire) delivered(p *Pair, from testnet.End, match matcher) testnet.Passage {
	return w.passages(p, from, 1, true, match)[0]
}

// sent waits for the first segment that matches to leave its end.
func (w *wire) sent(p *Pair, from testnet.End, match matcher) testnet.Passage {
	return w.passages(p, from, 1, false, match)[0]
}

// by is the bracket of what a segment made its receiver do.
func by(s testnet.Passage) Span { return Span{s.Begin, s.End} }

// within is by, for a segment that may come during a call.
func within(s testnet.Passage, call Span) Span { return Span{s.Begin, max(s.End, call.Hi)} }

// until is the bracket of what a call did before it sent a segment.
func until(call Span, s testnet.Passage) Span { return Span{call.Lo, min(call.Hi, s.Read)} }

// listen listens at B.
func (w *wire) listen(addr netip.Addr) *Listener {
	resp := w.srv.call(w.c, request{Op: "listen", N: 512, Addrs: []string{netip.AddrPortFrom(addr, 0).String()}})
	local := netip.MustParseAddrPort(resp.Locals[0])
	l := &Listener{P: w.srv, FD: resp.FDs[0], Addr: local, Conn: &Conn{NetNS: w.NS(testnet.B).Inode(),
		Family: familyOf(addr), Local: local, UID: w.srv.id.UID, Cookie: resp.Cookies[0]}}
	l.Conn.To("LISTEN", resp.Spans[0])
	l.Conn.Own("listen", w.srv.id, resp.Spans[0])
	w.c.listen = append(w.c.listen, l)
	w.c.Expect(l.Conn)
	return l
}

// remote is the address of l as the client must give it.
func (w *wire) remote(l *Listener) netip.AddrPort {
	if l.Addr.Addr().Zone() == "" {
		return l.Addr
	}
	return netip.AddrPortFrom(l.Addr.Addr().WithZone(strconv.Itoa(w.IfIndex(testnet.A))), l.Addr.Port())
}

// connect makes n connections to l.
func (w *wire) connect(l *Listener, n int) []*Pair {
	accepted := w.c.Accept(l, n)
	resp := w.cli.call(w.c, request{Op: "connect", N: n, Addrs: []string{w.remote(l).String()}})
	return w.pair(l, resp, accepted())
}

// again connects to l from the local addresses and ports of old ones.
func (w *wire) again(l *Listener, old []*Pair) []*Pair {
	accepted := w.c.Accept(l, len(old))
	var all response
	for _, p := range old {
		resp := w.cli.call(w.c, request{Op: "connect", N: 1, Addrs: []string{w.remote(l).String()}, Bind: p.Cli.Conn.Local.String()})
		all.FDs = append(all.FDs, resp.FDs...)
		all.Spans = append(all.Spans, resp.Spans...)
		all.Locals = append(all.Locals, resp.Locals...)
		all.Errnos = append(all.Errnos, resp.Errnos...)
		all.Cookies = append(all.Cookies, resp.Cookies...)
	}
	return w.pair(l, all, accepted())
}

// pair notes that connections to l were opened, at both ends.
func (w *wire) pair(l *Listener, connected, accepted response) []*Pair {
	child := map[string]int{}
	for i, remote := range accepted.Remotes {
		child[noZone(netip.MustParseAddrPort(remote)).String()] = i
	}
	pairs := make([]*Pair, len(connected.FDs))
	for i := range pairs {
		if connected.Errnos[i] != 0 {
			w.c.Fatalf("connect to %s: %v", l.Addr, unix.Errno(connected.Errnos[i]))
		}
		cli := w.active(w.remote(l), connected, i)
		k, ok := child[noZone(cli.Local).String()]
		if !ok {
			w.c.Fatalf("%s was not accepted", cli)
		}
		srv := &Conn{NetNS: l.Conn.NetNS, Family: cli.Family, Local: l.Addr, Remote: netip.MustParseAddrPort(accepted.Remotes[k]),
			UID: w.srv.id.UID, Cookie: accepted.Cookies[k], End: &End{Opened: "passive"}}
		srv.Own("accept", w.srv.id, accepted.Spans[k])
		p := &Pair{&Side{P: w.cli, FD: connected.FDs[i], Conn: cli}, &Side{P: w.srv, FD: accepted.FDs[k], Conn: srv}}
		pairs[i] = p

		cli.To("SYN_SENT", connected.Spans[i])
		syn := w.delivered(p, testnet.A, isSYN)
		synacks := w.passages(p, testnet.B, 1, true, isSYNACK)
		ack := w.delivered(p, testnet.A, acks(synacks[0].NextSeq()))
		cli.Last().At = until(connected.Spans[i], w.sent(p, testnet.A, isSYN))
		cli.To("ESTABLISHED", within(synacks[0], connected.Spans[i]))

		// The child is born of the last segment of the handshake, whatever
		// waited for it before; its SYN_RECV lasted from the SYN|ACK that this
		// answers, to the microsecond. If the SYN|ACK was sent again, only the
		// timestamps, in ms, can tell.
		unit := int64(time.Microsecond)
		if len(w.passages(p, testnet.B, 1, false, isSYNACK)) > 1 {
			unit = int64(time.Millisecond)
		}
		srv.Steps = []Step{{Old: "LISTEN", New: "SYN_RECV", At: by(ack)}}
		step := srv.To("ESTABLISHED", by(ack))
		step.RoundTrip = Span{ack.Begin - synacks[0].Read - unit, ack.End - syn.Begin + unit}
		w.c.Expect(cli, srv)
	}
	return pairs
}

// active is the client's connection i of a response to connect.
func (w *wire) active(remote netip.AddrPort, resp response, i int) *Conn {
	conn := &Conn{NetNS: w.NS(testnet.A).Inode(), Family: familyOf(remote.Addr()), Remote: remote,
		UID: w.cli.id.UID, Cookie: resp.Cookies[i], End: &End{Opened: "active"}}
	if resp.Locals[i] != "" {
		conn.Local = netip.MustParseAddrPort(resp.Locals[i])
	}
	conn.Own("connect", w.cli.id, resp.Spans[i])
	return conn
}

// open makes as many connections as the case has, of each family.
func (w *wire) open() []*Pair {
	var pairs []*Pair
	for _, family := range []int{4, 6} {
		pairs = append(pairs, w.connect(w.listen(w.Addr(testnet.B, family)), w.c.N)...)
	}
	return pairs
}

// oneFIN lets each FIN pass once: sent again by a slow machine, it would start
// TIME_WAIT again.
func (w *wire) oneFIN() {
	for _, e := range []testnet.End{testnet.A, testnet.B} {
		type fin struct {
			flow flow
			seq  uint32
		}
		seen := map[fin]bool{}
		w.AddRule(e, func(s testnet.Segment) testnet.Verdict {
			if !isFIN(s) {
				return testnet.Pass
			}
			f := fin{flowOf(s), s.NextSeq()}
			if seen[f] {
				return testnet.Drop
			}
			seen[f] = true
			return testnet.Pass
		})
	}
}

// closes does op (close or shutdown) at an end and notes who did it; state is
// what it leads to.
func (w *wire) closes(op string, pairs []*Pair, from testnet.End, state string) []Span {
	spans := w.c.Op(op, sidesAt(pairs, from))
	for i, s := range sidesAt(pairs, from) {
		s.Conn.To(state, until(spans[i], w.sent(pairs[i], from, isFIN)))
		s.Conn.Own("close", s.P.id, spans[i])
		s.Conn.End.How, s.Conn.End.ClosedBy = "fin", s.P.id
	}
	return spans
}

// first closes the connections from an end, by op: it goes to FIN_WAIT2, its peer
// to CLOSE_WAIT.
func (w *wire) first(op string, pairs []*Pair, from testnet.End) {
	spans := w.closes(op, pairs, from, "FIN_WAIT1")
	for i, p := range pairs {
		a, b := sideAt(p, from).Conn, sideAt(p, from.Other()).Conn
		fin := w.delivered(p, from, isFIN)
		b.To("CLOSE_WAIT", by(fin))
		a.To("FIN_WAIT2", within(w.delivered(p, from.Other(), acks(fin.NextSeq())), spans[i]))
		a.End.Closer, b.End.Closer, b.End.How = "local", "remote", "fin"
	}
}

// second closes them from the other end, too: from is in TIME_WAIT then, its peer
// gone. It returns the FINs that began TIME_WAIT.
func (w *wire) second(pairs []*Pair, from testnet.End) []testnet.Passage {
	spans := w.closes("close", pairs, from.Other(), "LAST_ACK")
	fins := make([]testnet.Passage, len(pairs))
	for i, p := range pairs {
		fins[i] = w.delivered(p, from.Other(), isFIN)
		sideAt(p, from).Conn.To("TIME_WAIT", by(fins[i]))
		sideAt(p, from.Other()).Conn.To("CLOSE", within(w.delivered(p, from, acks(fins[i].NextSeq())), spans[i]))
	}
	return fins
}

// plain is a life without adventures: the client closes first.
func (w *wire) plain(pairs []*Pair) {
	w.first("close", pairs, testnet.A)
	w.second(pairs, testnet.A)
	expire(clients(pairs))
}

// expiresFrom notes that TIME_WAIT ends by its timer, which began (again) by a
// segment.
func expiresFrom(conn *Conn, restart testnet.Passage) {
	conn.timer(timeWait, by(restart))
	conn.Last().Timer = 0 // it was in TIME_WAIT for longer than that
	conn.End.TimeWaitEnd = "expired"
}

// endsEarly notes that TIME_WAIT ended before its time.
func endsEarly(conn *Conn, at Span, how string) {
	conn.To("CLOSE", at).Scanned = true
	conn.End.TimeWaitEnd = how
}

// inject puts a segment on the wire as if it came from an end.
func (w *wire) inject(from testnet.End, s testnet.Segment) testnet.Passage {
	p, err := w.Inject(from, s)
	if err != nil {
		w.c.Fatalf("%v", err)
	}
	return p
}

// resets injects an RST, from an end, that its receiver must take as its peer's,
// and notes what that does; seq is what the receiver expects next.
func (w *wire) resets(p *Pair, from testnet.End, seq uint32) {
	conn := sideAt(p, from.Other()).Conn
	rst := w.inject(from, testnet.Segment{Src: noZone(conn.Remote), Dst: noZone(conn.Local), Seq: seq, Flags: testnet.RST})
	conn.To("CLOSE", by(rst))
	conn.End.How, conn.End.Reset = "rst", "peer"
	if conn.End.Closer == "" {
		conn.End.Closer = "remote"
	}
}

// longEnough is a time in TIME_WAIT within which --hooks poll has seen it, in a walk
// each second or, in a guest, as soon as it has the time for one, and after which
// tcp_tw_reuse allows to take its port (1 s).
var longEnough = 3 * time.Second

func init() {
	if inVM {
		longEnough = 5 * time.Second
	}
}

func init() {
	actorOps["failed"] = (*actor).waitFailed
}

// waitFailed waits until each socket has an error, which it returns.
func (a *actor) waitFailed(req *request, resp *response) error {
	return eachFD(func(fd int) error {
		for {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			} else if err != nil {
				return err
			}
			errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			resp.Errnos = append(resp.Errnos, errno)
			return err
		}
	})(a, req, resp)
}
