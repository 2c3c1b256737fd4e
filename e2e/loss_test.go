package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/record"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

// lossMode is a way to run tcptrace of which loss must not be silent or lasting.
type lossMode struct {
	name string
	args []string
	// watched: only transitions from or to CLOSE_WAIT are recorded.
	watched bool
	// after checks what is shown once everything is quiet again, end what was shown
	// in all.
	after func(*lossRun)
	end   func(*lossRun)
}

var lossModes = []lossMode{
	{name: "stream", args: []string{"-o", "json"}, after: (*lossRun).streamAfter, end: (*lossRun).streamEnd},
	{name: "watch", args: []string{"--watch", "close_wait", "--interval", "500ms", "-o", "json"}, watched: true,
		after: (*lossRun).watchAfter, end: (*lossRun).watchEnd},
	{name: "summary", args: []string{"--summary", "-o", "json"}, after: (*lossRun).summaryAfter, end: (*lossRun).summaryEnd},
}

// stopTime is how long the reader stands still.
const stopTime = 5 * time.Second

// lossBuffer is the ring of the tests: some 400 records.
const lossBuffer = "64K"

// TestLoss: tcptrace stands still (SIGSTOP) while connections come and go, so that
// most of what the kernel tells finds no room. The workload knows how many records
// each of its connections makes, and when each of those with a name changed.
func TestLoss(t *testing.T) {
	for _, tier := range watchTiers() {
		for _, mode := range lossModes {
			t.Run(tier+"/"+mode.name, func(t *testing.T) {
				t.Parallel()
				newLossRun(t, tier, mode).run()
			})
		}
	}
}

// lossRun is one tcptrace and the workload in a namespace of its own.
type lossRun struct {
	*testing.T
	tier string
	mode lossMode
	ns   *testnet.NS
	told *filed
	rec  string

	expected int // records that the kernel side makes of what was done so far
	listener int // of the pairs
	pairs    map[string]*lossSide
	gap      Span // the reader stood still
	churned  atomic.Int64
}

// lossSide is one end of a connection with a name, and when it entered its states.
type lossSide struct {
	fd      int
	entered map[string]Span
}

// lossPair is a connection with a name.
type lossPair struct{ client, server *lossSide }

func newLossRun(t *testing.T, tier string, mode lossMode) *lossRun {
	return &lossRun{T: t, tier: tier, mode: mode, ns: testnet.NewNS(t, "loss"), pairs: make(map[string]*lossSide)}
}

func (l *lossRun) run() {
	l.listener = l.listen()
	workers := 2
	if inVM {
		workers = 1 // other tests run beside it
	}
	var listeners []int // they are there before the trace, and after it
	for range workers {
		listeners = append(listeners, l.listen())
	}
	l.rec = filepath.Join(l.TempDir(), "recording")
	args := append(l.mode.args, "--hooks", l.tier, "--netns", l.ns.Name(), "--buffer", lossBuffer, "-w", l.rec)
	l.told = startFiled(l.T, args...)

	const each = 7
	stay, gone, half, timewait := l.open(each), l.open(each), l.open(each), l.open(each)
	stop := l.churn(listeners)
	l.pass(100, 300*time.Millisecond)

	process := l.told.cmd.Process
	l.gap.Lo = now()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		l.Fatal(err)
	}
	waitStopped(l.T, process.Pid)
	began := time.Now()
	// The ring is full long before this is over.
	l.pass(1000, time.Second)
	l.reset(gone)
	l.halfClose(half)
	l.halfClose(timewait)
	l.finish(timewait)
	born, bornHalf := l.open(each), l.open(each)
	l.halfClose(bornHalf)
	time.Sleep(time.Until(began.Add(stopTime)))
	l.gap.Hi = now()
	if err := process.Signal(syscall.SIGCONT); err != nil {
		l.Fatal(err)
	}
	l.pass(50, 300*time.Millisecond)
	stop()
	l.Logf("%d connections were churned, %d records to come of all", l.churned.Load(), l.expected)

	l.mode.after(l)

	l.reset(stay)
	l.reset(born)
	l.hangUp(half)
	l.hangUp(bornHalf)
	time.Sleep(50 * time.Millisecond) // not past what the records' gathering takes
	l.told.end()
	l.countAll()
	l.mode.end(l)
}

