package e2e

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/tcptrace/tcptrace/internal/testnet"
	"golang.org/x/sys/unix"
)

// wireCases are those that need segments late, lost, crossing or forged.
func wireCases() []Case {
	return []Case{
		onWire(Case{Name: "wire-crossing-fins"}, crossingFINs),
		onWire(Case{Name: "wire-lost-fin-and-ack"}, lostFINAndACK),
		onWire(Case{Name: "wire-reordered-fin"}, reorderedFIN),
		onWire(Case{Name: "wire-time-wait-restarted"}, timeWaitRestarted),
		onWire(Case{Name: "wire-time-wait-reset"}, timeWaitReset),
		onWire(Case{Name: "wire-time-wait-reused-by-syn"}, timeWaitReusedBySYN),
		onWire(Case{Name: "wire-time-wait-reused-by-connect", Sysctls: map[string]string{
			"ipv4/tcp_tw_reuse": "1",
			// connect() uses an even number of ports; one of 24 is reserved, so
			// that prime connections take all there are.
			"ipv4/ip_local_port_range":     "40000 40023",
			"ipv4/ip_local_reserved_ports": "40023",
		}}, timeWaitReusedByConnect),
		onWire(Case{Name: "wire-black-hole", Sysctls: map[string]string{"ipv4/tcp_syn_retries": "1"}}, blackHole),
		onWire(Case{Name: "wire-peer-vanishes"}, peerVanishes),
		onWire(Case{Name: "wire-reset-established"}, resetEstablished),
		onWire(Case{Name: "wire-reset-close-wait"}, resetCloseWait),
		onWire(Case{Name: "wire-delayed"}, delayedWire),
		onWire(Case{Name: "wire-link-local"}, linkLocal),
		onWire(Case{Name: "wire-eight-groups"}, eightGroups),
	}
}

// crossingFINs: both close, and each FIN is on its way when the other is sent.
func crossingFINs(w *wire) {
	w.oneFIN()
	pairs := w.open()
	w.Hold(testnet.A)
	w.Hold(testnet.B)
	for _, e := range []testnet.End{testnet.A, testnet.B} {
		w.closes("close", pairs, e, "FIN_WAIT1")
	}
	w.Release(testnet.A)
	w.Release(testnet.B)
	for _, p := range pairs {
		for _, e := range []testnet.End{testnet.A, testnet.B} {
			conn := sideAt(p, e).Conn
			conn.To("CLOSING", by(w.delivered(p, e.Other(), isFIN)))
			conn.To("TIME_WAIT", by(w.delivered(p, e.Other(), acks(w.sent(p, e, isFIN).NextSeq()))))
			conn.End.Closer = "both"
		}
	}
	expire(clients(pairs))
	expire(servers(pairs))
}

// lostFINAndACK: the first FIN is lost, and the ACK of the second side's.
func lostFINAndACK(w *wire) {
	pairs := w.open()
	var mu sync.Mutex
	finsA, finsB := map[flow]int{}, map[flow]int{}
	lastACK := map[flow]uint32{} // of A: what acknowledges B's FIN
	lost := map[flow]bool{}
	w.AddRule(testnet.A, func(s testnet.Segment) testnet.Verdict {
		mu.Lock()
		defer mu.Unlock()
		f := flowOf(s)
		if isFIN(s) {
			if finsA[f]++; finsA[f] != 2 {
				return testnet.Drop
			}
			return testnet.Pass
		}
		if next, ok := lastACK[f]; ok && acks(next)(s) && !lost[f] {
			lost[f] = true
			return testnet.Drop
		}
		return testnet.Pass
	})
	w.AddRule(testnet.B, func(s testnet.Segment) testnet.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if !isFIN(s) {
			return testnet.Pass
		}
		f := flowOf(s)
		lastACK[f.reverse()] = s.NextSeq()
		if finsB[f]++; finsB[f] > 2 {
			return testnet.Drop
		}
		return testnet.Pass
	})
	w.first("close", pairs, testnet.A)
	fins := w.second(pairs, testnet.A)
	for i, p := range pairs {
		if first := w.sent(p, testnet.A, isFIN); !first.Dropped {
			w.c.Fatalf("%v was not lost", first)
		}
		if first := w.sent(p, testnet.A, acks(fins[i].NextSeq())); !first.Dropped {
			w.c.Fatalf("%v was not lost", first)
		}
		restart := w.passages(p, testnet.B, 2, true, isFIN)[1]
		// All that a scan sees of TIME_WAIT's start is when the timer, which
		// ran for a fraction of a second, was set for the last time.
		p.Cli.Conn.Last().PollHi = restart.End
		expiresFrom(p.Cli.Conn, restart)
	}
}

