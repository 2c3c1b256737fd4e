package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envWhere makes the test binary say in which namespace it is, and end: the
// machine may have no program for that.
const envWhere = "TESTNET_WHERE"

func TestMain(m *testing.M) {
	if os.Getenv(envWhere) != "" {
		ns, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(ns)
		return
	}
	os.Exit(m.Run())
}

// pairTest runs f with a wire of its own and fails if goroutines survive it.
func pairTest(t *testing.T, f func(t *testing.T, w *Wire)) {
	ignore := goleak.IgnoreCurrent()
	t.Run("wire", func(t *testing.T) {
		_, _, w := NewPair(t)
		f(t, w)
	})
	goleak.VerifyNone(t, ignore)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connection makes a connection over the wire: client at A, server at B.
func connection(t *testing.T, w *Wire, remote netip.AddrPort) (client, server *net.TCPConn) {
	t.Helper()
	var l *net.TCPListener
	err := w.NS(B).Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(remote))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The zone is that of the dialling side.
	to := l.Addr().(*net.TCPAddr)
	if remote.Addr().Zone() != "" {
		to.Zone = fmt.Sprint(w.IfIndex(A))
	}
	err = w.NS(A).Do(func() (err error) {
		client, err = net.DialTCP("tcp", nil, to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func exchange(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	const text = "across the wire"
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

func TestNamespace(t *testing.T) {
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var path string
	t.Run("lives", func(t *testing.T) {
		ns := NewNS(t, "alone")
		path = ns.Path()
		want := fmt.Sprintf("net:[%d]", ns.Inode())
		if want == home {
			t.Fatal("the namespace is the test's own")
		}
		var inside string
		err := ns.Do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil || inside != want {
			t.Errorf("inside Do: namespace %s, %v; want %s", inside, err, want)
		}
		var out strings.Builder
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{envWhere + "=1"}
		cmd.Stdout = &out
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || strings.TrimSpace(out.String()) != want {
			t.Errorf("child: namespace %q, %v; want %s", out.String(), err, want)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(RunDir, ns.Name()), &st); err != nil || uint32(st.Ino) != ns.Inode() {
			t.Errorf("by name: inode %d, %v; want %d", st.Ino, err, ns.Inode())
		}
		if err := ns.Do(func() error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		}); err != nil {
			t.Errorf("loopback: %v", err)
		}
	})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s after the test: %v, want it gone", path, err)
	}
	// Whatever threads were used: this process is where it was.
	for range 100 {
		if err := onThread(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
			t.Fatalf("process in %s, %v; want %s", now, err, home)
		}
	}
}

func TestNamespaceErrors(t *testing.T) {
	ns := NewNS(t, "errors")
	if _, err := CreateNS(ns.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("create twice: %v, want %v", err, os.ErrExist)
	}
	boom := errors.New("boom")
	if err := ns.Do(func() error { return boom }); err != boom {
		t.Errorf("Do: %v, want %v", err, boom)
	}
	func() {
		defer func() {
			if r := recover(); r != "panic" {
				t.Errorf("panic in Do: recovered %v", r)
			}
		}()
		ns.Do(func() error { panic("panic") })
	}()
	if err := ns.SetSysctl("ipv4/no_such_setting", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown setting: %v, want %v", err, os.ErrNotExist)
	}
}

func TestSysctl(t *testing.T) {
	a, b := NewNS(t, "sysctl-a"), NewNS(t, "sysctl-b")
	before, err := b.Sysctl("ipv4/tcp_fin_timeout")
	if err != nil {
		t.Fatal(err)
	}
	if before == "7" {
		t.Fatal("tcp_fin_timeout is 7 by default")
	}
	if err := a.SetSysctl("ipv4/tcp_fin_timeout", "7"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ns   *NS
		want string
	}{{a, "7"}, {b, before}} {
		if got, err := tt.ns.Sysctl("ipv4/tcp_fin_timeout"); err != nil || got != tt.want {
			t.Errorf("%s: tcp_fin_timeout %q, %v; want %q", tt.ns.Name(), got, err, tt.want)
		}
	}
}

func TestWireExchange(t *testing.T) {
	pairTest(t, func(t *testing.T, w *Wire) {
		full := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:7777")
		if err := w.AddAddr(A, netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/64")); err != nil {
			t.Fatal(err)
		}
		if err := w.AddAddr(B, netip.PrefixFrom(full, 64)); err != nil {
			t.Fatal(err)
		}
		for _, remote := range []netip.Addr{
			w.Addr(B, 4), w.Addr(B, 6), full, w.LinkLocal(B).WithZone(fmt.Sprint(w.IfIndex(B))),
		} {
			start := Now()
			client, server := connection(t, w, netip.AddrPortFrom(remote, 8000))
			exchange(t, client, server)
			exchange(t, server, client)
			to := remote.WithZone("")
			syns := w.Passages(func(p Passage) bool { return p.Flags == SYN && p.Dst.Addr() == to })
			if len(syns) != 1 {
				t.Fatalf("to %v: %d SYNs on the wire, want 1", remote, len(syns))
			}
			s := syns[0]
			if s.From != A || s.Dst != netip.AddrPortFrom(to, 8000) || !s.Timestamps || s.Ack != 0 {
				t.Errorf("SYN %v from %v, timestamps %v", s, s.From, s.Timestamps)
			}
			if !(start <= s.Read && s.Read <= s.Begin && s.Begin <= s.End && s.End <= Now()) {
				t.Errorf("times not in order: %d, read %d, begin %d, end %d", start, s.Read, s.Begin, s.End)
			}
		}
	})
}

func TestWireDelay(t *testing.T) {
	pairTest(t, func(t *testing.T, w *Wire) {
		const there, back = 70 * time.Millisecond, 30 * time.Millisecond
		w.SetDelay(A, there)
		w.SetDelay(B, back)
		start := Now()
		client, server := connection(t, w, netip.AddrPortFrom(w.Addr(B, 4), 8000))
		if took := time.Duration(Now() - start); took < there+back {
			t.Errorf("connect took %v, want at least %v", took, there+back)
		}
		exchange(t, client, server)
		for _, p := range w.Passages(func(p Passage) bool { return p.Begin != 0 }) {
			want := there
			if p.From == B {
				want = back
			}
			if got := time.Duration(p.Begin - p.Read); got < want {
				t.Errorf("%v from %v took %v, want at least %v", p, p.From, got, want)
			}
		}
	})
}

func TestWireDropAndDuplicate(t *testing.T) {
	pairTest(t, func(t *testing.T, w *Wire) {
		ctx := testContext(t)
		client, server := connection(t, w, netip.AddrPortFrom(w.Addr(B, 6), 8000))
		isFIN := func(p Passage) bool { return p.From == A && p.Flags.Has(FIN) }
		dropped := 0
		remove := w.AddRule(A, func(s Segment) Verdict {
			if s.Flags.Has(FIN) && dropped < 2 {
				dropped++
				return Drop
			}
			return Pass
		})
		client.CloseWrite()
		if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("read %d, %v; want EOF", n, err)
		}
		// The reader may see the FIN before its passage is written down.
		if _, err := w.Wait(ctx, 1, func(p Passage) bool { return isFIN(p) && p.End != 0 }); err != nil {
			t.Fatal(err)
		}
		fins, err := w.Wait(ctx, 3, isFIN)
		if err != nil {
			t.Fatal(err)
		}
		if !fins[0].Dropped || !fins[1].Dropped || fins[2].Dropped || fins[0].Begin != 0 || fins[2].Begin == 0 {
			t.Errorf("FINs on the wire: %+v; want the first two dropped", fins)
		}
		if fins[0].Seq != fins[2].Seq {
			t.Errorf("the FIN was not retransmitted: seq %d, then %d", fins[0].Seq, fins[2].Seq)
		}
		remove()
		w.AddRule(B, func(s Segment) Verdict {
			if len(s.Payload) > 0 {
				return Duplicate
			}
			return Pass
		})
		exchange(t, server, client)
		twice, err := w.Wait(ctx, 2, func(p Passage) bool { return p.From == B && len(p.Payload) > 0 && p.End != 0 })
		if err != nil {
			t.Fatal(err)
		}
		if len(twice) != 2 || twice[0].Seq != twice[1].Seq {
			t.Errorf("data passed as %v, want the same segment twice", twice)
		}
	})
}

func TestWireCrossingFINs(t *testing.T) {
	pairTest(t, func(t *testing.T, w *Wire) {
		ctx := testContext(t)
		client, server := connection(t, w, netip.AddrPortFrom(w.Addr(B, 4), 8000))
		if _, err := w.Wait(ctx, 3, func(p Passage) bool { return p.End != 0 }); err != nil {
			t.Fatal(err)
		}
		w.Hold(A)
		w.Hold(B)
		client.CloseWrite()
		server.CloseWrite()
		fins, err := w.Wait(ctx, 2, func(p Passage) bool { return p.Flags.Has(FIN) })
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range fins {
			if p.Begin != 0 {
				t.Errorf("%v passed while held", p)
			}
		}
		a, err := connState(client)
		if err != nil || a != unix.BPF_TCP_FIN_WAIT1 {
			t.Errorf("client in state %d, %v; want FIN_WAIT1", a, err)
		}
		// A's FIN alone: B goes to CLOSING, its answer stays here.
		if n := w.Release(A); n < 1 {
			t.Fatalf("released %d packets of A", n)
		}
		if _, err := w.Wait(ctx, 1, func(p Passage) bool { return p.From == A && p.Flags.Has(FIN) && p.End != 0 }); err != nil {
			t.Fatal(err)
		}
		if b, err := connState(server); err != nil || b != unix.BPF_TCP_CLOSING {
			t.Errorf("server in state %d, %v; want CLOSING", b, err)
		}
		w.Release(B)
	})
}

// connState is the kernel's number of the state of a connection.
func connState(c *net.TCPConn) (state uint8, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return state, errors.Join(cerr, err)
}

func TestWireInjectReset(t *testing.T) {
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			pairTest(t, func(t *testing.T, w *Wire) {
				client, server := connection(t, w, netip.AddrPortFrom(w.Addr(B, family), 8000))
				exchange(t, server, client)
				data := w.Passages(func(p Passage) bool { return p.From == B && len(p.Payload) > 0 })
				if len(data) != 1 {
					t.Fatalf("%d data segments from B, want 1", len(data))
				}
				// A segment out of the window does nothing.
				rst := Segment{Src: data[0].Src, Dst: data[0].Dst, Seq: data[0].NextSeq() - 1, Flags: RST}
				if _, err := w.Inject(B, rst); err != nil {
					t.Fatal(err)
				}
				if state, err := connState(client); err != nil || state != unix.BPF_TCP_ESTABLISHED {
					t.Fatalf("client in state %d, %v after an RST of the past; want ESTABLISHED", state, err)
				}
				rst.Seq++
				p, err := w.Inject(B, rst)
				if err != nil {
					t.Fatal(err)
				}
				if !p.Injected || p.Begin == 0 || p.End < p.Begin {
					t.Errorf("passage %+v", p)
				}
				// Handled within the write: no waiting here.
				if state, err := connState(client); err != nil || state != unix.BPF_TCP_CLOSE {
					t.Errorf("client in state %d, %v after the RST; want CLOSE", state, err)
				}
				if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("read after the RST: %v, want %v", err, unix.ECONNRESET)
				}
			})
		})
	}
}

