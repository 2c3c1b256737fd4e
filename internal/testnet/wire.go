package testnet

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is an end of a Wire, and the direction of what comes from it.
type End int

// The two ends.
const (
	A End = 0
	B End = 1
)

// Other is the end across the wire.
func (e End) Other() End { return 1 - e }

func (e End) String() string { return [...]string{"A", "B"}[e] }

// ifName is the TUN device's name in both namespaces.
const ifName = "wire0"

// The addresses that every wire has. Wires do not meet, so they may repeat.
var wirePrefixes = [2][]netip.Prefix{
	A: {
		netip.MustParsePrefix("10.77.0.1/24"),
		netip.MustParsePrefix("fd77::1/64"),
		netip.MustParsePrefix("fe80::1/64"),
	},
	B: {
		netip.MustParsePrefix("10.77.0.2/24"),
		netip.MustParsePrefix("fd77::2/64"),
		netip.MustParsePrefix("fe80::2/64"),
	},
}

// Verdict is what becomes of a segment.
type Verdict int

// Verdicts.
const (
	Pass      Verdict = iota
	Drop              // it is lost
	Hold              // it waits for Release
	Duplicate         // it passes twice
)

// Rule judges the segments that come from an end. It runs on the wire's own
// goroutine, one segment at a time, and must not call the wire.
type Rule func(Segment) Verdict

// Passage is a segment on the wire. Times are CLOCK_MONOTONIC, ns. What the
// segment makes the receiving kernel do happens between Begin and End, unless a
// system call holds the receiving socket at that time: a TUN device hands a
// packet to the stack within the write.
type Passage struct {
	Segment
	From     End
	Read     int64 // it had left the sending kernel
	Begin    int64 // just before it reached the receiving kernel; 0: it did not (yet)
	End      int64 // just after
	Dropped  bool
	Injected bool
}

// Wire joins two namespaces. Everything that passes is recorded.
type Wire struct {
	ends [2]wireEnd

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change of passages
	passages []*Passage
	err      error
	closed   bool
	pumps    sync.WaitGroup
}

type wireEnd struct {
	ns      *NS
	tun     *os.File
	ifindex int

	// For what comes from this end; under Wire.mu.
	rules   []*Rule
	delay   time.Duration
	holdAll bool
	held    []*packet
	queue   packetQueue
	serial  uint64
	wake    chan struct{} // capacity 1: the queue has changed
	write   sync.Mutex    // one write to the other end's TUN at a time
}

type packet struct {
	raw    []byte
	p      *Passage // nil: not TCP
	due    int64
	serial uint64
}

// packetQueue is a heap by due time, then by order of coming.
type packetQueue []*packet

func (q packetQueue) Len() int { return len(q) }
func (q packetQueue) Less(i, j int) bool {
	if q[i].due != q[j].due {
		return q[i].due < q[j].due
	}
	return q[i].serial < q[j].serial
}
func (q packetQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packetQueue) Push(x any)   { *q = append(*q, x.(*packet)) }
func (q *packetQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return x
}

