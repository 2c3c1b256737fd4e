package aggregate

import (
	"fmt"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// numbered is connection n of many, each with its address and cookie.
func numbered(n uint64) (sk uint64, who opt) {
	return 0xffff888000000000 + n<<12, func(r *events.Record) {
		flow("10.0.0.1:40000", fmt.Sprintf("10.0.1.%d:443", n))(r)
		r.Cookie = n
	}
}

// opens are the records of connection n until it is established.
func opens(n uint64, ts int64) []events.Record {
	sk, who := numbered(n)
	return recs(tr(ts, sk, CLOSE, SYNSENT, who), rec(events.KindConnect, ts+us, sk, who), tr(ts+2*us, sk, SYNSENT, EST, who))
}

// waits are the records that put connection n into TIME_WAIT.
func waits(n uint64, ts int64) []events.Record {
	sk, who := numbered(n)
	return recs(tr(ts, sk, EST, FW1, who), tr(ts+us, sk, FW1, FW2, who),
		alloc(ts+2*us, sk, sk+0x800, TW, who), tr(ts+2*us, sk, FW2, CLOSE, who))
}

// living returns the numbers of the connections in the table, in order of their ids.
func living(table *Table) (cookies []uint64) {
	byID := make(map[uint64]uint64)
	var most uint64
	table.Each(func(i *Info) bool {
		byID[i.ID] = i.Cookie
		most = max(most, i.ID)
		return true
	})
	for id := range most + 1 {
		if c, ok := byID[id]; ok {
			cookies = append(cookies, c)
		}
	}
	return cookies
}

// TestLimit: who goes first is in TIME_WAIT, the oldest of them, then the oldest
// of all, and a listener last.
func TestLimit(t *testing.T) {
	out := &recorder{}
	table := New(Config{MaxConns: 4}, out)
	add := func(records []events.Record) {
		t.Helper()
		for i := range records {
			table.Add(&records[i])
		}
		if table.Len() > 4 {
			t.Fatalf("%d connections", table.Len())
		}
		check(t, table)
	}
	want := func(cookies ...uint64) {
		t.Helper()
		if got := living(table); fmt.Sprint(got) != fmt.Sprint(cookies) {
			t.Errorf("living: got %v, want %v", got, cookies)
		}
	}
	listener := func(r *events.Record) { flow("0.0.0.0:443", "0.0.0.0:0")(r); r.Cookie = 9 }
	add(recs(tr(sec, a, CLOSE, LISTEN, listener)))
	add(opens(1, 2*sec))
	add(opens(2, 3*sec))
	add(opens(3, 4*sec))
	add(waits(3, 5*sec)) // it is younger than 2, and in TIME_WAIT longer
	add(waits(2, 6*sec))
	want(9, 1, 2, 3)
	add(opens(4, 7*sec))
	want(9, 1, 2, 4)
	add(opens(5, 8*sec))
	want(9, 1, 4, 5)
	add(opens(6, 9*sec)) // none is in TIME_WAIT
	want(9, 4, 5, 6)
	add(opens(7, 10*sec))
	add(opens(8, 11*sec))
	add(opens(10, 12*sec))
	want(9, 7, 8, 10)
	if got := table.Stats().Forgotten; got != 6 {
		t.Errorf("forgotten: got %d, want 6", got)
	}

	// Told once, with the next tick.
	out.lines = nil
	add(recs(tick(13 * sec)))
	add(recs(tick(14 * sec)))
	sk, who := numbered(1)
	// The end of one that was forgotten: it is another in the output, and nothing
	// is claimed of the time before.
	add(recs(tr(15*sec, sk, EST, CW, who), tr(16*sec, sk, CW, LASTACK, who), tr(17*sec, sk, LASTACK, CLOSE, who)))
	table.Flush()
	got, wanted := out.lines, lines(`
		13s limit 4 forgotten 6 of 6, untracked 0
		15s #11 ESTABLISHED>CLOSE_WAIT
		16s #11 CLOSE_WAIT>LAST_ACK in 1s
		17s #11 LAST_ACK>CLOSE in 1s
		17s #11 closed unknown by remote fin [ESTABLISHED=? CLOSE_WAIT=1s LAST_ACK=1s] total 2s ~
		17s limit 4 forgotten 1 of 7, untracked 0
	`)
	for i := range max(len(got), len(wanted)) {
		if i >= len(got) || i >= len(wanted) || got[i] != wanted[i] {
			t.Errorf("lines: got\n%q\nwant\n%q", got, wanted)
			break
		}
	}
}

// TestLimitWalk: what a walk meets beyond the limit is counted, and does not push
// out what the next walk would meet again.
func TestLimitWalk(t *testing.T) {
	for _, hooks := range []Hooks{HooksFull, HooksPoll} {
		out := &recorder{}
		table := New(Config{MaxConns: 8, Hooks: hooks}, out)
		walk := func(ts int64, states ...events.State) {
			b, e, x := begin(ts), end(ts+sec), tick(ts+sec)
			table.Add(&b)
			for n, s := range states {
				sk, who := numbered(uint64(n) + 1)
				r := seen(ts+int64(n)*us, sk, s, who)
				if s == TW {
					timer(50 * sec)(&r)
				}
				table.Add(&r)
			}
			table.Add(&e)
			table.Add(&x)
			check(t, table)
		}
		// Two in TIME_WAIT make room for the last of ten established ones.
		states := []events.State{TW, TW, EST, EST, EST, EST, EST, EST, EST, EST, EST, EST}
		walk(100*sec, states...)
		if got := fmt.Sprint(living(table)); got != "[3 4 5 6 7 8 9 10]" {
			t.Errorf("living: %s", got)
		}
		first := table.Stats()
		if first.Untracked != 2 || first.Forgotten != 2 {
			t.Errorf("after the first walk: %+v", first)
		}
		for n := range int64(5) {
			walk((200+n)*sec, states...)
		}
		if got := table.Stats(); got.Forgotten != first.Forgotten || got.Untracked != 4 {
			t.Errorf("after more walks: %+v, before %+v", got, first)
		}
		// What is gone is known to be at the end of a walk, and the next one has room.
		walk(300*sec, states[:8]...)
		walk(301*sec, states[:8]...)
		if got := table.Stats(); got.Untracked != 0 {
			t.Errorf("when there is room: %+v", got)
		}
		limits := 0
		for _, l := range out.lines {
			if len(l) > 5 && l[5:] == "limit 8 forgotten 2 of 2, untracked 2" {
				limits++
			}
		}
		if limits != 1 {
			t.Errorf("%d lines of the first walk:\n%q", limits, out.lines)
		}
	}
}

// TestLimitLarge: of very many the oldest are told to within a thousandth.
func TestLimitLarge(t *testing.T) {
	const limit = 20_000
	table := New(Config{MaxConns: limit}, &discard{})
	fill(table, limit)
	for n := range uint64(limit) {
		for _, r := range churn(n, sec+int64(n))[:6] {
			if r.SK&0x800 == 0 {
				table.Add(&r)
			}
		}
		if table.Len() > limit || table.Len() < limit-limit/forgetPart {
			t.Fatalf("%d connections", table.Len())
		}
	}
	check(t, table)
	// All that are left came last.
	table.Each(func(i *Info) bool {
		if i.ID <= limit-limit/1000 {
			t.Errorf("connection %d was not forgotten", i.ID)
			return false
		}
		return true
	})
	if got, want := table.Stats().Forgotten, uint64(limit); got < want || got > want+limit/forgetPart {
		t.Errorf("forgotten: got %d, want %d", got, want)
	}
}

// TestNamespacesEnd: a namespace that no walk has met is forgotten with its last
// connection.
func TestNamespacesEnd(t *testing.T) {
	table := New(Config{}, &discard{})
	for n := range uint32(1000) {
		for _, r := range churn(uint64(n), int64(n)*sec) {
			r.NetNS = 5000 + n
			table.Add(&r)
		}
		x := tick(int64(n)*sec + ms)
		table.Add(&x)
	}
	if got := len(table.spaces); got > 2 {
		t.Errorf("%d namespaces are kept", got)
	}
	check(t, table)
}
