package advice_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
)

var update = flag.Bool("update", false, "rewrite the golden files and docs/advice.md")

const sec = 1_000_000_000

// space is a namespace with the kernel's defaults.
func space(change ...func(*advice.Namespace)) []advice.Namespace {
	ns := advice.Namespace{
		NetNS: 4026531840,
		Sysctls: map[string]string{
			"net.ipv4.tcp_fin_timeout": "60\n", "net.ipv4.tcp_tw_reuse": "2\n", "net.ipv4.tcp_timestamps": "1\n",
			"net.ipv4.tcp_max_tw_buckets": "131072\n", "net.ipv4.ip_local_port_range": "32768\t60999\n",
			"net.ipv4.ip_local_reserved_ports": "\n", "net.core.somaxconn": "4096\n", "net.ipv4.tcp_max_syn_backlog": "2048\n",
			"net.ipv4.tcp_syncookies": "1\n", "net.ipv4.tcp_abort_on_overflow": "0\n", "net.ipv4.tcp_syn_retries": "6\n",
			"net.ipv4.tcp_synack_retries": "5\n", "net.ipv4.tcp_retries2": "15\n", "net.ipv4.tcp_keepalive_time": "7200\n",
			"net.ipv4.tcp_max_orphans": "131072\n", "net.ipv4.tcp_mem": "186021\t248030\t372042\n", "fs.nr_open": "1048576\n",
		},
		Counters: map[string]int64{},
	}
	for _, f := range change {
		f(&ns)
	}
	return []advice.Namespace{ns}
}

func sysctl(name, value string) func(*advice.Namespace) {
	return func(ns *advice.Namespace) { ns.Sysctls[name] = value }
}

func counter(name string, n int64) func(*advice.Namespace) {
	return func(ns *advice.Namespace) { ns.Counters[name] = n }
}

func process(change func(*advice.Process), spaces ...func(*advice.Namespace)) *advice.Facts {
	p := advice.Process{NetNS: 4026531840, PID: 4711, Comm: "python3", OpenFDs: 211, NofileSoft: 1024}
	change(&p)
	return &advice.Facts{Duration: 60 * sec, Processes: []advice.Process{p}, Namespaces: space(spaces...)}
}

func ports(used, timewait int64, spaces ...func(*advice.Namespace)) *advice.Facts {
	return &advice.Facts{
		Duration: 60 * sec,
		Ports: []advice.PortUse{{
			NetNS: 4026531840, Local: "10.0.0.1", Remote: "10.0.0.2:5432", Used: used, TimeWait: timewait, Range: 28232, FullIn: advice.Unknown,
		}},
		Namespaces: space(spaces...),
	}
}

func remote(r advice.Remote) *advice.Facts {
	r.NetNS, r.Addr = 4026531840, "10.0.0.2:5432"
	return &advice.Facts{Duration: 60 * sec, Remotes: []advice.Remote{r}, Namespaces: space(counter("TCPAbortOnTimeout", r.ConnectTimeouts+r.Timeouts))}
}

func kernel(change ...func(*advice.Namespace)) *advice.Facts {
	return &advice.Facts{Duration: 60 * sec, Namespaces: space(change...)}
}

func listener(queue, limit int64, spaces ...func(*advice.Namespace)) *advice.Facts {
	return &advice.Facts{
		Duration:   60 * sec,
		Listeners:  []advice.Listener{{NetNS: 4026531840, Local: "0.0.0.0:8080", PID: 4711, Comm: "python3", Queue: queue, Limit: limit}},
		Namespaces: space(spaces...),
	}
}

func left(l advice.LeftPort) *advice.Facts {
	l.NetNS, l.Local = 4026531840, "0.0.0.0:8080"
	return &advice.Facts{Duration: 60 * sec, Left: []advice.LeftPort{l}, Namespaces: space()}
}

