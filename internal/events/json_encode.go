package events

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Schema is the version of the JSON lines that this package writes and reads.
const Schema = 1

// Encoder writes the JSON lines of schema 1. Each method appends one line, its
// newline included, to dst and returns the result; none allocates once dst is
// large enough. Not safe for concurrent use.
//
// Text that a process chose and that is not valid UTF-8 gets U+FFFD for each
// invalid byte.
type Encoder struct {
	clock Clock
	// minute caches the wall time down to the minute: formatting a date for
	// every line would be most of the work.
	minuteUnix int64
	minute     []byte
	// What appendTimes made last: the end of a connection has two lines of one time.
	timesOf int64
	times   []byte
	// Connections have several lines, and processes several connections: what
	// is the same in each is written once and copied then. Compared in whole, so
	// that it is never another's.
	ends   [128]endsText // by the number of the connection
	owners [32]ownerText // by the pid
}

// endsText is what appendEndpoints makes of a connection.
type endsText struct {
	id, cookie    uint64
	local, remote netip.AddrPort
	netns         uint32
	family        uint8
	text          []byte
}

// ownerText is what appendOwner makes of a connection.
type ownerText struct {
	owner  Process
	cgroup string
	uid    int64
	src    OwnerSource
	mptcp  bool
	text   []byte
}

// NewEncoder returns an Encoder whose lines carry wall times by clock.
func NewEncoder(clock Clock) *Encoder {
	return &Encoder{clock: clock, minuteUnix: -1 << 62}
}

// AppendHeader appends a header line.
func (e *Encoder) AppendHeader(dst []byte, h *Header) []byte {
	dst = append(dst, `{"type":"header","schema":`...)
	dst = strconv.AppendInt(dst, int64(h.Schema), 10)
	dst = append(dst, `,"version":`...)
	dst = appendText(dst, h.Version)
	dst = append(dst, `,"kernel":`...)
	dst = appendText(dst, h.Kernel)
	dst = append(dst, `,"hooks":`...)
	dst = appendText(dst, h.Hooks)
	dst = e.appendTimes(dst, h.TS)
	dst = append(dst, `,"filters":{`...)
	names := make([]string, 0, len(h.Filters))
	for name := range h.Filters {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
		dst = append(dst, ':')
		dst = appendText(dst, h.Filters[name])
	}
	return append(dst, "}}\n"...)
}

// AppendTransition appends a transition line.
func (e *Encoder) AppendTransition(dst []byte, t *Transition) []byte {
	dst = append(dst, `{"type":"transition"`...)
	dst = e.appendTimes(dst, t.TS)
	dst = e.appendEndpoints(dst, &t.Conn)
	dst = append(dst, `,"old":"`...)
	dst = append(dst, t.Old.String()...)
	dst = append(dst, `","new":"`...)
	dst = append(dst, t.New.String()...)
	dst = append(dst, `","in_old_ns":`...)
	dst = appendNS(dst, t.InOld)
	dst = append(dst, `,"in_old_min_ns":`...)
	dst = appendNS(dst, t.InOldMin)
	dst = e.appendOwner(dst, &t.Conn)
	dst = append(dst, `,"exact":`...)
	dst = strconv.AppendBool(dst, t.Exact)
	dst = append(dst, `,"error":`...)
	dst = appendErrno(dst, t.Err)
	return append(dst, "}\n"...)
}

// AppendClosed appends a closed line.
func (e *Encoder) AppendClosed(dst []byte, c *Closed) []byte {
	dst = append(dst, `{"type":"closed"`...)
	dst = e.appendTimes(dst, c.TS)
	dst = e.appendEndpoints(dst, &c.Conn)
	dst = e.appendOwner(dst, &c.Conn)
	dst = append(dst, `,"opened":"`...)
	dst = append(dst, c.Opened.String()...)
	dst = append(dst, `","closer":"`...)
	dst = append(dst, c.Closer.String()...)
	dst = append(dst, `","how":`...)
	dst = appendWord(dst, c.How.String())
	dst = append(dst, `,"reset":`...)
	dst = appendWord(dst, c.Reset.String())
	dst = append(dst, `,"closed_by":`...)
	if c.ClosedBy.PID == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, `{"pid":`...)
		dst = strconv.AppendUint(dst, uint64(c.ClosedBy.PID), 10)
		dst = append(dst, `,"comm":`...)
		dst = appendText(dst, c.ClosedBy.Comm)
		dst = append(dst, '}')
	}
	dst = append(dst, `,"states":{`...)
	dst = appendStates(dst, c.States)
	dst = append(dst, `},"exact":`...)
	dst = strconv.AppendBool(dst, c.Exact)
	dst = append(dst, `,"time_wait_end":`...)
	dst = appendWord(dst, c.TimeWaitEnd.String())
	dst = append(dst, `,"time_wait_overflow":`...)
	dst = strconv.AppendBool(dst, c.TimeWaitOverflow)
	dst = append(dst, `,"total_ns":`...)
	dst = appendNS(dst, c.TotalNS)
	dst = append(dst, `,"error":`...)
	dst = appendErrno(dst, c.Err)
	return append(dst, "}\n"...)
}

