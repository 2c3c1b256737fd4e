package main

import (
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/filter"
	"github.com/tcptrace/tcptrace/internal/render"
)

// sink stands between the connection table and the renderer: it completes the
// lines, leaves out what is not wanted, and ends the stream after --count lines.
type sink struct {
	out    render.Stream
	filter *filter.Filter
	// recorded is the filter of the trace that is replayed; nil: none.
	recorded *filter.Filter
	cgroup   func(id uint64) string // nil: the lines have it already
	// closedCounts: a closed line is a line of its own (json), not the end of
	// another (text).
	closedCounts bool
	left         uint64 // lines until the end, with limited
	limited      bool
	last         uint64 // the connection of the last transition shown ...
	lastIsEnd    bool   // ... which was to CLOSE
}

// newSink returns a sink that leaves out what opt does.
func newSink(opt *options, out render.Stream) *sink {
	return &sink{out: out, filter: &opt.filter, closedCounts: opt.json, left: opt.count, limited: opt.count > 0}
}

// done reports whether --count lines were shown.
func (s *sink) done() bool { return s.limited && s.left == 0 }

func (s *sink) complete(c *events.Conn) {
	if s.cgroup != nil {
		c.Cgroup = s.cgroup(c.CgroupID)
	}
}

func (s *sink) Transition(t *events.Transition) {
	if s.done() {
		return
	}
	s.complete(&t.Conn)
	if (s.recorded != nil && !s.recorded.Transition(t)) || !s.filter.Transition(t) {
		return
	}
	s.out.Transition(t)
	s.last, s.lastIsEnd = t.ID, t.New == events.Close
	s.count()
}

func (s *sink) Closed(c *events.Closed) {
	// What closes the last connection belongs to its line.
	if s.done() && (s.closedCounts || !s.lastIsEnd || c.ID != s.last) {
		return
	}
	s.complete(&c.Conn)
	if (s.recorded != nil && !s.recorded.Closed(c)) || !s.filter.Closed(c) {
		return
	}
	s.out.Closed(c)
	if s.closedCounts {
		s.count()
	}
}

// living reports whether a connection that lives is wanted, and completes it.
func (s *sink) living(c *events.Conn) bool {
	s.complete(c)
	return (s.recorded == nil || s.recorded.Conn(c)) && s.filter.Conn(c)
}

func (s *sink) Lost(l *events.Lost) { s.out.Lost(l) }

func (s *sink) Limit(l *events.Limit) { s.out.Limit(l) }

func (s *sink) Resync(r *events.Resync) { s.out.Resync(r) }

func (s *sink) count() {
	if s.limited {
		s.left--
	}
}
