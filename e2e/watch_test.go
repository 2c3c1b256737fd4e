package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/testnet"
)

// The tests of --watch: workload processes leak sockets in every way, and each
// answer must list exactly these, with the process that holds each, the reason
// and the age. What the kernel's inet_diag lists, which is where ss has it from,
// must be the same sockets.

// watchProcess is a process in an answer.
type watchProcess struct {
	PID        *int     `json:"pid"`
	Comm       *string  `json:"comm"`
	FD         []int    `json:"fd"`
	UID        *int     `json:"uid"`
	Cmdline    []string `json:"cmdline"`
	NofileSoft *int64   `json:"nofile_soft"`
	OpenFDs    *int     `json:"open_fds"`
	Unit       *struct {
		Kind *string `json:"kind"`
		Name *string `json:"name"`
		Path *string `json:"path"`
	} `json:"unit"`
}

// watchSocket is a line of type socket.
type watchSocket struct {
	Time        time.Time       `json:"time"`
	TS          int64           `json:"ts_ns"`
	Cookie      *string         `json:"cookie"`
	NetNS       uint32          `json:"netns"`
	Family      int             `json:"family"`
	LAddr       string          `json:"laddr"`
	LPort       uint16          `json:"lport"`
	RAddr       string          `json:"raddr"`
	RPort       uint16          `json:"rport"`
	State       string          `json:"state"`
	Since       *time.Time      `json:"since"`
	AgeNS       *int64          `json:"age_ns"`
	AgeExact    bool            `json:"age_exact"`
	RXPending   *int            `json:"rx_pending"`
	FinPending  *bool           `json:"fin_pending"`
	Reason      *string         `json:"reason"`
	Holders     []*watchProcess `json:"holders"`
	Listener    *watchProcess   `json:"listener"`
	Listeners   []*watchProcess `json:"listeners"`
	RemainingNS *int64          `json:"remaining_ns"`
}

func (s *watchSocket) key() sockKey {
	return sockKey{s.NetNS, s.LAddr, s.LPort, s.RAddr, s.RPort, s.State}
}

// watchGroup is a line of type group.
type watchGroup struct {
	watchProcess
	State        string         `json:"state"`
	Count        int            `json:"count"`
	OldestNS     *int64         `json:"oldest_ns"`
	MedianNS     *int64         `json:"median_ns"`
	GrowthPerMin *float64       `json:"growth_per_min"`
	Reasons      map[string]int `json:"reasons"`
	Unread       int            `json:"unread"`
	LimitInNS    *int64         `json:"limit_in_ns"`
	Verdict      string         `json:"verdict"`
}

// answer is what one look says.
type answer struct {
	TS      int64  `json:"ts_ns"`
	Groups  int    `json:"groups"` // how many lines of each type follow
	Sockets int    `json:"sockets"`
	Ports   int    `json:"ports"`
	Hooks   string `json:"hooks"`
	Lost    int    `json:"lost"`

	groups  []*watchGroup
	sockets []*watchSocket
}

var watchFields = map[string][]string{
	"group": {"state", "pid", "comm", "count", "oldest_ns", "median_ns", "growth_per_min", "reasons", "top_remotes"},
	"socket": {"time", "ts_ns", "conn", "cookie", "netns", "family", "laddr", "lport", "raddr", "rport", "state", "since", "age_ns",
		"age_exact", "rx_pending", "fin_pending", "tx_pending", "reason", "holders", "listener", "listeners"},
}

// answers reads JSON lines, and calls got for each whole answer.
func answers(r io.Reader, got func(*answer)) error {
	in := bufio.NewReaderSize(r, 1<<20)
	var a *answer
	ports := 0
	for n := 0; ; n++ {
		text, err := in.ReadBytes('\n')
		if err == io.EOF && len(text) == 0 {
			if a != nil {
				return errors.New("the last answer is cut")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w: %q", n+1, err, text)
		}
		kind := typeOf(text)
		for _, field := range watchFields[kind] {
			if !bytes.Contains(text, []byte(`"`+field+`":`)) {
				return fmt.Errorf("%s without %q: %s", kind, field, text)
			}
		}
		if (kind == "header") != (n == 0) || (kind == "snapshot") != (a == nil && n > 0) {
			return fmt.Errorf("line %d is out of place: %s", n+1, text)
		}
		switch kind {
		case "header":
			continue
		case "snapshot":
			a, ports = &answer{}, 0
			err = json.Unmarshal(text, a)
		case "group":
			g := &watchGroup{}
			err = json.Unmarshal(text, g)
			a.groups = append(a.groups, g)
		case "socket":
			s := &watchSocket{}
			err = json.Unmarshal(text, s)
			if s.TS != a.TS {
				return fmt.Errorf("a socket of another time than its answer's: %s", text)
			}
			a.sockets = append(a.sockets, s)
		case "ports":
			ports++
		default:
			return fmt.Errorf("unexpected line %s", text)
		}
		if err != nil {
			return fmt.Errorf("%w in %s", err, text)
		}
		if len(a.groups) == a.Groups && len(a.sockets) == a.Sockets && ports == a.Ports {
			got(a)
			a = nil
		}
	}
}

// typeOf returns the type of a line, which stands first; the line may be wrong behind
// it.
func typeOf(line []byte) string {
	rest, _ := bytes.CutPrefix(line, []byte(`{"type":"`))
	kind, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(kind)
}

// look runs tcptrace --watch STATES --once and returns its answer, which must be
// one, and without a word on stderr.
func look(t *testing.T, states string, args ...string) *answer {
	t.Helper()
	args = append([]string{"--watch", states, "--once", "-o", "json"}, args...)
	cmd := exec.Command(tcptrace, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("tcptrace %s: %v; stderr: %s", strings.Join(args, " "), err, &stderr)
	}
	took := time.Since(start)
	var list []*answer
	if err := answers(&stdout, func(a *answer) { list = append(list, a) }); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 {
		t.Fatalf("%d answers of --once", len(list))
	}
	t.Logf("%d sockets, %d groups by --once with %s after %d ms", list[0].Sockets, len(list[0].groups), list[0].Hooks, took.Milliseconds())
	return list[0]
}

// watching is a tcptrace --watch that runs.
type watching struct {
	t    *testing.T
	tier string
	cmd  *exec.Cmd
	done chan struct{} // closed when its output has ended

	mu      sync.Mutex
	answers []*answer
	err     error
	changed chan struct{} // closed at the next answer
	stderr  bytes.Buffer
}

const watchInterval = 500 * time.Millisecond

// watch starts tcptrace --watch STATES and waits until it is ready.
func watch(t *testing.T, tier, states string, args ...string) *watching {
	t.Helper()
	w := &watching{t: t, tier: tier, done: make(chan struct{}), changed: make(chan struct{})}
	ready := filepath.Join(t.TempDir(), "ready")
	w.cmd = exec.Command(tcptrace, append([]string{"--watch", states, "-o", "json", "--interval", watchInterval.String(),
		"--hooks", tier, "--ready-file", ready}, args...)...)
	w.cmd.Stderr = &w.stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := answers(out, w.add)
		io.Copy(io.Discard, out)
		err = errors.Join(err, w.cmd.Wait())
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		close(w.done)
	}()
	t.Cleanup(func() {
		select {
		case <-w.done:
		default:
			w.cmd.Process.Kill()
			<-w.done
		}
	})
	if err := waitFile(ready, w.done); err != nil {
		t.Fatalf("--hooks %s: %v: %v %s", tier, err, w.err, &w.stderr)
	}
	return w
}