// AppendLost appends a lost line.
func (e *Encoder) AppendLost(dst []byte, l *Lost) []byte {
	dst = append(dst, `{"type":"lost"`...)
	dst = e.appendTimes(dst, l.TS)
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendUint(dst, l.Count, 10)
	dst = append(dst, `,"total":`...)
	dst = strconv.AppendUint(dst, l.Total, 10)
	dst = append(dst, `,"since":`...)
	if l.Since < 0 {
		dst = append(dst, "null"...)
	} else {
		dst = e.appendTime(dst, l.Since)
	}
	dst = append(dst, `,"cause":"`...)
	dst = append(dst, l.Cause.String()...)
	return append(dst, "\"}\n"...)
}

// AppendResync appends a resync line. Its count is the number of connections
// about which the table was wrong, in whatever way.
func (e *Encoder) AppendResync(dst []byte, r *Resync) []byte {
	dst = append(dst, `{"type":"resync"`...)
	dst = e.appendTimes(dst, r.TS)
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendUint(dst, r.Corrected+r.Removed+r.Added, 10)
	dst = append(dst, `,"corrected":`...)
	dst = strconv.AppendUint(dst, r.Corrected, 10)
	dst = append(dst, `,"removed":`...)
	dst = strconv.AppendUint(dst, r.Removed, 10)
	dst = append(dst, `,"added":`...)
	dst = strconv.AppendUint(dst, r.Added, 10)
	return append(dst, "}\n"...)
}

// AppendLimit appends a limit line.
func (e *Encoder) AppendLimit(dst []byte, l *Limit) []byte {
	dst = append(dst, `{"type":"limit"`...)
	dst = e.appendTimes(dst, l.TS)
	dst = append(dst, `,"max":`...)
	dst = strconv.AppendUint(dst, l.Max, 10)
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendUint(dst, l.Count, 10)
	dst = append(dst, `,"total":`...)
	dst = strconv.AppendUint(dst, l.Total, 10)
	dst = append(dst, `,"untracked":`...)
	dst = strconv.AppendUint(dst, l.Untracked, 10)
	return append(dst, "}\n"...)
}

// appendTimes appends the time of a line in both of its forms.
func (e *Encoder) appendTimes(dst []byte, ts int64) []byte {
	if e.timesOf != ts || len(e.times) == 0 {
		e.timesOf = ts
		e.times = append(e.times[:0], `,"time":`...)
		e.times = e.appendTime(e.times, ts)
		e.times = append(e.times, `,"ts_ns":`...)
		e.times = strconv.AppendInt(e.times, ts, 10)
	}
	return append(dst, e.times...)
}

// appendTime appends the wall time of ts: RFC 3339, UTC, always nine decimals, so
// that lines sort as text.
func (e *Encoder) appendTime(dst []byte, ts int64) []byte {
	wall := ts + e.clock.OffsetNS
	const perMinute = int64(time.Minute)
	minute, rest := wall/perMinute, wall%perMinute
	if rest < 0 {
		minute, rest = minute-1, rest+perMinute
	}
	if minute != e.minuteUnix {
		e.minute = time.Unix(minute*60, 0).UTC().AppendFormat(e.minute[:0], "2006-01-02T15:04:")
		e.minuteUnix = minute
	}
	dst = append(dst, '"')
	dst = append(dst, e.minute...)
	sec, ns := rest/int64(time.Second), rest%int64(time.Second)
	dst = append(dst, byte('0'+sec/10), byte('0'+sec%10), '.')
	// Three digits at a time: each division waits for the one before it.
	for _, three := range [3]int64{ns / 1e6, ns / 1e3 % 1e3, ns % 1e3} {
		dst = append(dst, byte('0'+three/100), byte('0'+three/10%10), byte('0'+three%10))
	}
	return append(dst, `Z"`...)
}

// appendEndpoints appends what tells connections apart.
func (e *Encoder) appendEndpoints(dst []byte, c *Conn) []byte {
	kept := &e.ends[c.ID%uint64(len(e.ends))]
	if kept.text == nil || kept.id != c.ID || kept.cookie != c.Cookie || kept.local != c.Local ||
		kept.remote != c.Remote || kept.netns != c.NetNS || kept.family != c.Family {
		*kept = endsText{c.ID, c.Cookie, c.Local, c.Remote, c.NetNS, c.Family, writeEndpoints(kept.text[:0], c)}
	}
	return append(dst, kept.text...)
}

