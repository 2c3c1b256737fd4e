package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// leaks is an answer with one of everything that has a look of its own.
func leaks() *watch.Snapshot {
	conn := func(id uint64, local, remote string) events.Conn {
		return events.Conn{
			ID: id, Cookie: id + 0xabc0, NetNS: 4026531840, Family: 4, UID: 33, CgroupID: 7, Cgroup: "/system.slice/app.service",
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		}
	}
	app := watch.Holder{
		PID: 4711, Comm: "python3", UID: 33, PPID: 1, Cmdline: []string{"/usr/bin/python3", "-u", "server.py"},
		NofileSoft: 1024, OpenFDs: 812, Unit: watch.Unit{Kind: "systemd", Name: "app.service", Path: "/system.slice/app.service"},
	}
	with := func(h watch.Holder, fds ...uint32) *watch.Holder { h.FDs = fds; return &h }
	child := watch.Holder{PID: 4712, Comm: "e\x1b[2Jvil", UID: -1, NofileSoft: -1, OpenFDs: -1, Unit: watch.Unit{Path: "/x"}}
	srv := watch.Holder{
		PID: 99, Comm: "backend-with-long-name", UID: 0, Cmdline: []string{"/srv/bin/backend", "--listen", ":8080", "--name", strings.Repeat("long", 30)},
		NofileSoft: 1048576, OpenFDs: 1000000,
		Unit: watch.Unit{Kind: "docker", Name: strings.Repeat("0123456789abcdef", 4), Path: "/docker/x"},
	}
	shared := &watch.Socket{
		Conn: conn(1, "10.0.0.1:8080", "10.0.0.2:50001"), State: events.CloseWait, Since: events.Unknown, Age: 724 * sec,
		PendingKnown: true, TXPending: 5, Reason: watch.ReasonDrained, Holders: []*watch.Holder{with(app, 12, 13), with(child, 9)},
		Remaining: events.Unknown,
	}
	shared.Owner, shared.OwnerSrc = events.Process{PID: 4711, Comm: "python3"}, events.OwnerScan
	unread := &watch.Socket{
		Conn: conn(2, "10.0.0.1:8080", "10.0.0.2:50002"), State: events.CloseWait, Since: 990 * sec, Age: 10 * sec, AgeExact: true,
		PendingKnown: true, RXPending: 4096, FinPend: true, Reason: watch.ReasonUnread, Holders: []*watch.Holder{with(app, 14)},
		Remaining: events.Unknown,
	}
	waiting := &watch.Socket{
		Conn: conn(3, "[2001:db8::1]:8080", "[2001:db8::2]:4000"), State: events.CloseWait, Since: events.Unknown, Age: 3 * sec,
		PendingKnown: true, FinPend: true, Reason: watch.ReasonNotAccepted, Listener: with(srv, 3), Listeners: []*watch.Holder{with(srv, 3), with(child, 3)},
		Remaining: events.Unknown,
	}
	waiting.UID, waiting.Cookie, waiting.Cgroup = -1, 0, ""
	kernel := &watch.Socket{
		Conn: conn(4, "10.0.0.1:2049", "10.0.0.9:700"), State: events.CloseWait, Since: 1, Age: 999 * sec, AgeExact: true,
		PendingKnown: true, Reason: watch.ReasonKernel, Remaining: events.Unknown,
	}
	snap := &watch.Snapshot{
		TS: 1000 * sec, States: events.Set(events.CloseWait), Total: 4, Hooks: "poll",
		Groups: []*watch.Group{
			{
				State: events.CloseWait, PID: 4711, Comm: "python3", Holder: &app, Count: 2, Oldest: 724 * sec, Median: 367 * sec,
				GrowthPerMin: 420.4, GrowthKnown: true, Reasons: map[watch.Reason]int{watch.ReasonUnread: 1, watch.ReasonDrained: 1},
				TopRemotes: []watch.Remote{{Addr: "10.0.0.2", Count: 2}}, LimitIn: 30 * sec, Unread: 4096,
				Verdict: "1 socket unread, 4096 bytes waiting: the process does not read them; " +
					"1 socket drained, never closed: look for a missing close() after read returns 0",
				Sockets: []*watch.Socket{shared, unread},
			},
			{
				State: events.CloseWait, PID: 4712, Comm: child.Comm, Holder: &child, Count: 1, Oldest: 724 * sec, Median: 724 * sec,
				Reasons: map[watch.Reason]int{watch.ReasonDrained: 1}, LimitIn: events.Unknown,
				TopRemotes: []watch.Remote{
					{Addr: "[2001:db8:1111:2222:3333:4444:5555:6666]:50000", Count: 1}, {Addr: "[2001:db8:1111:2222:3333:4444:5555:7777]:50000", Count: 1},
				},
				Verdict: "1 socket drained, never closed: look for a missing close() after read returns 0",
				Sockets: []*watch.Socket{shared},
			},
			{
				State: events.CloseWait, PID: 99, Comm: srv.Comm, Holder: &srv, Count: 1, Oldest: 3 * sec, Median: 3 * sec, GrowthPerMin: -0.2,
				GrowthKnown: true, Reasons: map[watch.Reason]int{watch.ReasonNotAccepted: 1}, LimitIn: events.Unknown,
				TopRemotes: []watch.Remote{{Addr: "[2001:db8::2]:4000", Count: 1}},
				Verdict:    "backlog of :8080 not accepted by backend-with-long-name[99] and e\x1b[2Jvil[4712]: 1 waiting", Sockets: []*watch.Socket{waiting},
			},
			{
				State: events.CloseWait, Count: 1, Oldest: 999 * sec, Median: 999 * sec, AllAges: true,
				Reasons: map[watch.Reason]int{watch.ReasonKernel: 1}, LimitIn: events.Unknown,
				TopRemotes: []watch.Remote{{Addr: "10.0.0.9:700", Count: 1}},
				Verdict:    "1 socket of the kernel itself: no process can close them", Sockets: []*watch.Socket{kernel},
			},
		},
		Lost: 3, Untracked: 17,
		Notes: []string{"/proc hides other processes (hidepid): their command lines, limits and units are not known"},
	}
	for state := range snap.Counts {
		snap.Counts[state] = -1
	}
	snap.Counts[events.CloseWait], snap.Counts[events.Listen] = 4, 2
	return snap
}