// cases are what makes each rule speak, and the same just below its threshold. The
// first of a rule is its example in the documentation.
var cases = []struct {
	rule, name   string
	above, below *advice.Facts
}{
	{
		"close-wait", "",
		process(func(p *advice.Process) {
			p.CloseWait = advice.CloseWait{
				Now: 103, Stuck: 101, Oldest: 724 * sec, GrowthKnown: true, GrowthPerMin: 8.5, Drained: 97, Unread: 6,
			}
		}),
		process(func(p *advice.Process) { p.CloseWait = advice.CloseWait{Now: 103, Stuck: 9, Drained: 103} }),
	},
	{
		"close-wait", "critical",
		process(func(p *advice.Process) {
			p.OpenFDs = 820
			p.CloseWait = advice.CloseWait{Now: 10, Stuck: 10, Oldest: 11 * sec, OldestExact: true, NotAccepted: 10}
		}),
		nil,
	},
	{
		"descriptors", "",
		process(func(p *advice.Process) { p.OpenFDs = 820; p.CloseWait.Now = 409 }),
		process(func(p *advice.Process) { p.OpenFDs = 819 }),
	},
	{
		"descriptors", "leak",
		process(func(p *advice.Process) { p.OpenFDs = 973; p.CloseWait.Now = 487 }),
		nil,
	},
	{
		"descriptors", "warning",
		process(func(p *advice.Process) { p.OpenFDs = 972 }),
		nil,
	},
	{
		"server-closes-first", "half",
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 1010, Remote: 1009}; p.TimeWaits = 1010 }),
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 1009, Remote: 1009}; p.TimeWaits = 1010 }),
	},
	{
		"server-closes-first", "",
		process(func(p *advice.Process) {
			p.Accepted = advice.Closes{Local: 1009, Remote: 101}
			p.TimeWaits = 1009
		}, sysctl("net.ipv4.tcp_fin_timeout", "15\n")),
		process(func(p *advice.Process) {
			p.Accepted = advice.Closes{Local: 1009, Remote: 1009}
			p.TimeWaits = 1009
		}),
	},
	{
		"server-closes-first", "few",
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 100}; p.TimeWaits = 100 }),
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 99}; p.TimeWaits = 100 }),
	},
	{
		"server-closes-first", "by-rst",
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 101}; p.TimeWaits = 100 }),
		process(func(p *advice.Process) { p.Accepted = advice.Closes{Local: 101}; p.TimeWaits = 99 }),
	},
	{
		"reset-unread", "",
		process(func(p *advice.Process) { p.ResetUnread = 10; p.Accepted.Local = 53 }, counter("TCPAbortOnClose", 11)),
		process(func(p *advice.Process) { p.ResetUnread = 9; p.Accepted.Local = 53 }, counter("TCPAbortOnClose", 11)),
	},
	{
		"linger0", "",
		process(func(p *advice.Process) { p.ResetLinger0 = 10; p.Connected.Local = 53 }, counter("TCPAbortOnData", 10)),
		process(func(p *advice.Process) { p.ResetLinger0 = 9; p.Connected.Local = 53 }, counter("TCPAbortOnData", 9)),
	},
	{
		"port-exhaustion", "",
		ports(22586, 22001),
		ports(22585, 22001),
	},
	{
		"port-exhaustion", "open",
		func() *advice.Facts {
			f := ports(28232, 101, sysctl("net.ipv4.tcp_fin_timeout", "15\n"))
			f.Ports[0].FullIn = 0
			f.Remotes = []advice.Remote{{NetNS: 4026531840, Addr: "10.0.0.2:5432", NoPort: 7}}
			return f
		}(),
		nil,
	},
	{
		"port-exhaustion", "reuse",
		ports(22586, 22001, sysctl("net.ipv4.tcp_tw_reuse", "1"), sysctl("net.ipv4.tcp_timestamps", "0")),
		ports(28232, 22001, sysctl("net.ipv4.tcp_tw_reuse", "1")),
	},
	{
		"port-exhaustion", "failed",
		remote(advice.Remote{NoPort: 1}),
		remote(advice.Remote{NoPort: 0}),
	},
	{
		"accept-backlog", "",
		listener(129, 128, counter("ListenOverflows", 53), counter("ListenDrops", 53)),
		listener(128, 128),
	},
	{
		"accept-backlog", "somaxconn",
		listener(4097, 4096, sysctl("net.ipv4.tcp_abort_on_overflow", "1")),
		listener(4096, 4096),
	},
	{
		"accept-backlog", "was-full",
		kernel(counter("ListenOverflows", 1), counter("ListenDrops", 1)),
		kernel(counter("ListenOverflows", 0), counter("ListenDrops", 1)),
	},
	{
		"time-wait-buckets", "",
		kernel(counter("TCPTimeWaitOverflow", 1), sysctl("net.ipv4.tcp_max_tw_buckets", "16")),
		kernel(counter("TCPTimeWaitOverflow", 0), sysctl("net.ipv4.tcp_max_tw_buckets", "16")),
	},
	{
		"time-wait-buckets", "near",
		kernel(func(ns *advice.Namespace) { ns.TimeWait = 104858 }),
		kernel(func(ns *advice.Namespace) { ns.TimeWait = 104857 }),
	},
	{
		"memory", "",
		kernel(counter("TCPAbortOnMemory", 1)),
		kernel(counter("TCPAbortOnMemory", 0)),
	},
	{
		"syn-backlog", "",
		kernel(counter("TCPReqQFullDoCookies", 1)),
		kernel(counter("TCPReqQFullDoCookies", 101), sysctl("net.ipv4.tcp_syncookies", "2")),
	},
	{
		"syn-backlog", "dropped",
		kernel(counter("TCPReqQFullDrop", 101), sysctl("net.ipv4.tcp_syncookies", "0"), func(ns *advice.Namespace) { ns.SynRecv = 128 }),
		kernel(func(ns *advice.Namespace) { ns.SynRecv = 128 }),
	},
	{
		"timeouts", "",
		remote(advice.Remote{ConnectTimeouts: 11, Timeouts: 10}),
		remote(advice.Remote{ConnectTimeouts: 9, Timeouts: 9}),
	},
	{
		"timeouts", "syn",
		remote(advice.Remote{ConnectTimeouts: 10}),
		remote(advice.Remote{ConnectTimeouts: 9}),
	},
	{
		"refused", "",
		remote(advice.Remote{Refused: 10}),
		remote(advice.Remote{Refused: 9}),
	},
	{
		"retransmissions", "",
		kernel(counter("TCPTimeouts", 100), counter("RetransSegs", 101), counter("OutSegs", 9999)),
		kernel(counter("TCPTimeouts", 100), counter("RetransSegs", 101), counter("OutSegs", 10000)),
	},
	{
		"retransmissions", "few",
		kernel(counter("TCPTimeouts", 101), counter("RetransSegs", 101), counter("OutSegs", 103), counter("TCPSynRetrans", 97)),
		kernel(counter("TCPTimeouts", 99), counter("RetransSegs", 101), counter("OutSegs", 103)),
	},
	{
		"fin-wait2", "",
		kernel(func(ns *advice.Namespace) {
			ns.FinTimeouts = 10
			ns.FinWait2Max = 60_900_000_000
			ns.OrphanFinWait2 = 7
		}),
		kernel(func(ns *advice.Namespace) { ns.FinTimeouts = 9; ns.OrphanFinWait2 = 999 }),
	},
	{
		"fin-wait2", "now",
		kernel(func(ns *advice.Namespace) { ns.OrphanFinWait2 = 1000 }),
		nil,
	},
	{
		"address-in-use", "",
		left(advice.LeftPort{ListenerClosed: true, TimeWait: 13, TimeWaitLeft: 41 * sec, Open: 2, Remotes: 1, PID: 4712, Comm: "worker"}),
		left(advice.LeftPort{ListenerClosed: true, Remotes: 1}),
	},
	{
		"address-in-use", "before",
		left(advice.LeftPort{TimeWait: 13, TimeWaitLeft: 41 * sec, Remotes: 2}),
		left(advice.LeftPort{TimeWait: 13, TimeWaitLeft: 41 * sec, Remotes: 1}),
	},
	{
		"address-in-use", "ephemeral",
		left(advice.LeftPort{ListenerClosed: true, Ephemeral: true, Open: 1, Remotes: 1}),
		left(advice.LeftPort{Ephemeral: true, Open: 2, Remotes: 2}),
	},
}

