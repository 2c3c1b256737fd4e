package screen

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// detail is the group that is looked into.
type detail struct {
	key   groupKey
	name  string       // of the process, for when it is gone
	group *watch.Group // nil: none of its sockets is left
	// others are the further processes that hold the group's sockets.
	others string
}

// socketKey is what stays of a socket from one snapshot to the next.
type socketKey struct {
	id            uint64
	local, remote netip.AddrPort
}

func keyOfSocket(s *watch.Socket) socketKey {
	return socketKey{s.ID, s.Local, s.Remote}
}

// addr writes an endpoint; one that is not known is a dash, no port a star.
func addr(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return "-"
	case a.Port() == 0:
		host := a.Addr().String()
		if a.Addr().Is6() {
			host = "[" + host + "]"
		}
		return host + ":*"
	}
	return a.String()
}

// heldBy returns the group's own hold on the socket.
func heldBy(s *watch.Socket, pid uint32) *watch.Holder {
	for _, h := range s.Holders {
		if h.PID == pid {
			return h
		}
	}
	return nil
}

// fdList lists descriptors: 7,8,12 and at most eight of them.
func fdList(list []uint32) string {
	var b []byte
	for i, fd := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if i == 8 {
			return string(append(b, "..."...))
		}
		b = strconv.AppendUint(b, uint64(fd), 10)
	}
	return string(b)
}

// holding says which descriptors of the group's process, and how many other
// processes, hold the socket.
func holding(s *watch.Socket, pid uint32) string {
	text := "-"
	others := len(s.Holders)
	if h := heldBy(s, pid); h != nil {
		text = fdList(h.FDs)
		others--
	}
	if others > 0 {
		text += " +" + strconv.Itoa(others) + "p"
	}
	return text
}

// pending is the length of one of the socket's queues, -1 where it has none.
func pending(s *watch.Socket, n uint32) int64 {
	if !s.PendingKnown {
		return -1
	}
	return int64(n)
}

func (m *model) socketColumns() []column[*watch.Socket] {
	type col = column[*watch.Socket]
	owner := m.in.key.pid
	// IPv6 in full needs 47 cells; what is left out at 80 columns is shown of
	// the selected socket below the list.
	addrMax := 21
	timewait, why := false, false
	if g := m.in.group; g != nil {
		for _, s := range g.Sockets {
			if s.Family == 6 || s.Local.Addr().Is6() {
				addrMax = 47
			}
			timewait = timewait || s.Remaining >= 0
			why = why || s.Reason != watch.ReasonNone
		}
	}
	cols := []col{
		{title: "LOCAL", min: 21, max: addrMax, rank: 2,
			fit: func(s *watch.Socket, width int) string { return shortAddr(addr(s.Local), width) },
			cmp: func(a, b *watch.Socket) int { return a.Local.Compare(b.Local) }},
		{title: "REMOTE", min: 21, max: addrMax, rank: 1,
			fit: func(s *watch.Socket, width int) string { return shortAddr(addr(s.Remote), width) },
			cmp: func(a, b *watch.Socket) int { return a.Remote.Compare(b.Remote) }},
		{title: "AGE", min: 8, max: 9, right: true, rank: 0, desc: true,
			text: func(s *watch.Socket) string { return render.AtLeast(s.Age, s.AgeExact) },
			cmp:  func(a, b *watch.Socket) int { return cmp.Compare(a.Age, b.Age) }},
	}
	if timewait {
		cols = append(cols, col{title: "LEFT", min: 8, max: 8, right: true, rank: 3,
			text: func(s *watch.Socket) string { return render.Duration(s.Remaining) },
			cmp:  func(a, b *watch.Socket) int { return cmp.Compare(a.Remaining, b.Remaining) }})
	}
	if why {
		cols = append(cols, col{title: "WHY", min: 12, max: 12, rank: 3,
			text: func(s *watch.Socket) string { return s.Reason.String() },
			cmp:  func(a, b *watch.Socket) int { return strings.Compare(a.Reason.String(), b.Reason.String()) }})
	}
	if timewait {
		return cols // nobody holds it, and it has no queues
	}
	rx, tx := "UNREAD", "UNSENT"
	if m.in.key.state == events.Listen {
		rx, tx = "BACKLOG", "LIMIT"
	}
	return append(cols,
		col{title: rx, min: 8, max: 8, right: true, rank: 5, desc: true,
			text: func(s *watch.Socket) string { return render.Count(pending(s, s.RXPending)) },
			cmp: func(a, b *watch.Socket) int {
				return cmp.Compare(pending(a, a.RXPending), pending(b, b.RXPending))
			}},
		col{title: tx, min: 8, max: 8, right: true, rank: 6, desc: true,
			text: func(s *watch.Socket) string { return render.Count(pending(s, s.TXPending)) },
			cmp: func(a, b *watch.Socket) int {
				return cmp.Compare(pending(a, a.TXPending), pending(b, b.TXPending))
			}},
		col{title: "FDS", min: 5, max: 24, rank: 4,
			text: func(s *watch.Socket) string { return holding(s, owner) },
			cmp: func(a, b *watch.Socket) int {
				first := func(s *watch.Socket) int64 {
					if h := heldBy(s, owner); h != nil && len(h.FDs) > 0 {
						return int64(h.FDs[0])
					}
					return -1
				}
				return cmp.Compare(first(a), first(b))
			}})
}