// NewWire joins a and b by a wire that ends with the test, which fails if a
// packet could not be handed over.
func NewWire(tb testing.TB, a, b *NS) *Wire {
	tb.Helper()
	w, err := Connect(a, b)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// NewPair makes two namespaces and a wire between them, all of which end with
// the test.
func NewPair(tb testing.TB) (a, b *NS, w *Wire) {
	tb.Helper()
	a, b = NewNS(tb, "wire-a"), NewNS(tb, "wire-b")
	return a, b, NewWire(tb, a, b)
}

// Connect joins a and b by a wire.
func Connect(a, b *NS) (*Wire, error) {
	w := &Wire{changed: make(chan struct{})}
	for e, ns := range []*NS{a, b} {
		w.ends[e].ns = ns
		w.ends[e].wake = make(chan struct{}, 1)
		if err := w.ends[e].open(wirePrefixes[e]); err != nil {
			w.closeTUNs()
			return nil, fmt.Errorf("wire end %v in %s: %w", End(e), ns.name, err)
		}
	}
	for _, e := range []End{A, B} {
		w.pumps.Add(2)
		go w.read(e)
		go w.deliver(e)
	}
	return w, nil
}

func (e *wireEnd) open(prefixes []netip.Prefix) error {
	return e.ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq(ifName)
		if err == nil {
			ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("make %s: %w", ifName, err)
		}
		// Only now: the runtime's poller refuses a TUN file without a device.
		e.tun = os.NewFile(uintptr(fd), ifName)

		link, err := netlink.LinkByName(ifName)
		if err != nil {
			return fmt.Errorf("find %s: %w", ifName, err)
		}
		e.ifindex = link.Attrs().Index
		// No address that the test did not give, and none that has to wait.
		for path, value := range map[string]string{"addr_gen_mode": "1", "accept_dad": "0", "router_solicitations": "0"} {
			path = "/proc/sys/net/ipv6/conf/" + ifName + "/" + path
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("ipv6 settings: %w", err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", ifName, err)
		}
		for _, p := range prefixes {
			if err := addAddr(link, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func addAddr(link netlink.Link, p netip.Prefix) error {
	addr, err := netlink.ParseAddr(p.String())
	if err != nil {
		return fmt.Errorf("address %v: %w", p, err)
	}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %v: %w", p, err)
	}
	if p.Addr().Is6() {
		return waitLocal(link, p.Addr())
	}
	return nil
}

// waitLocal waits until the kernel takes in what comes for an IPv6 address: a worker of
// its own makes the route after the address was added (addrconf_dad_work), and a SYN
// that is earlier is dropped and comes again.
func waitLocal(link netlink.Link, addr netip.Addr) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{
			Table: unix.RT_TABLE_LOCAL, LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(128, 128)},
		}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		if err != nil {
			return fmt.Errorf("address %v: its route: %w", addr, err)
		}
		if len(routes) > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %v: no route to it", addr)
		}
	}
}

// AddAddr gives an end one more address; the prefix makes the route.
func (w *Wire) AddAddr(e End, p netip.Prefix) error {
	return w.ends[e].ns.Do(func() error {
		link, err := netlink.LinkByName(ifName)
		if err != nil {
			return fmt.Errorf("find %s: %w", ifName, err)
		}
		return addAddr(link, p)
	})
}

// NS is the namespace at an end.
func (w *Wire) NS(e End) *NS { return w.ends[e].ns }

// Addr is the address of an end in family 4 or 6.
func (w *Wire) Addr(e End, family int) netip.Addr {
	if family == 4 {
		return wirePrefixes[e][0].Addr()
	}
	return wirePrefixes[e][1].Addr()
}

// LinkLocal is the link-local address of end e, without a zone: the zone is that
// of the device in the namespace from which it is used (IfIndex).
func (w *Wire) LinkLocal(e End) netip.Addr { return wirePrefixes[e][2].Addr() }

// IfIndex is the number of the device at an end: the scope id of link-local
// addresses there.
func (w *Wire) IfIndex(e End) int { return w.ends[e].ifindex }

// SetDelay makes everything that comes from an end, from now on, arrive d after
// it was sent.
func (w *Wire) SetDelay(from End, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[from].delay = d
}

// AddRule judges what comes from an end by r, too; the first rule that does not
// say Pass decides. The rule stands until remove is called.
func (w *Wire) AddRule(from End, r Rule) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rule := &r
	w.ends[from].rules = append(w.ends[from].rules, rule)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		rules := &w.ends[from].rules
		*rules = slices.DeleteFunc(slices.Clone(*rules), func(x *Rule) bool { return x == rule })
	}
}

// Hold keeps back everything that comes from an end, until Release.
func (w *Wire) Hold(from End) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[from].holdAll = true
}

// Release lets pass, in order, what was held of what came from an end, by Hold
// or by a rule, and ends Hold. It returns how many packets these were.
func (w *Wire) Release(from End) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &w.ends[from]
	n := len(e.held)
	if w.closed {
		return 0
	}
	for _, p := range e.held {
		e.push(p, 0)
	}
	e.held, e.holdAll = nil, false
	return n
}

// Inject puts a segment on the wire as if it came from an end, past the rules and
// the delay, and returns when the other end's kernel has handled it.
func (w *Wire) Inject(from End, s Segment) (Passage, error) {
	raw, err := s.Packet()
	if err != nil {
		return Passage{}, err
	}
	p := &Passage{Segment: s, From: from, Injected: true, Read: Now()}
	w.mu.Lock()
	w.passages = append(w.passages, p)
	w.mu.Unlock()
	if err := w.send(from, &packet{raw: raw, p: p}); err != nil {
		return Passage{}, fmt.Errorf("inject %v: %w", s, err)
	}
	return *p, nil
}

