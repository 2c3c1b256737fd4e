package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/facts"
	"github.com/tcptrace/tcptrace/internal/filter"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// summaryFlags defines --summary and --by.
func (opt *options) summaryFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&opt.summary, "summary", false, "")
	by := choice(func(v string) { opt.by, _ = account.ParseBy(v) }, account.ByNames()...)
	flags.Var(&flagValue{set: by}, "by", "")
}

// checkSummary finds what does not go with --summary, or not without.
func (opt *options) checkSummary(flags *pflag.FlagSet) error {
	if !opt.summary {
		if flags.Changed("by") {
			return usageErrorf("--by is for --summary: want both, or neither")
		}
		return nil
	}
	for _, f := range []struct{ name, why string }{
		{"watch", "one is about all of the trace, the other about what is there now"},
		{"state", "the account has every state"},
		{"min-age", "the account has the short stays as well"},
		{"count", "--count is about lines; want --duration, Ctrl-C or a command to end it"},
		{"time", "--time is about lines of transitions"},
		{"timestamp", "--timestamp is about lines of transitions"},
		{"wide", "--wide is about lines of transitions"},
	} {
		if flags.Changed(f.name) {
			return usageErrorf("--summary and --%s contradict each other: %s", f.name, f.why)
		}
	}
	return nil
}

// summaryGroups bounds the groups in the text; -o json has all.
const summaryGroups = 10

// walkLasts is how old, at the end, the last walk over the sockets may be to tell
// what is there: an older one, of a recording without one at its end, does not.
const walkLasts = int64(2e9)

// summary makes the account of a trace or of a recording. The methods may be called
// without one, on nil.
type summary struct {
	*account.Account
	facts  *facts.Collector
	out    render.Summary
	store  *watch.Store
	begin  int64
	last   int64 // time of the last record
	walked int64 // end of the last whole walk, 0: none
	asked  bool  // about the processes of the first walk
	// byOwner: sockets are wanted by their owner, which of timewait and request
	// sockets a walk does not tell.
	byOwner bool

	result *account.Summary
}

// newSummary returns the account that opt asks for, of a trace that begins at begin.
func newSummary(opt *options, std stdio, clock events.Clock, hooks string, begin int64) *summary {
	s := &summary{Account: account.New(account.Config{By: opt.by, Hooks: hooks}), begin: begin, last: begin}
	if opt.json {
		s.out = render.NewSummaryJSON(std.out, clock)
		return s
	}
	columns, isTerminal := terminal(std.out)
	s.out = render.NewSummaryText(std.out, render.WatchTextConfig{
		Width: columns, Groups: summaryGroups, Color: wantColor(opt.color, isTerminal), Clock: clock,
	})
	return s
}

// watch sets what knows the sockets that are there, and the kernel's values; the
// filters say which are wanted.
func (s *summary) watch(cfg watch.Config, kernel func(netns uint32) (facts.Kernel, bool), filters ...*filter.Filter) {
	for _, f := range filters {
		s.byOwner = s.byOwner || f.PIDs != nil || f.Comms != nil || f.UIDs != nil || f.Cgroup != "" || f.Command != nil
	}
	cfg.PortUse = true
	cfg.States = events.Set(events.CloseWait, events.Listen)
	if cfg.Match != nil {
		// The others would be counted without regard to it.
		cfg.States = events.AllStates
	}
	s.store = watch.NewStore(cfg)
	s.facts = facts.New(facts.Config{Processes: cfg.Processes, Ports: cfg.Ports, Kernel: kernel})
}

// add takes the next record: of the store's, those of walks, for the rest is the
// table's.
func (s *summary) add(r *events.Record) {
	if s == nil {
		return
	}
	s.last = max(s.last, r.TS)
	switch r.Kind {
	case events.KindHoldersEnd:
		s.walked = r.TS
		s.store.Add(r)
	case events.KindSocket, events.KindScanBegin, events.KindScanEnd, events.KindHoldersBegin, events.KindHolder:
		s.store.Add(r)
	}
}

// ask asks, after the first walk, who holds what is there: a recording that knows it
// can be shown with --watch as well.
func (s *summary) ask() {
	if s != nil && !s.asked && s.walked > 0 {
		s.asked = true
		s.store.Snapshot(s.last)
	}
}

// end closes the account, before a recording ends: it is told what is asked about
// processes and ports.
func (s *summary) end(table *aggregate.Table, wanted *sink) {
	if s == nil {
		return
	}
	table.Each(func(i *aggregate.Info) bool {
		if wanted.living(&i.Conn) {
			s.Living(i, s.last)
			s.facts.Living(i, s.last)
		}
		return true
	})
	end := account.End{Begin: s.begin, End: s.last, Stats: table.Stats()}
	var snap *watch.Snapshot
	if s.walked > 0 && s.last-s.walked <= walkLasts {
		snap = s.store.Snapshot(s.last)
		end.Walked, end.Ports = true, snap.Ports
		if !s.byOwner {
			// iter/tcp has no sockets in CLOSE, and nobody else lists any: they are
			// in none of the kernel's tables.
			snap.Counts[events.Close] = 0
			end.Now = &snap.Counts
		}
	}
	s.result = s.Account.Summary(end)
	s.result.Advice = advice.Advise(s.facts.Facts(s.begin, s.last, snap))
}

// show writes the account.
func (s *summary) show() error {
	if s == nil {
		return nil
	}
	if s.result == nil {
		return s.out.Flush()
	}
	return s.out.Summary(s.result)
}

// Header writes the header.
func (s *summary) Header(h *events.Header) { s.out.Header(h) }

// Transition counts.
func (s *summary) Transition(t *events.Transition) {
	s.Account.Transition(t)
	s.facts.Transition(t)
}

// Closed counts.
func (s *summary) Closed(c *events.Closed) {
	s.Account.Closed(c)
	s.facts.Closed(c)
}

// Lost counts and tells.
func (s *summary) Lost(l *events.Lost) {
	s.Account.Lost(l)
	s.facts.Lost(l)
	s.out.Lost(l)
}

// Resync counts and tells.
func (s *summary) Resync(r *events.Resync) {
	s.Account.Resync(r)
	s.out.Resync(r)
}

// Limit tells.
func (s *summary) Limit(l *events.Limit) { s.out.Limit(l) }

// Flush hands the lines so far to the writer.
func (s *summary) Flush() error { return s.out.Flush() }

// summary prepares the account of a recording; the filter of the recording is
// changed to what an account can have.
func (p *replay) summary(opt *options, std stdio, asked *replayedProcesses) *summary {
	meta := p.Meta()
	s := newSummary(opt, std, meta.Clock, meta.Header.Hooks, meta.Header.TS)
	for _, name := range []string{"state", "min-age"} {
		if v, ok := meta.Attrs[attrFilter+name]; ok {
			warn(std.err, fmt.Sprintf("%s: it was recorded with --%s %s: the account is of all that was recorded", p.name, name, v))
		}
	}
	p.filter.States, p.filter.MinAge = 0, 0
	s.watch(watch.Config{
		Hooks: meta.Header.Hooks, Processes: asked, Ports: asked.ports, Cgroup: p.cgroup, Match: p.match(opt),
		MaxSockets: opt.maxConns,
	}, asked.kernel, &p.filter, &opt.filter)
	return s
}
