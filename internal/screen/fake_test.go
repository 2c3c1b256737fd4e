package screen

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

const second = int64(time.Second)

// fakeStart is the time of day of a snapshot's TS 0.
var fakeClock = events.Clock{OffsetNS: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()}

func fakeOptions() Options {
	return Options{Clock: fakeClock, Location: time.UTC, Refresh: 2 * time.Second, Filters: "--port 443,8080"}
}

// fakeGroup makes a group of sockets in CLOSE_WAIT for the reasons given.
func fakeGroup(pid uint32, comm string, open, limit int64, reasons ...watch.Reason) *watch.Group {
	h := &watch.Holder{
		PID: pid, Comm: comm, UID: 33, NofileSoft: limit, OpenFDs: open,
		Cmdline: []string{"/usr/sbin/" + comm, "-c", "/etc/app.conf"},
	}
	g := &watch.Group{
		State: events.CloseWait, PID: pid, Comm: comm, Holder: h, Count: len(reasons),
		Oldest: -1, Median: -1, AllAges: true, LimitIn: events.Unknown, Reasons: map[watch.Reason]int{},
	}
	for i, r := range reasons {
		s := &watch.Socket{
			State: events.CloseWait, Since: events.Unknown, Remaining: events.Unknown,
			Age: (724 - 7*int64(i)) * second, AgeExact: i%3 != 0, PendingKnown: true, Reason: r,
		}
		s.ID = uint64(pid)<<20 | uint64(i)
		s.Cookie = 0x1000 + uint64(i)
		s.NetNS = 4026531840
		s.Family = 4
		s.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 2, 3}), 8080)
		s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(pid), byte(i%5 + 1)}), uint16(40000+i))
		if r == watch.ReasonNotAccepted {
			s.Listener, s.Listeners = h, []*watch.Holder{h}
		} else {
			s.Holders = []*watch.Holder{{PID: pid, Comm: comm, FDs: []uint32{uint32(7 + i)}}}
		}
		if r == watch.ReasonUnread {
			s.RXPending, s.FinPend = uint32(1000+i), true
		}
		g.Reasons[r]++
		g.AllAges = g.AllAges && s.AgeExact
		g.Sockets = append(g.Sockets, s)
	}
	if n := len(g.Sockets); n > 0 {
		g.Oldest, g.Median = g.Sockets[0].Age, g.Sockets[n/2].Age
		g.TopRemotes = []watch.Remote{{Addr: g.Sockets[0].Remote.String(), Count: n}}
	}
	return g
}

func repeat(r watch.Reason, n int) []watch.Reason {
	list := make([]watch.Reason, n)
	for i := range list {
		list[i] = r
	}
	return list
}

// fakeSnapshot is a machine with every kind of leak.
func fakeSnapshot() *watch.Snapshot {
	nginx := fakeGroup(1234, "nginx", 1021, 1024, append(repeat(watch.ReasonDrained, 23), repeat(watch.ReasonUnread, 12)...)...)
	nginx.GrowthKnown, nginx.GrowthPerMin, nginx.LimitIn = true, 7.25, 192*second
	nginx.Verdict = "23 sockets drained, never closed: look for a missing close() after read returns 0; 12 unread: the process does not read them, 12,066 bytes wait"
	nginx.Holder.Unit = watch.Unit{Kind: "systemd", Name: "nginx.service", Path: "/system.slice/nginx.service"}
	for _, s := range nginx.Sockets[:5] {
		s.Holders = append(s.Holders, &watch.Holder{PID: 1235, Comm: "nginx: worker", FDs: []uint32{3}})
	}
	java := fakeGroup(4321, "java", 20511, 1<<20, repeat(watch.ReasonFinUnread, 23)...)
	java.Holder.Unit = watch.Unit{Kind: "docker", Name: "8f2b1c6f0e1d", Path: "/docker/8f2b1c6f0e1d"}
	java.GrowthKnown = true
	java.Verdict = "23 idle connections whose FIN nobody looked at: a pool that does not test before use"
	for i, s := range java.Sockets {
		s.Family = 6
		s.Local = netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:58080")
		s.Remote = netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x]:443", 0xf000+i))
	}
	python := fakeGroup(77, "python3", 9, 1024, repeat(watch.ReasonNotAccepted, 12)...)
	python.Verdict = "backlog of :8080 not accepted: 12 waiting"
	evil := fakeGroup(99999, "\x1b[2Jgot\nyou\xff", 12, 1024, watch.ReasonDrained)
	evil.Verdict = "1 socket drained, never closed"
	wide := fakeGroup(31337, "日本語サーバ", -1, -1, watch.ReasonDrained, watch.ReasonDrained)
	wide.Verdict = "2 sockets drained, never closed"
	kernel := fakeGroup(0, "", -1, -1, watch.ReasonKernel)
	kernel.Holder = nil
	kernel.Sockets[0].Holders = nil
	kernel.Verdict = "1 socket of the kernel's own"

	s := &watch.Snapshot{
		TS: 754 * second, States: events.Set(events.CloseWait), Hooks: "fentry",
		Groups: []*watch.Group{nginx, java, python, wide, evil, kernel},
	}
	for i := range s.Counts {
		s.Counts[i] = -1
	}
	for _, g := range s.Groups {
		s.Total += g.Count
	}
	s.Counts[events.CloseWait] = s.Total
	s.Counts[events.Established] = 1203
	s.Counts[events.Listen] = 17
	s.Counts[events.TimeWait] = 28232
	return s
}

