package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/events"
)

// SummaryText writes the account as text: what sits where now and how long it
// stayed, who closes first, what to do about it; then what this rests on.
type SummaryText struct{ sheet }

// NewSummaryText returns a Summary of text. cfg.Groups is how many groups are
// written, 0: all.
func NewSummaryText(w io.Writer, cfg WatchTextConfig) *SummaryText {
	return &SummaryText{newSheet(w, cfg)}
}

// Header writes nothing: the account has its own first line.
func (*SummaryText) Header(*events.Header) {}

// Lost writes nothing: the account tells.
func (*SummaryText) Lost(*events.Lost) {}

// Resync writes nothing: the account tells.
func (*SummaryText) Resync(*events.Resync) {}

// Limit writes nothing: the account tells.
func (*SummaryText) Limit(*events.Limit) {}

// Summary writes the account.
func (t *SummaryText) Summary(s *account.Summary) error {
	t.begin(s)
	t.states(s)
	t.closers(s)
	if len(s.Advice) > 0 {
		t.buf = AppendAdvice(append(t.buf, '\n'), s.Advice, t.cfg.Width, t.cfg.Color)
	}
	t.timeWait(s)
	t.portTable(s.Ports)
	t.groups(s)
	return t.Flush()
}

// heading begins a section.
func (t *SummaryText) heading(text string) {
	t.buf = append(t.buf, '\n')
	at := len(t.buf)
	t.line(0, text)
	if t.cfg.Color {
		t.mark(at, bold)
	}
}

// columns appends a table's heading.
func (t *SummaryText) columns(text string) {
	at := len(t.buf)
	t.line(0, strings.TrimRight(text, " "))
	if t.cfg.Color {
		t.mark(at, bold)
	}
}

func (t *SummaryText) begin(s *account.Summary) {
	at := len(t.buf)
	t.wrap(0, fmt.Sprintf("%s from %s, hooks %s: %s connections opened, %s closed",
		Duration(s.Span()), t.cfg.Clock.Time(s.Begin).In(t.cfg.Location).Format("15:04:05"), s.Hooks,
		thousands(s.Total.Opened[events.OpenedActive]+s.Total.Opened[events.OpenedPassive]), thousands(s.Total.Ends.Closed)))
	if t.cfg.Color {
		t.mark(at, bold)
	}
	if s.Forgotten+s.Untracked > 0 {
		at = len(t.buf)
		t.wrap(0, fmt.Sprintf("AT THE LIMIT %s connections were forgotten, %s sockets not tracked: counts are lower bounds; a larger --max-connections may help",
			thousands(s.Forgotten), thousands(s.Untracked)))
		if t.cfg.Color {
			t.mark(at, red)
		}
	}
	if s.Lost.Count == 0 {
		return
	}
	at = len(t.buf)
	text := fmt.Sprintf("LOST %s events: every count of what happened, not of what is there now, is a lower bound, and who closed or owns may be missing; a larger --buffer may help",
		thousands(s.Lost.Count))
	if s.Resyncs.Times > 0 {
		text += fmt.Sprintf("; put right by looking again: %s corrected, %s removed, %s added",
			thousands(s.Resyncs.Corrected), thousands(s.Resyncs.Removed), thousands(s.Resyncs.Added))
	}
	t.wrap(0, text)
	if t.cfg.Color {
		t.mark(at, red)
	}
}

func thousands(n uint64) string { return Thousands(int64(n)) }

// number writes n in full where it fits into width cells.
func number(n uint64, width int) string {
	if text := strconv.FormatUint(n, 10); len(text) <= width {
		return text
	}
	return Count(int64(n))
}

// Widths of the columns of states; the histogram has the rest.
const (
	nowWidth      = 7
	leftWidth     = 7
	quantileWidth = 7
)

// histogramScale is the heading of a histogram whose cells are powers of ten; each
// mark stands over the cell that begins there.
const histogramScale = "us ms s  ks"

// cellsPerDecade is how many cells of account.Bounds make a power of ten.
const cellsPerDecade = 2