// otherHolders names the processes beside the group's own that hold its sockets,
// those with the most first.
func otherHolders(g *watch.Group) string {
	type held struct {
		h *watch.Holder
		n int
	}
	byPID := map[uint32]*held{}
	for _, s := range g.Sockets {
		for _, h := range s.Holders {
			if h.PID == g.PID {
				continue
			}
			if byPID[h.PID] == nil {
				byPID[h.PID] = &held{h: h}
			}
			byPID[h.PID].n++
		}
	}
	list := make([]*held, 0, len(byPID))
	for _, h := range byPID {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *held) int { return cmp.Or(b.n-a.n, cmp.Compare(a.h.PID, b.h.PID)) })
	var b strings.Builder
	for i, o := range list {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s[%d] %s", render.Escape(o.h.Comm), o.h.PID, render.Thousands(int64(o.n)))
	}
	return b.String()
}

// commandLine joins the arguments, each escaped.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = render.Escape(a)
		if a == "" || strings.ContainsRune(a, ' ') {
			quoted[i] = `"` + quoted[i] + `"`
		}
	}
	return strings.Join(quoted, " ")
}

// groupSummary says what there is under a process, in pieces.
func groupSummary(g *watch.Group) []string {
	s := []string{
		plural(g.Count, "socket", "sockets") + " in " + g.State.String(),
		"oldest " + render.AtLeast(g.Oldest, g.AllAges),
	}
	if g.GrowthKnown {
		s = append(s, growth(g)+"/min")
	}
	s = append(s, "median "+render.AtLeast(g.Median, g.AllAges))
	if g.Remote != "" {
		s = append(s, "to "+render.Escape(g.Remote))
	}
	return s
}

// labelled is one line of the account of a process.
type labelled struct {
	label, text string
	rank        int // what goes first where the terminal is low: the highest
}

// account tells what is known of the process that is looked into.
func (m *model) account(g *watch.Group) []labelled {
	var list []labelled
	add := func(rank int, label, text string) {
		if text != "" {
			list = append(list, labelled{label, text, rank})
		}
	}
	if h := g.Holder; h != nil {
		add(2, "command", commandLine(h.Cmdline))
	}
	facts := m.facts(g)
	if strings.HasPrefix(facts, "remotes ") {
		facts = ""
	}
	add(1, "process", facts)
	add(3, "why", reasons(g))
	add(4, "remotes", remotes(g))
	add(0, "held by", m.in.others)
	if h := g.Holder; h != nil && h.Unit.Path != "" {
		add(5, "cgroup", render.Escape(h.Unit.Path))
	}
	return list
}

// socketFacts tells all of one socket: who it is, and how it stands.
func socketFacts(s *watch.Socket) (string, string) {
	first := addr(s.Local) + " -> " + addr(s.Remote)
	second := fmt.Sprintf("%s for %s", s.State, render.AtLeast(s.Age, s.AgeExact))
	if s.Remaining >= 0 {
		second += ", " + render.Duration(s.Remaining) + " left"
	}
	switch {
	case s.Reason == watch.ReasonUnread:
		second += fmt.Sprintf(", unread: %s bytes", render.Thousands(int64(s.RXPending)))
	case s.Reason != watch.ReasonNone:
		second += ", " + s.Reason.String()
	}
	if s.FinPend {
		second += ", FIN waits"
	}
	switch {
	case !s.PendingKnown:
	case s.State == events.Listen:
		second += fmt.Sprintf(", %s of %s connections in its backlog", render.Thousands(int64(s.RXPending)),
			render.Thousands(int64(s.TXPending)))
	case s.TXPending > 0:
		second += fmt.Sprintf(", unsent: %s bytes", render.Thousands(int64(s.TXPending)))
	}
	holders := s.Holders
	word := "; held by "
	if len(holders) == 0 && len(s.Listeners) > 0 {
		holders, word = s.Listeners, "; in the backlog of "
	}
	for i, h := range holders {
		if i == 0 {
			second += word
		} else {
			second += ", "
		}
		second += fmt.Sprintf("%s[%d]", render.Escape(h.Comm), h.PID)
		if len(h.FDs) > 0 {
			second += " fd " + fdList(h.FDs)
		}
	}
	if s.NetNS != 0 {
		first += fmt.Sprintf("  netns %d", s.NetNS)
	}
	if s.Cookie != 0 {
		first += fmt.Sprintf("  sk:%x", s.Cookie)
	}
	if s.Owner.PID != 0 && s.OwnerSrc != events.OwnerUnknown {
		first += fmt.Sprintf("  %s by %s[%d]", ownerVerb(s.OwnerSrc), render.Escape(s.Owner.Comm), s.Owner.PID)
	}
	return first, second
}

func ownerVerb(src events.OwnerSource) string {
	switch src {
	case events.OwnerConnect:
		return "connected"
	case events.OwnerAccept:
		return "accepted"
	case events.OwnerClose:
		return "closed"
	case events.OwnerListen:
		return "listened to"
	}
	return "found held"
}