func timeWaits() *watch.Snapshot {
	sock := &watch.Socket{
		Conn: events.Conn{
			ID: 9, NetNS: 4026531840, Family: 4, UID: -1, Owner: events.Process{PID: 55, Comm: "curl"}, OwnerSrc: events.OwnerClose,
			Local: netip.MustParseAddrPort("10.0.0.1:40000"), Remote: netip.MustParseAddrPort("10.0.0.2:443"),
		},
		State: events.TimeWait, Since: 980 * sec, Age: 20 * sec, AgeExact: true, Remaining: 40 * sec,
	}
	holder := &watch.Holder{PID: 55, Comm: "curl", UID: -1, NofileSoft: -1, OpenFDs: -1}
	long := "[2001:db8:1111:2222:3333:4444:5555:6666]:50000"
	group := func(remote string, pid uint32) *watch.Group {
		g := &watch.Group{
			State: events.TimeWait, Remote: remote, Count: 1, Oldest: 20 * sec, Median: 20 * sec, AllAges: true, LimitIn: events.Unknown,
			TopRemotes: []watch.Remote{{Addr: remote, Count: 1}}, Verdict: "1 socket closed first by this side: reuse connections (keep-alive, a pool)",
			Sockets: []*watch.Socket{sock},
		}
		if pid != 0 {
			g.PID, g.Comm, g.Holder = pid, "curl", holder
		}
		return g
	}
	snap := &watch.Snapshot{
		TS: 1000 * sec, States: events.Set(events.TimeWait), Total: 1, Hooks: "fentry",
		Groups: []*watch.Group{group("10.0.0.2:443", 55), group(long, 0)},
	}
	snap.Counts[events.TimeWait], snap.Counts[events.Established] = 1, 1234
	for i, used := range []int{28232, 20000, 1, 1, 1, 1, 1} {
		u := watch.PortUse{NetNS: 4026531840, Local: "10.0.0.1", Remote: "10.0.0.2:443", Used: used, TimeWait: used, Range: 28232, FullIn: events.Unknown}
		switch i {
		case 0:
			u.FullIn = 0
		case 1:
			u.FullIn = 17 * sec
		case 2:
			u.Range = -1
		}
		snap.Ports = append(snap.Ports, u)
	}
	return snap
}

