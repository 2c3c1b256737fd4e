package watch

import (
	"net/netip"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// closing is the record of a process that closes connection n, and the timewait socket
// that follows.
func closing(n int, ts int64) (*events.Record, *entry) {
	local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 80)
	remote := netip.MustParseAddrPort("192.0.2.1:40000")
	r := &events.Record{NetNS: 7, Local: local, Remote: remote, Cookie: uint64(n + 1), TS: ts, PID: uint32(n + 1), Comm: "closer"}
	return r, &entry{netns: 7, local: local, remote: remote, cookie: uint64(n + 1), seen: ts}
}

func TestClosers(t *testing.T) {
	var c closers
	_, e := closing(1, 1000)
	if p, ok := c.take(e); ok {
		t.Errorf("empty: got %v", p)
	}
	r, e := closing(1, 1000)
	c.add(r)
	for name, change := range map[string]func(*entry){
		"another cookie":    func(e *entry) { e.cookie++ },
		"another namespace": func(e *entry) { e.netns++ },
		"too late":          func(e *entry) { e.seen = 1001 + closersNS },
		"the other end":     func(e *entry) { e.local, e.remote = e.remote, e.local },
	} {
		other := *e
		change(&other)
		if p, ok := c.take(&other); ok {
			t.Errorf("%s: got %v", name, p)
		}
	}
	again, _ := closing(1, 2000)
	again.PID = 99
	c.add(again) // the address has a new connection
	if p, ok := c.take(e); !ok || p != (events.Process{PID: 99, Comm: "closer"}) {
		t.Errorf("got %v, %v", p, ok)
	}
	if p, ok := c.take(e); ok {
		t.Errorf("taken twice: %v", p)
	}
}

// Those that wait are remembered, however many have passed: what is oldest gives way,
// and nobody is named that did not close it.
func TestClosersBounded(t *testing.T) {
	var c closers
	const room, all, newest = closerSets * closerWays, 4 * closerSets * closerWays, 1024
	for n := range all {
		r, _ := closing(n, int64(n+1))
		c.add(r)
	}
	known := 0
	for n := range all {
		_, e := closing(n, all)
		p, ok := c.take(e)
		if ok && p.PID != uint32(n+1) {
			t.Fatalf("connection %d: got %v", n, p)
		}
		if ok {
			known++
		} else if n >= all-newest {
			t.Errorf("connection %d of %d was forgotten", n, all)
		}
	}
	if known < room*9/10 || known > room {
		t.Errorf("%d are known, there is room for %d", known, room)
	}
	if got := testing.AllocsPerRun(100, func() {
		r, e := closing(3, all)
		c.add(r)
		c.take(e)
	}); got > 2 { // closing's own
		t.Errorf("%v allocations", got)
	}
}
