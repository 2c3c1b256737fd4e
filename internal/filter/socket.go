package filter

import (
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Socket reports whether the user wants to see the socket c, which has been in its
// state for age ns at least. processes are all that have to do with it: those that
// hold it, the one that should accept it, or the one that closed it; a filter for
// an owner matches if it matches one of them. States do not matter here.
func (f *Filter) Socket(c *events.Conn, processes []events.Process, age int64) bool {
	if age < int64(f.MinAge) {
		return false
	}
	plain := *f
	plain.PIDs, plain.Comms, plain.Command = nil, nil, nil
	if !plain.conn(c, 0) {
		return false
	}
	if f.PIDs == nil && f.Comms == nil && f.Command == nil {
		return true
	}
	if processes == nil {
		// The command's own cgroup tells without a process.
		return f.PIDs == nil && f.Comms == nil && f.Command.Has(c)
	}
	return slices.ContainsFunc(processes, func(p events.Process) bool {
		if (f.PIDs != nil && !slices.Contains(f.PIDs, p.PID)) || (f.Comms != nil && !slices.Contains(f.Comms, p.Comm)) {
			return false
		}
		if f.Command == nil {
			return true
		}
		owned := *c
		owned.Owner = p
		return f.Command.Has(&owned)
	})
}
