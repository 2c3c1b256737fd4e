//go:build linux

package tracer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

// inVM says that this is a kernel of the test matrix, on which every tier works.
func inVM() bool { return os.Getenv("VMTEST") != "" }

// tiers returns those that must work here.
func tiers() []string {
	if inVM() {
		return []string{HooksFentry, HooksKprobe, HooksPoll}
	}
	return []string{HooksPoll}
}

// shared is decoded once for all tests: it was a third of their time in an emulated
// machine.
var shared = newSources()

func eachTier(t *testing.T, f func(t *testing.T, tier string)) {
	for _, tier := range tiers() {
		t.Run(tier, func(t *testing.T) { f(t, tier) })
	}
}

func newNS(t *testing.T) (*testnet.NS, netns.NS) {
	t.Helper()
	ns := testnet.NewNS(t, fmt.Sprintf("tracer-%d", testnet.Now()))
	return ns, netns.NS{Inode: ns.Inode(), Path: ns.Path()}
}

// record runs a tracer while work runs, and returns what it handed over.
func record(t *testing.T, cfg Config, work func()) []events.Record {
	t.Helper()
	cfg.from = shared
	tr, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []events.Record
	done := make(chan error, 1)
	go func() {
		done <- tr.Run(ctx, func(batch []events.Record) error {
			got = append(got, batch...)
			return nil
		})
	}()
	work()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got
}

