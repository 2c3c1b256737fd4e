package advice

import (
	"fmt"
	"net/netip"
	"strings"
)

// Thresholds of the rules about ports, listeners and remotes.
const (
	// portsPercent leaves a fifth of the range for a burst.
	portsPercent = 80
	// failuresMin is more than a restart of the remote or a wrong click makes.
	failuresMin = 10
	// leftRemotes tells a server's port from that of a client that binds its
	// port: a client's leads to one remote as a rule.
	leftRemotes = 2
)

var portExhaustion = Rule{
	Name: "port-exhaustion",
	Speaks: fmt.Sprintf("%d %% or more of the local ports towards one remote endpoint are taken (those of a TIME_WAIT do not count where tcp_tw_reuse lets connect() take them over); "+
		"critical if all are, or a connect() found none", portsPercent),
	Advice: "fewer connections (a pool, keep-alive) first; then tcp_tw_reuse, only for outgoing ones and with timestamps; then a wider range",
	Cost: "Pooled connections hold descriptors at both ends. With tcp_tw_reuse timestamps alone tell old segments from new ones. " +
		"A wider range takes in ports that servers want, unless they are in ip_local_reserved_ports.",
	Sources: []string{
		kernelDoc("ip_local_port_range, ip_local_reserved_ports, tcp_tw_reuse, tcp_timestamps"), rfcTimestamps, rfcTimeWait, manPorts, commitRecycle,
	},
	find: func(f *Facts) (items []Item) {
		type key struct {
			netns  uint32
			remote string
		}
		failed := make(map[key]int64)
		for _, r := range f.Remotes {
			if r.NoPort > 0 {
				failed[key{r.NetNS, r.Addr}] += r.NoPort
			}
		}
		full := make(map[key]bool)
		for i := range f.Ports {
			u := &f.Ports[i]
			k := key{u.NetNS, u.Remote}
			if u.Range <= 0 || (u.blocked(f.space(u.NetNS))*100 < u.Range*portsPercent && (failed[k] == 0 || u.Used*100 < u.Range*portsPercent)) {
				continue
			}
			full[k] = true
			items = append(items, f.portItem(u, failed[k]))
		}
		for k, n := range failed {
			if !full[k] {
				items = append(items, f.portItem(&PortUse{NetNS: k.netns, Remote: k.remote, Used: Unknown, TimeWait: Unknown, Range: Unknown, FullIn: Unknown}, n))
			}
		}
		return items
	},
}

// blocked is how many of the ports connect() cannot have.
func (u *PortUse) blocked(ns *Namespace) int64 {
	if reuses(ns, u.Remote) {
		return u.Used - max(u.TimeWait, 0)
	}
	return u.Used
}

// reuses reports whether connect() towards the remote takes over TIME_WAITs.
func reuses(ns *Namespace, remote string) bool {
	if n, ok := ns.number(timestamps); !ok || n == 0 {
		return false
	}
	if ns.is(twReuse, 1) {
		return true
	}
	addr, err := netip.ParseAddrPort(remote)
	return ns.is(twReuse, 2) && err == nil && addr.Addr().Unmap().IsLoopback()
}

func (f *Facts) portItem(u *PortUse, failed int64) Item {
	ns := f.space(u.NetNS)
	// Failures outweigh any number of ports.
	item := Item{Severity: Warning, weight: float64(u.Used) + 1<<16*float64(failed)}
	if failed > 0 || u.blocked(ns) >= u.Range {
		item.Severity = Critical
	}
	switch {
	case u.Range > 0:
		item.Title = fmt.Sprintf("%s of %s local ports towards %s are taken", thousands(u.Used), thousands(u.Range), u.Remote)
	default:
		item.Title = fmt.Sprintf("%s to %s found no free local port", plural(failed, "connect", "connects"), u.Remote)
	}
	item.Evidence = some(item.Evidence, "connects that found no port", failed, "connects")
	item.Evidence = known(item.Evidence, "local ports in use", u.Used, "ports")
	item.Evidence = known(item.Evidence, "held by a TIME_WAIT", u.TimeWait, "ports")
	item.Evidence = known(item.Evidence, "ports of the range, less the reserved", u.Range, "ports")
	if u.FullIn > 0 {
		item.Evidence = append(item.Evidence, count("all taken at this rate in", u.FullIn, UnitNS))
	}
	item.Evidence = ns.sysctls(item.Evidence, portRange, reservedPorts, twReuse, timestamps)
	waits := u.TimeWait*2 >= u.Used && u.TimeWait > 0
	noTimestamps := ns.is(timestamps, 0)
	reuse, reuseKnown := ns.number(twReuse)
	item.Change = sentences(
		"With none left connect() fails with \"Cannot assign requested address\".",
		"Open fewer connections: a pool or keep-alive lets one carry many requests.",
		when(waits && noTimestamps, "TIME_WAIT holds most of the ports, but tcp_tw_reuse does nothing while tcp_timestamps is 0."),
		when(waits && !noTimestamps && reuse == 1, "TIME_WAIT holds most of the ports though tcp_tw_reuse is 1: it needs timestamps from the remote as well."),
		when(waits && !noTimestamps && !(reuseKnown && reuse == 1), "TIME_WAIT holds most of the ports: tcp_tw_reuse=1 lets outgoing connections take over a TIME_WAIT after a second. "+
			"It needs timestamps on both sides and does nothing for incoming ones."),
		when(!waits && u.Used > 0, "Most of the ports belong to connections in other states than TIME_WAIT: tcp_tw_reuse would not free them."),
		"Then: a wider ip_local_port_range, a second remote address or port, or a second local address.",
		when(u.TimeWait > 0, noShorter+" tcp_tw_recycle broke clients behind NAT and is gone since Linux 4.12."),
	)
	if n, ok := ns.number(finTimeout); ok && n != timeWaitSeconds && u.TimeWait > 0 {
		item.Evidence = ns.sysctls(item.Evidence, finTimeout)
	}
	item.Evidence = f.where(item.Evidence, u.NetNS)
	return item
}

