package render

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
)

// TextConfig says how the table looks.
type TextConfig struct {
	// Width is the number of columns to fill, at least 80; 0 is 80.
	Width int
	// Terminal says that Width is a terminal's: a line that does not fit is
	// broken at a column. Otherwise it is longer, for programs read by line.
	Terminal bool
	Wide     bool // every column in full width, whatever Width is
	Color    bool
	WallTime bool // a column with the time of day, in Location
	Elapsed  bool // a column with the seconds since the header
	Clock    events.Clock
	Location *time.Location // nil: local time
	Notes    io.Writer      // for what is no data: lost events; nil: nowhere
}

// Text writes a table with a line for each transition. The last line of a
// connection says how it ended.
type Text struct {
	output
	cfg   TextConfig
	lay   layout
	start int64
	// last is the last transition of a connection until its Closed comes,
	// which is the next call if it comes at all.
	last    events.Transition
	hasLast bool
	scratch []byte
}

// Widths of columns.
const (
	pidWidth      = 7 // PID_MAX_LIMIT has 7 digits
	portWidth     = 5
	stateWidth    = 11
	durationWidth = 8
	wallWidth     = 12
	elapsedWidth  = 10
	endWidth      = 11
	minWidth      = 80
	fullComm      = 15
	fullAddr      = 39 // eight full groups
)

// layout is the widths that depend on the terminal; 0: no such column.
type layout struct {
	comm, laddr, raddr, end int
	// state is the column where the states begin, for broken lines.
	state int
}

// newLayout spends the columns in the order of their worth: the manner of the
// end, the local address, the whole name, longer addresses.
func newLayout(cfg *TextConfig) layout {
	lay := layout{comm: 8, raddr: 15}
	if cfg.Wide {
		lay = layout{comm: fullComm, laddr: fullAddr, raddr: fullAddr, end: endWidth}
	} else {
		spare := cfg.Width - minWidth - lay.times(cfg)
		take := func(n int) bool {
			if spare < n {
				return false
			}
			spare -= n
			return true
		}
		if take(1 + endWidth) {
			lay.end = endWidth
		}
		if lay.end > 0 && take(1+lay.raddr) {
			lay.laddr = lay.raddr
		}
		if lay.laddr > 0 && take(fullComm-lay.comm) {
			lay.comm = fullComm
		}
		if lay.comm == fullComm {
			more := min(spare/2, fullAddr-lay.raddr)
			lay.laddr += more
			lay.raddr += more
			spare -= 2 * more
		}
		if lay.end > 0 {
			lay.end += max(spare, 0)
		}
	}
	lay.state = lay.times(cfg) + pidWidth + 1 + lay.comm + 1 + portWidth + 1 + lay.raddr + 1 + portWidth + 1
	if lay.laddr > 0 {
		lay.state += lay.laddr + 1
	}
	return lay
}

// times returns what the columns with times take.
func (layout) times(cfg *TextConfig) int {
	n := 0
	if cfg.WallTime {
		n += wallWidth + 1
	}
	if cfg.Elapsed {
		n += elapsedWidth + 1
	}
	return n
}

// NewText returns a Stream of text.
func NewText(w io.Writer, cfg TextConfig) *Text {
	cfg.Width = max(cfg.Width, minWidth)
	if cfg.Location == nil {
		cfg.Location = time.Local
	}
	if cfg.Notes == nil {
		cfg.Notes = io.Discard
	}
	return &Text{output: output{w: w}, cfg: cfg, lay: newLayout(&cfg)}
}

// Header writes the line with the names of the columns.
func (t *Text) Header(h *events.Header) {
	t.start = h.TS
	if t.cfg.Color {
		t.buf = append(t.buf, bold...)
	}
	if t.cfg.WallTime {
		t.buf = append(pad(t.buf, "TIME", wallWidth), ' ')
	}
	if t.cfg.Elapsed {
		t.buf = append(padLeft(t.buf, "TIME(s)", elapsedWidth), ' ')
	}
	t.buf = append(padLeft(t.buf, "PID", pidWidth), ' ')
	t.buf = append(pad(t.buf, "COMM", t.lay.comm), ' ')
	if t.lay.laddr > 0 {
		t.buf = append(pad(t.buf, "LADDR", t.lay.laddr), ' ')
	}
	t.buf = append(padLeft(t.buf, "LPORT", portWidth), ' ')
	t.buf = append(pad(t.buf, "RADDR", t.lay.raddr), ' ')
	t.buf = append(padLeft(t.buf, "RPORT", portWidth), ' ')
	t.buf = append(padLeft(t.buf, "OLDSTATE", stateWidth), " -> "...)
	t.buf = append(pad(t.buf, "NEWSTATE", stateWidth), ' ')
	t.buf = padLeft(t.buf, "DURATION", durationWidth)
	if t.lay.end > 0 {
		t.buf = append(t.buf, " END"...)
	}
	if t.cfg.Color {
		t.buf = append(t.buf, reset...)
	}
	t.buf = append(t.buf, '\n')
}

