package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/testnet"
)

// Growth is known after a minute. The test of it runs as a process of its own beside
// the others, which take as long anyway.

// envBeside is set in that process.
const envBeside = "TCPTRACE_E2E_BESIDE"

// beside is that process, once it was started.
var beside struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan error
}

// TestWatchGrowthBegins starts TestWatchGrowth, whose verdict is given at the end.
func TestWatchGrowthBegins(t *testing.T) {
	if os.Getenv(envBeside) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWatchGrowth$", "-test.v", "-test.timeout=8m")
	cmd.Env = append(os.Environ(), envBeside+"=1", envBinary+"="+tcptrace)
	cmd.Stdout, cmd.Stderr = &beside.out, &beside.out
	// Its end is that of this process, however it ends.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	beside.cmd, beside.done = cmd, make(chan error, 1)
	go func() { beside.done <- cmd.Wait() }()
}

// TestWatchGrowth: leaks that grow, into the limit of descriptors, and a process
// whose number another one gets. It is parallel to come last.
func TestWatchGrowth(t *testing.T) {
	t.Parallel()
	if beside.cmd != nil {
		err := <-beside.done
		t.Logf("beside the other tests:\n%s", &beside.out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	if os.Getenv(envBeside) != "" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(1) // nobody waits for it any more
		}()
	}
	leaking(t, "watch-growth", watchGrowth)
}

const (
	leaksPerSecond = 7
	growthAfter    = 60 * time.Second  // the first minute has no growth
	limitAfter     = 100 * time.Second // from the first leak to the limit
)

func watchGrowth(t *testing.T, c *C) {
	// Once FIN_WAIT2 of the other end is over its port is free, and the SYN of
	// whoever gets it next would end the leaked socket: not before the test does.
	if err := c.NS.SetSysctl("ipv4/tcp_fin_timeout", "300"); err != nil {
		t.Fatal(err)
	}
	srv, old, heir, cli := c.Proc("srv"), c.OwnProc("old"), c.Proc("heir"), c.Proc("cli")
	w := watch(t, "auto", "close_wait", "--netns", c.NS.Name(), "--interval", "2s")

	// One process leaks until it has no descriptors left.
	spare := int(limitAfter/time.Second) * leaksPerSecond
	soft := srv.openFDs(c) + spare
	limit := unix.Rlimit{Cur: uint64(soft), Max: uint64(soft)}
	if err := unix.Prlimit(srv.id.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	full := srv.start(c, c.leakRequest(2*spare, each(leaksPerSecond), lasts(limitAfter)))

	// Another one leaks for as long as it takes to be known to grow.
	const slowly = 2
	begin := now()
	leaked := old.call(c, c.leakRequest(slowly*int(growthAfter/time.Second+4), each(slowly), lasts(growthAfter)))
	a := w.after(now())
	if g := groupOf(a, old.id.PID); g == nil || g.GrowthPerMin == nil || !near(*g.GrowthPerMin, 60*slowly, 0.1) || g.Count != len(leaked.FDs) {
		t.Errorf("after %v: %+v, want a growth of %d per minute and %d sockets", time.Duration(now()-begin), g, 60*slowly, len(leaked.FDs))
	}
	c.watchReborn(t, w, old, heir, cli, old.id.Comm, leaked)

	end := full()
	t.Logf("%d leaks in %.1f s until %v", len(end.FDs), time.Duration(end.Spans[len(end.Spans)-1].Hi-end.Spans[0].Lo).Seconds(),
		unix.Errno(end.Errnos[0]))
	a = w.after(now())
	sameAsKernel(t, "full", a, "close_wait", c.NS)
	checkGrowth(t, w.stop(), srv, end)
}

// checkGrowth compares what was said of srv's growth with what it did: how many
// sockets it leaked each minute, and when it could have no more.
func checkGrowth(t *testing.T, answers []*answer, srv *Proc, did response) {
	t.Helper()
	if errno := unix.Errno(did.Errnos[0]); errno != unix.EMFILE {
		t.Fatalf("workload: %v, want %v", errno, unix.EMFILE)
	}
	at := did.Spans[len(did.Spans)-1].Hi // the moment of EMFILE
	leaks := did.Spans[:len(did.Spans)-1]
	growths, limits := 0, 0
	for _, a := range answers {
		g := groupOf(a, srv.id.PID)
		if g == nil || a.TS > at {
			continue
		}
		age := time.Duration(a.TS - leaks[0].Lo)
		if g.GrowthPerMin == nil {
			if age > growthAfter+5*time.Second {
				t.Errorf("no growth after %v", age)
			}
			continue
		}
		if age < growthAfter {
			t.Errorf("growth %v after %v", *g.GrowthPerMin, age)
		}
		n := len(leaks)
		if i := slices.IndexFunc(leaks, func(s Span) bool { return s.Hi > a.TS }); i >= 0 {
			n = i
		}
		growths++
		if want := float64(n) / age.Minutes(); !near(*g.GrowthPerMin, want, 0.1) {
			t.Errorf("after %v: growth %.1f per minute, want %.1f", age, *g.GrowthPerMin, want)
		}
		left := time.Duration(at - a.TS)
		if left < 4*time.Second {
			continue
		}
		limits++
		if g.LimitInNS == nil || !near(float64(*g.LimitInNS), float64(left), 0.2) {
			t.Errorf("after %v: the limit in %s ns, it was in %v", age, orNull(g.LimitInNS), left)
		} else {
			t.Logf("after %.1f s: growth %.1f, the limit in %.1f s, it was in %.1f s", age.Seconds(), *g.GrowthPerMin,
				time.Duration(*g.LimitInNS).Seconds(), left.Seconds())
		}
	}
	if growths < 3 || limits < 3 {
		t.Errorf("%d answers with a growth, %d of them long enough before the limit: want 3 each", growths, limits)
	}
}

func near(got, want, part float64) bool { return got >= want*(1-part) && got <= want*(1+part) }

func groupOf(a *answer, pid int) *watchGroup {
	i := slices.IndexFunc(a.groups, func(g *watchGroup) bool { return g.PID != nil && *g.PID == pid })
	if i < 0 {
		return nil
	}
	return a.groups[i]
}

// openFDs counts the descriptors of a process.
func (p *Proc) openFDs(c *C) int {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.id.PID))
	if err != nil {
		c.Fatalf("%v", err)
	}
	return len(fds)
}