// roundtrip opens n connections to a listener of its own on address and closes
// both ends, the client first. It returns the listener's port.
func roundtrip(t *testing.T, ns *testnet.NS, address string, n int) (port uint16) {
	t.Helper()
	err := ns.Do(func() error {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		defer l.Close()
		port = uint16(l.Addr().(*net.TCPAddr).Port)
		for range n {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			s, err := l.Accept()
			if err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
			if _, err := s.Read(make([]byte, 1)); err == nil {
				return errors.New("read after the peer's close returned data")
			}
			if err := s.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// resets opens n connections and ends each with an RST: no TIME_WAIT, and so a
// number of records that does not depend on how segments meet.
func resets(t *testing.T, ns *testnet.NS, n int) {
	t.Helper()
	err := ns.Do(func() error {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		for range n {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return err
			}
			s, err := l.Accept()
			if err != nil {
				return err
			}
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			c.Close()
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				return fmt.Errorf("read after a reset: %w", err)
			}
			s.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(records []events.Record, match func(*events.Record) bool) (n int) {
	for i := range records {
		if match(&records[i]) {
			n++
		}
	}
	return n
}

func kindIs(k events.Kind) func(*events.Record) bool {
	return func(r *events.Record) bool { return r.Kind == k }
}

func TestEveryTransitionOnce(t *testing.T) {
	const conns = 23
	eachTier(t, func(t *testing.T, tier string) {
		ns, n := newNS(t)
		got := record(t, Config{Hooks: tier, NetNS: []netns.NS{n}}, func() {
			roundtrip(t, ns, "127.0.0.1:0", conns)
			roundtrip(t, ns, "[::1]:0", conns)
		})
		for _, want := range []struct {
			old, new events.State
			n        int
		}{
			{events.Close, events.Listen, 2},
			{events.Close, events.SynSent, 2 * conns},
			{events.SynSent, events.Established, 2 * conns},
			{events.Listen, events.SynRecv, 2 * conns},
			{events.SynRecv, events.Established, 2 * conns},
			{events.Established, events.FinWait1, 2 * conns},
			{events.Established, events.CloseWait, 2 * conns},
			{events.CloseWait, events.LastAck, 2 * conns},
			{events.LastAck, events.Close, 2 * conns},
			{events.Listen, events.Close, 2},
		} {
			n := count(got, func(r *events.Record) bool {
				return r.Kind == events.KindTransition && r.Old == want.old && r.New == want.new
			})
			if n != want.n {
				t.Errorf("%v -> %v: got %d, want %d", want.old, want.new, n, want.n)
			}
		}
		hooked := 2 * conns
		if tier == HooksPoll {
			hooked = 0
		}
		if n := count(got, kindIs(events.KindAccept)); n != hooked {
			t.Errorf("accepts: got %d, want %d", n, hooked)
		}
		if n := count(got, kindIs(events.KindConnect)); n != hooked {
			t.Errorf("connects: got %d, want %d", n, hooked)
		}
		allocs := count(got, func(r *events.Record) bool { return r.Kind == events.KindTimeWaitAlloc && r.PeerSK != 0 })
		if allocs != hooked {
			t.Errorf("timewait sockets: got %d, want %d", allocs, hooked)
		}
		for i := range got {
			if r := &got[i]; r.Kind == events.KindTransition && r.Flags&events.FlagActor != 0 && r.PID != uint32(os.Getpid()) {
				t.Errorf("%v -> %v is laid to process %d, want %d", r.Old, r.New, r.PID, os.Getpid())
			}
		}
	})
}

func TestKernelFilters(t *testing.T) {
	transitions := func(got []events.Record) int { return count(got, kindIs(events.KindTransition)) }
	eachTier(t, func(t *testing.T, tier string) {
		ns, n := newNS(t)
		other, _ := newNS(t)
		all := func() {
			roundtrip(t, ns, "127.0.0.1:7001", 1)
			roundtrip(t, ns, "[::ffff:127.0.0.1]:7002", 1)
			roundtrip(t, ns, "[::1]:7003", 1)
			roundtrip(t, other, "127.0.0.1:7001", 1)
		}
		// 12 transitions of a connection with its listener, in the namespace.
		for _, tt := range []struct {
			name string
			cfg  Config
			want func(*events.Record) bool // of every record that has the facts
			n    int                       // transitions at least
			most int                       // and at most (what the kernel cannot decide yet passes; 6.18 knows a child's port earlier)
		}{
			{"netns", Config{}, func(r *events.Record) bool { return r.NetNS == n.Inode }, 36, 36},
			{"4", Config{Family: 4}, func(r *events.Record) bool { return r.Family != 6 }, 25, 25},
			{"6", Config{Family: 6}, func(r *events.Record) bool { return r.Family != 4 }, 14, 14},
			{"local port", Config{LocalPorts: portList{7003}},
				func(r *events.Record) bool { return r.Local.Port() == 7003 || r.Local.Port() == 0 }, 10, 10},
			{"remote port", Config{RemotePorts: portList{7001}},
				func(r *events.Record) bool { return r.Remote.Port() == 7001 || r.Remote.Port() == 0 }, 11, 14},
			{"states", Config{States: events.Set(events.CloseWait)},
				func(r *events.Record) bool {
					return r.Kind != events.KindTransition || r.Old == events.CloseWait || r.New == events.CloseWait
				}, 6, 6},
		} {
			// The transition's program is the same in every tier, and fentry has the
			// filters of kprobe; a start with fentry takes an emulated machine longest.
			if inVM() && tier != HooksKprobe && tt.name != "netns" && tt.name != "local port" {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				tt.cfg.Hooks, tt.cfg.NetNS = tier, []netns.NS{n}
				got := record(t, tt.cfg, all)
				for i := range got {
					r := &got[i]
					walked := r.Kind == events.KindSocket || r.Kind == events.KindHolder
					if r.Family != 0 && !walked && !tt.want(r) {
						t.Errorf("came through: %+v", *r)
					}
				}
				if n := transitions(got); n < tt.n || n > tt.most {
					t.Errorf("transitions: got %d, want %d to %d", n, tt.n, tt.most)
				}
			})
		}
	})
}

// What is not watched stays in the kernel: under a churn of other states not a byte
// comes through the ring; of those that are watched each event, once.
func TestOnlyWatchedLeavesKernel(t *testing.T) {
	const churn, watched = 1009, 23
	for _, tt := range []struct {
		name  string
		tiers []string
		set   events.StateSet
	}{
		{"CLOSE_WAIT", []string{HooksAuto}, events.Set(events.CloseWait)},
		// As --watch time_wait has it.
		{"TIME_WAIT", tiers(), events.Set(events.TimeWait, events.FinWait1)},
	} {
		for _, tier := range tt.tiers {
			t.Run(tt.name+" "+tier, func(t *testing.T) {
				ns, n := newNS(t)
				tr, err := Open(Config{from: shared, Hooks: tier, NetNS: []netns.NS{n}, States: tt.set, WalkStates: tt.set})
				if err != nil {
					t.Fatal(err)
				}
				defer tr.Close()
				resets(t, ns, churn)
				if bytes := *tr.ring.producer; bytes != 0 {
					t.Errorf("%d bytes of what is not watched, of %d connections", bytes, churn)
				}
				roundtrip(t, ns, "127.0.0.1:0", watched)
				r := run{t: tr}
				if err := r.drain(); err != nil {
					t.Fatal(err)
				}
				// Into the state and out of it.
				if got, want := count(r.pending, kindIs(events.KindTransition)), 2*watched; got != want {
					t.Errorf("%d transitions, want %d", got, want)
				}
				for i := range r.pending {
					if r := &r.pending[i]; r.Kind == events.KindTransition && !tt.set.Has(r.Old) && !tt.set.Has(r.New) {
						t.Errorf("%v -> %v came through", r.Old, r.New)
					}
				}
			})
		}
	}
}

type portList []uint16

func (p portList) Has(port uint16) bool { return slices.Contains(p, port) }

// What was there before the start is in the first batch, with its holder.
func TestSnapshot(t *testing.T) {
	eachTier(t, func(t *testing.T, tier string) {
		ns, n := newNS(t)
		var l net.Listener
		var conns []net.Conn
		err := ns.Do(func() (err error) {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(false)
			if l, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
				return err
			}
			for range 7 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					return err
				}
				s, err := l.Accept()
				if err != nil {
					return err
				}
				conns = append(conns, c, s)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			for _, c := range append(conns, net.Conn(nil)) {
				if c != nil {
					c.Close()
				}
			}
			l.Close()
		}()
		tr, err := Open(Config{from: shared, Hooks: tier, NetNS: []netns.NS{n}})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		done := errors.New("first batch seen")
		err = tr.Run(context.Background(), func(batch []events.Record) error {
			sockets := make(map[uint64]events.State)
			for _, r := range batch {
				switch r.Kind {
				case events.KindSocket:
					sockets[r.SK] = r.New
				case events.KindHolder:
					if r.PID == uint32(os.Getpid()) && r.NetNS == n.Inode {
						if _, ok := sockets[r.SK]; !ok {
							t.Errorf("descriptor %d holds a socket that the walk has not: %x", r.FD, r.SK)
						}
						delete(sockets, r.SK)
					}
				}
			}
			if len(sockets) != 0 {
				t.Errorf("%d sockets of this process were found without a holder: %v", len(sockets), sockets)
			}
			established := count(batch, func(r *events.Record) bool {
				return r.Kind == events.KindSocket && r.New == events.Established
			})
			if established != 14 {
				t.Errorf("established: got %d, want 14", established)
			}
			return done
		})
		if !errors.Is(err, done) {
			t.Fatal(err)
		}
	})
}

// A look that attaches nothing walks, and sees nothing of what happens; hooks that
// are asked for are attached all the same.
func TestSnapshotOnly(t *testing.T) {
	for hooks, want := range map[string]bool{HooksAuto: false, HooksPoll: true} {
		ns, n := newNS(t)
		got := record(t, Config{Snapshot: true, Hooks: hooks, NetNS: []netns.NS{n}}, func() {
			roundtrip(t, ns, "127.0.0.1:0", 3)
		})
		for kind, want := range map[events.Kind]bool{events.KindTransition: want, events.KindScanEnd: true, events.KindHoldersEnd: true} {
			if n := count(got, func(r *events.Record) bool { return r.Kind == kind }); n > 0 != want {
				t.Errorf("hooks %s: %d records of kind %d: want any: %t", hooks, n, kind, want)
			}
		}
	}
}

// Delivered and lost together are what happened, with a ring far too small.
func TestLostIsCounted(t *testing.T) {
	eachTier(t, func(t *testing.T, tier string) {
		ns, n := newNS(t)
		const conns = 101
		cfg := Config{from: shared, Hooks: tier, NetNS: []netns.NS{n}, BufferBytes: os.Getpagesize()}
		tr, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		resets(t, ns, conns) // nobody reads meanwhile
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var fromRing, lost int
		err = tr.Run(ctx, func(batch []events.Record) error {
			for i := range batch {
				switch r := &batch[i]; r.Kind {
				case events.KindTransition, events.KindConnect, events.KindAccept, events.KindTimeWaitAlloc:
					fromRing++
				case events.KindLost:
					lost += int(r.Count)
				}
			}
			cancel()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// 6 transitions per connection, 2 of the listener; with hooks a connect and
		// an accept each.
		want := 6*conns + 2
		if tier != HooksPoll {
			want += 2 * conns
		}
		if fromRing == 0 || lost == 0 || fromRing+lost != want {
			t.Errorf("delivered %d and lost %d make %d, want %d", fromRing, lost, fromRing+lost, want)
		}
	})
}

// What the kernel passes over because its CPU is in the handler of another kprobe is told
// to be lost, where the kernel counts it: here a kprobe on what each handler calls.
func TestNestedKprobesAreTold(t *testing.T) {
	const conns = 23
	ns, n := newNS(t)
	tr, err := Open(Config{from: shared, Hooks: HooksKprobe, NetNS: []netns.NS{n}})
	if err != nil && !inVM() {
		t.Skipf("this kernel cannot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nothing.Close()
	nested, err := link.Kprobe("bpf_ktime_get_ns", nothing, nil) // once for each record
	if err != nil {
		t.Fatal(err)
	}
	tr.links = append(tr.links, nested)
	resets(t, ns, conns)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lost := 0
	err = tr.Run(ctx, func(batch []events.Record) error {
		for i := range batch {
			if r := &batch[i]; r.Kind == events.KindLost {
				if r.Flags&events.FlagNested == 0 {
					t.Errorf("%d records found no room", r.Count)
				}
				lost += int(r.Count)
			}
		}
		cancel()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := 2 * conns // a connect and an accept each
	if !kernelHas(t, 6, 7) {
		want = 0
	}
	if lost != want {
		t.Errorf("%d told to be lost, want %d", lost, want)
	}
}

// Hooks are attached one by one: what happens meanwhile, in a namespace that is traced
// and in one that is not, does not make good for what is passed over afterwards.
func TestNothingStandsInBeforeTheStart(t *testing.T) {
	eachTier(t, func(t *testing.T, tier string) {
		ns, n := newNS(t)
		other, _ := newNS(t)
		stop, churned := make(chan struct{}), make(chan int)
		for _, ns := range []*testnet.NS{ns, other} {
			go func() {
				conns := 0
				defer func() { churned <- conns }() // also where resets has failed
				for {
					select {
					case <-stop:
						return
					default:
						resets(t, ns, 10)
						conns += 10
					}
				}
			}()
		}
		tr, err := Open(Config{from: shared, Hooks: tier, NetNS: []netns.NS{n}})
		close(stop)
		for range 2 {
			if conns := <-churned; conns == 0 {
				t.Error("no connection was made while the hooks were attached")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		over, stoodIn := tr.passed.over, tr.passed.stoodIn
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if err := tr.Run(ctx, func([]events.Record) error { cancel(); return nil }); err != nil {
			t.Fatal(err)
		}
		over, stoodIn = tr.passed.over-over, tr.passed.stoodIn-stoodIn
		t.Logf("since the start %d were passed over, %d stood in for", over, stoodIn)
		if stoodIn > over {
			t.Errorf("stood in for %d events, of which %d were passed over", stoodIn, over)
		}
	})
}

// kernelHas reports whether the kernel's release is at least major.minor.
func kernelHas(t *testing.T, major, minor int) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var x, y int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &x, &y); err != nil {
		t.Fatal(err)
	}
	return x > major || x == major && y >= minor
}

// While a walk goes on no more than so many records wait for its end: the others stay
// in the ring, whose losses are counted, and come afterwards.
func TestPendingBounded(t *testing.T) {
	ns, n := newNS(t)
	tr, err := Open(Config{from: shared, Hooks: HooksPoll, NetNS: []netns.NS{n}, BufferBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	const conns, perConn, listener = 101, 6, 2
	r := run{t: tr, walking: true, maxPending: 100}
	receive := func() {
		t.Helper()
		if err := r.receive(context.Background(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	resets(t, ns, 23)
	receive()
	held := len(r.pending)
	if held != 23*perConn+listener {
		t.Fatalf("%d records, want %d", held, 23*perConn+listener)
	}
	for range 3 {
		resets(t, ns, conns)
		receive()
	}
	if len(r.pending) != held {
		t.Errorf("%d records wait, %d did before", len(r.pending), held)
	}
	r.walking = false
	if err := r.drainAll(); err != nil {
		t.Fatal(err)
	}
	came, lost := 0, 0
	for i := range r.pending {
		switch rec := &r.pending[i]; rec.Kind {
		case events.KindTransition:
			came++
		case events.KindLost:
			lost += int(rec.Count)
			if i < held {
				t.Error("the loss is told before what came before it")
			}
		}
	}
	if want := held + 3*(conns*perConn+listener); lost == 0 || came+lost != want {
		t.Errorf("%d records came and %d were lost, want %d", came, lost, want)
	}
}

// The accept hook of kernels without CONFIG_SECURITY_NETWORK loads, attaches and
// sees accepts that begin after it.
func TestAcceptFallback(t *testing.T) {
	// The kernels of the matrix attach fexit and kretprobes; another one may refuse
	// either, and says why.
	unless := func(t *testing.T, err error) {
		t.Helper()
		if err != nil && !inVM() {
			t.Skipf("this kernel cannot: %s", brief(err))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	for _, replaced := range []string{bpf.TcptraceProgFentrySecuritySockGraft, bpf.TcptraceProgKprobeSecuritySockGraft} {
		h := acceptFallback[replaced]
		t.Run(h.program, func(t *testing.T) {
			ns, n := newNS(t)
			tr, err := Open(Config{from: shared, Hooks: HooksPoll, NetNS: []netns.NS{n}})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			coll, err := loadCollection(shared, Config{NetNS: []netns.NS{n}}, tr.jiffy, []hook{h}, false)
			unless(t, err)
			defer coll.Close()
			if err := tr.fillFilters(coll); err != nil {
				t.Fatal(err)
			}
			l, err := h.attach(coll.Programs[h.program], h.targets[0], 0)
			unless(t, err)
			tr.coll.Close()
			tr.ring.close()
			tr.coll, tr.links = coll, append(tr.links, []link.Link{l}...)
			if tr.ring, err = newRing(coll.Maps[bpf.TcptraceMapRecords]); err != nil {
				t.Fatal(err)
			}
			roundtrip(t, ns, "127.0.0.1:0", 23)
			var r run
			r.t = tr
			if err := r.drain(); err != nil {
				t.Fatal(err)
			}
			accepts := count(r.pending, func(r *events.Record) bool {
				return r.Kind == events.KindAccept && r.PID == uint32(os.Getpid())
			})
			if accepts != 23 {
				t.Errorf("accepts: got %d, want 23", accepts)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range f.Features {
		if x.Status == Unknown {
			t.Errorf("%s is unknown to root", x.Name)
		}
		if x.Status == No && x.Detail == "" {
			t.Errorf("%s is missing without a reason", x.Name)
		}
		if x.Status == No && inVM() && x.Name != "socket cookie (bpf_get_socket_cookie)" {
			t.Errorf("%s is missing on a kernel of the matrix: %s", x.Name, x.Detail)
		}
	}
	tr, err := Open(Config{from: shared, NetNS: []netns.NS{{Inode: 1, Path: "/proc/self/ns/net"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if f.Tier != tr.Hooks() {
		t.Errorf("features say that auto takes %q, it took %q (%s)", f.Tier, tr.Hooks(), tr.Why())
	}
	if inVM() && f.Tier != HooksFentry {
		t.Errorf("tier: got %q, want fentry", f.Tier)
	}
}

func TestForcedTier(t *testing.T) {
	if tr, err := Open(Config{from: shared, Hooks: "other"}); err == nil {
		tr.Close()
		t.Error("an unknown tier was taken")
	}
	for _, tier := range []string{HooksFentry, HooksKprobe} {
		tr, err := Open(Config{from: shared, Hooks: tier})
		if err == nil {
			if tr.Hooks() != tier {
				t.Errorf("asked for %s, got %s", tier, tr.Hooks())
			}
			tr.Close()
		}
		if inVM() {
			if err != nil {
				t.Errorf("%s: %v", tier, err)
			}
			continue
		}
		var hinted interface{ Hint() string }
		if err == nil || !errors.As(err, &hinted) {
			t.Errorf("%s: got %v, want an error with a hint", tier, err)
		}
	}
}

// Children and grandchildren are told of, and when they are gone.
func TestChildren(t *testing.T) {
	_, n := newNS(t)
	tr, err := Open(Config{from: shared, Hooks: HooksPoll, NetNS: []netns.NS{n}, Children: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestGrandchildHelper$")
	cmd.Env = append(os.Environ(), "TRACER_TEST_GRANDCHILD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// os/exec may fork once more of its own, to try what pidfds can do.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	alive := make(map[uint32]bool)
	var child, grandchild int
	err = tr.Run(ctx, func(batch []events.Record) error {
		for _, r := range batch {
			switch r.Kind {
			case events.KindFork:
				alive[r.PID] = true
				switch r.FD {
				case uint32(os.Getpid()):
					if r.PID == uint32(cmd.Process.Pid) {
						child++
					}
				case uint32(cmd.Process.Pid):
					grandchild++
				}
			case events.KindReaped:
				if !alive[r.PID] {
					t.Errorf("process %d is reaped before it was started", r.PID)
				}
				delete(alive, r.PID)
			}
		}
		if len(alive) == 0 && grandchild >= 2 {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if child != 1 || grandchild < 2 || len(alive) != 0 {
		t.Errorf("got %d child, %d grandchildren, %v not reaped; want 1, 2 and none", child, grandchild, alive)
	}
}

func TestGrandchildHelper(t *testing.T) {
	if os.Getenv("TRACER_TEST_GRANDCHILD") == "" {
		return // only as the child of TestChildren
	}
	os.Unsetenv("TRACER_TEST_GRANDCHILD")
	for range 2 {
		if err := exec.Command(os.Args[0], "-test.run", "^$").Run(); err != nil {
			t.Fatal(err)
		}
	}
}

// Ticks come in every tier, walks or not.
func TestTicks(t *testing.T) {
	eachTier(t, func(t *testing.T, tier string) {
		_, n := newNS(t)
		tr, err := Open(Config{from: shared, Hooks: tier, NetNS: []netns.NS{n}})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		ticks := 0
		err = tr.Run(ctx, func(batch []events.Record) error {
			if ticks += count(batch, kindIs(events.KindTick)); ticks >= 3 {
				cancel()
			}
			return nil
		})
		if err != nil || ticks < 3 {
			t.Errorf("got %d ticks in 30 s, want 3 (%v)", ticks, err)
		}
	})
}

func TestEndsWithContext(t *testing.T) {
	_, n := newNS(t)
	start := time.Now()
	record(t, Config{Hooks: HooksPoll, NetNS: []netns.NS{n}}, func() {})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("an idle tracer took %v to end", d)
	}
}

// Scans go on while a timewait socket is there, or anything happens; a namespace where
// nothing does is left alone.
func TestIdleScans(t *testing.T) {
	ns, n := newNS(t)
	tr, err := Open(Config{from: shared, Hooks: HooksPoll, Scan: 20 * time.Millisecond, NetNS: []netns.NS{n}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var scans, ticks atomic.Int64
	done := make(chan error, 1)
	go func() {
		done <- tr.Run(ctx, func(batch []events.Record) error {
			for i := range batch {
				switch batch[i].Kind {
				case events.KindScanEnd:
					scans.Add(1)
				case events.KindTick:
					ticks.Add(1)
				}
			}
			return nil
		})
	}()
	until := func(what string, n *atomic.Int64, least int64) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); n.Load() < least; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: got %d, want %d", what, n.Load(), least)
			}
		}
	}
	until("ticks", &ticks, 1)
	before := scans.Load()
	until("ticks", &ticks, 2)
	if got := scans.Load(); got != before || got < 2 {
		t.Errorf("%d scans, then %d within a second in which nothing happened", before, got)
	}
	roundtrip(t, ns, "127.0.0.1:0", 1)
	until("scans while there is a TIME_WAIT", &scans, before+10)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
