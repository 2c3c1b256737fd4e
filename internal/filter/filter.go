package filter

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Filter decides which lines the user sees. The zero value lets everything pass.
// What is not known of a connection does not match: a filter for an owner hides
// the lines from before the owner was known.
type Filter struct {
	Family      uint8 // 4, 6, or 0 for both
	LocalPorts  Ports
	RemotePorts Ports
	Ports       Ports // either side
	Local       Prefixes
	Remote      Prefixes
	PIDs        []uint32
	Comms       []string // as Comm returns them
	UIDs        []uint32
	NetNS       []uint32 // inodes
	Cgroup      string   // subtree, as CgroupPath returns it
	States      events.StateSet
	MinAge      time.Duration
	Command     Scope
}

// Scope is a set of connections that is found out while it grows, such as those
// of a command and its descendants.
type Scope interface {
	Has(c *events.Conn) bool
}

// Transition reports whether the user wants to see t: with States, one from or to
// these; with MinAge, one out of a state that lasted at least so long.
func (f *Filter) Transition(t *events.Transition) bool {
	if f.States != 0 && !f.States.Has(t.Old) && !f.States.Has(t.New) {
		return false
	}
	if f.MinAge > 0 && max(t.InOld, t.InOldMin) < int64(f.MinAge) {
		return false
	}
	return f.conn(&t.Conn, 0)
}

// Closed reports whether the user wants to see c: with States, a connection that
// was in one of these; with MinAge, one that lived at least so long. Who closed it
// is an owner too.
func (f *Filter) Closed(c *events.Closed) bool {
	if f.States != 0 && !f.States.Has(events.Close) &&
		!slices.ContainsFunc(c.States, func(s events.StateTime) bool { return f.States.Has(s.State) }) {
		return false
	}
	if f.MinAge > 0 && c.TotalNS < int64(f.MinAge) {
		return false
	}
	return f.conn(&c.Conn, c.ClosedBy.PID)
}

// Conn reports whether the user wants to know of c at all; states and ages do not
// matter here.
func (f *Filter) Conn(c *events.Conn) bool { return f.conn(c, 0) }

// conn decides by the connection itself. closer is the process that closed it, 0
// where there is none.
func (f *Filter) conn(c *events.Conn, closer uint32) bool {
	if f.Family != 0 && f.Family != c.Family {
		return false
	}
	local, remote := c.Local.Port(), c.Remote.Port()
	if f.LocalPorts != nil && !f.LocalPorts.Has(local) || f.RemotePorts != nil && !f.RemotePorts.Has(remote) {
		return false
	}
	if f.Ports != nil && !f.Ports.Has(local) && !f.Ports.Has(remote) {
		return false
	}
	if f.Local != nil && !f.Local.Has(c.Local.Addr()) || f.Remote != nil && !f.Remote.Has(c.Remote.Addr()) {
		return false
	}
	if f.NetNS != nil && !slices.Contains(f.NetNS, c.NetNS) {
		return false
	}
	if f.PIDs != nil && !slices.Contains(f.PIDs, c.Owner.PID) && (closer == 0 || !slices.Contains(f.PIDs, closer)) {
		return false
	}
	if f.Comms != nil && (c.Owner.PID == 0 || !slices.Contains(f.Comms, c.Owner.Comm)) {
		return false
	}
	if f.UIDs != nil && (c.UID < 0 || !slices.Contains(f.UIDs, uint32(c.UID))) {
		return false
	}
	if f.Cgroup != "" && !Below(f.Cgroup, c.Cgroup) {
		return false
	}
	return f.Command == nil || f.Command.Has(c)
}

// Below reports whether the cgroup path is in the subtree of root. An empty path,
// an unknown one, is in none.
func Below(root, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	return ok && path != "" && (rest == "" || rest[0] == '/')
}

// Prefixes is a set of addresses. Nil stands for no restriction.
type Prefixes []netip.Prefix

// Has reports whether a is in the set; nil has every address, known or not.
func (p Prefixes) Has(a netip.Addr) bool {
	if p == nil {
		return true
	}
	a = a.Unmap().WithZone("") // a prefix has no zone, and netip then matches none
	return slices.ContainsFunc(p, func(q netip.Prefix) bool { return q.Contains(a) })
}
