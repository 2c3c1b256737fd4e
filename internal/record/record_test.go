package record

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testMeta() *Meta {
	return &Meta{
		Header: events.Header{
			Schema: 1, Version: "1.2.3", Kernel: "6.12.48", Hooks: "fentry", TS: 5_000_000_000,
			Filters: map[string]string{"netns": "blue", "local-port": "80,443"},
		},
		Clock: events.Clock{OffsetNS: 1_760_000_000_123_456_789},
		Attrs: map[string]string{"filter.netns": "inode:4026532000"},
	}
}

// entry is an Item that can be kept and compared.
type entry struct {
	rec   *events.Record
	fact  *Fact
	batch bool
}

func (e entry) equal(f entry) bool {
	switch {
	case e.rec != nil && f.rec != nil:
		return *e.rec == *f.rec
	case e.fact != nil && f.fact != nil:
		return *e.fact == *f.fact
	}
	return e.batch && f.batch
}

func (e entry) String() string {
	switch {
	case e.rec != nil:
		return fmt.Sprintf("%+v", *e.rec)
	case e.fact != nil:
		return fmt.Sprintf("%+v", *e.fact)
	}
	return "end of batch"
}

func put(w *Writer, entries []entry) error {
	for _, e := range entries {
		switch {
		case e.rec != nil:
			w.Record(e.rec)
		case e.fact != nil:
			w.Fact(e.fact.Topic, e.fact.Key, e.fact.Value)
		default:
			if err := w.EndBatch(); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode returns a complete recording.
func encode(t testing.TB, meta *Meta, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(w, entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// drain reads to the end, or to the error that it returns.
func drain(r *Reader) ([]entry, error) {
	var got []entry
	for {
		item, err := r.Next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		var e entry
		switch {
		case item.Record != nil:
			rec := *item.Record
			e.rec = &rec
			*item.Record = events.Record{} // the caller may
		case item.Fact != nil:
			fact := *item.Fact
			e.fact = &fact
		default:
			e.batch = true
		}
		got = append(got, e)
	}
}

func decode(in io.Reader) (*Meta, []entry, error) {
	r, err := NewReader(in)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	got, err := drain(r)
	return r.Meta(), got, err
}

func compare(t *testing.T, got, want []entry) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !got[i].equal(want[i]) {
			t.Fatalf("entry %d:\ngot  %v\nwant %v", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
}

func compareMeta(t *testing.T, got, want *Meta) {
	t.Helper()
	g, w := got.Header, want.Header
	if !maps.Equal(g.Filters, w.Filters) || (g.Filters == nil) != (w.Filters == nil) || !maps.Equal(got.Attrs, want.Attrs) ||
		got.Clock != want.Clock || g.Schema != w.Schema || g.Version != w.Version || g.Kernel != w.Kernel ||
		g.Hooks != w.Hooks || g.TS != w.TS {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// randomRecord returns a record of which no field is safe: mostly like the
// others, now and then at the ends of its ranges.
func randomRecord(rng *rand.Rand) *events.Record {
	number := func() uint64 {
		switch rng.IntN(6) {
		case 0:
			return 0
		case 1:
			return math.MaxUint64
		case 2:
			return math.MaxInt64 + uint64(rng.IntN(3))
		case 3:
			return rng.Uint64()
		default:
			return uint64(rng.IntN(300))
		}
	}
	addr := func() netip.AddrPort {
		var a netip.Addr
		var b [16]byte
		for i := range b {
			b[i] = byte(number())
		}
		switch rng.IntN(6) {
		case 0:
		case 1:
			a = netip.AddrFrom4([4]byte(b[:4]))
		case 2:
			a = netip.AddrFrom16([16]byte(netip.MustParseAddr("::ffff:10.0.0.1").As16()))
		case 3:
			a = netip.MustParseAddr("fe80::1").WithZone([]string{"2", "17", "eth0"}[rng.IntN(3)])
		default:
			a = netip.AddrFrom16(b)
		}
		return netip.AddrPortFrom(a, uint16(number()))
	}
	comms := []string{"", "nginx", "curl", "a name of 15 by", "\x00\xff\x1b[31m", strings.Repeat("x", 40)}
	return &events.Record{
		TS: int64(number()), SK: uint64(rng.IntN(1000)) * 2048, Cookie: number(), CgroupID: number(), PeerSK: number(),
		TimerNS: int64(number()), Count: int64(number()), Local: addr(), Remote: addr(), NetNS: uint32(number()),
		PID: uint32(number()), UID: uint32(number()), RXPending: uint32(number()), TXPending: uint32(number()),
		SRTTUS: uint32(number()), FD: uint32(number()), Err: uint16(number()), Flags: events.Flags(number()),
		Kind: events.Kind(number()), Family: uint8(number()), Old: events.State(number()), New: events.State(number()),
		Comm: comms[rng.IntN(len(comms))],
	}
}

// mutate changes one field of the record, or none.
func mutate(rng *rand.Rand, r *events.Record) {
	o := randomRecord(rng)
	for _, change := range []func(){
		func() { r.TS = o.TS }, func() { r.Cookie = o.Cookie }, func() { r.CgroupID = o.CgroupID }, func() { r.PeerSK = o.PeerSK },
		func() { r.TimerNS = o.TimerNS }, func() { r.Count = o.Count }, func() { r.Local = o.Local }, func() { r.Remote = o.Remote },
		func() { r.NetNS = o.NetNS }, func() { r.PID = o.PID }, func() { r.UID = o.UID }, func() { r.RXPending = o.RXPending },
		func() { r.TXPending = o.TXPending }, func() { r.SRTTUS = o.SRTTUS }, func() { r.FD = o.FD }, func() { r.Err = o.Err },
		func() { r.Flags = o.Flags }, func() { r.Kind = o.Kind }, func() { r.Family = o.Family }, func() { r.Old = o.Old },
		func() { r.New = o.New }, func() { r.Comm = o.Comm },
	}[:] {
		if rng.IntN(22) == 0 {
			change()
		}
	}
}

func randomEntries(rng *rand.Rand, n int) []entry {
	var entries []entry
	last := map[factKey]string{}
	var recent []*events.Record
	for len(entries) < n {
		switch rng.IntN(12) {
		case 0:
			entries = append(entries, entry{batch: true})
		case 1:
			f := Fact{
				Topic: []string{"cgroup", "process", ""}[rng.IntN(3)], Key: uint64(rng.IntN(20)),
				Value: strings.Repeat("/v", rng.IntN(4)),
			}
			k := factKey{f.Topic, f.Key}
			if old, ok := last[k]; ok && old == f.Value {
				continue // would not be written
			}
			last[k] = f.Value
			entries = append(entries, entry{fact: &f})
		default:
			r := randomRecord(rng)
			if len(recent) > 0 && rng.IntN(3) > 0 {
				*r = *recent[rng.IntN(len(recent))]
				mutate(rng, r)
			}
			recent = append(recent, r)
			if len(recent) > 50 {
				recent = recent[1:]
			}
			entries = append(entries, entry{rec: r})
		}
	}
	return entries
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		want := randomEntries(rng, 1+rng.IntN(2000))
		meta := testMeta()
		switch seed % 3 {
		case 1:
			meta.Header.Filters, meta.Attrs = nil, map[string]string{}
		case 2:
			meta.Header = events.Header{TS: -1, Schema: math.MaxInt32}
		}
		gotMeta, got, err := decode(bytes.NewReader(encode(t, meta, want)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		compareMeta(t, gotMeta, meta)
		compare(t, got, want)
	}
}

// Each field is told on its own: one that is not would pass a test in which
// everything changes at once.
func TestEachField(t *testing.T) {
	changes := map[string]func(*events.Record){
		"TS": func(r *events.Record) { r.TS++ }, "SK": func(r *events.Record) { r.SK++ },
		"Cookie": func(r *events.Record) { r.Cookie++ }, "CgroupID": func(r *events.Record) { r.CgroupID++ },
		"PeerSK": func(r *events.Record) { r.PeerSK++ }, "TimerNS": func(r *events.Record) { r.TimerNS-- },
		"Count":       func(r *events.Record) { r.Count-- },
		"local":       func(r *events.Record) { r.Local = netip.MustParseAddrPort("10.0.0.9:80") },
		"local port":  func(r *events.Record) { r.Local = netip.MustParseAddrPort("10.0.0.1:8080") },
		"remote":      func(r *events.Record) { r.Remote = netip.MustParseAddrPort("[fe80::1%3]:4000") },
		"remote port": func(r *events.Record) { r.Remote = netip.AddrPortFrom(r.Remote.Addr(), 0) },
		"NetNS":       func(r *events.Record) { r.NetNS++ }, "PID": func(r *events.Record) { r.PID++ },
		"UID": func(r *events.Record) { r.UID-- }, "RXPending": func(r *events.Record) { r.RXPending++ },
		"TXPending": func(r *events.Record) { r.TXPending++ }, "SRTTUS": func(r *events.Record) { r.SRTTUS++ },
		"FD": func(r *events.Record) { r.FD++ }, "Err": func(r *events.Record) { r.Err++ },
		"Flags": func(r *events.Record) { r.Flags ^= events.FlagKernelSocket }, "Kind": func(r *events.Record) { r.Kind++ },
		"Family": func(r *events.Record) { r.Family++ }, "Old": func(r *events.Record) { r.Old++ },
		"New": func(r *events.Record) { r.New++ }, "Comm": func(r *events.Record) { r.Comm += "x" },
	}
	base := events.Record{
		TS: 1e9, SK: 0xffff888012345600, Cookie: 7, CgroupID: 99, PeerSK: 0xffff888012345700, TimerNS: 1,
		Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("[fe80::1%2]:4000"),
		NetNS: 4026531840, PID: 10, UID: 1000, Old: events.Established, New: events.CloseWait, Comm: "nginx",
		Kind: events.KindTransition, Family: 4,
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			changed := base
			change(&changed)
			if changed == base {
				t.Fatal("nothing was changed")
			}
			want := []entry{{rec: &base}, {rec: &changed}, {rec: &base}}
			_, got, err := decode(bytes.NewReader(encode(t, testMeta(), want)))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, want)
		})
	}
}

// smallEntries makes a recording of several blocks: a tick ends each.
func smallEntries() []entry {
	rng := rand.New(rand.NewPCG(7, 7))
	var all []entry
	for i := range 4 {
		all = append(all, entry{fact: &Fact{Topic: "cgroup", Key: uint64(i), Value: "/system.slice/nginx.service"}})
		for range 3 {
			all = append(all, entry{rec: randomRecord(rng)})
		}
		all = append(all, entry{rec: &events.Record{Kind: events.KindTick, TS: int64(i) * 1e9}}, entry{batch: true})
	}
	return all
}

// prefix fails the test unless got is the beginning of want.
func prefix(t *testing.T, got, want []entry) {
	t.Helper()
	if len(got) > len(want) {
		t.Fatalf("%d entries of %d", len(got), len(want))
	}
	compare(t, got, want[:len(got)])
}

func TestCutAtEveryByte(t *testing.T) {
	want := smallEntries()
	whole := encode(t, testMeta(), want)
	last := 0
	for n := range len(whole) {
		_, got, err := decode(bytes.NewReader(whole[:n]))
		var damage *DamageError
		switch {
		case n == 0:
			if !errors.Is(err, ErrNotRecording) {
				t.Fatalf("empty: got %v, want ErrNotRecording", err)
			}
		case !errors.As(err, &damage):
			t.Fatalf("cut at %d: got %v, want a DamageError", n, err)
		case !damage.Truncated || damage.Offset > int64(n) || !strings.Contains(err.Error(), fmt.Sprintf("byte %d", damage.Offset)):
			t.Fatalf("cut at %d: got %+v (%v)", n, damage, err)
		}
		prefix(t, got, want)
		if len(got) < last {
			t.Fatalf("cut at %d: %d entries, %d at %d", n, len(got), last, n-1)
		}
		last = len(got)
	}
	if last != len(want) {
		t.Fatalf("without the end alone: %d entries, want %d", last, len(want))
	}
}

// What a block holds is there when all of its bytes are.
func TestCutKeepsWholeBlocks(t *testing.T) {
	want := smallEntries()
	var b bytes.Buffer
	w, err := NewWriter(&b, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	per := len(want) / 4
	for i := range 4 {
		if err := put(w, want[i*per:(i+1)*per]); err != nil {
			t.Fatal(err)
		}
		// The tick has sent it off: a reader of now has all of it.
		_, got, err := decode(bytes.NewReader(b.Bytes()))
		var damage *DamageError
		if !errors.As(err, &damage) || damage.Offset != int64(b.Len()) || !damage.Truncated {
			t.Fatalf("after tick %d: got %v, want it cut off at %d", i, err, b.Len())
		}
		compare(t, got, want[:(i+1)*per])
	}
}

// A kill loses a second at most: of what comes each second, one kind of record or
// another always does.
func TestSentOff(t *testing.T) {
	for _, kind := range []events.Kind{events.KindTick, events.KindScanEnd} {
		var b bytes.Buffer
		w, err := NewWriter(&b, testMeta())
		if err != nil {
			t.Fatal(err)
		}
		want := []entry{{rec: &events.Record{Kind: events.KindTransition}}, {batch: true}, {rec: &events.Record{Kind: kind, TS: 5}}, {batch: true}}
		if err := put(w, want); err != nil {
			t.Fatal(err)
		}
		_, got, _ := decode(bytes.NewReader(b.Bytes()))
		compare(t, got, want)
	}
}

func TestFlipEveryBit(t *testing.T) {
	want := smallEntries()
	dir := t.TempDir()
	for _, name := range []string{"a.rec", "a.rec.gz", "a.rec.zst"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			writeFile(t, path, want)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bits, harmless := len(whole)*8, 0
			step, most := 1, 0
			if name != "a.rec" {
				// A compressor's stream has bits without meaning: gzip's time and
				// system, fill before the next byte.
				step, most = 11, bits/11/50
			}
			for i := 0; i < bits; i += step {
				whole[i/8] ^= 1 << (i % 8)
				meta, got, err := decode(bytes.NewReader(whole))
				prefix(t, got, want)
				if meta != nil {
					compareMeta(t, meta, testMeta())
				}
				if err == nil {
					harmless++
					compare(t, got, want)
				}
				whole[i/8] ^= 1 << (i % 8)
			}
			if harmless > most {
				t.Errorf("%d flips were not noticed, want at most %d", harmless, most)
			}
		})
	}
}

func writeFile(t *testing.T, path string, entries []entry) {
	t.Helper()
	w, err := Create(path, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	if err := put(w, entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// The blocks themselves being whole, their place matters.
func TestBlocksMoved(t *testing.T) {
	want := smallEntries()
	whole := encode(t, testMeta(), want)
	var starts []int
	for at := preambleSize; at < len(whole); {
		starts = append(starts, at)
		at += frameSize + int(uint32(whole[at+1])|uint32(whole[at+2])<<8)
	}
	starts = append(starts, len(whole))
	block := func(i int) []byte { return whole[starts[i]:starts[i+1]] }
	head := whole[:preambleSize]
	for name, changed := range map[string][]byte{
		"left out": slices.Concat(head, block(0), block(2), block(3), block(4), block(5)),
		"doubled":  slices.Concat(head, block(0), block(1), block(1), block(2), block(3), block(4), block(5)),
		"swapped":  slices.Concat(head, block(0), block(2), block(1), block(3), block(4), block(5)),
		"no meta":  slices.Concat(head, block(1), block(2), block(3), block(4), block(5)),
		"two ends": slices.Concat(whole, block(5)),
		"more":     slices.Concat(whole, []byte{0}),
	} {
		t.Run(name, func(t *testing.T) {
			_, got, err := decode(bytes.NewReader(changed))
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Truncated {
				t.Fatalf("got %v, want a DamageError", err)
			}
			prefix(t, got, want)
		})
	}
}

func TestVersions(t *testing.T) {
	whole := encode(t, testMeta(), nil)
	for version, want := range map[byte]string{
		2: "the recording has format version 2, newer than version 1, which this program reads",
		0: "the recording has format version 0, want version 1",
	} {
		whole[len(magic)] = version
		_, _, err := decode(bytes.NewReader(whole))
		var v *VersionError
		if !errors.As(err, &v) || v.Version != uint32(version) || err.Error() != want {
			t.Errorf("version %d: got %v, want %s", version, err, want)
		}
	}
}

func TestNotRecording(t *testing.T) {
	for _, in := range []string{"", "x", `{"type":"header"}`, "\xd4\xc3\xb2\xa1 a pcap file", "\x93tcptr\n\n\x01\x00\x00\x00"} {
		if _, err := NewReader(strings.NewReader(in)); !errors.Is(err, ErrNotRecording) {
			t.Errorf("%q: got %v, want ErrNotRecording", in, err)
		}
	}
}

func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "v1.rec")
	ts, seq := int64(5_000_000_000), 0
	rec := func(r events.Record) entry {
		seq++
		ts += 1_000_003 * int64(seq)
		r.TS = ts
		return entry{rec: &r}
	}
	a, b := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:40000")
	l := netip.MustParseAddrPort("[fe80::1%2]:443")
	full := events.Record{
		SK: 0xffff888012345600, Cookie: 0x1f, CgroupID: 4711, PeerSK: 0xffff888012345700, TimerNS: -5, Count: -1,
		Local: a, Remote: b, NetNS: 4026531840, PID: 100, UID: 1000, RXPending: 1, TXPending: 2, SRTTUS: 80_000, FD: 3, Err: 104,
		Flags: events.FlagActor | events.FlagTimer, Kind: events.KindTransition, Family: 6, Old: events.Established,
		New: events.CloseWait, Comm: "nginx",
	}
	want := []entry{
		rec(events.Record{Kind: events.KindScanBegin, NetNS: 4026531840}),
		rec(events.Record{Kind: events.KindScanEnd, NetNS: 4026531840, Count: -1}),
		{batch: true},
		{fact: &Fact{Topic: "cgroup", Key: 4711, Value: "/system.slice/nginx.service"}},
		rec(full),
		rec(events.Record{SK: 0xffff888012345e00, Local: l, Remote: l, Family: 6, Kind: events.KindSocket, New: events.Listen, Comm: "curl", PID: 7}),
		rec(events.Record{SK: full.SK, Kind: events.KindTransition, Old: events.CloseWait, New: events.LastAck, Comm: "nginx"}),
		{fact: &Fact{Topic: "cgroup", Key: 4712, Value: ""}},
		rec(events.Record{Kind: events.KindTick}),
		{batch: true},
		rec(events.Record{SK: full.SK, Kind: events.KindLost, Count: 12}),
		{batch: true},
	}
	got := encode(t, testMeta(), want)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, golden) {
		t.Errorf("the format has changed: that needs another Version\ngot\n%x\nwant\n%x", got, golden)
	}
	meta, entries, err := decode(bytes.NewReader(golden))
	if err != nil {
		t.Fatal(err)
	}
	compareMeta(t, meta, testMeta())
	compare(t, entries, want)
}

func TestCreate(t *testing.T) {
	want := randomEntries(rand.New(rand.NewPCG(3, 3)), 20_000)
	dir := t.TempDir()
	for name, start := range map[string]string{"a": magic, "a.gz": "\x1f\x8b", "a.zst": "\x28\xb5\x2f\xfd"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			writeFile(t, path, want)
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := st.Mode().Perm(); got != 0o600 {
				t.Errorf("mode %o, want 600", got)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(raw), start) {
				t.Errorf("it begins with %x, want %x", raw[:8], start)
			}
			meta, got, err := decode(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			compareMeta(t, meta, testMeta())
			compare(t, got, want)
		})
	}
}

// A tick sends everything off through a compressor too, and what is cut off later
// can be read up to there.
func TestCompressedCut(t *testing.T) {
	want := smallEntries()
	dir := t.TempDir()
	for _, name := range []string{"a.gz", "a.zst"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			w, err := Create(path, testMeta())
			if err != nil {
				t.Fatal(err)
			}
			if err := put(w, want); err != nil {
				t.Fatal(err)
			}
			killed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, got, err := decode(bytes.NewReader(killed))
			var damage *DamageError
			if !errors.As(err, &damage) || !damage.Truncated || !strings.Contains(err.Error(), "uncompressed") {
				t.Fatalf("got %v, want it cut off", err)
			}
			compare(t, got, want)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for n := range len(whole) {
				_, got, err := decode(bytes.NewReader(whole[:n]))
				if err == nil {
					t.Fatalf("cut at %d: no error", n)
				}
				prefix(t, got, want)
				if n >= len(killed) {
					compare(t, got, want)
				}
			}
		})
	}
}

func TestAbort(t *testing.T) {
	want := smallEntries()
	for _, name := range []string{"a", "a.gz", "a.zst"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := Create(path, testMeta())
		if err != nil {
			t.Fatal(err)
		}
		if err := put(w, want); err != nil {
			t.Fatal(err)
		}
		w.Record(want[1].rec)
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, got, err := decode(f)
		var damage *DamageError
		if !errors.As(err, &damage) || !damage.Truncated {
			t.Errorf("%s: got %v, want it cut off", name, err)
		}
		compare(t, got, append(slices.Clone(want), want[1]))
		if err := w.Abort(); err != nil {
			t.Errorf("%s: second Abort: %v", name, err)
		}
	}
}

// fullWriter has room for so many bytes.
type fullWriter struct {
	room  int
	calls int
}

var errFull = errors.New("no space left on device")

func (f *fullWriter) Write(b []byte) (int, error) {
	f.calls++
	if len(b) > f.room {
		n := f.room
		f.room = 0
		return n, errFull
	}
	f.room -= len(b)
	return len(b), nil
}

func TestWriteError(t *testing.T) {
	f := &fullWriter{room: 10_000}
	w, err := NewWriter(f, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	err = put(w, randomEntries(rand.New(rand.NewPCG(1, 1)), 20_000))
	if !errors.Is(err, errFull) {
		t.Fatalf("got %v, want %v", err, errFull)
	}
	calls := f.calls
	w.Record(&events.Record{})
	w.Fact("a", 1, "b")
	if err := w.EndBatch(); !errors.Is(err, errFull) {
		t.Errorf("EndBatch: got %v", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: got %v", err)
	}
	if f.calls != calls {
		t.Errorf("%d writes after the error", f.calls-calls)
	}
	if _, err := NewWriter(&fullWriter{}, testMeta()); !errors.Is(err, errFull) {
		t.Errorf("NewWriter: got %v", err)
	}
}

func TestTooLong(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for name, write := range map[string]func(*Writer){
		"comm":  func(w *Writer) { w.Record(&events.Record{Comm: long}) },
		"value": func(w *Writer) { w.Fact("a", 1, long) },
		"topic": func(w *Writer) { w.Fact(long, 1, "") },
	} {
		var b bytes.Buffer
		w, err := NewWriter(&b, testMeta())
		if err != nil {
			t.Fatal(err)
		}
		write(w)
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "65537 bytes") {
			t.Errorf("%s: got %v", name, err)
		}
		if _, _, err := decode(&b); err == nil {
			t.Errorf("%s: the recording is complete", name)
		}
	}
	meta := testMeta()
	meta.Header.Kernel = long
	if _, err := NewWriter(io.Discard, meta); err == nil {
		t.Error("kernel: no error")
	}
	// The longest entries of all still fit.
	most := long[1:]
	var want []entry
	for i := range 5 {
		r := randomRecord(rand.New(rand.NewPCG(uint64(i), 0)))
		r.Comm = fmt.Sprintf("%d%s", i, most[1:])
		r.Local = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(r.Comm), 1)
		want = append(want, entry{rec: r}, entry{fact: &Fact{Topic: r.Comm, Key: 1, Value: most}})
	}
	_, got, err := decode(bytes.NewReader(encode(t, testMeta(), want)))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, want)
}

// Writer and Reader forget the same at the same time.
func TestFactsBounded(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("v", 1000)
	for i := range uint64(maxFacts + 100) {
		w.Fact("small", i, "")
		if i%4 == 0 {
			w.Fact("large", i, value)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := drain(r); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(r.Facts().values, w.Facts().values) || r.Facts().bytes != w.Facts().bytes {
		t.Errorf("the reader knows %d facts, the writer %d", len(r.Facts().values), len(w.Facts().values))
	}
	sum := 0
	for k, v := range w.facts.values {
		sum += len(k.topic) + len(v)
	}
	if sum != w.facts.bytes || sum > maxFactBytes || len(w.facts.values) > maxFacts {
		t.Errorf("%d facts of %d bytes, counted %d", len(w.facts.values), sum, w.facts.bytes)
	}
	if v, ok := r.Facts().Get("small", maxFacts+99); !ok || v != "" {
		t.Errorf("the last one is %q, %v", v, ok)
	}
	if _, ok := r.Facts().Get("small", 0); ok {
		t.Error("the first one is still there")
	}
}

// churn is what a connection that lives for a moment causes, on both sides.
func churn(n int) []events.Record {
	var out []events.Record
	ts := int64(1e12)
	for i := range n {
		client := uint64(0xffff888000000000) + uint64(i%300)*2368
		server := client + 1<<24
		port := uint16(32768 + i%28000)
		local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), port)
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), 8080)
		for _, c := range []struct {
			sk       uint64
			pid      uint32
			comm     string
			old, new events.State
		}{
			{client, 100, "client", events.Close, events.SynSent}, {server, 0, "", events.Listen, events.SynRecv},
			{server, 0, "", events.SynRecv, events.Established}, {client, 0, "", events.SynSent, events.Established},
			{client, 100, "client", events.Established, events.FinWait1}, {server, 0, "", events.Established, events.CloseWait},
			{client, 0, "", events.FinWait1, events.FinWait2}, {server, 200, "server", events.CloseWait, events.LastAck},
			{client, 0, "", events.FinWait2, events.Close}, {server, 0, "", events.LastAck, events.Close},
		} {
			ts += 4321
			r := events.Record{
				TS: ts, SK: c.sk, Cookie: uint64(i)*2 + c.sk>>24&1, CgroupID: 5000, NetNS: 4026531840, PID: c.pid, UID: 1000,
				SRTTUS: 50, Kind: events.KindTransition, Family: 4, Old: c.old, New: c.new, Comm: c.comm, Local: local, Remote: remote,
				Flags: events.FlagHasSocket,
			}
			if c.sk == server {
				r.Local, r.Remote = remote, local
			}
			out = append(out, r)
		}
	}
	return out
}