func (t *SummaryText) states(s *account.Summary) {
	t.buf = append(t.buf, '\n')
	row := func(state, now, oldest, left string, quantiles [4]string, rest string) []byte {
		b := pad(nil, state, stateWidth+1)
		b = append(padLeft(b, now, nowWidth-1), ' ')
		b = append(padLeft(b, oldest, durationWidth), ' ')
		b = padLeft(b, left, leftWidth-1)
		for _, q := range quantiles {
			b = padLeft(append(b, ' '), q, quantileWidth)
		}
		return append(append(b, ' '), rest...)
	}
	t.columns(string(row("STATE", "NOW", "OLDEST", "LEFT", [4]string{"P50", "P90", "P99", "MAX"}, histogramScale)))
	for _, state := range events.AllStates.List() {
		g := &s.Total.States[state]
		stay := &g.Stay
		oldest := "-"
		if g.Now > 0 {
			oldest = AtLeast(g.Oldest, g.OldestExact)
		}
		quantiles := [4]string{Duration(stay.P50), Duration(stay.P90), Duration(stay.P99), Duration(stay.Max)}
		now := "-"
		if s.Now[state] >= 0 {
			now = number(uint64(s.Now[state]), nowWidth-1)
		}
		b := row(state.String(), now, oldest, number(g.Left, leftWidth-1), quantiles, histogram(&stay.Histogram))
		at := len(t.buf)
		t.line(0, strings.TrimRight(string(b), " "))
		if color := stateColor(state); t.cfg.Color && color != "" && (s.Now[state] > 0 || g.Left > 0) {
			t.markPart(at, len(state.String()), color)
		}
	}
	t.stateNotes(s)
}

// markPart puts the n bytes from at on into a colour.
func (t *sheet) markPart(at, n int, color string) {
	text := string(t.buf[at:])
	t.buf = append(append(append(append(t.buf[:at], color...), text[:n]...), reset...), text[n:]...)
}

// histogram draws the counts, two cells in one, by their share of the greatest.
func histogram(counts *[account.Cells]uint64) string {
	const blocks = "▁▂▃▄▅▆▇█"
	const size = len("█")
	var cells [account.Cells / cellsPerDecade]uint64
	most := uint64(0)
	for i, n := range counts {
		cell := &cells[min(i/cellsPerDecade, len(cells)-1)]
		*cell += n
		most = max(most, *cell)
	}
	var b strings.Builder
	for _, n := range cells {
		if n == 0 {
			b.WriteByte(' ')
			continue
		}
		level := int(float64(n) / float64(most) * 7.999)
		b.WriteString(blocks[level*size : (level+1)*size])
	}
	return b.String()
}

// stateNotes says what the table does not have.
func (t *SummaryText) stateNotes(s *account.Summary) {
	list := func(of func(*account.State) string) string {
		var items []string
		for _, state := range events.AllStates.List() {
			if text := of(&s.Total.States[state]); text != "" {
				items = append(items, state.String()+" "+text)
			}
		}
		return strings.Join(items, ", ")
	}
	t.wrap(0, fmt.Sprintf("LEFT: stays that ended. Quantiles are exact to %d %% (never too low), MAX is exact; a bar for each power of ten.", account.ErrorPercent))
	if text := list(func(st *account.State) string {
		if st.Stay.AtLeast == 0 {
			return ""
		}
		return thousands(st.Stay.AtLeast) + " (up to " + AtLeast(st.Stay.AtLeastMax, false) + ")"
	}); text != "" {
		t.wrap(0, "Began before they were seen, so that only a lower bound is known, and in no quantile: "+text+".")
	}
	if text := list(func(st *account.State) string {
		if st.Stay.Approx == 0 {
			return ""
		}
		return thousands(st.Stay.Approx)
	}); text != "" {
		t.wrap(0, "Ended between two looks, so that the last second may be wrong: "+text+".")
	}
	if text := list(func(st *account.State) string {
		if st.Stay.Unknown == 0 {
			return ""
		}
		return thousands(st.Stay.Unknown)
	}); text != "" {
		t.wrap(0, "Of unknown length: "+text+".")
	}
	if !s.FromWalk {
		t.wrap(0, "NOW is counted from events: there was no look at the sockets at the end.")
	}
}

const nameWidth = pidWidth + 1 + fullComm

// closerColumns are behind the name; each is as wide as its heading, or wider.
var closerColumns = []struct {
	name  string
	width int
	of    func(*account.Ends) uint64
}{
	{"CLOSED", 7, func(e *account.Ends) uint64 { return e.Closed }},
	{"LOCAL", 7, func(e *account.Ends) uint64 { return e.First[events.SideLocal] }},
	{"REMOTE", 7, func(e *account.Ends) uint64 { return e.First[events.SideRemote] }},
	{"BOTH", 6, func(e *account.Ends) uint64 { return e.First[events.SideBoth] }},
	{"NONE", 6, func(e *account.Ends) uint64 { return e.First[events.SideNone] + e.First[events.SideUnknown] }},
	{"RST-OUT", 8, func(e *account.Ends) uint64 {
		return e.Reset[events.ResetLinger0] + e.Reset[events.ResetUnread] + e.Reset[events.ResetOther]
	}},
	{"RST-IN", 7, resetByPeer},
	{"TIMEOUT", 8, func(e *account.Ends) uint64 { return e.How[events.HowTimeout] }},
}

