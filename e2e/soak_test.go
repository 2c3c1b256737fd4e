//go:build soak

package e2e

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envSoak is how long the soak lasts.
const envSoak = "TCPTRACE_SOAK"

// warmUp is the part of the time that is not judged: TIME_WAIT lasts a minute, until
// then its sockets grow in number. A shorter run has none that expire.
func warmUp(d time.Duration) time.Duration {
	if d >= 4*time.Minute {
		return 90 * time.Second
	}
	return d / 2
}

// figure is one of the things that must not grow.
type figure struct {
	name string
	// bound is by how much it may grow in the time that is judged, given its mean.
	bound func(mean float64) float64
	get   func(*soaked) float64
}

// The bounds are the noise that was seen, not an allowance to leak. Memory: what is
// 16 bytes too much for each of 10,000 connections a second is 80 MiB in ten
// minutes; a row of the table for one connection in 1,000 is 1 MiB, and is found
// where 2 MiB and a twentieth are left for the garbage collector's pace. Of the
// others one too many is one too many: a thread of the runtime's may come and go.
var figures = []figure{
	{"RSS MiB", func(mean float64) float64 { return 2 + mean/20 }, (*soaked).rss},
	{"goroutines", func(float64) float64 { return 1 }, func(s *soaked) float64 { return s.status("goroutines") }},
	{"threads", func(float64) float64 { return 2 }, (*soaked).threads},
	{"descriptors", func(float64) float64 { return 1 }, (*soaked).descriptors},
	{"map KiB", func(mean float64) float64 { return 4 + mean/100 }, (*soaked).maps},
}

// soaked is a tcptrace in the soak.
type soaked struct {
	*filed
	name    string
	samples [][]float64 // by figure
	line    string      // of status
}

// TestSoak: while connections come and go, at full speed and in all ways, what
// tcptrace takes of the machine stays level.
func TestSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv(envSoak))
	if err != nil || d < 20*time.Second {
		t.Fatalf("%s=%q: want a time of 20s or more", envSoak, os.Getenv(envSoak))
	}
	l := newLossRun(t, "auto", lossModes[0])
	var listeners []int
	for range 2 {
		listeners = append(listeners, l.listen())
	}
	l.listener = l.listen()
	devNull := []string{"--netns", l.ns.Name(), "--duration", (d + time.Hour).String()}
	var all []*soaked
	for name, args := range map[string][]string{
		"stream":  {"-o", "json"},
		"watch":   {"--watch", "time_wait,close_wait", "-o", "json", "--interval", "5s"},
		"limited": {"-o", "json", "--max-connections", "1000"},
	} {
		f := startFiled(t, append(args, devNull...)...)
		// What it writes is not kept: nobody reads a day of lines.
		go truncate(f)
		all = append(all, &soaked{filed: f, name: name, samples: make([][]float64, len(figures))})
	}
	stop := l.churnAll(listeners)
	start := time.Now()
	warm := int(warmUp(d) / time.Second)
	every := max(int(d/time.Second)/20, 1)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; time.Since(start) < d; n++ {
		<-tick.C
		for _, s := range all {
			s.ask()
		}
		time.Sleep(100 * time.Millisecond) // for the answers
		for _, s := range all {
			s.sample(n >= warm)
			if n%every == every-1 {
				t.Logf("%4d s %-8s %s", n+1, s.name, s.row())
			}
		}
	}
	stop()
	t.Logf("%d connections in %v, %.0f a second", l.churned.Load(), d, float64(l.churned.Load())/d.Seconds())
	for _, s := range all {
		for i, f := range figures {
			line := trendOf(s.samples[i])
			bound := f.bound(line.mean)
			t.Logf("%-8s %-12s mean %9.2f, %9.2f to %9.2f, grew by %7.3f in %d s, bound %.2f",
				s.name, f.name, line.mean, line.least, line.top, line.grown(), line.n, bound)
			if math.IsNaN(line.slope) || !line.flat(bound) {
				t.Errorf("%s: %s is not flat: it grew by %.3f in %d s, at most %.2f is noise", s.name, f.name, line.grown(), line.n, bound)
			}
		}
		s.end()
	}
}

