package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// busyAccount is an account with one of everything that has a look of its own.
func busyAccount(by account.By) *account.Summary {
	const ms = int64(time.Millisecond)
	a := account.New(account.Config{By: by, Hooks: "poll"})
	client, evil := events.Process{PID: 4711, Comm: "orders-api"}, events.Process{PID: 4712, Comm: "e\x1b[2Jvil"}
	conn := func(p events.Process, local, remote string) events.Conn {
		return events.Conn{NetNS: 4026531840, Family: 4, Owner: p, UID: 33, CgroupID: 7, Cgroup: "/system.slice/a-service-with-a-long-name.service",
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
	}
	out := conn(client, "10.0.0.1:40000", "10.0.0.2:5432")
	in := conn(evil, "10.0.0.1:80", "192.0.2.7:50001")
	v6 := conn(events.Process{}, "[2001:db8::1]:443", "[2001:db8:1111:2222:3333:4444:5555:6666]:50001")
	v6.Family, v6.Cgroup = 6, ""
	move := func(c *events.Conn, opened events.Opened, from, to events.State, ns int64) *events.Transition {
		return &events.Transition{Conn: *c, Old: from, New: to, InOld: ns, InOldMin: events.Unknown, Exact: true, Opened: opened}
	}
	for i := range int64(1234) {
		a.Transition(move(&out, events.OpenedActive, events.Close, events.SynSent, events.Unknown))
		a.Transition(move(&out, events.OpenedActive, events.SynSent, events.Established, ms/3))
		a.Transition(move(&out, events.OpenedActive, events.Established, events.FinWait1, i*i*1000))
		tw := move(&out, events.OpenedActive, events.FinWait2, events.TimeWait, 40*ms)
		tw.ClosedBy = client
		a.Transition(tw)
		gone := move(&out, events.OpenedActive, events.TimeWait, events.Close, 60*sec+i*ms)
		gone.Exact = i%10 > 0
		a.Transition(gone)
		closed := &events.Closed{Conn: out, Opened: events.OpenedActive, Closer: events.SideLocal, How: events.HowFIN,
			TimeWaitEnd: events.TimeWaitExpired, ClosedBy: client, Exact: gone.Exact}
		if i%100 == 0 {
			closed.TimeWaitEnd = events.TimeWaitReused
		}
		a.Closed(closed)
	}
	for i := range int64(30) {
		a.Transition(move(&in, events.OpenedPassive, events.Listen, events.SynRecv, events.Unknown))
		a.Transition(move(&in, events.OpenedPassive, events.SynRecv, events.Established, 12*ms))
		a.Transition(move(&in, events.OpenedPassive, events.Established, events.CloseWait, i*sec))
		a.Closed(&events.Closed{Conn: in, Opened: events.OpenedPassive, Closer: events.SideRemote, How: events.HowRST,
			Reset: []events.ResetKind{events.ResetUnread, events.ResetLinger0, events.ResetPeer}[i%3], ClosedBy: evil, Exact: true})
	}
	for range 5 {
		bound := move(&v6, events.OpenedUnknown, events.CloseWait, events.LastAck, events.Unknown)
		bound.InOldMin = 724 * sec
		a.Transition(bound)
		a.Transition(move(&v6, events.OpenedUnknown, events.LastAck, events.Close, events.Unknown))
		a.Closed(&events.Closed{Conn: v6, Closer: events.SideUnknown, How: events.HowUnknown})
		a.Closed(&events.Closed{Conn: v6, Closer: events.SideNone, How: events.HowTimeout})
		a.Closed(&events.Closed{Conn: out, Opened: events.OpenedActive, Closer: events.SideRemote, How: events.HowRefused, Reset: events.ResetPeer})
		a.Closed(&events.Closed{Conn: out, Opened: events.OpenedActive, Closer: events.SideNone, How: events.HowAbort})
	}
	a.Closed(&events.Closed{Conn: out, Opened: events.OpenedActive, Closer: events.SideBoth, How: events.HowFIN, TimeWaitOverflow: true, ClosedBy: evil})
	a.Lost(&events.Lost{TS: 70 * sec, Count: 12345, Total: 12345, Since: 69 * sec})
	a.Resync(&events.Resync{Corrected: 3, Removed: 2, Added: 1})
	for i := range int64(35) {
		a.Living(&aggregate.Info{Conn: in, State: events.CloseWait, Since: (50 + i) * sec, SinceExact: i > 0}, 120*sec)
	}
	a.Living(&aggregate.Info{Conn: conn(evil, "0.0.0.0:80", "0.0.0.0:0"), State: events.Listen, Since: 100 * sec, SinceExact: true}, 120*sec)
	now := [events.NumStates]int{events.CloseWait: 35, events.Listen: 1, events.SynRecv: 7, events.TimeWait: 1234567}
	return a.Summary(account.End{
		Begin: 20 * sec, End: 120 * sec, Walked: true, Now: &now, Stats: aggregate.Stats{Vanished: 4},
		Ports: []watch.PortUse{{NetNS: 4026531840, Local: "10.0.0.1", Remote: "10.0.0.2:5432", Used: 28000, TimeWait: 27000, Range: 28232, FullIn: 30 * sec}},
	})
}

func quietAccount() *account.Summary {
	a := account.New(account.Config{Hooks: "fentry"})
	return a.Summary(account.End{Begin: 20 * sec, End: 21 * sec})
}

var someAdvice = []advice.Item{{
	Rule: "close-wait", Severity: advice.Warning, Title: "e\x1b[2Jvil (4712) does not close 35 sockets that the peer has closed",
	Evidence: []advice.Evidence{{Name: "in CLOSE_WAIT now", Value: 35, Unit: "sockets"}}, Change: "Close them.", Cost: "A change of the program.",
	Sources: []string{"RFC 9293 section 3.3.2"},
}}

func TestSummaryText(t *testing.T) {
	withAdvice := busyAccount(account.ByProcess)
	withAdvice.Advice = someAdvice
	for _, tt := range []struct {
		name string
		s    *account.Summary
		cfg  WatchTextConfig
	}{
		{"summary-80.txt", withAdvice, WatchTextConfig{}},
		{"summary-120.txt", withAdvice, WatchTextConfig{Width: 120, Groups: 1}},
		{"summary-color.txt", withAdvice, WatchTextConfig{Color: true}},
		{"summary-remote.txt", busyAccount(account.ByRemote), WatchTextConfig{}},
		{"summary-cgroup.txt", busyAccount(account.ByCgroup), WatchTextConfig{}},
		{"summary-port.txt", busyAccount(account.ByLocalPort), WatchTextConfig{}},
		{"summary-empty.txt", quietAccount(), WatchTextConfig{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.cfg.Clock, tt.cfg.Location = events.Clock{OffsetNS: 1700000000 * sec}, time.UTC
			if err := NewSummaryText(&out, tt.cfg).Summary(tt.s); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				line = strings.TrimSuffix(line, "\n")
				if w := width(line); !tt.cfg.Color && w > max(tt.cfg.Width, 80) {
					t.Errorf("%d columns: %s", w, line)
				}
				if strings.TrimRight(line, " ") != line {
					t.Errorf("spaces at the end of %q", line)
				}
				if !tt.cfg.Color && strings.Contains(line, "\x1b") {
					t.Errorf("an escape in %q", line)
				}
			}
			golden(t, tt.name, out.Bytes())
		})
	}
}