var acceptBacklog = Rule{
	Name:   "accept-backlog",
	Speaks: "a listener's accept queue is full now; critical if a connection found one full in the run (ListenOverflows)",
	Advice: "accept faster; a longer backlog where bursts need it: listen() and somaxconn, whichever is the smaller",
	Cost:   "A longer queue hides a slow program: connections wait in it, and clients give up before they are served.",
	Sources: []string{
		manListen, kernelDoc("somaxconn, tcp_abort_on_overflow"), counterDoc("ListenOverflows, ListenDrops"),
	},
	find: func(f *Facts) (items []Item) {
		seen := make(map[uint32]bool)
		for i := range f.Listeners {
			l := &f.Listeners[i]
			// sk_acceptq_is_full: one more than the limit.
			if l.Limit < 0 || l.Queue <= l.Limit {
				continue
			}
			seen[l.NetNS] = true
			items = append(items, f.backlogItem(f.space(l.NetNS), l.NetNS, l))
		}
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			if ns.grew(listenOverflows) > 0 && !seen[ns.NetNS] {
				items = append(items, f.backlogItem(ns, ns.NetNS, nil))
			}
		}
		return items
	},
}

// backlogItem is about a full listener, or (nil) about one that is not full any more.
func (f *Facts) backlogItem(ns *Namespace, netns uint32, l *Listener) Item {
	item := Item{Severity: Warning}
	overflows := ns.grew(listenOverflows)
	if overflows > 0 {
		item.Severity = Critical
	}
	limit, somax := Unknown, Unknown
	if n, ok := ns.number(somaxconn); ok {
		somax = n
	}
	if l == nil {
		item.Title = fmt.Sprintf("accept queues were full %s", plural(overflows, "time", "times"))
		item.weight = float64(overflows)
	} else {
		limit = l.Limit
		item.Title = fmt.Sprintf("the accept queue of %s, %s, is full", l.Local, who(l.PID, l.Comm))
		item.weight = float64(l.Queue)
		item.Evidence = append(item.Evidence,
			count("waiting for accept()", l.Queue, "connections"),
			count("limit (listen(), cut to somaxconn)", l.Limit, ""))
	}
	item.Evidence = ns.counters(item.Evidence, listenOverflows, listenDrops)
	item.Evidence = ns.sysctls(item.Evidence, somaxconn, abortOnOverflow)
	item.Evidence = f.where(item.Evidence, netns)
	item.Change = sentences(
		"While it is full the kernel drops SYNs, and clients wait for seconds or fail.",
		"Call accept() more often: more workers, nothing slow between two calls.",
		when(limit >= 0 && limit == somax, "The limit is that of net.core.somaxconn: raise it, and the program's backlog if it asks for no more, then restart the program, for listen() applies it."),
		when(limit >= 0 && limit < somax, fmt.Sprintf("The program asked listen() for %s: raise that, up to the %s that somaxconn allows; raising somaxconn alone changes nothing.", thousands(limit), thousands(somax))),
		when(limit < 0 || somax < 0 || limit > somax, "For bursts raise the program's backlog and net.core.somaxconn: the smaller counts, from the next listen() on."),
		when(ns.is(abortOnOverflow, 1), "tcp_abort_on_overflow is on: clients get an RST where they would have tried again and come in. Turn it off."),
	)
	return item
}

