package filter

import (
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

func TestDescendants(t *testing.T) {
	var d Descendants
	at := func(ts int64, kind events.Kind, pid uint32) {
		d.Add(&events.Record{TS: ts, Kind: kind, PID: pid})
	}
	has := func(want bool, pids ...uint32) {
		t.Helper()
		for _, pid := range pids {
			if got := d.Has(pid); got != want {
				t.Errorf("at %d: has %d: %v, want %v", d.now, pid, got, want)
			}
		}
	}
	const second = 1_000_000_000
	has(false, 7)
	at(1*second, events.KindFork, 7)
	at(2*second, events.KindFork, 8)
	has(true, 7, 8)
	has(false, 9)
	at(3*second, events.KindReaped, 7)
	at(3*second, events.KindReaped, 9) // nobody's
	has(false, 9)
	at(72*second, events.KindTransition, 1)
	has(true, 7, 8) // its connections are in TIME_WAIT still
	at(74*second, events.KindTransition, 1)
	has(false, 7) // its number may be another's
	at(75*second, events.KindTick, 0)
	has(false, 7)
	has(true, 8)
	at(76*second, events.KindFork, 7)
	has(true, 7)
	if len(d.until) != 2 {
		t.Errorf("%d processes are remembered, want 2", len(d.until))
	}
}

// However many are started, and however many ends are not told.
func TestDescendantsBounded(t *testing.T) {
	var d Descendants
	for pid := range uint32(3 * maxDescendants) {
		d.Add(&events.Record{Kind: events.KindFork, TS: int64(pid), PID: pid + 1})
		if pid%2 == 0 {
			d.Add(&events.Record{Kind: events.KindReaped, TS: int64(pid), PID: pid + 1})
		}
		if len(d.until) > maxDescendants {
			t.Fatalf("%d are kept", len(d.until))
		}
	}
	if !d.Has(2) {
		t.Error("one that lives was forgotten")
	}
}