func TestSummaryJSON(t *testing.T) {
	var out bytes.Buffer
	j := NewSummaryJSON(&out, events.Clock{OffsetNS: 1700000000 * sec})
	j.Header(&events.Header{Schema: 1, Version: "v0", Kernel: "6.12", Hooks: "poll"})
	j.Lost(&events.Lost{TS: 70 * sec, Count: 1, Total: 1, Since: events.Unknown})
	j.Resync(&events.Resync{TS: 71 * sec})
	s := busyAccount(account.ByProcess)
	s.Advice = someAdvice
	if err := j.Summary(s); err != nil {
		t.Fatal(err)
	}
	if err := j.Summary(quietAccount()); err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	keys := NewSummaryJSON(&other, events.Clock{})
	for by, want := range map[account.By]string{
		account.ByRemote:    `{"raddr":"10.0.0.2","rport":5432,`,
		account.ByLocalPort: `{"lport":40000,`,
		account.ByCgroup:    `{"cgroup":null,"cgroup_id":7,`,
		account.ByNetNS:     `{"netns":4026531840,`,
	} {
		other.Reset()
		if err := keys.Summary(busyAccount(by)); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(other.Bytes()) || !strings.Contains(other.String(), want) {
			t.Errorf("by %s: no %s in %s", by, want, &other)
		}
	}
	for line := range bytes.Lines(out.Bytes()) {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Errorf("%v in %s", err, line)
		}
	}
	golden(t, "summary.json", out.Bytes())
}

// A writer's error is told.
func TestSummaryError(t *testing.T) {
	want := errors.New("no room")
	for _, s := range []Summary{
		NewSummaryText(failingWriter{want}, WatchTextConfig{}), NewSummaryJSON(failingWriter{want}, events.Clock{}),
	} {
		if err := s.Summary(quietAccount()); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
