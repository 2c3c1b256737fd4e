package facts

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/heaviest"
	"github.com/tcptrace/tcptrace/internal/sysctl"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Bounds of what is kept.
const (
	maxProcesses = 1024
	maxRemotes   = 4096
	maxListeners = 4096
)

// errAddrNotAvail is Linux' EADDRNOTAVAIL on every system.
const errAddrNotAvail = 99

// growthAfter is the shortest run that tells a growth per minute.
const growthAfter = 60_000_000_000

// Kernel is what the kernel told of a network namespace.
type Kernel struct {
	Name string // under /run/netns, or empty
	// Start and End are its values at the beginning and at the end of the run.
	Start, End sysctl.Values
}

// Config says whom a Collector asks at the end. Any of it may be nil: then nothing
// is known of that.
type Config struct {
	Processes watch.Processes
	// Ports returns the local ports that the kernel gives out in a namespace.
	Ports func(netns uint32) (watch.PortRange, bool)
	// Kernel returns what the kernel told of a namespace.
	Kernel func(netns uint32) (Kernel, bool)
}

// Collector collects. Not safe for concurrent use.
type Collector struct {
	cfg       Config
	processes *heaviest.Map[processKey, process]
	remotes   *heaviest.Map[remoteKey, advice.Remote]
	gone      *heaviest.Map[listenKey, int64] // listeners that were closed
	spaces    map[uint32]*space
	lastNetNS uint32
	lastSpace *space // of lastNetNS: what comes next is mostly there too
	lost      uint64

	// Of what lives at the end.
	ports     map[portKey]*portUsers
	listening map[portKey]bool
}

var _ aggregate.Sink = (*Collector)(nil)

type processKey struct {
	netns   uint32
	process events.Process
}

type process struct {
	advice.Process
	closeWaits int64 // net change of their number
	events     int64
}

// remoteKey is a remote endpoint, for connections that came in without its port,
// which is of no meaning.
type remoteKey struct {
	netns  uint32
	remote netip.AddrPort
}

type listenKey struct {
	netns uint32
	local netip.AddrPort
}

type portKey struct {
	netns uint32
	port  uint16
}

// portUsers is the connections on a local port.
type portUsers struct {
	local, remote  netip.AddrPort // of the first
	several        bool           // remotes
	timeWait, open int64
	left           int64 // ns, of the last TIME_WAIT
	owner          events.Process
}

// space is what the run told of a network namespace.
type space struct {
	finTimeouts, finWait2Max, refused int64
	timeWait, orphans                 int64 // now
}

// New returns an empty Collector.
func New(cfg Config) *Collector {
	return &Collector{
		cfg:       cfg,
		processes: heaviest.New[processKey](maxProcesses, func(p *process) int64 { return p.events }, nil),
		remotes: heaviest.New[remoteKey](maxRemotes, func(r *advice.Remote) int64 {
			return r.NoPort + r.Refused + r.ConnectTimeouts + r.Timeouts
		}, nil),
		gone:      heaviest.New[listenKey](maxListeners, func(ts *int64) int64 { return *ts }, nil),
		spaces:    make(map[uint32]*space),
		ports:     make(map[portKey]*portUsers),
		listening: make(map[portKey]bool),
	}
}

// space returns what is known of a namespace, in which something happened.
func (c *Collector) space(netns uint32) *space {
	if c.lastSpace != nil && c.lastNetNS == netns {
		return c.lastSpace
	}
	s := c.spaces[netns]
	if s == nil {
		s = new(space)
		c.spaces[netns] = s
	}
	c.lastNetNS, c.lastSpace = netns, s
	return s
}

func (c *Collector) process(netns uint32, p events.Process) *process {
	entry := c.processes.At(processKey{netns, p})
	entry.events++
	return entry
}

// Transition counts what no Closed tells: TIME_WAITs that go on (of servers), the change of
// CLOSE_WAIT, and listeners that are closed.
func (c *Collector) Transition(t *events.Transition) {
	c.space(t.NetNS)
	switch {
	case t.Old == events.Listen:
		if t.New == events.Close {
			*c.gone.At(listenKey{t.NetNS, t.Local}) = t.TS
		}
	case t.New == events.TimeWait && t.Opened == events.OpenedPassive:
		c.process(t.NetNS, t.Owner).TimeWaits++
	case t.New == events.CloseWait:
		c.process(t.NetNS, t.Owner).closeWaits++
	}
	if t.Old == events.CloseWait {
		c.process(t.NetNS, t.Owner).closeWaits--
	}
}