func TestSegmentRoundTrip(t *testing.T) {
	for _, want := range []Segment{
		{
			Src: netip.MustParseAddrPort("10.1.2.3:1"), Dst: netip.MustParseAddrPort("10.4.5.6:65535"),
			Seq: 0xfffffffe, Ack: 7, Flags: FIN | PSH | ACK, Window: 512,
			Timestamps: true, TSVal: 0x80000001, TSEcr: 3, Payload: []byte("abc"),
		},
		{
			Src: netip.MustParseAddrPort("[fd77::1]:1"), Dst: netip.MustParseAddrPort("[fd77::2]:2"),
			Flags: SYN, Payload: []byte{},
		},
	} {
		raw, err := want.Packet()
		if err != nil {
			t.Fatal(err)
		}
		got, ok := Parse(raw)
		if !ok {
			t.Fatalf("%v: not parsed", want)
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || string(got.Payload) != string(want.Payload) || got.TSVal != want.TSVal {
			t.Errorf("got %v, want %v", got, want)
		}
		if got.NextSeq() != want.Seq+uint32(len(want.Payload))+1 {
			t.Errorf("%v ends at %d", got, got.NextSeq())
		}
	}
	for _, raw := range [][]byte{nil, {0x45}, {0x60, 1, 2}, {0x00}} {
		if s, ok := Parse(raw); ok {
			t.Errorf("% x parsed as %v", raw, s)
		}
	}
}
