package watch

import (
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

// timeWaitNS is TCP_TIMEWAIT_LEN of include/net/tcp.h, which no sysctl changes.
const timeWaitNS = int64(60e9)

// graceNS covers the microseconds between a hook's time stamp and the moment at
// which a walk over the tables sees its effect: the tracepoint runs before the
// state is stored, and a timewait socket is allocated before it is hashed.
const graceNS = int64(1e6)

// Store keeps the sockets in the watched states. Not safe for concurrent use.
type Store struct {
	cfg    Config
	nextID uint64
	lost   uint64

	socks     map[uint64]*entry // by address of the socket
	left      map[uint64]int64  // when sockets left, until no walk can be in doubt
	listeners map[listenKey][]*listener
	spaces    map[uint32]*space
	// roundBegin is when the walk over all namespaces began that ended last;
	// thisRound is that of the one under way, 0 between two.
	roundBegin, thisRound int64

	holding, held *holderWalk // the walk under way, the last complete one
	walking       bool
	closers       closers

	room room

	growth map[groupKey]*history
	judge  *Judge // told of each socket before it leaves its state; may be nil
}

// entry is one socket.
type entry struct {
	id, sk, cookie uint64
	socket         uint64 // address of the struct socket
	cgroup         uint64
	since          int64
	first, seen    int64 // first and last time at which it is known to have been there
	expires        int64 // end of a timewait socket's timer, or events.Unknown
	uid            int64
	local, remote  netip.AddrPort
	actor          events.Process // who caused what brought it here
	actorSrc       events.OwnerSource
	netns          uint32
	rx, tx         uint32
	flags          events.Flags
	state          State
	family         uint8
	exact          bool // since is when the state was entered, not a bound
	timewait       bool
}

type listenKey struct {
	netns uint32
	port  uint16
}

// listener is a socket in LISTEN.
type listener struct {
	sk     uint64
	addr   netip.Addr
	netns  uint32
	family uint8
	flags  events.Flags
	seen   int64
}

// space is what scans told of one network namespace.
type space struct {
	scanned  int64 // begin of the last complete scan
	scanning int64 // begin of the one under way, 0 none
	counts   [events.NumStates]int
	counting [events.NumStates]int
	ports    []portUser
	porting  []portUser
	// untracked is how many sockets that the last scan met are not kept, refused
	// that of the one under way.
	untracked, refused uint64
}

// portUser is a socket that takes a local port towards a remote endpoint.
type portUser struct {
	remote   netip.AddrPort
	local    netip.AddrPort
	left     int64 // of TIME_WAIT, ns
	timewait bool
}

// NewStore returns an empty Store.
func NewStore(cfg Config) *Store {
	return &Store{
		cfg:       cfg,
		socks:     make(map[uint64]*entry),
		left:      make(map[uint64]int64),
		listeners: make(map[listenKey][]*listener),
		spaces:    make(map[uint32]*space),
		holding:   newHolderWalk(),
		held:      newHolderWalk(),
		growth:    make(map[groupKey]*history),
	}
}

// normal maps the states that users do not know to those that they do.
func normal(s State) State {
	if s == events.NewSynRecv {
		return events.SynRecv
	}
	if s >= events.NumStates {
		return events.StateUnknown
	}
	return s
}

// Add takes one record into account. Records come in the order of their times.
func (s *Store) Add(r *events.Record) {
	switch r.Kind {
	case events.KindTransition:
		s.transition(r)
	case events.KindTimeWaitAlloc:
		s.timeWaitAlloc(r)
	case events.KindTimeWaitSchedule:
		s.timeWaitSchedule(r)
	case events.KindTimeWaitDestroy:
		s.leave(r.SK, r.TS)
	case events.KindSocket:
		s.socket(r)
	case events.KindScanBegin:
		s.scanBegin(r)
	case events.KindScanEnd:
		s.scanEnd(r)
	case events.KindHoldersBegin:
		s.holding.reset(r.TS)
		s.walking = true
	case events.KindHolder:
		s.holder(r)
	case events.KindHoldersEnd:
		s.holdersEnd()
	case events.KindLost:
		if r.Count > 0 {
			s.lost += uint64(r.Count)
		}
	}
}

// find returns the entry of the record's socket. An address that was reused leads
// to none.
func (s *Store) find(r *events.Record) *entry {
	e := s.socks[r.SK]
	if e == nil {
		return nil
	}
	if r.Cookie != 0 && e.cookie != 0 {
		if r.Cookie == e.cookie {
			return e
		}
		delete(s.socks, r.SK)
		return nil
	}
	// Without cookies (before 5.12) the addresses must tell.
	if r.Family != 0 && e.family != 0 && r.Remote.Port() != 0 && e.remote.Port() != 0 &&
		(r.Remote != e.remote || r.Local.Port() != e.local.Port()) {
		delete(s.socks, r.SK)
		return nil
	}
	return e
}

func (s *Store) insert(sk uint64, r *events.Record) *entry {
	s.nextID++
	e := &entry{id: s.nextID, sk: sk, first: r.TS, uid: events.Unknown, expires: events.Unknown}
	e.update(r)
	s.socks[sk] = e
	delete(s.left, sk)
	return e
}

// update takes what the record knows.
func (e *entry) update(r *events.Record) {
	if r.Cookie != 0 {
		e.cookie = r.Cookie
	}
	if r.Family != 0 {
		e.family = r.Family
		if r.Local.Addr().IsValid() || r.Local.Port() != 0 {
			e.local = r.Local
		}
		if r.Remote.Addr().IsValid() || r.Remote.Port() != 0 {
			e.remote = r.Remote
		}
	}
	if r.NetNS != 0 {
		e.netns = r.NetNS
	}
	if r.CgroupID != 0 {
		e.cgroup = r.CgroupID
	}
	e.seen = max(e.seen, r.TS)
}

// full takes what only the record of a full socket knows.
func (e *entry) full(r *events.Record) {
	e.update(r)
	e.uid = int64(r.UID)
	e.socket = r.PeerSK
	e.flags = r.Flags
	e.rx, e.tx = r.RXPending, r.TXPending
}

// leave forgets a socket that left the watched states.
func (s *Store) leave(sk uint64, ts int64) {
	if e, ok := s.socks[sk]; ok {
		s.leaving(e, ts)
		delete(s.socks, sk)
		s.noteLeft(sk, ts)
	}
}

// leaving is called before e leaves its state.
func (s *Store) leaving(e *entry, ts int64) {
	if s.judge != nil {
		s.judge.left(e, ts)
	}
}

func (s *Store) transition(r *events.Record) {
	from, to := normal(r.Old), normal(r.New)
	switch {
	case to == events.Listen:
		s.listen(r)
	case from == events.Listen && to == events.Close:
		s.unlisten(r)
	}
	acted := r.Flags&events.FlagActor != 0 && r.PID != 0
	if to == events.FinWait1 && acted && s.cfg.States.Has(events.TimeWait) {
		s.closers.add(r)
	}
	e := s.find(r)
	if e != nil && acted && s.judge != nil {
		// Who closes a socket that no walk has met was its holder.
		e.actor, e.actorSrc = events.Process{PID: r.PID, Comm: r.Comm}, events.OwnerClose
	}
	if !s.cfg.States.Has(to) {
		s.leave(r.SK, r.TS)
		return
	}
	switch {
	case e == nil && !s.roomFor(false):
		return
	case e == nil:
		e = s.insert(r.SK, r)
	case e.state != to:
		s.leaving(e, r.TS)
	}
	e.full(r)
	e.state, e.since, e.exact = to, r.TS, true
	e.timewait, e.expires = false, events.Unknown
	if acted {
		e.actor = events.Process{PID: r.PID, Comm: r.Comm}
		switch to {
		case events.SynSent:
			e.actorSrc = events.OwnerConnect
		case events.Listen:
			e.actorSrc = events.OwnerListen
		default:
			e.actorSrc = events.OwnerClose
		}
	}
}

// timeWaitAlloc begins a timewait socket; the transition to CLOSE of the socket
// that it replaces follows.
func (s *Store) timeWaitAlloc(r *events.Record) {
	to := normal(r.New)
	if r.PeerSK == 0 || !s.cfg.States.Has(to) {
		return
	}
	delete(s.socks, r.PeerSK)
	old := s.find(r)
	if old == nil && !s.roomFor(true) {
		return
	}
	e := s.insert(r.PeerSK, r)
	e.timewait = true
	e.state, e.since, e.exact = to, r.TS, true
	if to == events.TimeWait {
		e.expires = r.TS + timeWaitNS
	}
	if old != nil {
		if old.state != to {
			s.leaving(old, r.TS)
		}
		e.id, e.uid, e.actor, e.actorSrc = old.id, old.uid, old.actor, old.actorSrc
		if old.state == to {
			e.since, e.exact = old.since, old.exact
		}
		delete(s.socks, old.sk)
	} else if to == events.FinWait2 {
		e.exact = false // it may have been in FIN_WAIT2 for long as a full socket
	}
	s.nameCloser(e)
}

// timeWaitSchedule sets the timer of a timewait socket anew.
func (s *Store) timeWaitSchedule(r *events.Record) {
	to := normal(r.New)
	if !s.cfg.States.Has(to) {
		s.leave(r.SK, r.TS)
		return
	}
	e := s.find(r)
	switch {
	case e == nil && !s.roomFor(true):
		return
	case e == nil:
		e = s.insert(r.SK, r)
		// Restarted or just entered: both have this timer.
		e.state, e.since, e.exact = to, r.TS, to == events.TimeWait
	case e.state != to:
		s.leaving(e, r.TS)
		e.state, e.since, e.exact = to, r.TS, true
	}
	e.update(r)
	e.timewait = true
	if r.Flags&events.FlagTimer != 0 {
		e.expires = r.TS + r.TimerNS
	}
	s.nameCloser(e)
}

// nameCloser attributes a timewait socket to the process that closed it.
func (s *Store) nameCloser(e *entry) {
	if e.actor.PID != 0 {
		return
	}
	if p, ok := s.closers.take(e); ok {
		e.actor, e.actorSrc = p, events.OwnerClose
	}
}

// isTimeWait reports whether the socket of a scan is a timewait socket: nothing
// else has a timer in these states and no queues.
func isTimeWait(r *events.Record, state State) bool {
	return state == events.TimeWait ||
		(state == events.FinWait2 && r.Flags&events.FlagTimer != 0 && r.Flags&events.FlagPendingKnown == 0)
}

func (s *Store) socket(r *events.Record) {
	state := normal(r.New)
	timewait := isTimeWait(r, state)
	if sp := s.spaces[r.NetNS]; sp != nil && sp.scanning != 0 {
		sp.counting[state]++
		if s.cfg.portUse() && state != events.Listen && r.New != events.NewSynRecv &&
			r.Local.Port() != 0 && r.Remote.Port() != 0 && (s.cfg.MaxSockets == 0 || len(sp.porting) < s.cfg.MaxSockets) {
			sp.porting = append(sp.porting, portUser{r.Remote, r.Local, max(r.TimerNS, 0), state == events.TimeWait})
		}
	}
	if state == events.Listen {
		s.listen(r)
	}
	e := s.find(r)
	if !s.cfg.States.Has(state) {
		// Its leaving was lost; or it enters just now, and the state was read
		// before it was stored.
		if e != nil && r.TS-e.seen > graceNS {
			delete(s.socks, r.SK)
		}
		return
	}
	if ts, ok := s.left[r.SK]; ok && r.TS-ts <= graceNS {
		return // it leaves just now
	}
	switch {
	case e == nil && !s.roomFor(timewait):
		if sp := s.spaces[r.NetNS]; sp != nil && sp.scanning != 0 {
			sp.refused++
		}
		return
	case e == nil:
		e = s.insert(r.SK, r)
		e.state, e.since, e.exact = state, bound(r, state), state == events.TimeWait
	case e.state != state:
		if e.exact && r.TS-e.since <= graceNS {
			return
		}
		e.state, e.since, e.exact = state, bound(r, state), state == events.TimeWait
		e.actor, e.actorSrc = events.Process{}, events.OwnerUnknown
	case !e.exact:
		e.since = min(e.since, bound(r, state))
	}
	e.timewait = timewait
	if !timewait && r.New != events.NewSynRecv {
		e.full(r)
		e.expires = events.Unknown
		return
	}
	e.update(r)
	e.flags = r.Flags
	if timewait {
		if r.Flags&events.FlagTimer != 0 {
			e.expires = r.TS + r.TimerNS
		}
		s.nameCloser(e)
	}
}

// bound returns the latest moment at which a socket that was found by a scan can
// have entered its state; of TIME_WAIT, whose timer tells, the true one.
func bound(r *events.Record, state State) int64 {
	if r.Flags&events.FlagTimer == 0 {
		return r.TS
	}
	switch state {
	case events.CloseWait:
		// The FIN came with the last segment at the latest.
		return r.TS - max(r.TimerNS, 0)
	case events.TimeWait:
		return min(r.TS, r.TS+r.TimerNS-timeWaitNS)
	}
	return r.TS
}

func (s *Store) scanBegin(r *events.Record) {
	if s.thisRound == 0 {
		s.thisRound = r.TS
	}
	sp := s.spaces[r.NetNS]
	if sp == nil {
		sp = &space{}
		s.spaces[r.NetNS] = sp
	}
	sp.scanning = max(r.TS, 1)
	sp.counting = [events.NumStates]int{}
	sp.refused = 0
	s.room.noIdle = false
	sp.porting = sp.porting[:0]
}

func (s *Store) scanEnd(r *events.Record) {
	sp := s.spaces[r.NetNS]
	if sp == nil || sp.scanning == 0 {
		return
	}
	sp.scanned, sp.scanning = sp.scanning, 0
	sp.counts = sp.counting
	sp.untracked = sp.refused
	sp.ports, sp.porting = sp.porting, sp.ports
}

func (s *Store) holdersEnd() {
	if !s.walking {
		return
	}
	s.walking = false
	s.holding, s.held = s.held, s.holding
	s.held.complete = true
	if s.thisRound != 0 {
		s.roundBegin, s.thisRound = s.thisRound, 0
	}
}

// gone reports whether the scans show that what was last seen at seen is no more.
func (s *Store) gone(netns uint32, seen int64) bool {
	sp := s.spaces[netns]
	if sp == nil || sp.scanned == 0 {
		return false // never looked into: only transitions tell
	}
	// The namespace itself is gone where a whole round did without it.
	return seen < sp.scanned-graceNS || (sp.scanned < s.roundBegin && seen < s.roundBegin-graceNS)
}

// prune forgets what is gone.
func (s *Store) prune(now int64) {
	for sk, e := range s.socks {
		if e.state == events.Close {
			// iter/tcp does not list these: alive is what a descriptor holds.
			if s.held.complete && e.seen < s.held.begin && !s.held.has(e) {
				delete(s.socks, sk)
			}
			continue
		}
		if s.gone(e.netns, e.seen) {
			delete(s.socks, sk)
		}
	}
	for key, list := range s.listeners {
		kept := list[:0]
		for _, l := range list {
			if !s.gone(l.netns, l.seen) {
				kept = append(kept, l)
			}
		}
		if len(kept) == 0 {
			delete(s.listeners, key)
		} else {
			clear(list[len(kept):])
			s.listeners[key] = kept
		}
	}
	for netns, sp := range s.spaces {
		if sp.scanning == 0 && sp.scanned < s.roundBegin {
			delete(s.spaces, netns)
		}
	}
	for sk, ts := range s.left {
		if now-ts > graceNS {
			delete(s.left, sk)
		}
	}
}

func (s *Store) listen(r *events.Record) {
	key := listenKey{r.NetNS, r.Local.Port()}
	for _, l := range s.listeners[key] {
		if l.sk == r.SK {
			l.addr, l.family, l.flags, l.seen = r.Local.Addr(), r.Family, r.Flags, r.TS
			return
		}
	}
	s.listeners[key] = append(s.listeners[key],
		&listener{r.SK, r.Local.Addr(), r.NetNS, r.Family, r.Flags, r.TS})
}

func (s *Store) unlisten(r *events.Record) {
	key := listenKey{r.NetNS, r.Local.Port()}
	list := s.listeners[key]
	for i, l := range list {
		if l.sk == r.SK {
			s.listeners[key] = append(list[:i:i], list[i+1:]...)
			return
		}
	}
}

// listenersOf returns the listening sockets that a connection to local may have
// come through: as the kernel looks them up, those on its address, else those on
// the wildcard address of its family, else, for IPv4, on ::, which is taken to be
// dual-stack, as it is unless IPV6_V6ONLY is set. With SO_REUSEPORT there are
// several.
func (s *Store) listenersOf(e *entry) []*listener {
	all := s.listeners[listenKey{e.netns, e.local.Port()}]
	if len(all) == 0 {
		return nil
	}
	addr := e.local.Addr().WithZone("")
	var exact, wild, dual []*listener
	for _, l := range all {
		switch {
		case l.addr.WithZone("") == addr:
			exact = append(exact, l)
		case !l.addr.IsValid() || l.addr.IsUnspecified():
			if l.family == e.family {
				wild = append(wild, l)
			} else if e.family == 4 {
				dual = append(dual, l)
			}
		}
	}
	switch {
	case exact != nil:
		return exact
	case wild != nil:
		return wild
	}
	return dual
}
