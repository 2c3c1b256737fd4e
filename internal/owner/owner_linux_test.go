package owner

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test's own process, of which everything is known by other means.
func TestSelf(t *testing.T) {
	offset, err := BootOffset()
	if err != nil {
		t.Fatal(err)
	}
	p := NewProcesses("/proc", offset)
	pid := uint32(os.Getpid())
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	got, ok := p.Process(pid)
	if !ok {
		t.Fatal("this process is not found")
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got.Comm != strings.TrimSuffix(string(comm), "\n") || got.PPID != uint32(os.Getppid()) || got.UID != int64(os.Geteuid()) ||
		!slices.Equal(got.Cmdline, os.Args) || got.NofileSoft != int64(limit.Cur) {
		t.Errorf("got %+v", got)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	if age := ts.Nano() - got.StartTS; age < 0 || age > int64(time.Hour) {
		t.Errorf("started %d ns ago", age)
	}
	// Both ways of counting descriptors find those that were opened since.
	const more = 13
	for range more {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	p.Refresh()
	again, _ := p.Process(pid)
	if again.OpenFDs != got.OpenFDs+more {
		t.Errorf("got %d descriptors after %d: want %d more", again.OpenFDs, got.OpenFDs, more)
	}
	p.sized = false
	p.Refresh()
	// The directory that is read is a descriptor itself.
	if listed, _ := p.Process(pid); listed.OpenFDs != again.OpenFDs && listed.OpenFDs != again.OpenFDs+1 {
		t.Errorf("got %d descriptors by the list, %d by the size", listed.OpenFDs, again.OpenFDs)
	}
	if notes := p.Notes(); notes != nil {
		t.Errorf("got notes %q", notes)
	}
}

func BenchmarkProcess(b *testing.B) {
	p := NewProcesses("/proc", 0)
	pid := uint32(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		p.Refresh()
		p.Process(pid)
	}
}
