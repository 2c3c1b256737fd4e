package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testClock puts monotonic time 0 at a minute's end, so that lines cross it.
var testClock = Clock{OffsetNS: time.Date(2026, 3, 1, 23, 59, 58, 0, time.UTC).UnixNano()}

func testConn() Conn {
	return Conn{
		ID:       7,
		Cookie:   0x1a2b,
		NetNS:    4026531840,
		Family:   4,
		Local:    netip.MustParseAddrPort("10.0.0.1:45678"),
		Remote:   netip.MustParseAddrPort("192.0.2.17:443"),
		Owner:    Process{PID: 4711, Comm: "curl"},
		OwnerSrc: OwnerConnect,
		UID:      1000,
		Cgroup:   "/user.slice/session-1.scope",
	}
}

func unknownConn() Conn {
	return Conn{ID: 8, UID: Unknown}
}

// samples has one of everything, in an order that a stream could have.
func samples() []any {
	v6 := testConn()
	v6.ID, v6.Family, v6.UID, v6.MPTCP = 9, 6, 0, true
	v6.Local = netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:8080")
	v6.Remote = netip.MustParseAddrPort("[fe80::1%2]:50000")
	v6.Owner, v6.OwnerSrc = Process{PID: 1, Comm: "a\"b\\c\x1b[31m\u202e\u00e9"}, OwnerAccept
	return []any{
		&Header{Schema: Schema, Version: "0.1.0", Kernel: "6.12.1", Hooks: "fentry", TS: 1, Filters: map[string]string{"state": "close_wait", "port": "80,443"}},
		&Transition{Conn: testConn(), TS: 1_000_000_001, Old: SynSent, New: Established, InOld: 23_456_789, InOldMin: Unknown, Exact: true},
		&Transition{Conn: unknownConn(), TS: 1_500_000_000, Old: Close, New: SynSent, InOld: Unknown, InOldMin: Unknown, Exact: true},
		&Transition{Conn: v6, TS: 2_000_000_000, Old: CloseWait, New: Close, InOld: Unknown, InOldMin: 724_000_000_000, Err: 104},
		&Closed{Conn: v6, TS: 2_000_000_000, Opened: OpenedPassive, Closer: SideRemote, How: HowRST, Reset: ResetPeer,
			ClosedBy: Process{PID: 1, Comm: "init"},
			States:   []StateTime{{SynRecv, 80_000_000}, {Established, 5_000_000_000}, {CloseWait, 724_000_000_000}}, TotalNS: 729_080_000_000, Err: 104},
		&Closed{Conn: testConn(), TS: 62_000_000_000, Opened: OpenedActive, Closer: SideLocal, How: HowFIN, Exact: true,
			States:      []StateTime{{SynSent, 1}, {FinWait2, Unknown}, {TimeWait, 60_000_000_000}},
			TimeWaitEnd: TimeWaitExpired, TotalNS: 61_000_000_000},
		&Closed{Conn: unknownConn(), TS: 62_000_000_001, TotalNS: Unknown, TimeWaitOverflow: true, Err: 4095},
		&Lost{TS: 70_000_000_000, Count: 12, Total: 112, Since: 69_000_000_000},
		&Lost{TS: 70_000_000_000, Count: 1, Total: 1, Since: Unknown, Cause: LostUnseen},
		&Resync{TS: 71_000_000_000, Corrected: 3, Removed: 2, Added: 1},
		&Limit{TS: 72_000_000_000, Max: 65536, Count: 2048, Total: 6144, Untracked: 17},
	}
}

func appendAny(e *Encoder, dst []byte, v any) []byte {
	switch v := v.(type) {
	case *Header:
		return e.AppendHeader(dst, v)
	case *Transition:
		return e.AppendTransition(dst, v)
	case *Closed:
		return e.AppendClosed(dst, v)
	case *Lost:
		return e.AppendLost(dst, v)
	case *Resync:
		return e.AppendResync(dst, v)
	case *Limit:
		return e.AppendLimit(dst, v)
	}
	panic("unknown sample")
}

func (l *Line) value() any {
	switch {
	case l.Header != nil:
		return l.Header
	case l.Transition != nil:
		return l.Transition
	case l.Closed != nil:
		return l.Closed
	case l.Lost != nil:
		return l.Lost
	case l.Limit != nil:
		return l.Limit
	default:
		return l.Resync
	}
}