func TestWatchText(t *testing.T) {
	empty := &watch.Snapshot{TS: sec, States: events.Set(events.CloseWait, events.FinWait2), Hooks: "fentry"}
	two := leaks()
	two.States |= events.Set(events.TimeWait)
	two.Groups = append(two.Groups, timeWaits().Groups[0])
	two.Counts[events.TimeWait] = 1
	for _, tt := range []struct {
		name  string
		cfg   WatchTextConfig
		snaps []*watch.Snapshot
	}{
		{"watch-80.txt", WatchTextConfig{}, []*watch.Snapshot{leaks()}},
		{"watch-120.txt", WatchTextConfig{Width: 120}, []*watch.Snapshot{leaks()}},
		{"watch-color.txt", WatchTextConfig{Color: true}, []*watch.Snapshot{leaks()}},
		{"watch-top.txt", WatchTextConfig{Groups: 1}, []*watch.Snapshot{leaks()}},
		{"watch-states.txt", WatchTextConfig{}, []*watch.Snapshot{two}},
		{"watch-timewait.txt", WatchTextConfig{}, []*watch.Snapshot{timeWaits()}},
		{"watch-empty.txt", WatchTextConfig{}, []*watch.Snapshot{empty, empty}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.cfg.Clock, tt.cfg.Location = clock, time.UTC
			w := NewWatchText(&out, tt.cfg)
			w.Header(&events.Header{})
			for _, s := range tt.snaps {
				if err := w.Snapshot(s); err != nil {
					t.Fatal(err)
				}
			}
			golden(t, tt.name, out.Bytes())
			for line := range strings.Lines(out.String()) {
				line = strings.NewReplacer(bold, "", red, "", reset, "").Replace(strings.TrimSuffix(line, "\n"))
				if n := Width(line); n > max(tt.cfg.Width, 80) {
					t.Errorf("a line of %d cells: %s", n, line)
				}
				if strings.ContainsRune(line, '\x1b') {
					t.Errorf("a process' escape sequence gets through: %q", line)
				}
			}
		})
	}
}

func TestWatchJSON(t *testing.T) {
	var out bytes.Buffer
	w := NewWatchJSON(&out, clock)
	w.Header(&events.Header{Schema: events.Schema, Version: "0.1.0", Kernel: "6.12.1", Hooks: "poll", TS: 10 * sec})
	for _, s := range []*watch.Snapshot{leaks(), timeWaits()} {
		if err := w.Snapshot(s); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "watch.json", out.Bytes())
	types := map[string]int{}
	want := map[string]int{"header": 1, "snapshot": 2}
	for line := range strings.Lines(out.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		kind := l["type"].(string)
		types[kind]++
		if kind == "snapshot" {
			want["group"] += int(l["groups"].(float64))
			want["socket"] += int(l["sockets"].(float64))
			want["ports"] += int(l["ports"].(float64))
		}
		if strings.ContainsRune(line, '\x1b') {
			t.Errorf("an escape sequence gets through: %q", line)
		}
	}
	for kind, n := range want {
		if types[kind] != n {
			t.Errorf("got %d lines of type %s: want %d", types[kind], kind, n)
		}
	}
}

type badPipe struct{}

func (badPipe) Write([]byte) (int, error) { return 0, errPipe }

var errPipe = errors.New("broken")

func TestWatchWriterFails(t *testing.T) {
	for _, w := range []Watch{NewWatchJSON(badPipe{}, clock), NewWatchText(badPipe{}, WatchTextConfig{Clock: clock})} {
		for range 2 {
			if err := w.Snapshot(leaks()); !errors.Is(err, errPipe) {
				t.Errorf("%T: got %v: want the writer's error", w, err)
			}
		}
	}
}

func BenchmarkWatchJSON(b *testing.B) {
	snap := leaks()
	g := snap.Groups[0]
	for range 15000 {
		s := *g.Sockets[0]
		g.Sockets = append(g.Sockets, &s)
	}
	var out bytes.Buffer
	w := NewWatchJSON(&out, clock)
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		if err := w.Snapshot(snap); err != nil {
			b.Fatal(err)
		}
	}
}