// listen opens a listener in the namespace, until the end of the test.
func (l *lossRun) listen() (fd int) {
	l.Helper()
	err := l.ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		return unix.Listen(fd, 128)
	})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { unix.Close(fd) })
	return fd
}

// connectTo connects to a listener of this process and accepts.
func connectTo(listener int) (client, server int, err error) {
	to, err := unix.Getsockname(listener)
	if err != nil {
		return -1, -1, err
	}
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if err = unix.Connect(client, to); err == nil {
		server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		unix.Close(client)
	}
	return client, server, err
}

// hooks is how many records the hooks beside the transitions make of a connect and
// an accept. A watch does without these.
func (l *lossRun) hooks() int {
	if l.tier == "poll" || l.mode.watched {
		return 0
	}
	return 2
}

// expect adds to what is to come: all transitions, and those of CLOSE_WAIT.
func (l *lossRun) expect(all, watched int) {
	if l.mode.watched {
		all = watched
	}
	l.expected += all
}

// open opens connections with a name.
func (l *lossRun) open(n int) []lossPair {
	l.Helper()
	var pairs []lossPair
	err := l.ns.Do(func() error {
		for range n {
			span := Span{Lo: now()}
			client, server, err := connectTo(l.listener)
			if err != nil {
				return err
			}
			span.Hi = now()
			p := lossPair{}
			for _, side := range []struct {
				fd int
				to **lossSide
			}{{client, &p.client}, {server, &p.server}} {
				s := &lossSide{side.fd, map[string]Span{"ESTABLISHED": span}}
				*side.to = s
				local, err := unix.Getsockname(side.fd)
				if err != nil {
					return err
				}
				remote, err := unix.Getpeername(side.fd)
				if err != nil {
					return err
				}
				l.pairs[addrPort(local)+" "+addrPort(remote)] = s
			}
			pairs = append(pairs, p)
			// CLOSE > SYN_SENT > ESTABLISHED, LISTEN > SYN_RECV > ESTABLISHED.
			l.expect(4, 0)
			l.expected += l.hooks()
		}
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
	return pairs
}

// must ends the test where a part of the workload failed.
func (l *lossRun) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatalf("workload: %v", err)
	}
}

// reset ends connections by an RST of the client's.
func (l *lossRun) reset(pairs []lossPair) {
	for _, p := range pairs {
		span := Span{Lo: now()}
		l.must(resetBoth(p.client.fd, p.server.fd))
		span.Hi = now()
		p.client.entered["CLOSE"], p.server.entered["CLOSE"] = span, span
		l.expect(2, 0) // ESTABLISHED > CLOSE of both
	}
}

// resetBoth closes a with an RST, and b when that has come.
func resetBoth(a, b int) error {
	if err := linger0(a); err != nil {
		return err
	}
	if err := unix.Close(a); err != nil {
		return err
	}
	if _, err := unix.Read(b, make([]byte, 1)); err != unix.ECONNRESET && err != unix.EPIPE {
		return fmt.Errorf("read returned %v, want ECONNRESET", err)
	}
	return unix.Close(b)
}

// halfClose lets the clients send a FIN.
func (l *lossRun) halfClose(pairs []lossPair) {
	for _, p := range pairs {
		span := Span{Lo: now()}
		l.must(unix.Shutdown(p.client.fd, unix.SHUT_WR))
		l.must(waitEnd(p.server.fd))
		l.must(waitFinWait2(p.client.fd))
		span.Hi = now()
		p.client.entered["FIN_WAIT1"], p.client.entered["FIN_WAIT2"], p.server.entered["CLOSE_WAIT"] = span, span, span
		l.expect(3, 1) // ESTABLISHED > FIN_WAIT1 > FIN_WAIT2, ESTABLISHED > CLOSE_WAIT
	}
}

// waitEnd reads the end of the data.
func waitEnd(fd int) error {
	n, err := unix.Read(fd, make([]byte, 1))
	if n != 0 || err != nil {
		return fmt.Errorf("read returned %d, %v, want the end", n, err)
	}
	return nil
}