func writeEndpoints(dst []byte, c *Conn) []byte {
	dst = append(dst, `,"conn":"`...)
	dst = strconv.AppendUint(dst, c.ID, 10)
	dst = append(dst, `","cookie":`...)
	if c.Cookie == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, '"')
		dst = strconv.AppendUint(dst, c.Cookie, 16)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"netns":`...)
	dst = appendNumber(dst, uint64(c.NetNS))
	dst = append(dst, `,"family":`...)
	dst = appendNumber(dst, uint64(c.Family))
	dst = append(dst, `,"laddr":`...)
	dst = appendAddr(dst, c.Local.Addr())
	dst = append(dst, `,"lport":`...)
	dst = appendNumber(dst, uint64(c.Local.Port()))
	dst = append(dst, `,"raddr":`...)
	dst = appendAddr(dst, c.Remote.Addr())
	dst = append(dst, `,"rport":`...)
	return appendNumber(dst, uint64(c.Remote.Port()))
}

// appendOwner appends whose the connection is.
func (e *Encoder) appendOwner(dst []byte, c *Conn) []byte {
	kept := &e.owners[c.Owner.PID%uint32(len(e.owners))]
	if kept.text == nil || kept.owner != c.Owner || kept.uid != c.UID || kept.src != c.OwnerSrc ||
		kept.cgroup != c.Cgroup || kept.mptcp != c.MPTCP {
		*kept = ownerText{c.Owner, c.Cgroup, c.UID, c.OwnerSrc, c.MPTCP, writeOwner(kept.text[:0], c)}
	}
	return append(dst, kept.text...)
}

func writeOwner(dst []byte, c *Conn) []byte {
	dst = append(dst, `,"pid":`...)
	dst = appendNumber(dst, uint64(c.Owner.PID))
	dst = append(dst, `,"comm":`...)
	if c.Owner.PID == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = appendText(dst, c.Owner.Comm)
	}
	dst = append(dst, `,"uid":`...)
	dst = appendNS(dst, c.UID)
	dst = append(dst, `,"owner":`...)
	dst = appendWord(dst, c.OwnerSrc.String())
	dst = append(dst, `,"cgroup":`...)
	if c.Cgroup == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendText(dst, c.Cgroup)
	}
	dst = append(dst, `,"mptcp":`...)
	return strconv.AppendBool(dst, c.MPTCP)
}

// appendStates appends the members of the states object. A state that occurs
// twice is written once, with the sum, for an object's names are unique.
func appendStates(dst []byte, states []StateTime) []byte {
	var done StateSet
	for i, s := range states {
		if done.Has(s.State) {
			continue
		}
		done |= Set(s.State)
		ns := s.NS
		for _, again := range states[i+1:] {
			if again.State == s.State && again.NS > 0 {
				ns = max(ns, 0) + again.NS
			}
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, s.State.String()...)
		dst = append(dst, `":`...)
		dst = appendNS(dst, ns)
	}
	return dst
}

// appendNumber appends a number for which zero means unknown.
func appendNumber(dst []byte, v uint64) []byte {
	if v == 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendUint(dst, v, 10)
}

// appendNS appends a number for which a negative one means unknown.
func appendNS(dst []byte, v int64) []byte {
	if v < 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, v, 10)
}

// appendWord appends one of the schema's own words, or null for none.
func appendWord(dst []byte, w string) []byte {
	if w == "" {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = append(dst, w...)
	return append(dst, '"')
}

func appendErrno(dst []byte, errno uint16) []byte {
	if errno == 0 {
		return append(dst, "null"...)
	}
	return appendWord(dst, ErrnoName(errno))
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(dst, "null"...)
	}
	a = a.Unmap()
	dst = append(dst, '"')
	text := len(dst)
	dst = a.AppendTo(dst)
	if !plain(dst[text:]) { // a zone of a strange name, from a recording
		return appendText(dst[:text-1], string(dst[text:]))
	}
	return append(dst, '"')
}

// plain reports whether text is the same inside of a JSON string: printing ASCII
// but for the quote and the backslash.
func plain[T []byte | string](text T) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendText appends s as a JSON string. Runes that do not print are escaped
// though JSON would not ask for it: of U+009B, or U+202E, a terminal makes more
// than text.
func appendText(dst []byte, s string) []byte {
	if plain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	start := len(dst)
	// The error says only that U+FFFD was put in, which is what is wanted.
	dst, _ = jsontext.AppendQuote(dst, s)
	if !strings.ContainsFunc(string(dst[start:]), nonPrinting) {
		return dst
	}
	quoted := string(dst[start:])
	dst = dst[:start]
	for _, r := range quoted {
		switch {
		case !nonPrinting(r):
			dst = utf8.AppendRune(dst, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			dst = appendEscape(appendEscape(dst, high), low)
		default:
			dst = appendEscape(dst, r)
		}
	}
	return dst
}

func nonPrinting(r rune) bool { return !unicode.IsPrint(r) }

// appendEscape appends the escape of a UTF-16 unit.
func appendEscape(dst []byte, unit rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[unit>>12&15], hex[unit>>8&15], hex[unit>>4&15], hex[unit&15])
}