func (w *watching) add(a *answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, a)
	close(w.changed)
	w.changed = make(chan struct{})
}

// after returns the first answer whose walks began after the moment: the second
// that was given after it.
func (w *watching) after(moment int64) *answer {
	w.t.Helper()
	deadline := time.After(callTimeout)
	for {
		w.mu.Lock()
		changed := w.changed
		i := slices.IndexFunc(w.answers, func(a *answer) bool { return a.TS > moment })
		var a *answer
		if i >= 0 && i+1 < len(w.answers) {
			a = w.answers[i+1]
		}
		w.mu.Unlock()
		if a != nil {
			return a
		}
		select {
		case <-changed:
		case <-w.done:
			w.t.Fatalf("--hooks %s ended: %v: %s", w.tier, w.err, &w.stderr)
		case <-deadline:
			w.t.Fatalf("--hooks %s: no answer", w.tier)
		}
	}
}

// stop ends it as Ctrl-C does, and returns all answers.
func (w *watching) stop() []*answer {
	w.t.Helper()
	w.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-w.done:
	case <-time.After(readyTimeout):
		w.t.Fatalf("--hooks %s: no end after SIGINT", w.tier)
	}
	if w.err != nil || w.stderr.Len() > 0 {
		w.t.Errorf("--hooks %s: %v; stderr: %s", w.tier, w.err, &w.stderr)
	}
	return w.answers
}

// sockKey is a socket in a state.
type sockKey struct {
	netns uint32
	laddr string
	lport uint16
	raddr string
	rport uint16
	state string
}

func (k sockKey) String() string {
	return fmt.Sprintf("%s %s:%d > %s:%d in namespace %d", k.state, k.laddr, k.lport, k.raddr, k.rport, k.netns)
}

func keyOf(conn *Conn, state string) sockKey {
	return sockKey{conn.NetNS, conn.Local.Addr().String(), conn.Local.Port(), conn.Remote.Addr().String(), conn.Remote.Port(), state}
}

// diagSocket is what inet_diag tells of a socket.
type diagSocket struct {
	cookie string
	rqueue int // bytes to read, a FIN counts 1
}