// leakRequest asks a process to leak n drained sockets by itself, at once.
func (c *C) leakRequest(n int, opts ...option) request {
	return request{Op: "leak", N: n, Addrs: []string{netip.AddrPortFrom(c.Loopback(), 0).String()}}.with(opts)
}

// each makes it leak so many each second instead.
func each(second int) option {
	return func(r *request) { r.Data = []string{strconv.Itoa(second)} }
}

func lasts(d time.Duration) option { return func(r *request) { r.Lasts = d } }

// leaked is what a process leaked.
func (c *C) leaked(p *Proc, made response) []*leaked {
	list := make([]*leaked, len(made.FDs))
	for i := range list {
		list[i] = &leaked{reason: "drained", since: made.Spans[i], holders: []holding{{p.id, made.FDs[i : i+1]}},
			conn: &Conn{NetNS: c.NS.Inode(), Family: c.Fam, Cookie: made.Cookies[i], Local: netip.MustParseAddrPort(made.Locals[i]),
				Remote: netip.MustParseAddrPort(made.Remotes[i])}}
	}
	return list
}

// leak leaks N sockets, drained: all at once, or Data[0] each second by the clock,
// of those that are late as many as are due. The answer is the sockets and when each
// was leaked, and, where there were fewer, the error that it ended with and when.
func (a *actor) leak(req *request, resp *response) error {
	ap := netip.MustParseAddrPort(req.Addrs[0])
	l, err := newSocket(ap, req)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, sockaddr(ap, false)), unix.Listen(l, 64)); err != nil {
		return err
	}
	defer unix.Close(l)
	addr := netip.MustParseAddrPort(localAddr(l))
	if len(req.Data) == 0 {
		return leakAll(l, addr, req.N, resp)
	}
	rate, err := strconv.Atoi(req.Data[0])
	if err != nil {
		return err
	}
	begin := now()
	for i := range req.N {
		time.Sleep(time.Duration(begin + int64(i)*int64(time.Second)/int64(rate) - now()))
		lo := now()
		cli, srv, err := pairThrough(l, addr)
		if err == nil {
			err = errors.Join(unix.Close(cli), waitEOF(srv))
		}
		span := Span{lo, now()}
		var errno unix.Errno
		if errors.As(err, &errno) {
			resp.Spans, resp.Errnos = append(resp.Spans, span), []int{int(errno)}
			return nil
		}
		if err != nil {
			return err
		}
		resp.leaked(srv, span)
	}
	return nil
}