var timeouts = Rule{
	Name:   "timeouts",
	Speaks: fmt.Sprintf("%d or more connections to one remote endpoint were given up: no answer to the SYN, or to data or a FIN", failuresMin),
	Advice: "look at the path and the remote; notice dead peers by keepalive or TCP_USER_TIMEOUT in the program",
	Cost: "Fewer retries give up in short outages as well: RFC 9293 wants 100 s for data and 3 minutes for a SYN at least. " +
		"Keepalive costs a segment now and then.",
	Sources: []string{
		rfcFailures, rfcRTO, kernelDoc("tcp_syn_retries, tcp_retries2, tcp_keepalive_time"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Remotes {
			r := &f.Remotes[i]
			syn, later := max(r.ConnectTimeouts, 0), max(r.Timeouts, 0)
			if syn < failuresMin && later < failuresMin {
				continue
			}
			ns := f.space(r.NetNS)
			item := Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s with %s timed out", plural(syn+later, "connection", "connections"), r.Addr),
				weight:   float64(syn + later),
			}
			item.Evidence = some(item.Evidence, "no answer to the SYN", syn, "connections")
			item.Evidence = some(item.Evidence, "no answer later", later, "connections")
			item.Evidence = ns.counters(item.Evidence, abortOnTimeout)
			if syn > 0 {
				item.Evidence = ns.sysctls(item.Evidence, synRetries)
			}
			if later > 0 {
				item.Evidence = ns.sysctls(item.Evidence, retries2, keepaliveTime)
			}
			item.Evidence = f.where(item.Evidence, r.NetNS)
			item.Change = sentences(
				when(syn >= failuresMin, "The SYN got no answer: look at the address, the route, firewalls on the way, and whether the remote's backlog is full."),
				when(later >= failuresMin, "What was sent was not acknowledged: the peer is gone without a FIN, or a firewall or NAT on the way has forgotten the connection. "+
					"Send keepalives more often than it forgets, and bound the wait with TCP_USER_TIMEOUT in the program rather than with tcp_retries2 for all."),
			)
			items = append(items, item)
		}
		return items
	},
}

var refused = Rule{
	Name:   "refused",
	Speaks: fmt.Sprintf("%d or more connects to one remote endpoint were refused", failuresMin),
	Advice: "start what should listen there, or take it out of the configuration",
	Cost:   "None.",
	Sources: []string{
		rfcReset,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Remotes {
			r := &f.Remotes[i]
			if r.Refused < failuresMin {
				continue
			}
			items = append(items, Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s to %s refused", plural(r.Refused, "connect", "connects"), r.Addr),
				weight:   float64(r.Refused),
				Evidence: f.where([]Evidence{count("refused", r.Refused, "connects")}, r.NetNS),
				Change: "An RST answered the SYN: nobody listens there, or a firewall rejects. Start the program or correct the address; " +
					"and let the client wait longer after each failure.",
			})
		}
		return items
	},
}

var addressInUse = Rule{
	Name: "address-in-use",
	Speaks: fmt.Sprintf("nobody listens on a local port, but sockets still use it: its listener was closed in the run, "+
		"or it is outside ip_local_port_range and leads to %d or more remotes. Whether a bind() failed is not seen", leftRemotes),
	Advice: "SO_REUSEADDR in the server; close what is left; reserve the port",
	Cost: "SO_REUSEADDR lets a server start while old connections live; it does not let two listen. " +
		"SO_REUSEPORT is another thing: it lets several sockets of one user listen together.",
	Sources: []string{
		manSocket, rfcTimeWait, kernelDoc("ip_local_reserved_ports"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Left {
			l := &f.Left[i]
			waits, open := max(l.TimeWait, 0), max(l.Open, 0)
			if waits+open == 0 || !l.ListenerClosed && (l.Ephemeral || l.Remotes < leftRemotes) {
				continue
			}
			ns := f.space(l.NetNS)
			item := Item{
				Severity: Note,
				Title:    fmt.Sprintf("nobody listens on %s, but %s it", l.Local, plural(waits+open, "socket uses", "sockets use")),
				weight:   float64(waits + open),
			}
			item.Evidence = known(item.Evidence, "in TIME_WAIT", l.TimeWait, "sockets")
			if waits > 0 && l.TimeWaitLeft > 0 {
				item.Evidence = append(item.Evidence, count("the last TIME_WAIT ends in", l.TimeWaitLeft, UnitNS))
			}
			item.Evidence = known(item.Evidence, "in other states", l.Open, "sockets")
			if open > 0 && l.PID != 0 {
				item.Evidence = append(item.Evidence, Evidence{Name: "held by", Text: who(l.PID, l.Comm)})
			}
			if l.Ephemeral {
				item.Evidence = ns.sysctls(item.Evidence, portRange, reservedPorts)
			}
			item.Evidence = f.where(item.Evidence, l.NetNS)
			port := l.Local[strings.LastIndexByte(l.Local, ':')+1:]
			item.Change = sentences(
				"As long as they are there, bind() to the port fails with \"Address already in use\", unless both the program that had it and the one that wants it set SO_REUSEADDR before bind().",
				when(open > 0, "Those in other states stay until whoever holds them closes them: a child of the old server, for example."),
				when(waits > 0, noShorter),
				when(l.Ephemeral && ns.Sysctls[portRange] != "", fmt.Sprintf("connect() may be given this port: put %s into net.ipv4.ip_local_reserved_ports.", port)),
			)
			items = append(items, item)
		}
		return items
	},
}
