package filter

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
)

func prefixes(t *testing.T, list string) Prefixes {
	t.Helper()
	p, err := ParsePrefixes(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ports(t *testing.T, list string) Ports {
	t.Helper()
	p, err := ParsePorts(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type scope func(c *events.Conn) bool

func (s scope) Has(c *events.Conn) bool { return s(c) }

func conn() events.Conn {
	return events.Conn{
		ID: 1, NetNS: 77, Family: 4,
		Local:  netip.MustParseAddrPort("10.1.2.3:80"),
		Remote: netip.MustParseAddrPort("192.0.2.9:50000"),
		Owner:  events.Process{PID: 42, Comm: "nginx"}, OwnerSrc: events.OwnerAccept,
		UID: 33, Cgroup: "/system.slice/nginx.service",
	}
}

func TestConn(t *testing.T) {
	v6 := func(c *events.Conn) {
		c.Family = 6
		c.Local = netip.MustParseAddrPort("[fe80::1%2]:80")
		c.Remote = netip.MustParseAddrPort("[2001:db8::5]:50000")
	}
	nobody := func(c *events.Conn) { c.Owner, c.UID, c.Cgroup = events.Process{}, events.Unknown, "" }
	for _, tc := range []struct {
		name   string
		filter Filter
		change func(*events.Conn)
		want   bool
	}{
		{"everything", Filter{}, nil, true},
		{"everything unknown", Filter{}, func(c *events.Conn) { *c = events.Conn{UID: -1} }, true},
		{"family 4", Filter{Family: 4}, nil, true},
		{"family 6", Filter{Family: 6}, nil, false},
		{"family 6 of v6", Filter{Family: 6}, v6, true},
		{"family unknown", Filter{Family: 4}, func(c *events.Conn) { c.Family = 0 }, false},
		{"local port", Filter{LocalPorts: ports(t, "80")}, nil, true},
		{"local port of the remote", Filter{LocalPorts: ports(t, "50000")}, nil, false},
		{"remote port", Filter{RemotePorts: ports(t, "49000-51000")}, nil, true},
		{"remote port of the local", Filter{RemotePorts: ports(t, "80")}, nil, false},
		{"port, local", Filter{Ports: ports(t, "80")}, nil, true},
		{"port, remote", Filter{Ports: ports(t, "50000")}, nil, true},
		{"port, neither", Filter{Ports: ports(t, "443")}, nil, false},
		{"ports of both sides", Filter{LocalPorts: ports(t, "80"), RemotePorts: ports(t, "1")}, nil, false},
		{"local", Filter{Local: prefixes(t, "10.0.0.0/8")}, nil, true},
		{"local, other", Filter{Local: prefixes(t, "11.0.0.0/8")}, nil, false},
		{"remote, one of two", Filter{Remote: prefixes(t, "10.0.0.0/8,192.0.2.9")}, nil, true},
		{"local with a zone", Filter{Local: prefixes(t, "fe80::/10")}, v6, true},
		{"v4 address, v6 prefix", Filter{Local: prefixes(t, "::/0")}, nil, false},
		{"mapped address, v4 prefix", Filter{Local: prefixes(t, "10.1.2.3")},
			func(c *events.Conn) { c.Local = netip.MustParseAddrPort("[::ffff:10.1.2.3]:80") }, true},
		{"address unknown", Filter{Local: prefixes(t, "0.0.0.0/0")},
			func(c *events.Conn) { c.Local = netip.AddrPort{} }, false},
		{"pid", Filter{PIDs: []uint32{1, 42}}, nil, true},
		{"pid, other", Filter{PIDs: []uint32{43}}, nil, false},
		{"pid unknown", Filter{PIDs: []uint32{42}}, nobody, false},
		{"comm", Filter{Comms: []string{"curl", "nginx"}}, nil, true},
		{"comm, other", Filter{Comms: []string{"Nginx"}}, nil, false},
		{"comm unknown", Filter{Comms: []string{""}}, nobody, false},
		{"uid", Filter{UIDs: []uint32{33}}, nil, true},
		{"uid, other", Filter{UIDs: []uint32{0}}, nil, false},
		{"uid unknown", Filter{UIDs: []uint32{0xFFFFFFFF}}, nobody, false},
		{"netns", Filter{NetNS: []uint32{77}}, nil, true},
		{"netns, other", Filter{NetNS: []uint32{78}}, nil, false},
		{"cgroup", Filter{Cgroup: "/system.slice/nginx.service"}, nil, true},
		{"cgroup above", Filter{Cgroup: "/system.slice"}, nil, true},
		{"cgroup root", Filter{Cgroup: "/"}, nil, true},
		{"cgroup with the same start", Filter{Cgroup: "/system.slice/nginx"}, nil, false},
		{"cgroup unknown", Filter{Cgroup: "/"}, nobody, false},
		{"command", Filter{Command: scope(func(c *events.Conn) bool { return c.ID == 1 })}, nil, true},
		{"not the command", Filter{Command: scope(func(c *events.Conn) bool { return c.ID == 2 })}, nil, false},
	} {
		c := conn()
		if tc.change != nil {
			tc.change(&c)
		}
		if got := tc.filter.Transition(&events.Transition{Conn: c}); got != tc.want {
			t.Errorf("%s: transition %v, want %v", tc.name, got, tc.want)
		}
		if got := tc.filter.Closed(&events.Closed{Conn: c}); got != tc.want {
			t.Errorf("%s: closed %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestTransition(t *testing.T) {
	for _, tc := range []struct {
		name     string
		filter   Filter
		old, new events.State
		in, min  time.Duration
		want     bool
	}{
		{"from", Filter{States: events.Set(events.CloseWait)}, events.CloseWait, events.LastAck, 1, -1, true},
		{"to", Filter{States: events.Set(events.CloseWait)}, events.Established, events.CloseWait, 1, -1, true},
		{"neither", Filter{States: events.Set(events.CloseWait)}, events.LastAck, events.Close, 1, -1, false},
		{"old enough", Filter{MinAge: time.Second}, events.CloseWait, events.LastAck, time.Second, -1, true},
		{"too young", Filter{MinAge: time.Second}, events.CloseWait, events.LastAck, time.Second - 1, -1, false},
		{"at least old enough", Filter{MinAge: time.Second}, events.CloseWait, events.LastAck, -1, time.Hour, true},
		{"age unknown", Filter{MinAge: time.Second}, events.CloseWait, events.LastAck, -1, -1, false},
	} {
		tr := &events.Transition{Conn: conn(), Old: tc.old, New: tc.new, InOld: int64(tc.in), InOldMin: int64(tc.min)}
		if got := tc.filter.Transition(tr); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

func TestClosed(t *testing.T) {
	closed := func() *events.Closed {
		return &events.Closed{
			Conn:    conn(),
			TotalNS: int64(time.Minute),
			States:  []events.StateTime{{State: events.Established, NS: 1}, {State: events.CloseWait, NS: 2}},
		}
	}
	for _, tc := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"was in it", Filter{States: events.Set(events.CloseWait)}, true},
		{"was not", Filter{States: events.Set(events.TimeWait)}, false},
		{"is closed", Filter{States: events.Set(events.Close)}, true},
		{"lived long enough", Filter{MinAge: time.Minute}, true},
		{"too short", Filter{MinAge: time.Minute + 1}, false},
		{"closed by the process", Filter{PIDs: []uint32{99}}, true},
	} {
		c := closed()
		c.ClosedBy.PID = 99
		if got := tc.filter.Closed(c); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

func TestParsePrefixes(t *testing.T) {
	for list, want := range map[string]string{
		"10.0.0.0/8":              "10.0.0.0/8",
		"10.1.2.3/8":              "10.0.0.0/8",
		"192.0.2.7":               "192.0.2.7/32",
		"::1":                     "::1/128",
		"2001:db8::/32, 10.0.0.1": "2001:db8::/32 10.0.0.1/32",
		"::ffff:10.0.0.1":         "10.0.0.1/32",
		"::ffff:10.0.0.0/104":     "10.0.0.0/8",
		"0.0.0.0/0":               "0.0.0.0/0",
	} {
		got, err := ParsePrefixes(list)
		if err != nil {
			t.Errorf("%q: %v", list, err)
			continue
		}
		var text []string
		for _, p := range got {
			text = append(text, p.String())
		}
		if s := strings.Join(text, " "); s != want {
			t.Errorf("%q: got %s, want %s", list, s, want)
		}
	}
	for _, list := range []string{"", "10.0.0", "10.0.0.0/33", "localhost", "10.0.0.1,", "fe80::1%eth0", "1.2.3.4:80", "10.0.0.0/-1"} {
		if got, err := ParsePrefixes(list); err == nil || got != nil || !strings.Contains(err.Error(), acceptedPrefixes) {
			t.Errorf("%q: got %v, %v", list, got, err)
		}
	}
}

func TestParsePIDs(t *testing.T) {
	if got, err := ParsePIDs("1, 4194304"); err != nil || len(got) != 2 || got[0] != 1 || got[1] != 4194304 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, list := range []string{"", "0", "-1", "x", "1,", "2147483648", "1.5"} {
		if got, err := ParsePIDs(list); err == nil || got != nil {
			t.Errorf("%q: got %v, %v", list, got, err)
		}
	}
}

func TestParseUIDs(t *testing.T) {
	if got, err := ParseUIDs("root,65534,4294967295"); err != nil || len(got) != 3 || got[0] != 0 || got[1] != 65534 || got[2] != 4294967295 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, list := range []string{"", "no-such-user-here", "-1", "4294967296", "0,"} {
		if got, err := ParseUIDs(list); err == nil || got != nil {
			t.Errorf("%q: got %v, %v", list, got, err)
		}
	}
}

func TestComm(t *testing.T) {
	if got, err := Comm("systemd-resolved"); err != nil || got != "systemd-resolve" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Comm(""); err == nil {
		t.Error("an empty name is accepted")
	}
}

func TestCgroupPath(t *testing.T) {
	const mount = "/sys/fs/cgroup"
	for text, want := range map[string]string{
		"/system.slice/nginx.service": "/system.slice/nginx.service",
		"system.slice/":               "/system.slice",
		"/sys/fs/cgroup/system.slice": "/system.slice",
		"/sys/fs/cgroup":              "/",
		"/":                           "/",
		"/sys/fs/cgroup2/x":           "/sys/fs/cgroup2/x",
		"/a/../b":                     "/b",
		"/sys/fs/cgroup//user.slice/./session.slice": "/user.slice/session.slice",
	} {
		if got, err := CgroupPath(text, mount); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := CgroupPath("", mount); err == nil {
		t.Error("an empty path is accepted")
	}
}

func TestParseNetNS(t *testing.T) {
	for list, want := range map[string]int{"all": 0, "self": 1, "a,b": 2, "/proc/1/ns/net": 1, "inode:4026531840": 1, "a, self ,inode:1": 3} {
		if got, err := ParseNetNS(list); err != nil || len(got) != want || (want == 0) != (got == nil) {
			t.Errorf("%q: got %q, %v", list, got, err)
		}
	}
	for _, list := range []string{"", "a,", "inode:", "inode:x", "inode:0", "inode:-1", "inode:4294967296", "all,self", "self,all", "..", "."} {
		if got, err := ParseNetNS(list); err == nil || got != nil {
			t.Errorf("%q: got %q, %v", list, got, err)
		}
	}
}

func FuzzParsePrefixes(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::1", "::ffff:1.2.3.4/97", "fe80::1%x", "1.2.3.4,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		p, err := ParsePrefixes(list)
		if (err == nil) == (p == nil) {
			t.Fatalf("%q: %v, %v", list, p, err)
		}
		for _, q := range p {
			if !p.Has(q.Addr()) {
				t.Fatalf("%q: %v is not in its own prefix", list, q)
			}
		}
	})
}

func FuzzParseNetNS(f *testing.F) {
	for _, s := range []string{"all", "self,a", "inode:1", "/x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if specs, err := ParseNetNS(list); err != nil && specs != nil {
			t.Fatalf("%q: a value beside the error", list)
		}
	})
}
