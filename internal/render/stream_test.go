package render

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var clock = events.Clock{OffsetNS: time.Date(2026, 3, 1, 14, 3, 5, 0, time.UTC).UnixNano()}

const sec = int64(time.Second)

// play shows a stream with one of everything that has a look of its own.
func play(s Stream) {
	s.Header(&events.Header{Schema: events.Schema, Version: "0.1.0", Kernel: "6.12.1", Hooks: "fentry", TS: 10 * sec})
	ts := 10 * sec
	show := func(c events.Conn, old, new events.State, in, min int64, exact bool) {
		ts += 1_234_567
		s.Transition(&events.Transition{Conn: c, TS: ts, Old: old, New: new, InOld: in, InOldMin: min, Exact: exact})
	}
	curl := events.Conn{
		ID: 1, Family: 4, UID: 1000, Owner: events.Process{PID: 4711, Comm: "curl"}, OwnerSrc: events.OwnerConnect,
		Local: netip.MustParseAddrPort("10.0.0.12:45678"), Remote: netip.MustParseAddrPort("192.0.2.17:443"),
	}
	show(curl, events.Close, events.SynSent, -1, -1, true)
	show(curl, events.SynSent, events.Established, 23_456_789, -1, true)
	show(curl, events.Established, events.FinWait1, 5_003_000_000, -1, true)
	show(curl, events.FinWait1, events.FinWait2, 999_999, -1, true)
	show(curl, events.FinWait2, events.TimeWait, 600_123_456, -1, true)
	show(curl, events.TimeWait, events.Close, 60_120_000_000, -1, true)
	s.Closed(&events.Closed{Conn: curl, TS: ts, Closer: events.SideLocal, How: events.HowFIN, TimeWaitEnd: events.TimeWaitExpired, TotalNS: 66 * sec})

	listener := events.Conn{
		ID: 2, Family: 6, UID: 0, Owner: events.Process{PID: 1, Comm: "systemd"}, OwnerSrc: events.OwnerListen,
		Local: netip.MustParseAddrPort("[::]:80"), Remote: netip.MustParseAddrPort("[::]:0"),
	}
	show(listener, events.Close, events.Listen, -1, -1, true)

	backlog := events.Conn{
		ID: 3, Family: 4, UID: -1,
		Local: netip.MustParseAddrPort("192.168.100.101:65535"), Remote: netip.MustParseAddrPort("192.168.200.202:61000"),
	}
	show(backlog, events.CloseWait, events.LastAck, -1, 724*sec, true)
	show(backlog, events.LastAck, events.Close, 75_000, -1, false)
	s.Closed(&events.Closed{Conn: backlog, TS: ts, Closer: events.SideRemote, How: events.HowFIN, TotalNS: 725 * sec})

	long := events.Conn{
		ID: 4, Family: 6, UID: 0, Owner: events.Process{PID: 4194304, Comm: "postgres: main w"}, OwnerSrc: events.OwnerAccept,
		Local:  netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:5432"),
		Remote: netip.MustParseAddrPort("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:50000"),
	}
	show(long, events.SynRecv, events.Established, 80_000_000, -1, true)
	show(long, events.Established, events.Close, 3*3600*sec, -1, true)
	s.Closed(&events.Closed{Conn: long, TS: ts, Closer: events.SideRemote, How: events.HowRST, Reset: events.ResetPeer, TotalNS: 1})

	nasty := events.Conn{
		ID: 5, Family: 4, UID: 0, Owner: events.Process{PID: 7, Comm: "\x1b[2J\xff\u202e"}, OwnerSrc: events.OwnerConnect,
		Local: netip.MustParseAddrPort("127.0.0.1:40000"), Remote: netip.MustParseAddrPort("127.0.0.1:81"),
	}
	show(nasty, events.SynSent, events.Close, 12_000, -1, true)
	s.Closed(&events.Closed{Conn: nasty, TS: ts, Closer: events.SideRemote, How: events.HowRefused, TotalNS: 1})
	nasty.ID, nasty.Owner.Comm = 6, "日本語プログラム"
	show(nasty, events.SynSent, events.Close, 130*sec, -1, true)
	s.Closed(&events.Closed{Conn: nasty, TS: ts, Closer: events.SideNone, How: events.HowTimeout, TotalNS: 1})
	nasty.ID, nasty.Owner.Comm = 7, "tiny"
	show(nasty, events.TimeWait, events.Close, 1_500_000_000, -1, true)
	s.Closed(&events.Closed{Conn: nasty, TS: ts, Closer: events.SideBoth, How: events.HowFIN, TimeWaitEnd: events.TimeWaitReused, TotalNS: 1})
	nasty.ID = 8
	show(nasty, events.FinWait2, events.Close, 10_000_000, -1, true)
	s.Closed(&events.Closed{Conn: nasty, TS: ts, Closer: events.SideLocal, How: events.HowFIN, TimeWaitOverflow: true, TotalNS: 1})
	nasty.ID = 9
	show(nasty, events.CloseWait, events.Close, 40*24*3600*sec, -1, true)
	s.Closed(&events.Closed{Conn: nasty, TS: ts, Closer: events.SideRemote, How: events.HowRST, Reset: events.ResetLinger0, TotalNS: 1})
	nothing := events.Conn{ID: 10, UID: -1}
	show(nothing, events.Close, events.SynSent, -1, -1, true)
	show(nothing, events.SynSent, events.Close, -1, -1, true) // its Closed is not wanted
	s.Lost(&events.Lost{TS: ts, Count: 12, Total: 112, Since: ts - sec})
	s.Resync(&events.Resync{TS: ts, Corrected: 3, Removed: 2, Added: 1})
	s.Limit(&events.Limit{TS: ts, Max: 65536, Count: 2048, Total: 6144, Untracked: 17})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (-update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestTextGolden(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  TextConfig
	}{
		{"pipe", TextConfig{}},
		{"80", TextConfig{Width: 80, Terminal: true}},
		{"100", TextConfig{Width: 100, Terminal: true}},
		{"140", TextConfig{Width: 140, Terminal: true}},
		{"200", TextConfig{Width: 200, Terminal: true}},
		{"wide", TextConfig{Wide: true}},
		{"times", TextConfig{WallTime: true, Elapsed: true}},
		{"color", TextConfig{Width: 100, Terminal: true, Color: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, notes bytes.Buffer
			tc.cfg.Clock, tc.cfg.Location, tc.cfg.Notes = clock, time.UTC, &notes
			s := NewText(&out, tc.cfg)
			play(s)
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			golden(t, "stream-"+tc.name+".txt", fmt.Appendf(out.Bytes(), "--- notes\n%s", notes.Bytes()))
			checkLines(t, out.String(), tc.cfg)
		})
	}
}

// checkLines holds the table to what its columns promise, whatever the golden
// files say.
func checkLines(t *testing.T, out string, cfg TextConfig) {
	t.Helper()
	if cfg.Color {
		out = strings.NewReplacer(reset, "", bold, "", red, "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[36m", "").Replace(out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("an escape reaches the terminal")
	}
	arrow := -1
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if w := width(line); cfg.Terminal && w > cfg.Width {
			t.Errorf("%d cells in a terminal of %d: %s", w, cfg.Width, line)
		}
		before, _, ok := strings.Cut(line, " -> ")
		if !ok {
			continue
		}
		if arrow < 0 {
			arrow = width(before)
		}
		if width(before) != arrow && (cfg.Terminal || cfg.Wide) {
			t.Errorf("the arrow is not below the others: %s", line)
		}
	}
}

// By default the table fits 80 columns, but for addresses that do not.
func TestTextFitsByDefault(t *testing.T) {
	var out bytes.Buffer
	s := NewText(&out, TextConfig{Clock: clock})
	play(s)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if w := width(line); w > 80 && !strings.Contains(line, "2001:db8:aaaa") {
			t.Errorf("%d cells: %s", w, line)
		}
	}
}

