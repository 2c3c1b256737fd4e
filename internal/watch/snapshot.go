package watch

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tcptrace/tcptrace/internal/events"
)

// topRemotes bounds Group.TopRemotes.
const topRemotes = 5

// Snapshot returns the answer as of now (CLOCK_MONOTONIC ns), which is not before
// the last record. The result is the caller's: the Store does not touch it again.
func (s *Store) Snapshot(now int64) *Snapshot {
	s.prune(now)
	b := s.builder(now)
	if s.cfg.Processes != nil {
		s.cfg.Processes.Refresh()
	}
	snap := &Snapshot{TS: now, States: s.cfg.States, Hooks: s.cfg.Hooks, Lost: s.lost}
	b.counts(snap)
	for _, sp := range s.spaces {
		snap.Untracked += sp.untracked
	}
	b.sockets = make([]Socket, 0, len(s.socks))
	for _, e := range s.socks {
		b.add(e, snap)
	}
	b.finish(snap)
	if s.cfg.portUse() {
		snap.Ports = s.portUse()
	}
	return snap
}

func (s *Store) builder(now int64) *builder {
	return &builder{
		s: s, now: now, procs: make(map[events.Process]*proc), groups: make(map[groupKey]*group),
		cgroups: make(map[uint64]string), doors: make(map[*listener]door),
	}
}

// builder makes one Snapshot.
type builder struct {
	s       *Store
	now     int64
	procs   map[events.Process]*proc
	groups  map[groupKey]*group
	cgroups map[uint64]string
	sockets []Socket // never grows: pointers into it stay good

	// Most sockets have one holder with one descriptor: these come from here.
	holderPool []Holder
	listPool   []*Holder
	fdPool     []uint32

	doors map[*listener]door // by the first of the listeners
}

// door is whom connections wait for that came through some listeners.
type door struct {
	answers *Holder   // who should accept them, nil: not known
	holders []*Holder // all that could, by PID
}

// proc is a process as this snapshot knows it.
type proc struct {
	Holder
	start int64
}

// group is a Group while it is collected.
type group struct {
	*Group
	key     groupKey
	fds     int            // descriptors that hold its sockets
	unread  int64          // bytes in those of its sockets that are unread
	server  int            // of TIME_WAIT: sockets that came through a listener
	orphans int            // sockets that no process holds
	backlog map[uint16]int // sockets in a backlog, by the listener's port
	doors   []*Holder      // who could accept what is in the backlogs
	full    listenCount    // of LISTEN
	remotes map[netip.AddrPort]int
}

// listenCount is what the sockets in LISTEN have in their backlogs.
type listenCount struct {
	waiting int64
	full    int // backlogs at their limit
}

// counts fills Snapshot.Counts from the scans; the watched states are counted
// socket by socket.
func (b *builder) counts(snap *Snapshot) {
	walked := b.s.cfg.Walked
	if walked == 0 {
		walked = events.AllStates
	}
	for state := range State(events.NumStates) {
		switch {
		case b.s.cfg.States.Has(state):
		case !walked.Has(state) || state == events.Close || b.s.cfg.Match != nil:
			snap.Counts[state] = -1
		default:
			for _, sp := range b.s.spaces {
				snap.Counts[state] += sp.counts[state]
			}
		}
	}
}

// process returns what is known of the process that a walk or a hook saw under
// the number pid at ts.
func (b *builder) process(pid uint32, comm string, ts int64) *proc {
	name := events.Process{PID: pid, Comm: comm}
	if p, ok := b.procs[name]; ok {
		return p
	}
	p := &proc{Holder: Holder{PID: pid, Comm: comm, UID: events.Unknown, NofileSoft: -1, OpenFDs: -1}}
	b.procs[name] = p
	if b.s.cfg.Processes == nil {
		return p
	}
	info, ok := b.s.cfg.Processes.Process(pid)
	// Another process by now, or another /proc than the kernel's numbers are of.
	if !ok || info.StartTS > ts || info.Comm != comm {
		return p
	}
	p.PPID, p.UID, p.Cmdline, p.Unit = info.PPID, info.UID, info.Cmdline, info.Unit
	p.NofileSoft, p.OpenFDs, p.start = info.NofileSoft, info.OpenFDs, info.StartTS
	return p
}

// pooled is how many of a kind are allocated at once.
const pooled = 512

// one returns a slice with the one element, without room for more, and the pool
// less that element.
func one[T any](pool []T, v T) (slice, rest []T) {
	if len(pool) == 0 {
		pool = make([]T, pooled)
	}
	pool[0] = v
	return pool[:1:1], pool[1:]
}