// reorderedFIN: the FIN overtakes the data before it. It counts when these came.
func reorderedFIN(w *wire) {
	w.oneFIN()
	pairs := w.open()
	remove := w.AddRule(testnet.A, func(s testnet.Segment) testnet.Verdict {
		if isData(s) && !isFIN(s) {
			return testnet.Hold
		}
		return testnet.Pass
	})
	const size = 1001
	var spans []Span
	for _, p := range pairs {
		w.c.Write([]*Side{p.Cli}, size)
		// In a segment of its own: it must have gone out before the FIN.
		w.sent(p, testnet.A, isData)
		// Before the data is taken for lost, which would leave no window for a FIN.
		spans = append(spans, w.closes("close", []*Pair{p}, testnet.A, "FIN_WAIT1")...)
	}
	for _, p := range pairs {
		w.delivered(p, testnet.A, isFIN)
	}
	remove()
	w.Release(testnet.A)
	for i, p := range pairs {
		data := w.delivered(p, testnet.A, isData)
		p.Srv.Conn.To("CLOSE_WAIT", by(data))
		fin := w.sent(p, testnet.A, isFIN)
		p.Cli.Conn.To("FIN_WAIT2", within(w.delivered(p, testnet.B, acks(fin.NextSeq())), spans[i]))
		p.Cli.Conn.End.Closer, p.Srv.Conn.End.Closer = "local", "remote"
	}
	w.c.Read(servers(pairs), size)
	w.second(pairs, testnet.A)
	expire(clients(pairs))
}

// timeWaitRestarted: the FIN comes again after 5 s, and TIME_WAIT begins anew.
func timeWaitRestarted(w *wire) {
	w.oneFIN()
	pairs := w.open()
	w.first("close", pairs, testnet.A)
	fins := w.second(pairs, testnet.A)
	// Longer than the slack of the timer, so that it cannot be taken for that.
	w.c.Hold(5 * time.Second)
	// TIME_WAIT answers the FIN; the RST that comes back would end it.
	w.AddRule(testnet.A, func(testnet.Segment) testnet.Verdict { return testnet.Drop })
	for i, p := range pairs {
		expiresFrom(p.Cli.Conn, w.inject(testnet.B, fins[i].Segment))
	}
}

// timeWaitReset: an RST ends TIME_WAIT (RFC 1337).
func timeWaitReset(w *wire) {
	w.oneFIN()
	pairs := w.open()
	w.first("close", pairs, testnet.A)
	fins := w.second(pairs, testnet.A)
	w.c.Hold(longEnough)
	for i, p := range pairs {
		rst := w.inject(testnet.B, testnet.Segment{Src: fins[i].Src, Dst: fins[i].Dst, Seq: fins[i].NextSeq(), Flags: testnet.RST})
		endsEarly(p.Cli.Conn, by(rst), "reset")
	}
}

// timeWaitReusedBySYN: the server closed first; the client comes back from the
// same port.
func timeWaitReusedBySYN(w *wire) {
	w.oneFIN()
	for _, family := range []int{4, 6} {
		l := w.listen(w.Addr(testnet.B, family))
		old := w.connect(l, w.c.N)
		w.first("close", old, testnet.B)
		w.second(old, testnet.B)
		w.c.Hold(longEnough)
		pairs := w.again(l, old)
		for i, p := range pairs {
			endsEarly(old[i].Srv.Conn, by(w.delivered(p, testnet.A, isSYN)), "reused")
		}
		w.plain(pairs)
	}
}

