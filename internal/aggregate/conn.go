package aggregate

import (
	"math"

	"github.com/tcptrace/tcptrace/internal/events"
)

// maxPast is how many states a connection can have left behind while it lives. The
// longest life opens and closes simultaneously (RFC 9293 figures 7 and 13):
// SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, CLOSING, and lives in TIME_WAIT.
const maxPast = 5

// flag is a bit of conn.flags.
type flag uint16

const (
	// startKnown: entered is when state was entered; else a time at or after it.
	startKnown flag = 1 << iota
	// isInexact: some duration, or the course itself, is not certain.
	isInexact
	// isIdentified: addresses and ports are complete.
	isIdentified
	// isHeld: the first transition is not written yet; aux is the position in
	// Table.held.
	isHeld
	// isTimeWait: sk is a timewait socket; aux is when its timer ends (expires).
	isTimeWait
	// isPending: the full socket has closed, see pending; aux is the position in
	// Table.pending.
	isPending
	// noTimeWait: a timewait socket was asked for and none has come yet.
	noTimeWait
	// noFinWait2 qualifies noTimeWait: it would have begun in FIN_WAIT2.
	noFinWait2
	// isBorn: first seen by a walk that is under way, in a state that may be
	// younger than records that are still to come.
	isBorn
	// needsOld: the state before the timewait socket is told by the record to
	// come.
	needsOld
	// isMPTCP: a subflow of an MPTCP connection.
	isMPTCP
	// isUnmet qualifies isHeld: a walk that began a moment later did not meet it.
	isUnmet
)

// conn is one connection or listener. It has no pointers, so that the garbage
// collector passes a table of millions by.
type conn struct {
	id      uint64 // 0: not in use
	sk      uint64 // kernel address; 0: not in the index
	cookie  uint64
	first   int64 // the connection is known from here on
	entered int64 // state was entered then, see startKnown
	spent   [maxPast]int64
	laddr   [16]byte // of family 4, the first 4 bytes
	raddr   [16]byte

	origin   uint32
	owner    uint32 // of Table.procs
	closedBy uint32 // of Table.procs
	aux      uint32

	lport, rport uint16
	zone         uint16 // of Table.zones
	flags        flag

	past     [maxPast]events.State
	npast    uint8
	state    events.State
	closer   events.Side // SideNone: no FIN so far
	opened   events.Opened
	ownerSrc events.OwnerSource
	family   uint8
	scan     uint8 // namespace.gen of the last walk that saw it
	holders  uint8 // holders.gen of the last walk that found the owner holding it
}

func (c *conn) has(f flag) bool { return c.flags&f != 0 }
func (c *conn) set(f flag)      { c.flags |= f }
func (c *conn) clear(f flag)    { c.flags &^= f }

// leave notes that state s was left after ns, or after at least ns or an unknown
// time where the connection is inexact.
func (c *conn) leave(s events.State, ns int64) {
	for i := range c.past[:c.npast] {
		if c.past[i] == s {
			// No life passes a state twice; what was lost in between was
			// another connection's or the end of this one.
			c.set(isInexact)
			return
		}
	}
	if int(c.npast) == len(c.past) {
		c.set(isInexact)
		return
	}
	c.past[c.npast], c.spent[c.npast] = s, ns
	c.npast++
}

// The timer's end is kept in ms after entered; 0 is unknown. The kernel's own
// measure is the jiffy, 1 ms at the least.
const msNS = 1_000_000

func (c *conn) expires() int64 {
	if c.aux == 0 {
		return events.Unknown
	}
	return c.entered + int64(c.aux)*msNS
}

func (c *conn) setExpires(ts int64) {
	c.aux = uint32(min(max((ts-c.entered)/msNS, 1), math.MaxUint32))
}

// slab holds the connections in chunks that never move. Connection 0 is none.
type slab struct {
	chunks [][]conn
	free   uint32 // head of the list of free ones, linked by aux
	used   uint32 // ever used
}

const (
	chunkBits = 10
	chunkSize = 1 << chunkBits
)

func (s *slab) at(i uint32) *conn { return &s.chunks[i>>chunkBits][i%chunkSize] }

// take returns a zeroed connection.
func (s *slab) take() (uint32, *conn) {
	if i := s.free; i != 0 {
		c := s.at(i)
		s.free, c.aux = c.aux, 0
		return i, c
	}
	s.used++
	if int(s.used>>chunkBits) == len(s.chunks) {
		s.chunks = append(s.chunks, make([]conn, chunkSize))
	}
	return s.used, s.at(s.used)
}

func (s *slab) give(i uint32) {
	c := s.at(i)
	*c = conn{aux: s.free}
	s.free = i
}

// each visits the connections in use until f returns false.
func (s *slab) each(f func(i uint32, c *conn) bool) {
	for n := range s.chunks {
		chunk := s.chunks[n]
		for k := range chunk {
			if chunk[k].id != 0 && !f(uint32(n)<<chunkBits|uint32(k), &chunk[k]) {
				return
			}
		}
	}
}
