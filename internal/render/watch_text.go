package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// WatchTextConfig says how the tables of a watch look.
type WatchTextConfig struct {
	// Width is the number of columns to fill, at least 80; 0 is 80.
	Width int
	// Groups is how many groups are written, 0: all. Of the others is said how
	// many they are.
	Groups   int
	Color    bool
	Clock    events.Clock
	Location *time.Location // nil: local time
}

// WatchText writes a table for each answer: a line for each group, below it what is
// the matter and what is known of the process.
type WatchText struct {
	sheet
	more bool // this is not the first table
}

// sheet is text in lines that fit.
type sheet struct {
	output
	cfg WatchTextConfig
}

func newSheet(w io.Writer, cfg WatchTextConfig) sheet {
	cfg.Width = max(cfg.Width, minWidth)
	if cfg.Location == nil {
		cfg.Location = time.Local
	}
	return sheet{output: output{w: w}, cfg: cfg}
}

// NewWatchText returns a Watch of text.
func NewWatchText(w io.Writer, cfg WatchTextConfig) *WatchText {
	return &WatchText{sheet: newSheet(w, cfg)}
}

// Header writes nothing: each table has its own first line.
func (*WatchText) Header(*events.Header) {}

// Widths of columns.
const (
	countWidth  = 6
	growthWidth = 9
	fdsWidth    = 13
	narrowComm  = 10
	detailsAt   = pidWidth + 1
)

// portRows is how many uses of local ports are written.
const portRows = 5

// Snapshot writes one table.
func (t *WatchText) Snapshot(s *watch.Snapshot) error {
	if t.more {
		t.buf = append(t.buf, '\n')
	}
	t.more = true
	t.summary(s)
	states := s.States.List()
	if len(s.Groups) > 0 {
		t.table(s, len(states) > 1)
	} else {
		t.line(0, "nothing in "+strings.ReplaceAll(s.States.String(), ",", ", "))
	}
	t.portTable(s.Ports)
	for _, note := range s.Notes {
		t.wrap(0, "note: "+Escape(note))
	}
	return t.Flush()
}

// summary writes when it was, the number of sockets in each state, and what makes
// the answer less than whole.
func (t *WatchText) summary(s *watch.Snapshot) {
	words := []string{t.cfg.Clock.Time(s.TS).In(t.cfg.Location).Format("15:04:05")}
	for _, state := range events.AllStates.List() {
		if n := s.Counts[state]; n > 0 || s.States.Has(state) {
			words = append(words, state.String()+" "+strconv.Itoa(max(n, 0)))
		}
	}
	if s.Hooks != "" {
		words = append(words, "hooks "+s.Hooks)
	}
	first := len(t.buf)
	t.wrap(0, strings.Join(words, "  "))
	if t.cfg.Color {
		t.mark(first, bold)
	}
	if s.Lost > 0 {
		at := len(t.buf)
		t.line(0, fmt.Sprintf("LOST %d events: the sockets are looked at again, ages may be lower bounds", s.Lost))
		if t.cfg.Color {
			t.mark(at, red)
		}
	}
	if s.Untracked > 0 {
		at := len(t.buf)
		t.line(0, fmt.Sprintf("NOT TRACKED: %d sockets more, at the limit: see --max-connections", s.Untracked))
		if t.cfg.Color {
			t.mark(at, red)
		}
	}
}

// mark puts what was appended from at on, but for its newline, into a colour.
func (t *sheet) mark(at int, color string) {
	text := string(t.buf[at : len(t.buf)-1])
	t.buf = append(append(append(append(t.buf[:at], color...), text...), reset...), '\n')
}

func (t *WatchText) table(s *watch.Snapshot, withState bool) {
	comm := fullComm
	if withState {
		comm = narrowComm
	}
	onlyTimeWait := s.States == events.Set(events.TimeWait)
	last := "FDS"
	if onlyTimeWait {
		last = "REMOTE"
	}
	head := len(t.buf)
	t.buf = append(padLeft(t.buf, "PID", pidWidth), ' ')
	t.buf = append(pad(t.buf, "COMM", comm), ' ')
	if withState {
		t.buf = append(pad(t.buf, "STATE", stateWidth), ' ')
	}
	t.buf = append(padLeft(t.buf, "COUNT", countWidth), ' ')
	t.buf = append(padLeft(t.buf, "OLDEST", durationWidth), ' ')
	t.buf = append(padLeft(t.buf, "MEDIAN", durationWidth), ' ')
	t.buf = append(padLeft(t.buf, "GROWTH", growthWidth), ' ')
	if onlyTimeWait {
		t.buf = append(t.buf, last...)
	} else {
		t.buf = padLeft(t.buf, last, fdsWidth)
	}
	t.buf = append(t.buf, '\n')
	if t.cfg.Color {
		t.mark(head, bold)
	}
	shown := s.Groups
	if t.cfg.Groups > 0 && len(shown) > t.cfg.Groups {
		shown = shown[:t.cfg.Groups]
	}
	for _, g := range shown {
		t.group(g, comm, withState, onlyTimeWait)
		t.added()
	}
	if rest := s.Groups[len(shown):]; len(rest) > 0 {
		n := 0
		for _, g := range rest {
			n += g.Count
		}
		t.line(detailsAt, fmt.Sprintf("and %d more rows, %d sockets", len(rest), n))
	}
}

