package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// The comparer is itself under test here: it must accept a true output, and find
// each single lie in it.

const testNetNS = 4026533000

// sample is a connection on loopback, both ends and the listener, as in the case
// client_first, and one that the client resets.
func sample() (conns []*Conn, started, ready int64) {
	const ms = int64(time.Millisecond)
	srv, cli := &ProcID{100, "srv-1", 0}, &ProcID{200, "cli-2", 1000}
	started, ready = 1000*ms, 2000*ms
	laddr, raddr := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:40000")
	span := func(at int64) Span { return Span{at * ms, (at + 1) * ms} }

	l := &Conn{NetNS: testNetNS, Family: 4, Local: laddr}
	l.To("LISTEN", span(2100))
	l.Own("listen", srv, span(2100))
	l.To("CLOSE", span(2800))

	c := &Conn{NetNS: testNetNS, Family: 4, Local: raddr, Remote: laddr, Cookie: 0xabc, UID: 1000,
		End: &End{Opened: "active", Closer: "local", How: "fin", ClosedBy: cli, TimeWaitEnd: "expired"}}
	c.To("SYN_SENT", span(2200))
	c.To("ESTABLISHED", span(2200))
	c.Own("connect", cli, span(2200))
	c.To("FIN_WAIT1", span(2300))
	c.Own("close", cli, span(2300))
	c.To("FIN_WAIT2", span(2301))
	c.To("TIME_WAIT", span(2700))
	c.timer(timeWait, span(2700))

	s := &Conn{NetNS: testNetNS, Family: 4, Local: laddr, Remote: raddr,
		End: &End{Opened: "passive", Closer: "remote", How: "fin", ClosedBy: srv}}
	s.Steps = []Step{{Old: "LISTEN", New: "SYN_RECV", At: span(2200)}}
	s.To("ESTABLISHED", span(2200))
	s.Own("accept", srv, span(2200))
	s.To("CLOSE_WAIT", span(2301))
	s.To("LAST_ACK", span(2700))
	s.Own("close", srv, span(2700))
	s.To("CLOSE", span(2700))

	r := &Conn{NetNS: testNetNS, Family: 4, Local: netip.MustParseAddrPort("127.0.0.1:40001"), Remote: laddr, UID: 1000,
		End: &End{Opened: "active|unknown", Closer: "local", How: "rst", Reset: "linger0", ClosedBy: cli}}
	r.To("SYN_SENT", span(500)) // before the tracer
	r.To("ESTABLISHED", span(501))
	r.Own("connect", cli, span(500))
	r.To("CLOSE", span(2500))
	r.Own("close", cli, span(2500))
	return []*Conn{l, c, s, r}, started, ready
}

func ptr[T any](v T) *T { return &v }

// render says of the connections what is true, each transition in the middle of
// its bracket.
func render(t *testing.T, conns []*Conn, tier string, started, ready int64) *Output {
	t.Helper()
	out := &Output{Tier: tier, Started: started, Ready: ready}
	out.Lines = append(out.Lines, &Line{Type: "header", Schema: 1, Version: "1", Kernel: "6", Hooks: tier})
	for i, c := range conns {
		id := func(kind string, ts int64) *Line {
			l := &Line{Type: kind, Conn: fmt.Sprint(i), NetNS: ptr(c.NetNS), Family: ptr(c.Family), TS: ptr(ts),
				Time:  time.Unix(0, ts+wallOffset).UTC().Format(time.RFC3339Nano),
				LAddr: ptr(c.Local.Addr().String()), LPort: ptr(c.Local.Port())}
			if c.Remote.IsValid() {
				l.RAddr, l.RPort = ptr(c.Remote.Addr().String()), ptr(c.Remote.Port())
			}
			if c.Cookie != 0 {
				l.Cookie = ptr(fmt.Sprintf("%x", c.Cookie))
			}
			for _, o := range c.Owners {
				if o.Src == "accept" && o.Since.Hi > ts {
					continue
				}
				if o.Since.Lo <= ts && l.PID == nil {
					src := o.Src
					if o.Since.Hi < started {
						src = "scan"
					}
					l.PID, l.Comm, l.UID, l.Owner = ptr(o.Proc.PID), ptr(o.Proc.Comm), ptr(o.Proc.UID), ptr(src)
				}
			}
			return l
		}
		prev, first := int64(0), int64(0)
		states := map[string]*int64{}
		pre := c.Steps[0].At.Hi < started
		for _, s := range c.Steps {
			ts := (s.At.Lo + s.At.Hi) / 2
			if s.At.Hi < started {
				continue
			}
			l := id("transition", ts)
			l.Old, l.New = s.Old, s.New
			switch {
			case first != 0 && s.Old != "SYN_RECV":
				l.InOldNS = ptr(ts - prev)
				states[s.Old] = l.InOldNS
			case first == 0 && pre:
				l.InOldMinNS = ptr(ts - ready)
			}
			if first == 0 {
				first = ts
			}
			prev = ts
			out.Lines = append(out.Lines, l)
		}
		if e := c.End; e != nil {
			l := id("closed", prev)
			l.Opened, l.Closer, l.How, l.States, l.TotalNS, l.Exact = e.Opened, e.Closer, e.How, states, ptr(prev-first), ptr(!pre)
			if pre {
				l.Opened = "unknown"
			}
			if tier == "poll" && e.TimeWaitEnd != "" {
				l.Exact = ptr(false)
			}
			if e.Reset != "" {
				l.Reset = ptr(e.Reset)
			}
			if e.TimeWaitEnd != "" {
				l.TimeWaitEnd = ptr(e.TimeWaitEnd)
			}
			if e.ClosedBy != nil {
				l.ClosedBy = &Process{ptr(e.ClosedBy.PID), ptr(e.ClosedBy.Comm)}
			}
			out.Lines = append(out.Lines, l)
		}
	}
	for _, l := range out.Lines {
		raw, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		l.text = raw
	}
	return out
}

