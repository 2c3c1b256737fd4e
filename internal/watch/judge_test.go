package watch

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// judged returns a Judge, and a feeder that makes sockets for it.
func judged(cfg Config, rules ...Rule) (*Judge, *feeder) {
	f := newFeeder()
	cfg.Processes = f.procs
	return NewJudge(cfg, rules), f
}

// step is one record, so many ms after the one before.
type step struct {
	after  int64 // ms
	record events.Record
}

func TestJudge(t *testing.T) {
	f := newFeeder()
	const pid = 700
	in := func(sk uint64, state events.State) events.Record { return f.sock(sk, state) }
	move := func(after int64, r events.Record, to events.State) step {
		r.Kind, r.Old, r.New = events.KindTransition, r.New, to
		return step{after, r}
	}
	closes := func(s step) step {
		s.record.Flags |= events.FlagActor
		s.record.PID, s.record.Comm = pid, "app"
		return s
	}
	// walk meets the sockets, of which pid holds the first in descriptor 5.
	walk := func(after int64, socks ...events.Record) []step {
		steps := []step{{after, events.Record{Kind: events.KindScanBegin, NetNS: ns1}}}
		for _, r := range socks {
			steps = append(steps, step{0, r})
		}
		steps = append(steps, step{0, events.Record{Kind: events.KindScanEnd, NetNS: ns1}}, step{0, events.Record{Kind: events.KindHoldersBegin}})
		if len(socks) > 0 {
			steps = append(steps, step{0, events.Record{Kind: events.KindHolder, SK: socks[0].SK, PID: pid, Comm: "app", FD: 5}})
		}
		return append(steps, step{0, events.Record{Kind: events.KindHoldersEnd}})
	}
	one := func(s step) []step { return []step{s} }
	join := func(parts ...[]step) []step { return slices.Concat(parts...) }

	established := in(1, events.Established)
	waits := in(1, events.CloseWait)
	waits.RXPending = 0
	older := waits
	older.TimerNS = 700 * ms // since the last segment
	other := in(2, events.CloseWait)
	fw2 := in(3, events.FinWait2)
	alloc := events.Record{
		Kind: events.KindTimeWaitAlloc, SK: 3, PeerSK: 30, Cookie: 1003, NetNS: ns1, Family: 4, New: events.FinWait2,
		Local: fw2.Local, Remote: fw2.Remote,
	}
	schedule := alloc
	schedule.Kind, schedule.SK, schedule.PeerSK, schedule.New = events.KindTimeWaitSchedule, 30, 0, events.TimeWait
	destroy := schedule
	destroy.Kind = events.KindTimeWaitDestroy

	closeWait := Rule{events.Set(events.CloseWait), 500 * ms}
	for _, tc := range []struct {
		name  string
		rules []Rule
		steps []step
		end   int64 // ms after the last step
		want  []string
	}{
		{"left just in time", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(100, waits), one(closes(move(399, waits, events.LastAck)))), 900, nil},
		{"left too late, between two looks", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(100, waits), one(closes(move(400, waits, events.LastAck)))), 900,
			[]string{"CLOSE_WAIT 500ms exact left app/[5] drained"}},
		{"never met by a walk: who closes it held it", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), one(closes(move(600, waits, events.LastAck)))), 0,
			[]string{"CLOSE_WAIT 600ms exact left app/- drained"}},
		{"a look meets it, it stays", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(600, waits)), 200,
			[]string{"CLOSE_WAIT 800ms exact there app/[5] drained"}},
		{"looks meet it, it leaves", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(600, waits), walk(300, waits), one(closes(move(100, waits, events.LastAck)))), 700,
			[]string{"CLOSE_WAIT 1000ms exact left app/[5] drained"}},
		{"there at the end, not long enough", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(100, waits)), 399, nil},
		{"there at the end, long enough", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(100, waits)), 400,
			[]string{"CLOSE_WAIT 500ms exact there app/[5] drained"}},
		{"older than the trace: a bound that is too short", []Rule{closeWait}, walk(0, waits), 400, nil},
		{"older than the trace: a bound that is enough", []Rule{closeWait}, walk(0, older), 0,
			[]string{"CLOSE_WAIT 700ms bound there app/[5] drained"}},
		{"another state", []Rule{{events.Set(events.Established), 500 * ms}}, join(
			one(move(0, established, events.CloseWait)), walk(900, waits)), 900, nil},
		{"its leaving was lost", []Rule{closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(600, waits), walk(600)), 600,
			[]string{"CLOSE_WAIT 600ms exact left app/[5] drained"}},
		{"the shortest of two rules for a state", []Rule{{events.Set(events.CloseWait), 9000 * ms}, closeWait}, join(
			one(move(0, established, events.CloseWait)), walk(600, waits)), 0,
			[]string{"CLOSE_WAIT 600ms exact there app/[5] drained"}},
		{"two states in a row", []Rule{closeWait, {events.Set(events.Established, events.LastAck), 100 * ms}}, join(
			one(move(0, in(1, events.SynRecv), events.Established)), one(move(200, established, events.CloseWait)),
			one(closes(move(600, waits, events.LastAck))), one(move(50, in(1, events.LastAck), events.Close))), 0,
			[]string{"CLOSE_WAIT 600ms exact left app/- drained", "ESTABLISHED 200ms exact left -"}},
		{"longest first", []Rule{closeWait}, join(
			one(move(0, in(2, events.Established), events.CloseWait)), one(move(100, established, events.CloseWait)), walk(600, waits, other)), 0,
			[]string{"CLOSE_WAIT 700ms exact there - drained", "CLOSE_WAIT 600ms exact there app/[5] drained"}},
		{"FIN_WAIT2 goes on in a timewait socket", []Rule{{events.Set(events.FinWait2, events.TimeWait), 500 * ms}}, join(
			one(move(0, in(3, events.FinWait1), events.FinWait2)), one(step{300, alloc}), one(move(0, fw2, events.Close)), one(step{300, schedule}),
			one(step{200, destroy})), 900,
			[]string{"FIN_WAIT2 600ms exact left -"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, _ := judged(Config{}, tc.rules...)
			ts := 100 * sec
			for _, s := range tc.steps {
				ts += s.after * ms
				r := s.record
				r.TS = ts
				j.Add(&r)
			}
			leaks, total := j.Leaks(ts + tc.end*ms)
			var got []string
			for _, l := range leaks {
				text := fmt.Sprintf("%s %dms %s %s ", l.State, l.Age/ms,
					map[bool]string{true: "exact", false: "bound"}[l.AgeExact], map[bool]string{true: "left", false: "there"}[l.Left])
				switch {
				case l.Holders != nil:
					text += fmt.Sprintf("%s/%d", l.Holders[0].Comm, l.Holders[0].FDs)
				case l.Owner.PID != 0:
					text += l.Owner.Comm + "/-"
				default:
					text += "-"
				}
				if l.Reason != ReasonNone {
					text += " " + l.Reason.String()
				}
				got = append(got, text)
			}
			if !slices.Equal(got, tc.want) || total != len(tc.want) {
				t.Errorf("%d leaks\n got %q\nwant %q", total, got, tc.want)
			}
		})
	}
}

