package facts

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/sysctl"
	"github.com/tcptrace/tcptrace/internal/watch"
)

const sec = 1_000_000_000

var (
	server = events.Process{PID: 11, Comm: "server"}
	client = events.Process{PID: 13, Comm: "client"}
	other  = events.Process{PID: 17, Comm: "other"}
)

func conn(owner events.Process, local, remote string) events.Conn {
	return events.Conn{NetNS: 7, Owner: owner, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

// asked answers for the server alone.
type asked struct{}

func (asked) Refresh() {}

func (asked) Process(pid uint32) (watch.Process, bool) {
	if pid != server.PID {
		return watch.Process{}, false
	}
	return watch.Process{Comm: server.Comm, OpenFDs: 101, NofileSoft: 1024}, true
}

func collector() *Collector {
	return New(Config{
		Processes: asked{},
		Ports: func(netns uint32) (watch.PortRange, bool) {
			return watch.PortRange{PortSpan: watch.PortSpan{Low: 32768, High: 60999}}, netns == 7
		},
		Kernel: func(netns uint32) (Kernel, bool) {
			return Kernel{
				Name:  "blue",
				Start: sysctl.Values{Counters: map[string]int64{"ListenOverflows": 3}},
				End: sysctl.Values{
					Sysctls: map[string]string{"net.core.somaxconn": "128"}, Counters: map[string]int64{"ListenOverflows": 10, "TCPTimeouts": 5},
				},
			}, netns == 7
		},
	})
}

func find(t *testing.T, f *advice.Facts, p events.Process) advice.Process {
	t.Helper()
	for _, got := range f.Processes {
		if got.PID == p.PID {
			return got
		}
	}
	t.Fatalf("no process %v in %+v", p, f.Processes)
	return advice.Process{}
}

func states(list ...events.StateTime) []events.StateTime { return list }

func TestRun(t *testing.T) {
	c := collector()
	passive, active := conn(server, "10.0.0.1:80", "10.0.0.2:40000"), conn(client, "10.0.0.1:40001", "10.0.0.3:5432")
	close := func(conn events.Conn, change func(*events.Closed)) {
		cl := &events.Closed{Conn: conn, TotalNS: events.Unknown}
		change(cl)
		c.Closed(cl)
	}
	for i := range 5 {
		close(passive, func(cl *events.Closed) { cl.Opened, cl.Closer = events.OpenedPassive, events.SideLocal })
		if i < 3 {
			close(passive, func(cl *events.Closed) {
				cl.Opened, cl.Closer, cl.How, cl.Reset = events.OpenedPassive, events.SideLocal, events.HowRST, events.ResetUnread
				cl.ClosedBy = other
			})
			close(active, func(cl *events.Closed) {
				cl.Opened, cl.Closer, cl.How, cl.Reset = events.OpenedActive, events.SideLocal, events.HowRST, events.ResetLinger0
			})
		}
		close(active, func(cl *events.Closed) { cl.Opened, cl.Closer = events.OpenedActive, events.SideBoth })
		close(active, func(cl *events.Closed) {
			cl.Opened, cl.Closer, cl.How, cl.States = events.OpenedActive, events.SideNone, events.HowTimeout, states(events.StateTime{State: events.SynSent, NS: 3 * sec})
		})
	}
	close(active, func(cl *events.Closed) {
		cl.Opened, cl.Closer, cl.How, cl.States = events.OpenedActive, events.SideNone, events.HowTimeout, states(events.StateTime{State: events.Established, NS: 3 * sec})
	})
	close(passive, func(cl *events.Closed) { // its peer's port is of no meaning
		cl.Opened, cl.Closer, cl.How, cl.States = events.OpenedPassive, events.SideNone, events.HowTimeout, states(events.StateTime{State: events.LastAck, NS: 3 * sec})
	})
	close(active, func(cl *events.Closed) {
		cl.Opened, cl.Closer, cl.How = events.OpenedActive, events.SideRemote, events.HowRefused
	})
	close(active, func(cl *events.Closed) {
		cl.Opened, cl.Closer, cl.How, cl.Err = events.OpenedActive, events.SideNone, events.HowAbort, 99
	})
	close(active, func(cl *events.Closed) { cl.TimeWaitOverflow = true })
	for _, ns := range []int64{5 * sec, 7 * sec, 6 * sec} {
		close(active, func(cl *events.Closed) {
			cl.Opened, cl.Closer, cl.How = events.OpenedActive, events.SideLocal, events.HowTimeout
			cl.States = states(events.StateTime{State: events.FinWait1, NS: 1}, events.StateTime{State: events.FinWait2, NS: ns})
		})
	}
	c.Transition(&events.Transition{Conn: passive, Old: events.FinWait2, New: events.TimeWait, Opened: events.OpenedPassive})
	c.Transition(&events.Transition{Conn: active, Old: events.FinWait2, New: events.TimeWait, Opened: events.OpenedActive})
	c.Lost(&events.Lost{Count: 2, Total: 5})
	c.Resync(&events.Resync{})
	// TIME_WAITs whose end comes after the run count by what began them, those that
	// were there before it do not.
	for _, side := range []events.Side{events.SideLocal, events.SideUnknown} {
		c.Living(&aggregate.Info{Conn: passive, State: events.TimeWait, Opened: events.OpenedPassive, Closer: side, TimeWait: true, Expires: 9 * sec}, 5*sec)
	}
	c.Living(&aggregate.Info{Conn: active, State: events.FinWait2, TimeWait: true, Expires: events.Unknown}, 5*sec)
	c.Living(&aggregate.Info{Conn: active, State: events.FinWait2}, 5*sec)

	f := c.Facts(sec, 31*sec, nil)
	if f.Duration != 30*sec || f.Lost != 5 {
		t.Errorf("got %d ns, %d lost", f.Duration, f.Lost)
	}
	got := find(t, f, server)
	want := advice.Process{
		NetNS: 7, PID: 11, Comm: "server", OpenFDs: 101, NofileSoft: 1024,
		Accepted: advice.Closes{Local: 5 + 3 + 1, Other: 1}, TimeWaits: 1,
	}
	if got != want {
		t.Errorf("server: got %+v: want %+v", got, want)
	}
	got = find(t, f, client)
	want = advice.Process{
		NetNS: 7, PID: 13, Comm: "client", OpenFDs: advice.Unknown, NofileSoft: advice.Unknown,
		Connected: advice.Closes{Local: 3 + 3, Remote: 1, Both: 5, Other: 5 + 1 + 1}, ResetLinger0: 3,
	}
	if got != want {
		t.Errorf("client: got %+v: want %+v", got, want)
	}
	if got := find(t, f, other); got.ResetUnread != 3 {
		t.Errorf("other: got %+v: want the resets that it made", got)
	}
	wantRemotes := []advice.Remote{
		{NetNS: 7, Addr: "10.0.0.3:5432", NoPort: 1, Refused: 1, ConnectTimeouts: 5, Timeouts: 1},
		{NetNS: 7, Addr: "10.0.0.2", Timeouts: 1},
	}
	if !reflect.DeepEqual(f.Remotes, wantRemotes) {
		t.Errorf("got remotes %+v: want %+v", f.Remotes, wantRemotes)
	}
	wantSpace := advice.Namespace{
		NetNS: 7, Name: "blue", Sysctls: map[string]string{"net.core.somaxconn": "128"}, Counters: map[string]int64{"ListenOverflows": 7},
		TimeWait: 3, SynRecv: advice.Unknown, OrphanFinWait2: 1, FinTimeouts: 3, FinWait2Max: 7 * sec, TimeWaitRefused: 1,
	}
	if len(f.Namespaces) != 1 || !reflect.DeepEqual(f.Namespaces[0], wantSpace) {
		t.Errorf("got %+v: want %+v", f.Namespaces, wantSpace)
	}
}

func TestSnapshot(t *testing.T) {
	c := collector()
	c.Transition(&events.Transition{Conn: conn(server, "10.0.0.1:80", "10.0.0.2:40000"), Old: events.Established, New: events.CloseWait})
	shared := &watch.Socket{Conn: conn(server, "10.0.0.1:80", "10.0.0.2:1"), State: events.CloseWait, Age: 11 * sec, Reason: watch.ReasonDrained}
	listen := &watch.Socket{
		Conn: events.Conn{NetNS: 7, Local: netip.MustParseAddrPort("0.0.0.0:80")}, State: events.Listen, RXPending: 12, TXPending: 11, PendingKnown: true,
	}
	snap := &watch.Snapshot{
		Groups: []*watch.Group{
			{State: events.CloseWait, PID: 11, Comm: "server", Sockets: []*watch.Socket{
				shared,
				{Conn: shared.Conn, State: events.CloseWait, Age: 10*sec - 1, AgeExact: true, Reason: watch.ReasonUnread},
				{Conn: shared.Conn, State: events.CloseWait, Age: 10 * sec, AgeExact: true, Reason: watch.ReasonFinUnread},
			}},
			{State: events.CloseWait, PID: 17, Comm: "other", Sockets: []*watch.Socket{shared}},
			{State: events.Listen, PID: 11, Comm: "server", Sockets: []*watch.Socket{listen, {State: events.Listen}}},
			{State: events.Listen, PID: 17, Comm: "other", Sockets: []*watch.Socket{listen}},
		},
		Ports: []watch.PortUse{{NetNS: 7, Local: "10.0.0.1", Remote: "10.0.0.3:5432", Used: 5, TimeWait: 3, Range: -1, FullIn: events.Unknown}},
	}
	f := c.Facts(0, 120*sec, snap)
	got := find(t, f, server).CloseWait
	want := advice.CloseWait{Now: 3, Stuck: 2, Oldest: 11 * sec, GrowthPerMin: 0.5, GrowthKnown: true, Drained: 1, Unread: 1, FinUnread: 1}
	if got != want {
		t.Errorf("got %+v: want %+v", got, want)
	}
	if got := find(t, f, other).CloseWait; got.Now != 1 || got.Stuck != 1 {
		t.Errorf("the other holder: got %+v", got)
	}
	wantListeners := []advice.Listener{{NetNS: 7, Local: "0.0.0.0:80", PID: 11, Comm: "server", Queue: 12, Limit: 11}}
	if !reflect.DeepEqual(f.Listeners, wantListeners) {
		t.Errorf("got %+v: want %+v", f.Listeners, wantListeners)
	}
	wantPorts := []advice.PortUse{{NetNS: 7, Local: "10.0.0.1", Remote: "10.0.0.3:5432", Used: 5, TimeWait: 3, Range: advice.Unknown, FullIn: advice.Unknown}}
	if !reflect.DeepEqual(f.Ports, wantPorts) {
		t.Errorf("got %+v: want %+v", f.Ports, wantPorts)
	}
}

func TestLeft(t *testing.T) {
	c := collector()
	gone := func(local string) {
		c.Transition(&events.Transition{Conn: conn(server, local, "0.0.0.0:0"), Old: events.Listen, New: events.Close})
	}
	live := func(state events.State, local, remote string) {
		c.Living(&aggregate.Info{Conn: conn(server, local, remote), State: state, Expires: 41 * sec}, sec)
	}
	gone("0.0.0.0:80")    // still used
	gone("0.0.0.0:81")    // listens again
	gone("0.0.0.0:82")    // nothing is left
	gone("0.0.0.0:40000") // still used, and connect() may get it
	live(events.TimeWait, "10.0.0.1:80", "10.0.0.2:1")
	live(events.Established, "10.0.0.1:80", "10.0.0.2:2")
	live(events.Established, "10.0.0.1:81", "10.0.0.2:1")
	live(events.Listen, "0.0.0.0:81", "0.0.0.0:0")
	live(events.Established, "10.0.0.1:40000", "10.0.0.2:1")
	live(events.Established, "10.0.0.1:40001", "10.0.0.2:1") // a client
	live(events.TimeWait, "10.0.0.1:83", "10.0.0.2:1")       // of a listener before the run
	live(events.TimeWait, "10.0.0.1:83", "10.0.0.2:2")
	live(events.Close, "10.0.0.1:84", "10.0.0.2:2")
	want := []advice.LeftPort{
		{NetNS: 7, Local: "0.0.0.0:40000", ListenerClosed: true, Ephemeral: true, Open: 1, Remotes: 1, PID: 11, Comm: "server"},
		{NetNS: 7, Local: "0.0.0.0:80", ListenerClosed: true, TimeWait: 1, TimeWaitLeft: 40 * sec, Open: 1, Remotes: 2, PID: 11, Comm: "server"},
		{NetNS: 7, Local: "10.0.0.1:83", TimeWait: 2, TimeWaitLeft: 40 * sec, Remotes: 2},
	}
	if got := c.Facts(0, sec, nil).Left; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v: want %+v", got, want)
	}
}

// Nothing is known where nobody can be asked.
func TestNobodyToAsk(t *testing.T) {
	c := New(Config{})
	c.Closed(&events.Closed{Conn: conn(server, "10.0.0.1:80", "10.0.0.2:40000"), Opened: events.OpenedPassive, Closer: events.SideRemote})
	f := c.Facts(0, sec, nil)
	if p := find(t, f, server); p.OpenFDs != advice.Unknown || p.NofileSoft != advice.Unknown {
		t.Errorf("got %+v", p)
	}
	if ns := f.Namespaces[0]; ns.Sysctls != nil || ns.Counters != nil {
		t.Errorf("got %+v", ns)
	}
	if items := advice.Advise(f); len(items) != 0 {
		t.Errorf("got %+v", items)
	}
}

// Among any number of processes and remotes those that matter are kept.
func TestBounded(t *testing.T) {
	c := collector()
	for i := range 10 * maxRemotes {
		remote := fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)
		cl := &events.Closed{Conn: conn(events.Process{PID: uint32(100 + i), Comm: "x"}, "10.0.0.1:4000", remote), Opened: events.OpenedActive, How: events.HowRefused}
		c.Closed(cl)
		cl.Conn = conn(client, "10.0.0.1:4000", "10.0.0.9:9")
		c.Closed(cl)
	}
	f := c.Facts(0, sec, nil)
	if len(f.Processes) > maxProcesses || len(f.Remotes) > maxRemotes {
		t.Errorf("got %d processes, %d remotes: want %d, %d at most", len(f.Processes), len(f.Remotes), maxProcesses, maxRemotes)
	}
	if got := f.Remotes[0]; got.Addr != "10.0.0.9:9" || got.Refused != 10*maxRemotes {
		t.Errorf("got %+v first", got)
	}
	if got := f.Processes[0]; got.PID != client.PID || got.Connected.Other != 10*maxRemotes {
		t.Errorf("got %+v first", got)
	}
}

func BenchmarkClosed(b *testing.B) {
	c := collector()
	list := make([]events.Closed, 1009)
	for i := range list {
		list[i] = events.Closed{
			Conn:   conn(events.Process{PID: uint32(i % 5), Comm: "server"}, "10.0.0.1:80", fmt.Sprintf("10.0.0.2:%d", 40000+i)),
			Opened: events.OpenedPassive, Closer: events.SideLocal,
			States: states(events.StateTime{State: events.TimeWait, NS: 60 * sec}),
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Closed(&list[i%len(list)])
		i++
	}
}