// finish closes the servers of half closed connections: their clients are in
// TIME_WAIT for a minute.
func (l *lossRun) finish(pairs []lossPair) {
	for _, p := range pairs {
		span := Span{Lo: now()}
		l.must(unix.Close(p.server.fd))
		l.must(waitEnd(p.client.fd))
		span.Hi = now()
		p.client.entered["TIME_WAIT"], p.server.entered["LAST_ACK"], p.server.entered["CLOSE"] = span, span, span
		// CLOSE_WAIT > LAST_ACK > CLOSE, and FIN_WAIT2 > CLOSE, which the
		// timewait socket takes over.
		l.expect(3, 1)
		switch l.tier {
		case "fentry":
			l.expected++ // its allocation
		case "kprobe":
			l.expected += 2 // the attempt, and its place in the table
		}
	}
}

// hangUp ends half closed connections by an RST of the servers'.
func (l *lossRun) hangUp(pairs []lossPair) {
	for _, p := range pairs {
		span := Span{Lo: now()}
		l.must(resetBoth(p.server.fd, p.client.fd))
		span.Hi = now()
		p.client.entered["CLOSE"], p.server.entered["CLOSE"] = span, span
		l.expect(2, 1) // FIN_WAIT2 > CLOSE, CLOSE_WAIT > CLOSE
	}
}

// churn opens and closes connections until stop is called, as fast as it can, or in
// a guest some hundreds in a second.
func (l *lossRun) churn(listeners []int) (stop func()) {
	pause := time.Duration(0)
	if inVM {
		pause = 2 * time.Millisecond
	}
	end := l.churnBy(listeners, pause, l.churnOne)
	return func() {
		end()
		for range l.churned.Load() {
			l.expect(6, 2)
			l.expected += l.hooks()
		}
	}
}

// churnBy does one for each listener again and again until stop is called.
func (l *lossRun) churnBy(listeners []int, pause time.Duration, one func(listener int) error) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, listener := range listeners {
		wg.Go(func() {
			err := l.ns.Do(func() error {
				for {
					select {
					case <-done:
						return nil
					default:
						if err := one(listener); err != nil {
							return err
						}
						l.churned.Add(1)
						time.Sleep(pause)
					}
				}
			})
			if err != nil {
				l.Errorf("workload: churn: %v", err)
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// churnOne opens a connection and ends it by an RST: for a watch out of CLOSE_WAIT.
func (l *lossRun) churnOne(listener int) error {
	client, server, err := connectTo(listener)
	if err != nil {
		return err
	}
	if !l.mode.watched {
		return resetBoth(client, server)
	}
	if err := unix.Shutdown(client, unix.SHUT_WR); err != nil {
		return err
	}
	if err := waitEnd(server); err != nil {
		return err
	}
	return resetBoth(server, client)
}

// pass waits until n more connections were churned, and for a while at least.
func (l *lossRun) pass(n int64, least time.Duration) {
	l.Helper()
	until, deadline := l.churned.Load()+n, time.Now().Add(callTimeout)
	for time.Sleep(least); l.churned.Load() < until; time.Sleep(observeEvery) {
		if time.Now().After(deadline) || l.Failed() {
			l.Fatalf("workload: %d connections in %v", l.churned.Load(), callTimeout)
		}
	}
}

// filed is a started tcptrace whose output goes to files: it never waits for who
// reads it.
type filed struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	exited chan struct{}
}

// startFiled starts tcptrace and waits until it is ready.
func startFiled(t *testing.T, args ...string) *filed {
	t.Helper()
	f := &filed{t: t, dir: t.TempDir(), exited: make(chan struct{})}
	ready := filepath.Join(f.dir, "ready")
	f.cmd = exec.Command(tcptrace, append([]string{"--ready-file", ready}, args...)...)
	for name, to := range map[string]*io.Writer{"out": &f.cmd.Stdout, "err": &f.cmd.Stderr} {
		file, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		*to = file
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		f.cmd.Wait()
		close(f.exited)
	}()
	t.Cleanup(func() {
		select {
		case <-f.exited:
		default:
			f.cmd.Process.Kill()
			<-f.exited
		}
	})
	if err := waitFile(ready, f.exited); err != nil {
		t.Fatalf("%v: %s", err, f.talk())
	}
	return f
}

func (f *filed) read(name string) []byte {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// output returns what is on its standard output so far, talk what is on the other.
func (f *filed) output() []byte { return f.read("out") }
func (f *filed) talk() string   { return string(f.read("err")) }

// end ends it as Ctrl-C does.
func (f *filed) end() {
	f.t.Helper()
	f.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-f.exited:
	case <-time.After(toolTimeout):
		f.t.Fatalf("no end after SIGINT: %s", f.talk())
	}
	if status := f.cmd.ProcessState.ExitCode(); status != 0 {
		f.t.Errorf("ended with %v: %s", f.cmd.ProcessState, f.talk())
	}
}

// waitStopped waits until all threads of a process stand still.
func waitStopped(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(callTimeout); ; time.Sleep(observeEvery) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(tasks) == 0 {
			t.Fatalf("threads of process %d: %v", pid, err)
		}
		running := 0
		for _, path := range tasks {
			stat, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			if i := bytes.LastIndexByte(stat, ')'); i < 0 || !bytes.HasPrefix(stat[i:], []byte(") T")) {
				running++
			}
		}
		if running == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads of process %d do not stop", running, pid)
		}
	}
}

// countAll: what was delivered, by the recording, and what was told to be lost is
// what the kernel side made, to the record.
func (l *lossRun) countAll() {
	l.Helper()
	file, err := os.Open(l.rec)
	if err != nil {
		l.Fatal(err)
	}
	defer file.Close()
	r, err := record.NewReader(file)
	if err != nil {
		l.Fatal(err)
	}
	defer r.Close()
	delivered, lost := 0, 0
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			l.Fatal(err)
		}
		if item.Record == nil {
			continue
		}
		switch k := item.Record.Kind; {
		case k <= events.KindTimeWaitDestroy:
			delivered++
		case k == events.KindLost:
			lost += int(item.Record.Count)
		}
	}
	l.Logf("%d records: %d delivered, %d lost", l.expected, delivered, lost)
	if delivered+lost != l.expected {
		l.Errorf("%d records were delivered and %d lost, which is %d; the kernel made %d: %+d",
			delivered, lost, delivered+lost, l.expected, delivered+lost-l.expected)
	}
	if lost < l.expected/2 {
		l.Errorf("%d records of %d were lost: nothing is shown by that", lost, l.expected)
	}
	if got := l.shownLost(); got != lost {
		l.Errorf("%d events are shown to be lost, %d were", got, lost)
	}
}