// find returns the line of connection conn (its index in the sample) that goes
// to the state next, or its closed line.
func find(t *testing.T, out *Output, conn int, next string) (int, *Line) {
	t.Helper()
	for i, l := range out.Lines {
		if l.Conn == fmt.Sprint(conn) && (l.New == next || next == "closed" && l.Type == "closed") {
			return i, l
		}
	}
	t.Fatalf("no line of connection %d to %s", conn, next)
	return 0, nil
}

func TestComparerAcceptsTruth(t *testing.T) {
	for _, tier := range []string{"fentry", "kprobe", "poll"} {
		conns, started, ready := sample()
		for _, p := range compare(render(t, conns, tier, started, ready), conns, map[uint32]string{testNetNS: "x"}) {
			t.Errorf("%s: %s", tier, p.Text)
		}
	}
}

func TestComparerFindsLies(t *testing.T) {
	const listener, client, server, reset = 0, 1, 2, 3
	change := func(conn int, next string, f func(l *Line)) func(*testing.T, *Output) {
		return func(t *testing.T, out *Output) {
			_, l := find(t, out, conn, next)
			f(l)
		}
	}
	remove := func(conn int, next string) func(*testing.T, *Output) {
		return func(t *testing.T, out *Output) {
			i, _ := find(t, out, conn, next)
			out.Lines = slices.Delete(out.Lines, i, i+1)
		}
	}
	double := func(conn int, next string) func(*testing.T, *Output) {
		return func(t *testing.T, out *Output) {
			i, l := find(t, out, conn, next)
			out.Lines = slices.Insert(out.Lines, i, l)
		}
	}
	lies := []struct {
		name string
		lie  func(*testing.T, *Output)
	}{
		{"no header", func(_ *testing.T, out *Output) { out.Lines[0].Type = "transition" }},
		{"other schema", func(_ *testing.T, out *Output) { out.Lines[0].Schema = 2 }},
		{"other tier", func(_ *testing.T, out *Output) { out.Lines[0].Hooks = "other" }},
		{"empty", func(_ *testing.T, out *Output) { out.Lines = nil }},
		{"lost", func(_ *testing.T, out *Output) { out.Lines = append(out.Lines, &Line{Type: "lost"}) }},
		{"transition missing", remove(client, "FIN_WAIT2")},
		{"first transition missing", remove(client, "SYN_SENT")},
		{"transition doubled", double(server, "CLOSE_WAIT")},
		{"closed missing", remove(server, "closed")},
		{"closed doubled", double(server, "closed")},
		{"connection missing", func(_ *testing.T, out *Output) {
			out.Lines = slices.DeleteFunc(out.Lines, func(l *Line) bool { return l.Conn == "2" })
		}},
		{"connection too many", func(t *testing.T, out *Output) {
			_, l := find(t, out, client, "SYN_SENT")
			extra := *l
			extra.Conn, extra.LPort = "99", ptr(uint16(40009))
			out.Lines = append(out.Lines, &extra)
		}},
		{"same connection twice", func(_ *testing.T, out *Output) {
			for _, l := range slices.Clone(out.Lines) {
				if l.Conn == "1" {
					extra := *l
					extra.Conn = "99"
					out.Lines = append(out.Lines, &extra)
				}
			}
		}},
		{"closed for a listener", func(t *testing.T, out *Output) {
			_, l := find(t, out, listener, "CLOSE")
			extra := *l
			extra.Type, extra.New = "closed", ""
			out.Lines = append(out.Lines, &extra)
		}},
		{"listener not heard of", remove(listener, "LISTEN")},
		{"wrong state", change(client, "FIN_WAIT2", func(l *Line) { l.New = "CLOSING" })},
		{"false CLOSE", change(client, "TIME_WAIT", func(l *Line) { l.New = "CLOSE" })},
		{"order", func(t *testing.T, out *Output) {
			i, _ := find(t, out, client, "FIN_WAIT1")
			out.Lines[i], out.Lines[i+1] = out.Lines[i+1], out.Lines[i]
		}},
		{"closed before the end", func(t *testing.T, out *Output) {
			i, _ := find(t, out, server, "closed")
			out.Lines[i], out.Lines[i-1] = out.Lines[i-1], out.Lines[i]
		}},
		{"too early", change(server, "LAST_ACK", func(l *Line) { *l.TS -= 1e6; *l.InOldNS -= 1e6 })},
		{"too late", change(server, "LAST_ACK", func(l *Line) { *l.TS += 1e6; *l.InOldNS += 1e6 })},
		{"TIME_WAIT of 59 s", change(client, "CLOSE", func(l *Line) { *l.TS -= 1e9; *l.InOldNS -= 1e9 })},
		{"no time", change(client, "CLOSE", func(l *Line) { l.TS = nil })},
		{"wall time of another day", change(client, "FIN_WAIT1", func(l *Line) { l.Time = "2001-01-01T00:00:00Z" })},
		{"wall time not in UTC", change(client, "FIN_WAIT1", func(l *Line) { l.Time = time.Unix(0, *l.TS+wallOffset).Format(time.RFC3339Nano[:29] + "+00:00") })},
		{"in_old_ns wrong", change(client, "FIN_WAIT2", func(l *Line) { *l.InOldNS++ })},
		{"in_old_ns null", change(client, "FIN_WAIT2", func(l *Line) { l.InOldNS = nil })},
		{"in_old_ns of the first", change(client, "SYN_SENT", func(l *Line) { l.InOldNS = ptr(int64(0)) })},
		{"in_old_ns of SYN_RECV 0", change(server, "ESTABLISHED", func(l *Line) { l.InOldNS = ptr(int64(0)) })},
		{"in_old_ns of SYN_RECV too long", change(server, "ESTABLISHED", func(l *Line) { l.InOldNS = ptr(int64(2e6)) })},
		{"existed before, known as 0", change(reset, "CLOSE", func(l *Line) { l.InOldNS, l.InOldMinNS = ptr(int64(0)), nil })},
		{"existed before, no bound", change(reset, "CLOSE", func(l *Line) { l.InOldMinNS = nil })},
		{"existed before, bound 0", change(reset, "CLOSE", func(l *Line) { l.InOldMinNS = ptr(int64(0)) })},
		{"existed before, bound too high", change(reset, "CLOSE", func(l *Line) { l.InOldMinNS = ptr(int64(2400e6)) })},
		{"existed before, said to be exact", change(reset, "closed", func(l *Line) { l.Exact = ptr(true) })},
		{"wrong pid", change(client, "FIN_WAIT1", func(l *Line) { l.PID = ptr(100) })},
		{"wrong comm", change(client, "FIN_WAIT1", func(l *Line) { l.Comm = ptr("srv-1") })},
		{"peer's pid in softirq", change(server, "CLOSE_WAIT", func(l *Line) { l.PID, l.Comm, l.UID = ptr(200), ptr("cli-2"), ptr(1000) })},
		{"owner before accept", change(server, "SYN_RECV", func(l *Line) { l.PID, l.Comm, l.UID, l.Owner = ptr(100), ptr("srv-1"), ptr(0), ptr("close") })},
		{"owner by no known way", change(client, "FIN_WAIT2", func(l *Line) { l.Owner = ptr("accept") })},
		{"owner unknown", change(client, "FIN_WAIT2", func(l *Line) { l.PID, l.Comm, l.UID, l.Owner = nil, nil, nil, nil })},
		{"owner in part", change(server, "SYN_RECV", func(l *Line) { l.Owner = ptr("accept") })},
		{"listener without owner", change(listener, "LISTEN", func(l *Line) { l.PID, l.Comm, l.UID, l.Owner = nil, nil, nil, nil })},
		{"wrong uid", change(client, "FIN_WAIT2", func(l *Line) { l.UID = ptr(0) })},
		{"wrong cookie", change(client, "FIN_WAIT2", func(l *Line) { l.Cookie = ptr("abd") })},
		{"wrong family", change(client, "FIN_WAIT2", func(l *Line) { l.Family = ptr(6) })},
		{"port 0", func(_ *testing.T, out *Output) {
			for _, l := range out.Lines {
				if l.Conn == "1" {
					l.LPort = ptr(uint16(0))
				}
			}
		}},
		{"two identities", change(client, "FIN_WAIT2", func(l *Line) { l.RPort = ptr(uint16(81)) })},
		{"wrong closer", change(client, "closed", func(l *Line) { l.Closer = "remote" })},
		{"wrong opened", change(client, "closed", func(l *Line) { l.Opened = "passive" })},
		{"wrong how", change(client, "closed", func(l *Line) { l.How = "rst" })},
		{"wrong reset", change(reset, "closed", func(l *Line) { l.Reset = ptr("unread") })},
		{"no reset", change(reset, "closed", func(l *Line) { l.Reset = nil })},
		{"reset of a clean close", change(client, "closed", func(l *Line) { l.Reset = ptr("peer") })},
		{"wrong closed_by", change(client, "closed", func(l *Line) { l.ClosedBy = &Process{ptr(100), ptr("srv-1")} })},
		{"no closed_by", change(client, "closed", func(l *Line) { l.ClosedBy = nil })},
		{"inexact", change(server, "closed", func(l *Line) { l.Exact = ptr(false) })},
		{"TIME_WAIT ended otherwise", change(client, "closed", func(l *Line) { l.TimeWaitEnd = ptr("reused") })},
		{"TIME_WAIT that never was", change(server, "closed", func(l *Line) { l.TimeWaitEnd = ptr("expired") })},
		{"overflow", change(client, "closed", func(l *Line) { l.TimeWaitOverflow = true })},
		{"states wrong", change(client, "closed", func(l *Line) { l.States["FIN_WAIT2"] = ptr(int64(20000)) })},
		{"states lacks one", change(client, "closed", func(l *Line) { delete(l.States, "TIME_WAIT") })},
		{"states has one more", change(client, "closed", func(l *Line) { l.States["CLOSING"] = ptr(int64(1)) })},
		{"total wrong", change(client, "closed", func(l *Line) { *l.TotalNS++ })},
		{"total null", change(client, "closed", func(l *Line) { l.TotalNS = nil })},
	}
	for _, tc := range lies {
		t.Run(tc.name, func(t *testing.T) {
			conns, started, ready := sample()
			out := render(t, conns, "fentry", started, ready)
			tc.lie(t, out)
			if problems := compare(out, conns, map[uint32]string{testNetNS: "x"}); len(problems) == 0 {
				t.Error("not found")
			}
		})
	}
}

