package aggregate

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// discard is a sink that only counts.
type discard struct{ transitions, closed int }

func (d *discard) Transition(*events.Transition) { d.transitions++ }
func (d *discard) Closed(*events.Closed)         { d.closed++ }
func (d *discard) Lost(*events.Lost)             {}
func (d *discard) Resync(*events.Resync)         {}
func (d *discard) Limit(*events.Limit)           {}

// churn is the records of a connection and its other end, 22 of them, as hooks tell
// them: opened, closed by the client, TIME_WAIT, over.
func churn(n uint64, ts int64) []events.Record {
	var local [4]byte
	binary.BigEndian.PutUint32(local[:], uint32(n))
	local[0] = 10
	from := netip.AddrPortFrom(netip.AddrFrom4(local), uint16(20000+n%20000))
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 443)
	c, s, tw := 0xffff888000000000+n<<12, 0xffff888000000800+n<<12, 0xffff888000000c00+n<<12
	mine := func(r *events.Record) {
		r.Local, r.Remote, r.Family, r.Cookie = from, to, 4, 2*n+1
		r.CgroupID, r.UID = 77, 1000
	}
	theirs := func(r *events.Record) {
		r.Local, r.Remote, r.Family, r.Cookie = to, from, 4, 2*n+2
		r.CgroupID, r.UID = 78, 33
	}
	return recs(
		tr(ts, c, CLOSE, SYNSENT, mine, curl, func(r *events.Record) { r.Local = netip.AddrPortFrom(from.Addr(), 0) }),
		rec(events.KindConnect, ts+1, c, mine, pid(7, "curl")),
		tr(ts+2, s, LISTEN, SYNRECV),
		tr(ts+3, s, SYNRECV, EST, theirs, srtt(30)),
		tr(ts+4, c, SYNSENT, EST, mine),
		rec(events.KindAccept, ts+5, s, theirs, pid(8, "nginx")),
		tr(ts+6, c, EST, FW1, mine, curl),
		tr(ts+7, s, EST, CW, theirs),
		tr(ts+8, c, FW1, FW2, mine),
		alloc(ts+9, c, tw, FW2, mine),
		tr(ts+10, c, FW2, CLOSE, mine),
		tr(ts+11, s, CW, LASTACK, theirs, nginx),
		schedule(ts+12, tw, TW, 60*sec, mine),
		tr(ts+13, s, LASTACK, CLOSE, theirs),
		destroy(ts+14, tw, TW, 0, mine),
	)
}

// BenchmarkAdd is the cost of one record, with so many other connections around.
func BenchmarkAdd(b *testing.B) {
	for _, standing := range []int{0, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d", standing), func(b *testing.B) {
			table := New(Config{}, &discard{})
			fill(table, standing)
			const conns = 4096
			var records []events.Record
			for n := range uint64(conns) {
				records = append(records, churn(n, int64(n))...)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				table.Add(&records[i%len(records)])
			}
		})
	}
}

// BenchmarkAddAtLimit is the cost of one record where each connection takes the
// place of another: five records open one, of which none is ever closed.
func BenchmarkAddAtLimit(b *testing.B) {
	for _, limit := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d", limit), func(b *testing.B) {
			table := New(Config{MaxConns: limit}, &discard{})
			fill(table, limit)
			const conns = 4096
			records := make([]events.Record, 0, 3*conns)
			for n := range uint64(conns) {
				for _, r := range churn(n, int64(n))[:6] {
					if r.SK&0x800 == 0 {
						records = append(records, r)
					}
				}
			}
			n := len(records)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				r := &records[i%n]
				r.SK += 1 << 40 // another connection each time
				r.Cookie += 1 << 40
				table.Add(r)
			}
			if table.Len() > limit {
				b.Fatalf("tracked: got %d, want at most %d", table.Len(), limit)
			}
		})
	}
}

// fill opens n connections that stay.
func fill(table *Table, n int) {
	for i := range uint64(n) {
		records := churn(1<<24|i, int64(i))
		for k := range records[:5] {
			if records[k].SK&0x800 == 0 {
				table.Add(&records[k])
			}
		}
	}
}

// BenchmarkMemory is what a tracked connection costs, everything included.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			for b.Loop() {
				before := heapInUse()
				table := New(Config{}, &discard{})
				fill(table, n)
				grown := heapInUse() - before
				if table.Len() != n {
					b.Fatalf("tracked: got %d, want %d", table.Len(), n)
				}
				b.ReportMetric(float64(grown)/float64(n), "bytes/conn")
				runtime.KeepAlive(table)
			}
		})
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory holds the table to its promise: 200 bytes for each connection.
func TestMemory(t *testing.T) {
	const n = 200_000
	before := heapInUse()
	table := New(Config{}, &discard{})
	fill(table, n)
	if got := (heapInUse() - before) / n; got > 200 {
		t.Errorf("%d bytes for each connection, want at most 200", got)
	}
	runtime.KeepAlive(table)
}

// TestNoAllocs: a table that has been through its traffic once does not allocate.
func TestNoAllocs(t *testing.T) {
	table := New(Config{}, &discard{})
	var records []events.Record
	for n := range uint64(64) {
		records = append(records, churn(n, int64(n))...)
	}
	all := func() {
		for i := range records {
			table.Add(&records[i])
		}
	}
	all()
	if got := testing.AllocsPerRun(100, all); got != 0 {
		t.Errorf("%v allocations for %d records", got, len(records))
	}
	if table.Len() != 0 {
		t.Errorf("living: got %d, want 0", table.Len())
	}
}
