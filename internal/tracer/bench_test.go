//go:build linux

package tracer

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

// BenchmarkOpen is the time from nothing to attached hooks.
func BenchmarkOpen(b *testing.B) {
	for _, hooks := range []string{HooksAuto, HooksPoll} {
		b.Run(hooks, func(b *testing.B) {
			for b.Loop() {
				tr, err := Open(Config{Hooks: hooks})
				if err != nil {
					b.Fatal(err)
				}
				tr.Close()
			}
		})
	}
}

// BenchmarkKernelTime opens and closes a connection in each iteration, both ends
// on loopback, and reports what the transition program took by the kernel's own
// account (bpf_stats), in ns per transition.
func BenchmarkKernelTime(b *testing.B) {
	stats, err := ebpf.EnableStats(0)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	ns := testnet.NewNS(b, "tracer-bench")
	tr, err := Open(Config{NetNS: []netns.NS{{Inode: ns.Inode(), Path: ns.Path()}}, Scan: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got, lost int
	done := make(chan error, 1)
	go func() {
		done <- tr.Run(ctx, func(batch []events.Record) error {
			for i := range batch {
				switch batch[i].Kind {
				case events.KindTransition:
					got++
				case events.KindLost:
					lost += int(batch[i].Count)
				}
			}
			return nil
		})
	}()
	// Both programs on the tracepoint.
	account := func() (runs uint64, first, second time.Duration) {
		one, err := tr.coll.Programs[bpf.TcptraceProgInetSockSetState].Stats()
		if err != nil {
			b.Fatal(err)
		}
		two, err := tr.coll.Programs[bpf.TcptraceProgNestedInetSockSetState].Stats()
		if err != nil {
			b.Fatal(err)
		}
		return one.RunCount, one.Runtime, two.Runtime
	}
	runs, first, second := account()
	if err := ns.Do(func() error { return churn(b) }); err != nil {
		b.Fatal(err)
	}
	runsAfter, firstAfter, secondAfter := account()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	runs, first, second = runsAfter-runs, firstAfter-first, secondAfter-second
	b.ReportMetric(float64((first+second).Nanoseconds())/float64(runs), "kernel-ns/transition")
	b.ReportMetric(float64(second.Nanoseconds())/float64(runs), "nested-ns/transition")
	b.ReportMetric(float64(lost), "lost")
	if want := 6*b.N + 2; got+lost != want {
		b.Errorf("got %d transitions and lost %d records, want %d", got, lost, want)
	}
}

// churn opens and closes a connection per iteration, with an RST, so that
// TIME_WAIT does not use the ports up.
func churn(b *testing.B) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	to := l.Addr().(*net.TCPAddr)
	sa := &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte{127, 0, 0, 1}}
	for b.Loop() {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := syscall.Connect(fd, sa); err != nil {
			return err
		}
		s, err := l.Accept()
		if err != nil {
			return err
		}
		if err := syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}); err != nil {
			return err
		}
		syscall.Close(fd)
		s.Close()
	}
	return nil
}
