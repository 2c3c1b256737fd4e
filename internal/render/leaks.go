package render

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// LeakRows is how many sockets the list of leaks names.
const LeakRows = 20

// fdsShown is how many descriptors of a process on one socket are written.
const fdsShown = 3

// Leaks writes the list of sockets that stayed too long, of which there are total,
// as text: who holds each, which one it is, for how long, and for CLOSE_WAIT why.
// rule is what they broke, as the user gave it.
func Leaks(w io.Writer, leaks []*watch.Leak, total int, rule string) error {
	states := events.StateSet(0)
	for _, l := range leaks {
		states |= events.Set(l.State)
	}
	several := len(states.List()) > 1
	where := ""
	if !several {
		where = " in " + states.String()
	}
	text := fmt.Appendf(nil, "tcptrace: %s stayed too long%s (%s):\n", socketCount(total), where, Escape(rule))

	rows := [][]string{{"PID", "COMM", "FD", "LOCAL", "REMOTE", "STATE", "AGE", "REASON"}}
	shown := leaks[:min(len(leaks), LeakRows)]
	for _, l := range shown {
		rows = append(rows, leakRows(l)...)
	}
	text = appendTable(text, rows, func(column int) bool {
		return (several || column != leakState) && (column != leakReason || states.Has(events.CloseWait))
	})
	if rest := total - len(shown); rest > 0 {
		text = fmt.Appendf(text, "and %d more\n", rest)
	}
	_, err := w.Write(text)
	return err
}

// Columns of the list of leaks that may be left out.
const (
	leakState  = 5
	leakReason = 7
)

// leakRows returns the row of a leak, and one more for each further process that
// holds it.
func leakRows(l *watch.Leak) [][]string {
	first := []string{
		"-", "-", "-", endpoint(l.Local.String()), endpoint(l.Remote.String()), l.State.String(),
		AtLeast(l.Age, l.AgeExact), l.Reason.String(),
	}
	holders := l.Holders
	if holders == nil {
		holders = accepters(&l.Socket)
	}
	if holders == nil && l.Owner.PID != 0 {
		holders = []*watch.Holder{{PID: l.Owner.PID, Comm: l.Owner.Comm}}
	}
	rows := [][]string{first}
	for i, h := range holders {
		if i > 0 {
			rows = append(rows, make([]string, len(first)))
		}
		rows[i][0], rows[i][1], rows[i][2] = strconv.FormatUint(uint64(h.PID), 10), Escape(h.Comm), descriptorList(h.FDs)
	}
	return rows
}

// accepters returns who should accept a socket or, where that is not known, who
// could. Their descriptors are the listener's, not the socket's.
func accepters(s *watch.Socket) []*watch.Holder {
	list := s.Listeners
	if s.Listener != nil {
		list = []*watch.Holder{s.Listener}
	}
	var names []*watch.Holder
	for _, h := range list {
		names = append(names, &watch.Holder{PID: h.PID, Comm: h.Comm})
	}
	return names
}

func endpoint(text string) string {
	if strings.HasPrefix(text, "invalid") {
		return "-"
	}
	return text
}

func descriptorList(fds []uint32) string {
	if len(fds) == 0 {
		return "-"
	}
	var words []string
	for _, fd := range fds[:min(len(fds), fdsShown)] {
		words = append(words, strconv.FormatUint(uint64(fd), 10))
	}
	text := strings.Join(words, ",")
	if len(fds) > fdsShown {
		text += "+"
	}
	return text
}

// appendTable appends the wanted columns of rows, as wide as they need. The first
// column and that of the age, which are numbers, stand to the right.
func appendTable(dst []byte, rows [][]string, wanted func(column int) bool) []byte {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		start := len(dst)
		for i, cell := range row {
			if !wanted(i) {
				continue
			}
			if len(dst) > start {
				dst = append(dst, "  "...)
			}
			dst = append(dst, Pad(cell, widths[i], rows[0][i] == "PID" || rows[0][i] == "AGE")...)
		}
		dst = append(bytes.TrimRight(dst, " "), '\n')
	}
	return dst
}

func socketCount(n int) string {
	if n == 1 {
		return "1 socket"
	}
	return strconv.Itoa(n) + " sockets"
}

// Leak writes the line of one leak.
func (j *WatchJSON) Leak(l *watch.Leak) {
	j.socketLine("leak", l.TS, &l.Socket)
	j.int("limit_ns", l.Limit)
	j.bool("left", l.Left)
	j.str("}\n")
	j.added()
}