func TestEncodeGolden(t *testing.T) {
	e := NewEncoder(testClock)
	var got []byte
	for _, s := range samples() {
		got = appendAny(e, got, s)
	}
	path := filepath.Join("testdata", "lines.json")
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
		t.Errorf("lines differ from %s (-update rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// The standard library's decoder is the independent judge of what is JSON.
func TestEncodeIsJSON(t *testing.T) {
	e := NewEncoder(testClock)
	for _, s := range samples() {
		line := appendAny(e, nil, s)
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Errorf("not one line: %q", line)
		}
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		at, err := time.Parse(time.RFC3339Nano, fields["time"].(string))
		if err != nil {
			t.Errorf("time: %v", err)
		}
		if want := testClock.Time(int64(fields["ts_ns"].(float64))); !at.Equal(want) {
			t.Errorf("time %v, want %v", at, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	e := NewEncoder(testClock)
	for _, want := range samples() {
		line, err := DecodeLine(appendAny(e, nil, want))
		if err != nil {
			t.Errorf("%T: %v", want, err)
			continue
		}
		if got := line.value(); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if line.Clock() != testClock {
			t.Errorf("%T: clock %v, want %v", want, line.Clock(), testClock)
		}
	}
}

// A name that is not UTF-8 becomes the same valid JSON each time.
func TestEncodeInvalidUTF8(t *testing.T) {
	tr := &Transition{Conn: testConn(), Old: Close, New: SynSent}
	tr.Owner.Comm = "a\xff\xfeb\xe3\x81"
	line, err := DecodeLine(NewEncoder(testClock).AppendTransition(nil, tr))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := line.Transition.Owner.Comm, "a\uFFFD\uFFFDb\uFFFD\uFFFD"; got != want {
		t.Errorf("comm %q, want %q", got, want)
	}
}

// What a terminal might obey leaves as an escape, and is read back as it was.
func TestEncodeTerminal(t *testing.T) {
	tr := &Transition{Conn: testConn(), Old: Close, New: SynSent}
	tr.Owner.Comm = "\x1b[2J\x7f\u009b31m\u202e\U000e0041\u2028é日"
	encoded := NewEncoder(testClock).AppendTransition(nil, tr)
	for _, r := range strings.TrimSuffix(string(encoded), "\n") {
		if !unicode.IsPrint(r) {
			t.Errorf("rune %U reaches the terminal", r)
		}
	}
	line, err := DecodeLine(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if got := line.Transition.Owner.Comm; got != tr.Owner.Comm {
		t.Errorf("comm %q, want %q", got, tr.Owner.Comm)
	}
	if !strings.Contains(string(encoded), "é日") {
		t.Error("letters are escaped")
	}
}

func TestEncodeMapped(t *testing.T) {
	tr := &Transition{Conn: testConn()}
	tr.Local = netip.MustParseAddrPort("[::ffff:10.0.0.1]:1")
	if line := string(NewEncoder(testClock).AppendTransition(nil, tr)); !strings.Contains(line, `"laddr":"10.0.0.1"`) {
		t.Errorf("a mapped address is not shown as IPv4: %s", line)
	}
}

// Names of an object's members are unique, so a state that was visited twice is
// one member.
func TestEncodeRepeatedState(t *testing.T) {
	c := &Closed{States: []StateTime{{Established, 5}, {CloseWait, Unknown}, {Established, 7}, {CloseWait, 9}}}
	if line := string(NewEncoder(testClock).AppendClosed(nil, c)); !strings.Contains(line, `"states":{"ESTABLISHED":12,"CLOSE_WAIT":9}`) {
		t.Errorf("states are not merged: %s", line)
	}
}

func TestAppendTime(t *testing.T) {
	for _, wall := range []string{
		"2026-03-01T23:59:59.999999999Z", "2026-03-02T00:00:00.000000000Z", "1970-01-01T00:00:00.000000001Z",
		"1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:00.000000000Z", "2262-01-01T00:00:00.123456789Z",
	} {
		at, err := time.Parse(time.RFC3339Nano, wall)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(NewEncoder(Clock{}).appendTime(nil, at.UnixNano())), `"`+wall+`"`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	good := string(appendAny(NewEncoder(testClock), nil, samples()[1]))
	for _, tc := range []struct{ name, line, want string }{
		{"empty", "", "decode line"},
		{"no object", "[]", "decode line"},
		{"no type", "{}", "no type"},
		{"two values", "{} {}", "decode line"},
		{"newer schema", `{"type":"header","schema":2,"time":"2026-01-01T00:00:00Z","ts_ns":1}`, "newer"},
		{"no schema", `{"type":"header","time":"2026-01-01T00:00:00Z","ts_ns":1}`, "schema 0"},
		{"no time", `{"type":"lost","count":1}`, "missing"},
		{"bad time", `{"type":"lost","time":"yesterday","ts_ns":1}`, "RFC 3339"},
		{"year 9999", `{"type":"lost","time":"9999-01-01T00:00:00Z","ts_ns":1}`, "out of range"},
		{"negative count", `{"type":"lost","time":"2026-01-01T00:00:00Z","ts_ns":1,"count":-1}`, "decode lost"},
		{"cut", good[:len(good)/2], "decode line"},
		{"state", strings.Replace(good, "SYN_SENT", "SYN_SENTT", 1), `unknown state "SYN_SENTT"`},
		{"conn", strings.Replace(good, `"conn":"7"`, `"conn":"x"`, 1), "conn"},
		{"cookie", strings.Replace(good, "1a2b", "wxyz", 1), "cookie"},
		{"address", strings.Replace(good, "10.0.0.1", "10.0.0", 1), "laddr"},
		{"port", strings.Replace(good, `"lport":45678`, `"lport":65536`, 1), "lport"},
		{"owner", strings.Replace(good, `"owner":"connect"`, `"owner":"guess"`, 1), "owner"},
		{"error", strings.Replace(good, `"error":null`, `"error":"EWHAT"`, 1), "EWHAT"},
		{"duplicate", strings.Replace(good, `"conn"`, `"cookie":null,"conn"`, 1), "duplicate"},
	} {
		line, err := DecodeLine([]byte(tc.line))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", tc.name, err, tc.want)
		}
		if line != (Line{}) {
			t.Errorf("%s: a value beside the error", tc.name)
		}
	}
	if _, err := DecodeLine([]byte(`{"type":"weather"}`)); !errors.Is(err, ErrUnknownType) {
		t.Errorf("error %v, want ErrUnknownType", err)
	}
	if _, err := DecodeLine([]byte(`{"type":"header","schema":2,"time":"2026-01-01T00:00:00Z","ts_ns":1}`)); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("error %v, want ErrNewerSchema", err)
	}
}

// Fields may be added to the schema: a reader passes over those it does not know.
func TestDecodeExtraField(t *testing.T) {
	line := appendAny(NewEncoder(testClock), nil, samples()[1])
	line = bytes.Replace(line, []byte(`"old":`), []byte(`"colour":{"a":[1]},"old":`), 1)
	if _, err := DecodeLine(line); err != nil {
		t.Error(err)
	}
}

func TestErrno(t *testing.T) {
	for errno, name := range errnoNames {
		if got, ok := parseErrno(name); !ok || got != errno {
			t.Errorf("%s: got %d, want %d", name, got, errno)
		}
	}
	if got := ErrnoName(4095); got != "ERRNO_4095" {
		t.Errorf("got %s", got)
	}
}

func FuzzDecodeLine(f *testing.F) {
	e := NewEncoder(testClock)
	for _, s := range samples() {
		f.Add(appendAny(e, nil, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := DecodeLine(data)
		if err != nil {
			if first != (Line{}) {
				t.Fatal("a value beside the error")
			}
			return
		}
		encoded := appendAny(NewEncoder(first.Clock()), nil, first.value())
		second, err := DecodeLine(encoded)
		if err != nil {
			t.Fatalf("own line is not read: %v\n%s", err, encoded)
		}
		if again := appendAny(NewEncoder(second.Clock()), nil, second.value()); !bytes.Equal(again, encoded) {
			t.Fatalf("not stable:\n%s%s", encoded, again)
		}
	})
}

func BenchmarkEncodeTransition(b *testing.B) {
	e := NewEncoder(testClock)
	tr := samples()[1].(*Transition)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		tr.TS += 12_345
		buf = e.AppendTransition(buf[:0], tr)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkEncodeClosed(b *testing.B) {
	e := NewEncoder(testClock)
	c := samples()[4].(*Closed)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		c.TS += 12_345
		buf = e.AppendClosed(buf[:0], c)
	}
	b.SetBytes(int64(len(buf)))
}

// A stream in its steady state allocates nothing.
func TestEncodeAllocs(t *testing.T) {
	e := NewEncoder(testClock)
	all := samples()[1:] // the header is written once
	for _, s := range all {
		if c, ok := s.(*Closed); ok {
			c.Owner.Comm = "curl" // escapes are rare enough to cost
		}
		if tr, ok := s.(*Transition); ok {
			tr.Owner.Comm = "curl"
		}
	}
	buf := make([]byte, 0, 16<<10)
	if n := testing.AllocsPerRun(100, func() {
		for _, s := range all {
			if c, ok := s.(*Closed); ok && c.Err == 4095 {
				continue // an errno without a name is spelled out
			}
			buf = appendAny(e, buf[:0], s)
		}
	}); n > 0 {
		t.Errorf("%v allocations for %d lines", n, len(all))
	}
}