// Transition writes a line, or keeps it until it is known how the connection
// ended.
func (t *Text) Transition(tr *events.Transition) {
	t.release()
	if tr.New == events.Close {
		t.last, t.hasLast = *tr, true
		return
	}
	t.line(tr, nil)
}

// Closed adds to the line of the connection's last transition. Without one, it
// was not wanted, there is no line.
func (t *Text) Closed(c *events.Closed) {
	if t.hasLast && t.last.ID == c.ID {
		t.hasLast = false
		t.line(&t.last, c)
		return
	}
	t.release()
}

// release writes the kept line.
func (t *Text) release() {
	if t.hasLast {
		t.hasLast = false
		t.line(&t.last, nil)
	}
}

// Lost tells of lost events in the notes.
func (t *Text) Lost(l *events.Lost) {
	t.release()
	why := "a larger --buffer may help"
	if l.Cause == events.LostUnseen {
		why = "the kernel ran no program for them"
	}
	fmt.Fprintf(t.cfg.Notes, "tcptrace: lost %d events (%d in all): %s\n", l.Count, l.Total, why)
}

// Resync tells in the notes what was corrected after a loss.
func (t *Text) Resync(r *events.Resync) {
	t.release()
	fmt.Fprintf(t.cfg.Notes, "tcptrace: looked again at all sockets: %d connections corrected, %d removed, %d added\n",
		r.Corrected, r.Removed, r.Added)
}

// Limit tells in the notes what was forgotten for want of room.
func (t *Text) Limit(l *events.Limit) {
	t.release()
	fmt.Fprintf(t.cfg.Notes, "tcptrace: at the limit of %d connections: %d of the oldest forgotten (%d in all), %d sockets not tracked: a larger --max-connections may help\n",
		l.Max, l.Count, l.Total, l.Untracked)
}

// Flush writes everything, a kept line too: what closes a connection comes in the
// same batch as its last transition.
func (t *Text) Flush() error {
	t.release()
	return t.output.Flush()
}

// line appends one line. c is nil but for the last of a connection.
func (t *Text) line(tr *events.Transition, c *events.Closed) {
	start := len(t.buf)
	if t.cfg.WallTime {
		t.buf = append(t.cfg.Clock.Time(tr.TS).In(t.cfg.Location).AppendFormat(t.buf, "15:04:05.000"), ' ')
	}
	if t.cfg.Elapsed {
		t.scratch = appendSeconds(t.scratch[:0], tr.TS-t.start)
		t.buf = append(padLeft(t.buf, t.scratch, elapsedWidth), ' ')
	}
	t.scratch = append(t.scratch[:0], '-')
	comm := "-"
	if tr.Owner.PID != 0 {
		t.scratch = strconv.AppendUint(t.scratch[:0], uint64(tr.Owner.PID), 10)
		comm = fit(Escape(tr.Owner.Comm), t.lay.comm)
	}
	t.buf = append(padLeft(t.buf, t.scratch, pidWidth), ' ')
	t.buf = append(fill(append(t.buf, comm...), t.lay.comm-width(comm)), ' ')
	if t.lay.laddr > 0 {
		t.addr(tr.Local.Addr(), t.lay.laddr)
	}
	t.port(tr.Local, portWidth)
	t.addr(tr.Remote.Addr(), t.lay.raddr)
	t.port(tr.Remote, portWidth)
	// Elsewhere a line may be as long as it is; counting costs a copy of it.
	if t.cfg.Terminal && !t.cfg.Wide && cellsOf(t.buf[start:]) > t.lay.state {
		t.buf[len(t.buf)-1] = '\n'
		t.buf = fill(t.buf, t.lay.state)
	}
	t.states(tr, c)
	t.buf = append(t.buf, '\n')
	t.added()
}

// cellsOf returns the number of cells of a line that Escape's text and ours make.
func cellsOf(line []byte) int { return width(string(line)) }

// addr appends an address in n cells and a space.
func (t *Text) addr(a netip.Addr, n int) {
	from := len(t.buf)
	switch {
	case !a.IsValid():
		t.buf = append(t.buf, '-')
	case a.IsUnspecified():
		t.buf = append(t.buf, '*')
	case a.Zone() != "" && !plain(a.Zone()):
		t.buf = append(t.buf, Escape(a.String())...) // from a recording
	default:
		t.buf = a.Unmap().AppendTo(t.buf)
	}
	t.buf = append(fill(t.buf, n-(len(t.buf)-from)), ' ')
}

// port appends the port of an endpoint in n cells and a space.
func (t *Text) port(e netip.AddrPort, n int) {
	t.scratch = t.scratch[:0]
	switch {
	case e.Port() != 0:
		t.scratch = strconv.AppendUint(t.scratch, uint64(e.Port()), 10)
	case e.Addr().IsValid() && e.Addr().IsUnspecified():
		t.scratch = append(t.scratch, '*')
	default:
		t.scratch = append(t.scratch, '-')
	}
	t.buf = append(padLeft(t.buf, t.scratch, n), ' ')
}