// truncate empties the output again and again: tcptrace appends to it.
func truncate(f *filed) {
	for {
		select {
		case <-f.exited:
			return
		case <-time.After(time.Second):
			os.Truncate(filepath.Join(f.dir, "out"), 0)
		}
	}
}

// churnAll opens and closes connections in turn by RST, out of CLOSE_WAIT, and, one
// in sixteen, through TIME_WAIT.
func (l *lossRun) churnAll(listeners []int) (stop func()) {
	n := 0
	one := func(listener int) error {
		client, server, err := connectTo(listener)
		if err != nil {
			return err
		}
		n++
		switch {
		case n%16 == 0:
			for _, fd := range []int{client, server} {
				if err := unix.Close(fd); err != nil {
					return err
				}
			}
			return nil
		case n%4 == 0:
			if err := unix.Shutdown(client, unix.SHUT_WR); err != nil {
				return err
			}
			if err := waitEnd(server); err != nil {
				return err
			}
			return resetBoth(server, client)
		}
		return resetBoth(client, server)
	}
	return l.churnBy(listeners[:1], 0, one)
}

var statusFields = regexp.MustCompile(`(\d+) events, (\d+) lost; (\d+) connections of at most \d+, (\d+) forgotten, \d+ not tracked; (\d+) goroutines, heap ([\d.]+) MiB`)

// ask asks for a line of status, the answer to which is the only one.
func (s *soaked) ask() {
	s.t.Helper()
	if err := os.Truncate(filepath.Join(s.dir, "err"), 0); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		s.t.Fatal(err)
	}
}

func (s *soaked) status(name string) float64 {
	m := statusFields.FindStringSubmatch(s.line)
	if m == nil {
		return math.NaN()
	}
	field := map[string]int{"events": 1, "lost": 2, "connections": 3, "forgotten": 4, "goroutines": 5, "heap": 6}[name]
	v, err := strconv.ParseFloat(m[field], 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

// sample takes the figures, and keeps them if they are judged.
func (s *soaked) sample(judged bool) {
	s.t.Helper()
	if text := s.talk(); statusFields.MatchString(text) {
		s.line = text
	}
	if !judged {
		return
	}
	for i, f := range figures {
		s.samples[i] = append(s.samples[i], f.get(s))
	}
}

func (s *soaked) row() string {
	var b strings.Builder
	for _, f := range figures {
		fmt.Fprintf(&b, "%s %.1f  ", f.name, f.get(s))
	}
	for _, name := range []string{"heap", "connections", "events", "lost", "forgotten"} {
		fmt.Fprintf(&b, "%s %.0f  ", name, s.status(name))
	}
	return b.String()
}

// procStatus returns a number of /proc/PID/status.
func (s *soaked) procStatus(name string) float64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			v, err := strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("no %s in status", name)
	return 0
}

func (s *soaked) rss() float64     { return s.procStatus("VmRSS") / 1024 }
func (s *soaked) threads() float64 { return s.procStatus("Threads") }

func (s *soaked) descriptors() float64 {
	s.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return float64(len(list))
}

// maps returns the memory of the kernel's maps: memlock of their descriptors'
// fdinfo (bpf_map_show_fdinfo).
func (s *soaked) maps() float64 {
	s.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", s.cmd.Process.Pid))
	if err != nil || len(paths) == 0 {
		s.t.Fatalf("fdinfo: %v", err)
	}
	sum := 0.0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("\nmap_type:")) {
			continue // of a walk that has just ended
		}
		for line := range bytes.Lines(text) {
			if rest, ok := bytes.CutPrefix(line, []byte("memlock:")); ok {
				v, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
				if err != nil {
					s.t.Fatal(err)
				}
				sum += v / 1024
			}
		}
	}
	return sum
}