// diag asks the kernel, in each namespace, for the sockets in the states.
func diag(t *testing.T, states string, spaces ...*testnet.NS) map[sockKey]diagSocket {
	t.Helper()
	found := map[sockKey]diagSocket{}
	wanted := strings.Split(states, ",")
	for _, ns := range spaces {
		err := ns.Do(func() error {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				list, err := netlink.SocketDiagTCP(family)
				if err != nil {
					return fmt.Errorf("inet_diag: %w", err)
				}
				for _, s := range list {
					state := procStates[s.State]
					if !slices.Contains(wanted, strings.ToLower(state)) {
						continue
					}
					k := sockKey{ns.Inode(), plain(s.ID.Source), s.ID.SourcePort, plain(s.ID.Destination), s.ID.DestinationPort, state}
					if _, double := found[k]; double {
						return fmt.Errorf("inet_diag lists %s twice", k)
					}
					cookie := uint64(s.ID.Cookie[1])<<32 | uint64(s.ID.Cookie[0])
					found[k] = diagSocket{strconv.FormatUint(cookie, 16), int(s.RQueue)}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func plain(ip net.IP) string {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return ip.String()
	}
	return addr.Unmap().String()
}

// settled waits until n sockets of the namespaces are in the states.
func settled(t *testing.T, states string, n int, spaces ...*testnet.NS) {
	t.Helper()
	deadline := time.Now().Add(callTimeout)
	for {
		got := len(diag(t, states, spaces...))
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("workload: %d sockets in %s, want %d", got, states, n)
		}
		time.Sleep(observeEvery)
	}
}

// ssSockets is what ss -Htan lists of the namespaces in the states, with the bytes to
// read.
func ssSockets(t *testing.T, states string, spaces []*testnet.NS) map[sockKey]int {
	t.Helper()
	found := map[sockKey]int{}
	for _, ns := range spaces {
		for name := range strings.SplitSeq(states, ",") {
			var out []byte
			err := ns.Do(func() (err error) {
				out, err = exec.Command("ss", "-Htan", "state", ssNames[name]).Output()
				return err
			})
			if err != nil {
				t.Fatalf("ss: %v", err)
			}
			for line := range bytes.Lines(out) {
				// Recv-Q Send-Q Local:Port Peer:Port
				f := strings.Fields(string(line))
				if len(f) < 4 {
					t.Fatalf("ss says %q", line)
				}
				local, err := netip.ParseAddrPort(f[2])
				remote, err2 := netip.ParseAddrPort(f[3])
				queue, err3 := strconv.Atoi(f[0])
				if err := errors.Join(err, err2, err3); err != nil {
					t.Fatalf("%v: ss says %q", err, line)
				}
				k := sockKey{ns.Inode(), local.Addr().Unmap().String(), local.Port(), remote.Addr().Unmap().String(), remote.Port(), strings.ToUpper(name)}
				if _, double := found[k]; double {
					t.Fatalf("ss lists %s twice", k)
				}
				found[k] = queue
			}
		}
	}
	return found
}

var ssNames = map[string]string{"close_wait": "close-wait", "fin_wait2": "fin-wait-2", "time_wait": "time-wait"}

// sameAsKernel demands that an answer, taken while nothing moved, lists of these
// namespaces what inet_diag lists, by the cookies the same sockets, and ss.
func sameAsKernel(t *testing.T, what string, a *answer, states string, spaces ...*testnet.NS) {
	t.Helper()
	want := diag(t, states, spaces...)
	bad := &problems{t: t, what: what}
	defer bad.end()
	var listed []*watchSocket
	for _, s := range a.sockets {
		if !slices.ContainsFunc(spaces, func(ns *testnet.NS) bool { return ns.Inode() == s.NetNS }) {
			continue
		}
		listed = append(listed, s)
		d, ok := want[s.key()]
		if !ok {
			bad.addf("%s is not in inet_diag, or listed twice", s.key())
			continue
		}
		delete(want, s.key())
		if s.Cookie != nil && *s.Cookie != d.cookie {
			bad.addf("%s: cookie %s, inet_diag has %s", s.key(), *s.Cookie, d.cookie)
		}
		if s.State == "CLOSE_WAIT" {
			if s.RXPending == nil || s.FinPending == nil {
				bad.addf("%s: pending bytes are unknown", s.key())
			} else if got := *s.RXPending + num(*s.FinPending); got != d.rqueue {
				bad.addf("%s: %d bytes and FIN pending, inet_diag has %d", s.key(), got, d.rqueue)
			}
		}
	}
	for k := range want {
		bad.addf("%s is in inet_diag, and not listed", k)
	}
	if inVM {
		return // a guest has no ss
	}
	said := ssSockets(t, states, spaces)
	for _, s := range listed {
		queue, ok := said[s.key()]
		delete(said, s.key())
		if !ok {
			bad.addf("ss does not list %s", s.key())
		} else if s.State == "CLOSE_WAIT" && queue != *s.RXPending+num(*s.FinPending) {
			bad.addf("%s: %d bytes and FIN pending, ss has %d", s.key(), *s.RXPending+num(*s.FinPending), queue)
		}
	}
	for k := range said {
		bad.addf("ss lists %s", k)
	}
}

func num(b bool) int {
	if b {
		return 1
	}
	return 0
}

// problems reports the first dozen.
type problems struct {
	t    *testing.T
	what string
	n    int
}

func (p *problems) addf(format string, args ...any) {
	p.t.Helper()
	if p.n++; p.n <= 12 {
		p.t.Errorf("%s: %s", p.what, fmt.Sprintf(format, args...))
	}
}

func (p *problems) end() {
	p.t.Helper()
	if p.n > 12 {
		p.t.Errorf("%s: and %d more", p.what, p.n-12)
	}
}

// holding is a process with descriptors.
type holding struct {
	p   *ProcID
	fds []int
}

// leaked is a socket in CLOSE_WAIT, as the workload made it.
type leaked struct {
	conn     *Conn
	since    Span
	reason   string
	rx       int
	fin      bool
	holders  []holding // by process number
	listener *holding  // who should accept
	sharers  []holding // who could as well
	early    bool      // it was there before the watch
	probed   bool      // its side sends keep-alives, whose answers hide when the FIN came
}

// checkLeaks demands that the answer lists these sockets, each once, and nothing
// else of their namespaces.
func checkLeaks(t *testing.T, what string, a *answer, leaks []*leaked) {
	t.Helper()
	bad := &problems{t: t, what: what}
	defer bad.end()
	want := map[sockKey]*leaked{}
	spaces := map[uint32]bool{}
	for _, l := range leaks {
		want[keyOf(l.conn, "CLOSE_WAIT")] = l
		spaces[l.conn.NetNS] = true
	}
	if len(want) != len(leaks) {
		t.Fatalf("workload: %d sockets, %d of them different", len(leaks), len(want))
	}
	if a.Lost != 0 {
		bad.addf("%d events lost", a.Lost)
	}
	for _, s := range a.sockets {
		if !spaces[s.NetNS] && inVM {
			continue
		}
		l := want[s.key()]
		if l == nil {
			bad.addf("%s is not expected, or listed twice", s.key())
			continue
		}
		delete(want, s.key())
		l.check(s, func(format string, args ...any) {
			bad.addf("%s: %s", s.key(), fmt.Sprintf(format, args...))
		})
	}
	for k := range want {
		bad.addf("%s is missing", k)
	}
	checkGroups(bad, a, leaks)
}

func (l *leaked) check(s *watchSocket, badf func(format string, args ...any)) {
	if s.Family != l.conn.Family {
		badf("family %d", s.Family)
	}
	if l.conn.Cookie != 0 && s.Cookie != nil && *s.Cookie != strconv.FormatUint(l.conn.Cookie, 16) {
		badf("cookie %s, want %x", *s.Cookie, l.conn.Cookie)
	}
	if s.Reason == nil || *s.Reason != l.reason {
		badf("reason %s, want %s", orNull(s.Reason), l.reason)
	}
	if s.RXPending == nil || *s.RXPending != l.rx {
		badf("rx_pending %s, want %d", orNull(s.RXPending), l.rx)
	}
	if s.FinPending == nil || *s.FinPending != l.fin {
		badf("fin_pending %s, want %v", orNull(s.FinPending), l.fin)
	}
	if s.RemainingNS != nil {
		badf("remaining_ns %d", *s.RemainingNS)
	}
	l.checkAge(s, badf)
	if len(s.Holders) != len(l.holders) {
		badf("%d holders, want %d", len(s.Holders), len(l.holders))
	} else {
		for i, h := range l.holders {
			h.check(s.Holders[i], badf)
		}
	}
	switch {
	case (l.listener == nil) != (s.Listener == nil):
		badf("listener known: %v", s.Listener != nil)
	case l.listener != nil:
		l.listener.check(s.Listener, badf)
	}
	l.checkListeners(s, badf)
}

// checkListeners: everyone who could accept is named, with its descriptors.
func (l *leaked) checkListeners(s *watchSocket, badf func(format string, args ...any)) {
	var want []holding
	if l.listener != nil {
		want = append([]holding{*l.listener}, l.sharers...)
		slices.SortFunc(want, func(a, b holding) int { return a.p.PID - b.p.PID })
	}
	if len(s.Listeners) != len(want) {
		badf("%d could accept, want %d", len(s.Listeners), len(want))
		return
	}
	for i, h := range want {
		if got := s.Listeners[i]; *got.PID != h.p.PID || *got.Comm != h.p.Comm || !slices.Equal(got.FD, h.fds) {
			badf("%d/%s could accept by %v, want %s by %v", *got.PID, *got.Comm, got.FD, h.p, h.fds)
		}
	}
}

// checkAge: a time in the bracket, or a bound that is none too high.
func (l *leaked) checkAge(s *watchSocket, badf func(format string, args ...any)) {
	if s.AgeExact == l.early {
		badf("age_exact %v", s.AgeExact)
	}
	if s.AgeNS == nil {
		badf("no age")
		return
	}
	since := s.TS - *s.AgeNS
	lo := l.since.Lo
	if !s.AgeExact {
		lo -= int64(jiffiesLag) // which the kernel counts from
	}
	if since < lo {
		badf("%d ns old, that is %d ns too much", *s.AgeNS, lo-since)
	}
	if !s.AgeExact {
		if s.Since != nil {
			badf("since is %s, though the age is a bound", *s.Since)
		}
		// The FIN was the last that came: the bound is the age, but for the jiffies
		// in which the kernel counts.
		if slack := int64(kernelTick+lateness) + int64(jiffiesLag); (since > l.since.Hi+slack && !l.probed) || *s.AgeNS == 0 {
			badf("at least %d ns old, want %d", *s.AgeNS, s.TS-l.since.Hi)
		}
		return
	}
	if since > l.since.Hi {
		badf("%d ns old, want %d more", *s.AgeNS, since-l.since.Hi)
	}
	if s.Since == nil {
		badf("no since")
	} else if got := s.Time.Sub(*s.Since).Nanoseconds(); got != *s.AgeNS {
		badf("since %d ns before time, age_ns is %d", got, *s.AgeNS)
	}
}

// unknownUID is the user of a process of whom nothing but its number and name is to
// be known.
const unknownUID = -1

func (h *holding) check(got *watchProcess, badf func(format string, args ...any)) {
	if got.PID == nil || *got.PID != h.p.PID || got.Comm == nil || *got.Comm != h.p.Comm {
		badf("held by %s/%s, want %s", orNull(got.PID), orNull(got.Comm), h.p)
	}
	if !slices.Equal(got.FD, h.fds) {
		badf("held by %s as %v, want %v", h.p, got.FD, h.fds)
	}
	if h.p.UID == unknownUID {
		if got.UID != nil {
			badf("held by user %d, which cannot be known", *got.UID)
		}
	} else if got.UID == nil || *got.UID != h.p.UID {
		badf("held by user %s, want %d", orNull(got.UID), h.p.UID)
	}
}

func orNull[T any](p *T) string {
	if p == nil {
		return "null"
	}
	return fmt.Sprint(*p)
}

// checkGroups demands a group for each process, with the sums over its sockets.
func checkGroups(bad *problems, a *answer, leaks []*leaked) {
	type sum struct {
		proc    *ProcID
		count   int
		reasons map[string]int
		unread  int
		oldest  Span
	}
	want := map[int]*sum{}
	for _, l := range leaks {
		holders := l.holders
		if l.listener != nil {
			holders = []holding{*l.listener}
		}
		for _, h := range holders {
			s := want[h.p.PID]
			if s == nil {
				s = &sum{proc: h.p, reasons: map[string]int{}, oldest: l.since}
				want[h.p.PID] = s
			}
			s.count++
			s.reasons[l.reason]++
			s.unread += l.rx
			s.oldest = Span{min(s.oldest.Lo, l.since.Lo), min(s.oldest.Hi, l.since.Hi)}
		}
	}
	for _, g := range a.groups {
		if g.PID == nil {
			bad.addf("a group of %d without a process", g.Count)
			continue
		}
		s := want[*g.PID]
		if s == nil {
			if !inVM { // where a watch of the whole machine is
				bad.addf("a group of process %d, which holds nothing, or twice", *g.PID)
			}
			continue
		}
		delete(want, *g.PID)
		badf := func(format string, args ...any) { bad.addf("group of %s: %s", s.proc, fmt.Sprintf(format, args...)) }
		if g.Comm == nil || *g.Comm != s.proc.Comm || g.State != "CLOSE_WAIT" {
			badf("is of %s in %s", orNull(g.Comm), g.State)
		}
		if g.Count != s.count || !maps.Equal(g.Reasons, s.reasons) {
			badf("count %d, reasons %v, want %d, %v", g.Count, g.Reasons, s.count, s.reasons)
		}
		if g.Unread != s.unread {
			badf("unread %d, want %d", g.Unread, s.unread)
		}
		if g.GrowthPerMin != nil {
			badf("growth %v in the first minute", *g.GrowthPerMin)
		}
		if g.OldestNS == nil || *g.OldestNS > a.TS-s.oldest.Lo+int64(jiffiesLag) || g.MedianNS == nil || *g.MedianNS > *g.OldestNS {
			badf("oldest %s, median %s, want at most %d", orNull(g.OldestNS), orNull(g.MedianNS), a.TS-s.oldest.Lo)
		}
		s.proc.checkLimits(g, badf)
	}
	for _, s := range want {
		bad.addf("no group of %s, which holds %d", s.proc, s.count)
	}
}

// checkLimits compares what only /proc tells.
func (p *ProcID) checkLimits(g *watchGroup, badf func(format string, args ...any)) {
	var lim unix.Rlimit
	if err := unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &lim); err != nil {
		badf("workload: prlimit: %v", err)
	} else if g.NofileSoft == nil || *g.NofileSoft != int64(lim.Cur) {
		badf("nofile_soft %s, want %d", orNull(g.NofileSoft), lim.Cur)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	if err != nil {
		badf("workload: %v", err)
	} else if g.OpenFDs == nil || *g.OpenFDs != len(fds) {
		badf("open_fds %s, want %d", orNull(g.OpenFDs), len(fds))
	}
}

// leaking runs a workload in a namespace of its own.
func leaking(t *testing.T, name string, f func(t *testing.T, c *C)) {
	t.Helper()
	s := newSuite(t)
	ns, err := s.newNS(name, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		r := recover()
		if text, ok := r.(failure); ok {
			t.Fatalf("workload: %s", string(text))
		} else if r != nil {
			panic(r)
		}
	}()
	f(t, &C{caseRun: &caseRun{s: s, Case: &Case{Name: name}, NS: ns, procs: map[string]*Proc{}}, Fam: 4, N: prime})
}

// in is the case in another family.
func (c *C) in(family int) *C { return &C{caseRun: c.caseRun, Fam: family, N: c.N} }

// leaks closes the peers of sockets that a process holds as fds[i].
func leaks(pairs []*Pair, reason string, rx int, fin bool) []*leaked {
	list := make([]*leaked, len(pairs))
	for i, pair := range pairs {
		s := pair.Srv
		list[i] = &leaked{conn: s.Conn, reason: reason, rx: rx, fin: fin, holders: []holding{{s.P.id, []int{s.FD}}}}
	}
	return list
}

// hangUp closes the other ends of the sockets, and notes when.
func (c *C) hangUp(cli []*Side, list []*leaked) {
	for i, span := range c.Op("close", cli) {
		list[i].since.Lo = span.Lo
	}
}

// drained leaks n sockets of l's process that were read to the FIN.
func (c *C) drained(cli *Proc, l *Listener, n int) []*leaked {
	pairs := c.Connect(cli, l, n)
	list := leaks(pairs, "drained", 0, false)
	c.hangUp(clients(pairs), list)
	c.Op("eof", servers(pairs))
	return list
}

// unread leaks n sockets with five bytes that nobody reads.
func (c *C) unread(cli *Proc, l *Listener, n int) []*leaked {
	pairs := c.Connect(cli, l, n)
	list := leaks(pairs, "unread", 5, true)
	c.Write(clients(pairs), 5)
	c.hangUp(clients(pairs), list)
	return list
}

// finUnread leaks n sockets whose bytes were read, and not the FIN.
func (c *C) finUnread(cli *Proc, l *Listener, n int) []*leaked {
	pairs := c.Connect(cli, l, n)
	list := leaks(pairs, "fin-unread", 0, true)
	if l.ops == "" {
		c.Write(clients(pairs), 7)
		c.Read(servers(pairs), 7)
	}
	c.hangUp(clients(pairs), list)
	return list
}

// notAccepted leaks n sockets in l's backlog, every second with three bytes.
func (c *C) notAccepted(cli *Proc, l *Listener, n int) []*leaked {
	sides := c.Dial(cli, l, n)
	list := make([]*leaked, n)
	for i, d := range sides {
		list[i] = &leaked{reason: "not-accepted", fin: true, listener: &holding{l.P.id, []int{l.FD}},
			conn: &Conn{NetNS: d.Conn.NetNS, Family: d.Conn.Family, Local: d.Conn.Remote, Remote: d.Conn.Local}}
		if i%2 == 1 {
			c.Write(sides[i:i+1], 3)
			list[i].rx = 3
		}
	}
	c.hangUp(sides, list)
	return list
}

// arrive waits until n sockets of the namespace are in CLOSE_WAIT, list among
// them.
func (c *C) arrive(t *testing.T, n int, list []*leaked) {
	t.Helper()
	settled(t, "close_wait", n, c.NS)
	hi := now()
	for _, l := range list {
		l.since.Hi = hi
	}
}

// allReasons leaks prime sockets of each reason, by three processes, in both
// families.
func (c *C) allReasons(cli *Proc, names ...string) []*leaked {
	var list []*leaked
	for i, name := range names {
		n := (prime + i) / len(names)
		f := c.in([]int{4, 6}[i%2])
		srv := f.OwnProc(name)
		l, backlog := f.Listen(srv), f.Listen(srv)
		list = append(list, f.drained(cli, l, n)...)
		list = append(list, f.unread(cli, l, n)...)
		list = append(list, f.finUnread(cli, l, n)...)
		list = append(list, f.notAccepted(cli, backlog, n)...)
	}
	return list
}

// watchTiers are the tiers to test: all where the kernel can do all.
func watchTiers() []string {
	if inVM {
		return allTiers
	}
	return []string{"poll"}
}

// TestWatch: who leaks, and why.
func TestWatch(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *C)
	}{
		{"reasons", watchReasons},
		{"fork", watchFork},
		{"passed", watchPassed},
		{"reborn", watchReborn},
		{"growing", watchGrowing},
		{"namespaces", watchNamespaces},
		{"go_server", watchGoServer},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			leaking(t, "watch-"+test.name, test.run)
		})
	}
}

