package e2e

import "time"

// closeCases end by FINs.
func closeCases() []Case {
	return []Case{
		{Name: "client_first", Run: clientFirst},
		{Name: "server_first", Run: serverFirst},
		{Name: "half_close", Run: halfClose},
		{Name: "fin_timeout", Run: finTimeout, Sysctls: map[string]string{"ipv4/tcp_fin_timeout": "5"}},
		{Name: "no_buckets", Run: noBuckets, Sysctls: map[string]string{"ipv4/tcp_max_tw_buckets": "0"}},
		{Name: "clean_100", Run: clean, N: 100},
	}
}

const closedLater = 600 * time.Millisecond

func clientFirst(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.CloseFirst(clients(pairs), servers(pairs))
	c.Hold(closedLater)
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}

func serverFirst(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.CloseFirst(servers(pairs), clients(pairs))
	c.Hold(closedLater)
	c.CloseSecond(servers(pairs), clients(pairs))
	expire(servers(pairs))
}

// halfClose: the client says that it is done, the server answers at length, and
// only then is it over.
func halfClose(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.Write(clients(pairs), 11)
	c.Read(servers(pairs), 11)
	c.ShutdownFirst(clients(pairs), servers(pairs))
	c.Write(servers(pairs), 9001)
	c.Read(clients(pairs), 9001)
	c.CloseSecond(clients(pairs), servers(pairs))
	c.Op("eof", clients(pairs))
	c.Op("close", clients(pairs)) // of a socket that is long over
	expire(clients(pairs))
}

// finTimeout: the server never closes, so tcp_fin_timeout ends the client's
// orphaned FIN_WAIT2; the server's late FIN meets nobody.
func finTimeout(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	cs, ss := clients(pairs), servers(pairs)
	closed := c.Orphan(cs, ss)
	for i, s := range cs {
		s.Conn.timer(5*time.Second, closed[i])
		s.Conn.End.How = "timeout"
	}
	c.Observe(cs, "")
	c.closeUnheard(ss)
}

// closeUnheard closes b, whose peers are gone: the FIN is answered by an RST.
func (c *C) closeUnheard(b []*Side) {
	spans := c.Op("close", b)
	seen := c.Observe(b, "")
	for i, s := range b {
		s.Conn.To("LAST_ACK", spans[i])
		s.Conn.To("CLOSE", Span{spans[i].Lo, seen[i].Hi})
		s.Conn.Own("close", s.P.id, spans[i])
		s.Conn.End.How, s.Conn.End.Reset, s.Conn.End.ClosedBy = "rst", "peer", s.P.id
	}
}

// noBuckets: the kernel may keep no timewait socket at all.
func noBuckets(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv)

	// The client waits for the server's FIN in a full socket: the FIN ends it.
	pairs := c.Connect(cli, l, c.N)
	cs, ss := clients(pairs), servers(pairs)
	c.ShutdownFirst(cs, ss)
	c.secondWithoutBuckets(cs, ss)
	c.Op("close", cs)

	// The client closes and may leave nothing behind: the server's FIN will be
	// nobody's.
	pairs = c.Connect(cli, l, c.N)
	cs, ss = clients(pairs), servers(pairs)
	closed := c.Orphan(cs, ss)
	gone := c.Observe(cs, "")
	for i, s := range cs {
		s.Conn.To("CLOSE", Span{closed[i].Lo, gone[i].Hi})
		s.Conn.End.How, s.Conn.End.Overflow = "abort", true
	}
	c.closeUnheard(ss)
}

// secondWithoutBuckets closes ss, whose peers cs wait for their FINs in full
// sockets: these end at once, since there may be no timewait socket.
func (c *C) secondWithoutBuckets(cs, ss []*Side) {
	spans := c.Op("close", ss)
	eof := c.Op("eof", cs)
	gone := c.Observe(ss, "")
	for i, s := range ss {
		s.Conn.To("LAST_ACK", spans[i])
		s.Conn.To("CLOSE", Span{spans[i].Lo, gone[i].Hi})
		s.Conn.Own("close", s.P.id, spans[i])
		e := s.Conn.End
		e.ClosedBy = s.P.id
		// Where its FIN is acknowledged late, the server sends it again, to
		// nobody: that is what TIME_WAIT is for.
		e.How, e.Reset = "fin|rst", "|peer"
		cs[i].Conn.To("CLOSE", Span{spans[i].Lo, eof[i].Hi})
		cs[i].Conn.End.Overflow = true
	}
}

// clean: what every healthy service does must not count as a failure.
func clean(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.Write(clients(pairs), 100)
	c.Read(servers(pairs), 100)
	c.Write(servers(pairs), 1000)
	c.Read(clients(pairs), 1000)
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}