// leakAll closes the other ends of many connections together: each would be one more
// descriptor. Their ports must not be free again before the last connection is there,
// for the SYN of the next one would end the leaked socket: the namespace must have
// room for n sockets in FIN_WAIT2 (tcp_max_tw_buckets).
func leakAll(l int, addr netip.AddrPort, n int, resp *response) error {
	const together = 3000
	for n > 0 {
		var clients []int
		first := len(resp.FDs)
		for range min(n, together) {
			cli, srv, err := pairThrough(l, addr)
			if err != nil {
				return err
			}
			clients = append(clients, cli)
			resp.leaked(srv, Span{})
		}
		for i, cli := range clients {
			span := &resp.Spans[first+i]
			span.Lo = now()
			if err := errors.Join(unix.Close(cli), waitEOF(resp.FDs[first+i])); err != nil {
				return err
			}
			span.Hi = now()
		}
		n -= len(clients)
	}
	return nil
}

// leaked adds a socket to the answer.
func (resp *response) leaked(fd int, span Span) {
	resp.FDs = append(resp.FDs, fd)
	resp.Spans = append(resp.Spans, span)
	resp.Locals = append(resp.Locals, localAddr(fd))
	resp.Remotes = append(resp.Remotes, remoteAddr(fd))
	resp.Cookies = append(resp.Cookies, cookieOf(fd))
}

func remoteAddr(fd int) string {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return ""
	}
	return addrPort(sa)
}

// pairThrough returns both ends of a connection through l.
func pairThrough(l int, addr netip.AddrPort) (cli, srv int, err error) {
	if cli, err = newSocket(addr, &request{}); err != nil {
		return -1, -1, err
	}
	if err = unix.Connect(cli, sockaddr(addr, false)); err == nil {
		srv, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		unix.Close(cli)
	}
	return cli, srv, err
}