// timeWaitReusedByConnect: every local port is in TIME_WAIT; connect takes them
// over (tcp_tw_reuse).
func timeWaitReusedByConnect(w *wire) {
	w.oneFIN()
	for _, family := range []int{4, 6} {
		l := w.listen(w.Addr(testnet.B, family))
		old := w.connect(l, w.c.N)
		w.first("close", old, testnet.A)
		w.second(old, testnet.A)
		w.c.Hold(longEnough)
		by := map[netip.AddrPort]*Pair{}
		for _, p := range old {
			by[p.Cli.Conn.Local] = p
		}
		pairs := w.connect(l, w.c.N)
		for _, p := range pairs {
			prev := by[p.Cli.Conn.Local]
			if prev == nil {
				w.c.Fatalf("%s is not from a port in TIME_WAIT", p.Cli.Conn)
			}
			endsEarly(prev.Cli.Conn, p.Cli.Conn.Steps[0].At, "reused")
		}
		w.plain(pairs)
	}
}

// blackHole: nothing answers the SYN.
func blackHole(w *wire) {
	w.AddRule(testnet.A, func(testnet.Segment) testnet.Verdict { return testnet.Drop })
	type attempt struct {
		remote netip.AddrPort
		wait   func() response
	}
	var attempts []attempt
	for _, family := range []int{4, 6} {
		for i := range w.c.N {
			// A port for each tells them apart on the wire.
			remote := netip.AddrPortFrom(w.Addr(testnet.B, family), uint16(9000+i))
			attempts = append(attempts, attempt{remote, w.cli.start(w.c, request{Op: "connect", N: 1, Addrs: []string{remote.String()}})})
		}
	}
	for _, a := range attempts {
		resp := a.wait()
		if errno := unix.Errno(resp.Errnos[0]); errno != unix.ETIMEDOUT {
			w.c.Fatalf("connect to %s: %v, want %v", a.remote, errno, unix.ETIMEDOUT)
		}
		syns := w.Passages(func(p testnet.Passage) bool { return p.Dst == a.remote })
		// tcp_syn_linear_timeouts, where there is one, adds to tcp_syn_retries.
		if len(syns) < 2 {
			w.c.Fatalf("connect to %s: %d SYNs, want one and a retransmission at least", a.remote, len(syns))
		}
		conn := w.active(a.remote, resp, 0)
		conn.Local = syns[0].Src
		conn.To("SYN_SENT", until(resp.Spans[0], syns[0]))
		// Each SYN was waited for by at least a second (TCP_TIMEOUT_INIT).
		waited := time.Duration(len(syns)) * (time.Second - kernelTick)
		conn.To("CLOSE", Span{resp.Spans[0].Lo + int64(waited), resp.Spans[0].Hi}).Err = "ETIMEDOUT"
		conn.End.Closer, conn.End.How, conn.End.Err = "none", "timeout", "ETIMEDOUT"
		w.c.Expect(conn)
	}
}

