package screen

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// filter keeps what matches every word of a text, in any case. A word may be
// part of a process' PID, name, command line or unit, of an address and port, of
// a state or of a reason.
type filter struct {
	text  string
	words [][]byte
	buf   []byte // reused: a snapshot may hold 100,000 sockets
}

func (f *filter) set(text string) {
	f.text = text
	f.words = nil
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		f.words = append(f.words, []byte(word))
	}
}

// shown is the text as the screen shows it. It was typed, with nothing in it but
// what prints: a backslash is one.
func (f *filter) shown() string {
	return strings.ReplaceAll(render.Escape(f.text), `\\`, `\`)
}

// missing returns the words that the text in f.buf does not have, in dst.
func (f *filter) missing(dst, words [][]byte) [][]byte {
	for _, w := range words {
		if !bytes.Contains(f.buf, w) {
			dst = append(dst, w)
		}
	}
	return dst
}

// lower appends s in lower case.
func (f *filter) lower(s string) {
	start := len(f.buf)
	f.buf = append(f.buf, s...)
	for i := start; i < len(f.buf); i++ {
		if c := f.buf[i]; c >= 0x80 {
			f.buf = append(f.buf[:start], strings.ToLower(s)...)
			break
		} else if c >= 'A' && c <= 'Z' {
			f.buf[i] = c + 'a' - 'A'
		}
	}
	// What is no part of any word keeps two texts from matching as one.
	f.buf = append(f.buf, 0)
}

// identity fills f.buf with what names the group's process.
func (f *filter) identity(g *watch.Group) {
	f.buf = f.buf[:0]
	if g.PID != 0 {
		f.buf = strconv.AppendUint(f.buf, uint64(g.PID), 10)
		f.buf = append(f.buf, 0)
	}
	f.lower(comm(g))
	f.lower(g.Comm)
	f.lower(g.State.String())
	f.lower(g.Remote)
	if h := g.Holder; h != nil {
		for _, arg := range h.Cmdline {
			f.lower(arg)
		}
		f.lower(h.Unit.Kind)
		f.lower(h.Unit.Name)
	}
}

// socket fills f.buf with what names the socket.
func (f *filter) socket(s *watch.Socket) {
	f.buf = s.Local.AppendTo(f.buf[:0])
	f.buf = append(f.buf, 0)
	f.buf = s.Remote.AppendTo(f.buf)
	f.buf = append(f.buf, 0)
	f.lower(s.Reason.String())
}

// rest returns the words that the group's process does not match itself: its
// sockets must.
func (f *filter) rest(g *watch.Group) [][]byte {
	f.identity(g)
	return f.missing(nil, f.words)
}

// group reports whether the process and one of its sockets match.
func (f *filter) group(g *watch.Group) bool {
	if len(f.words) == 0 {
		return true
	}
	rest := f.rest(g)
	if len(rest) == 0 {
		return true
	}
	if len(g.Sockets) == 0 {
		f.buf = f.buf[:0]
		f.lower(reasons(g))
		for _, r := range g.TopRemotes {
			f.lower(r.Addr)
		}
		return len(f.missing(nil, rest)) == 0
	}
	for _, s := range g.Sockets {
		if f.matches(s, rest) {
			return true
		}
	}
	return false
}

// matches reports whether the socket has all the words.
func (f *filter) matches(s *watch.Socket, words [][]byte) bool {
	f.socket(s)
	for _, w := range words {
		if !bytes.Contains(f.buf, w) {
			return false
		}
	}
	return true
}

// sockets returns the group's sockets that match.
func (f *filter) sockets(g *watch.Group) []*watch.Socket {
	kept := make([]*watch.Socket, 0, len(g.Sockets))
	rest := f.rest(g)
	for _, s := range g.Sockets {
		if len(rest) == 0 || f.matches(s, rest) {
			kept = append(kept, s)
		}
	}
	return kept
}

// ports reports whether the port use matches.
func (f *filter) ports(p *watch.PortUse) bool {
	f.buf = f.buf[:0]
	f.lower(p.Local)
	f.lower(p.Remote)
	return len(f.missing(nil, f.words)) == 0
}