// Closed counts how a connection ended.
func (c *Collector) Closed(cl *events.Closed) {
	s := c.space(cl.NetNS)
	last, lasted := events.StateUnknown, events.Unknown
	if n := len(cl.States); n > 0 {
		last, lasted = cl.States[n-1].State, cl.States[n-1].NS
	}
	if cl.TimeWaitOverflow {
		s.refused++
	}
	c.closes(&cl.Conn, cl.Opened, cl.Closer)
	switch cl.Reset {
	case events.ResetUnread:
		c.closer(cl).ResetUnread++
	case events.ResetLinger0:
		c.closer(cl).ResetLinger0++
	}
	switch {
	case cl.How == events.HowTimeout && last == events.FinWait2:
		s.finTimeouts++
		s.finWait2Max = max(s.finWait2Max, lasted)
	case cl.How == events.HowTimeout && last == events.SynSent:
		c.remote(cl).ConnectTimeouts++
	case cl.How == events.HowTimeout:
		c.remote(cl).Timeouts++
	case cl.How == events.HowRefused:
		c.remote(cl).Refused++
	case cl.Err == errAddrNotAvail && cl.Opened == events.OpenedActive:
		c.remote(cl).NoPort++
	}
}

// closes counts who closed first.
func (c *Collector) closes(conn *events.Conn, opened events.Opened, first events.Side) {
	p := c.process(conn.NetNS, conn.Owner)
	closes := &p.Connected
	switch opened {
	case events.OpenedPassive:
		closes = &p.Accepted
	case events.OpenedUnknown:
		return
	}
	switch first {
	case events.SideLocal:
		closes.Local++
	case events.SideRemote:
		closes.Remote++
	case events.SideBoth:
		closes.Both++
	default:
		closes.Other++
	}
}

// closer returns the process that sent the RST.
func (c *Collector) closer(cl *events.Closed) *process {
	if cl.ClosedBy.PID != 0 {
		return c.process(cl.NetNS, cl.ClosedBy)
	}
	return c.process(cl.NetNS, cl.Owner)
}

