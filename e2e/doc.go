// Package e2e tests the built tcptrace binary from outside: workload processes
// open and close TCP connections in every way that the kernel knows and state
// the truth, and the JSON lines of one tracer for each hook tier must say
// exactly that.
//
// # How a case is written
//
// A [Case] has a name and a Run function, which is called once for each address
// family, in a network namespace that belongs to the case. Add it to a list of
// cases that allCases returns. Run starts workload processes ([C.Proc]), lets
// them listen, connect, shut down, close, fork and so on (the methods of [Proc]
// and [C]: each returns the [Span] of CLOCK_MONOTONIC in which each call was
// made), and writes down what must be seen:
//
//	func clientFirst(c *C) {
//		srv, cli := c.Proc("srv"), c.Proc("cli")
//		pairs := c.Connect(cli, c.Listen(srv), c.N) // both ends ESTABLISHED, owners noted
//		c.CloseFirst(clients(pairs), servers(pairs))  // FIN_WAIT1, FIN_WAIT2; CLOSE_WAIT
//		c.Hold(600 * time.Millisecond)
//		c.CloseSecond(clients(pairs), servers(pairs)) // TIME_WAIT; LAST_ACK, CLOSE
//		expire(clients(pairs))                        // TIME_WAIT -> CLOSE after 60 s
//	}
//
// The helpers above add the transitions to [Conn.Steps] and the account to
// [Conn.End]. What they do not know is added by hand:
//
//	conn.To("CLOSE", Span{Lo: cause.Lo, Hi: effectSeen.Hi})
//	conn.End = &End{Opened: "active", Closer: "local", How: "rst", Reset: "linger0", ClosedBy: cli.ID()}
//
// Cases whose connections must exist before the tracers start set Early and
// call [C.Traced] when they are ready for them. Cases that own the wire (both
// ends in namespaces of their own, packets carried by the test) ask for more
// namespaces with [C.NewNS] before [C.Traced], start processes in them with
// [C.ProcIn], and register connections that the helpers do not know with
// [C.Expect].
//
// When all cases are done, the comparer demands of every tracer, for each
// namespace: each connection once, each transition once and in order, every
// time inside its bracket, every owner right or null where it may be, one
// closed line with the right account, and nothing else.
//
// # Watching
//
// The tests of --watch use the same workload processes and helpers, one
// namespace for each test, but no tracers in common: what an answer must list is
// a list of [leaked], and the kernel's inet_diag must list the same sockets.
package e2e