// states appends the transition, its duration, and how the connection ended.
func (t *Text) states(tr *events.Transition, c *events.Closed) {
	t.scratch = t.duration(t.scratch[:0], tr)
	t.buf = padLeft(t.buf, tr.Old.String(), stateWidth)
	t.buf = append(t.buf, " -> "...)
	color := ""
	if t.cfg.Color {
		color = stateColor(tr.New)
	}
	t.buf = append(t.buf, color...)
	t.buf = append(t.buf, tr.New.String()...)
	if color != "" {
		t.buf = append(t.buf, reset...)
	}
	// What the new state leaves of its column and of the next is where a
	// narrow table says how it ended.
	room := stateWidth + 1 + durationWidth - len(tr.New.String()) - len(t.scratch)
	if c != nil && t.lay.end == 0 {
		if word := shortEnd(c, room-2); word != "" {
			t.buf = append(t.buf, ' ')
			t.buf = append(t.buf, word...)
			room -= 1 + len(word)
		}
	}
	t.buf = append(fill(t.buf, room), t.scratch...)
	if c != nil && t.lay.end > 0 {
		t.buf = append(t.buf, ' ')
		t.end(c)
	}
}

// duration appends the time in the old state: >= before a lower bound, ~ before
// one whose end is not exact, - for none.
func (t *Text) duration(dst []byte, tr *events.Transition) []byte {
	switch {
	case tr.InOld >= 0:
		if !tr.Exact {
			dst = append(dst, '~')
		}
		return appendDuration(dst, time.Duration(tr.InOld))
	case tr.InOldMin >= 0:
		return appendBound(dst, time.Duration(tr.InOldMin))
	default:
		return append(dst, '-')
	}
}

// end appends how the connection ended, in words of the JSON lines.
func (t *Text) end(c *events.Closed) {
	text := endOf(c)
	if t.cfg.Terminal && !t.cfg.Wide {
		text = fit(text, t.lay.end)
	}
	if t.cfg.Color && c.How != events.HowFIN {
		t.buf = append(t.buf, red...)
		t.buf = append(t.buf, text...)
		t.buf = append(t.buf, reset...)
		return
	}
	t.buf = append(t.buf, text...)
}

// endOf says how the connection ended and, where it is out of the ordinary, what
// became of its TIME_WAIT.
func endOf(c *events.Closed) string {
	text := "-"
	switch c.How {
	case events.HowUnknown:
	case events.HowFIN:
		text = "fin " + c.Closer.String()
	case events.HowRST:
		text = "rst"
		if c.Reset != events.ResetNone {
			text += " " + c.Reset.String()
		}
	default:
		text = c.How.String()
	}
	switch {
	case c.TimeWaitOverflow:
		text += ", no TIME_WAIT"
	case c.TimeWaitEnd == events.TimeWaitReused, c.TimeWaitEnd == events.TimeWaitReset, c.TimeWaitEnd == events.TimeWaitKilled:
		text += ", " + c.TimeWaitEnd.String()
	}
	return text
}

// shortEnd is endOf in at most n cells: who closed with a FIN, or what else ended
// it; empty where that does not fit.
func shortEnd(c *events.Closed, n int) string {
	words := []string{""}
	switch c.How {
	case events.HowUnknown:
	case events.HowFIN:
		words = []string{c.Closer.String()}
	case events.HowTimeout:
		words = []string{"timeout", "tmout"}
	case events.HowRefused:
		words = []string{"refused", "refus"}
	default:
		words = []string{c.How.String()}
	}
	for _, w := range words {
		if len(w) <= n {
			return w
		}
	}
	return ""
}

// appendSeconds appends ns as seconds with six decimals.
func appendSeconds(dst []byte, ns int64) []byte {
	if ns < 0 {
		dst, ns = append(dst, '-'), -ns
	}
	return appendTenths(dst, time.Duration(ns), time.Second, 6)
}

// plain reports whether each byte of s is a cell on its own.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// fill appends n spaces, if any.
func fill(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, ' ')
	}
	return dst
}

// pad appends ASCII text to the left of n cells.
func pad(dst []byte, text string, n int) []byte {
	return fill(append(dst, text...), n-len(text))
}

// padLeft appends ASCII text to the right of n cells.
func padLeft[T []byte | string](dst []byte, text T, n int) []byte {
	return append(fill(dst, n-len(text)), text...)
}

// SGR sequences (ECMA-48 8.3.117).
const (
	reset = "\x1b[0m"
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
)

// stateColor marks the states that a leak hunter looks for.
func stateColor(s events.State) string {
	switch s {
	case events.CloseWait:
		return red
	case events.TimeWait, events.FinWait2:
		return "\x1b[33m" // yellow
	case events.Established:
		return "\x1b[32m" // green
	case events.Listen, events.SynSent, events.SynRecv:
		return "\x1b[36m" // cyan
	default:
		return ""
	}
}