// shownLost returns the number of lost events that the output ends with.
func (l *lossRun) shownLost() (total int) {
	l.Helper()
	for text := range bytes.Lines(l.told.output()) {
		var line struct {
			Type  string
			Lost  json.RawMessage
			Total int
		}
		l.must(json.Unmarshal(text, &line))
		switch line.Type {
		case "lost":
			total = line.Total
		case "snapshot":
			l.must(json.Unmarshal(line.Lost, &total))
		case "summary":
			l.must(json.Unmarshal(line.Lost, &struct{ Count *int }{&total}))
		}
	}
	return total
}

// tracked asks by SIGUSR1 how many connections are tracked.
func (l *lossRun) tracked() string {
	l.Helper()
	l.told.cmd.Process.Signal(syscall.SIGUSR1)
	for deadline := time.Now().Add(callTimeout); ; time.Sleep(observeEvery) {
		if m := statusLine.FindStringSubmatch(l.told.talk()); m != nil {
			return m[1]
		}
		if time.Now().After(deadline) {
			l.Fatalf("no answer to SIGUSR1: %q", l.told.talk())
		}
	}
}

var statusLine = regexp.MustCompile(`events, \d+ lost; (\d+) connections of at most`)

const anyState = "established,syn_sent,syn_recv,fin_wait1,fin_wait2,time_wait,close_wait,last_ack,listen,closing"

// streamAfter: a rescan follows the last loss; then no connection is shown to be
// there that is not, in a state that it is not in, and none is missing.
func (l *lossRun) streamAfter() {
	l.Helper()
	lines := l.resynced()
	// Of both ends of those that were opened meanwhile and live, each was added.
	added := 0
	for _, line := range lines {
		if line.Type == "resync" {
			var r struct{ Added int }
			l.must(json.Unmarshal([]byte(line.raw()), &r))
			added += r.Added
		}
	}
	born := 0
	for _, s := range l.pairs {
		if in(l.gap, s.entered["ESTABLISHED"]) {
			born++
		}
	}
	if added < born {
		l.Errorf("%d connections were added, %d were opened in the gap and live", added, born)
	}
	bad := &problems{t: l.T, what: "after the rescan"}
	defer bad.end()
	there := diag(l.T, anyState, l.ns)
	l.noGhosts(bad, lines, there)
	if got := l.tracked(); got != fmt.Sprint(len(there)) {
		bad.addf("%s connections are tracked, the kernel has %d", got, len(there))
	}
}