// Sockets that nobody wants to know of are none.
func TestJudgeMatch(t *testing.T) {
	j, f := judged(Config{Match: func(s *Socket) bool { return s.Remote.Port() == 10002 }}, Rule{events.Set(events.CloseWait), sec})
	for _, sk := range []uint64{1, 2, 3} {
		r := f.sock(sk, events.CloseWait)
		r.Kind, r.Old, r.TS = events.KindTransition, events.Established, 100*sec
		j.Add(&r)
	}
	leaks, total := j.Leaks(102 * sec)
	if total != 1 || len(leaks) != 1 || leaks[0].Remote.Port() != 10002 {
		t.Errorf("got %d leaks: %v", total, leaks)
	}
}

// More than are kept are counted, each once.
func TestJudgeKept(t *testing.T) {
	j, f := judged(Config{}, Rule{events.Set(events.CloseWait), sec})
	j.kept = leaksKept - 2
	end := events.Record{Kind: events.KindHoldersEnd}
	for sk := uint64(1); sk <= 5; sk++ {
		r := f.sock(sk, events.CloseWait)
		r.Kind, r.Old, r.TS = events.KindTransition, events.Established, 100*sec
		j.Add(&r)
	}
	for i := range int64(3) {
		begin := end
		begin.Kind, begin.TS = events.KindHoldersBegin, (102+i)*sec
		j.Add(&begin)
		end.TS = begin.TS
		j.Add(&end)
	}
	leaks, total := j.Leaks(110 * sec)
	if total != 5 || len(leaks) != 2 {
		t.Errorf("got %d, %d of them kept; want 5 and 2", total, len(leaks))
	}
}

func TestLeakVerdict(t *testing.T) {
	leak := func(state events.State, reason Reason, rx uint32) *Leak {
		return &Leak{Socket: Socket{State: state, Reason: reason, RXPending: rx}}
	}
	if got := LeakVerdict([]*Leak{leak(events.Listen, ReasonNone, 0)}); got != "" {
		t.Errorf("got %q for LISTEN", got)
	}
	want := "2 sockets unread, 30 bytes waiting: the process does not read them; 1 socket for a reason that is not known"
	got := LeakVerdict([]*Leak{leak(events.CloseWait, ReasonUnread, 10), leak(events.CloseWait, ReasonUnread, 20), leak(events.CloseWait, ReasonNone, 0)})
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
