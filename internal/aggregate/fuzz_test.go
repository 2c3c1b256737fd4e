package aggregate

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// rawKinds are all kinds, and one that does not exist.
var rawKinds = []events.Kind{
	events.KindTransition, events.KindTransition, events.KindTransition, events.KindConnect, events.KindAccept,
	events.KindTimeWaitAlloc, events.KindTimeWaitSchedule, events.KindTimeWaitDestroy, events.KindSocket, events.KindSocket,
	events.KindHolder, events.KindLost, events.KindScanBegin, events.KindScanEnd, events.KindTick,
	events.KindHoldersBegin, events.KindHoldersEnd, 99,
}

const rawSize = 16

// rawRecord makes a record out of any 16 bytes: few addresses, cookies, ports and
// namespaces, so that records meet.
func rawRecord(b []byte, ts int64) events.Record {
	f := binary.LittleEndian.Uint16(b[6:])
	r := events.Record{
		Kind: rawKinds[int(b[0])%len(rawKinds)], TS: ts, SK: uint64(b[1] % 8), PeerSK: uint64(b[2] % 8),
		Cookie: uint64(b[3] % 6), Old: events.State(b[4] % 16), New: events.State(b[5] % 16),
		Flags: events.Flags(f), PID: uint32(b[8] % 4), Comm: "x", NetNS: uint32(b[9] % 3),
		TimerNS: int64(int8(b[10])) * sec, Count: int64(int8(b[11]) % 4), RXPending: uint32(b[12] % 3),
		SRTTUS: uint32(b[13] % 3), CgroupID: uint64(b[14] % 3), UID: uint32(b[14] % 2),
	}
	if b[15]&1 != 0 {
		r.Err = uint16([]int{0, errPipe, errConnAborted, errConnReset, errConnRefused, 110}[b[15]>>1%6])
	}
	switch b[15] >> 5 {
	case 0:
	case 1:
		r.Family = 6
		r.Local = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%2"), uint16(b[13]%3))
		r.Remote = netip.AddrPortFrom(netip.MustParseAddr("fe80::2%2"), uint16(b[12]%3))
	default:
		r.Family = 4
		r.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(b[13]%3))
		r.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), uint16(b[12]%3))
	}
	return r
}

// FuzzRecords: whatever comes, nothing panics, the table's parts agree, and each
// connection ends once and says nothing after its end.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), false)
	rng := rand.New(rand.NewPCG(1, 1))
	f.Add(noise(rng, 64), false)
	f.Add(noise(rng, 64), true)
	f.Fuzz(feed)
}

// TestNoise is FuzzRecords' search, without its guidance.
func TestNoise(t *testing.T) {
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		feed(t, noise(rng, 200), seed%2 == 0)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func noise(rng *rand.Rand, records int) []byte {
	b := make([]byte, records*rawSize)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func feed(t *testing.T, data []byte, poll bool) {
	cfg := Config{}
	if poll {
		cfg.Hooks = HooksPoll
	}
	feedTable(t, data, cfg)
	cfg.MaxConns = 5
	feedTable(t, data, cfg)
}

func feedTable(t *testing.T, data []byte, cfg Config) {
	out := &recorder{}
	table := New(cfg, out)
	ts := 1000 * sec
	for ; len(data) >= rawSize; data = data[rawSize:] {
		ts += int64(data[7])<<21 - 10*us // records change places now and then
		r := rawRecord(data, ts)
		table.Add(&r)
		table.Each(func(*Info) bool { return true })
		if cfg.MaxConns > 0 && table.Len() > cfg.MaxConns {
			t.Fatalf("%d connections, the limit is %d", table.Len(), cfg.MaxConns)
		}
	}
	check(t, table)
	table.Flush()
	check(t, table)
	over := make(map[uint64]bool)
	for i := range out.closed {
		if over[out.closed[i].ID] {
			t.Errorf("connection %d ended twice", out.closed[i].ID)
		}
		over[out.closed[i].ID] = true
	}
	for i := range out.transitions {
		x := &out.transitions[i]
		if x.InOld < events.Unknown || x.InOldMin < events.Unknown || x.InOld != events.Unknown && x.InOldMin != events.Unknown {
			t.Errorf("times: %+v", *x)
		}
		if x.New == events.Close && x.Old != events.Listen && !over[x.ID] {
			t.Errorf("connection %d went to CLOSE without an account", x.ID)
		}
	}
}
