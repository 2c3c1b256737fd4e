package screen

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// groupKey is what stays of a group from one snapshot to the next. Comm is part
// of it only where there is no process: a process may rename itself.
type groupKey struct {
	state  watch.State
	pid    uint32
	remote string
	comm   string
}

func keyOf(g *watch.Group) groupKey {
	k := groupKey{state: g.State, pid: g.PID, remote: g.Remote}
	if g.PID == 0 {
		k.comm = g.Comm
	}
	return k
}

// comm is the name of the group's process, escaped.
func comm(g *watch.Group) string {
	switch {
	case g.Comm != "":
		return render.Escape(g.Comm)
	case g.Reasons[watch.ReasonKernel] > 0:
		return "(kernel)"
	}
	return "(unknown)"
}

func pid(pid uint32) string {
	if pid == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(pid), 10)
}

// process names the group's process: nginx[1234].
func process(g *watch.Group) string {
	if g.PID == 0 {
		return comm(g)
	}
	return comm(g) + "[" + pid(g.PID) + "]"
}

func growth(g *watch.Group) string {
	if !g.GrowthKnown {
		return "-"
	}
	return render.Rate(g.GrowthPerMin)
}

// descriptors says how many of how many descriptors are in use; with ! from 90 %.
func descriptors(h *watch.Holder) string {
	if h == nil || h.OpenFDs < 0 && h.NofileSoft < 0 {
		return "-"
	}
	s := limitNumber(h.OpenFDs) + "/" + limitNumber(h.NofileSoft)
	if nearLimit(h) {
		s += "!"
	}
	return s
}

func limitNumber(n int64) string {
	switch {
	case n < 0:
		return "?"
	case n < 10000:
		return strconv.FormatInt(n, 10)
	}
	return render.Count(n)
}

func nearLimit(h *watch.Holder) bool {
	return h != nil && h.OpenFDs >= 0 && h.NofileSoft > 0 && h.OpenFDs >= h.NofileSoft-h.NofileSoft/10
}

// reasonCount is a reason and its sockets.
type reasonCount struct {
	reason watch.Reason
	n      int
}

// ranked returns the reasons of a group, the most frequent first.
func ranked(g *watch.Group) []reasonCount {
	var list []reasonCount
	for r, n := range g.Reasons {
		if r != watch.ReasonNone && n > 0 {
			list = append(list, reasonCount{r, n})
		}
	}
	slices.SortFunc(list, func(a, b reasonCount) int {
		return cmp.Or(b.n-a.n, int(a.reason)-int(b.reason))
	})
	return list
}

// byReason compares groups by their most frequent reason and its sockets.
func byReason(a, b *watch.Group) int {
	first := func(g *watch.Group) reasonCount {
		if list := ranked(g); len(list) > 0 {
			return list[0]
		}
		return reasonCount{}
	}
	ra, rb := first(a), first(b)
	return cmp.Or(strings.Compare(ra.reason.String(), rb.reason.String()), ra.n-rb.n)
}

// reasons lists the reasons of a group, the most frequent first.
func reasons(g *watch.Group) string {
	var b strings.Builder
	for i, rc := range ranked(g) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(rc.reason.String())
		b.WriteByte(' ')
		b.WriteString(render.Thousands(int64(rc.n)))
	}
	return b.String()
}

// shortReasons tells the most frequent reason in at most width cells; a + stands
// for the others where there is no room for all.
func shortReasons(g *watch.Group, width int) string {
	list := ranked(g)
	if all := reasons(g); len(all) <= width || len(list) == 0 {
		return all
	}
	first, more := list[0].reason.String(), ""
	if len(list) > 1 {
		more = " +"
	}
	if s := first + " " + render.Count(int64(list[0].n)) + more; len(s) <= width {
		return s
	}
	return first + more
}

func unit(h *watch.Holder) string {
	if h == nil || h.Unit.Name == "" {
		return ""
	}
	return render.Escape(strings.TrimLeft(h.Unit.Kind+" "+h.Unit.Name, " "))
}

func fds(h *watch.Holder) int64 {
	if h == nil {
		return -1
	}
	return h.OpenFDs
}

