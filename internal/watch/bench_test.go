package watch

import (
	"fmt"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// crowd returns one walk: sockets in CLOSE_WAIT, each held by one of the processes.
func crowd(f *feeder, sockets, processes int) []events.Record {
	out := []events.Record{{Kind: events.KindScanBegin, NetNS: ns1, TS: f.ts}}
	for i := range sockets {
		r := f.sock(uint64(i+1), events.CloseWait)
		r.TS, r.TimerNS = f.ts+int64(i), int64(i)*ms
		out = append(out, r)
	}
	out = append(out, events.Record{Kind: events.KindScanEnd, NetNS: ns1, TS: f.ts + ms*50},
		events.Record{Kind: events.KindHoldersBegin, TS: f.ts + ms*50})
	for i := range sockets {
		pid := uint32(i%processes + 2)
		if _, ok := f.procs[pid]; !ok {
			f.procs[pid] = process("leaky", 0)
		}
		out = append(out, events.Record{
			Kind: events.KindHolder, TS: f.ts + ms*50 + int64(i), SK: uint64(i + 1), Cookie: uint64(i + 1001),
			PID: pid, Comm: "leaky", FD: uint32(i + 3),
		})
	}
	return append(out, events.Record{Kind: events.KindHoldersEnd, TS: f.ts + ms*100})
}

var crowds = []struct{ sockets, processes int }{{15000, 1}, {3000, 3000}}

func TestCrowds(t *testing.T) {
	for _, c := range crowds {
		f := newFeeder(events.CloseWait)
		f.add(crowd(f, c.sockets, c.processes)...)
		f.ts += sec
		snap := f.snapshot()
		if snap.Total != c.sockets || len(snap.Groups) != c.processes {
			t.Errorf("got %d sockets in %d groups: want %d in %d", snap.Total, len(snap.Groups), c.sockets, c.processes)
		}
		seen := make(map[uint64]bool)
		for _, g := range snap.Groups {
			if g.Count != c.sockets/c.processes || g.Reasons[ReasonDrained] != g.Count {
				t.Fatalf("got %d sockets under %d, %v: want %d drained", g.Count, g.PID, g.Reasons, c.sockets/c.processes)
			}
			for _, s := range g.Sockets {
				seen[s.Cookie] = true
			}
		}
		if len(seen) != c.sockets {
			t.Errorf("got %d different sockets: want %d", len(seen), c.sockets)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("%d-in-%d", c.sockets, c.processes), func(b *testing.B) {
			f := newFeeder(events.CloseWait)
			records := crowd(f, c.sockets, c.processes)
			b.ReportAllocs()
			for b.Loop() {
				for i := range records {
					f.s.Add(&records[i])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(records)), "ns/record")
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("%d-in-%d", c.sockets, c.processes), func(b *testing.B) {
			f := newFeeder(events.CloseWait)
			f.add(crowd(f, c.sockets, c.processes)...)
			f.ts += sec
			b.ReportAllocs()
			for b.Loop() {
				f.ts += 2 * sec
				f.s.Snapshot(f.ts)
			}
		})
	}
}