func of(items []advice.Item, rule string) (list []advice.Item) {
	for _, it := range items {
		if it.Rule == rule {
			list = append(list, it)
		}
	}
	return list
}

func TestRules(t *testing.T) {
	tried := map[string]bool{}
	for _, tc := range cases {
		name := tc.rule
		if tc.name != "" {
			name += "-" + tc.name
		}
		t.Run(name, func(t *testing.T) {
			got := of(advice.Advise(tc.above), tc.rule)
			if len(got) != 1 {
				t.Fatalf("got %d items %+v: want 1", len(got), got)
			}
			if tc.below != nil {
				if items := of(advice.Advise(tc.below), tc.rule); len(items) != 0 {
					t.Errorf("speaks below its threshold: %+v", items)
				}
				tried[tc.rule] = true
			}
			text := render.AppendAdvice(nil, got, 80, false)
			for line := range strings.Lines(string(text)) {
				if n := render.Width(strings.TrimSuffix(line, "\n")); n > 80 {
					t.Errorf("%d columns: %q", n, line)
				}
			}
			golden(t, filepath.Join("testdata", name+".txt"), text)
		})
	}
	for _, rule := range advice.Rules() {
		if !tried[rule.Name] {
			t.Errorf("no case just below the threshold of %s", rule.Name)
		}
		if rule.Speaks == "" || rule.Advice == "" || rule.Cost == "" || len(rule.Sources) == 0 {
			t.Errorf("%s is not complete: %+v", rule.Name, rule)
		}
	}
}