func (c *Collector) remote(cl *events.Closed) *advice.Remote {
	to := cl.Remote
	if cl.Opened != events.OpenedActive {
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	return c.remotes.At(remoteKey{cl.NetNS, to})
}

// Lost counts events that the kernel could not hand over.
func (c *Collector) Lost(l *events.Lost) { c.lost = l.Total }

// Limit is of no meaning here: the summary tells.
func (c *Collector) Limit(*events.Limit) {}

// Resync is of no meaning here.
func (c *Collector) Resync(*events.Resync) {}

// Living takes a connection or listener that lives at the end, now. It is called
// after the last Closed.
func (c *Collector) Living(i *aggregate.Info, now int64) {
	s := c.space(i.NetNS)
	key := portKey{i.NetNS, i.Local.Port()}
	switch i.State {
	case events.Listen:
		c.listening[key] = true
		c.process(i.NetNS, i.Owner)
		return
	case events.Close, events.BoundInactive:
		return
	case events.TimeWait:
		s.timeWait++
		if i.Closer != events.SideUnknown {
			// Its Closed comes after the run.
			c.closes(&i.Conn, i.Opened, i.Closer)
		}
	case events.FinWait2:
		if i.TimeWait {
			s.timeWait++
			s.orphans++
		}
	}
	if i.Owner.PID != 0 {
		c.process(i.NetNS, i.Owner)
	}
	if key.port == 0 {
		return
	}
	u := c.ports[key]
	if u == nil {
		u = &portUsers{local: i.Local, remote: i.Remote}
		c.ports[key] = u
	}
	u.several = u.several || u.remote != i.Remote
	if i.State == events.TimeWait {
		u.timeWait++
		if i.Expires != events.Unknown {
			u.left = max(u.left, i.Expires-now)
		}
		return
	}
	u.open++
	if u.owner.PID == 0 {
		u.owner = i.Owner
	}
}

// Facts returns what was collected in the run from begin to end. snap is the look
// at the sockets at the end, with CLOSE_WAIT and LISTEN among its states, or nil
// where there was none.
func (c *Collector) Facts(begin, end int64, snap *watch.Snapshot) *advice.Facts {
	f := &advice.Facts{Duration: end - begin, Lost: c.lost}
	if snap != nil {
		c.snapshot(f, snap)
	}
	c.eachProcess(f)
	for _, e := range c.remotes.List() {
		r := e.Value
		r.NetNS, r.Addr = e.Key.netns, e.Key.remote.String()
		if e.Key.remote.Port() == 0 {
			r.Addr = e.Key.remote.Addr().String()
		}
		f.Remotes = append(f.Remotes, r)
	}
	c.left(f)
	for _, netns := range c.netns() {
		s := c.spaces[netns]
		ns := advice.Namespace{
			NetNS: netns, TimeWait: s.timeWait, SynRecv: advice.Unknown, OrphanFinWait2: s.orphans,
			FinTimeouts: s.finTimeouts, FinWait2Max: s.finWait2Max, TimeWaitRefused: s.refused,
		}
		if c.cfg.Kernel != nil {
			if k, ok := c.cfg.Kernel(netns); ok {
				ns.Name, ns.Sysctls, ns.Counters = k.Name, k.End.Sysctls, sysctl.Growth(k.Start, k.End)
			}
		}
		f.Namespaces = append(f.Namespaces, ns)
	}
	return f
}

// netns returns the namespaces in which anything happened, in order.
func (c *Collector) netns() []uint32 {
	var list []uint32
	for netns := range c.spaces {
		list = append(list, netns)
	}
	slices.Sort(list)
	return list
}

// snapshot takes what only a look at the sockets tells.
func (c *Collector) snapshot(f *advice.Facts, snap *watch.Snapshot) {
	for _, u := range snap.Ports {
		f.Ports = append(f.Ports, advice.PortUse{
			NetNS: u.NetNS, Local: u.Local, Remote: u.Remote, Used: int64(u.Used), TimeWait: int64(u.TimeWait),
			Range: int64(u.Range), FullIn: u.FullIn,
		})
	}
	seen := make(map[*watch.Socket]bool)
	for _, g := range snap.Groups {
		for _, sock := range g.Sockets {
			switch sock.State {
			case events.CloseWait:
				// Several processes may hold it: each of them does not close it.
				c.closeWait(&c.process(sock.NetNS, events.Process{PID: g.PID, Comm: g.Comm}).CloseWait, sock)
			case events.Listen:
				if sock.PendingKnown && !seen[sock] {
					seen[sock] = true
					f.Listeners = append(f.Listeners, advice.Listener{
						NetNS: sock.NetNS, Local: sock.Local.String(), PID: g.PID, Comm: g.Comm,
						Queue: int64(sock.RXPending), Limit: int64(sock.TXPending),
					})
				}
			}
		}
	}
}

// closeWait counts one socket.
func (c *Collector) closeWait(cw *advice.CloseWait, s *watch.Socket) {
	cw.Now++
	if s.Age >= advice.StuckAfter {
		cw.Stuck++
	}
	if cw.Now == 1 || s.Age > cw.Oldest {
		cw.Oldest, cw.OldestExact = s.Age, s.AgeExact
	}
	switch s.Reason {
	case watch.ReasonNotAccepted:
		cw.NotAccepted++
	case watch.ReasonUnread:
		cw.Unread++
	case watch.ReasonFinUnread:
		cw.FinUnread++
	case watch.ReasonDrained:
		cw.Drained++
	case watch.ReasonKernel:
		cw.Kernel++
	}
}

// eachProcess adds the processes, by their number.
func (c *Collector) eachProcess(f *advice.Facts) {
	for _, e := range c.processes.List() {
		p := e.Value.Process
		p.NetNS, p.PID, p.Comm = e.Key.netns, e.Key.process.PID, e.Key.process.Comm
		p.OpenFDs, p.NofileSoft = advice.Unknown, advice.Unknown
		if p.PID != 0 && c.cfg.Processes != nil {
			if info, ok := c.cfg.Processes.Process(p.PID); ok {
				p.OpenFDs, p.NofileSoft = info.OpenFDs, info.NofileSoft
			}
		}
		if f.Duration >= growthAfter && p.CloseWait.Now > 0 {
			p.CloseWait.GrowthKnown = true
			p.CloseWait.GrowthPerMin = float64(e.Value.closeWaits) * 60e9 / float64(f.Duration)
		}
		f.Processes = append(f.Processes, p)
	}
}

// left adds the ports on which nobody listens and that a server had.
func (c *Collector) left(f *advice.Facts) {
	var list []advice.LeftPort
	closed := make(map[portKey]netip.AddrPort)
	for _, e := range c.gone.List() {
		closed[portKey{e.Key.netns, e.Key.local.Port()}] = e.Key.local
	}
	for key, u := range c.ports {
		if c.listening[key] {
			continue
		}
		l := advice.LeftPort{
			NetNS: key.netns, Local: u.local.String(), Ephemeral: true, TimeWait: u.timeWait, TimeWaitLeft: max(u.left, 0),
			Open: u.open, Remotes: 1, PID: u.owner.PID, Comm: u.owner.Comm,
		}
		if u.several {
			l.Remotes = 2
		}
		if at, ok := closed[key]; ok {
			l.ListenerClosed, l.Local = true, at.String()
		}
		if c.cfg.Ports != nil {
			if r, ok := c.cfg.Ports(key.netns); ok {
				l.Ephemeral = r.Has(key.port)
			}
		}
		if l.ListenerClosed || !l.Ephemeral {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(x, y advice.LeftPort) int {
		return cmp.Or(cmp.Compare(x.NetNS, y.NetNS), cmp.Compare(x.Local, y.Local))
	})
	f.Left = list
}