// watchReasons: sockets that were there before, sockets that come, sockets that
// go, and a process that dies.
func watchReasons(t *testing.T, c *C) {
	cli := c.Proc("cli")
	list := c.allReasons(cli, "one", "two", "three")
	if len(list) != 4*prime {
		t.Fatalf("workload: %d sockets", len(list))
	}
	for _, l := range list {
		l.early = true
	}
	c.arrive(t, len(list), list)
	for _, tier := range watchTiers() {
		if tier == "kprobe" {
			continue // one of the watches below: to load each hook twice takes an emulated machine too long
		}
		a := look(t, "close_wait", "--netns", c.NS.Name(), "--hooks", tier)
		checkLeaks(t, "before, "+tier, a, list)
		sameAsKernel(t, "before, "+tier, a, "close_wait", c.NS)
	}

	var watches []*watching
	for _, tier := range watchTiers() {
		if tier != "fentry" {
			watches = append(watches, watch(t, tier, "close_wait", "--netns", c.NS.Name()))
		}
	}
	check := func(what string) {
		t.Helper()
		moment := now()
		for _, w := range watches {
			a := w.after(moment)
			checkLeaks(t, what+", "+w.tier, a, list)
			sameAsKernel(t, what+", "+w.tier, a, "close_wait", c.NS)
		}
	}
	more := c.allReasons(cli, "four", "five", "six")
	list = append(list, more...)
	c.arrive(t, len(list), more)
	check("after")

	// Every third socket that is held is closed.
	var kept []*leaked
	closing := map[*ProcID][]int{}
	for i, l := range list {
		if i%3 == 0 && len(l.holders) == 1 {
			closing[l.holders[0].p] = append(closing[l.holders[0].p], l.holders[0].fds[0])
		} else {
			kept = append(kept, l)
		}
	}
	c.s.mu.Lock()
	procs := slices.Clone(c.s.procs)
	c.s.mu.Unlock()
	var victim *Proc
	for _, p := range procs {
		if fds := closing[p.id]; fds != nil {
			p.call(c, request{Op: "close", FDs: fds})
		}
		if p.id == list[0].holders[0].p {
			victim = p
		}
	}
	if len(kept) == len(list) || victim == nil {
		t.Fatal("workload: nothing was closed")
	}
	list = kept
	c.arrive(t, len(list), nil)
	check("closed")

	// What it held, and what waits in its backlog, goes with it.
	c.Kill(victim)
	list = slices.DeleteFunc(slices.Clone(list), func(l *leaked) bool {
		return l.listener != nil && l.listener.p == victim.id || l.listener == nil && l.holders[0].p == victim.id
	})
	c.arrive(t, len(list), nil)
	check("killed")
	for _, w := range watches {
		w.stop()
	}
}

