package sysctl

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/advice"
)

// proc makes a process file system of files.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRead(t *testing.T) {
	root := proc(t, map[string]string{
		"sys/net/ipv4/tcp_fin_timeout":         "60\n",
		"sys/net/ipv4/ip_local_port_range":     "32768\t60999\n",
		"sys/net/ipv4/ip_local_reserved_ports": "\n",
		"sys/net/core/somaxconn":               "4096\n",
		"sys/net/ipv4/not_asked_for":           "1\n",
		"thread-self/net/netstat": "TcpExt: SyncookiesSent ListenOverflows TCPTimeouts Unasked\nTcpExt: 1 53 -1 7\n" +
			"IpExt: InNoRoutes ListenOverflows\nIpExt: 3 4\n",
		"thread-self/net/snmp": "Ip: Forwarding OutSegs\nIp: 2 9\nTcp: RtoMax MaxConn OutSegs RetransSegs\nTcp: 120000 -1 3498 18446744073709551615\n",
		"net/netstat":          "TcpExt: ListenOverflows\nTcpExt: 99\n",
	})
	got := Read(root,
		[]string{"net.ipv4.tcp_fin_timeout", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.core.somaxconn", "net.ipv4.tcp_mem"},
		[]string{"ListenOverflows", "TCPTimeouts", "OutSegs", "RetransSegs", "NotThere"})
	want := Values{
		Sysctls:  map[string]string{"net.ipv4.tcp_fin_timeout": "60", "net.ipv4.ip_local_port_range": "32768\t60999", "net.core.somaxconn": "4096"},
		Counters: map[string]int64{"ListenOverflows": 53, "OutSegs": 3498},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v: want %+v", got, want)
	}
}

func TestReadNothing(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no files":       {},
		"no values":      {"thread-self/net/netstat": "TcpExt: ListenOverflows\n"},
		"fewer values":   {"thread-self/net/netstat": "TcpExt: A ListenOverflows\nTcpExt: 1\n"},
		"several lines":  {"sys/net/core/somaxconn": "1\n2\n"},
		"not the groups": {"thread-self/net/snmp": "Udp: ListenOverflows\nUdp: 1\n"},
	} {
		got := Read(proc(t, files), []string{"net.core.somaxconn"}, []string{"ListenOverflows"})
		if len(got.Sysctls)+len(got.Counters) != 0 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestGrowth(t *testing.T) {
	start := Values{Counters: map[string]int64{"a": 3, "b": 3, "c": 3, "d": 3}}
	end := Values{Counters: map[string]int64{"a": 3, "b": 10, "c": 2, "e": 5}}
	want := map[string]int64{"a": 0, "b": 7}
	if got := Growth(start, end); !maps.Equal(got, want) {
		t.Errorf("got %v: want %v", got, want)
	}
}

func TestEncode(t *testing.T) {
	v := Values{
		Sysctls:  map[string]string{"net.ipv4.ip_local_port_range": "32768\t60999", "fs.nr_open": "1048576", "net.x": "a=b"},
		Counters: map[string]int64{"ListenOverflows": 53, "OutSegs": 0},
	}
	text := v.Encode()
	want := "fs.nr_open=1048576\nnet.ipv4.ip_local_port_range=32768\t60999\nnet.x=a=b\nListenOverflows=53\nOutSegs=0\n"
	if text != want {
		t.Errorf("got %q: want %q", text, want)
	}
	got, err := Decode(text)
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("got %+v, %v: want %+v", got, err, v)
	}
	for _, bad := range []string{"x", "=1", "A=", "A=-1", "A=x", "A=1\n\nB=1"} {
		if got, err := Decode(bad); err == nil {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("net.ipv4.tcp_fin_timeout=60\nListenOverflows=53\n")
	f.Add("A=")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Decode(text)
		if err != nil {
			if v.Sysctls != nil || v.Counters != nil {
				t.Errorf("%q: both %+v and %v", text, v, err)
			}
			return
		}
		again, err := Decode(v.Encode())
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Errorf("%q: got %+v, %v: want %+v", text, again, err, v)
		}
	})
}

// Every counter and sysctl that a rule looks at is there under this name; else the
// rule would be silent for ever.
func TestNames(t *testing.T) {
	if _, err := os.Stat("/proc/self/net/netstat"); err != nil {
		t.Skipf("not on Linux, or without /proc: %v", err)
	}
	v := Read("/proc", advice.Sysctls(), advice.Counters())
	for _, name := range advice.Counters() {
		if _, ok := v.Counters[name]; !ok {
			t.Errorf("the kernel has no counter %s", name)
		}
	}
	for _, name := range advice.Sysctls() {
		_, ok := v.Sysctls[name]
		if !ok && !slices.Contains(advice.MachineSysctls(), name) && name != "net.ipv4.ip_local_reserved_ports" { // which is empty
			t.Errorf("the kernel has no sysctl %s", name)
		}
	}
}
