package watch

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// throng walks over n established sockets and m in TIME_WAIT, all in one namespace.
func throng(s *Store, ts int64, n, m int) {
	add := func(r events.Record) { s.Add(&r) }
	add(events.Record{Kind: events.KindScanBegin, TS: ts, NetNS: 7})
	for i := range n + m {
		r := events.Record{
			Kind: events.KindSocket, TS: ts + int64(i), NetNS: 7, SK: uint64(i) + 1, Cookie: uint64(i) + 1, Family: 4,
			Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), uint16(i)+1),
			New: events.Established,
		}
		// Those in TIME_WAIT come first, and the later the longer they have left.
		if i < m {
			r.New, r.Flags, r.TimerNS = events.TimeWait, events.FlagTimer, int64(i+1)*1e9
		}
		add(r)
	}
	add(events.Record{Kind: events.KindScanEnd, TS: ts + 1e6, NetNS: 7})
	add(events.Record{Kind: events.KindHoldersBegin, TS: ts + 1e6})
	add(events.Record{Kind: events.KindHoldersEnd, TS: ts + 2e6})
}

// TestRoom: at the limit only sockets in TIME_WAIT give way, and what is not kept
// is told with each answer, to the socket.
func TestRoom(t *testing.T) {
	for _, tc := range []struct {
		limit, n, m                  int
		established, timewait, outer int
	}{
		{0, 10, 10, 10, 10, 0},
		{20, 10, 10, 10, 10, 0},
		{12, 10, 10, 10, 2, 8},
		{10, 10, 10, 10, 0, 10},
		{6, 10, 10, 6, 0, 14},
		{1, 0, 3, 0, 1, 2},
	} {
		s := NewStore(Config{States: events.Set(events.Established, events.TimeWait), MaxSockets: tc.limit})
		for round := range int64(4) {
			throng(s, (round+1)*2e9, tc.n, tc.m)
			snap := s.Snapshot((round+1)*2e9 + 3e6)
			got := fmt.Sprint(snap.Counts[events.Established], snap.Counts[events.TimeWait], snap.Untracked)
			if want := fmt.Sprint(tc.established, tc.timewait, tc.outer); got != want {
				t.Errorf("%+v, round %d: got %s, want %s", tc, round, got, want)
			}
		}
		throng(s, 20e9, 0, 0)
		if snap := s.Snapshot(21e9); snap.Total != 0 || snap.Untracked != 0 {
			t.Errorf("%+v: when all are gone: %d, %d untracked", tc, snap.Total, snap.Untracked)
		}
	}
}

// TestRoomHooks: what the hooks tell of keeps to the limit as well.
func TestRoomHooks(t *testing.T) {
	s := NewStore(Config{States: events.Set(events.CloseWait, events.TimeWait), MaxSockets: 64})
	for i := range uint64(10_000) {
		sk, ts := 1<<20+i<<4, int64(i)*1e6
		s.Add(&events.Record{Kind: events.KindTransition, TS: ts, SK: sk, NetNS: 7, Old: events.Established, New: events.CloseWait})
		s.Add(&events.Record{Kind: events.KindTimeWaitAlloc, TS: ts, SK: sk + 1, PeerSK: sk + 2, NetNS: 7, New: events.TimeWait})
		s.Add(&events.Record{Kind: events.KindTimeWaitSchedule, TS: ts, SK: sk + 3, NetNS: 7, New: events.TimeWait})
		if len(s.socks) > 64 {
			t.Fatalf("%d sockets are kept", len(s.socks))
		}
	}
	if got := s.Snapshot(11e9).Counts[events.CloseWait]; got != 64 {
		t.Errorf("%d in CLOSE_WAIT are kept, want 64", got)
	}
}

// TestLeftForgotten: that a socket left is forgotten without an answer being asked
// for.
func TestLeftForgotten(t *testing.T) {
	s := NewStore(Config{States: events.Set(events.CloseWait)})
	for i := range uint64(100_000) {
		ts := int64(i) * 1e5 // ten within the time of doubt
		s.Add(&events.Record{Kind: events.KindTransition, TS: ts, SK: i + 1, NetNS: 7, Old: events.Established, New: events.CloseWait})
		s.Add(&events.Record{Kind: events.KindTransition, TS: ts, SK: i + 1, NetNS: 7, Old: events.CloseWait, New: events.LastAck})
	}
	if len(s.left) > leftLeast {
		t.Errorf("%d are remembered", len(s.left))
	}
}

// TestGrowthBounded: the histories of groups that are gone do not add up.
func TestGrowthBounded(t *testing.T) {
	s := NewStore(Config{States: events.Set(events.TimeWait)})
	for round := range int64(20) {
		for i := range 2000 {
			s.Add(&events.Record{
				Kind: events.KindTimeWaitAlloc, TS: round * 1e9, SK: 1, PeerSK: uint64(i) + 2, NetNS: 7, New: events.TimeWait, Family: 4,
				Local:  netip.MustParseAddrPort("10.0.0.1:40000"),
				Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(round), byte(i >> 8), byte(i)}), 80),
			})
		}
		s.Snapshot(round*1e9 + 1)
		clear(s.socks)
	}
	if len(s.growth) > growthMax {
		t.Errorf("%d histories are kept", len(s.growth))
	}
}