func TestJSONGolden(t *testing.T) {
	var out bytes.Buffer
	s := NewJSON(&out, clock)
	play(s)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	golden(t, "stream.json", out.Bytes())
	for line := range bytes.Lines(out.Bytes()) {
		if _, err := events.DecodeLine(line); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}

type brokenWriter struct{ writes int }

var errBroken = errors.New("broken")

func (b *brokenWriter) Write([]byte) (int, error) { b.writes++; return 0, errBroken }

func TestStreamError(t *testing.T) {
	for name, open := range map[string]func(w *brokenWriter) Stream{
		"text": func(w *brokenWriter) Stream { return NewText(w, TextConfig{}) },
		"json": func(w *brokenWriter) Stream { return NewJSON(w, clock) },
	} {
		w := &brokenWriter{}
		s := open(w)
		for range 500 { // more than is collected before a write
			play(s)
		}
		if err := s.Flush(); !errors.Is(err, errBroken) {
			t.Errorf("%s: error %v", name, err)
		}
		if err := s.Flush(); !errors.Is(err, errBroken) || w.writes != 1 {
			t.Errorf("%s: %d writes, error %v", name, w.writes, err)
		}
	}
}

func benchmark(b *testing.B, s Stream) {
	tr := &events.Transition{
		Conn: events.Conn{
			ID: 1, Family: 4, UID: 1000, Owner: events.Process{PID: 4711, Comm: "curl"},
			Local: netip.MustParseAddrPort("10.0.0.12:45678"), Remote: netip.MustParseAddrPort("192.0.2.17:443"),
		},
		Old: events.SynSent, New: events.Established, InOld: 23_456_789, InOldMin: -1, Exact: true,
	}
	b.ReportAllocs()
	for b.Loop() {
		tr.TS += 12_345
		s.Transition(tr)
	}
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkText(b *testing.B) { benchmark(b, NewText(discard{}, TextConfig{WallTime: true})) }
func BenchmarkJSON(b *testing.B) { benchmark(b, NewJSON(discard{}, clock)) }

// Lines cost no allocation, once the room for them is there.
func TestStreamNoAllocs(t *testing.T) {
	tr := &events.Transition{
		Conn: events.Conn{
			ID: 1, Family: 4, UID: 1000, Owner: events.Process{PID: 4711, Comm: "curl"},
			Local: netip.MustParseAddrPort("10.0.0.12:45678"), Remote: netip.MustParseAddrPort("192.0.2.17:443"),
		},
		Old: events.SynSent, New: events.Established, InOld: 23_456_789, InOldMin: -1, Exact: true,
	}
	for name, s := range map[string]Stream{
		"text": NewText(discard{}, TextConfig{WallTime: true}), "json": NewJSON(discard{}, clock),
	} {
		all := func() {
			for range 1000 {
				tr.TS += 12_345
				s.Transition(tr)
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		all()
		if n := testing.AllocsPerRun(10, all); n != 0 {
			t.Errorf("%s: %v allocations for 1000 lines", name, n)
		}
	}
}