// resetByPeer is the connections that an RST from the peer ended; it refuses others
// with one.
func resetByPeer(e *account.Ends) uint64 {
	n := uint64(0)
	for _, bySide := range e.Matrix {
		n += bySide[events.HowRST][events.ResetPeer]
	}
	return n
}

var byTitles = map[account.By]string{
	account.ByProcess: "process", account.ByRemote: "remote endpoint", account.ByLocalPort: "local port",
	account.ByCgroup: "cgroup", account.ByNetNS: "network namespace",
}

func (t *SummaryText) closers(s *account.Summary) {
	t.heading("WHO CLOSED FIRST, by " + byTitles[s.By])
	if s.Total.Ends.Closed == 0 {
		t.line(0, "no connection was closed")
		return
	}
	b := pad(nil, nameHeading(s.By), nameWidth)
	for _, c := range closerColumns {
		b = padLeft(b, c.name, c.width)
	}
	t.columns(string(b))
	t.closerRow("all", s.Total)
	shown := 0
	for i, g := range s.Groups {
		if g.Ends.Closed == 0 || (t.cfg.Groups > 0 && i >= t.cfg.Groups) {
			break
		}
		shown++
		t.closerRow(groupName(s.By, &g.Key), g)
	}
	t.rest(s, shown)
	t.wrap(0, endsText(&s.Total.Ends))
	if text := closedByText(s); text != "" {
		t.wrap(0, text)
	}
}

// rest says what groups are not shown.
func (t *SummaryText) rest(s *account.Summary, shown int) {
	more, closed := uint64(0), uint64(0)
	for _, g := range s.Groups[shown:] {
		if g.Ends.Closed > 0 {
			more++
			closed += g.Ends.Closed
		}
	}
	if s.Others != nil {
		more += s.Folded
		closed += s.Others.Ends.Closed
	}
	if more > 0 {
		t.line(detailsAt, fmt.Sprintf("and %s more, which closed %s", thousands(more), thousands(closed)))
	}
	if s.Others != nil {
		t.wrap(detailsAt, fmt.Sprintf("%s groups were too many to be kept apart: the rows may lack a part of theirs, which \"all\" has", thousands(s.Folded)))
	}
}

func nameHeading(by account.By) string {
	switch by {
	case account.ByProcess:
		return string(append(padLeft(nil, "PID", pidWidth), " COMM"...))
	case account.ByRemote:
		return "REMOTE"
	case account.ByLocalPort:
		return "LOCAL PORT"
	case account.ByCgroup:
		return "CGROUP"
	}
	return "NETNS"
}

func processName(pid uint32, comm string) string {
	if pid == 0 {
		return string(append(padLeft(nil, "-", pidWidth), " -"...))
	}
	return string(append(append(padLeft(nil, strconv.FormatUint(uint64(pid), 10), pidWidth), ' '), Escape(comm)...))
}

func groupName(by account.By, k *account.Key) string {
	text := ""
	switch by {
	case account.ByProcess:
		return processName(k.Process.PID, k.Process.Comm)
	case account.ByRemote:
		text = remoteText(k.Remote)
	case account.ByLocalPort:
		if k.Port != 0 {
			text = strconv.Itoa(int(k.Port))
		}
	case account.ByCgroup:
		text = Escape(k.Cgroup)
		if text == "" && k.CgroupID != 0 {
			text = "id " + strconv.FormatUint(k.CgroupID, 10)
		}
	case account.ByNetNS:
		if k.NetNS != 0 {
			text = strconv.FormatUint(uint64(k.NetNS), 10)
		}
	}
	if text == "" {
		return "-"
	}
	return text
}

// named appends a row's name; one that is too long gets a line of its own.
func (t *SummaryText) named(name string) {
	if width(name) > nameWidth {
		t.line(0, Cut(name, t.cfg.Width))
		name = ""
	}
	t.buf = append(t.buf, Pad(name, nameWidth, false)...)
}

func (t *SummaryText) closerRow(name string, g *account.Group) {
	t.named(name)
	for _, c := range closerColumns {
		t.buf = padLeft(t.buf, number(c.of(&g.Ends), c.width-1), c.width)
	}
	t.buf = append(t.buf, '\n')
}

// endsText says what the columns do not.
func endsText(e *account.Ends) string {
	sent := func(kind events.ResetKind) string { return kind.String() + " " + thousands(e.Reset[kind]) }
	text := "RST-OUT by this side: " + sent(events.ResetLinger0) + ", " + sent(events.ResetUnread) + " (data unread at close), " +
		sent(events.ResetOther) + "."
	for _, how := range []events.How{events.HowRefused, events.HowAbort, events.HowUnknown} {
		if n := e.How[how]; n > 0 {
			text += " " + map[events.How]string{
				events.HowRefused: "Refused: ", events.HowAbort: "Aborted: ", events.HowUnknown: "Ended unseen: ",
			}[how] + thousands(n) + "."
		}
	}
	if n := e.First[events.SideUnknown]; n > 0 {
		text += " Of NONE, who closed first is unknown of " + thousands(n) + "."
	}
	return text
}

