package advice

import "fmt"

// Thresholds of the rules about the kernel's counters.
const (
	// bucketsPercent leaves time to act before TIME_WAITs are left out.
	bucketsPercent = 80
	// finTimeoutsMin is more than clients that vanish make by chance.
	finTimeoutsMin = 10
	// orphansMin is a number worth freeing: each is small.
	orphansMin = 1000
	// rtosMin is enough for a share to mean something, retransPercent is where
	// loss begins to cost throughput that users notice.
	rtosMin        = 100
	retransPercent = 1
)

var timeWaitBuckets = Rule{
	Name:   "time-wait-buckets",
	Speaks: fmt.Sprintf("a TIME_WAIT found no room under tcp_max_tw_buckets; as a note, when %d %% of it are in use", bucketsPercent),
	Advice: "raise tcp_max_tw_buckets, never lower it",
	Cost:   "Some 256 bytes of kernel memory for each TIME_WAIT.",
	Sources: []string{
		kernelDoc("tcp_max_tw_buckets"), rfcTimeWait, rfcHazards,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			out := max(ns.grew(timeWaitOverflow), ns.TimeWaitRefused)
			limit, ok := ns.number(twBuckets)
			near := ok && limit > 0 && ns.TimeWait*100 >= limit*bucketsPercent
			if out <= 0 && !near {
				continue
			}
			item := Item{Severity: Note, weight: float64(max(out, 0))}
			if out > 0 {
				item.Severity = Warning
				item.Title = fmt.Sprintf("%s left out: tcp_max_tw_buckets is full", plural(out, "TIME_WAIT was", "TIME_WAITs were"))
				item.Evidence = append(item.Evidence, count("TIME_WAITs left out", out, "sockets"))
			} else {
				item.Title = fmt.Sprintf("%s of the %s that tcp_max_tw_buckets allows", plural(ns.TimeWait, "TIME_WAIT", "TIME_WAITs"), thousands(limit))
			}
			item.Evidence = ns.counters(item.Evidence, timeWaitOverflow)
			item.Evidence = known(item.Evidence, "timewait sockets now", ns.TimeWait, "sockets")
			item.Evidence = ns.sysctls(item.Evidence, twBuckets)
			item.Evidence = f.where(item.Evidence, ns.NetNS)
			item.Change = sentences(
				"Raise net.ipv4.tcp_max_tw_buckets above the steady state, which is the TIME_WAITs per second x 60, or close fewer connections first on this side.",
				"It is no means against TIME_WAIT: a connection without one can get late segments of the one before it, and leaves a peer that missed the last ACK with an RST. "+
					"The kernel's documentation says that it must not be lowered.",
			)
			items = append(items, item)
		}
		return items
	},
}

var memory = Rule{
	Name:   "memory",
	Speaks: "the kernel reset a connection for lack of memory, or because there were too many orphans (TCPAbortOnMemory)",
	Advice: "find who closes so many connections that do not end; then tcp_max_orphans or tcp_mem",
	Cost:   "An orphan takes up to 64 KiB of memory that cannot be swapped out.",
	Sources: []string{
		kernelDoc("tcp_max_orphans, tcp_mem"), counterDoc("TCPAbortOnMemory"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			n := ns.grew(abortOnMemory)
			if n <= 0 {
				continue
			}
			item := Item{
				Severity: Critical,
				Title:    fmt.Sprintf("the kernel reset %s for lack of memory or too many orphans", plural(n, "connection", "connections")),
				weight:   float64(n),
				Change: "Orphans are connections that their process has closed and the peer has not acknowledged: look at FIN_WAIT1 and LAST_ACK for peers that do not answer. " +
					"Where the load is real, raise net.ipv4.tcp_max_orphans, or tcp_mem (in pages) with the memory that there is; never lower them.",
			}
			item.Evidence = ns.counters(item.Evidence, abortOnMemory)
			item.Evidence = ns.sysctls(item.Evidence, maxOrphans, tcpMem)
			item.Evidence = f.where(item.Evidence, ns.NetNS)
			items = append(items, item)
		}
		return items
	},
}

