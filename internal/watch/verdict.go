package watch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
)

// verdict says in one sentence what is the matter with a group and what to do.
func verdict(g *group) string {
	if g.State == events.CloseWait {
		return closeWait(g)
	}
	n := sockets(g.Count)
	switch g.State {
	case events.TimeWait:
		if g.server > 0 {
			return fmt.Sprintf("%s closed first by this side, the server: let clients close, or keep connections alive", n)
		}
		return fmt.Sprintf("%s closed first by this side: reuse connections (keep-alive, a pool)", n)
	case events.Established:
		if len(g.backlog) > 0 {
			return notAccepted(g, count(g.backlog))
		}
		if g.Unread > 0 {
			return fmt.Sprintf("%s open, %s waiting to be read", n, size(g.Unread))
		}
		return n + " open"
	case events.SynSent:
		return n + " without an answer to the SYN: look at the remote's firewall, route and backlog"
	case events.SynRecv:
		return fmt.Sprintf("%s of %s without the handshake's last ACK", n, ports(g.backlog))
	case events.FinWait1:
		return n + " closed here, the FIN not acknowledged: the peer or the path does not answer"
	case events.FinWait2:
		if g.orphans == g.Count {
			return n + " closed here, not by the peer: tcp_fin_timeout ends those without a process"
		}
		return n + " shut down for writing, still open here: they wait for the peer to close, then for close()"
	case events.LastAck:
		return n + " closed on both sides, the last FIN not acknowledged: the peer or the path does not answer"
	case events.Closing:
		return n + " closed on both sides at once, the FIN not acknowledged"
	case events.Listen:
		switch {
		case g.full.full > 0:
			return fmt.Sprintf("%s listening, backlog full at %d: %d connections wait for accept()", n, g.full.full, g.full.waiting)
		case g.full.waiting > 0:
			return fmt.Sprintf("%s listening, %s waiting for accept()", n, connections(g.full.waiting))
		}
		return n + " listening"
	case events.Close:
		return n + " not connected, still held: never connected, or reset and never closed"
	}
	return n
}

// clauses say what the reason means for n sockets.
var clauses = map[Reason]func(g *group, n int) string{
	ReasonDrained: func(_ *group, n int) string {
		return sockets(n) + " drained, never closed: look for a missing close() after read returns 0"
	},
	ReasonUnread: func(g *group, n int) string {
		return fmt.Sprintf("%s unread, %s waiting: the process does not read them", sockets(n), size(g.unread))
	},
	ReasonFinUnread: func(_ *group, n int) string {
		return sockets(n) + " read to the end but for the peer's FIN, nobody looks at them: a pool's idle connections, " +
			"responses never closed, or handlers that are busy elsewhere"
	},
	ReasonNotAccepted: notAccepted,
	ReasonKernel: func(_ *group, n int) string {
		return sockets(n) + " of the kernel itself: no process can close them"
	},
	ReasonNone: func(_ *group, n int) string {
		return sockets(n) + " for a reason that is not known"
	},
}

// closeWait names the reasons, that of most sockets first.
func closeWait(g *group) string {
	type part struct {
		reason Reason
		n      int
	}
	rest := g.Count
	var parts []part
	for reason, n := range g.Reasons {
		parts = append(parts, part{reason, n})
		rest -= n
	}
	if rest > 0 {
		parts = append(parts, part{ReasonNone, rest})
	}
	slices.SortFunc(parts, func(x, y part) int {
		return cmp.Or(cmp.Compare(y.n, x.n), cmp.Compare(x.reason, y.reason))
	})
	var text []string
	for _, p := range parts {
		text = append(text, clauses[p.reason](g, p.n))
	}
	if g.PID == 0 && g.Reasons[ReasonKernel]+g.Reasons[ReasonNotAccepted] == 0 {
		text = append(text, "no process is seen to hold them")
	}
	return strings.Join(text, "; ")
}

func notAccepted(g *group, n int) string {
	return fmt.Sprintf("backlog of %s not accepted%s: %d waiting", ports(g.backlog), by(g.doors), n)
}

// by names those who could accept where there are several, three at most: one alone
// is named by its group.
func by(holders []*Holder) string {
	holders = withoutInit(holders)
	if len(holders) < 2 {
		return ""
	}
	var names []string
	for _, h := range holders[:min(len(holders), 3)] {
		names = append(names, fmt.Sprintf("%s[%d]", h.Comm, h.PID))
	}
	if more := len(holders) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return " by " + enumerate(names)
}

// enumerate joins words with commas and, before the last, an "and".
func enumerate(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// ports names the local ports of a backlog, fullest first, three at most.
func ports(backlog map[uint16]int) string {
	list := make([]uint16, 0, len(backlog))
	for p := range backlog {
		list = append(list, p)
	}
	slices.SortFunc(list, func(x, y uint16) int {
		return cmp.Or(cmp.Compare(backlog[y], backlog[x]), cmp.Compare(x, y))
	})
	var text []string
	for _, p := range list[:min(len(list), 3)] {
		text = append(text, portText(p))
	}
	if more := len(list) - len(text); more > 0 {
		text = append(text, fmt.Sprintf("%d more", more))
	}
	return enumerate(text)
}

func count(backlog map[uint16]int) int {
	sum := 0
	for _, n := range backlog {
		sum += n
	}
	return sum
}

func sockets(n int) string {
	if n == 1 {
		return "1 socket"
	}
	return fmt.Sprintf("%d sockets", n)
}

func connections(n int64) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// size writes a number of bytes.
func size(n int64) string {
	switch {
	case n == 1:
		return "1 byte"
	case n < 10<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}