// holders returns the holders from hold number at on, by pid.
func (b *builder) holders(at int32) []*Holder {
	var list []*Holder
	for at != 0 {
		h := &b.s.held.refs[at-1]
		at = h.next
		if i := slices.IndexFunc(list, func(l *Holder) bool { return l.PID == h.pid }); i >= 0 {
			list[i].FDs = append(list[i].FDs, h.fd)
			continue
		}
		var holder []Holder
		holder, b.holderPool = one(b.holderPool, b.process(h.pid, h.comm, h.ts).Holder)
		holder[0].FDs, b.fdPool = one(b.fdPool, h.fd)
		if list == nil {
			list, b.listPool = one(b.listPool, &holder[0])
		} else {
			list = append(list, &holder[0])
		}
	}
	if len(list) == 1 && len(list[0].FDs) == 1 {
		return list
	}
	for _, l := range list {
		slices.Sort(l.FDs)
	}
	slices.SortFunc(list, func(x, y *Holder) int { return cmp.Compare(x.PID, y.PID) })
	return list
}

// inBacklog reports whether the socket waits for accept(): it has no struct
// socket, and had none before.
func (e *entry) inBacklog() bool {
	switch e.state {
	case events.SynRecv:
		return true
	case events.Established, events.CloseWait:
		return !e.timewait && e.flags&(events.FlagHasSocket|events.FlagOrphan) == 0
	}
	return false
}

// reason says why a socket sits in CLOSE_WAIT.
func (b *builder) reason(e *entry, held bool) Reason {
	if e.state != events.CloseWait {
		return ReasonNone
	}
	switch {
	case held:
	case e.inBacklog():
		return ReasonNotAccepted
	case e.flags&events.FlagHasSocket == 0:
		return ReasonNone // closed: it leaves the state just now
	case e.flags&events.FlagKernelSocket != 0 && e.flags&events.FlagMPTCP == 0 &&
		b.s.held.complete && b.s.held.begin >= e.first:
		return ReasonKernel
	}
	switch {
	case e.flags&events.FlagPendingKnown == 0:
		return ReasonNone
	case e.rx > 1:
		return ReasonUnread
	case e.rx == 1:
		return ReasonFinUnread
	}
	return ReasonDrained
}

// door returns who could accept what waits for the listeners, and who of them
// should: the one that all listeners lead to.
func (b *builder) door(list []*listener) door {
	if len(list) == 0 {
		return door{}
	}
	// Connections that share one of the candidates share all of them.
	d, ok := b.doors[list[0]]
	if ok {
		return d
	}
	for i, l := range list {
		holders := b.holders(b.s.held.first(l.sk, 0, 0))
		switch h := accepter(holders); {
		case i == 0:
			d.answers = h
		case h == nil || (d.answers != nil && d.answers.PID != h.PID):
			d.answers = nil
		}
		d.holders = unite(d.holders, holders)
	}
	if d.answers != nil {
		// With its descriptors on all of the listeners.
		i := slices.IndexFunc(d.holders, func(h *Holder) bool { return h.PID == d.answers.PID })
		d.answers = d.holders[i]
	}
	b.doors[list[0]] = d
	return d
}

// unite adds more to the holders, which are by PID.
func unite(holders, more []*Holder) []*Holder {
	if holders == nil {
		return more
	}
	for _, h := range more {
		i, known := slices.BinarySearchFunc(holders, h.PID, func(x *Holder, pid uint32) int { return cmp.Compare(x.PID, pid) })
		if known {
			holders[i].FDs = append(holders[i].FDs, h.FDs...)
			slices.Sort(holders[i].FDs)
			continue
		}
		holders = slices.Insert(holders, i, h)
	}
	return holders
}

// accepter returns the one of the holders of a listening socket that answers for
// it: the only one, or of a family of processes that share it the ancestor. The
// service manager, which passes sockets on, is not one.
func accepter(holders []*Holder) *Holder {
	holders = withoutInit(holders)
	var top *Holder
	for _, h := range holders {
		if slices.ContainsFunc(holders, func(p *Holder) bool { return p.PID == h.PPID }) {
			continue
		}
		if top != nil {
			return nil
		}
		top = h
	}
	return top
}

// withoutInit leaves the service manager out, unless it is alone.
func withoutInit(holders []*Holder) []*Holder {
	if len(holders) < 2 || holders[0].PID != 1 {
		return holders
	}
	return holders[1:]
}

func (b *builder) cgroup(id uint64) string {
	if id == 0 || b.s.cfg.Cgroup == nil {
		return ""
	}
	path, ok := b.cgroups[id]
	if !ok {
		path = b.s.cfg.Cgroup(id)
		b.cgroups[id] = path
	}
	return path
}

// add takes one socket into the snapshot.
func (b *builder) add(e *entry, snap *Snapshot) {
	sock := b.socket(e)
	if sock == nil {
		return
	}
	snap.Total++
	snap.Counts[e.state]++
	b.join(sock, e)
}

