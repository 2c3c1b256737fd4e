//go:build linux

package tracer

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
)

func rawRecord(c bpf.TcptraceRecord) []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&c)), recordSize))
}

func TestDecode(t *testing.T) {
	c := bpf.TcptraceRecord{
		TsNs: 1, Sk: 2, Cookie: 3, CgroupId: 4, PeerSk: 5, TimerNs: -6,
		Netns: 7, Pid: 8, Uid: 9, RxPending: 11, TxPending: 12, SrttUs: 13, Fd: 14,
		Lport: 8080, Rport: 443, Flags: 0x1fff, SkErr: 104, Kind: 1, OldState: 1, NewState: 8,
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&c.Comm)), 16), "server\x00garbage")
	want := events.Record{
		TS: 1, SK: 2, Cookie: 3, CgroupID: 4, PeerSK: 5, TimerNS: -6,
		NetNS: 7, PID: 8, UID: 9, RXPending: 11, TXPending: 12, SRTTUS: 13, FD: 14,
		Flags: 0x1fff, Err: 104, Kind: events.KindTransition, Old: events.Established, New: events.CloseWait,
		Comm: "server",
	}
	for _, tt := range []struct {
		name          string
		family        uint8
		laddr, raddr  [16]byte
		ifindex       uint32
		local, remote string
	}{
		{"v4", 4, [16]byte{127, 0, 0, 1}, [16]byte{10, 1, 2, 3}, 0, "127.0.0.1:8080", "10.1.2.3:443"},
		{"v6", 6, netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666").As16(),
			netip.MustParseAddr("2001:db8::1").As16(), 0,
			"[2001:db8:1111:2222:3333:4444:5555:6666]:8080", "[2001:db8::1]:443"},
		{"link-local", 6, netip.MustParseAddr("fe80::1").As16(), netip.MustParseAddr("fe80::2").As16(), 3,
			"[fe80::1%3]:8080", "[fe80::2%3]:443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, want := c, want
			c.Family, c.Laddr, c.Raddr, c.Ifindex = tt.family, tt.laddr, tt.raddr, tt.ifindex
			want.Family = tt.family
			want.Local, want.Remote = netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort(tt.remote)
			var got events.Record
			if err := newDecoder().decode(rawRecord(c), &got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
	t.Run("no family", func(t *testing.T) {
		var got events.Record
		if err := newDecoder().decode(rawRecord(c), &got); err != nil {
			t.Fatal(err)
		}
		if got.Local.Addr().IsValid() || got.Local.Port() != 8080 {
			t.Errorf("local of a record without family: got %v, want an invalid address and port 8080", got.Local)
		}
	})
}

// The names of the kinds and flags are written down twice, in C and in Go.
func TestRecordSizeAndOrder(t *testing.T) {
	if recordSize != 144 {
		t.Errorf("struct record has %d bytes, want 144", recordSize)
	}
	raw := rawRecord(bpf.TcptraceRecord{TsNs: 0x0102030405060708})
	if got := binary.NativeEndian.Uint64(raw); got != 0x0102030405060708 {
		t.Errorf("ts_ns is not the first field: %x", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, recordSize))
	f.Add(make([]byte, recordSize-1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r events.Record
		err := newDecoder().decode(raw, &r)
		if (err == nil) != (len(raw) == recordSize) {
			t.Errorf("%d bytes: error %v", len(raw), err)
		}
		if err != nil && r != (events.Record{}) {
			t.Errorf("both a record and an error: %+v, %v", r, err)
		}
	})
}

func TestNextPause(t *testing.T) {
	const ring = 8 << 20
	for _, tt := range []struct {
		name        string
		last        time.Duration
		bytes, ring uint64
		want        time.Duration
	}{
		{"nothing came", gather, 0, ring, gather},
		{"no storm", gather, 10 << 10, ring, gather},
		{"a storm", gather, 100 << 10, ring, gatherStorm},
		{"it goes on", gatherStorm, 400 << 10, ring, gatherStorm},
		{"it is over", gatherStorm, 100 << 10, ring, gather},
		{"an eighth of the ring in 20 ms", gatherStorm, ring / 4, ring, 20 * time.Millisecond},
		{"too much for the ring", gatherStorm, ring, ring, gather},
		{"a small ring", gather, 64 << 10, 64 << 10, gather},
	} {
		if got := nextPause(tt.last, tt.bytes, tt.ring); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMerge(t *testing.T) {
	rec := func(kind events.Kind, ts ...int64) (out []events.Record) {
		for _, ts := range ts {
			out = append(out, events.Record{TS: ts, Kind: kind})
		}
		return out
	}
	a, b := rec(events.KindTransition, 1, 5, 4, 9), rec(events.KindSocket, 0, 3, 5, 10)
	var ts []int64
	for _, r := range merge(a, b) {
		ts = append(ts, r.TS)
	}
	// The ring's order stays, 4 behind 5; of equals the ring's comes first.
	if want := []int64{0, 1, 3, 5, 4, 5, 9, 10}; !slices.Equal(ts, want) {
		t.Errorf("merged times: got %v, want %v", ts, want)
	}
}

// The records of a batch take the place of the last one's: nothing of these is left.
func TestDecodeLeavesNothing(t *testing.T) {
	d := newDecoder()
	full := events.Record{
		TS: 1, SK: 1, Cookie: 1, CgroupID: 1, PeerSK: 1, TimerNS: 1, Count: 1,
		Local: netip.MustParseAddrPort("[fe80::1%7]:1"), Remote: netip.MustParseAddrPort("[fe80::2%7]:2"),
		NetNS: 1, PID: 1, UID: 1, RXPending: 1, TXPending: 1, SRTTUS: 1, FD: 1, Err: 1, Flags: 1, Kind: 1,
		Family: 6, Old: 1, New: 1, Comm: "x",
	}
	fields := reflect.ValueOf(full)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("the test leaves %s empty", fields.Type().Field(i).Name)
		}
	}
	for i, raw := range append(sampleRecords(), make([]byte, recordSize)) {
		var fresh events.Record
		used := full
		if err := errors.Join(d.decode(raw, &fresh), d.decode(raw, &used)); err != nil {
			t.Fatal(err)
		}
		if used != fresh {
			t.Errorf("sample %d: got %+v, want %+v", i, used, fresh)
		}
	}
}

func TestRepeatsAreDropped(t *testing.T) {
	tr := &Tracer{}
	transition := func(sk uint64, old, new events.State, flags events.Flags) *events.Record {
		return &events.Record{SK: sk, Kind: events.KindTransition, Old: old, New: new, Flags: flags}
	}
	for n, step := range []struct {
		r    *events.Record
		news bool
	}{
		{transition(1, events.Close, events.SynSent, 0), true},
		{transition(2, events.Close, events.SynSent, 0), true},
		{transition(1, events.Close, events.SynSent, events.FlagNested), false},
		{transition(3, events.Close, events.SynSent, events.FlagNested), true},
		{transition(1, events.SynSent, events.Close, 0), true},
		// The same address, another life.
		{transition(1, events.Close, events.SynSent, events.FlagNested), true},
		{transition(1, events.Close, events.SynSent, 0), true},
	} {
		if got := tr.isNews(step.r); got != step.news {
			t.Errorf("step %d: news %v, want %v", n, got, step.news)
		}
	}
	if tr.rescued != 2 {
		t.Errorf("rescued: got %d, want 2", tr.rescued)
	}
}

// sampleRecords are raw records of a connection's life, of both families.
func sampleRecords() [][]byte {
	base := bpf.TcptraceRecord{
		TsNs: 1e15, Sk: 0xffff888100000000, Cookie: 3, CgroupId: 4, PeerSk: 5, Netns: 7, Uid: 9, SrttUs: 13,
		Lport: 8080, Rport: 443, Flags: 0x1ff, Kind: uint8(events.KindTransition), OldState: 1, NewState: 8,
	}
	var all [][]byte
	for i := range 64 {
		c := base
		c.Family = uint8(4 + 2*(i%2))
		c.Laddr, c.Raddr = [16]byte{0x20, 1, 14: 1, 15: byte(i)}, [16]byte{0x20, 1, 15: 2}
		if i%3 == 0 { // with an owner
			c.Pid = uint32(100 + i)
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&c.Comm)), 16), "server-"+string(rune('a'+i%8)))
		}
		all = append(all, rawRecord(c))
	}
	return all
}

