// Package testnet gives tests networks of their own: network namespaces (NS) and
// a wire between two of them (Wire) that the test holds in its hands: it delays,
// drops, holds, duplicates and forges segments, and knows when each one passed.
//
// It needs root and /dev/net/tun, and nothing else of the machine: no program is
// run, so that it works in a guest that holds only the test binary. Only tests
// import it.
package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RunDir is where namespaces are mounted; `ip netns` looks there too.
const RunDir = "/run/netns"

// NS is a network namespace, named under RunDir, with its loopback up.
type NS struct {
	name string
	file *os.File // the mounted namespace; keeps it alive
	ino  uint64
	// hidden: it has no name any more.
	hidden bool
}

var nsCount atomic.Uint32

// NewNS creates a namespace that ends with the test. The name gets the process
// id and a number appended, so that a run that was killed leaves nothing in the
// way of the next one.
func NewNS(tb testing.TB, name string) *NS {
	tb.Helper()
	ns, err := CreateNS(fmt.Sprintf("%s-%d-%d", name, os.Getpid(), nsCount.Add(1)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := ns.Close(); err != nil {
			tb.Error(err)
		}
	})
	return ns
}

// CreateNS creates the namespace RunDir/name, which must not exist.
func CreateNS(name string) (*NS, error) {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("netns %s: %w", name, err)
	}
	path := filepath.Join(RunDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("netns %s: %w", name, err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("netns %s: %w", name, err)
	}
	ns, err := openNS(name, path)
	if err == nil {
		err = ns.Do(loopbackUp)
	}
	if err != nil {
		unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
		if ns != nil {
			ns.file.Close()
		}
		return nil, fmt.Errorf("netns %s: %w", name, err)
	}
	return ns, nil
}

func openNS(name, path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat: %w", err)
	}
	return &NS{name: name, file: f, ino: st.Ino}, nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}

// Name is the name under RunDir, as --netns takes it.
func (ns *NS) Name() string { return ns.name }

// Path is the file on which the namespace is mounted.
func (ns *NS) Path() string { return filepath.Join(RunDir, ns.name) }

// Inode is the namespace's number, as in /proc/PID/ns/net.
func (ns *NS) Inode() uint32 { return uint32(ns.ino) }

// Close takes the name away. The namespace itself ends when the last socket and
// process in it have.
func (ns *NS) Close() error { return errors.Join(ns.Hide(), ns.file.Close()) }

// Hide takes the name away, and the namespace stays: for Do, and for whatever else
// keeps it.
func (ns *NS) Hide() error {
	if ns.hidden {
		return nil
	}
	ns.hidden = true
	err := unix.Unmount(ns.Path(), unix.MNT_DETACH)
	if err != nil {
		err = fmt.Errorf("netns %s: unmount: %w", ns.name, err)
	}
	return errors.Join(err, os.Remove(ns.Path()))
}

// Do runs f on a thread inside the namespace. Sockets that f makes stay in the
// namespace wherever they are used later; goroutines that f starts are outside.
func (ns *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns %s: setns: %w", ns.name, err)
		}
		return f()
	})
}

// onThread runs f, which changes the thread's namespace, on a thread that is
// given back to the runtime only in the namespace from which it came.
func onThread(f func() error) error {
	type result struct {
		err      error
		panicked any
		done     bool
	}
	ch := make(chan result, 1)
	var run func()
	run = func() {
		var r result
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread stays home: /proc/self shows its namespace.
			// While it is locked here, the next goroutine gets another.
			over := make(chan struct{})
			go func() {
				defer close(over)
				run()
			}()
			<-over
			runtime.UnlockOSThread()
			return
		}
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			ch <- result{err: err, done: true}
			return
		}
		defer func() {
			// Not done: f panicked, or left by runtime.Goexit (t.Fatal).
			if !r.done {
				r.panicked = recover()
			}
			// A thread that cannot return stays locked, and ends with
			// this goroutine.
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			home.Close()
			ch <- r
		}()
		r.err = f()
		r.done = true
	}
	go run()
	r := <-ch
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.done:
		runtime.Goexit()
	}
	return r.err
}

// SetSysctl writes a setting of the namespace; path is relative to
// /proc/sys/net, such as ipv4/tcp_fin_timeout.
func (ns *NS) SetSysctl(path, value string) error {
	return ns.Do(func() error {
		// /proc/sys/net shows the namespace of the thread that opens it.
		f, err := os.OpenFile(filepath.Join("/proc/sys/net", path), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	})
}

// Sysctl reads a setting of the namespace, without the newline at its end.
func (ns *NS) Sysctl(path string) (string, error) {
	var value string
	err := ns.Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys/net", path))
		if n := len(b); n > 0 && b[n-1] == '\n' {
			b = b[:n-1]
		}
		value = string(b)
		return err
	})
	return value, err
}

// AckAtOnce makes the namespace acknowledge what comes over lo without delay. Else a
// FIN that no data follow is acknowledged by a timer 40 ms later.
func (ns *NS) AckAtOnce() error {
	return ns.Do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL},
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
			if err != nil {
				return fmt.Errorf("list local routes: %w", err)
			}
			for _, route := range routes {
				route.QuickACK = 1
				if err := netlink.RouteReplace(&route); err != nil {
					return fmt.Errorf("replace route %s: %w", route, err)
				}
			}
		}
		return nil
	})
}

// Start starts cmd in the namespace.
func (ns *NS) Start(cmd *exec.Cmd) error {
	// The child is made by the thread that asks for it.
	return ns.Do(cmd.Start)
}

// Now is CLOCK_MONOTONIC in ns, the clock of bpf_ktime_get_ns.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // cannot be: the clock exists since 2.6
	}
	return ts.Nano()
}
