package sysctl

import (
	"net"
	"testing"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

func readIn(t *testing.T, ns *testnet.NS) (v Values) {
	t.Helper()
	err := netns.Do(netns.NS{Inode: ns.Inode(), Path: ns.Path()}, func() error {
		v = Read("/proc", advice.Sysctls(), advice.Counters())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Values are those of the namespace that the thread is in; /proc/net would show the
// process' own.
func TestNamespace(t *testing.T) {
	here, other := testnet.NewNS(t, "sysctl-here"), testnet.NewNS(t, "sysctl-other")
	set := map[string]string{
		"net.ipv4.tcp_fin_timeout": "7", "net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_timestamps": "0", "net.ipv4.tcp_max_tw_buckets": "11",
		"net.ipv4.ip_local_port_range": "20000\t20101", "net.ipv4.ip_local_reserved_ports": "20003,20005-20007", "net.core.somaxconn": "13",
		"net.ipv4.tcp_max_syn_backlog": "17", "net.ipv4.tcp_syncookies": "0", "net.ipv4.tcp_abort_on_overflow": "1",
		"net.ipv4.tcp_syn_retries": "2", "net.ipv4.tcp_synack_retries": "3", "net.ipv4.tcp_retries2": "4", "net.ipv4.tcp_keepalive_time": "19",
	}
	files := map[string]string{
		"net.ipv4.tcp_fin_timeout": "ipv4/tcp_fin_timeout", "net.ipv4.tcp_tw_reuse": "ipv4/tcp_tw_reuse", "net.ipv4.tcp_timestamps": "ipv4/tcp_timestamps",
		"net.ipv4.tcp_max_tw_buckets": "ipv4/tcp_max_tw_buckets", "net.ipv4.ip_local_port_range": "ipv4/ip_local_port_range",
		"net.ipv4.ip_local_reserved_ports": "ipv4/ip_local_reserved_ports", "net.core.somaxconn": "core/somaxconn",
		"net.ipv4.tcp_max_syn_backlog": "ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_syncookies": "ipv4/tcp_syncookies",
		"net.ipv4.tcp_abort_on_overflow": "ipv4/tcp_abort_on_overflow", "net.ipv4.tcp_syn_retries": "ipv4/tcp_syn_retries",
		"net.ipv4.tcp_synack_retries": "ipv4/tcp_synack_retries", "net.ipv4.tcp_retries2": "ipv4/tcp_retries2",
		"net.ipv4.tcp_keepalive_time": "ipv4/tcp_keepalive_time",
	}
	for name, value := range set {
		if err := here.SetSysctl(files[name], value); err != nil {
			t.Fatal(err)
		}
	}
	start, otherStart := readIn(t, here), readIn(t, other)
	for name, want := range set {
		if got := start.Sysctls[name]; got != want {
			t.Errorf("%s: got %q: want %q", name, got, want)
		}
		if otherStart.Sysctls[name] == want {
			t.Errorf("%s: the other namespace has it as well: it is not of the namespace", name)
		}
	}

	const refusals = 7
	err := here.Do(func() error {
		for range refusals {
			if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
				c.Close()
				t.Error("somebody listens on 127.0.0.1:9")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A SYN and an RST each.
	if got := Growth(start, readIn(t, here))["OutSegs"]; got != 2*refusals {
		t.Errorf("OutSegs grew by %d: want %d", got, 2*refusals)
	}
	if got, ok := Growth(otherStart, readIn(t, other))["OutSegs"]; got != 0 || !ok {
		t.Errorf("OutSegs of the other namespace grew by %d, known %t", got, ok)
	}
}
