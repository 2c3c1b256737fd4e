package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

func TestFailOnOptions(t *testing.T) {
	for _, tc := range []struct {
		args      string
		rules     []watch.Rule
		leaksOnly bool
		interval  time.Duration
	}{
		{args: "-- true"},
		{"--fail-on close_wait:5s -- true", []watch.Rule{{States: events.Set(events.CloseWait), Age: 5e9}}, true, time.Second},
		{"--fail-on Close-Wait,FIN-WAIT-2:0.5 --fail-on estab:1h -- true", []watch.Rule{
			{States: events.Set(events.CloseWait, events.FinWait2), Age: 5e8}, {States: events.Set(events.Established), Age: 3600e9},
		}, true, 250 * time.Millisecond},
		{"--fail-on close_wait:1ms --pid 1 --netns self -- true", []watch.Rule{{States: events.Set(events.CloseWait), Age: 1e6}}, true, minInterval},
		{"--fail-on close_wait:5s", []watch.Rule{{States: events.Set(events.CloseWait), Age: 5e9}}, false, time.Second},
		{"--fail-on close_wait:5s -o json -- true", []watch.Rule{{States: events.Set(events.CloseWait), Age: 5e9}}, false, time.Second},
		{"--fail-on close_wait:5s --count 3 -- true", []watch.Rule{{States: events.Set(events.CloseWait), Age: 5e9}}, false, time.Second},
		{"--fail-on close_wait:5s --watch listen -- true", []watch.Rule{{States: events.Set(events.CloseWait), Age: 5e9}}, false, time.Second},
	} {
		opt, err := parseOptions(strings.Fields(tc.args))
		if err != nil {
			t.Errorf("%s: %v", tc.args, err)
			continue
		}
		if !slices.Equal(opt.failOn, tc.rules) || opt.leaksOnly != tc.leaksOnly || opt.quiet != tc.leaksOnly || opt.judgeInterval() != tc.interval {
			t.Errorf("%s: got %+v, leaks only %v, quiet %v, each %v, want %+v", tc.args, opt.failOn, opt.leaksOnly, opt.quiet, opt.judgeInterval(), tc)
		}
	}
}