// fullIn is the time until the group's process or remote runs out: of
// descriptors, or for TIME_WAIT of local ports.
func (m *model) fullIn(g *watch.Group) int64 {
	if g.LimitIn >= 0 {
		return g.LimitIn
	}
	if p := m.fullest[g.Remote]; g.Remote != "" && p != nil {
		return p.FullIn
	}
	return events.Unknown
}

// portUse says how many of how many local ports towards the remote are in use.
func portUse(p *watch.PortUse) string {
	if p == nil {
		return "-"
	}
	s := strconv.Itoa(p.Used) + "/" + portRange(p.Range)
	if nearlyFull(p) {
		s += "!"
	}
	return s
}

func portRange(n int) string {
	if n < 0 {
		return "?"
	}
	return strconv.Itoa(n)
}

func nearlyFull(p *watch.PortUse) bool {
	return p != nil && p.Range > 0 && p.Used >= p.Range-p.Range/10
}

// unknownLast compares times until something happens: an unknown one counts as
// never.
func unknownLast(a, b int64) int {
	switch {
	case a < 0 && b < 0:
		return 0
	case a < 0:
		return 1
	case b < 0:
		return -1
	}
	return cmp.Compare(a, b)
}

// groupColumns are the columns that make sense for the snapshot.
func (m *model) groupColumns() []column[*watch.Group] {
	type col = column[*watch.Group]
	several, remotes, why, units := len(m.snap.States.List()) > 1, false, false, false
	for _, g := range m.snap.Groups {
		remotes = remotes || g.Remote != ""
		why = why || len(g.Reasons) > 1 || len(g.Reasons) == 1 && g.Reasons[watch.ReasonNone] == 0
		units = units || g.Holder != nil && g.Holder.Unit.Name != ""
	}
	commMin := 15
	if remotes {
		commMin = 8
	}
	cols := []col{
		{title: "PID", min: 7, max: 7, right: true, rank: 0,
			text: func(g *watch.Group) string { return pid(g.PID) },
			cmp:  func(a, b *watch.Group) int { return cmp.Compare(a.PID, b.PID) }},
		{title: "COMM", min: commMin, max: 16, rank: 2,
			text: comm,
			cmp:  func(a, b *watch.Group) int { return strings.Compare(comm(a), comm(b)) }},
	}
	if several {
		cols = append(cols, col{title: "STATE", min: 11, max: 11, rank: 4,
			text: func(g *watch.Group) string { return g.State.String() },
			cmp:  func(a, b *watch.Group) int { return strings.Compare(a.State.String(), b.State.String()) }})
	}
	if remotes {
		cols = append(cols, col{title: "REMOTE", min: 21, max: 47, rank: 5,
			fit: func(g *watch.Group, width int) string {
				if g.Remote == "" {
					return "-"
				}
				return shortAddr(render.Escape(g.Remote), width)
			},
			cmp: func(a, b *watch.Group) int { return strings.Compare(a.Remote, b.Remote) }})
	}
	cols = append(cols,
		col{title: "COUNT", min: 6, max: 6, right: true, rank: 1, desc: true,
			text: func(g *watch.Group) string {
				if g.Count > 999999 {
					return render.Count(int64(g.Count))
				}
				return strconv.Itoa(g.Count)
			},
			cmp: func(a, b *watch.Group) int { return cmp.Compare(a.Count, b.Count) }},
		col{title: "OLDEST", min: 8, max: 9, right: true, rank: 3, desc: true,
			text: func(g *watch.Group) string { return render.AtLeast(g.Oldest, g.AllAges) },
			cmp:  func(a, b *watch.Group) int { return cmp.Compare(a.Oldest, b.Oldest) }},
		col{title: "MEDIAN", min: 8, max: 9, right: true, rank: 8, desc: true,
			text: func(g *watch.Group) string { return render.AtLeast(g.Median, g.AllAges) },
			cmp:  func(a, b *watch.Group) int { return cmp.Compare(a.Median, b.Median) }},
		col{title: "GROW", min: 6, max: 6, right: true, rank: 7, desc: true,
			text: growth,
			cmp: func(a, b *watch.Group) int {
				if a.GrowthKnown != b.GrowthKnown {
					if a.GrowthKnown {
						return 1
					}
					return -1
				}
				return cmp.Compare(a.GrowthPerMin, b.GrowthPerMin)
			}},
	)
	if remotes {
		port := func(g *watch.Group) *watch.PortUse { return m.fullest[g.Remote] }
		cols = append(cols, col{title: "PORTS", min: 12, max: 12, right: true, rank: 6, desc: true,
			text: func(g *watch.Group) string { return portUse(port(g)) },
			loud: func(g *watch.Group) bool { return nearlyFull(port(g)) },
			cmp: func(a, b *watch.Group) int {
				used := func(p *watch.PortUse) int {
					if p == nil {
						return -1
					}
					return p.Used
				}
				return cmp.Compare(used(port(a)), used(port(b)))
			}})
	} else {
		cols = append(cols, col{title: "FDS", min: 10, max: 11, right: true, rank: 6, desc: true,
			text: func(g *watch.Group) string { return descriptors(g.Holder) },
			loud: func(g *watch.Group) bool { return nearLimit(g.Holder) },
			cmp:  func(a, b *watch.Group) int { return cmp.Compare(fds(a.Holder), fds(b.Holder)) }})
	}
	cols = append(cols, col{title: "FULL IN", min: 9, max: 9, right: true, rank: 10,
		text: func(g *watch.Group) string { return render.Duration(m.fullIn(g)) },
		loud: func(g *watch.Group) bool { return m.fullIn(g) >= 0 && m.fullIn(g) < 600e9 },
		cmp:  func(a, b *watch.Group) int { return unknownLast(m.fullIn(a), m.fullIn(b)) }})
	if why {
		cols = append(cols, col{title: "WHY", min: 12, max: 28, rank: 9,
			fit: shortReasons,
			cmp: byReason})
	}
	if units {
		cols = append(cols, col{title: "UNIT", min: 16, max: 40, rank: 11,
			text: func(g *watch.Group) string { return unit(g.Holder) },
			cmp:  func(a, b *watch.Group) int { return strings.Compare(unit(a.Holder), unit(b.Holder)) }})
	}
	return cols
}

