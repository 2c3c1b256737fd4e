package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// earlyCases have a part before the tracers start.
func earlyCases() []Case {
	return []Case{
		{Name: "blocked_accept", Run: blockedAccept, Early: true, N: 25},
		{Name: "opened_before", Run: openedBefore, Early: true},
	}
}

// blockedAccept: threads wait in accept() since before the tracers; what they
// accept is theirs nevertheless.
func blockedAccept(c *C) {
	srv, cli := c.OwnProc("srv"), c.Proc("cli")
	l := c.Listen(srv)
	waits := make([]func() response, c.N)
	for i := range waits {
		waits[i] = c.Accept(l, 1)
	}
	for deadline := time.Now().Add(callTimeout); blockedIn(srv.id.PID, unix.SYS_ACCEPT4) < c.N; {
		if time.Now().After(deadline) {
			c.Fatalf("%d of %d threads wait in accept", blockedIn(srv.id.PID, unix.SYS_ACCEPT4), c.N)
		}
		time.Sleep(time.Millisecond)
	}
	c.Traced()
	dialled := c.Dial(cli, l, c.N)
	var accepted []response
	for _, wait := range waits {
		accepted = append(accepted, wait())
	}
	pairs := c.Pair(l, dialled, accepted...)
	c.CloseFirst(clients(pairs), servers(pairs))
	c.CloseSecond(clients(pairs), servers(pairs))
	expire(clients(pairs))
}

// blockedIn counts the threads of a process that wait in a system call.
func blockedIn(pid int, nr uintptr) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	n := 0
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", pid, t.Name()))
		if err == nil && strings.HasPrefix(string(text), strconv.Itoa(int(nr))+" ") {
			n++
		}
	}
	return n
}

// openedBefore: connections that the tracers find in each of the lasting
// states, and see end.
func openedBefore(c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv)
	established := c.Connect(cli, l, c.N)
	halfClosed := c.Connect(cli, l, c.N) // FIN_WAIT2 with a process, CLOSE_WAIT
	c.ShutdownFirst(clients(halfClosed), servers(halfClosed))
	orphaned := c.Connect(cli, l, c.N) // FIN_WAIT2 in a timewait socket, CLOSE_WAIT
	c.CloseFirst(clients(orphaned), servers(orphaned))
	waiting := c.Connect(cli, l, c.N) // TIME_WAIT
	c.CloseFirst(clients(waiting), servers(waiting))
	c.CloseSecond(clients(waiting), servers(waiting))

	c.Traced()
	c.Hold(closedLater / 2)
	c.CloseFirst(servers(established), clients(established))
	c.CloseSecond(servers(established), clients(established))
	expire(servers(established))
	c.CloseSecond(clients(halfClosed), servers(halfClosed))
	c.Op("close", clients(halfClosed))
	expire(clients(halfClosed))
	c.CloseSecond(clients(orphaned), servers(orphaned))
	expire(clients(orphaned))
	expire(clients(waiting))
	for _, s := range clients(waiting) {
		s.Conn.End.Closer = "unknown" // there is no history to tell it
		s.Conn.Inexact = true         // the timer tells the start to the jiffy
	}
}