// Nothing is said of what is not known, and zero is nothing to talk about.
func TestSilent(t *testing.T) {
	for _, n := range []int64{0, advice.Unknown} {
		f := &advice.Facts{
			Duration:  n,
			Processes: []advice.Process{{PID: 1, Comm: "x"}}, Remotes: make([]advice.Remote, 1), Ports: make([]advice.PortUse, 1),
			Listeners: make([]advice.Listener, 1), Left: make([]advice.LeftPort, 1), Namespaces: make([]advice.Namespace, 1),
		}
		f.Left[0].ListenerClosed = true
		if n != 0 {
			fill(reflect.ValueOf(f).Elem(), n)
			f.Namespaces[0].Counters = map[string]int64{}
			for _, name := range advice.Counters() {
				f.Namespaces[0].Counters[name] = n
			}
		}
		if items := advice.Advise(f); len(items) != 0 {
			t.Errorf("all numbers %d: got %+v", n, items)
		}
	}
	if items := advice.Advise(&advice.Facts{}); len(items) != 0 {
		t.Errorf("no facts: got %+v", items)
	}
	if items := advice.Advise(kernel()); len(items) != 0 {
		t.Errorf("the kernel's defaults: got %+v", items)
	}
}

// fill sets every int64 to n.
func fill(v reflect.Value, n int64) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Int64:
		v.SetInt(n)
	}
}

// A rule that knows its numbers but no sysctl says what it can.
func TestUnknownSysctls(t *testing.T) {
	for _, tc := range cases {
		f := *tc.above
		f.Namespaces = slices.Clone(f.Namespaces)
		f.Namespaces[0].Sysctls = nil
		for _, it := range of(advice.Advise(&f), tc.rule) {
			for _, e := range it.Evidence {
				if strings.Contains(e.Name, "net.") || strings.HasPrefix(e.Name, "fs.") {
					t.Errorf("%s shows a sysctl that is not known: %+v", tc.rule, e)
				}
			}
		}
	}
}

// everything is the facts of all first cases at once.
func everything() *advice.Facts {
	all := &advice.Facts{Duration: 60 * sec, Namespaces: space()}
	ns := &all.Namespaces[0]
	for i, tc := range cases {
		if tc.name != "" {
			continue
		}
		f := tc.above
		for _, p := range f.Processes {
			p.PID += uint32(i)
			all.Processes = append(all.Processes, p)
		}
		all.Remotes = append(all.Remotes, f.Remotes...)
		all.Ports = append(all.Ports, f.Ports...)
		all.Listeners = append(all.Listeners, f.Listeners...)
		all.Left = append(all.Left, f.Left...)
		for name, n := range f.Namespaces[0].Counters {
			ns.Counters[name] = n
		}
		ns.FinTimeouts = max(ns.FinTimeouts, f.Namespaces[0].FinTimeouts)
	}
	return all
}