// TestParseLineDemandsFields: a field that the schema has is there, if only as null.
func TestParseLineDemandsFields(t *testing.T) {
	for kind, fields := range fieldsOf {
		whole := map[string]any{"type": kind}
		for _, f := range fields {
			whole[f] = nil
		}
		text, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseLine(text); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, f := range fields {
			delete(whole, f)
			text, err := json.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parseLine(text); err == nil {
				t.Errorf("%s without %s: accepted", kind, f)
			}
			whole[f] = nil
		}
	}
	if _, err := parseLine([]byte(`{"type":`)); err == nil {
		t.Error("broken JSON: accepted")
	}
}

// TestUnseenExcusesNoMore: of as many connections as transitions were told to be unseen.
func TestUnseenExcusesNoMore(t *testing.T) {
	a, b := &Conn{}, &Conn{}
	problems := func() []Problem { return []Problem{{Conn: a}, {Conn: a}, {Conn: b}, {Text: "of none"}} }
	for _, tt := range []struct{ unseen, rest, excused int }{{0, 4, 0}, {1, 4, 0}, {2, 1, 2}, {3, 1, 2}} {
		if rest, excused := withoutUnseen(problems(), tt.unseen); len(rest) != tt.rest || excused != tt.excused {
			t.Errorf("%d unseen: %d problems are left, %d connections excused; want %d, %d", tt.unseen, len(rest), excused, tt.rest, tt.excused)
		}
	}
}
