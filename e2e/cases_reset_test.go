package e2e

import (
	"net/netip"
	"syscall"
)

// resetCases end by RSTs.
func resetCases() []Case {
	return []Case{
		{Name: "linger0", Run: lingerZero},
		{Name: "unread", Run: unread},
		{Name: "reset_in_close_wait", Run: resetInCloseWait},
		{Name: "late_data", Run: lateData},
		{Name: "refused", Run: refused},
		{Name: "never_accepted", Run: neverAccepted},
	}
}

// lingerZero: the client resets, the server has it in ESTABLISHED.
func lingerZero(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.Op("linger0", clients(pairs))
	spans := c.Op("close", clients(pairs))
	c.ResetBy(clients(pairs), servers(pairs), "linger0", spans, c.Op("reset", servers(pairs)))
	c.Op("close", servers(pairs))
}

// unread: the server closes without reading what the client sent.
func unread(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.Write(clients(pairs), 7)
	c.Op("readable", servers(pairs))
	spans := c.Op("close", servers(pairs))
	c.ResetBy(servers(pairs), clients(pairs), "unread", spans, c.Op("reset", clients(pairs)))
	c.Op("close", clients(pairs))
}

// resetInCloseWait: the client sends its FIN and then resets. Its FIN_WAIT2
// really ends in CLOSE.
func resetInCloseWait(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.ShutdownFirst(clients(pairs), servers(pairs))
	c.Op("linger0", clients(pairs))
	spans := c.Op("close", clients(pairs))
	c.ResetBy(clients(pairs), servers(pairs), "linger0", spans, c.Op("reset", servers(pairs)))
	c.Op("close", servers(pairs))
}

// lateData: the server writes to a client that has closed and waits in a
// timewait socket, in FIN_WAIT2: it answers with an RST and is gone.
func lateData(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	cs, ss := clients(pairs), servers(pairs)
	c.Orphan(cs, ss)
	c.Hold(scanSlack) // long enough for a scan to meet the timewait socket
	spans := c.Write(ss, 13)
	reset := c.Op("reset", ss)
	gone := c.Observe(cs, "")
	for i, s := range ss {
		s.Conn.To("CLOSE", Span{spans[i].Lo, reset[i].Hi})
		s.Conn.End.How, s.Conn.End.Reset = "rst", "peer"
		cs[i].Conn.To("CLOSE", Span{spans[i].Lo, gone[i].Hi}).Scanned = true
		cs[i].Conn.End.How, cs[i].Conn.End.Reset = "rst", "other"
	}
	c.Op("close", ss)
}

// refused: nobody listens on a port that nobody else can take meanwhile.
func refused(c *C) {
	cli := c.Proc("cli")
	for range c.N {
		bound := cli.call(c, request{Op: "listen", N: -1, Addrs: []string{netip.AddrPortFrom(c.Loopback(), 0).String()}})
		resp := cli.call(c, request{Op: "connect", N: 1, Addrs: bound.Locals})
		if errno := syscall.Errno(resp.Errnos[0]); errno != syscall.ECONNREFUSED {
			c.Fatalf("connect to %s: %v", bound.Locals[0], errno)
		}
		remote := netip.MustParseAddrPort(bound.Locals[0])
		conn := &Conn{NetNS: c.NS.Inode(), Family: c.Fam, Local: netip.AddrPortFrom(c.Loopback(), 0), AnyLocalPort: true,
			Remote: remote, Cookie: resp.Cookies[0], End: &End{Opened: "active", Closer: "remote", How: "refused", Reset: "peer"}}
		conn.To("SYN_SENT", resp.Spans[0])
		conn.To("CLOSE", resp.Spans[0])
		conn.Own("connect", cli.id, resp.Spans[0])
		c.Expect(conn)
		cli.call(c, request{Op: "close", FDs: []int{resp.FDs[0], bound.FDs[0]}})
	}
}

// neverAccepted: the listener closes with the connections in its backlog.
func neverAccepted(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv)
	cs := c.Dial(cli, l, c.N)
	children := make([]*Conn, len(cs))
	ss := make([]*Side, len(cs))
	for i, s := range cs {
		children[i] = c.child(l, s, s.Conn.Steps[0].At)
		ss[i] = &Side{P: srv, Conn: children[i]}
	}
	for i, span := range c.ObserveConns(c.NS, children, "ESTABLISHED") {
		for j := range children[i].Steps {
			children[i].Steps[j].At.Hi = span.Hi
		}
	}
	span := c.CloseListener(l)
	spans := make([]Span, len(cs))
	for i := range spans {
		spans[i] = span
	}
	c.ResetBy(ss, cs, "other", spans, c.Op("reset", cs))
	c.Op("close", cs)
}