// watchFork: a child that got the listener, or the sockets, leaks; the parent is
// not named, but where it holds the socket too.
func watchFork(t *testing.T, c *C) {
	cli := c.Proc("cli")
	fork := func(parent *Proc, name string, fds ...int) (*Proc, []int) {
		comm := c.comm(name)
		resp := parent.call(c, request{Op: "fork", Text: comm, FDs: fds})
		return c.waitHello(comm), resp.FDs
	}
	parent := c.OwnProc("master")
	l := c.Listen(parent)
	worker, fds := fork(parent, "worker", l.FD)
	inherited := *l
	inherited.P, inherited.FD = worker, fds[0]
	list := c.drained(cli, &inherited, c.N)

	// The parent accepts.
	parent = c.OwnProc("acceptor")
	pairs := c.Connect(cli, c.Listen(parent), 2*c.N)
	child, fds := fork(parent, "heir", fdsOf(servers(pairs))...)
	held := leaks(pairs, "fin-unread", 0, true)
	for i, l := range held {
		theirs := holding{child.id, fds[i : i+1]}
		if i < c.N {
			l.holders = []holding{theirs} // the parent closes below
			continue
		}
		l.holders = append(l.holders, theirs)
		slices.SortFunc(l.holders, func(a, b holding) int { return a.p.PID - b.p.PID })
	}
	c.Op("close", servers(pairs[:c.N]))
	c.hangUp(clients(pairs), held)
	list = append(list, held...)

	// Nobody of a family accepts that shares a listener.
	elder := c.OwnProc("elder")
	l = c.Listen(elder)
	var sharers []holding
	for _, name := range []string{"younger", "youngest"} {
		p, fds := fork(elder, name, l.FD)
		sharers = append(sharers, holding{p.id, fds})
	}
	waiting := c.notAccepted(cli, l, c.N)
	for _, w := range waiting {
		w.sharers = sharers
	}
	list = append(list, waiting...)
	c.arrive(t, len(list), list)
	for _, l := range list {
		l.early = true
	}
	a := look(t, "close_wait", "--netns", c.NS.Name())
	checkLeaks(t, "fork", a, list)
	sameAsKernel(t, "fork", a, "close_wait", c.NS)
	want := fmt.Sprintf("not accepted by %s[%d], %s[%d] and %s[%d]: %d waiting", elder.id.Comm, elder.id.PID,
		sharers[0].p.Comm, sharers[0].p.PID, sharers[1].p.Comm, sharers[1].p.PID, c.N)
	for _, g := range a.groups {
		if *g.PID == elder.id.PID && !strings.Contains(g.Verdict, want) {
			t.Errorf("verdict %q, want %q in it", g.Verdict, want)
		}
	}
}

