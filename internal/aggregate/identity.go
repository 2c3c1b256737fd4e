package aggregate

import (
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

// find returns the connection at a kernel address, or 0.
func (t *Table) find(sk uint64) uint32 {
	if sk == 0 {
		return 0
	}
	return t.index[sk]
}

// same says whether record and connection can be of the same socket. An address
// that the kernel uses again is told by the cookie (sock_gen_cookie), which is
// never the same again, and where it is not known by addresses and ports.
func same(c *conn, r *events.Record) bool {
	if c.cookie != 0 && r.Cookie != 0 {
		return c.cookie == r.Cookie
	}
	if c.family == 0 || r.Family == 0 {
		return true
	}
	if lport := r.Local.Port(); lport != 0 && c.lport != 0 && lport != c.lport {
		return false
	}
	rport := r.Remote.Port()
	if rport == 0 || c.rport == 0 {
		return true
	}
	return rport == c.rport && r.Family == c.family && bytesOf(r.Remote.Addr()) == c.raddr
}

// bytesOf returns an address as conn has it.
func bytesOf(a netip.Addr) (b [16]byte) {
	switch {
	case a.Is4() || a.Is4In6():
		v4 := a.As4()
		copy(b[:], v4[:])
	case a.Is6():
		b = a.As16()
	}
	return b
}

// address undoes bytesOf.
func (t *Table) address(b *[16]byte, c *conn) netip.Addr {
	switch c.family {
	case 4:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 6:
		a := netip.AddrFrom16(*b)
		if c.zone != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(t.zones[c.zone])
		}
		return a
	}
	return netip.Addr{}
}

// identify fills in what every line about c says. Field by field: a literal would be made
// elsewhere and copied. The cgroup's path is not the table's to know.
func (t *Table) identify(dst *events.Conn, c *conn) {
	o := &t.origins.entries[c.origin]
	dst.ID, dst.Cookie = c.id, c.cookie
	dst.NetNS, dst.Family = o.netns, c.family
	dst.Local = netip.AddrPortFrom(t.address(&c.laddr, c), c.lport)
	dst.Remote = netip.AddrPortFrom(t.address(&c.raddr, c), c.rport)
	dst.Owner, dst.OwnerSrc = t.procs.get(c.owner), c.ownerSrc
	dst.UID = int64(o.uid)
	if o.uid == unknownUID {
		dst.UID = events.Unknown
	}
	dst.CgroupID, dst.Cgroup = o.cgroup, ""
	dst.MPTCP = c.has(isMPTCP)
}

// tuple is what tells connections apart on the wire, within a namespace.
type tuple struct {
	laddr, raddr [16]byte
	netns        uint32
	lport, rport uint16
	family       uint8
}

func (t *Table) tuple(c *conn) tuple {
	return tuple{c.laddr, c.raddr, t.space(c).inode, c.lport, c.rport, c.family}
}

func tupleOf(r *events.Record) tuple {
	return tuple{bytesOf(r.Local.Addr()), bytesOf(r.Remote.Addr()), r.NetNS,
		r.Local.Port(), r.Remote.Port(), r.Family}
}

// space returns the namespace of a connection.
func (t *Table) space(c *conn) *namespace { return t.origins.entries[c.origin].ns }

// create makes a connection of what r tells, in state s since r's time. The caller
// knows whether that is when it was entered.
func (t *Table) create(r *events.Record, sk uint64, s events.State) (uint32, *conn) {
	if t.full() {
		t.makeRoom()
	}
	i, c := t.slab.take()
	t.nextID++
	t.live++
	c.id = t.nextID
	c.state = s
	c.first, c.entered = r.TS, r.TS
	c.closer = closerBy(s)
	t.absorb(c, r)
	t.link(i, c, sk)
	return i, c
}

