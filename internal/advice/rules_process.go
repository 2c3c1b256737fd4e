package advice

import "fmt"

// Thresholds of the rules about processes.
const (
	// descriptorsPercent leaves room to act before accept() and open() fail.
	descriptorsPercent = 80
	// descriptorsCritical is where an ordinary burst ends it.
	descriptorsCritical = 95
	// StuckAfter is longer than a program that closes at all takes, with a slow
	// request still in hand.
	StuckAfter int64 = 10e9
	// closeWaitMin is more than slow closers leave behind by chance.
	closeWaitMin = 10
	// resetsMin is more than clients that go away in the middle make by chance.
	resetsMin = 10
	// serverCloses makes it a habit of the server, serverPercent the rule rather
	// than the exception.
	serverCloses  = 100
	serverPercent = 50
	// timeWaitSeconds is TCP_TIMEWAIT_LEN of include/net/tcp.h; no sysctl
	// changes it.
	timeWaitSeconds = 60
)

const noShorter = "tcp_fin_timeout does not shorten TIME_WAIT, which lasts 60 s on Linux whatever it says."

var descriptors = Rule{
	Name:   "descriptors",
	Speaks: fmt.Sprintf("a process uses %d %% of its soft RLIMIT_NOFILE or more; critical from %d %% on", descriptorsPercent, descriptorsCritical),
	Advice: "close what leaks first; raise the limit where the load needs it",
	Cost:   "Descriptors hold kernel memory while they are open, and a program that calls select() cannot handle those from 1024 on.",
	Sources: []string{
		manLimit, manAccept,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Processes {
			p := &f.Processes[i]
			if p.PID == 0 || p.NofileSoft <= 0 || p.OpenFDs <= 0 || p.OpenFDs*100 < p.NofileSoft*descriptorsPercent || repeated(f, i) {
				continue
			}
			item := Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s has %s of its %s descriptors in use", who(p.PID, p.Comm), thousands(p.OpenFDs), thousands(p.NofileSoft)),
				weight:   float64(p.OpenFDs) / float64(p.NofileSoft),
			}
			if p.OpenFDs*100 >= p.NofileSoft*descriptorsCritical {
				item.Severity = Critical
			}
			item.Evidence = []Evidence{
				count("descriptors in use", p.OpenFDs, ""),
				count("soft limit (RLIMIT_NOFILE)", p.NofileSoft, ""),
				{Name: "in use", Value: percent(p.OpenFDs, p.NofileSoft), Unit: UnitPercent},
			}
			item.Evidence = some(item.Evidence, "sockets in CLOSE_WAIT", p.CloseWait.Now, "")
			item.Evidence = f.space(p.NetNS).sysctls(item.Evidence, nrOpen)
			leak := p.CloseWait.Now*2 >= p.OpenFDs
			item.Change = sentences(
				"At the limit accept(), socket() and open() fail with \"Too many open files\".",
				when(leak, "Half of them or more are sockets in CLOSE_WAIT: the program has to close those; a higher limit only puts off the end."),
				when(!leak, "Find out whether the number follows the load or only grows: tcptrace --watch close_wait shows sockets that are never closed."),
				when(!leak, "If the load needs them, raise the limit: LimitNOFILE= of the systemd unit, ulimit -n, or setrlimit() up to the hard limit."),
			)
			items = append(items, item)
		}
		return items
	},
}

// repeated reports whether an entry before is of the same process, in another
// namespace: descriptors are the process'.
func repeated(f *Facts, i int) bool {
	for _, p := range f.Processes[:i] {
		if p.PID == f.Processes[i].PID && p.OpenFDs == f.Processes[i].OpenFDs {
			return true
		}
	}
	return false
}

