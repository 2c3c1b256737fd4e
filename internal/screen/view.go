package screen

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
)

// View implements tea.Model.
func (m *model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

// draw returns the screen's lines.
func (m *model) draw() string {
	if m.w <= 0 || m.h <= 0 {
		return ""
	}
	c := &canvas{buf: make([]byte, 0, m.w*m.h*2), w: m.w, h: m.h}
	m.drawTitle(c)
	switch {
	case m.view == viewHelp:
		m.drawHelp(c)
	case m.snap == nil:
		c.line(plain, "")
		c.line(plain, "Waiting for the first look at the sockets ...")
	case m.view == viewDetail:
		m.drawDetail(c)
	case m.view == viewPorts:
		m.drawTotals(c)
		m.drawPorts(c)
	default:
		m.drawTotals(c)
		m.drawGroups(c)
	}
	c.down(m.h - 1)
	m.drawKeys(c)
	return c.String()
}

// drawTitle writes what is watched, and what the reader must know of what is
// shown.
func (m *model) drawTitle(c *canvas) {
	title := m.opt.Title
	if title == "" {
		title = "tcptrace"
		if m.snap != nil {
			title += " --watch " + strings.ReplaceAll(m.snap.States.String(), ",", ", ")
		}
	}
	var right []segment
	if m.snap != nil && m.snap.Lost > 0 {
		right = append(right, segment{shout, "LOST " + render.Thousands(int64(m.snap.Lost)) + " EVENTS"})
	}
	if m.snap != nil && m.snap.Untracked > 0 {
		right = append(right, segment{shout, render.Thousands(int64(m.snap.Untracked)) + " NOT TRACKED"})
	}
	if m.paused {
		right = append(right, segment{warn, "PAUSED"})
	}
	if m.ended {
		right = append(right, segment{warn, "ENDED"})
	}
	if late := m.stale(); late > 0 {
		right = append(right, segment{warn, "NO NEWS FOR " + late.Truncate(time.Second).String()})
	}
	if m.snap != nil {
		at := m.opt.Clock.Time(m.snap.TS)
		if m.opt.Location != nil {
			at = at.In(m.opt.Location)
		} else {
			at = at.Local()
		}
		right = append(right, segment{plain, at.Format(time.TimeOnly)})
	}
	width := 0
	for _, s := range right {
		width += render.Width(s.text) + 2
	}
	room := max(c.w-width, 0)
	full := *c
	full.w = room
	full.text(bold, render.Escape(title))
	if m.opt.Filters != "" {
		full.text(faint, "  "+render.Escape(m.opt.Filters))
	}
	c.buf, c.x = full.buf, full.x
	for i, s := range right {
		if i == 0 {
			c.to(plain, room)
		}
		if c.x > 0 {
			c.text(plain, "  ")
		}
		c.text(s.style, s.text)
	}
	c.newline()
}

// segment is a piece of a line.
type segment struct {
	style style
	text  string
}

// drawTotals writes what there is in all.
func (m *model) drawTotals(c *canvas) {
	s := m.snap
	left := []string{
		plural(s.Total, "socket", "sockets"),
		plural(m.processes, "process", "processes"),
		"lost " + render.Thousands(int64(s.Lost)),
	}
	if s.Hooks != "" {
		left = append(left, "hooks "+render.Escape(s.Hooks))
	}
	if m.opt.Refresh > 0 {
		left = append(left, "every "+shortDuration(m.opt.Refresh))
	}
	c.pieces(left, m.order())
	m.drawStates(c)
	switch {
	case len(s.Notes) > 0:
		note := "note: " + render.Escape(s.Notes[0])
		if more := len(s.Notes) - 1; more > 0 {
			c.split(alarm, note, plain, fmt.Sprintf("(%d more: ?)", more))
			c.newline()
		} else {
			c.line(alarm, note)
		}
	case len(s.Ports) > 0 && m.view == viewGroups:
		st := plain
		if nearlyFull(&s.Ports[0]) {
			st = alarm
		}
		c.line(st, ports(&s.Ports[0]))
	}
}

func (m *model) order() string {
	switch m.view {
	case viewDetail:
		return m.sockets.sorted()
	case viewPorts:
		return m.ports.sorted()
	}
	return m.groups.sorted()
}

// pieces writes as many of the pieces as fit whole, the first in any case, and
// right at the right edge.
func (c *canvas) pieces(list []string, right string) {
	room := c.w - c.x - len(right) - 2
	text := list[0]
	for _, p := range list[1:] {
		if render.Width(text)+2+render.Width(p) > room {
			break
		}
		text += ", " + p
	}
	c.split(plain, text, faint, right)
	c.newline()
}

// shortDuration writes a setting: 2s, 500ms, 1m30s.
func shortDuration(d time.Duration) string {
	s := d.String()
	s = strings.TrimSuffix(s, "m0s")
	if len(s) < len(d.String()) {
		s += "m"
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return render.Thousands(int64(n)) + " " + many
}

// drawStates writes the sockets by state: the watched ones always, the others
// where there are any and they were counted.
func (m *model) drawStates(c *canvas) {
	var parts []segment
	for state := range events.State(events.NumStates) {
		n := m.snap.Counts[state]
		if n <= 0 && !m.snap.States.Has(state) {
			continue
		}
		seg := segment{plain, state.String() + " " + thousands(int64(n))}
		if m.snap.States.Has(state) {
			seg.style = bold
		}
		parts = append(parts, seg)
	}
	for i, p := range parts {
		rest := ""
		if i < len(parts)-1 {
			rest = fmt.Sprintf("  +%d", len(parts)-i)
		}
		if c.x+2+render.Width(p.text)+len(rest) > c.w && i > 0 {
			c.text(plain, fmt.Sprintf("  +%d", len(parts)-i))
			break
		}
		if i > 0 {
			c.text(plain, "  ")
		}
		c.text(p.style, p.text)
	}
	c.newline()
}

// panel is the number of lines below a list on a terminal of h lines, the keys
// not counted.
func panel(h int) int {
	switch {
	case h >= 20:
		return 4
	case h >= 14:
		return 2
	case h >= 10:
		return 1
	}
	return 0
}

// rule writes the line between a list and what is told of the selected row.
func (c *canvas) rule(left, right string) {
	left = "-- " + left + " "
	right = " " + right + " --"
	dashes := c.w - render.Width(left) - render.Width(right)
	if dashes < 0 {
		left = render.Cut(left, max(c.w-render.Width(right)-1, 0))
		dashes = max(c.w-render.Width(left)-render.Width(right), 0)
	}
	c.line(faint, left+strings.Repeat("-", dashes)+right)
}

func (m *model) drawGroups(c *canvas) {
	if len(m.groups.rows) == 0 {
		m.drawEmpty(c, len(m.snap.Groups))
		return
	}
	below := panel(m.h)
	m.groups.draw(c, m.h-1-below-c.y-1)
	c.down(m.h - 1 - below)
	g, _ := m.groups.selected()
	if below == 0 {
		return
	}
	c.rule(process(g), m.groups.position())
	below--
	lines := wrap(render.Escape(g.Verdict), c.w, min(below, 2))
	for _, l := range lines {
		c.line(plain, l)
	}
	if below -= len(lines); below > 0 {
		st := plain
		if nearLimit(g.Holder) || nearlyFull(m.fullest[g.Remote]) {
			st = alarm
		}
		facts := m.facts(g)
		if facts == "" && g.Holder != nil {
			facts = commandLine(g.Holder.Cmdline)
		}
		c.line(st, facts)
		if below--; below > 0 && g.Holder != nil {
			c.line(faint, commandLine(g.Holder.Cmdline))
		}
	}
}

// drawEmpty says why there are no rows; hidden is how many the filter hides.
func (m *model) drawEmpty(c *canvas, hidden int) {
	c.line(plain, "")
	if hidden > 0 {
		c.line(plain, fmt.Sprintf(`Nothing here matches the filter "%s"; %s hidden. esc shows all again.`,
			m.filter.shown(), render.Thousands(int64(hidden))))
		return
	}
	states := strings.ReplaceAll(m.snap.States.String(), ",", ", ")
	if m.ended {
		for _, l := range wrap("There was no socket in "+states+".", c.w, 3) {
			c.line(plain, l)
		}
		return
	}
	for _, l := range wrap("There is no socket in "+states+" now.", c.w, 3) {
		c.line(plain, l)
	}
	for _, l := range wrap("Watching goes on: sockets appear here as they come.", c.w, 3) {
		c.line(plain, l)
	}
}

func (m *model) drawDetail(c *canvas) {
	g := m.in.group
	if g == nil {
		c.split(bold, m.in.name, faint, m.order())
		c.newline()
		c.line(plain, "")
		text := fmt.Sprintf("None of its sockets is in %s any more: closed, or the process is gone.", m.in.key.state)
		for _, l := range wrap(text, c.w, 3) {
			c.line(plain, l)
		}
		c.line(plain, "esc goes back to the list.")
		return
	}
	below := panel(m.h)
	c.text(bold, m.in.name)
	c.text(plain, "  ")
	c.pieces(groupSummary(g), m.order())
	// More than half of the lines are for the list.
	room := max((m.h-4-below)/2-1, 0)
	for _, l := range wrap(render.Escape(g.Verdict), c.w, min(2, room)) {
		c.line(bold, l)
		room--
	}
	account := m.account(g)
	for _, l := range account {
		ahead := 0
		for _, other := range account {
			if other.rank < l.rank {
				ahead++
			}
		}
		if ahead >= room {
			continue
		}
		c.text(faint, render.Pad(l.label, 8, false))
		c.line(plain, " "+l.text)
	}
	if len(m.sockets.rows) == 0 {
		m.drawEmpty(c, len(g.Sockets))
		return
	}
	m.sockets.draw(c, m.h-1-below-c.y-1)
	c.down(m.h - 1 - below)
	if s, ok := m.sockets.selected(); ok && below > 0 {
		first, second := socketFacts(s)
		c.rule("socket", m.sockets.position())
		below--
		if below > 1 {
			lines := wrap(first, c.w, below-1)
			for _, l := range lines {
				c.line(plain, l)
			}
			below -= len(lines)
		}
		for _, l := range wrap(second, c.w, below) {
			c.line(plain, l)
		}
	}
}

func (m *model) drawPorts(c *canvas) {
	if len(m.ports.rows) == 0 {
		if len(m.snap.Ports) > 0 {
			m.drawEmpty(c, len(m.snap.Ports))
			return
		}
		c.line(plain, "")
		text := "The use of local ports is told when TIME_WAIT is watched and there are such sockets."
		for _, l := range wrap(text, c.w, 3) {
			c.line(plain, l)
		}
		return
	}
	below := min(panel(m.h), 2)
	m.ports.draw(c, m.h-1-below-c.y-1)
	c.down(m.h - 1 - below)
	if p, ok := m.ports.selected(); ok && below > 0 {
		c.rule("local ports", m.ports.position())
		if below > 1 {
			c.line(plain, ports(p))
		}
	}
}

// drawKeys writes the last line.
func (m *model) drawKeys(c *canvas) {
	if m.typing {
		text := "filter: " + m.filter.shown() + "_"
		hint := "enter keep  esc clear"
		c.split(bold, text, faint, hint)
		return
	}
	keys := []string{"q quit", "? help"}
	switch m.view {
	case viewHelp:
		keys = append(keys, "esc back")
		if last := m.helpTop + m.h - 2; m.helpLen > m.h-2 && m.h > 2 {
			keys = append(keys, fmt.Sprintf("up/down scroll: %d-%d of %d", m.helpTop+1, min(last, m.helpLen), m.helpLen))
		}
	case viewDetail:
		keys = append(keys, "esc back", "1-9 sort", "r reverse", "/ filter", "p pause")
	case viewPorts:
		keys = append(keys, "esc back", "1-9 sort", "r reverse", "/ filter", "p pause")
	default:
		keys = append(keys, "enter look in", "1-9 sort", "r reverse", "/ filter", "p pause")
		if m.snap != nil && len(m.snap.Ports) > 0 {
			keys = append(keys, "P ports")
		}
	}
	filter := ""
	if m.filter.text != "" && m.view != viewHelp {
		filter = "filter: " + m.filter.shown()
		filter = render.Cut(filter, max(c.w-8, 0))
		if c.w < 20 {
			filter = ""
		}
	}
	room := c.w
	if filter != "" {
		room -= render.Width(filter) + 2
	}
	for i, k := range keys {
		need := len(k)
		if i > 0 {
			need += 2
		}
		if c.x+need > room && i > 0 {
			break
		}
		if i > 0 {
			c.text(plain, "  ")
		}
		c.text(bold, k[:strings.IndexByte(k, ' ')])
		c.text(plain, k[strings.IndexByte(k, ' '):])
	}
	if filter != "" {
		c.to(plain, c.w-render.Width(filter))
		c.text(mark, filter)
	}
}

// helpLines is what ? shows.
var helpLines = []string{
	"KEYS",
	"  up down j k        select               enter right   look into the process",
	"  PgUp PgDn Home End move far (g G too)   esc left      back; clear the filter",
	"  1 to 9             sort by the column with this digit; again: reverse",
	"  0                  as it comes: worst first     < >   sort by the next column",
	"  r                  reverse                      P     use of local ports",
	"  /                  filter as you type: words, all of which must be in the PID,",
	"                     name, command, unit, address, port, state or reason",
	"  p space            pause: what is shown stands still, counting goes on",
	"  q Ctrl-C           quit                         Ctrl-Z  suspend",
	"",
	"COLUMNS",
	"  OLDEST MEDIAN AGE  time in the state; >= is a lower bound: it began unseen",
	"  GROW               change of the count per minute; known after a minute",
	"  FDS                descriptors open / soft limit (RLIMIT_NOFILE); ! from 90 %",
	"  PORTS              local ports used / usable towards this remote; ! from 90 %",
	"  FULL IN            until that limit at the present growth",
	"  UNREAD UNSENT      bytes waiting in the socket's queues",
	"  FDS 7,9 +1p        of a socket: descriptors, and other processes that hold it",
	"",
	"WHY a socket stays in CLOSE_WAIT (the remote closed, this side did not)",
	"  drained            nothing left to read, the FIN included; never closed",
	"  unread             data and the FIN wait: the process does not read the socket",
	"  fin-unread         all data is read, the FIN not noticed: an idle pool",
	"  not-accepted       still in the backlog: nobody called accept()",
	"  kernel             a socket of the kernel's own",
}

func (m *model) drawHelp(c *canvas) {
	lines := helpLines
	if m.snap != nil && len(m.snap.Notes) > 0 {
		lines = append(lines[:len(lines):len(lines)], "", "NOTES")
		for _, n := range m.snap.Notes {
			for _, l := range wrap(render.Escape(n), max(c.w-2, 1), 8) {
				lines = append(lines, "  "+l)
			}
		}
	}
	height := max(m.h-1-c.y, 0)
	m.helpLen = len(lines)
	m.helpTop = max(0, min(m.helpTop, len(lines)-height))
	for _, l := range lines[m.helpTop:min(m.helpTop+height, len(lines))] {
		st := plain
		if l != "" && l[0] != ' ' {
			st = bold
		}
		c.line(st, l)
	}
}
