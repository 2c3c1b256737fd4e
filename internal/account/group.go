package account

import (
	"encoding/binary"
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

// By is what connections are grouped by.
type By uint8

// Ways of grouping.
const (
	ByProcess   By = iota // the owner: see events.OwnerSource
	ByRemote              // the remote endpoint, see Key
	ByLocalPort           //
	ByCgroup              // of the socket's creator
	ByNetNS               //
)

var byNames = [...]string{"process", "remote", "local-port", "cgroup", "netns"}

// String returns the word of the command line.
func (b By) String() string { return byNames[b] }

// ByNames lists the words of the command line.
func ByNames() []string { return byNames[:] }

// ParseBy undoes String.
func ParseBy(word string) (By, bool) {
	for i, name := range byNames {
		if name == word {
			return By(i), true
		}
	}
	return 0, false
}

// Key names a group. What By does not use is zero, and so is what is unknown.
type Key struct {
	// Process, with ByProcess.
	Process events.Process
	// Remote, with ByRemote: the address; with the port where this side opened the
	// connection, for the remote port of one that came in is of no meaning. A port
	// of 0 stands for any.
	Remote netip.AddrPort
	// Port, with ByLocalPort.
	Port uint16
	// Cgroup and its id, with ByCgroup; the path is empty where it is not known.
	Cgroup   string
	CgroupID uint64
	// NetNS, with ByNetNS.
	NetNS uint32
}

// ident tells groups apart as Key does, and is quick to look up.
type ident struct {
	a, b uint64 // a process or an address, ...
	n    uint64 // ... a port, or a number
	name string // ... of a process or cgroup, or a zone
}

func identOfAddr(addr netip.AddrPort) ident {
	if !addr.Addr().IsValid() {
		return ident{}
	}
	b := addr.Addr().As16()
	return ident{
		a: binary.BigEndian.Uint64(b[:]), b: binary.BigEndian.Uint64(b[8:]), n: uint64(addr.Port()) + 1, name: addr.Addr().Zone(),
	}
}

// group returns the group of a connection.
func (a *Account) group(c *events.Conn, opened events.Opened, closedBy events.Process) *group {
	var id ident
	var remote netip.AddrPort
	owner := c.Owner
	switch a.cfg.By {
	case ByRemote:
		remote = remoteKey(c, opened)
		id = identOfAddr(remote)
	case ByLocalPort:
		id.n = uint64(c.Local.Port())
	case ByCgroup:
		id.n, id.name = c.CgroupID, c.Cgroup
	case ByNetNS:
		id.n = uint64(c.NetNS)
	default:
		if owner.PID == 0 {
			owner = closedBy
		}
		id.n, id.name = uint64(owner.PID), owner.Comm
	}
	g := a.groups.At(id)
	if g.named {
		return g
	}
	g.named = true
	switch a.cfg.By {
	case ByProcess:
		g.key.Process = owner
	case ByRemote:
		g.key.Remote = remote
	case ByLocalPort:
		g.key.Port = c.Local.Port()
	case ByCgroup:
		g.key.Cgroup, g.key.CgroupID = c.Cgroup, c.CgroupID
	case ByNetNS:
		g.key.NetNS = c.NetNS
	}
	return g
}

// remoteKey returns the remote end that many connections have in common.
func remoteKey(c *events.Conn, opened events.Opened) netip.AddrPort {
	switch {
	case opened == events.OpenedActive:
		return c.Remote
	case c.Remote.Addr().IsUnspecified():
		return netip.AddrPort{} // a listener
	}
	return netip.AddrPortFrom(c.Remote.Addr(), 0)
}

// group is the account of one group.
type group struct {
	key   Key
	named bool // key is set

	stays         [events.NumStates]*stay
	entered, left [events.NumStates]uint64
	opened        [3]uint64 // by events.Opened
	ends          Ends
	timeWait      timeWait

	// Of the connections that live at the end.
	now         [events.NumStates]uint64
	oldest      [events.NumStates]int64
	oldestExact [events.NumStates]bool
}

// weight orders groups: what did nothing but live weighs nothing.
func (g *group) weight() int64 {
	n := g.ends.Closed
	for s := range g.left {
		n += g.left[s]
	}
	return int64(n)
}

func (g *group) merge(from *group) {
	for s, st := range from.stays {
		if st != nil {
			g.stay(events.State(s)).merge(st)
		}
	}
	for s := range g.entered {
		g.entered[s] += from.entered[s]
		g.left[s] += from.left[s]
		g.now[s] += from.now[s]
		if from.now[s] > 0 && (g.now[s] == from.now[s] || from.oldest[s] > g.oldest[s]) {
			g.oldest[s], g.oldestExact[s] = from.oldest[s], from.oldestExact[s]
		}
	}
	for i := range g.opened {
		g.opened[i] += from.opened[i]
	}
	g.ends.merge(&from.ends)
	g.timeWait.merge(&from.timeWait)
}

func (g *group) stay(s events.State) *stay {
	if g.stays[s] == nil {
		g.stays[s] = newStay()
	}
	return g.stays[s]
}

// Ends counts how connections ended. Each of the arrays adds up to Closed.
type Ends struct {
	// Closed is the connections that are over, and those that are in TIME_WAIT.
	Closed uint64
	First  [5]uint64 // by events.Side: who sent the first FIN or RST
	How    [6]uint64 // by events.How
	Reset  [5]uint64 // by events.ResetKind
	// Matrix is the same, one by the other.
	Matrix [5][6][5]uint64
	// Inexact is how many of them have a duration, or an end, that is not exact.
	Inexact uint64
}

func (e *Ends) add(c *events.Closed) {
	e.Closed++
	e.First[c.Closer]++
	e.How[c.How]++
	e.Reset[c.Reset]++
	e.Matrix[c.Closer][c.How][c.Reset]++
	if !c.Exact {
		e.Inexact++
	}
}

func (e *Ends) merge(from *Ends) {
	e.Closed += from.Closed
	e.Inexact += from.Inexact
	for i := range e.First {
		e.First[i] += from.First[i]
	}
	for i := range e.How {
		e.How[i] += from.How[i]
	}
	for i := range e.Reset {
		e.Reset[i] += from.Reset[i]
	}
	for i := range e.Matrix {
		for j := range e.Matrix[i] {
			for k := range e.Matrix[i][j] {
				e.Matrix[i][j][k] += from.Matrix[i][j][k]
			}
		}
	}
}

// timeWait counts what became of the timewait sockets of a group.
type timeWait struct {
	ended    [6]uint64 // by events.TimeWaitEnd
	overflow uint64
}

func (t *timeWait) merge(from *timeWait) {
	for i := range t.ended {
		t.ended[i] += from.ended[i]
	}
	t.overflow += from.overflow
}