func (t *WatchText) group(g *watch.Group, comm int, withState, onlyTimeWait bool) {
	pid, name := "-", "-"
	switch {
	case g.PID != 0:
		pid, name = strconv.FormatUint(uint64(g.PID), 10), Escape(g.Comm)
	case g.Reasons[watch.ReasonKernel] == g.Count:
		name = "(kernel)"
	}
	start := len(t.buf)
	t.buf = append(padLeft(t.buf, pid, pidWidth), ' ')
	t.buf = append(append(t.buf, Pad(name, comm, false)...), ' ')
	if withState {
		t.buf = append(pad(t.buf, g.State.String(), stateWidth), ' ')
	}
	t.buf = append(padLeft(t.buf, strconv.Itoa(g.Count), countWidth), ' ')
	t.buf = append(padLeft(t.buf, AtLeast(g.Oldest, g.AllAges), durationWidth), ' ')
	t.buf = append(padLeft(t.buf, AtLeast(g.Median, g.AllAges), durationWidth), ' ')
	growth := "-"
	if g.GrowthKnown {
		growth = Rate(g.GrowthPerMin) + "/min"
	}
	t.buf = append(padLeft(t.buf, growth, growthWidth), ' ')
	long := "" // a remote that has no room in its column
	switch {
	case !onlyTimeWait:
		t.buf = padLeft(t.buf, descriptors(g.Holder), fdsWidth)
		long = Escape(g.Remote)
	case width(string(t.buf[start:]))+len(g.Remote) > t.cfg.Width:
		t.buf = append(t.buf, '-')
		long = Escape(g.Remote)
	default:
		t.buf = append(t.buf, Escape(g.Remote)...)
	}
	t.buf = append(t.buf, '\n')
	t.wrap(detailsAt, Escape(g.Verdict))
	if long != "" {
		t.line(detailsAt, "remote: "+long)
	}
	if g.LimitIn >= 0 {
		t.line(detailsAt, "\"Too many open files\" in "+Duration(g.LimitIn)+" at this growth")
	}
	if h := g.Holder; h != nil {
		if unit := unitText(h.Unit); unit != "" {
			t.line(detailsAt, Cut(unit, t.cfg.Width-detailsAt))
		}
		if len(h.Cmdline) > 0 {
			t.line(detailsAt, Cut("command: "+Escape(strings.Join(h.Cmdline, " ")), t.cfg.Width-detailsAt))
		}
	}
	// Where the row is about one remote it stands there already.
	if g.State != events.TimeWait && g.State != events.Listen && len(g.TopRemotes) > 0 {
		t.remotes(g)
	}
}

// descriptors writes how many a process has of how many it may have.
func descriptors(h *watch.Holder) string {
	if h == nil || (h.OpenFDs < 0 && h.NofileSoft < 0) {
		return "-"
	}
	number := func(n int64) string {
		if n < 0 {
			return "-"
		}
		return strconv.FormatInt(n, 10)
	}
	text := number(h.OpenFDs) + "/" + number(h.NofileSoft)
	if len(text) > fdsWidth {
		text = Count(h.OpenFDs) + "/" + Count(h.NofileSoft)
	}
	return text
}

// unitText says what service or container a process belongs to.
func unitText(u watch.Unit) string {
	switch u.Kind {
	case "":
		return ""
	case "systemd":
		return "unit: " + Escape(u.Name)
	case "kubernetes":
		return "kubernetes pod: " + Escape(u.Name)
	}
	return Escape(u.Kind) + " container: " + Escape(u.Name)
}

// remotes writes the remotes with the most sockets, as many as fit into a line.
func (t *WatchText) remotes(g *watch.Group) {
	text := "remotes:"
	counted := 0
	for i, r := range g.TopRemotes {
		item := " " + Escape(r.Addr) + " " + strconv.Itoa(r.Count)
		if i < len(g.TopRemotes)-1 {
			item += ","
		}
		if i > 0 && detailsAt+width(text)+width(item) > t.cfg.Width-4 {
			break
		}
		text += item
		counted += r.Count
	}
	text = strings.TrimSuffix(text, ",")
	if counted < g.Count {
		text += " ..."
	}
	t.line(detailsAt, Cut(text, t.cfg.Width-detailsAt))
}

// portTable writes where the most local ports are in use.
func (t *sheet) portTable(ports []watch.PortUse) {
	if len(ports) == 0 {
		return
	}
	head := len(t.buf)
	t.line(0, "  PORTS OF RANGE  LOCAL PORTS IN USE FROM -> TO")
	if t.cfg.Color {
		t.mark(head, bold)
	}
	for _, u := range ports[:min(len(ports), portRows)] {
		t.buf = append(padLeft(t.buf, strconv.Itoa(u.Used), 7), ' ')
		size := "-"
		if u.Range >= 0 {
			size = strconv.Itoa(u.Range)
		}
		t.buf = append(padLeft(t.buf, size, 8), "  "...)
		t.buf = append(t.buf, Escape(u.Local+" -> "+u.Remote)...)
		if u.FullIn == 0 {
			t.buf = append(t.buf, "  FULL"...)
		}
		t.buf = append(t.buf, '\n')
		if u.FullIn > 0 {
			t.line(18, "\"Cannot assign requested address\" in "+Duration(u.FullIn)+" at this rate")
		}
	}
	if more := len(ports) - portRows; more > 0 {
		t.line(18, fmt.Sprintf("and %d more", more))
	}
}

// line appends a line behind n spaces.
func (t *sheet) line(n int, text string) {
	t.buf = append(append(fill(t.buf, n), text...), '\n')
}

// wrap appends text in lines that fit, broken at spaces, each behind n spaces.
func (t *sheet) wrap(n int, text string) {
	room := t.cfg.Width - n
	for width(text) > room {
		at := -1
		used := 0
		for i, r := range text {
			if r == ' ' {
				at = i
			}
			if used += cells.RuneWidth(r); used > room {
				break
			}
		}
		if at <= 0 {
			break // one long word
		}
		t.line(n, strings.TrimRight(text[:at], " "))
		text = strings.TrimLeft(text[at:], " ")
	}
	t.line(n, text)
}
