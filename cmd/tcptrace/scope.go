package main

import (
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/filter"
)

// commandScope is the connections that the traced command and its descendants
// opened.
//
// They are told in two ways, either of which is enough: by the cgroup that created
// the socket, for the command runs in one of its own, which all of its descendants
// inherit; and by the owner's being a descendant, which also covers a socket that
// the command took over. The kernel side tells of each descendant as it starts, so
// that the second does alone where no cgroup can be made.
type commandScope struct {
	group uint64 // id of the cgroup; 0: there is none
	path  string // of the cgroup
	filter.Descendants
}

// Has reports whether the command or one of its descendants opened the
// connection.
func (s *commandScope) Has(c *events.Conn) bool {
	if s.group != 0 && (c.CgroupID == s.group || filter.Below(s.path, c.Cgroup)) {
		return true
	}
	return c.Owner.PID != 0 && s.Descendants.Has(c.Owner.PID)
}