var synBacklog = Rule{
	Name: "syn-backlog",
	Speaks: "a listener's queue of half-open connections was full: syncookies were sent (TCPReqQFullDoCookies, unless tcp_syncookies is 2, which sends them always); " +
		"critical if SYNs were dropped (TCPReqQFullDrop)",
	Advice: "raise the listener's backlog; syncookies stay on as the last resort",
	Cost:   "A request takes some 300 bytes of memory. A connection made by a syncookie goes without TCP options unless timestamps carry them.",
	Sources: []string{
		kernelDoc("tcp_syncookies, tcp_max_syn_backlog"), manListen, rfcFlood,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			cookies, dropped := ns.grew(reqQFullCookies), ns.grew(reqQFullDrop)
			if ns.is(syncookies, 2) {
				cookies = 0
			}
			if cookies == 0 && dropped == 0 {
				continue
			}
			item := Item{Severity: Warning, weight: float64(cookies + dropped)}
			item.Title = fmt.Sprintf("a listener's SYN queue was full: %s sent", plural(cookies, "syncookie", "syncookies"))
			if dropped > 0 {
				item.Severity = Critical
				item.Title = fmt.Sprintf("a listener's SYN queue was full: %s dropped", plural(dropped, "SYN", "SYNs"))
			}
			item.Evidence = ns.counters(item.Evidence, reqQFullCookies, reqQFullDrop)
			item.Evidence = some(item.Evidence, "half-open connections now", ns.SynRecv, "sockets")
			item.Evidence = ns.sysctls(item.Evidence, syncookies, somaxconn, synBacklogLimit, synackRetries)
			item.Evidence = f.where(item.Evidence, ns.NetNS)
			item.Change = sentences(
				"If these are clients, raise the program's backlog in listen() and net.core.somaxconn: the queue of half-open connections is as long as the accept queue. "+
					"tcp_max_syn_backlog is ignored while syncookies are on.",
				when(ns.is(syncookies, 0), "Set net.ipv4.tcp_syncookies=1: connections come through instead of being dropped."),
				when(!ns.is(syncookies, 0), "If they are not, it is a SYN flood, and syncookies are what holds it off: leave them on."),
			)
			items = append(items, item)
		}
		return items
	},
}

var retransmissions = Rule{
	Name:   "retransmissions",
	Speaks: fmt.Sprintf("%d or more retransmission timeouts in the run, and %d %% or more of the segments sent were retransmissions", rtosMin, retransPercent),
	Advice: "look for the loss: the path, a policer, an overloaded receiver",
	Cost:   "None in TCP: no sysctl mends a path that loses packets.",
	Sources: []string{
		rfcRTO, counterDoc("TcpOutSegs, TCPSynRetrans"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			n, again, sent := ns.grew(rtos), ns.grew(retransSegs), ns.grew(outSegs)
			// OutSegs leaves out what is sent again.
			if n < rtosMin || again <= 0 || sent <= 0 || again*100 < (sent+again)*retransPercent {
				continue
			}
			item := Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s: %g %% of the segments were sent again", plural(n, "retransmission timeout", "retransmission timeouts"), tenths(float64(again)*100/float64(sent+again))),
				weight:   float64(n),
				Change: "Each timeout stops a connection for 200 ms or more. Look where packets are lost: ss -ti names the connections, ip -s link and ethtool -S the interfaces; " +
					"a rate limit on the way, a full conntrack table and a receiver without memory look the same from here. " +
					"If most are SYNs (TCPSynRetrans), a remote does not answer, or its backlog is full.",
			}
			item.Evidence = ns.counters(item.Evidence, rtos, retransSegs, outSegs, synRetrans)
			item.Evidence = f.where(item.Evidence, ns.NetNS)
			items = append(items, item)
		}
		return items
	},
}

var finWait2 = Rule{
	Name: "fin-wait2",
	Speaks: fmt.Sprintf("tcp_fin_timeout ended %d or more connections in FIN_WAIT2, or %s or more without a process are in it now",
		finTimeoutsMin, thousands(orphansMin)),
	Advice: "look at the peers, which do not close; tcp_fin_timeout bounds this state, and no other",
	Cost:   "With a lower tcp_fin_timeout a peer that closes later, or is still sending, gets an RST.",
	Sources: []string{
		kernelDoc("tcp_fin_timeout"), rfcHalfClosed,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Namespaces {
			ns := &f.Namespaces[i]
			if ns.FinTimeouts < finTimeoutsMin && ns.OrphanFinWait2 < orphansMin {
				continue
			}
			item := Item{Severity: Note, weight: float64(max(ns.FinTimeouts, 0) + max(ns.OrphanFinWait2, 0))}
			if ns.FinTimeouts >= finTimeoutsMin {
				item.Title = fmt.Sprintf("%s not closed by the peer: tcp_fin_timeout ended them", plural(ns.FinTimeouts, "connection", "connections"))
			} else {
				item.Title = fmt.Sprintf("%s closed here wait in FIN_WAIT2 for the peer", plural(ns.OrphanFinWait2, "connection", "connections"))
			}
			item.Evidence = some(item.Evidence, "ended by tcp_fin_timeout", ns.FinTimeouts, "connections")
			item.Evidence = some(item.Evidence, "in FIN_WAIT2 without a process now", ns.OrphanFinWait2, "sockets")
			item.Evidence = some(item.Evidence, "longest FIN_WAIT2", ns.FinWait2Max, UnitNS)
			item.Evidence = ns.sysctls(item.Evidence, finTimeout)
			item.Evidence = f.where(item.Evidence, ns.NetNS)
			item.Change = "This side has closed and the peers have not: their sockets sit in CLOSE_WAIT, so look for the leak there. " +
				"net.ipv4.tcp_fin_timeout is for this: lower it if the number matters. It does not shorten TIME_WAIT, which lasts 60 s whatever it says."
			items = append(items, item)
		}
		return items
	},
}