func fdsOf(sides []*Side) []int {
	fds := make([]int, len(sides))
	for i, s := range sides {
		fds[i] = s.FD
	}
	return fds
}

// watchPassed: descriptors that are sent away, and one process with a socket
// twice, while the watch runs.
func watchPassed(t *testing.T, c *C) {
	srv, cli, heir := c.Proc("srv"), c.Proc("cli"), c.Proc("heir")
	w := watch(t, "auto", "close_wait", "--netns", c.NS.Name())
	pairs := c.Connect(cli, c.Listen(srv), c.N)
	list := leaks(pairs, "fin-unread", 0, true)
	c.hangUp(clients(pairs), list)
	c.arrive(t, c.N, list)
	a := w.after(now())
	checkLeaks(t, "at first", a, list)
	sameAsKernel(t, "at first", a, "close_wait", c.NS)

	fds := c.pass(srv, heir, fdsOf(servers(pairs)))
	for i, l := range list {
		l.holders = append(l.holders, holding{heir.id, fds[i : i+1]})
		slices.SortFunc(l.holders, func(a, b holding) int { return a.p.PID - b.p.PID })
	}
	a = w.after(now())
	checkLeaks(t, "sent", a, list)
	sameAsKernel(t, "sent", a, "close_wait", c.NS)

	c.Op("close", servers(pairs))
	dups := heir.call(c, request{Op: "dup", FDs: fds[:1]})
	for i, l := range list {
		l.holders = []holding{{heir.id, fds[i : i+1]}}
	}
	list[0].holders[0].fds = []int{fds[0], dups.FDs[0]}
	slices.Sort(list[0].holders[0].fds)
	a = w.after(now())
	checkLeaks(t, "closed by the sender", a, list)
	sameAsKernel(t, "closed by the sender", a, "close_wait", c.NS)
	w.stop()
}

// watchReborn: a process whose number another program gets.
func watchReborn(t *testing.T, c *C) {
	old, heir, cli := c.OwnProc("old"), c.Proc("heir"), c.Proc("cli")
	w := watch(t, "auto", "close_wait", "--netns", c.NS.Name())
	made := old.call(c, c.leakRequest(c.N))
	c.watchReborn(t, w, old, heir, cli, c.comm("other"), made)
	sameAsKernel(t, "reborn", w.after(now()), "close_wait", c.NS)
	w.stop()
}

// watchGrowing: seven leaks a second. Every answer counts those that had leaked
// by then.
func watchGrowing(t *testing.T, c *C) {
	srv, cli := c.Proc("srv"), c.Proc("cli")
	l := c.Listen(srv)
	w := watch(t, "auto", "close_wait", "--netns", c.NS.Name())
	const perSecond, seconds = 7, 12
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	var list []*leaked
	for range perSecond * seconds {
		<-tick.C
		one := c.drained(cli, l, 1)
		c.ObserveConns(c.NS, []*Conn{one[0].conn}, "CLOSE_WAIT")
		one[0].since.Hi = now()
		list = append(list, one...)
	}
	a := w.after(now())
	checkLeaks(t, "growing", a, list)
	sameAsKernel(t, "growing", a, "close_wait", c.NS)
	all := w.stop()
	if want := int(seconds * time.Second / watchInterval / 2); len(all) < want {
		t.Errorf("%d answers in %d s, want %d at least", len(all), seconds, want)
	}
	last := int64(0)
	for _, a := range all {
		least, most := 0, 0
		for _, l := range list {
			least += num(l.since.Hi <= last)
			most += num(l.since.Lo < a.TS)
		}
		if a.Sockets < least || a.Sockets > most {
			t.Errorf("%d sockets in an answer, want %d to %d", a.Sockets, least, most)
		}
		for _, g := range a.groups {
			if g.GrowthPerMin != nil {
				t.Errorf("growth %v in the first minute", *g.GrowthPerMin)
			}
			if g.PID != nil && *g.PID != srv.id.PID {
				t.Errorf("a group of process %d", *g.PID)
			}
		}
		// Whose descriptor it is, the next walk tells of a socket that came during
		// this one.
		for _, s := range a.sockets {
			if len(s.Holders) != 1 && a.TS-*s.AgeNS <= last {
				t.Errorf("%s is %d ns old, and has %d holders", s.key(), *s.AgeNS, len(s.Holders))
			}
		}
		last = a.TS
	}
}

