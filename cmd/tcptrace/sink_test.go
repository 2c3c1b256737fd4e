package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/filter"
)

// recorder notes what a renderer is told.
type recorder struct{ lines []string }

func (r *recorder) Header(*events.Header) {}
func (r *recorder) Transition(t *events.Transition) {
	r.lines = append(r.lines, fmt.Sprintf("%d %s %s", t.ID, t.New, t.Cgroup))
}
func (r *recorder) Closed(c *events.Closed) {
	r.lines = append(r.lines, fmt.Sprintf("%d closed %s", c.ID, c.Cgroup))
}
func (r *recorder) Lost(l *events.Lost)     { r.lines = append(r.lines, "lost") }
func (r *recorder) Resync(l *events.Resync) { r.lines = append(r.lines, "resync") }
func (r *recorder) Limit(l *events.Limit)   { r.lines = append(r.lines, "limit") }
func (r *recorder) Flush() error            { return nil }

func playSink(s *sink) {
	for id := uint64(1); id <= 3; id++ {
		c := events.Conn{ID: id, CgroupID: id, UID: -1, Owner: events.Process{PID: uint32(id)}}
		s.Transition(&events.Transition{Conn: c, Old: events.Close, New: events.SynSent})
		s.Transition(&events.Transition{Conn: c, Old: events.SynSent, New: events.Close})
		s.Closed(&events.Closed{Conn: c})
	}
	s.Lost(&events.Lost{})
	s.Resync(&events.Resync{})
	s.Limit(&events.Limit{})
}

func TestSink(t *testing.T) {
	paths := func(id uint64) string {
		if id == 3 {
			return ""
		}
		return fmt.Sprintf("/c%d", id)
	}
	all := []string{
		"1 SYN_SENT /c1", "1 CLOSE /c1", "1 closed /c1",
		"2 SYN_SENT /c2", "2 CLOSE /c2", "2 closed /c2",
		"3 SYN_SENT ", "3 CLOSE ", "3 closed ",
	}
	tail := []string{"lost", "resync", "limit"}
	for _, tc := range []struct {
		name string
		sink sink
		want []string
		done bool
	}{
		{"everything", sink{}, slices.Concat(all, tail), false},
		{"filter", sink{filter: &filter.Filter{PIDs: []uint32{2}}}, slices.Concat(all[3:6], tail), false},
		{"filter by cgroup", sink{filter: &filter.Filter{Cgroup: "/c1"}}, slices.Concat(all[:3], tail), false},
		// In text what closed a connection is on its last line.
		{"count, text", sink{limited: true, left: 2}, slices.Concat(all[:3], tail), true},
		{"count, text, in between", sink{limited: true, left: 3}, slices.Concat(all[:4], tail), true},
		{"count, json", sink{limited: true, left: 2, closedCounts: true}, slices.Concat(all[:2], tail), true},
		{"count, json, closed", sink{limited: true, left: 3, closedCounts: true}, slices.Concat(all[:3], tail), true},
		{"count of what passes", sink{filter: &filter.Filter{PIDs: []uint32{3}}, limited: true, left: 1}, slices.Concat(all[6:7], tail), true},
	} {
		r := &recorder{}
		s := tc.sink
		s.out, s.cgroup = r, paths
		if s.filter == nil {
			s.filter = &filter.Filter{}
		}
		playSink(&s)
		if !slices.Equal(r.lines, tc.want) || s.done() != tc.done {
			t.Errorf("%s: got %q, done %v, want %q, %v", tc.name, r.lines, s.done(), tc.want, tc.done)
		}
	}
}

func TestWantColor(t *testing.T) {
	for _, tc := range []struct {
		when, noColor, term string
		terminal, want      bool
	}{
		{"auto", "", "xterm", true, true},
		{"auto", "", "xterm", false, false},
		{"auto", "1", "xterm", true, false},
		{"auto", "", "dumb", true, false},
		{"always", "1", "dumb", false, true},
		{"never", "", "xterm", true, false},
	} {
		t.Setenv("NO_COLOR", tc.noColor)
		t.Setenv("TERM", tc.term)
		if got := wantColor(tc.when, tc.terminal); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
}