// noGhosts: what was told and has not ended is there.
func (l *lossRun) noGhosts(bad *problems, lines []*Line, there map[sockKey]diagSocket) {
	shown := make(map[string]*Line) // by connection: as it was last told
	for _, line := range lines {
		switch line.Type {
		case "transition":
			shown[line.Conn] = line
		case "closed":
			delete(shown, line.Conn)
		}
	}
	for _, line := range shown {
		if line.LAddr == nil || line.LPort == nil || line.RAddr == nil || line.RPort == nil {
			bad.addf("a ghost without addresses: %s", line.raw())
			continue
		}
		k := sockKey{l.ns.Inode(), *line.LAddr, *line.LPort, *line.RAddr, *line.RPort, line.New}
		if _, ok := there[k]; !ok {
			bad.addf("a ghost: %s, told by %s", k, line.raw())
		}
	}
}

// in says whether an event was certainly within a time.
func in(during, event Span) bool { return event.Lo > during.Lo && event.Hi > 0 && event.Hi < during.Hi }

// resynced waits until a rescan follows the last loss and nothing more comes, and
// returns the lines.
func (l *lossRun) resynced() []*Line {
	l.Helper()
	size, since := -1, time.Now()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out := l.told.output()
		if len(out) != size {
			size, since = len(out), time.Now()
		}
		lost, mended := bytes.LastIndex(out, []byte(`{"type":"lost"`)), bytes.LastIndex(out, []byte(`{"type":"resync"`))
		// Losses are looked for each second.
		if mended > lost && lost >= 0 && time.Since(since) > 2500*time.Millisecond {
			return l.lines(out)
		}
		if time.Now().After(deadline) {
			l.Fatalf("no rescan: lost at %d, resync at %d of %d bytes", lost, mended, len(out))
		}
	}
}

func (l *lossRun) lines(out []byte) []*Line {
	l.Helper()
	var lines []*Line
	for text := range bytes.Lines(out) {
		line, err := parseLine(bytes.TrimSuffix(text, []byte("\n")))
		l.must(err)
		lines = append(lines, line)
	}
	return lines
}

// streamEnd: of the connections with a name no time that is said to be exact is
// wrong, and what happened in the gap, or spans it, is not said to be exact.
func (l *lossRun) streamEnd() {
	l.Helper()
	bad := &problems{t: l.T, what: "durations"}
	defer bad.end()
	inexact, exact := 0, 0
	over := make(map[string]bool)
	for _, line := range l.lines(l.told.output()) {
		if line.Type != "transition" || line.LAddr == nil || line.LPort == nil || line.RAddr == nil || line.RPort == nil {
			continue
		}
		key := fmt.Sprintf("%s:%d %s:%d", *line.LAddr, *line.LPort, *line.RAddr, *line.RPort)
		s := l.pairs[key]
		if s == nil {
			continue
		}
		if line.New == "CLOSE" {
			over[key] = true
		}
		from, known := s.entered[line.Old]
		to, happened := s.entered[line.New]
		if line.Old != "CLOSE" && line.Old != "LISTEN" && !happened && line.New != "SYN_RECV" {
			bad.addf("this never happened: %s", line.raw())
		}
		if in(l.gap, to) && line.Exact != nil && *line.Exact {
			bad.addf("happened while nobody looked, and is said to be exact: %s", line.raw())
		}
		switch {
		case !known:
		case line.InOldNS == nil:
			inexact++
			if most := to.Hi - from.Lo + int64(jiffiesLag); line.InOldMinNS != nil && *line.InOldMinNS > most {
				bad.addf("in_old_min_ns is more than %d: %s", most, line.raw())
			}
		case in(l.gap, from) && *line.Exact:
			bad.addf("began while nobody looked, and is said to be exact: %s", line.raw())
		case *line.Exact:
			exact++
			if *line.InOldNS < to.Lo-from.Hi || *line.InOldNS > to.Hi-from.Lo {
				bad.addf("in_old_ns is not from %d to %d: %s", to.Lo-from.Hi, to.Hi-from.Lo, line.raw())
			}
		default:
			inexact++
		}
	}
	for key, s := range l.pairs {
		if s.entered["CLOSE"].Hi > 0 && !over[key] {
			bad.addf("the end of %s was not told", key)
		}
	}
	if inexact == 0 || exact == 0 {
		bad.addf("%d durations are exact, %d are not: want both", exact, inexact)
	}
}