// peerVanishes: data go unanswered for TCP_USER_TIMEOUT. Then the peer is back,
// and sends to a socket that is no more.
func peerVanishes(w *wire) {
	pairs := w.open()
	w.c.Op("setint", clients(pairs), func(r *request) {
		r.Data = []string{strconv.Itoa(unix.IPPROTO_TCP), strconv.Itoa(unix.TCP_USER_TIMEOUT), "700"}
	})
	vanished := func(testnet.Segment) testnet.Verdict { return testnet.Drop }
	back := w.AddRule(testnet.A, vanished)
	written := w.c.Write(clients(pairs), 100)
	failed := w.cli.call(w.c, request{Op: "failed", FDs: fds(clients(pairs))})
	for i, p := range pairs {
		if errno := unix.Errno(failed.Errnos[i]); errno != unix.ETIMEDOUT {
			w.c.Fatalf("%s: %v, want %v", p.Cli.Conn, errno, unix.ETIMEDOUT)
		}
		p.Cli.Conn.To("CLOSE", Span{written[i].Hi, failed.Spans[i].Hi}).Err = "ETIMEDOUT"
		e := p.Cli.Conn.End
		e.Closer, e.How, e.Err = "none", "timeout", "ETIMEDOUT"
	}
	back()
	written = w.c.Write(servers(pairs), 1)
	for i, p := range pairs {
		p.Srv.Conn.To("CLOSE", within(w.delivered(p, testnet.A, isRST), written[i]))
		e := p.Srv.Conn.End
		e.Closer, e.How, e.Reset = "remote", "rst", "peer"
	}
}

func fds(sides []*Side) []int {
	list := make([]int, len(sides))
	for i, s := range sides {
		list[i] = s.FD
	}
	return list
}

// resetEstablished: each end gets an RST in ESTABLISHED.
func resetEstablished(w *wire) {
	for _, p := range w.open() {
		w.resets(p, testnet.B, w.sent(p, testnet.B, isSYNACK).NextSeq())
		w.resets(p, testnet.A, w.sent(p, testnet.A, isSYN).NextSeq())
	}
}

// resetCloseWait: the client gets it in CLOSE_WAIT, the server in FIN_WAIT2.
func resetCloseWait(w *wire) {
	w.oneFIN()
	pairs := w.open()
	w.first("shutdown", pairs, testnet.B)
	for _, p := range pairs {
		w.resets(p, testnet.B, w.sent(p, testnet.B, isFIN).NextSeq())
		w.resets(p, testnet.A, w.sent(p, testnet.A, isSYN).NextSeq())
	}
}

// delayedWire: every segment takes 40 ms, so the handshake's last takes 80 ms to
// come after the SYN|ACK was sent.
func delayedWire(w *wire) {
	const oneWay = 40 * time.Millisecond
	w.oneFIN()
	w.SetDelay(testnet.A, oneWay)
	w.SetDelay(testnet.B, oneWay)
	pairs := w.open()
	for _, p := range pairs {
		if rtt := time.Duration(p.Srv.Conn.Last().RoundTrip.Lo); rtt < 2*oneWay-time.Millisecond {
			w.c.Fatalf("%s: the wire was %v late, want %v", p.Srv.Conn, rtt, 2*oneWay)
		}
	}
	w.plain(pairs)
}

// linkLocal: addresses that mean something only with their scope.
func linkLocal(w *wire) {
	w.oneFIN()
	zone := strconv.Itoa(w.IfIndex(testnet.B))
	pairs := w.connect(w.listen(w.LinkLocal(testnet.B).WithZone(zone)), w.c.N)
	for _, p := range pairs {
		for _, ap := range []netip.AddrPort{p.Cli.Conn.Local, p.Cli.Conn.Remote, p.Srv.Conn.Local, p.Srv.Conn.Remote} {
			if ap.Addr().Zone() == "" {
				w.c.Fatalf("%s is without scope", ap)
			}
		}
	}
	w.plain(pairs)
}

// eightGroups: the longest addresses as text.
func eightGroups(w *wire) {
	w.oneFIN()
	a := netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/64")
	b := netip.MustParsePrefix("2001:db8:1111:2222:ffff:eeee:dddd:cccc/64")
	for e, p := range []netip.Prefix{a, b} {
		if err := w.AddAddr(testnet.End(e), p); err != nil {
			w.c.Fatalf("%v", err)
		}
	}
	pairs := w.connect(w.listen(b.Addr()), w.c.N)
	for _, p := range pairs {
		if p.Cli.Conn.Local.Addr() != a.Addr() {
			w.c.Fatalf("%s is not from %s", p.Cli.Conn, a.Addr())
		}
	}
	w.plain(pairs)
}