// closedByText says who called close, where that is not the rows themselves.
func closedByText(s *account.Summary) string {
	if len(s.ClosedBy) == 0 {
		return ""
	}
	const shown = 3
	var items []string
	for _, c := range s.ClosedBy[:min(shown, len(s.ClosedBy))] {
		items = append(items, fmt.Sprintf("%s (%d) %s", Escape(c.Process.Comm), c.Process.PID, thousands(c.Closed)))
	}
	more := s.ClosedByOthers
	for _, c := range s.ClosedBy[min(shown, len(s.ClosedBy)):] {
		more += c.Closed
	}
	if more > 0 {
		items = append(items, "others "+thousands(more))
	}
	return "close() was called by: " + strings.Join(items, ", ") + "."
}

// timeWaitRows is how many rows of who enters TIME_WAIT are written.
const timeWaitRows = 5

func (t *SummaryText) timeWait(s *account.Summary) {
	w := &s.TimeWait
	t.heading("TIME_WAIT")
	if w.Entered == 0 && s.Now[events.TimeWait] <= 0 && s.Total.States[events.TimeWait].Left == 0 && w.Overflow == 0 {
		t.line(0, "none")
		return
	}
	text := thousands(w.Entered) + " entered"
	if w.PerSecond >= 0 {
		text += fmt.Sprintf(", %s/s: at this rate there are %s in the long run (60 s each)", rateText(w.PerSecond), Thousands(w.Steady))
	}
	t.wrap(0, text+".")
	text = "Ended:"
	for i, end := range timeWaitEnds {
		if i > 0 {
			text += ","
		}
		text += " " + end.String() + " " + thousands(w.Ended[end])
	}
	text += ". No room for one (overflow): " + thousands(w.Overflow) + "."
	if w.Mean >= 0 {
		text += " Lasted " + Duration(w.Mean) + " in the mean."
	}
	t.wrap(0, text)
	if len(w.By) == 0 {
		return
	}
	b := append(pad(nil, nameHeading(account.ByProcess), nameWidth), padLeft([]byte(nil), "ENTERED", 9)...)
	t.columns(string(append(padLeft(b, "PER S", 9), "  REMOTE"...)))
	for i := range w.By[:min(len(w.By), timeWaitRows)] {
		by := &w.By[i]
		t.named(processName(by.Process.PID, by.Process.Comm))
		t.buf = padLeft(t.buf, number(by.Entered, 8), 9)
		rate := "-"
		if by.PerSecond >= 0 {
			rate = rateText(by.PerSecond)
		}
		t.buf = append(padLeft(t.buf, rate, 9), "  "...)
		remote := remoteText(by.Remote)
		if remote == "" {
			remote = "-"
		}
		t.buf = append(append(t.buf, Escape(remote)...), '\n')
	}
	more := w.Others
	for _, by := range w.By[min(len(w.By), timeWaitRows):] {
		more += by.Entered
	}
	if more > 0 {
		t.line(detailsAt, "and others "+thousands(more))
	}
}

// rateText writes a number per second: 0.034, 7.5, 1.2k.
func rateText(perSecond float64) string {
	if perSecond < 1 {
		return strconv.FormatFloat(perSecond, 'g', 2, 64)
	}
	return strings.TrimPrefix(Rate(perSecond), "+")
}

// groups writes where the connections of each group spend their time.
func (t *SummaryText) groups(s *account.Summary) {
	t.heading("TIME IN EACH STATE (p50 / p99 / max), by " + byTitles[s.By])
	shown := 0
	for _, g := range s.Groups {
		if t.cfg.Groups > 0 && shown >= t.cfg.Groups {
			break
		}
		text := stays(g)
		if text == "" {
			continue
		}
		shown++
		t.line(0, Cut(groupName(s.By, &g.Key), t.cfg.Width))
		t.wrap(detailsAt, text)
	}
	if shown == 0 {
		t.line(0, "nothing was seen")
	}
}

func stays(g *account.Group) string {
	var items []string
	for _, state := range events.AllStates.List() {
		st := &g.States[state]
		if st.Stay.Count == 0 && st.Now == 0 {
			continue
		}
		text := state.String()
		if st.Stay.Count > 0 {
			text += " " + Duration(st.Stay.P50) + " / " + Duration(st.Stay.P99) + " / " + Duration(st.Stay.Max)
		}
		if st.Now > 0 {
			text += " (now " + thousands(st.Now) + ", oldest " + AtLeast(st.Oldest, st.OldestExact) + ")"
		}
		items = append(items, text)
	}
	return strings.Join(items, "; ")
}