var closeWait = Rule{
	Name: "close-wait",
	Speaks: fmt.Sprintf("%d or more sockets of a process have been in CLOSE_WAIT for %d s or longer; critical if its descriptors run out (%d %%)",
		closeWaitMin, StuckAfter/1e9, descriptorsPercent),
	Advice: "a defect of the program, to be found by why the sockets are stuck; no sysctl helps",
	Cost:   "A change of the program. A restart frees the sockets, until the next time.",
	Sources: []string{
		"RFC 9293 section 3.3.2 (CLOSE-WAIT waits for the local user)", rfcHalfClosed, kernelDoc("tcp_fin_timeout"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Processes {
			p := &f.Processes[i]
			cw := &p.CloseWait
			if cw.Stuck < closeWaitMin {
				continue
			}
			item := Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s does not close %s that the peer has closed", who(p.PID, p.Comm), plural(cw.Stuck, "socket", "sockets")),
				weight:   float64(cw.Stuck),
			}
			if p.NofileSoft > 0 && p.OpenFDs*100 >= p.NofileSoft*descriptorsPercent {
				item.Severity = Critical
			}
			item.Evidence = []Evidence{count(fmt.Sprintf("in CLOSE_WAIT for %d s or longer", StuckAfter/1e9), cw.Stuck, "sockets")}
			item.Evidence = known(item.Evidence, "in CLOSE_WAIT now", cw.Now, "sockets")
			if cw.Oldest > 0 {
				item.Evidence = append(item.Evidence, Evidence{Name: "oldest", Value: float64(cw.Oldest), Unit: UnitNS, AtLeast: !cw.OldestExact})
			}
			if cw.GrowthKnown {
				item.Evidence = append(item.Evidence, Evidence{Name: "growth", Value: tenths(cw.GrowthPerMin), Unit: UnitPerMin})
			}
			for _, r := range cw.reasons() {
				item.Evidence = some(item.Evidence, r.name, r.n, "sockets")
			}
			item.Evidence = known(item.Evidence, "descriptors in use", p.OpenFDs, "")
			item.Evidence = known(item.Evidence, "soft limit (RLIMIT_NOFILE)", p.NofileSoft, "")
			item.Evidence = f.where(item.Evidence, p.NetNS)
			item.Change = sentences(
				cw.cause(),
				"No sysctl helps, for the kernel waits for this program's close(): tcp_fin_timeout is about FIN_WAIT2, and keepalive would leave the descriptor open.",
			)
			items = append(items, item)
		}
		return items
	},
}

type closeWaitReason struct {
	name  string
	n     int64
	cause string
}

func (cw *CloseWait) reasons() []closeWaitReason {
	return []closeWaitReason{
		{"drained, never closed", cw.Drained, "It has read everything, or has nothing left to read: look for a missing close() after read() returns 0, on the paths of errors first."},
		{"unread data", cw.Unread, "It does not read these sockets: look for readers that are blocked or gone."},
		{"all read but the FIN", cw.FinUnread, "It does not look at these sockets: idle connections of a pool, or responses that nobody closes. Let the pool test or drop idle connections before the peer does."},
		{"not accepted", cw.NotAccepted, "They wait in the backlog of a listener: it does not call accept(), or not fast enough."},
		{"of the kernel", cw.Kernel, "They belong to the kernel itself: no process can close them."},
	}
}

// cause says what most of the sockets show.
func (cw *CloseWait) cause() string {
	best := closeWaitReason{cause: "Look for a missing close() after read() returns 0; tcptrace --watch close_wait shows why each socket is stuck."}
	for _, r := range cw.reasons() {
		if r.n > best.n {
			best = r
		}
	}
	return best.cause
}