// Passages returns what has been on the wire so far and satisfies match (nil:
// everything), in the order in which it came.
func (w *Wire) Passages(match func(Passage) bool) []Passage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.matching(match)
}

func (w *Wire) matching(match func(Passage) bool) []Passage {
	var list []Passage
	for _, p := range w.passages {
		if match == nil || match(*p) {
			list = append(list, *p)
		}
	}
	return list
}

// Wait returns the passages that satisfy match as soon as there are n of them.
func (w *Wire) Wait(ctx context.Context, n int, match func(Passage) bool) ([]Passage, error) {
	for {
		w.mu.Lock()
		list, changed := w.matching(match), w.changed
		w.mu.Unlock()
		if len(list) >= n {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return list, fmt.Errorf("wait for %d segments, got %d: %w", n, len(list), ctx.Err())
		}
	}
}

// Close takes the wire down, with its devices. What was still under way is lost.
func (w *Wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.mu.Unlock()
	w.closeTUNs()
	for e := range w.ends {
		close(w.ends[e].wake)
	}
	w.pumps.Wait()
	return w.err
}

func (w *Wire) closeTUNs() {
	for e := range w.ends {
		if tun := w.ends[e].tun; tun != nil {
			tun.Close()
		}
	}
}

// notify tells the waiters of a change; under w.mu.
func (w *Wire) notify() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && !errors.Is(err, os.ErrClosed) {
		w.err = err
	}
}

// push puts a packet into the queue of what comes from e; under Wire.mu.
func (e *wireEnd) push(p *packet, delay time.Duration) {
	e.serial++
	p.serial, p.due = e.serial, Now()+int64(delay)
	heap.Push(&e.queue, p)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// read takes packets from the TUN of an end and decides what becomes of them.
func (w *Wire) read(from End) {
	defer w.pumps.Done()
	e := &w.ends[from]
	buf := make([]byte, 1<<16)
	for {
		n, err := e.tun.Read(buf)
		if err != nil {
			w.fail(fmt.Errorf("wire: read from end %v: %w", from, err))
			return
		}
		read := Now()
		p := &packet{raw: slices.Clone(buf[:n])}
		s, isTCP := Parse(p.raw)
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return
		}
		verdict := Pass
		if isTCP {
			p.p = &Passage{Segment: s, From: from, Read: read}
			w.passages = append(w.passages, p.p)
			for _, rule := range e.rules {
				if verdict = (*rule)(s); verdict != Pass {
					break
				}
			}
		}
		switch {
		case verdict == Drop:
			p.p.Dropped = true
		case verdict == Hold, e.holdAll:
			e.held = append(e.held, p)
		case verdict == Duplicate:
			twin := *p.p
			w.passages = append(w.passages, &twin)
			e.push(p, e.delay)
			e.push(&packet{raw: p.raw, p: &twin}, e.delay)
		default:
			e.push(p, e.delay)
		}
		w.notify()
		w.mu.Unlock()
	}
}

// deliver hands over what comes from an end when it is due.
func (w *Wire) deliver(from End) {
	defer w.pumps.Done()
	e := &w.ends[from]
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.mu.Lock()
		var next *packet
		wait := time.Hour
		if len(e.queue) > 0 {
			if wait = time.Duration(e.queue[0].due - Now()); wait <= 0 {
				next = heap.Pop(&e.queue).(*packet)
			}
		}
		w.mu.Unlock()
		if next != nil {
			if err := w.send(from, next); err != nil {
				w.fail(err)
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case _, ok := <-e.wake:
			if !ok {
				return
			}
		case <-timer.C:
		}
	}
}

// send hands a packet to the end across from where it comes.
func (w *Wire) send(from End, p *packet) error {
	e := &w.ends[from]
	e.write.Lock()
	begin := Now()
	_, err := w.ends[from.Other()].tun.Write(p.raw)
	end := Now()
	e.write.Unlock()
	if err != nil {
		return fmt.Errorf("wire: write to end %v: %w", from.Other(), err)
	}
	if p.p != nil {
		w.mu.Lock()
		p.p.Begin, p.p.End = begin, end
		w.notify()
		w.mu.Unlock()
	}
	return nil
}