// watchReborn: a process hands its leaks on and dies, and another one gets its
// number. Of the leaks that is not named; of its own none of what was known of the
// dead is said.
func (c *C) watchReborn(t *testing.T, w *watching, old, heir, cli *Proc, comm string, made response) {
	t.Helper()
	list := c.leaked(old, made)
	got := c.pass(old, heir, made.FDs)
	for i, l := range list {
		l.holders = []holding{{old.id, made.FDs[i : i+1]}, {heir.id, got[i : i+1]}}
		slices.SortFunc(l.holders, func(a, b holding) int { return a.p.PID - b.p.PID })
	}
	c.checkSockets(t, "two holders", w.after(now()), list)

	c.Kill(old)
	<-old.ended
	for i, l := range list {
		l.holders = []holding{{heir.id, got[i : i+1]}}
	}
	before := now()
	reborn := c.procAs(old.id.PID, comm)
	// Twice: once before it has a socket, so that there is no group.
	a := w.after(now())
	c.checkSockets(t, "reborn", a, list)
	if g := groupOf(a, reborn.id.PID); g != nil {
		t.Errorf("a process without a socket has a group: %+v", g)
	}
	own := c.drained(cli, c.Listen(reborn), c.N)
	c.ObserveConns(c.NS, conns(own), "CLOSE_WAIT")
	for _, l := range own {
		l.since.Hi = now()
	}
	a = w.after(now())
	c.checkSockets(t, "reborn and leaking", a, append(slices.Clone(list), own...))
	g := groupOf(a, reborn.id.PID)
	switch {
	case g == nil || g.Comm == nil || *g.Comm != comm || g.Count != len(own):
		t.Errorf("the group is %+v, want %d of %s", g, len(own), reborn.id)
	case g.GrowthPerMin != nil || g.LimitInNS != nil:
		t.Errorf("it has the growth of the dead: %+v", g)
	case g.OldestNS == nil || *g.OldestNS > a.TS-before:
		t.Errorf("oldest is %s, older than the process, which is %d", orNull(g.OldestNS), a.TS-before)
	case !slices.Equal(g.Cmdline, []string{"/proc/self/exe", rebornArg}):
		t.Errorf("command line %q", g.Cmdline)
	}

	// Nor in any answer meanwhile.
	theirs := map[sockKey]bool{}
	for _, l := range list {
		theirs[keyOf(l.conn, "CLOSE_WAIT")] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.answers {
		for _, s := range a.sockets {
			for _, h := range s.Holders {
				if theirs[s.key()] && *h.PID == reborn.id.PID && slices.Contains(h.Cmdline, rebornArg) {
					t.Errorf("%s is held by the process that was started after: %+v", s.key(), h)
				}
			}
		}
	}
}

func conns(list []*leaked) []*Conn {
	all := make([]*Conn, len(list))
	for i, l := range list {
		all[i] = l.conn
	}
	return all
}

// checkSockets demands these sockets, as they are, among those of an answer.
func (c *C) checkSockets(t *testing.T, what string, a *answer, list []*leaked) {
	t.Helper()
	bad := &problems{t: t, what: what}
	defer bad.end()
	by := map[sockKey]*watchSocket{}
	for _, s := range a.sockets {
		by[s.key()] = s
	}
	for _, l := range list {
		k := keyOf(l.conn, "CLOSE_WAIT")
		if s := by[k]; s == nil {
			bad.addf("%s is missing, %d are listed, %d events were lost; the kernel has it in: %v", k, len(a.sockets), a.Lost, kernelHas(t, c.NS, k))
		} else {
			l.check(s, func(format string, args ...any) { bad.addf("%s: %s", k, fmt.Sprintf(format, args...)) })
		}
	}
}

// kernelHas returns the states of the sockets between the ends of k.
func kernelHas(t *testing.T, ns *testnet.NS, k sockKey) (states []string) {
	t.Helper()
	there := diag(t, anyState, ns)
	for _, state := range strings.Split(strings.ToUpper(anyState), ",") {
		k.state = state
		if _, ok := there[k]; ok {
			states = append(states, state)
		}
	}
	return states
}

// pass passes descriptors on, and returns what they are there.
func (c *C) pass(from, to *Proc, fds []int) []int {
	path := fmt.Sprintf("%s/passed-%d", c.s.dir, c.s.started.Add(1))
	to.call(c, request{Op: "listenfds", Path: path})
	got := to.start(c, request{Op: "recvfds", Path: path, N: len(fds)})
	from.call(c, request{Op: "sendfds", Path: path, FDs: fds})
	return got().FDs
}

// rebornArg is the argument of processes whose number was chosen, which makes their
// command line another.
const rebornArg = "reborn"

// procAs starts a workload process in the case's namespace that has a number of the
// test's choice, which nobody may have.
func (c *C) procAs(pid int, comm string) *Proc {
	env := append(os.Environ(), envControl+"="+c.s.dir+"/control", envName+"="+comm, "GODEBUG=asyncpreemptoff=1,multipathtcp=2")
	err := c.NS.Do(func() error { return spawnAs(pid, []string{"/proc/self/exe", rebornArg}, env) })
	if err != nil {
		c.Fatalf("start %s as process %d: %v", comm, pid, err)
	}
	ended := make(chan struct{})
	go func() {
		unix.Wait4(pid, nil, 0, nil)
		close(ended)
	}()
	p := c.waitHello(comm)
	p.ended = ended
	if p.id.PID != pid {
		c.Fatalf("%s is not process %d", p.id, pid)
	}
	return p
}