// watchNamespaces: a namespace with processes, one whose sockets are held from
// outside, and one with nothing but its name: no process and no descriptor, only
// sockets that the kernel has still to end. Where the whole machine is watched there
// are three more, without a name: what keeps them is a socket, a thread that is not
// its process' leader, and a mount at another place.
func watchNamespaces(t *testing.T, c *C) {
	outside, orphans := c.NewNS("outside"), c.NewNS("orphans")
	const states = "close_wait,fin_wait2,time_wait"
	cli, srv := c.Proc("cli"), c.Proc("srv")
	list := c.drained(cli, c.Listen(srv), c.N)
	c.arrive(t, c.N, list)
	list = append(list, c.outside(t, outside)...)
	makeEnds := func(ns *testnet.NS) {
		t.Helper()
		if err := ns.Do(func() error { return makeOrphans(c.N) }); err != nil {
			t.Fatal(err)
		}
	}
	makeEnds(orphans)

	ways := map[string][]string{"by name": {"--netns", strings.Join([]string{c.NS.Name(), outside.Name(), orphans.Name()}, ","), "--hooks", "poll"}}
	spaces := []*testnet.NS{c.NS, outside, orphans}
	deserted := []*testnet.NS{orphans}
	check := func(way string) {
		t.Helper()
		for _, ns := range deserted {
			settled(t, "fin_wait2", c.N, ns)
			settled(t, "time_wait", c.N, ns)
		}
		c.checkNamespaces(t, way, look(t, states, ways[way]...), states, list, spaces, deserted)
	}
	check("by name")
	if !inVM {
		return // the whole machine is not the test's
	}
	bySocket, byThread, byMount := c.NewNS("socket"), c.NewNS("thread"), c.NewNS("mount")
	list = append(list, c.outside(t, bySocket)...)
	cli.call(c, request{Op: "haunt", N: c.N, NetNS: byThread.Path()})
	makeEnds(byMount)
	place := filepath.Join(t.TempDir(), "a place")
	if err := errors.Join(os.WriteFile(place, nil, 0o600), unix.Mount(byMount.Path(), place, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	for _, ns := range []*testnet.NS{bySocket, byThread, byMount} {
		if err := ns.Hide(); err != nil {
			t.Fatal(err)
		}
	}
	spaces = append(spaces, bySocket, byThread, byMount)
	deserted = append(deserted, byThread, byMount)
	check("whole machine")
}

// outside leaks sockets of a namespace that the process which holds them is not in.
func (c *C) outside(t *testing.T, ns *testnet.NS) []*leaked {
	t.Helper()
	c6 := c.in(6)
	cli, srv := c.Proc("cli"), c.Proc("srv")
	l := srv.call(c, request{Op: "listen", N: 64, Addrs: []string{netip.AddrPortFrom(c6.Loopback(), 0).String()}, NetNS: ns.Path()})
	made := cli.call(c, request{Op: "connect", N: c.N, Addrs: l.Locals, NetNS: ns.Path()})
	accepted := srv.call(c, request{Op: "accept", FDs: l.FDs, N: c.N})
	span := cli.call(c, request{Op: "close", FDs: made.FDs}).Spans
	settled(t, "close_wait", c.N, ns)
	var list []*leaked
	for i, fd := range accepted.FDs {
		list = append(list, &leaked{reason: "fin-unread", fin: true, holders: []holding{{srv.id, []int{fd}}},
			conn: &Conn{NetNS: ns.Inode(), Family: 6, Cookie: accepted.Cookies[i], Local: netip.MustParseAddrPort(accepted.Locals[i]),
				Remote: netip.MustParseAddrPort(accepted.Remotes[i])},
			since: Span{span[0].Lo, now()}})
	}
	return list
}

// checkNamespaces demands the leaks, and what makeOrphans leaves in each deserted
// namespace.
func (c *C) checkNamespaces(t *testing.T, way string, a *answer, states string, list []*leaked, spaces, deserted []*testnet.NS) {
	t.Helper()
	for _, l := range list {
		l.early = true
	}
	sameAsKernel(t, way, a, states, spaces...)
	type end struct {
		netns uint32
		state string
	}
	ends, want := map[end]int{}, map[end]int{}
	for _, ns := range deserted {
		want[end{ns.Inode(), "FIN_WAIT2"}], want[end{ns.Inode(), "TIME_WAIT"}] = c.N, c.N
	}
	leaks := *a
	leaks.sockets, leaks.groups = nil, nil
	for _, s := range a.sockets {
		if s.State == "CLOSE_WAIT" {
			leaks.sockets = append(leaks.sockets, s)
		}
		if want[end{s.NetNS, s.State}] == 0 {
			continue
		}
		ends[end{s.NetNS, s.State}]++
		if len(s.Holders) != 0 || s.Listener != nil || s.Reason != nil || s.RXPending != nil {
			t.Errorf("%s: %s has holders, a reason or a queue", way, s.key())
		}
		if s.RemainingNS == nil || *s.RemainingNS <= 0 || *s.RemainingNS > int64(timeWait+kernelTick) {
			t.Errorf("%s: %s has %s ns left", way, s.key(), orNull(s.RemainingNS))
		}
	}
	if !maps.Equal(ends, want) {
		t.Errorf("%s: without a process %v, want %v", way, ends, want)
	}
	for _, g := range a.groups {
		if g.State == "CLOSE_WAIT" {
			leaks.groups = append(leaks.groups, g)
		}
	}
	checkLeaks(t, way, &leaks, list)
}

// haunt makes orphans in the namespace of the request, and answers; the thread stays
// there.
func (a *actor) haunt(req *request, resp *response) error {
	if err := makeOrphans(req.N); err != nil {
		return err
	}
	a.mu.Lock()
	err := a.enc.Encode(resp)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	select {}
}

// makeOrphans leaves n sockets in FIN_WAIT2, whose peers are gone without a
// word, and n in TIME_WAIT, and no descriptor.
func makeOrphans(n int) error {
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	lfd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	open = append(open, lfd)
	if err := errors.Join(unix.Bind(lfd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(lfd, 2*n)); err != nil {
		return err
	}
	addr := sockaddr(netip.MustParseAddrPort(localAddr(lfd)), false)
	for i := range 2 * n {
		cli, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		open = append(open, cli)
		if err := unix.Connect(cli, addr); err != nil {
			return err
		}
		srv, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		open = append(open, srv)
		// The FIN is acknowledged before the peer ends, of whatever kind.
		if err := errors.Join(unix.Shutdown(cli, unix.SHUT_WR), waitEOF(srv), waitFinWait2(cli)); err != nil {
			return err
		}
		if i < n {
			// A socket under repair is closed without a segment.
			if err := unix.SetsockoptInt(srv, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
				return fmt.Errorf("TCP_REPAIR: %w", err)
			}
		}
	}
	return nil
}

// watchGoServer: package net's listener is an MPTCP socket where the kernel has
// MPTCP; the sockets are TCP.
func watchGoServer(t *testing.T, c *C) {
	cli, srv := c.Proc("cli"), c.Proc("gosrv")
	l, backlog := c.GoListen(srv), c.GoListen(srv)
	list := slices.Concat(c.drained(cli, l, c.N), c.unread(cli, l, c.N), c.finUnread(cli, l, c.N), c.notAccepted(cli, backlog, c.N))
	c.arrive(t, len(list), list)
	// The workload names package net's objects by numbers of its own.
	real := func(h *holding) { h.fds = srv.call(c, request{Op: "gofds", FDs: h.fds}).FDs }
	for _, l := range list {
		l.early, l.probed = true, true
		if l.listener != nil {
			real(l.listener)
		}
		for i := range l.holders {
			real(&l.holders[i])
		}
	}
	a := look(t, "close_wait", "--netns", c.NS.Name())
	checkLeaks(t, "go server", a, list)
	sameAsKernel(t, "go server", a, "close_wait", c.NS)
}

// goFDs tells the descriptors of package net's listeners and connections.
func (a *actor) goFDs(req *request, resp *response) error {
	for _, h := range req.FDs {
		a.mu.Lock()
		var object any = a.goConns[h]
		if l := a.goLs[h]; l != nil {
			object = l
		}
		a.mu.Unlock()
		raw, err := object.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { resp.FDs = append(resp.FDs, int(fd)) }); err != nil {
			return err
		}
	}
	return nil
}

// TestWatchMany: very many sockets in one process, and very many processes.
func TestWatchMany(t *testing.T) {
	const sockets, processes = 15000, 3000
	phases := func(t *testing.T) func(string) {
		start := time.Now()
		return func(name string) { t.Logf("%s after %.1f s", name, time.Since(start).Seconds()) }
	}
	t.Run("sockets", func(t *testing.T) {
		phase := phases(t)
		leaking(t, "watch-sockets", func(t *testing.T, c *C) {
			srv := c.Proc("srv")
			// connect() tries the ports of one parity first: with more than there
			// are it would look at each of them, each time.
			if err := errors.Join(c.NS.SetSysctl("ipv4/tcp_max_tw_buckets", strconv.Itoa(2*sockets)),
				c.NS.SetSysctl("ipv4/ip_local_port_range", "1024 65535")); err != nil {
				t.Fatal(err)
			}
			list := c.leaked(srv, srv.call(c, c.leakRequest(sockets)))
			c.arrive(t, sockets, list)
			phase("leaked")
			for _, l := range list {
				l.early = true
			}
			a := look(t, "close_wait", "--netns", c.NS.Name())
			phase("looked")
			checkLeaks(t, "sockets", a, list)
			sameAsKernel(t, "sockets", a, "close_wait", c.NS)
			phase("compared")
		})
	})
	t.Run("processes", func(t *testing.T) {
		phase := phases(t)
		leaking(t, "watch-processes", func(t *testing.T, c *C) {
			srv := c.Proc("srv")
			made := srv.call(c, c.leakRequest(processes))
			list := c.leaked(srv, made)
			phase("leaked")
			resp := srv.call(c, request{Op: "swarm", FDs: made.FDs})
			c.arrive(t, processes, list)
			phase("forked")
			for i, l := range list {
				l.early = true
				l.holders = []holding{{&ProcID{resp.FDs[i], swarmName, 0}, []int{0}}}
			}
			a := look(t, "close_wait", "--netns", c.NS.Name())
			phase("looked")
			checkLeaks(t, "processes", a, list)
			sameAsKernel(t, "processes", a, "close_wait", c.NS)
			phase("compared")
		})
	})
}

const swarmName = "one-of-many"

var swarmComm = append([]byte(swarmName), 0)

// swarm hands each descriptor to a process of its own, which has it as 0 and
// lives as long as this one. The answer's descriptors are the processes' numbers.
func (a *actor) swarm(req *request, resp *response) error {
	var alive, ready [2]int
	if err := errors.Join(unix.Pipe2(alive[:], unix.O_CLOEXEC), unix.Pipe2(ready[:], unix.O_CLOEXEC)); err != nil {
		return err
	}
	for _, fd := range req.FDs {
		pid, errno := forkHolder(uintptr(fd), uintptr(alive[0]))
		if errno != 0 {
			return fmt.Errorf("fork: %w", errno)
		}
		resp.FDs = append(resp.FDs, int(pid))
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	// The end comes when each of them has closed all but its own.
	unix.Close(alive[0])
	unix.Close(ready[1])
	var buf [1]byte
	n, err := unix.Read(ready[0], buf[:])
	unix.Close(ready[0])
	if n != 0 && err == nil {
		err = errors.New("something was written")
	}
	return err
}

// forkHolder forks a process that has fd as descriptor 0 and ends at the end of
// the pipe alive. It is a copy of this one with a single thread: it must not
// allocate or call anything but the kernel.
//
//go:norace
func forkHolder(fd, alive uintptr) (uintptr, syscall.Errno) {
	var buf [8]byte
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&swarmComm[0])), 0)
	syscall.RawSyscall(unix.SYS_DUP3, fd, 0, 0)
	syscall.RawSyscall(unix.SYS_DUP3, alive, 1, 0)
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 2, 1<<31, 0)
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, 1, uintptr(unsafe.Pointer(&buf[0])), 1)
		if n == 0 || errno != unix.EINTR {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}
