package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/sysctl"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

// The rules of the advice, each brought about by the real condition in a namespace
// of its own, and by the same just below the threshold in another. One --summary
// looks at all of them: in each namespace exactly the expected rules may speak, with
// the numbers that the workload knows.

func init() {
	actorOps["begin"] = (*actor).beginConnect
	actorOps["fill"] = (*actor).fillDescriptors
}

// beginConnect starts to connect N sockets to Addrs[0] and does not wait.
func (a *actor) beginConnect(req *request, resp *response) error {
	ap := netip.MustParseAddrPort(req.Addrs[0])
	for range req.N {
		fd, err := newSocket(ap, req)
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddr(ap, false)); err != unix.EINPROGRESS {
			return fmt.Errorf("connect: %w", err)
		}
		resp.FDs = append(resp.FDs, fd)
	}
	return nil
}

// fillDescriptors takes descriptors until N are in use.
func (a *actor) fillDescriptors(req *request, _ *response) error {
	for {
		// The listing has a descriptor itself.
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		switch n := len(open) - 1; {
		case n > req.N:
			return fmt.Errorf("%d descriptors are in use: want %d", n, req.N)
		case n == req.N:
			return nil
		}
		if _, err := unix.FcntlInt(uintptr(req.FDs[0]), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
	}
}

// adviceItem is an item of a summary line's advice.
type adviceItem struct {
	Rule, Severity, Title, Change, Cost string
	Evidence                            []struct {
		Name    string
		Value   any
		Unit    *string
		AtLeast bool `json:"at_least"`
	}
	Sources []string
}

func (it *adviceItem) value(name string) any {
	for _, e := range it.Evidence {
		if e.Name == name {
			return e.Value
		}
	}
	return nil
}

// adviceCase makes a condition with n of something.
type adviceCase struct {
	rule, severity string // what must speak
	above, below   int
	sysctls        map[string]string
	run            func(w *adviceRun, n int)
	// evidence must be there, with these numbers; n stands for itself.
	evidence map[string]any
	// atLeast are numbers that the kernel may count more of.
	atLeast map[string]float64
}

const theNumber = "n"

// adviceRun is a case that runs, with n of something.
type adviceRun struct {
	*C
	p    *Proc
	wire *testnet.Wire // to a namespace that is not traced; nil without
	peer *Proc         // there
	// hold is until when the condition must last.
	hold time.Time
}

var listenAt = netip.MustParseAddrPort("127.0.0.1:9000")

// connections makes n connections of the process to itself.
func (w *adviceRun) connections(n int) (l *Listener, cli, srv []int) {
	l = &Listener{P: w.p, Addr: listenAt, FD: w.listen(512)}
	cli, srv = w.connect(l.FD, n)
	return l, cli, srv
}

func (w *adviceRun) listen(backlog int) int {
	return w.p.call(w.C, request{Op: "listen", N: backlog, Addrs: []string{listenAt.String()}}).FDs[0]
}

func (w *adviceRun) connect(listener, n int) (cli, srv []int) {
	accepted := w.p.start(w.C, request{Op: "accept", FDs: []int{listener}, N: n})
	resp := w.p.call(w.C, request{Op: "connect", N: n, Addrs: []string{listenAt.String()}})
	for _, errno := range resp.Errnos {
		if errno != 0 {
			w.Fatalf("connect: %v", syscall.Errno(errno))
		}
	}
	// In the order of the connects: the queue keeps it.
	return resp.FDs, accepted().FDs
}

func (w *adviceRun) do(p *Proc, op string, fds []int, n int) response {
	return p.call(w.C, request{Op: op, FDs: fds, N: n})
}

// counter waits until a counter of the namespace has grown to n.
func (w *adviceRun) counter(ns *testnet.NS, name string, n int64) {
	deadline := time.Now().Add(callTimeout)
	for {
		var got int64
		err := netns.Do(netns.NS{Inode: ns.Inode(), Path: ns.Path()}, func() error {
			got = sysctl.Read("/proc", nil, []string{name}).Counters[name]
			return nil
		})
		if err != nil {
			w.Fatalf("%v", err)
		}
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s is %d: want %d", name, got, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func drop(testnet.Segment) testnet.Verdict { return testnet.Drop }

func adviceCases() []adviceCase {
	return []adviceCase{
		{
			rule: "close-wait", severity: "warning", above: 11, below: 9,
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "close", cli, 0)
				w.do(w.p, "eof", srv, 0)
				w.hold = time.Now().Add(10*time.Second + 300*time.Millisecond)
			},
			evidence: map[string]any{"in CLOSE_WAIT for 10 s or longer": theNumber, "in CLOSE_WAIT now": theNumber, "drained, never closed": theNumber},
		},
		{
			rule: "descriptors", severity: "warning", above: 81, below: 80,
			run: func(w *adviceRun, n int) {
				fd := w.listen(7)
				if err := unix.Prlimit(w.p.id.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 101, Max: 101}, nil); err != nil {
					w.Fatalf("prlimit: %v", err)
				}
				w.do(w.p, "fill", []int{fd}, n)
			},
			evidence: map[string]any{"descriptors in use": theNumber, "soft limit (RLIMIT_NOFILE)": 101.0, "in use": 80.0},
		},
		{
			rule: "server-closes-first", severity: "note", above: 101, below: 99,
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "close", srv, 0)
				w.do(w.p, "eof", cli, 0)
				w.do(w.p, "close", cli, 0)
			},
			evidence: map[string]any{"closed first by this side": theNumber, "closed first by the client": 0.0, "TIME_WAIT entered": theNumber},
		},
		{
			rule: "reset-unread", severity: "warning", above: 11, below: 9,
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "write", cli, 7)
				w.do(w.p, "readable", srv, 0)
				w.do(w.p, "close", srv, 0)
				w.do(w.p, "reset", cli, 0)
				w.do(w.p, "close", cli, 0)
			},
			evidence: map[string]any{"closed with data unread": theNumber, "TCPAbortOnClose": theNumber},
		},
		{
			rule: "linger0", severity: "note", above: 11, below: 9,
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "linger0", cli, 0)
				w.do(w.p, "close", cli, 0)
				w.do(w.p, "reset", srv, 0)
				w.do(w.p, "close", srv, 0)
			},
			evidence: map[string]any{"closed with SO_LINGER 0": theNumber, "TCPAbortOnData": theNumber},
		},
		{
			// Eight of ten ports, and seven.
			rule: "port-exhaustion", severity: "warning", above: 8, below: 7,
			sysctls: map[string]string{"ipv4/ip_local_port_range": "20000 20009"},
			run:     func(w *adviceRun, n int) { w.connections(n) },
			evidence: map[string]any{
				"local ports in use": theNumber, "held by a TIME_WAIT": 0.0, "ports of the range, less the reserved": 10.0,
				"net.ipv4.ip_local_port_range": "20000 20009",
			},
		},
		{
			// TIME_WAITs take the ports, and connect() finds none; with
			// tcp_tw_reuse they would not count.
			rule: "port-exhaustion", severity: "critical", above: 6, below: 4,
			sysctls: map[string]string{"ipv4/ip_local_port_range": "20000 20005", "ipv4/tcp_tw_reuse": "0"},
			run: func(w *adviceRun, n int) {
				l, cli, srv := w.connections(n)
				w.do(w.p, "close", cli, 0)
				w.do(w.p, "eof", srv, 0)
				w.do(w.p, "close", srv, 0)
				if n < 6 {
					return
				}
				resp := w.p.call(w.C, request{Op: "connect", N: 7, Addrs: []string{l.Addr.String()}})
				for _, errno := range resp.Errnos {
					if syscall.Errno(errno) != syscall.EADDRNOTAVAIL {
						w.Fatalf("connect without a port: %v", syscall.Errno(errno))
					}
				}
				w.do(w.p, "close", resp.FDs, 0)
			},
			evidence: map[string]any{
				"connects that found no port": 7.0, "local ports in use": theNumber, "held by a TIME_WAIT": theNumber,
				"ports of the range, less the reserved": 6.0, "net.ipv4.tcp_tw_reuse": 0.0,
			},
		},
		{
			// One more than the backlog fits in; three that come then do not.
			rule: "accept-backlog", severity: "critical", above: 6, below: 5,
			run: func(w *adviceRun, n int) {
				w.listen(5)
				w.p.call(w.C, request{Op: "connect", N: n, Addrs: []string{listenAt.String()}})
				if n > 5 {
					w.p.call(w.C, request{Op: "begin", N: 3, Addrs: []string{listenAt.String()}})
					w.counter(w.NS, "ListenOverflows", 3)
				}
			},
			evidence: map[string]any{"waiting for accept()": theNumber, "limit (listen(), cut to somaxconn)": 5.0},
			atLeast:  map[string]float64{"ListenOverflows": 3, "ListenDrops": 3},
		},
		{
			// Seven find room.
			rule: "time-wait-buckets", severity: "warning", above: 11, below: 7,
			sysctls: map[string]string{"ipv4/tcp_max_tw_buckets": "9"},
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "close", cli, 0)
				w.do(w.p, "eof", srv, 0)
				w.do(w.p, "close", srv, 0)
			},
			evidence: map[string]any{
				"TIME_WAITs left out": 2.0, "TCPTimeWaitOverflow": 2.0, "timewait sockets now": 9.0, "net.ipv4.tcp_max_tw_buckets": 9.0,
			},
		},
		{
			rule: "fin-wait2", severity: "note", above: 11, below: 9,
			sysctls: map[string]string{"ipv4/tcp_fin_timeout": "4"},
			run: func(w *adviceRun, n int) {
				_, cli, srv := w.connections(n)
				w.do(w.p, "close", cli, 0)
				w.do(w.p, "eof", srv, 0)
				w.gone(n)
				w.do(w.p, "close", srv, 0) // answered by an RST
			},
			evidence: map[string]any{"ended by tcp_fin_timeout": theNumber, "net.ipv4.tcp_fin_timeout": 4.0},
		},
		{
			rule: "refused", severity: "warning", above: 11, below: 9,
			run: func(w *adviceRun, n int) {
				resp := w.p.call(w.C, request{Op: "connect", N: n, Addrs: []string{"127.0.0.1:9"}})
				for _, errno := range resp.Errnos {
					if syscall.Errno(errno) != syscall.ECONNREFUSED {
						w.Fatalf("connect: %v", syscall.Errno(errno))
					}
				}
				w.do(w.p, "close", resp.FDs, 0)
			},
			evidence: map[string]any{"refused": theNumber},
		},
		{
			// The listener is closed and leaves TIME_WAITs, or none.
			rule: "address-in-use", severity: "note", above: 7, below: 0,
			run: func(w *adviceRun, n int) {
				l, cli, srv := w.connections(7)
				first, second := srv, cli
				if n == 0 {
					first, second = cli, srv
				}
				w.do(w.p, "close", first, 0)
				w.do(w.p, "eof", second, 0)
				w.do(w.p, "close", second, 0)
				w.do(w.p, "close", []int{l.FD}, 0)
			},
			evidence: map[string]any{"in TIME_WAIT": theNumber, "in other states": 0.0},
		},
		{
			// No answer to the SYN.
			rule: "timeouts", severity: "warning", above: 11, below: 9,
			sysctls: map[string]string{"ipv4/tcp_syn_retries": "1"},
			run: func(w *adviceRun, n int) {
				w.onWire(nil)
				w.wire.AddRule(testnet.A, drop)
				resp := w.p.call(w.C, request{Op: "begin", N: n, Addrs: []string{netip.AddrPortFrom(w.wire.Addr(testnet.B, 4), 9000).String()}})
				for _, errno := range w.do(w.p, "failed", resp.FDs, 0).Errnos {
					if syscall.Errno(errno) != syscall.ETIMEDOUT {
						w.Fatalf("connect: %v", syscall.Errno(errno))
					}
				}
				w.do(w.p, "close", resp.FDs, 0)
			},
			evidence: map[string]any{"no answer to the SYN": theNumber, "no answer later": nil, "net.ipv4.tcp_syn_retries": 1.0},
		},
		{
			// No answer to data.
			rule: "timeouts", severity: "warning", above: 13, below: 9,
			sysctls: map[string]string{"ipv4/tcp_retries2": "1"},
			run: func(w *adviceRun, n int) {
				fds := w.acrossWire(n)
				w.wire.AddRule(testnet.A, drop)
				w.do(w.p, "write", fds, 7)
				w.do(w.p, "failed", fds, 0)
				w.do(w.p, "close", fds, 0)
			},
			evidence: map[string]any{"no answer to the SYN": nil, "no answer later": theNumber, "net.ipv4.tcp_retries2": 1.0},
		},
		{
			// Each connection has a timeout or two before the wire is mended, or
			// more and more.
			rule: "retransmissions", severity: "warning", above: 101, below: 23,
			run: func(w *adviceRun, n int) {
				fds := w.acrossWire(n)
				mend := w.wire.AddRule(testnet.A, drop)
				w.do(w.p, "write", fds, 7)
				w.counter(w.NS, "TCPTimeouts", int64(n))
				if n < 100 {
					mend()
				}
			},
			atLeast: map[string]float64{"TCPTimeouts": 101, "RetransSegs": 101, "OutSegs": 303},
		},
		{
			// The traced side is the server: its SYN/ACKs are lost. Three half-open
			// connections fill the queue of a backlog of three.
			rule: "syn-backlog", severity: "warning", above: 5, below: 3,
			run: func(w *adviceRun, n int) {
				w.onWire(nil)
				w.wire.AddRule(testnet.A, drop)
				addr := netip.AddrPortFrom(w.wire.Addr(testnet.A, 4), 9000).String()
				w.p.call(w.C, request{Op: "listen", N: 3, Addrs: []string{addr}})
				w.peer.call(w.C, request{Op: "begin", N: n, Addrs: []string{addr}})
				w.seen(n, testnet.B)
			},
			evidence: map[string]any{"net.ipv4.tcp_syncookies": 1.0},
			atLeast:  map[string]float64{"TCPReqQFullDoCookies": 2},
		},
	}
}

