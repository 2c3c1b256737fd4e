package render

import (
	"io"
	"strconv"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// WatchJSON writes JSON lines of schema 1. An answer is a line of type snapshot,
// which says how many lines of each type follow, then a group line for each group,
// worst first, a socket line for each socket, and a ports line for each use of
// local ports.
type WatchJSON struct{ members }

// members writes the members of JSON lines.
type members struct{ lines }

// NewWatchJSON returns a Watch of JSON lines with wall times by clock.
func NewWatchJSON(w io.Writer, clock events.Clock) *WatchJSON {
	return &WatchJSON{members{newLines(w, clock)}}
}

// Snapshot writes the lines of one answer.
func (j *WatchJSON) Snapshot(s *watch.Snapshot) error {
	j.snapshot(s)
	j.added()
	for _, g := range s.Groups {
		j.group(s, g)
		j.added()
	}
	// A socket with several holders is in several groups.
	written := make(map[*watch.Socket]bool, s.Total)
	for _, g := range s.Groups {
		for _, sock := range g.Sockets {
			if !written[sock] {
				written[sock] = true
				j.socket(s, sock)
				j.added()
			}
		}
	}
	for i := range s.Ports {
		j.ports(s, &s.Ports[i])
		j.added()
	}
	return j.Flush()
}

func (j *members) str(text string) { j.buf = append(j.buf, text...) }

// name appends the name of a member, its comma in front.
func (j *members) name(name string) {
	j.buf = append(j.buf, ',', '"')
	j.buf = append(j.buf, name...)
	j.buf = append(j.buf, '"', ':')
}

func (j *members) int(name string, v int64) {
	j.name(name)
	j.buf = strconv.AppendInt(j.buf, v, 10)
}

// known appends a number, or null for a negative one.
func (j *members) known(name string, v int64) {
	j.name(name)
	j.buf = j.enc.AppendNS(j.buf, v)
}

func (j *members) bool(name string, v bool) {
	j.name(name)
	j.buf = strconv.AppendBool(j.buf, v)
}

// text appends a string, or null for an empty one.
func (j *members) text(name, v string) {
	j.name(name)
	if v == "" {
		j.str("null")
		return
	}
	j.buf = j.enc.AppendText(j.buf, v)
}

// pid appends who a process is, or nulls.
func (j *members) pid(pid uint32, comm string) {
	j.name("pid")
	if pid == 0 {
		j.str(`null,"comm":null`)
		return
	}
	j.buf = strconv.AppendUint(j.buf, uint64(pid), 10)
	j.name("comm")
	j.buf = j.enc.AppendText(j.buf, comm)
}

func (j *WatchJSON) snapshot(s *watch.Snapshot) {
	j.buf = j.enc.AppendType(j.buf, "snapshot", s.TS)
	j.name("states")
	j.str("[")
	for i, state := range s.States.List() {
		if i > 0 {
			j.str(",")
		}
		j.str(`"` + state.String() + `"`)
	}
	j.str("]")
	j.int("groups", int64(len(s.Groups)))
	j.int("sockets", int64(s.Total))
	j.int("ports", int64(len(s.Ports)))
	j.name("counts")
	j.str("{")
	for i, state := range events.AllStates.List() {
		if i > 0 {
			j.str(",")
		}
		j.str(`"` + state.String() + `":`)
		j.buf = j.enc.AppendNS(j.buf, int64(s.Counts[state]))
	}
	j.str("}")
	j.text("hooks", s.Hooks)
	j.name("lost")
	j.buf = strconv.AppendUint(j.buf, s.Lost, 10)
	j.name("untracked")
	j.buf = strconv.AppendUint(j.buf, s.Untracked, 10)
	j.name("notes")
	j.str("[")
	for i, note := range s.Notes {
		if i > 0 {
			j.str(",")
		}
		j.buf = j.enc.AppendText(j.buf, note)
	}
	j.str("]}\n")
}

func (j *WatchJSON) group(s *watch.Snapshot, g *watch.Group) {
	j.buf = j.enc.AppendType(j.buf, "group", s.TS)
	j.name("state")
	j.str(`"` + g.State.String() + `"`)
	j.pid(g.PID, g.Comm)
	j.int("count", int64(g.Count))
	j.known("oldest_ns", g.Oldest)
	j.known("median_ns", g.Median)
	j.bool("ages_exact", g.AllAges)
	j.name("growth_per_min")
	if g.GrowthKnown {
		j.buf = strconv.AppendFloat(j.buf, g.GrowthPerMin, 'f', 3, 64)
	} else {
		j.str("null")
	}
	j.name("reasons")
	j.str("{")
	first := true
	for r := watch.ReasonNotAccepted; r <= watch.ReasonKernel; r++ {
		n := g.Reasons[r]
		if n == 0 {
			continue
		}
		if !first {
			j.str(",")
		}
		first = false
		j.str(`"` + r.String() + `":`)
		j.buf = strconv.AppendInt(j.buf, int64(n), 10)
	}
	j.str("}")
	j.name("top_remotes")
	j.str("[")
	for i, r := range g.TopRemotes {
		if i > 0 {
			j.str(",")
		}
		j.str(`{"remote":`)
		j.buf = j.enc.AppendText(j.buf, r.Addr)
		j.int("count", int64(r.Count))
		j.str("}")
	}
	j.str("]")
	j.text("remote", g.Remote)
	j.int("unread", g.Unread)
	j.process(g.Holder)
	j.known("limit_in_ns", g.LimitIn)
	j.text("verdict", g.Verdict)
	j.str("}\n")
}

// process appends what is known of a process beyond its number; nil: nothing.
func (j *WatchJSON) process(h *watch.Holder) {
	if h == nil {
		h = &watch.Holder{UID: -1, NofileSoft: -1, OpenFDs: -1}
	}
	j.known("uid", h.UID)
	j.name("cmdline")
	if h.Cmdline == nil {
		j.str("null")
	} else {
		j.str("[")
		for i, arg := range h.Cmdline {
			if i > 0 {
				j.str(",")
			}
			j.buf = j.enc.AppendText(j.buf, arg)
		}
		j.str("]")
	}
	j.known("nofile_soft", h.NofileSoft)
	j.known("open_fds", h.OpenFDs)
	j.name("unit")
	if h.Unit == (watch.Unit{}) {
		j.str("null")
		return
	}
	j.str(`{"kind":`)
	if h.Unit.Kind == "" {
		j.str("null")
	} else {
		j.buf = j.enc.AppendText(j.buf, h.Unit.Kind)
	}
	j.text("name", h.Unit.Name)
	j.text("path", h.Unit.Path)
	j.str("}")
}

// holder appends an object for a process that holds a socket.
func (j *WatchJSON) holder(h *watch.Holder) {
	j.descriptors(h)
	j.process(h)
	j.str("}")
}

// descriptors begins an object with a process and its descriptors on a socket.
func (j *WatchJSON) descriptors(h *watch.Holder) {
	j.str(`{"pid":`)
	j.buf = strconv.AppendUint(j.buf, uint64(h.PID), 10)
	j.name("comm")
	j.buf = j.enc.AppendText(j.buf, h.Comm)
	j.name("fd")
	j.str("[")
	for i, fd := range h.FDs {
		if i > 0 {
			j.str(",")
		}
		j.buf = strconv.AppendUint(j.buf, uint64(fd), 10)
	}
	j.str("]")
}

func (j *WatchJSON) socket(s *watch.Snapshot, sock *watch.Socket) {
	j.socketLine("socket", s.TS, sock)
	j.str("}\n")
}

// socketLine appends a line of the type name about a socket, up to its last brace.
func (j *WatchJSON) socketLine(name string, ts int64, sock *watch.Socket) {
	j.buf = j.enc.AppendType(j.buf, name, ts)
	j.buf = j.enc.AppendIdentity(j.buf, &sock.Conn)
	j.name("state")
	j.str(`"` + sock.State.String() + `"`)
	j.name("since")
	if sock.Since < 0 {
		j.str("null")
	} else {
		j.buf = j.enc.AppendTime(j.buf, sock.Since)
	}
	j.known("age_ns", sock.Age)
	j.bool("age_exact", sock.AgeExact)
	if sock.PendingKnown {
		j.int("rx_pending", int64(sock.RXPending))
		j.bool("fin_pending", sock.FinPend)
		j.int("tx_pending", int64(sock.TXPending))
	} else {
		j.str(`,"rx_pending":null,"fin_pending":null,"tx_pending":null`)
	}
	j.text("reason", sock.Reason.String())
	j.name("holders")
	j.str("[")
	for i, h := range sock.Holders {
		if i > 0 {
			j.str(",")
		}
		j.holder(h)
	}
	j.str("]")
	j.name("listener")
	if sock.Listener == nil {
		j.str("null")
	} else {
		j.holder(sock.Listener)
	}
	j.name("listeners")
	j.str("[")
	for i, h := range sock.Listeners {
		if i > 0 {
			j.str(",")
		}
		j.descriptors(h)
		j.str("}")
	}
	j.str("]")
	j.known("remaining_ns", sock.Remaining)
}

func (j *WatchJSON) ports(s *watch.Snapshot, u *watch.PortUse) {
	j.buf = j.enc.AppendType(j.buf, "ports", s.TS)
	j.int("netns", int64(u.NetNS))
	j.portUse(u)
	j.str("}\n")
}