// one returns what is known of e, valid until the next call, or nil where nobody
// wants it.
func (b *builder) one(e *entry) *Socket {
	b.sockets = b.sockets[:0]
	return b.socket(e)
}

// socket appends what is known of e to the sockets; nil where nobody wants it.
func (b *builder) socket(e *entry) *Socket {
	var holders []*Holder
	if !e.timewait {
		holders = b.holders(b.s.held.first(e.sk, e.socket, e.cookie))
	}
	if e.state == events.Close && (holders == nil || (e.exact && b.s.held.begin < e.since)) {
		return nil // no descriptor that was seen since: it is at its end
	}
	b.sockets = append(b.sockets, Socket{
		Conn: events.Conn{
			ID: e.id, Cookie: e.cookie, NetNS: e.netns, Family: e.family, Local: e.local, Remote: e.remote,
			UID: e.uid, CgroupID: e.cgroup, Cgroup: b.cgroup(e.cgroup), MPTCP: e.flags&events.FlagMPTCP != 0,
		},
		State: e.state, Since: events.Unknown, Age: max(b.now-e.since, 0), AgeExact: e.exact,
		Holders: holders, Remaining: events.Unknown, Reason: b.reason(e, holders != nil),
	})
	sock := &b.sockets[len(b.sockets)-1]
	if e.exact {
		sock.Since = e.since
	}
	if e.expires >= 0 {
		sock.Remaining = max(e.expires-b.now, 0)
	}
	if sock.PendingKnown = !e.timewait && e.flags&events.FlagPendingKnown != 0; sock.PendingKnown {
		sock.RXPending, sock.TXPending = e.rx, e.tx
		if finReceived := e.state == events.CloseWait || e.flags&events.FlagFINReceived != 0; finReceived &&
			e.state != events.Listen && e.rx > 0 {
			sock.RXPending--
			sock.FinPend = true
		}
	}
	switch {
	case holders != nil:
		sock.Owner = events.Process{PID: holders[0].PID, Comm: holders[0].Comm}
		sock.OwnerSrc = events.OwnerScan
	case e.inBacklog():
		d := b.door(b.s.listenersOf(e))
		sock.Listener, sock.Listeners = d.answers, d.holders
	case e.actor.PID != 0:
		sock.Owner, sock.OwnerSrc = e.actor, e.actorSrc
	}
	if b.s.cfg.Match != nil && !b.s.cfg.Match(sock) {
		b.sockets = b.sockets[:len(b.sockets)-1]
		return nil
	}
	return sock
}

// join puts a socket into the groups of those who are to look after it.
func (b *builder) join(sock *Socket, e *entry) {
	switch {
	case sock.Holders != nil:
		for _, h := range sock.Holders {
			b.group(sock, e, h, len(h.FDs))
		}
	case sock.Listener != nil:
		b.group(sock, e, sock.Listener, 0)
	case sock.Owner.PID != 0:
		// The hook named it, which was at since or before.
		p := b.process(sock.Owner.PID, sock.Owner.Comm, e.since)
		b.group(sock, e, &p.Holder, 0)
	default:
		b.group(sock, e, nil, 0)
	}
}

func (b *builder) group(sock *Socket, e *entry, h *Holder, fds int) {
	key := groupKey{state: sock.State}
	var p *proc
	if h != nil {
		p = b.procs[events.Process{PID: h.PID, Comm: h.Comm}]
		key.pid, key.start = p.PID, p.start
	}
	server := false
	if sock.State == events.TimeWait {
		key.remote = sock.Remote
		if server = b.s.listenersOf(e) != nil; server {
			// The remote port is the client's choice, and another each time.
			key.remote = netip.AddrPortFrom(sock.Remote.Addr(), 0)
		}
	}
	g := b.groups[key]
	if g == nil {
		g = &group{key: key, Group: &Group{State: sock.State, AllAges: true, LimitIn: events.Unknown}}
		if p != nil {
			g.Holder, g.PID, g.Comm = &p.Holder, p.PID, p.Comm
		}
		if sock.State == events.TimeWait {
			g.Remote = endpoint(key.remote)
		}
		g.remotes = make(map[netip.AddrPort]int)
		b.groups[key] = g
	}
	g.Count++
	g.fds += fds
	g.Sockets = append(g.Sockets, sock)
	g.AllAges = g.AllAges && sock.AgeExact
	if server {
		g.server++
	}
	if sock.Holders == nil && sock.Listener == nil {
		g.orphans++
	}
	if e.inBacklog() {
		if g.backlog == nil {
			g.backlog = make(map[uint16]int)
		}
		g.backlog[sock.Local.Port()]++
		g.knock(sock)
	}
	if sock.State == events.Listen {
		g.full.waiting += int64(sock.RXPending)
		// sk_acceptq_is_full: more than the limit.
		if sock.PendingKnown && sock.RXPending > sock.TXPending {
			g.full.full++
		}
	} else {
		g.Unread += int64(sock.RXPending)
	}
	if sock.State == events.CloseWait && sock.Reason != ReasonNone {
		if g.Reasons == nil {
			g.Reasons = make(map[Reason]int)
		}
		g.Reasons[sock.Reason]++
		if sock.Reason == ReasonUnread {
			g.unread += int64(sock.RXPending)
		}
	}
	if sock.Remote.Addr().IsValid() && sock.Remote.Port() != 0 {
		g.remotes[sock.Remote]++
	}
}