func TestAllocs(t *testing.T) {
	records := churn(1000)
	w, err := NewWriter(io.Discard, testMeta())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(5, func() {
		for i := range records {
			w.Fact("cgroup", records[i].CgroupID, "/")
			w.Record(&records[i])
		}
		if err := w.EndBatch(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("writing allocates %v times in %d records", n, len(records))
	}

	var b bytes.Buffer
	if w, err = NewWriter(&b, testMeta()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		for i := range records {
			w.Record(&records[i])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n := testing.AllocsPerRun(5, func() {
		for range records {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 {
		t.Errorf("reading allocates %v times in %d records", n, len(records))
	}
}

func BenchmarkWrite(b *testing.B) {
	records := churn(10_000)
	for _, name := range []string{"plain", "a.gz", "a.zst"} {
		b.Run(name, func(b *testing.B) {
			c := &counter{}
			w, err := NewWriter(c, testMeta())
			if name != "plain" {
				w, err = Create(filepath.Join(b.TempDir(), name), testMeta())
			}
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w.Record(&records[i])
				if i++; i == len(records) {
					i = 0
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			if name == "plain" {
				b.ReportMetric(float64(c.n)/float64(b.N), "B/record")
			}
		})
	}
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

func BenchmarkRead(b *testing.B) {
	records := churn(10_000)
	var buf bytes.Buffer
	w, err := NewWriter(&buf, testMeta())
	if err != nil {
		b.Fatal(err)
	}
	for i := range records {
		w.Record(&records[i])
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; n < b.N; {
		r, err := NewReader(bytes.NewReader(buf.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		for ; n < b.N; n++ {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		r.Close()
	}
}