// shortAddr leaves out the middle of an IPv6 address that does not fit: its network
// and what is most its own, the port or the last group, stay.
func shortAddr(addr string, width int) string {
	colon := strings.LastIndexByte(addr, ':')
	if len(addr) <= width || width < 12 || colon < 0 {
		return render.Cut(addr, width)
	}
	tail := ".." + addr[colon:]
	if strings.HasPrefix(addr, "[") {
		tail = "..]" + addr[colon:]
	}
	return addr[:max(width-len(tail), 0)] + tail
}

// facts says of the group's process what is not in the table at 80 columns.
func (m *model) facts(g *watch.Group) string {
	var parts []string
	if h := g.Holder; h != nil {
		if h.OpenFDs >= 0 || h.NofileSoft >= 0 {
			s := fmt.Sprintf("descriptors %s of %s", thousands(h.OpenFDs), thousands(h.NofileSoft))
			if g.LimitIn >= 0 {
				s += ", full in " + render.Duration(g.LimitIn)
			}
			parts = append(parts, s)
		}
		if h.Unit.Name != "" {
			parts = append(parts, unit(h))
		}
		if h.UID >= 0 {
			parts = append(parts, "uid "+strconv.FormatInt(h.UID, 10))
		}
	}
	if g.Remote != "" {
		if p := m.fullest[g.Remote]; p != nil {
			parts = append(parts, ports(p))
		}
	}
	if len(parts) == 0 && len(g.TopRemotes) > 0 {
		parts = append(parts, "remotes "+remotes(g))
	}
	return strings.Join(parts, "; ")
}

func thousands(n int64) string {
	if n < 0 {
		return "?"
	}
	return render.Thousands(n)
}

// ports says in words how many local ports towards a remote endpoint are taken.
func ports(p *watch.PortUse) string {
	s := fmt.Sprintf("local ports %s -> %s: %s of %s used", render.Escape(p.Local), render.Escape(p.Remote),
		render.Thousands(int64(p.Used)), thousands(int64(p.Range)))
	if p.Range > 0 {
		s += fmt.Sprintf(" (%d %%)", p.Used*100/p.Range)
	}
	if p.FullIn >= 0 {
		s += ", full in " + render.Duration(p.FullIn)
	}
	return s
}

func remotes(g *watch.Group) string {
	var b strings.Builder
	for i, r := range g.TopRemotes {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(render.Escape(r.Addr))
		b.WriteByte(' ')
		b.WriteString(render.Thousands(int64(r.Count)))
	}
	return b.String()
}