// knock notes who could accept a socket of the group.
func (g *group) knock(sock *Socket) {
	for _, h := range sock.Listeners {
		i, known := slices.BinarySearchFunc(g.doors, h.PID, func(x *Holder, pid uint32) int { return cmp.Compare(x.PID, pid) })
		if !known {
			g.doors = slices.Insert(g.doors, i, h)
		}
	}
}

// endpoint writes an address and port; without a port the address alone.
func endpoint(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// finish ranks the groups and says what is to be said about each.
func (b *builder) finish(snap *Snapshot) {
	all := make([]*group, 0, len(b.groups))
	for _, g := range b.groups {
		slices.SortFunc(g.Sockets, func(x, y *Socket) int {
			return cmp.Or(cmp.Compare(y.Age, x.Age), cmp.Compare(x.ID, y.ID))
		})
		n := len(g.Sockets)
		g.Oldest = g.Sockets[0].Age
		g.Median = (g.Sockets[(n-1)/2].Age + g.Sockets[n/2].Age) / 2
		g.TopRemotes = top(g.remotes)
		all = append(all, g)
	}
	slices.SortFunc(all, func(x, y *group) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(y.Oldest, x.Oldest),
			cmp.Compare(x.PID, y.PID), cmp.Compare(x.State, y.State), cmp.Compare(x.Remote, y.Remote))
	})
	snap.Groups = make([]*Group, len(all))
	for i, g := range all {
		if i < growthGroups {
			b.grow(g)
		}
		g.Verdict = verdict(g)
		snap.Groups[i] = g.Group
	}
	for key, h := range b.s.growth {
		if h.seen == b.now {
			continue
		}
		if b.now-h.seen > growthWindow {
			delete(b.s.growth, key)
			continue
		}
		h.add(point{ts: b.now})
	}
}

// grow notes the group's count and says how it grows.
func (b *builder) grow(g *group) {
	h := b.s.growth[g.key]
	if h == nil {
		if len(b.s.growth) >= growthMax {
			return // of those that are gone the histories are kept for a while
		}
		h = &history{}
		b.s.growth[g.key] = h
	}
	h.seen = b.now
	h.add(point{b.now, g.Count, g.fds})
	count, fds, ok := h.perMin()
	if !ok {
		return
	}
	g.GrowthPerMin, g.GrowthKnown = count, true
	if g.Holder == nil || g.Holder.NofileSoft < 0 || g.Holder.OpenFDs < 0 || g.fds == 0 || fds <= 0 {
		return
	}
	free := max(g.Holder.NofileSoft-g.Holder.OpenFDs, 0)
	// Growth of less than a descriptor in a day is noise of the fit.
	if in := float64(free) / fds * 60e9; in < 365*24*3600e9 && fds > 1.0/(24*60) {
		g.LimitIn = int64(in)
	}
}

// top returns the remotes with the most sockets. Where no port repeats, as in a
// server whose clients choose theirs, the addresses are counted.
func top(remotes map[netip.AddrPort]int) []Remote {
	most := 0
	for _, n := range remotes {
		most = max(most, n)
	}
	counted := remotes
	if most == 1 && len(remotes) > 1 {
		counted = make(map[netip.AddrPort]int)
		for r, n := range remotes {
			counted[netip.AddrPortFrom(r.Addr(), 0)] += n
		}
		if len(counted) == len(remotes) {
			counted = remotes
		}
	}
	type remote struct {
		netip.AddrPort
		n int
	}
	list := make([]remote, 0, len(counted))
	for r, n := range counted {
		list = append(list, remote{r, n})
	}
	slices.SortFunc(list, func(x, y remote) int {
		return cmp.Or(cmp.Compare(y.n, x.n), x.Addr().Compare(y.Addr()), cmp.Compare(x.Port(), y.Port()))
	})
	list = list[:min(len(list), topRemotes)]
	out := make([]Remote, len(list))
	for i, r := range list {
		out[i] = Remote{endpoint(r.AddrPort), r.n}
	}
	return out
}

func portText(port uint16) string { return ":" + strconv.Itoa(int(port)) }