// BenchmarkDecode is the cost of one record of the ring.
func BenchmarkDecode(b *testing.B) {
	d, all := newDecoder(), sampleRecords()
	var r events.Record
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := d.decode(all[i%len(all)], &r); err != nil {
			b.Fatal(err)
		}
	}
}

// A decoder that has seen the names does not allocate.
func TestDecodeNoAllocs(t *testing.T) {
	d, all := newDecoder(), sampleRecords()
	var r events.Record
	n := testing.AllocsPerRun(100, func() {
		for _, raw := range all {
			if err := d.decode(raw, &r); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d records", n, len(all))
	}
}

// What is passed over is lost unless a later program stood in for it, at about that time.
func TestPassedOverIsReckoned(t *testing.T) {
	for _, tt := range []struct {
		name  string
		calls [][2]uint64 // both counts
		want  []uint64
	}{
		{"nothing", [][2]uint64{{0, 0}, {0, 0}}, []uint64{0, 0}},
		{"all stood in for", [][2]uint64{{3, 3}, {7, 7}}, []uint64{0, 0}},
		{"some lost", [][2]uint64{{3, 1}, {7, 3}, {8, 4}}, []uint64{2, 2, 0}},
		{"stood in before it is counted", [][2]uint64{{0, 2}, {2, 2}}, []uint64{0, 0}},
		{"an old surplus hides nothing", [][2]uint64{{0, 5}, {0, 5}, {3, 5}}, []uint64{0, 0, 3}},
		{"nor does a used one", [][2]uint64{{0, 2}, {2, 2}, {4, 2}}, []uint64{0, 0, 2}},
		{"nor what was told to be lost", [][2]uint64{{4, 0}, {5, 0}, {5, 9}, {6, 9}, {15, 9}}, []uint64{4, 1, 0, 0, 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p passed
			for n, c := range tt.calls {
				if got := p.reckon(c[0], c[1]); got != tt.want[n] {
					t.Errorf("call %d, %d passed over and %d stood in for: %d lost, want %d", n+1, c[0], c[1], got, tt.want[n])
				}
			}
		})
	}
}