// watchAfter: the answers show the loss, and list what inet_diag lists.
func (l *lossRun) watchAfter() {
	l.Helper()
	quiet := now()
	var last *answer
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var after []*answer
		out := l.told.output()
		// The last one may be under way.
		err := answers(bytes.NewReader(out), func(a *answer) {
			if a.TS > quiet {
				after = append(after, a)
			}
		})
		if len(after) > 3 {
			last = after[len(after)-1]
			break
		}
		if time.Now().After(deadline) {
			l.Fatalf("no answers: %v", err)
		}
	}
	if last.Lost == 0 {
		l.Error("no loss is shown")
	}
	sameAsKernel(l.T, "after the gap", last, "close_wait", l.ns)
	if got, want := l.tracked(), fmt.Sprint(len(last.sockets)); got != want {
		l.Errorf("%s sockets are kept, %s are listed", got, want)
	}
	// What entered CLOSE_WAIT in the gap is known to be no older than it is.
	for _, s := range last.sockets {
		local := netip.AddrPortFrom(netip.MustParseAddr(s.LAddr), s.LPort)
		remote := netip.AddrPortFrom(netip.MustParseAddr(s.RAddr), s.RPort)
		side := l.pairs[local.String()+" "+remote.String()]
		if side == nil {
			l.Errorf("%s is none of the workload's", s.key())
			continue
		}
		if most := last.TS - side.entered["CLOSE_WAIT"].Lo + int64(jiffiesLag); s.AgeExact || *s.AgeNS > most {
			l.Errorf("%s: age %d, exact %v; it is at most %d, and its beginning was lost", s.key(), *s.AgeNS, s.AgeExact, most)
		}
	}
}

func (l *lossRun) watchEnd() {
	if !strings.Contains(l.told.talk(), "events were lost") {
		l.Errorf("the recording's end does not tell of the loss: %q", l.told.talk())
	}
}

// summaryAfter: a rescan follows the last loss; then as many are tracked as there
// are.
func (l *lossRun) summaryAfter() {
	l.Helper()
	l.resynced()
	there := diag(l.T, anyState, l.ns)
	if got := l.tracked(); got != fmt.Sprint(len(there)) {
		l.Errorf("%s connections are tracked, the kernel has %d: %s", got, len(there), l.told.talk())
		l.Cleanup(func() {
			// The recording tells which.
			out, err := exec.Command(tcptrace, "-r", l.rec, "-o", "json").Output()
			if err != nil {
				l.Fatal(err)
			}
			bad := &problems{t: l.T, what: "in the recording"}
			defer bad.end()
			l.noGhosts(bad, l.lines(out), there)
			for text := range bytes.Lines(out) {
				if !bytes.HasPrefix(text, []byte(`{"type":"transition"`)) && !bytes.HasPrefix(text, []byte(`{"type":"closed"`)) {
					l.Logf("%s", text)
				}
			}
		})
	}
}

// summaryEnd: the account says that it is not whole, and counts what there is.
func (l *lossRun) summaryEnd() {
	l.Helper()
	var summary struct {
		Type   string
		Exact  *bool
		Counts map[string]*int
	}
	lines := wholeLines(l.told.output())
	l.must(json.Unmarshal(lines[len(lines)-1], &summary))
	if summary.Type != "summary" || summary.Exact == nil || *summary.Exact {
		l.Errorf("the account does not say that it is not whole: %.300s", lines[len(lines)-1])
	}
	there := make(map[string]int)
	for k := range diag(l.T, anyState, l.ns) {
		there[k.state]++
	}
	for state, n := range summary.Counts {
		if n == nil || *n != there[state] {
			l.Errorf("%s: the account has %s, the kernel %d", state, orNull(n), there[state])
		}
		delete(there, state)
	}
	if len(there) > 0 {
		l.Errorf("the account has none of %v", there)
	}
}
