package e2e

import (
	"net/netip"
	"syscall"
)

// specialCases use sockets in less common ways.
func specialCases() []Case {
	return []Case{
		{Name: "go_server", Run: goServer},
		{Name: "mptcp", Run: mptcp},
		{Name: "dual_stack", Run: dualStack, Families: []int{4}},
		{Name: "no_ports", Run: noPorts, Sysctls: map[string]string{"ipv4/ip_local_port_range": "40000 40005"}},
	}
}

// goServer: package net listens with MPTCP where the kernel has it; its clients
// here are plain TCP.
func goServer(c *C) {
	srv, cli := c.Proc("gosrv"), c.Proc("cli")
	l := c.GoListen(srv)
	pairs := c.Connect(cli, l, c.N)
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
	pairs = c.Connect(cli, l, c.N)
	c.CloseFirst(servers(pairs), clients(pairs))
	c.CloseSecond(servers(pairs), clients(pairs))
	expire(servers(pairs))
}

// mptcp: both ends speak MPTCP, which closes its TCP subflows by itself.
func mptcp(c *C) {
	if _, err := c.NS.Sysctl("mptcp/enabled"); err != nil {
		return // this kernel has no MPTCP
	}
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv, withProto(protoMPTCP)), c.N, withProto(protoMPTCP))
	cs, ss := clients(pairs), servers(pairs)
	for _, s := range append(cs, ss...) {
		s.Conn.Cookie = 0 // SO_COOKIE is the MPTCP socket's, not the subflow's
	}
	c.Write(cs, 100)
	c.Read(ss, 100)
	lo := c.Op("close", cs)
	c.Op("eof", ss)
	spans := c.Op("close", ss)
	// Most of it runs in a worker of the kernel, not in close().
	for i, s := range append(cs, ss...) {
		conn := s.Conn
		closed := append(lo, spans...)[i]
		conn.FreeFrom = len(conn.Steps)
		conn.To("CLOSE", Span{lo[i%c.N].Lo, spans[i%c.N].Hi + int64(timeWait+slackOf(timeWait)+scanSlack)}).Scanned = true
		conn.Inexact = true
		conn.Owners = append(conn.Owners, Owner{Src: "close", Proc: s.P.id, Since: closed, Optional: true})
		conn.End.Closer, conn.End.How, conn.End.TimeWaitEnd, conn.End.AnyClosedBy = "local|remote|both", "fin", "|expired", true
	}
}

// dualStack: IPv4 by IPv6 sockets is IPv4 to its user.
func dualStack(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv, mapped, at(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
	v4 := at(netip.AddrPortFrom(c.Loopback(), l.Addr.Port()))
	for _, opts := range [][]option{{v4}, {v4, mapped}} {
		pairs := c.Connect(cli, l, c.N, opts...)
		c.CloseFirst(clients(pairs), servers(pairs))
		c.CloseSecond(clients(pairs), servers(pairs))
		expire(clients(pairs))
	}
}

// noPorts: six connections take all local ports, and no other can be made. The
// kernel tries the even ports of the range and then the odd ones, pair by pair,
// so that it finds all only if they are even in number.
func noPorts(c *C) {
	const ports = 6
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv, at(netip.AddrPortFrom(c.Loopback(), 9000)))
	pairs := c.Connect(cli, l, ports)
	resp := cli.call(c, request{Op: "connect", N: c.N, Addrs: []string{l.Addr.String()}})
	for i, errno := range resp.Errnos {
		if syscall.Errno(errno) != syscall.EADDRNOTAVAIL {
			c.Fatalf("connect without a port: %v", syscall.Errno(errno))
		}
		conn := &Conn{NetNS: c.NS.Inode(), Family: c.Fam, Local: netip.AddrPortFrom(c.Loopback(), 0), NoLocalPort: true, Remote: l.Addr,
			Cookie: resp.Cookies[i], End: &End{Opened: "active", Closer: "none", How: "abort", Err: "EADDRNOTAVAIL", AnyClosedBy: true}}
		conn.To("SYN_SENT", resp.Spans[i])
		conn.To("CLOSE", resp.Spans[i])
		conn.Own("connect", cli.id, resp.Spans[i])
		c.Expect(conn)
	}
	cli.call(c, request{Op: "close", FDs: resp.FDs})
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}
