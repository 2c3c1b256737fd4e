package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/testnet"
)

// prime is how many connections a case makes of each kind.
const prime = 23

// timeWait is how long TIME_WAIT lasts (TCP_TIMEWAIT_LEN).
const timeWait = 60 * time.Second

// Case is one way of opening and closing connections. Run is called once for
// each family, at the same time, in the one namespace of the case.
type Case struct {
	Name string
	Run  func(c *C)
	// Early: Run starts before the tracers, and calls C.Traced.
	Early bool
	// Families is 4 and 6 if empty.
	Families []int
	// N is the number of connections, prime if 0.
	N int
	// Sysctls of the namespace, below /proc/sys/net.
	Sysctls map[string]string
}

// C is a running case, for one family. Its methods end the case where they
// cannot do what they are asked.
type C struct {
	*caseRun
	Fam int
	N   int
	// Asks: sockets that still have a descriptor are asked for their state, which
	// is cheaper than to look for them among very many.
	Asks   bool
	once   sync.Once
	turn   bool // has one of suite.turns
	listen []*Listener
}

// caseRun is what the families of a case share.
type caseRun struct {
	s    *suite
	Case *Case
	NS   *testnet.NS

	mu    sync.Mutex
	procs map[string]*Proc
}

// suite runs cases under one set of tracers.
type suite struct {
	dir     string
	control net.Listener
	truth   Truth
	started atomic.Int64

	mu     sync.Mutex
	hellos map[string]chan *Proc // by comm
	procs  []*Proc
	spaces []*testnet.NS
	failed map[string][]string // by case: what the workload could not do

	early sync.WaitGroup // cases that are not ready for the tracers yet
	ready chan struct{}  // closed when the tracers are
	abort chan struct{}  // closed when there will be none
	turns chan struct{}  // the cases that are at work, atOnce at most
}

// atOnce is how many cases are at work at a time. All of them together would be as slow
// in a guest as a TIME_WAIT is long, which they want to see.
const atOnce = 12