// fakeTimeWait is a client that uses up its local ports.
func fakeTimeWait() *watch.Snapshot {
	s := &watch.Snapshot{TS: 60 * second, States: events.Set(events.TimeWait), Hooks: "poll", Lost: 1234}
	for i, remote := range []string{"10.0.0.9:80", "[2001:db8:1111:2222:3333:4444:5555:7777]:65535", "10.0.0.10:443"} {
		g := &watch.Group{
			State: events.TimeWait, PID: uint32(500 + i), Comm: "curl", Remote: remote, Count: 27000 >> (4 * i),
			Oldest: 59 * second, Median: 30 * second, AllAges: true, LimitIn: events.Unknown,
			Verdict: "closes first and uses a new port for each request: reuse connections (keep-alive)",
		}
		if i == 2 {
			g.PID, g.Comm = 0, ""
		}
		for j := range 30 {
			sock := &watch.Socket{State: events.TimeWait, Since: 0, Age: int64(59-j) * second, AgeExact: true, Remaining: int64(1+j) * second}
			sock.ID = uint64(i)<<20 | uint64(j)
			sock.Local = netip.MustParseAddrPort(fmt.Sprintf("10.0.0.1:%d", 32768+j))
			sock.Remote = netip.MustParseAddrPort(remote)
			g.Sockets = append(g.Sockets, sock)
		}
		s.Groups = append(s.Groups, g)
		s.Total += g.Count
	}
	s.Counts[events.TimeWait] = s.Total
	s.Ports = []watch.PortUse{
		{NetNS: 4026531840, Local: "10.0.0.1", Remote: "10.0.0.9:80", Used: 27123, TimeWait: 27000, Range: 28232, FullIn: 192 * second},
		{NetNS: 4026531840, Local: "10.0.0.1", Remote: "10.0.0.10:443", Used: 211, TimeWait: 200, Range: 28232, FullIn: events.Unknown},
	}
	return s
}

// fakeMany is one process with n leaked sockets.
func fakeMany(n int) *watch.Snapshot {
	g := fakeGroup(4242, "leaky", int64(n), 1<<20, repeat(watch.ReasonDrained, n)...)
	g.Verdict = fmt.Sprintf("%d sockets drained, never closed", n)
	s := &watch.Snapshot{TS: second, States: events.Set(events.CloseWait), Hooks: "fentry", Groups: []*watch.Group{g}, Total: n}
	s.Counts[events.CloseWait] = n
	return s
}

// fakeCrowd is n processes with one leaked socket each.
func fakeCrowd(n int) *watch.Snapshot {
	s := &watch.Snapshot{TS: second, States: events.Set(events.CloseWait), Hooks: "fentry", Total: n}
	for i := range n {
		g := fakeGroup(uint32(1000+i), fmt.Sprintf("worker-%d", i), 10, 1024, watch.ReasonDrained)
		g.Verdict = "1 socket drained, never closed"
		s.Groups = append(s.Groups, g)
	}
	s.Counts[events.CloseWait] = n
	return s
}