var resetUnread = Rule{
	Name:   "reset-unread",
	Speaks: fmt.Sprintf("a process closed %d or more connections with data unread, so that the kernel sent an RST", resetsMin),
	Advice: "read to the end before close(); half-close to stop a sender",
	Cost:   "The connection lives on until the peer has closed too, and then in TIME_WAIT.",
	Sources: []string{
		rfcUnread, rfcUnreadBug, rfcTearDown, counterDoc("TCPAbortOnClose"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Processes {
			p := &f.Processes[i]
			if p.ResetUnread < resetsMin {
				continue
			}
			item := Item{
				Severity: Warning,
				Title:    fmt.Sprintf("%s closed %s with data unread: the peer got an RST", who(p.PID, p.Comm), plural(p.ResetUnread, "connection", "connections")),
				weight:   float64(p.ResetUnread),
				Evidence: []Evidence{count("closed with data unread", p.ResetUnread, "connections")},
				Change: "Read until read() returns 0 before close(). To stop a peer that goes on sending: shutdown(SHUT_WR), " +
					"read and throw away what comes, then close(). An RST makes the peer drop what it has received and not read yet, " +
					"the end of a response for example.",
			}
			item.Evidence = f.ended(item.Evidence, p)
			item.Evidence = f.space(p.NetNS).counters(item.Evidence, abortOnClose)
			item.Evidence = f.where(item.Evidence, p.NetNS)
			items = append(items, item)
		}
		return items
	},
}

// ended appends how many connections of the process ended in the run.
func (f *Facts) ended(list []Evidence, p *Process) []Evidence {
	return some(list, "its connections that ended", p.Accepted.total()+p.Connected.total(), "connections")
}

var linger0 = Rule{
	Name:   "linger0",
	Speaks: fmt.Sprintf("a process closed %d or more connections by RST with SO_LINGER and a time of 0", resetsMin),
	Advice: "close normally, unless it is meant",
	Cost:   "Whichever side closes first keeps a TIME_WAIT for 60 s.",
	Sources: []string{
		manLinger, rfcHazards, rfcTimeWait, counterDoc("TCPAbortOnData"),
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Processes {
			p := &f.Processes[i]
			if p.ResetLinger0 < resetsMin {
				continue
			}
			item := Item{
				Severity: Note,
				Title:    fmt.Sprintf("%s ended %s by RST with SO_LINGER 0", who(p.PID, p.Comm), plural(p.ResetLinger0, "connection", "connections")),
				weight:   float64(p.ResetLinger0),
				Evidence: []Evidence{count("closed with SO_LINGER 0", p.ResetLinger0, "connections")},
				Change: "Leave SO_LINGER alone unless this is meant, as in health checks and load generators: what was not sent yet is thrown away, " +
					"the peer gets ECONNRESET, and without TIME_WAIT late segments may reach the next connection on these ports. " +
					"To be rid of TIME_WAIT, let the peer close first, or reuse connections.",
			}
			item.Evidence = f.ended(item.Evidence, p)
			item.Evidence = f.space(p.NetNS).counters(item.Evidence, abortOnData)
			item.Evidence = f.where(item.Evidence, p.NetNS)
			items = append(items, item)
		}
		return items
	},
}

var serverClosesFirst = Rule{
	Name: "server-closes-first",
	Speaks: fmt.Sprintf("a process closed first on %d or more of the connections that it accepted, and on more than %d %% of them, and %d or more TIME_WAITs followed",
		serverCloses, serverPercent, serverCloses),
	Advice: "keep connections alive and let clients close; or leave it, for TIME_WAIT on a server is no fault",
	Cost:   "Connections kept alive hold a descriptor and memory each while they are idle.",
	Sources: []string{
		rfcTimeWait, rfcPersistence, rfcTearDown, kernelDoc("tcp_tw_reuse, tcp_fin_timeout, tcp_max_tw_buckets"), commitRecycle,
	},
	find: func(f *Facts) (items []Item) {
		for i := range f.Processes {
			p := &f.Processes[i]
			all := p.Accepted.total()
			if p.Accepted.Local < serverCloses || p.Accepted.Local*100 <= all*serverPercent || p.TimeWaits < serverCloses {
				continue
			}
			ns := f.space(p.NetNS)
			item := Item{
				Severity: Note,
				Title:    fmt.Sprintf("%s, a server, closes first: %s of %s accepted connections", who(p.PID, p.Comm), thousands(p.Accepted.Local), thousands(all)),
				weight:   float64(p.Accepted.Local),
				Evidence: []Evidence{
					count("closed first by this side", p.Accepted.Local, "connections"),
					count("closed first by the client", max(p.Accepted.Remote, 0), "connections"),
					count("TIME_WAIT entered", p.TimeWaits, "sockets"),
				},
				Change: sentences(
					"The side that closes first keeps a TIME_WAIT for 60 s. With HTTP keep-alive one connection serves many requests, and with an idle timeout "+
						"longer than the clients' it is they who close. Otherwise leave it: on a server a TIME_WAIT takes a little memory and none of the ports that connect() needs.",
					noShorter,
					"tcp_tw_reuse does nothing for incoming connections; tcp_tw_recycle broke clients behind NAT and is gone since Linux 4.12.",
				),
			}
			if rate, ok := f.perSecond(p.TimeWaits); ok {
				item.Evidence = append(item.Evidence,
					Evidence{Name: "TIME_WAIT rate", Value: rate, Unit: UnitPerSec},
					count("steady state (rate x 60 s)", int64(float64(p.TimeWaits)*timeWaitSeconds/(float64(f.Duration)/1e9)+0.5), "sockets"))
			}
			item.Evidence = ns.sysctls(item.Evidence, twBuckets)
			if n, ok := ns.number(finTimeout); ok && n != timeWaitSeconds {
				item.Evidence = ns.sysctls(item.Evidence, finTimeout)
			}
			item.Evidence = f.where(item.Evidence, p.NetNS)
			items = append(items, item)
		}
		return items
	},
}
