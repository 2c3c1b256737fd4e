package watch

import "github.com/tcptrace/tcptrace/internal/events"

// hold is one descriptor on a socket. next leads to the socket's next one, and tail,
// of the first, to the last, as an index + 1, 0: none.
type hold struct {
	cookie     uint64
	ts         int64
	comm       string
	pid, fd    uint32
	next, tail int32
}

// holderWalk is what one walk over all descriptors found. It is kept whole: a
// socket that enters a watched state after the walk has its holders at once.
type holderWalk struct {
	begin    int64
	complete bool
	refs     []hold
	// The first hold of a socket, as an index + 1: by the address of the socket,
	// and by that of the struct socket for MPTCP, whose descriptors lead to a
	// socket that is none of TCP's.
	bySock, bySocket map[uint64]int32
}

func newHolderWalk() *holderWalk {
	return &holderWalk{bySock: make(map[uint64]int32), bySocket: make(map[uint64]int32)}
}

func (w *holderWalk) reset(begin int64) {
	w.begin, w.complete = begin, false
	w.refs = w.refs[:0]
	clear(w.bySock)
	clear(w.bySocket)
}

func (s *Store) holder(r *events.Record) {
	if !s.walking || r.PID == 0 {
		return
	}
	s.holding.add(r)
	if normal(r.New) != events.Close || !s.cfg.States.Has(events.Close) || r.Flags&events.FlagMPTCP != 0 {
		return
	}
	// A socket in CLOSE, which only its descriptor tells of.
	if e := s.find(r); e != nil {
		if e.state == events.Close {
			e.seen = max(e.seen, r.TS)
		}
		return
	}
	if !s.roomFor(false) {
		return
	}
	e := s.insert(r.SK, r)
	e.state, e.since, e.uid = events.Close, r.TS, int64(r.UID)
	e.flags = events.FlagHasSocket
}

func (w *holderWalk) add(r *events.Record) {
	w.refs = append(w.refs, hold{cookie: r.Cookie, ts: r.TS, comm: r.Comm, pid: r.PID, fd: r.FD})
	n := int32(len(w.refs))
	first := w.bySock[r.SK]
	if first == 0 {
		first = n
		w.bySock[r.SK] = n
	} else {
		w.refs[w.refs[first-1].tail-1].next = n
	}
	w.refs[first-1].tail = n
	if r.Flags&events.FlagMPTCP != 0 && r.PeerSK != 0 {
		if _, ok := w.bySocket[r.PeerSK]; !ok {
			w.bySocket[r.PeerSK] = first
		}
	}
}

// first returns where the holds of a socket begin, 0: it has none.
func (w *holderWalk) first(sk, socket, cookie uint64) int32 {
	at := w.bySock[sk]
	if at == 0 && socket != 0 {
		return w.bySocket[socket]
	}
	if at != 0 && cookie != 0 {
		// The address may have been reused since.
		if h := &w.refs[at-1]; h.cookie != 0 && h.cookie != cookie {
			return 0
		}
	}
	return at
}

func (w *holderWalk) has(e *entry) bool { return w.first(e.sk, e.socket, e.cookie) != 0 }