// onWire joins the namespace to one that is not traced.
func (w *adviceRun) onWire(sysctls map[string]string) {
	peer := w.UntracedNS("advice-peer")
	var err error
	if w.wire, err = testnet.Connect(w.NS, peer); err != nil {
		w.Fatalf("%v", err)
	}
	w.peer = w.ProcIn(peer, "peer")
}

// acrossWire makes n connections to the other end of the wire.
func (w *adviceRun) acrossWire(n int) []int {
	w.onWire(nil)
	addr := netip.AddrPortFrom(w.wire.Addr(testnet.B, 4), 9000).String()
	l := w.peer.call(w.C, request{Op: "listen", N: 512, Addrs: []string{addr}}).FDs[0]
	accepted := w.peer.start(w.C, request{Op: "accept", FDs: []int{l}, N: n})
	resp := w.p.call(w.C, request{Op: "connect", N: n, Addrs: []string{addr}})
	for _, errno := range resp.Errnos {
		if errno != 0 {
			w.Fatalf("connect: %v", syscall.Errno(errno))
		}
	}
	accepted()
	return resp.FDs
}

// seen waits until n SYNs from the end have reached the other.
func (w *adviceRun) seen(n int, from testnet.End) {
	deadline := time.Now().Add(callTimeout)
	for {
		ports := map[uint16]bool{}
		for _, p := range w.wire.Passages(func(p testnet.Passage) bool { return p.From == from && p.Flags.Has(testnet.SYN) && p.End != 0 }) {
			ports[p.Src.Port()] = true
		}
		if len(ports) == n {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%d SYNs have come: want %d", len(ports), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// gone waits until no more than the n sockets in CLOSE_WAIT are left of the
// connections.
func (w *adviceRun) gone(n int) {
	deadline := time.Now().Add(callTimeout)
	for {
		var left int
		err := w.NS.Do(func() error {
			all, err := readProcTCP(procTCP4, procTCP6)
			left = len(all)
			return err
		})
		if err != nil {
			w.Fatalf("%v", err)
		}
		if left == n+1 { // and the listener
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%d sockets are left: want %d and a listener", left, n)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestAdvice(t *testing.T) {
	s := newSuite(t)
	type place struct {
		cs    *adviceCase
		n     int
		speak bool
		run   *adviceRun
	}
	var places []*place
	cases := adviceCases()
	for i := range cases {
		cs := &cases[i]
		for _, n := range []int{cs.above, cs.below} {
			name := fmt.Sprintf("advice-%s-%d", cs.rule, n)
			ns, err := s.newNS(name, true)
			if err != nil {
				t.Fatal(err)
			}
			for path, value := range cs.sysctls {
				if err := ns.SetSysctl(path, value); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			c := &C{caseRun: &caseRun{s: s, Case: &Case{Name: name}, NS: ns, procs: map[string]*Proc{}}, Fam: 4}
			places = append(places, &place{cs, n, n == cs.above, &adviceRun{C: c}})
		}
	}
	var names []string
	for _, pl := range places {
		names = append(names, pl.run.NS.Name())
	}
	record := filepath.Join(s.dir, "advice.rec")
	tool := startTool(t, nil, "--summary", "-o", "json", "-w", record, "--netns", strings.Join(names, ","))
	tool.waitReady()

	var work sync.WaitGroup
	var mu sync.Mutex
	var failed []string
	for _, pl := range places {
		work.Add(1)
		go func() {
			defer work.Done()
			defer func() {
				r := recover()
				if r == nil {
					return
				}
				text, ok := r.(failure)
				if !ok {
					panic(r)
				}
				mu.Lock()
				failed = append(failed, fmt.Sprintf("%s, %d: %s", pl.cs.rule, pl.n, text))
				mu.Unlock()
			}()
			pl.run.p = pl.run.ProcIn(pl.run.NS, pl.cs.rule[:min(len(pl.cs.rule), 9)])
			pl.cs.run(pl.run, pl.n)
		}()
	}
	work.Wait()
	defer func() {
		for _, pl := range places {
			if pl.run.wire != nil {
				if err := pl.run.wire.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for _, text := range failed {
		t.Errorf("workload: %s", text)
	}
	for _, pl := range places {
		time.Sleep(time.Until(pl.run.hold))
	}
	if err := tool.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	summary, err := readSummary(tool.stdout)
	if err != nil {
		t.Fatalf("%v; stderr: %s", err, &tool.stderr)
	}
	tool.wantStatus(0)

	spoken := make(map[string][]*adviceItem) // by namespace
	for i := range summary.Advice {
		it := &summary.Advice[i]
		if it.Change == "" || it.Cost == "" || len(it.Sources) == 0 {
			t.Errorf("%s is not complete: %+v", it.Rule, it)
		}
		if more := it.value("more like this, not shown"); more != nil {
			t.Errorf("%s: %v more are not shown: this test cannot see them", it.Rule, more)
		}
		where, _ := it.value("network namespace").(string)
		if where == "" {
			// Of a process, in whatever namespace.
			for _, pl := range places {
				if strings.Contains(it.Title, fmt.Sprintf("(%d)", pl.run.p.id.PID)) {
					where = pl.run.NS.Name()
				}
			}
		}
		spoken[where] = append(spoken[where], it)
	}
	for _, pl := range places {
		t.Run(fmt.Sprintf("%s-%d", pl.cs.rule, pl.n), func(t *testing.T) {
			items := spoken[pl.run.NS.Name()]
			if !pl.speak {
				for _, it := range items {
					t.Errorf("below the threshold: got %s: %s", it.Rule, it.Title)
				}
				return
			}
			if len(items) != 1 || items[0].Rule != pl.cs.rule {
				for _, it := range items {
					t.Logf("got %s: %s", it.Rule, it.Title)
				}
				t.Fatalf("got %d items: want one of %s", len(items), pl.cs.rule)
			}
			pl.cs.check(t, items[0])
		})
		delete(spoken, pl.run.NS.Name())
	}
	for where, items := range spoken {
		t.Errorf("namespace %q is none of the test's: %+v", where, items[0])
	}
	if inVM && summary.Lost.Count > 0 {
		t.Logf("%d events were lost", summary.Lost.Count)
	}

	// What the recording says is the same, advice included.
	again := startReplay(t, "-r", record, "--summary", "-o", "json")
	if again.raw != summary.raw {
		t.Errorf("replay differs\ngot:  %s\nwant: %s", again.raw, summary.raw)
	}
}

// TestAdviceRecorded: a recording that nobody asked for an account has what the
// advice goes by.
func TestAdviceRecorded(t *testing.T) {
	leaking(t, "advice-recorded", func(t *testing.T, c *C) {
		w := &adviceRun{C: c, p: c.Proc("accept")}
		record := filepath.Join(c.s.dir, "recorded")
		tool := startTool(t, nil, "-w", record, "--netns", c.NS.Name())
		tool.waitReady()
		for _, cs := range adviceCases() {
			if cs.rule == "accept-backlog" {
				cs.run(w, cs.above)
			}
		}
		if err := tool.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		tool.wantStatus(0)
		summary := startReplay(t, "-r", record, "--summary", "-o", "json")
		if len(summary.Advice) != 1 || summary.Advice[0].Rule != "accept-backlog" {
			t.Fatalf("got %+v: want accept-backlog alone", summary.Advice)
		}
		cs := adviceCase{
			severity: "critical", evidence: map[string]any{"waiting for accept()": 6.0},
			atLeast: map[string]float64{"ListenOverflows": 3, "net.core.somaxconn": 1},
		}
		cs.check(t, &summary.Advice[0])
	})
}

// TestAdviceMemory: the kernel resets connections because there are too many
// orphans. Their limit is the whole machine's: only a VM is the test's.
func TestAdviceMemory(t *testing.T) {
	if !inVM {
		t.Skip("tcp_max_orphans is of the whole machine: only in a VM")
	}
	const orphans, resets = 7, 11
	const limit = "/proc/sys/net/ipv4/tcp_max_orphans"
	was, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	setLimit := func(n string) {
		if err := os.WriteFile(limit, []byte(n), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{0, resets} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			leaking(t, "advice-memory", func(t *testing.T, c *C) {
				w := &adviceRun{C: c, p: c.Proc("memory")}
				fds := w.acrossWire(orphans + n)
				defer w.wire.Close()
				tool := startTool(t, nil, "--summary", "-o", "json", "--netns", c.NS.Name())
				tool.waitReady()
				// Nobody acknowledges the FINs.
				w.wire.AddRule(testnet.A, drop)
				w.do(w.p, "close", fds[:orphans], 0)
				// Later kernels count orphans ten times a second.
				time.Sleep(500 * time.Millisecond)
				defer setLimit(string(was))
				// An orphan that retransmits counts up to four times
				// (tcp_out_of_resources), and tests beside this one have some too.
				setLimit(fmt.Sprint(map[bool]int{true: orphans - 1, false: 64 * orphans}[n > 0]))
				w.do(w.p, "close", fds[orphans:], 0)
				if n > 0 {
					w.counter(c.NS, "TCPAbortOnMemory", int64(n))
				}
				if err := tool.cmd.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
				summary, err := readSummary(tool.stdout)
				if err != nil {
					t.Fatalf("%v; stderr: %s", err, &tool.stderr)
				}
				tool.wantStatus(0)
				if n == 0 {
					if len(summary.Advice) > 0 {
						t.Errorf("below the limit: got %+v", summary.Advice)
					}
					return
				}
				if len(summary.Advice) != 1 || summary.Advice[0].Rule != "memory" {
					t.Fatalf("got %+v: want memory alone", summary.Advice)
				}
				cs := adviceCase{
					severity: "critical", evidence: map[string]any{"net.ipv4.tcp_max_orphans": orphans - 1.0},
					atLeast: map[string]float64{"TCPAbortOnMemory": resets},
				}
				cs.check(t, &summary.Advice[0])
			})
		})
	}
}

// check compares the evidence.
func (cs *adviceCase) check(t *testing.T, it *adviceItem) {
	if it.Severity != cs.severity {
		t.Errorf("%s is %s: want %s", it.Title, it.Severity, cs.severity)
	}
	for name, want := range cs.evidence {
		if want == theNumber {
			want = float64(cs.above)
		}
		if got := it.value(name); got != want {
			t.Errorf("%s: got %v: want %v, in %+v", name, got, want, it.Evidence)
		}
	}
	for name, least := range cs.atLeast {
		if got, ok := it.value(name).(float64); !ok || got < least {
			t.Errorf("%s: got %v: want %v or more, in %+v", name, it.value(name), least, it.Evidence)
		}
	}
}

// summaryLine is what the tests of advice read of a line of type summary.
type summaryLine struct {
	Type   string
	Advice []adviceItem
	Lost   struct{ Count int }
	raw    string
}

// readSummary reads the output to its end: its last line is the summary.
func readSummary(r io.Reader) (*summaryLine, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	s := &summaryLine{}
	for {
		text, err := in.ReadString('\n')
		if err == io.EOF && text == "" {
			break
		}
		if err != nil {
			return nil, err
		}
		*s = summaryLine{raw: text}
		if err := json.Unmarshal([]byte(text), s); err != nil {
			return nil, fmt.Errorf("%w in %s", err, text)
		}
	}
	if s.Type != "summary" {
		return nil, fmt.Errorf("the last line is no summary: %q", s.raw)
	}
	return s, nil
}

// startReplay runs tcptrace on a recording.
func startReplay(t *testing.T, args ...string) *summaryLine {
	t.Helper()
	cmd := exec.Command(tcptrace, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s, err := readSummary(out)
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatalf("replay: %v, %v", err, waitErr)
	}
	return s
}
