//go:build linux

package netns

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// newThread starts a thread in a namespace of its own, which runs f there first. It
// ends with the test, or when the function that it returns is called.
func newThread(t *testing.T, f func() error) (ns NS, end func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("making network namespaces needs root: run make test-unit")
	}
	type result struct {
		ns  NS
		err error
	}
	ready, over, gone := make(chan result), make(chan struct{}), make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			// The leader's namespace is the process'; it stays locked here, so
			// that the other one gets another thread.
			go run()
			<-gone
			runtime.UnlockOSThread()
			return
		}
		ready <- func() result {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return result{err: err}
			}
			ns, err := Stat("/proc/thread-self/ns/net")
			if err == nil && f != nil {
				err = f()
			}
			ns.Path = "/proc/" + strconv.Itoa(os.Getpid()) + "/task/" + strconv.Itoa(unix.Gettid()) + "/ns/net"
			return result{ns, err}
		}()
		<-over
	}
	go run()
	r := <-ready
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		close(over)
		close(gone)
		// The kernel takes the thread away when its goroutine has ended.
		for {
			if _, err := os.Readlink(r.ns.Path); err != nil {
				return
			}
			runtime.Gosched()
		}
	}
	t.Cleanup(end)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.ns, end
}

// inside reports where Do runs.
func inside(ns NS) (uint32, error) {
	var got NS
	err := Do(ns, func() (err error) {
		got, err = Stat("/proc/thread-self/ns/net")
		return err
	})
	return got.Inode, err
}

func wantInside(t *testing.T, ns NS) {
	t.Helper()
	if got, err := inside(ns); err != nil || got != ns.Inode {
		t.Errorf("Do(%+v): in %d, %v", ns, got, err)
	}
}

func wantGone(t *testing.T, ns NS) {
	t.Helper()
	if got, err := inside(ns); !errors.Is(err, ErrNotFound) {
		t.Errorf("Do(%+v): in %d, %v, want %v", ns, got, err, ErrNotFound)
	}
}

// A namespace of a thread that is not its process' leader.
func TestThreads(t *testing.T) {
	ns, end := newThread(t, nil)
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := all[ns.Inode]; ok {
		t.Errorf("List found it by %s", got.Path)
	}
	if self, err := Self(); err != nil || all[self.Inode].Inode != self.Inode {
		t.Errorf("List has %+v for our own %d, %v", all[self.Inode], self.Inode, err)
	}
	if err := Threads(all); err != nil {
		t.Fatal(err)
	}
	if got := all[ns.Inode]; got != ns {
		t.Fatalf("Threads found %+v, want %+v", got, ns)
	}
	wantInside(t, ns)
	if got, err := Resolve("inode:" + strconv.Itoa(int(ns.Inode))); err != nil || got != ns {
		t.Errorf("resolved to %+v, %v, want %+v", got, err, ns)
	}
	end()
	wantGone(t, ns)
}

// Whoever has been inside is out again, and the process never was.
func TestDoComesHome(t *testing.T) {
	ns, end := newThread(t, nil)
	defer end()
	home, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					wantInside(t, ns)
				}
			})
		}
		visits := make(chan struct{})
		go func() {
			wg.Wait()
			close(visits)
		}()
		for over := false; !over; {
			select {
			case <-visits:
				over = true
			default:
			}
			if self, err := Self(); err != nil || self != home {
				t.Fatalf("the process is in %+v, %v, want %+v", self, err, home)
			}
		}
		all := map[uint32]NS{}
		if err := Threads(all); err != nil {
			t.Fatal(err)
		}
		if got := all[ns.Inode]; got != ns {
			t.Fatalf("Threads found %+v, want %+v", got, ns)
		}
	}
}

// A namespace without threads, which a socket keeps.
func TestSocket(t *testing.T) {
	var sock int
	ns, end := newThread(t, func() (err error) {
		sock, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	end()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if err := Threads(all); err != nil {
		t.Fatal(err)
	}
	if got, ok := all[ns.Inode]; ok {
		t.Errorf("found by %+v", got)
	}
	ns.Path = ""
	ns.Socket = Descriptor{uint32(os.Getpid()), uint32(sock)}
	wantInside(t, ns)
	other := ns
	other.Inode++
	wantGone(t, other)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	noSocket := ns
	noSocket.Socket.FD = uint32(file.Fd())
	wantGone(t, noSocket)
	if err := unix.Close(sock); err != nil {
		t.Fatal(err)
	}
	wantGone(t, ns)
	ns.Socket.PID = 1 << 22 // above the highest number of a process
	wantGone(t, ns)
}

// A namespace without threads, which a mount keeps, at a place with a space in it.
func TestMount(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a place")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ns, end := newThread(t, func() error {
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	defer func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	end()
	ns.Path = path
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if got := all[ns.Inode]; got != ns {
		t.Errorf("List found %+v, want %+v", got, ns)
	}
	wantInside(t, ns)
}

func BenchmarkList(b *testing.B) {
	for b.Loop() {
		if _, err := List(); err != nil {
			b.Fatal(err)
		}
	}
}

// The threads of one process with a thousand of them.
func BenchmarkThreads(b *testing.B) {
	stop := make(chan struct{})
	for range 1000 {
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			<-stop
		}()
		<-started
	}
	defer close(stop)
	for b.Loop() {
		if err := Threads(map[uint32]NS{}); err != nil {
			b.Fatal(err)
		}
	}
}
