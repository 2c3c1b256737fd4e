package render

import (
	"io"
	"strconv"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// SummaryJSON writes JSON lines of schema 1: the header, lost, resync and limit
// lines as they come, and a line of type summary at the end.
type SummaryJSON struct{ members }

// NewSummaryJSON returns a Summary of JSON lines with wall times by clock.
func NewSummaryJSON(w io.Writer, clock events.Clock) *SummaryJSON {
	return &SummaryJSON{members{newLines(w, clock)}}
}

// Summary writes the summary line.
func (j *SummaryJSON) Summary(s *account.Summary) error {
	j.buf = j.enc.AppendType(j.buf, "summary", s.End)
	j.name("begin")
	j.buf = j.enc.AppendTime(j.buf, s.Begin)
	j.int("duration_ns", s.Span())
	j.text("hooks", s.Hooks)
	j.text("by", s.By.String())
	j.bool("exact", s.Exact())
	j.int("quantile_error_percent", account.ErrorPercent)
	j.text("counts_from", map[bool]string{true: "walk", false: "events"}[s.FromWalk])
	j.name("counts")
	j.str("{")
	for i, state := range events.AllStates.List() {
		if i > 0 {
			j.str(",")
		}
		j.str(`"` + state.String() + `":`)
		j.buf = j.enc.AppendNS(j.buf, s.Now[state])
	}
	j.str("}")
	j.group(s.Total, true)
	j.name("groups")
	j.str("[")
	for i, g := range s.Groups {
		if i > 0 {
			j.str(",")
		}
		j.str("{")
		j.key(s.By, &g.Key)
		j.group(g, false)
		j.str("}")
	}
	j.str("]")
	j.name("others")
	if s.Others == nil {
		j.str("null")
	} else {
		j.str(`{"groups":` + strconv.FormatUint(s.Folded, 10))
		j.group(s.Others, false)
		j.str("}")
	}
	j.name("closed_by")
	j.str("[")
	for i := range s.ClosedBy {
		c := &s.ClosedBy[i]
		if i > 0 {
			j.str(",")
		}
		j.str(`{"closed":` + strconv.FormatUint(c.Closed, 10))
		j.pid(c.Process.PID, c.Process.Comm)
		j.sides(&c.First)
		j.str("}")
	}
	j.str("]")
	j.count("closed_by_others", s.ClosedByOthers)
	j.timeWait(&s.TimeWait)
	j.name("ports")
	j.str("[")
	for i := range s.Ports {
		if i > 0 {
			j.str(",")
		}
		u := &s.Ports[i]
		j.str(`{"netns":` + strconv.FormatUint(uint64(u.NetNS), 10))
		j.portUse(u)
		j.str("}")
	}
	j.str("]")
	j.name("advice")
	j.buf = AppendAdviceJSON(j.buf, j.enc, s.Advice)
	j.str(`,"lost":{"count":` + strconv.FormatUint(s.Lost.Count, 10))
	j.count("times", s.Lost.Times)
	j.name("since")
	if s.Lost.Since < 0 {
		j.str("null")
	} else {
		j.buf = j.enc.AppendTime(j.buf, s.Lost.Since)
	}
	j.str(`},"resync":{"times":` + strconv.FormatUint(s.Resyncs.Times, 10))
	j.count("corrected", s.Resyncs.Corrected)
	j.count("removed", s.Resyncs.Removed)
	j.count("added", s.Resyncs.Added)
	j.str("}")
	j.count("vanished", s.Vanished)
	j.count("forgotten", s.Forgotten)
	j.count("untracked", s.Untracked)
	j.str("}\n")
	return j.Flush()
}

func (j *members) count(name string, n uint64) {
	j.name(name)
	j.buf = strconv.AppendUint(j.buf, n, 10)
}

// portUse appends the members of a use of local ports.
func (j *members) portUse(u *watch.PortUse) {
	j.text("local", u.Local)
	j.text("remote", u.Remote)
	j.int("used", int64(u.Used))
	j.int("time_wait", int64(u.TimeWait))
	j.known("range", int64(u.Range))
	j.known("full_in_ns", u.FullIn)
}

// key appends the members that name a group, the first without its comma.
func (j *SummaryJSON) key(by account.By, k *account.Key) {
	at := len(j.buf)
	switch by {
	case account.ByProcess:
		j.pid(k.Process.PID, k.Process.Comm)
	case account.ByRemote:
		addr := ""
		if k.Remote.Addr().IsValid() {
			addr = k.Remote.Addr().Unmap().String()
		}
		j.text("raddr", addr)
		j.port("rport", k.Remote.Port())
	case account.ByLocalPort:
		j.port("lport", k.Port)
	case account.ByCgroup:
		j.text("cgroup", k.Cgroup)
		j.known("cgroup_id", idOrUnknown(k.CgroupID))
	case account.ByNetNS:
		j.known("netns", idOrUnknown(uint64(k.NetNS)))
	}
	j.buf = append(j.buf[:at], j.buf[at+1:]...)
}

func idOrUnknown(id uint64) int64 {
	if id == 0 {
		return events.Unknown
	}
	return int64(id)
}

// port appends a port, or null for 0.
func (j *members) port(name string, port uint16) {
	j.known(name, idOrUnknown(uint64(port)))
}

// group appends the members that are told of all connections and of each group;
// every state with all, else only those in which there was something.
func (j *SummaryJSON) group(g *account.Group, all bool) {
	j.str(`,"states":{`)
	first := true
	for _, state := range events.AllStates.List() {
		s := &g.States[state]
		if !all && s.Now == 0 && s.Entered == 0 && s.Left == 0 {
			continue
		}
		if !first {
			j.str(",")
		}
		first = false
		j.str(`"` + state.String() + `":`)
		j.state(s)
	}
	j.str("}")
	j.str(`,"opened":{"active":` + strconv.FormatUint(g.Opened[events.OpenedActive], 10))
	j.count("passive", g.Opened[events.OpenedPassive])
	j.str("}")
	j.count("closed", g.Ends.Closed)
	j.count("closed_inexact", g.Ends.Inexact)
	j.sides(&g.Ends.First)
	j.words("how", len(hows), func(i int) (string, uint64) { return howWord(hows[i]), g.Ends.How[hows[i]] })
	j.words("resets", len(resetKinds), func(i int) (string, uint64) {
		return resetKinds[i].String(), g.Ends.Reset[resetKinds[i]]
	})
	j.ends(&g.Ends)
	j.timeWaitEnds(&g.TimeWaitEnded, g.TimeWaitOverflow)
}

// words appends an object of n counts.
func (j *members) words(name string, n int, of func(i int) (string, uint64)) {
	j.name(name)
	j.str("{")
	for i := range n {
		word, count := of(i)
		if i > 0 {
			j.str(",")
		}
		j.str(`"` + word + `":` + strconv.FormatUint(count, 10))
	}
	j.str("}")
}

func (j *members) sides(first *[5]uint64) {
	j.words("closers", len(sides), func(i int) (string, uint64) { return sides[i].String(), first[sides[i]] })
}

// ends appends what occurred, one by the other.
func (j *SummaryJSON) ends(e *account.Ends) {
	j.str(`,"ends":[`)
	first := true
	for _, side := range sides {
		for _, how := range hows {
			for kind, n := range e.Matrix[side][how] {
				if n == 0 {
					continue
				}
				if !first {
					j.str(",")
				}
				first = false
				j.str(`{"closer":"` + side.String() + `"`)
				j.text("how", how.String())
				j.text("reset", events.ResetKind(kind).String())
				j.count("count", n)
				j.str("}")
			}
		}
	}
	j.str("]")
}

func (j *members) timeWaitEnds(ended *[6]uint64, overflow uint64) {
	j.words("time_wait_ended", len(timeWaitEnds)+1, func(i int) (string, uint64) {
		if i == len(timeWaitEnds) {
			return "overflow", overflow
		}
		return timeWaitEnds[i].String(), ended[timeWaitEnds[i]]
	})
}

// state appends the object of one state.
func (j *SummaryJSON) state(s *account.State) {
	j.str(`{"now":` + strconv.FormatUint(s.Now, 10))
	j.known("oldest_ns", s.Oldest)
	j.name("oldest_exact")
	if s.Now == 0 {
		j.str("null")
	} else {
		j.buf = strconv.AppendBool(j.buf, s.OldestExact)
	}
	j.count("entered", s.Entered)
	j.count("left", s.Left)
	j.count("count", s.Stay.Count)
	j.count("approx", s.Stay.Approx)
	j.known("p50_ns", s.Stay.P50)
	j.known("p90_ns", s.Stay.P90)
	j.known("p99_ns", s.Stay.P99)
	j.known("max_ns", s.Stay.Max)
	j.known("mean_ns", s.Stay.Mean)
	j.count("at_least", s.Stay.AtLeast)
	j.known("at_least_max_ns", s.Stay.AtLeastMax)
	j.count("unknown", s.Stay.Unknown)
	j.str(`,"histogram":[`)
	first := true
	for cell, n := range s.Stay.Histogram {
		if n == 0 {
			continue
		}
		if !first {
			j.str(",")
		}
		first = false
		j.str(`{"below_ns":`)
		if cell < len(account.Bounds) {
			j.buf = strconv.AppendInt(j.buf, account.Bounds[cell], 10)
		} else {
			j.str("null")
		}
		j.count("count", n)
		j.str("}")
	}
	j.str("]}")
}

func (j *SummaryJSON) timeWait(w *account.TimeWait) {
	j.str(`,"time_wait":{"entered":` + strconv.FormatUint(w.Entered, 10))
	j.rate("per_second", w.PerSecond)
	j.known("steady_state", w.Steady)
	j.known("mean_ns", w.Mean)
	j.timeWaitEnds(&w.Ended, w.Overflow)
	j.str(`,"by":[`)
	for i := range w.By {
		by := &w.By[i]
		if i > 0 {
			j.str(",")
		}
		j.str(`{"entered":` + strconv.FormatUint(by.Entered, 10))
		j.rate("per_second", by.PerSecond)
		j.pid(by.Process.PID, by.Process.Comm)
		k := account.Key{Remote: by.Remote}
		j.str(",")
		j.key(account.ByRemote, &k)
		j.str("}")
	}
	j.str("]")
	j.count("by_others", w.Others)
	j.str("}")
}

// rate appends a number per second, or null for a negative one.
func (j *members) rate(name string, v float64) {
	j.name(name)
	if v < 0 {
		j.str("null")
		return
	}
	j.buf = strconv.AppendFloat(j.buf, v, 'f', 3, 64)
}
