package e2e

import (
	"fmt"
	"path/filepath"
)

// ownerCases ask who owns a socket, and who closed it.
func ownerCases() []Case {
	return []Case{
		{Name: "killed", Run: killed},
		{Name: "fork", Run: fork},
		{Name: "dup", Run: dup},
		{Name: "passed", Run: passed},
		{Name: "thread_name", Run: threadName},
		{Name: "users", Run: users},
		{Name: "other_netns", Run: otherNetNS},
	}
}

// killed: SIGKILL closes what a process had, as the process.
func killed(c *C) {
	l := c.Listen(c.Proc("srv"))
	cli := c.OwnProc("victim")
	pairs := c.Connect(cli, l, c.N)
	c.First(clients(pairs), servers(pairs), repeat(c.Kill(cli), c.N))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))

	srv := c.OwnProc("victim")
	l = c.Listen(srv)
	pairs = c.Connect(c.Proc("cli"), l, c.N)
	span := c.Kill(srv)
	l.Conn.To("CLOSE", span)
	c.First(servers(pairs), clients(pairs), repeat(span, c.N))
	c.CloseSecond(servers(pairs), clients(pairs))
	expire(servers(pairs))
}

func repeat(span Span, n int) []Span {
	spans := make([]Span, n)
	for i := range spans {
		spans[i] = span
	}
	return spans
}

// fork: the parent accepts and closes, the child has the socket still.
func fork(c *C) {
	// Not shared: a child briefly holds every descriptor of its parent.
	srv, cli := c.OwnProc("parent"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	ss := servers(pairs)
	comm := c.comm("child")
	req := request{Op: "fork", Text: comm}
	for _, s := range ss {
		req.FDs = append(req.FDs, s.FD)
	}
	resp := srv.call(c, req)
	child := c.waitHello(comm)
	c.Op("close", ss)
	c.Observe(ss, "ESTABLISHED")
	for i, s := range ss {
		s.P, s.FD = child, resp.FDs[i]
		s.Conn.Own("hold", child.id, resp.Spans[0])
	}
	c.CloseFirst(ss, clients(pairs))
	c.CloseSecond(ss, clients(pairs))
	expire(ss)
}

// dup: a socket lives until its last descriptor is closed.
func dup(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	cs := clients(pairs)
	req := request{Op: "dup"}
	for _, s := range cs {
		req.FDs = append(req.FDs, s.FD)
	}
	resp := cli.call(c, req)
	c.Op("close", cs)
	for i, s := range cs {
		s.FD = resp.FDs[i]
	}
	c.Write(cs, 5)
	c.Read(servers(pairs), 5)
	c.CloseFirst(cs, servers(pairs))
	c.CloseSecond(cs, servers(pairs))
	expire(cs)
}

// passed: one process accepts, another gets the descriptor and closes last.
func passed(c *C) {
	srv, cli, heir := c.Proc("srv"), c.Proc("cli"), c.Proc("heir")
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	ss := servers(pairs)
	path := filepath.Join(c.s.dir, fmt.Sprintf("passed%d", c.Fam))
	heir.call(c, request{Op: "listenfds", Path: path})
	got := heir.start(c, request{Op: "recvfds", Path: path, N: c.N})
	lo := now()
	c.Op("sendfds", ss, func(r *request) { r.Path = path })
	resp := got()
	c.Op("close", ss)
	for i, s := range ss {
		s.P, s.FD = heir, resp.FDs[i]
		s.Conn.Own("hold", heir.id, Span{lo, resp.Spans[0].Hi})
	}
	c.CloseFirst(ss, clients(pairs))
	c.CloseSecond(ss, clients(pairs))
	expire(ss)
}

// threadName: comm is that of the process, whatever its threads are called, and
// whatever it contains.
func threadName(c *C) {
	srv := c.Proc("srv")
	cli := c.ProcNamed(c.NS, fmt.Sprintf("a\"b\\c\x1b[1md é%d", c.Fam))
	l := c.Listen(srv, onThread("lister"))
	accepted := srv.start(c, request{Op: "accept", FDs: []int{l.FD}, N: c.N, Thread: "taker"})
	pairs := c.Pair(l, c.Dial(cli, l, c.N, onThread("dialler")), accepted())
	c.First(clients(pairs), servers(pairs), c.Op("close", clients(pairs), onThread("closer")))
	c.Second(clients(pairs), servers(pairs), c.Op("close", servers(pairs), onThread("ender")))
	expire(clients(pairs))
}

// users: uid is the owner's.
func users(c *C) {
	srv, cli := c.OwnProc("srv"), c.OwnProc("cli")
	for p, uid := range map[*Proc]int{srv: 4321, cli: 5432} {
		p.call(c, request{Op: "setuid", N: uid})
		p.id.UID = uid
	}
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}

// otherNetNS: sockets of the case's namespace in the hands of a process that
// lives in another.
func otherNetNS(c *C) {
	srv := c.Proc("srv")
	cli := c.ProcIn(c.UntracedNS("away"), "away")
	l := c.Listen(srv)
	made := cli.call(c, request{Op: "socket", N: c.N, Addrs: []string{l.Addr.String()}}.with([]option{inNS(c.NS)}))
	pairs := c.Connect(cli, l, c.N, func(r *request) { r.FDs = made.FDs })
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}
