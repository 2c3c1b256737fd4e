package filter

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
)

// scopeOf is a Scope of one process and one cgroup.
type scopeOf struct {
	pid    uint32
	cgroup uint64
}

func (s scopeOf) Has(c *events.Conn) bool {
	return c.Owner.PID == s.pid || (s.cgroup != 0 && c.CgroupID == s.cgroup)
}

func TestSocket(t *testing.T) {
	conn := events.Conn{
		Family: 4, NetNS: 7, UID: 33, CgroupID: 5, Cgroup: "/a/b",
		Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.0.0.2:4000"),
	}
	parent, child := events.Process{PID: 1, Comm: "parent"}, events.Process{PID: 2, Comm: "child"}
	both := []events.Process{parent, child}
	ports := func(text string) Ports {
		p, err := ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const age = int64(10 * time.Second)
	for _, tt := range []struct {
		name      string
		f         Filter
		processes []events.Process
		want      bool
	}{
		{"everything", Filter{}, nil, true},
		{"states do not matter", Filter{States: events.Set(events.Listen)}, nil, true},
		{"old enough", Filter{MinAge: 10 * time.Second}, nil, true},
		{"too young", Filter{MinAge: 11 * time.Second}, nil, false},
		{"family", Filter{Family: 6}, both, false},
		{"port", Filter{LocalPorts: ports("80")}, both, true},
		{"another port", Filter{RemotePorts: ports("80")}, both, false},
		{"user", Filter{UIDs: []uint32{33}}, nil, true},
		{"another user", Filter{UIDs: []uint32{34}}, both, false},
		{"cgroup", Filter{Cgroup: "/a"}, nil, true},
		{"another cgroup", Filter{Cgroup: "/b"}, both, false},
		{"one of the processes", Filter{PIDs: []uint32{2}}, both, true},
		{"none of the processes", Filter{PIDs: []uint32{3}}, both, false},
		{"no process", Filter{PIDs: []uint32{2}}, nil, false},
		{"name", Filter{Comms: []string{"child"}}, both, true},
		{"no name", Filter{Comms: []string{"child"}}, nil, false},
		{"number and name of two processes", Filter{PIDs: []uint32{1}, Comms: []string{"child"}}, both, false},
		{"number and name", Filter{PIDs: []uint32{2}, Comms: []string{"child"}}, both, true},
		{"command", Filter{Command: scopeOf{pid: 2}}, both, true},
		{"another command", Filter{Command: scopeOf{pid: 3}}, both, false},
		{"command without a process", Filter{Command: scopeOf{pid: 3}}, nil, false},
		{"the command's cgroup", Filter{Command: scopeOf{pid: 3, cgroup: 5}}, nil, true},
		{"the command's cgroup, another process", Filter{PIDs: []uint32{9}, Command: scopeOf{cgroup: 5}}, nil, false},
	} {
		if got := tt.f.Socket(&conn, tt.processes, age); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}