func newSuite(t testing.TB) *suite {
	s := &suite{dir: t.TempDir(), hellos: map[string]chan *Proc{}, failed: map[string][]string{},
		ready: make(chan struct{}), abort: make(chan struct{}), turns: make(chan struct{}, atOnce)}
	s.truth.netns = map[uint32]string{}
	// Workload processes may have changed their uid when they connect.
	var err error
	if s.control, err = net.Listen("unix", filepath.Join(s.dir, "control")); err != nil {
		t.Fatal(err)
	}
	go s.serve()
	t.Cleanup(func() {
		s.control.Close()
		s.endProcs()
		for _, ns := range s.spaces {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// endProcs ends all workload processes.
func (s *suite) endProcs() {
	for _, p := range s.procs {
		p.conn.Close()
		<-p.gone
		if p.ended != nil {
			<-p.ended
		}
	}
}

// serve takes the processes that report on the control socket.
func (s *suite) serve() {
	for {
		conn, err := s.control.Accept()
		if err != nil {
			return
		}
		go func() {
			dec := json.NewDecoder(bufio.NewReader(conn))
			var hello response
			if err := dec.Decode(&hello); err != nil || hello.Hello == nil {
				conn.Close()
				return
			}
			p := &Proc{id: hello.Hello, enc: json.NewEncoder(conn), pending: map[int]chan response{}, gone: make(chan struct{}), conn: conn}
			s.mu.Lock()
			s.procs = append(s.procs, p)
			s.mu.Unlock()
			s.hello(p.id.Comm) <- p
			p.serve(dec)
		}()
	}
}

func (s *suite) hello(comm string) chan *Proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hellos[comm] == nil {
		s.hellos[comm] = make(chan *Proc, 1)
	}
	return s.hellos[comm]
}

var spaceCount atomic.Int64

func (s *suite) newNS(name string, traced bool) (*testnet.NS, error) {
	ns, err := testnet.CreateNS(fmt.Sprintf("e2e-%d-%d-%s", os.Getpid(), spaceCount.Add(1), name))
	if err != nil {
		return nil, err
	}
	// On loopback a connect takes over the port of a TIME_WAIT from its next second on
	// (tcp_tw_reuse 2, the default): seen once in some hundred runs.
	if err := ns.SetSysctl("ipv4/tcp_tw_reuse", "0"); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	s.mu.Lock()
	s.spaces = append(s.spaces, ns)
	s.mu.Unlock()
	if traced {
		s.truth.mu.Lock()
		s.truth.netns[ns.Inode()] = name
		s.truth.mu.Unlock()
	}
	return ns, nil
}

// prepare makes the namespaces of the cases and starts the early ones; the
// function that it returns waits for all of them to end.
func (s *suite) prepare(t testing.TB, cases []Case) (wait func()) {
	var done sync.WaitGroup
	for i := range cases {
		cs := &cases[i]
		ns, err := s.newNS(cs.Name, true)
		if err != nil {
			t.Fatal(err)
		}
		for path, value := range cs.Sysctls {
			if err := ns.SetSysctl(path, value); err != nil {
				t.Fatalf("%s: %v", cs.Name, err)
			}
		}
		run := &caseRun{s: s, Case: cs, NS: ns, procs: map[string]*Proc{}}
		families := cs.Families
		if families == nil {
			families = []int{4, 6}
		}
		for _, fam := range families {
			c := &C{caseRun: run, Fam: fam, N: cs.N}
			if c.N == 0 {
				c.N = prime
			}
			if cs.Early {
				s.early.Add(1)
			}
			done.Add(1)
			go func() {
				defer done.Done()
				c.run()
			}()
		}
	}
	return done.Wait
}

// failure ends a case.
type failure string

func (c *C) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (c *C) run() {
	defer func() {
		c.arrived()
		r := recover()
		f, ok := r.(failure)
		if r == nil {
			return
		}
		if !ok {
			buf := make([]byte, 1<<16)
			f = failure(fmt.Sprintf("panic: %v\n%s", r, buf[:runtime.Stack(buf, false)]))
		}
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.s.failed[c.Case.Name] = append(c.s.failed[c.Case.Name], fmt.Sprintf("IPv%d: %s", c.Fam, f))
	}()
	if !c.Case.Early {
		c.waitTracers()
		c.s.turns <- struct{}{}
		c.turn = true
		defer c.yield()
	}
	c.Case.Run(c)
	c.closeListeners()
}

// closeListeners closes the listeners that are still open.
func (c *C) closeListeners() {
	for _, l := range c.listen {
		if l.Conn.State() == "LISTEN" {
			c.CloseListener(l)
		}
	}
}

// arrived says, once, that an early case is ready for the tracers.
func (c *C) arrived() {
	if c.Case.Early {
		c.once.Do(c.s.early.Done)
	}
}

// Traced waits until the tracers run; an early case calls it once.
func (c *C) Traced() {
	c.arrived()
	c.waitTracers()
}

func (c *C) waitTracers() {
	select {
	case <-c.s.ready:
	case <-c.s.abort:
		c.Fatalf("no tracer")
	}
}

// NewNS makes another traced namespace; call it before Traced.
func (c *C) NewNS(name string) *testnet.NS {
	ns, err := c.s.newNS(c.Case.Name, true)
	if err != nil {
		c.Fatalf("%s: %v", name, err)
	}
	return ns
}

// UntracedNS makes a namespace that the tracers are not asked about.
func (c *C) UntracedNS(name string) *testnet.NS {
	ns, err := c.s.newNS(name, false)
	if err != nil {
		c.Fatalf("%s: %v", name, err)
	}
	return ns
}

// Expect adds connections to the truth.
func (c *C) Expect(conns ...*Conn) { c.s.truth.add(conns...) }

// Hold lets connections be in their state for a while: it is a part of the
// workload, not a wait for something to happen. Another case has its turn then, and this
// one goes on without: what it holds does not last.
func (c *C) Hold(d time.Duration) {
	c.yield()
	time.Sleep(d)
}

// yield ends the turn.
func (c *C) yield() {
	if c.turn {
		c.turn = false
		<-c.s.turns
	}
}

// Loopback is the loopback address of the case's family.
func (c *C) Loopback() netip.Addr {
	if c.Fam == 4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// Proc is a workload process.
type Proc struct {
	id   *ProcID
	conn net.Conn
	// ended is closed when the process has ended; nil if another workload
	// process started it.
	ended chan struct{}

	mu      sync.Mutex
	enc     *json.Encoder
	next    int
	pending map[int]chan response
	gone    chan struct{}
}

// ID is what the output must call the process.
func (p *Proc) ID() *ProcID { return p.id }

func (p *Proc) serve(dec *json.Decoder) {
	defer close(p.gone)
	for {
		var resp response
		if err := dec.Decode(&resp); err != nil {
			return
		}
		p.mu.Lock()
		ch := p.pending[resp.ID]
		delete(p.pending, resp.ID)
		p.mu.Unlock()
		ch <- resp
	}
}

// Proc returns the workload process of that role in the case's namespace; the
// families share it. It starts on first use. Its comm begins with the role.
func (c *C) Proc(role string) *Proc {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.procs[role]; p != nil {
		return p
	}
	p := c.ProcIn(c.NS, role)
	c.procs[role] = p
	return p
}

// OwnProc is a process of that role for this family alone.
func (c *C) OwnProc(role string) *Proc { return c.ProcIn(c.NS, role) }

// ProcIn starts a workload process in a namespace.
func (c *C) ProcIn(ns *testnet.NS, role string) *Proc {
	return c.ProcNamed(ns, c.comm(role))
}

func (c *C) comm(role string) string { return fmt.Sprintf("%s-%d", role, c.s.started.Add(1)) }

// ProcNamed starts a workload process with this comm, which no other has.
func (c *C) ProcNamed(ns *testnet.NS, comm string) *Proc {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envControl+"="+filepath.Join(c.s.dir, "control"), envName+"="+comm,
		"GODEBUG=asyncpreemptoff=1,multipathtcp=2")
	cmd.Stderr = os.Stderr
	if err := ns.Start(cmd); err != nil {
		c.Fatalf("start %s: %v", comm, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	p := c.waitHello(comm)
	p.ended = ended
	return p
}

func (c *C) waitHello(comm string) *Proc {
	select {
	case p := <-c.s.hello(comm):
		return p
	case <-time.After(callTimeout):
		c.Fatalf("workload process %s did not report", comm)
		return nil
	}
}

// callTimeout is for calls that never end.
var callTimeout = func() time.Duration {
	if inVM {
		return 2 * time.Minute
	}
	return 45 * time.Second
}()

// start sends a request; the function that it returns waits for the answer.
func (p *Proc) start(c *C, req request) func() response {
	ch := make(chan response, 1)
	p.mu.Lock()
	p.next++
	req.ID = p.next
	p.pending[req.ID] = ch
	err := p.enc.Encode(req)
	p.mu.Unlock()
	if err != nil {
		c.Fatalf("%s of %s: %v", req.Op, p.id, err)
	}
	return func() response {
		select {
		case resp := <-ch:
			if resp.Err != "" {
				c.Fatalf("%s: %s", p.id, resp.Err)
			}
			return resp
		case <-p.gone:
			c.Fatalf("%s ended during %s", p.id, req.Op)
		case <-time.After(req.Lasts + callTimeout):
			c.Fatalf("%s of %s: no answer", req.Op, p.id)
		}
		panic("unreachable")
	}
}

func (p *Proc) call(c *C, req request) response { return p.start(c, req)() }

// Kill ends the process with SIGKILL and says when.
func (c *C) Kill(p *Proc) Span {
	lo := now()
	if err := syscall.Kill(p.id.PID, syscall.SIGKILL); err != nil {
		c.Fatalf("kill %s: %v", p.id, err)
	}
	// Its control socket is closed like its other descriptors, when it exits;
	// the highest descriptor may be the last. Wait until it is a zombie or gone.
	<-p.gone
	deadline := time.Now().Add(callTimeout)
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.id.PID))
		if err != nil {
			break
		}
		if _, state, _ := strings.Cut(string(text), ") "); strings.HasPrefix(state, "Z") {
			break
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s does not die", p.id)
		}
		time.Sleep(time.Millisecond)
	}
	return Span{lo, now()}
}

// Listener is a listening socket.
type Listener struct {
	P    *Proc
	FD   int
	Addr netip.AddrPort // to connect to
	Conn *Conn
	// Op prefix of package net's listener.
	ops string
	// mptcp: it is MPTCP, or may be.
	mptcp bool
}

// Side is one end of a connection, in the hands of a process.
type Side struct {
	P    *Proc
	FD   int
	Conn *Conn
	ops  string
}

// Pair is a connection within the test: both ends.
type Pair struct{ Cli, Srv *Side }

func clients(pairs []*Pair) []*Side {
	list := make([]*Side, len(pairs))
	for i, p := range pairs {
		list[i] = p.Cli
	}
	return list
}

func servers(pairs []*Pair) []*Side {
	list := make([]*Side, len(pairs))
	for i, p := range pairs {
		list[i] = p.Srv
	}
	return list
}

// option changes a request.
type option func(*request)

func at(ap netip.AddrPort) option { return func(r *request) { r.Addrs = []string{ap.String()} } }
func withProto(proto int) option  { return func(r *request) { r.Proto = proto } }
func mapped(r *request)           { r.Mapped = true }
func onThread(name string) option { return func(r *request) { r.Thread = name } }
func inNS(ns *testnet.NS) option  { return func(r *request) { r.NetNS = ns.Path() } }
func (r request) with(opts []option) request {
	for _, o := range opts {
		o(&r)
	}
	return r
}

func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}

// Listen listens on the loopback address, port chosen by the kernel.
func (c *C) Listen(p *Proc, opts ...option) *Listener {
	return c.listenOp(p, "listen", "", opts)
}

// GoListen listens with package net.
func (c *C) GoListen(p *Proc, opts ...option) *Listener {
	return c.listenOp(p, "golisten", "go", opts)
}

func (c *C) listenOp(p *Proc, op, ops string, opts []option) *Listener {
	req := request{Op: op, N: 512, Addrs: []string{netip.AddrPortFrom(c.Loopback(), 0).String()}}.with(opts)
	resp := p.call(c, req)
	local := netip.MustParseAddrPort(resp.Locals[0])
	if req.NetNS != "" {
		c.Fatalf("listener in another namespace: not made for that")
	}
	l := &Listener{P: p, FD: resp.FDs[0], Addr: local, ops: ops, mptcp: req.Proto == protoMPTCP || op == "golisten",
		Conn: &Conn{NetNS: c.NS.Inode(), Family: familyOf(local.Addr()), Local: local, UID: p.id.UID}}
	if req.Mapped {
		// A dual-stack listener is an IPv6 socket.
		l.Conn.Family = 6
		l.Conn.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
	}
	if len(resp.Cookies) > 0 && req.Proto == 0 {
		l.Conn.Cookie = resp.Cookies[0]
	}
	l.Conn.To("LISTEN", resp.Spans[0])
	l.Conn.Own("listen", p.id, resp.Spans[0])
	c.listen = append(c.listen, l)
	c.Expect(l.Conn)
	return l
}

// CloseListener closes it and says when.
func (c *C) CloseListener(l *Listener) Span {
	span := l.P.call(c, request{Op: l.ops + "close", FDs: []int{l.FD}}).Spans[0]
	l.Conn.To("CLOSE", span)
	return span
}

// Dial connects n sockets of p to l, and leaves accepting to others.
func (c *C) Dial(p *Proc, l *Listener, n int, opts ...option) []*Side {
	req := request{Op: "connect", N: n, Addrs: []string{l.Addr.String()}}.with(opts)
	resp := p.call(c, req)
	sides := make([]*Side, n)
	for i := range sides {
		if resp.Errnos[i] != 0 {
			c.Fatalf("connect to %s: %v", req.Addrs, syscall.Errno(resp.Errnos[i]))
		}
		remote := netip.MustParseAddrPort(req.Addrs[i%len(req.Addrs)])
		sides[i] = &Side{P: p, FD: resp.FDs[i], Conn: &Conn{NetNS: c.NS.Inode(), Family: familyOf(remote.Addr()),
			Local: netip.MustParseAddrPort(resp.Locals[i]), Remote: remote, UID: p.id.UID, End: &End{Opened: "active"}}}
		conn := sides[i].Conn
		if req.Proto == 0 {
			conn.Cookie = resp.Cookies[i]
		}
		conn.To("SYN_SENT", resp.Spans[i])
		conn.To("ESTABLISHED", resp.Spans[i])
		conn.Own("connect", p.id, resp.Spans[i])
		c.Expect(conn)
	}
	return sides
}

// Accept starts n accepts; the function that it returns waits for them.
func (c *C) Accept(l *Listener, n int) func() response {
	return l.P.start(c, request{Op: l.ops + "accept", FDs: []int{l.FD}, N: n})
}

// Connect makes n connections from p to l, accepted by l's process.
func (c *C) Connect(p *Proc, l *Listener, n int, opts ...option) []*Pair {
	accepted := c.Accept(l, n)
	return c.Pair(l, c.Dial(p, l, n, opts...), accepted())
}

// Pair joins dialled sockets with accepted ones.
func (c *C) Pair(l *Listener, dialled []*Side, accepted ...response) []*Pair {
	type acceptance struct {
		fd     int
		span   Span
		local  string
		cookie uint64
	}
	by := map[string]acceptance{}
	for _, a := range accepted {
		for i := range a.FDs {
			by[a.Remotes[i]] = acceptance{a.FDs[i], a.Spans[i], a.Locals[i], a.Cookies[i]}
		}
	}
	pairs := make([]*Pair, len(dialled))
	for i, d := range dialled {
		a, ok := by[d.Conn.Local.String()]
		if !ok {
			c.Fatalf("%s was not accepted", d.Conn)
		}
		conn := c.child(l, d, Span{d.Conn.Steps[0].At.Lo, a.span.Hi})
		if l.mptcp {
			conn.Last().At.Hi += int64(subflowLag)
		}
		conn.Cookie = a.cookie
		// It can have been accepted only when it was there.
		conn.Own("accept", l.P.id, Span{max(a.span.Lo, d.Conn.Steps[0].At.Lo), a.span.Hi})
		pairs[i] = &Pair{d, &Side{P: l.P, FD: a.fd, Conn: conn, ops: l.ops}}
	}
	return pairs
}

// subflowLag is how long after accept(2) a child of an MPTCP listener may become
// ESTABLISHED: the softirq puts it into the queue before it handles the ACK (tcp_check_req,
// tcp_child_process). accept(2) waits for its lock, but here that is the MPTCP socket's, not
// the subflow's: on another processor it may return before. 254 us were seen, in an
// emulated machine, whose processors take turns.
const subflowLag = 10 * time.Millisecond

// child is the other end of a dialled connection, ESTABLISHED within span.
func (c *C) child(l *Listener, d *Side, span Span) *Conn {
	conn := &Conn{NetNS: d.Conn.NetNS, Family: d.Conn.Family, Local: d.Conn.Remote, Remote: d.Conn.Local,
		UID: l.P.id.UID, End: &End{Opened: "passive"}}
	conn.Steps = []Step{{Old: "LISTEN", New: "SYN_RECV", At: span}}
	conn.To("ESTABLISHED", span)
	c.Expect(conn)
	return conn
}

// Op does a call on each socket; all must be in one process.
func (c *C) Op(op string, sides []*Side, opts ...option) []Span {
	if len(sides) == 0 {
		return nil
	}
	req := request{Op: sides[0].ops + op}
	for _, s := range sides {
		req.FDs = append(req.FDs, s.FD)
	}
	return sides[0].P.call(c, req.with(opts)).Spans
}

// Write writes n bytes to each socket.
func (c *C) Write(sides []*Side, n int) []Span {
	return c.Op("write", sides, func(r *request) { r.N = n })
}

// Read reads n bytes from each socket.
func (c *C) Read(sides []*Side, n int) []Span {
	return c.Op("read", sides, func(r *request) { r.N = n })
}

// Observe waits until each socket is in the state, empty for gone, and says
// between which times it was first seen so.
func (c *C) Observe(sides []*Side, state string) []Span {
	conns := make([]*Conn, len(sides))
	for i, s := range sides {
		conns[i] = s.Conn
	}
	return c.ObserveConns(c.NS, conns, state)
}

// ObserveConns is Observe of connections in a namespace.
func (c *C) ObserveConns(ns *testnet.NS, conns []*Conn, state string) []Span {
	want := make([]sight, len(conns))
	for i, conn := range conns {
		want[i] = sight{conn.Local.String(), conn.Remote.String(), state}
	}
	var spans []Span
	err := ns.Do(func() (err error) {
		spans, err = observe(want, callTimeout)
		return err
	})
	if err != nil {
		c.Fatalf("%v", err)
	}
	return spans
}

// CloseFirst closes a, whose peers b have not closed: a goes to FIN_WAIT2, b to
// CLOSE_WAIT.
func (c *C) CloseFirst(a, b []*Side) { c.First(a, b, c.Op("close", a)) }

// ShutdownFirst does the same by shutdown(SHUT_WR).
func (c *C) ShutdownFirst(a, b []*Side) { c.First(a, b, c.Op("shutdown", a)) }

// Orphan shuts a down, sees it in FIN_WAIT2, and closes it, within the spans that it
// returns: a timewait socket waits for the peer's FIN. An acknowledgement of the FIN that
// comes while close(2) has the socket would leave a full one, which the kernel ends by an
// RST (tcp_rcv_state_process, tcp_keepalive_timer).
func (c *C) Orphan(a, b []*Side) []Span {
	c.ShutdownFirst(a, b)
	return c.Op("close", a)
}

// First notes that a closed, by their processes, within spans.
func (c *C) First(a, b []*Side, spans []Span) {
	for i, s := range a {
		s.Conn.To("FIN_WAIT1", spans[i])
		s.Conn.Own("close", s.P.id, spans[i])
		s.Conn.End.Closer, s.Conn.End.How, s.Conn.End.ClosedBy = "local", "fin", s.P.id
		b[i].Conn.End.Closer, b[i].Conn.End.How = "remote", "fin"
	}
	seen := c.Op("eof", b)
	for i, s := range b {
		s.Conn.To("CLOSE_WAIT", Span{spans[i].Lo, seen[i].Hi})
	}
	if c.Asks {
		seen = c.Op("finwait2", a)
	} else {
		seen = c.Observe(a, "FIN_WAIT2")
	}
	for i, s := range a {
		s.Conn.To("FIN_WAIT2", Span{spans[i].Lo, seen[i].Hi})
	}
}

// CloseSecond closes b, whose peers a have closed: a goes to TIME_WAIT, b ends.
func (c *C) CloseSecond(a, b []*Side) { c.Second(a, b, c.Op("close", b)) }

// Second notes that b closed, by their processes, within spans.
func (c *C) Second(a, b []*Side, spans []Span) {
	for i, s := range b {
		s.Conn.To("LAST_ACK", spans[i])
		s.Conn.Own("close", s.P.id, spans[i])
		s.Conn.End.ClosedBy = s.P.id
	}
	seen := c.Observe(a, "TIME_WAIT")
	for i, s := range a {
		s.Conn.To("TIME_WAIT", Span{spans[i].Lo, seen[i].Hi})
	}
	seen = c.Observe(b, "")
	for i, s := range b {
		s.Conn.To("CLOSE", Span{spans[i].Lo, seen[i].Hi})
	}
}

// expire notes that nothing will end TIME_WAIT but its timer.
func expire(sides []*Side) {
	for _, s := range sides {
		tw := s.Conn.Last().At
		s.Conn.timer(timeWait, tw)
		s.Conn.End.TimeWaitEnd = "expired"
	}
}

// timer adds the step to CLOSE by a timer that was started within span.
func (c *Conn) timer(d time.Duration, span Span) {
	step := c.To("CLOSE", Span{span.Lo + int64(d-kernelTick), span.Hi + int64(d+slackOf(d)+lateness)})
	step.Timer, step.Scanned = d, true
}

// ResetBy notes that a reset their connections within spans by their own act,
// and that b saw it within seen.
func (c *C) ResetBy(a, b []*Side, kind string, spans, seen []Span) {
	for i, s := range a {
		s.Conn.To("CLOSE", spans[i])
		s.Conn.Own("close", s.P.id, spans[i])
		e := s.Conn.End
		e.How, e.Reset, e.ClosedBy = "rst", kind, s.P.id
		if e.Closer == "" {
			e.Closer = "local"
		}
		b[i].Conn.To("CLOSE", Span{spans[i].Lo, seen[i].Hi})
		e = b[i].Conn.End
		e.How, e.Reset = "rst", "peer"
		if e.Closer == "" {
			e.Closer = "remote"
		}
	}
}