func TestOrder(t *testing.T) {
	items := advice.Advise(everything())
	seen := map[string]bool{}
	for i, it := range items {
		seen[it.Rule] = true
		if i > 0 && it.Severity > items[i-1].Severity {
			t.Errorf("%s (%s) comes after %s (%s)", it.Rule, it.Severity, items[i-1].Rule, items[i-1].Severity)
		}
	}
	for _, rule := range advice.Rules() {
		if !seen[rule.Name] {
			t.Errorf("%s is missing", rule.Name)
		}
	}
}

func TestMany(t *testing.T) {
	f := &advice.Facts{Lost: 7, Namespaces: append(space(), advice.Namespace{NetNS: 7, Name: "blue"})}
	for i := range 5 {
		f.Processes = append(f.Processes, advice.Process{NetNS: 7, PID: uint32(i + 1), Comm: "x", ResetUnread: int64(10 + i)})
	}
	items := of(advice.Advise(f), "reset-unread")
	if len(items) != 3 || !strings.HasPrefix(items[0].Title, "x (5)") || !strings.HasPrefix(items[2].Title, "x (3)") {
		t.Fatalf("got %d items %+v: want the worst three", len(items), items)
	}
	var names []string
	for _, e := range items[2].Evidence {
		names = append(names, e.Name+"="+e.Text)
	}
	got := strings.Join(names, ";")
	for _, want := range []string{"more like this, not shown=", "network namespace=blue", "events lost: counts of the run are lower bounds="} {
		if !strings.Contains(got, want) {
			t.Errorf("got evidence %s: want %s", got, want)
		}
	}
}

// The descriptors of a process with sockets in two namespaces are counted once.
func TestDescriptorsOnce(t *testing.T) {
	f := &advice.Facts{Processes: []advice.Process{
		{NetNS: 1, PID: 7, Comm: "x", OpenFDs: 9, NofileSoft: 10}, {NetNS: 2, PID: 7, Comm: "x", OpenFDs: 9, NofileSoft: 10},
	}}
	if items := advice.Advise(f); len(items) != 1 {
		t.Errorf("got %+v: want one item", items)
	}
}

func TestJSON(t *testing.T) {
	f := everything()
	f.Processes[0].Comm = "evil\x1b[2J\"\n"
	text := render.AppendAdviceJSON(nil, events.NewEncoder(events.Clock{}), advice.Advise(f))
	if bytes.ContainsAny(text, "\x1b\n") {
		t.Errorf("control characters get through: %q", text)
	}
	var got []struct {
		Rule, Severity, Title, Change, Cost string
		Evidence                            []struct {
			Name    string
			Value   any
			Unit    *string
			AtLeast bool `json:"at_least"`
		}
		Sources []string
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(got) < len(advice.Rules()) {
		t.Errorf("got %d items: want %d or more", len(got), len(advice.Rules()))
	}
	for _, it := range got {
		if it.Rule == "" || it.Severity == "" || it.Title == "" || it.Change == "" || it.Cost == "" || len(it.Sources) == 0 || len(it.Evidence) == 0 {
			t.Errorf("not complete: %+v", it)
		}
	}
	if got := string(render.AppendAdviceJSON(nil, events.NewEncoder(events.Clock{}), nil)); got != "[]" {
		t.Errorf("got %s: want []", got)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "all.json"), append(out.Bytes(), '\n'))
}

func TestText(t *testing.T) {
	f := everything()
	f.Processes[0].Comm = "evil\x1b[2J"
	items := advice.Advise(f)
	for _, columns := range []int{40, 80, 132} {
		text := string(render.AppendAdvice(nil, items, columns, false))
		if strings.ContainsRune(text, '\x1b') {
			t.Error("an escape sequence gets through")
		}
		if columns == 40 {
			continue // a name of evidence takes more
		}
		for line := range strings.Lines(text) {
			if n := render.Width(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d of %d columns: %q", n, columns, line)
			}
		}
	}
	if got := render.AppendAdvice(nil, nil, 80, true); len(got) != 0 {
		t.Errorf("nothing to say: got %q", got)
	}
	golden(t, filepath.Join("testdata", "color.txt"), render.AppendAdvice(nil, items[:1], 80, true))
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (-update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