// absorb takes over what r tells of the identity of c, and that c exists now.
func (t *Table) absorb(c *conn, r *events.Record) {
	if c.cookie == 0 {
		c.cookie = r.Cookie
	}
	if !c.has(isIdentified) && r.Family != 0 {
		c.family = r.Family
		c.laddr, c.raddr = bytesOf(r.Local.Addr()), bytesOf(r.Remote.Addr())
		if z := r.Local.Addr().Zone(); z != "" {
			c.zone = t.zone(z)
		} else if z := r.Remote.Addr().Zone(); z != "" {
			c.zone = t.zone(z)
		}
		if p := r.Local.Port(); p != 0 {
			c.lport = p
		}
		if p := r.Remote.Port(); p != 0 {
			c.rport = p
		}
		if c.lport != 0 && (c.rport != 0 || c.state == events.Listen) {
			c.set(isIdentified)
		}
	}
	if r.Flags&events.FlagMPTCP != 0 {
		c.set(isMPTCP)
	}
	t.absorbOrigin(c, r)
	if c.sk != 0 {
		t.mark(c)
	}
}

// absorbOrigin takes over cgroup, namespace and user. Timewait sockets know neither
// of the two last.
func (t *Table) absorbOrigin(c *conn, r *events.Record) {
	have := &t.origins.entries[c.origin]
	want := have.origin
	if r.CgroupID != 0 {
		want.cgroup = r.CgroupID
	}
	if r.NetNS != 0 {
		want.netns = r.NetNS
	}
	switch r.Kind {
	case events.KindTransition, events.KindConnect, events.KindAccept:
		want.uid = r.UID
	case events.KindSocket:
		if !isTimeWaitSocket(r) {
			want.uid = r.UID
		}
	}
	if want == have.origin {
		return
	}
	n := t.refOrigin(want)
	from, to := t.space(c), t.origins.entries[n].ns
	if from != to && c.sk != 0 {
		from.forget(c)
		to.live++
	}
	t.unrefOrigin(c.origin)
	c.origin = n
}

// link puts c into the index under sk.
func (t *Table) link(i uint32, c *conn, sk uint64) {
	c.sk = sk
	if sk == 0 {
		return
	}
	t.index[sk] = i
	t.space(c).live++
	c.scan = 0
	t.mark(c)
}

// unlink takes c out of the index: its address may be another's now.
func (t *Table) unlink(c *conn) {
	if c.sk == 0 {
		return
	}
	t.space(c).forget(c)
	delete(t.index, c.sk)
	c.sk = 0
}

// mark notes for the walk under way that c exists.
func (t *Table) mark(c *conn) {
	if ns := t.space(c); ns.open && c.scan != ns.gen {
		c.scan = ns.gen
		ns.seen++
	}
}

// drop removes c without a word.
func (t *Table) drop(i uint32) {
	c := t.slab.at(i)
	t.unlink(c)
	if c.has(isHeld) {
		t.unhold(c)
	}
	if c.has(isPending) {
		t.unpend(c)
	}
	t.procs.unref(c.owner)
	t.procs.unref(c.closedBy)
	t.unrefOrigin(c.origin)
	t.slab.give(i)
	t.live--
}

// hold keeps the first transition of c back until its identity is known: a
// connecting socket gets its port after CLOSE -> SYN_SENT (tcp_v4_connect calls
// inet_hash_connect then), a listener's child its addresses after
// LISTEN -> SYN_RECV (inet_csk_clone_lock).
func (t *Table) hold(i uint32, c *conn) {
	c.set(isHeld)
	c.aux = uint32(len(t.held))
	t.held = append(t.held, i)
}

func (t *Table) unhold(c *conn) {
	n := len(t.held) - 1
	if last := t.held[n]; c.aux != uint32(n) {
		t.held[c.aux] = last
		t.slab.at(last).aux = c.aux
	}
	t.held = t.held[:n]
	c.aux = 0
	c.clear(isHeld)
}

// release writes the transition that was held back, with its own time.
func (t *Table) release(c *conn) {
	t.unhold(c)
	old := events.Close
	if c.state == events.SynRecv {
		old = events.Listen
	}
	t.write(c, c.entered, old, c.state, events.Unknown, events.Unknown, true, 0)
}
