package aggregate

import (
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

const (
	cli, srv = "10.0.0.1:40000", "10.0.0.2:80"
	any4     = "0.0.0.0:80"
	a, b, w  = uint64(0xa00), uint64(0xb00), uint64(0xc00) // kernel addresses
)

var (
	out    = flow(cli, srv)
	inward = flow(srv, cli)
	noPort = flow("10.0.0.1:0", srv)
	curl   = by(7, "curl")
	nginx  = by(8, "nginx")
)

func seq(parts ...[]events.Record) []events.Record { return slices.Concat(parts...) }

func recs(r ...events.Record) []events.Record { return r }

// opensActive: a connect at ts, established 1 ms later.
func opensActive(ts int64, sk, ck uint64) []events.Record {
	return recs(
		tr(ts, sk, CLOSE, SYNSENT, noPort, curl, cookie(ck)),
		rec(events.KindConnect, ts+10*us, sk, out, pid(7, "curl"), cookie(ck)),
		tr(ts+ms, sk, SYNSENT, EST, out, cookie(ck)),
	)
}

// opensPoll is opensActive where connects are not told.
func opensPoll(ts int64, sk, ck uint64) []events.Record {
	all := opensActive(ts, sk, ck)
	return recs(all[0], all[2])
}

// opensPassive: a handshake of 500 µs ends at ts, accepted 1 ms later.
func opensPassive(ts int64, sk, ck uint64) []events.Record {
	return recs(
		tr(ts, sk, LISTEN, SYNRECV, func(r *events.Record) { r.Local = addrPort(any4) }),
		tr(ts+2*us, sk, SYNRECV, EST, inward, srtt(500), cookie(ck)),
		rec(events.KindAccept, ts+ms, sk, inward, pid(8, "nginx"), cookie(ck)),
	)
}

const (
	openActive = `
		0s #1 CLOSE>SYN_SENT connect=7/curl
		1ms #1 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
	`
	openPassive = `
		0s #1 LISTEN>SYN_RECV
		2us #1 SYN_RECV>ESTABLISHED in 500us
	`
)

func TestLives(t *testing.T) {
	for _, s := range []scenario{
		{
			name: "client closes first, server 600 ms later: the client's side",
			records: seq(opensActive(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, flags(held), cookie(1)),
				tr(11*ms, a, FW1, FW2, out, flags(orphan), cookie(1)),
				alloc(11*ms+us, a, w, FW2, out, cookie(1)),
				tr(11*ms+2*us, a, FW2, CLOSE, out, flags(orphan), cookie(1)),
				schedule(611*ms, w, TW, 60*sec, out, cookie(1)),
				destroy(61*sec, w, TW, -389*ms, out, cookie(1)),
			)),
			want: openActive + `
				10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				11ms #1 FIN_WAIT1>FIN_WAIT2 in 1ms connect=7/curl
				611ms #1 FIN_WAIT2>TIME_WAIT in 600ms connect=7/curl
				61s #1 TIME_WAIT>CLOSE in 60389ms connect=7/curl
				61s #1 closed active by local fin tw=expired connect=7/curl closed_by=7/curl [SYN_SENT=1ms ESTABLISHED=9ms FIN_WAIT1=1ms FIN_WAIT2=600ms TIME_WAIT=60389ms] total 61s
			`,
		},
		{
			name: "the server's side of the same",
			records: seq(opensPassive(0, b, 2), recs(
				tr(10*ms, b, EST, CW, inward, flags(finRecvd|held), cookie(2)),
				tr(610*ms, b, CW, LASTACK, inward, nginx, flags(finRecvd|held), cookie(2)),
				tr(611*ms, b, LASTACK, CLOSE, inward, flags(finRecvd|orphan), cookie(2)),
			)),
			want: openPassive + `
				10ms #1 ESTABLISHED>CLOSE_WAIT in 9998us accept=8/nginx
				610ms #1 CLOSE_WAIT>LAST_ACK in 600ms accept=8/nginx
				611ms #1 LAST_ACK>CLOSE in 1ms accept=8/nginx
				611ms #1 closed passive by remote fin accept=8/nginx closed_by=8/nginx [SYN_RECV=500us ESTABLISHED=9998us CLOSE_WAIT=600ms LAST_ACK=1ms] total 611498us
			`,
		},
		{
			name: "shutdown, then data the other way: FIN_WAIT2 with a process, TIME_WAIT at the peer's FIN",
			records: seq(opensActive(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, flags(held), cookie(1)),
				tr(11*ms, a, FW1, FW2, out, flags(held), cookie(1)),
				alloc(500*ms, a, w, TW, out, cookie(1)),
				tr(500*ms+us, a, FW2, CLOSE, out, flags(held|finRecvd), cookie(1)),
			)),
			want: openActive + `
				10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				11ms #1 FIN_WAIT1>FIN_WAIT2 in 1ms connect=7/curl
				500ms #1 FIN_WAIT2>TIME_WAIT in 489ms connect=7/curl
			`,
			living: 1,
		},
		{
			name: "FINs cross: CLOSING, closer both",
			records: seq(opensActive(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, cookie(1)),
				tr(15*ms, a, FW1, CLOSING, out, flags(finRecvd|orphan), cookie(1)),
				alloc(20*ms, a, w, TW, out, cookie(1)),
				tr(20*ms+us, a, CLOSING, CLOSE, out, flags(finRecvd|orphan), cookie(1)),
				destroy(81*sec, w, TW, 0, out, cookie(1)),
			)),
			want: openActive + `
				10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				15ms #1 FIN_WAIT1>CLOSING in 5ms connect=7/curl
				20ms #1 CLOSING>TIME_WAIT in 5ms connect=7/curl
				81s #1 TIME_WAIT>CLOSE in 80980ms connect=7/curl
				81s #1 closed active by both fin tw=expired connect=7/curl closed_by=7/curl [SYN_SENT=1ms ESTABLISHED=9ms FIN_WAIT1=5ms CLOSING=5ms TIME_WAIT=80980ms] total 81s
			`,
		},
		{
			name: "opened and closed simultaneously: six states before CLOSE",
			records: recs(
				tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)),
				rec(events.KindConnect, us, a, out, pid(7, "curl"), cookie(1)),
				tr(1*ms, a, SYNSENT, SYNRECV, out, cookie(1)),
				tr(2*ms, a, SYNRECV, EST, out, srtt(77), cookie(1)),
				tr(3*ms, a, EST, FW1, out, curl, cookie(1)),
				tr(4*ms, a, FW1, CLOSING, out, flags(finRecvd), cookie(1)),
				alloc(5*ms, a, w, TW, out, cookie(1)),
				tr(5*ms+us, a, CLOSING, CLOSE, out, flags(finRecvd), cookie(1)),
				destroy(65*ms, w, TW, 59*sec, out, flags(bySegment|events.FlagSegmentRST)),
			),
			want: `
				0s #1 CLOSE>SYN_SENT connect=7/curl
				1ms #1 SYN_SENT>SYN_RECV in 1ms connect=7/curl
				2ms #1 SYN_RECV>ESTABLISHED in 1ms connect=7/curl
				3ms #1 ESTABLISHED>FIN_WAIT1 in 1ms connect=7/curl
				4ms #1 FIN_WAIT1>CLOSING in 1ms connect=7/curl
				5ms #1 CLOSING>TIME_WAIT in 1ms connect=7/curl
				65ms #1 TIME_WAIT>CLOSE in 60ms connect=7/curl
				65ms #1 closed active by both fin tw=reset connect=7/curl closed_by=7/curl [SYN_SENT=1ms SYN_RECV=1ms ESTABLISHED=1ms FIN_WAIT1=1ms CLOSING=1ms TIME_WAIT=60ms] total 65ms
			`,
		},
		{
			name: "a listener, closed and used again",
			records: recs(
				tr(1*ms, a, CLOSE, LISTEN, flow(any4, "0.0.0.0:0"), nginx, cookie(9)),
				tr(5*sec, a, LISTEN, CLOSE, flow(any4, "0.0.0.0:0"), nginx, cookie(9)),
				tr(6*sec, a, CLOSE, LISTEN, flow(any4, "0.0.0.0:0"), nginx, cookie(9)),
			),
			want: `
				1ms #1 CLOSE>LISTEN listen=8/nginx
				5s #1 LISTEN>CLOSE in 4999ms listen=8/nginx
				6s #2 CLOSE>LISTEN listen=8/nginx
			`,
			living: 1,
		},
		{
			name: "SYN_RECV without a round trip time: unknown, not the tracepoint's microseconds",
			records: recs(
				tr(0, a, LISTEN, SYNRECV),
				tr(9*us, a, SYNRECV, EST, inward, cookie(1)),
				tr(ms, a, EST, CW, inward, cookie(1)),
				tr(2*ms, a, CW, CLOSE, inward, errno(errPipe), cookie(1)),
			),
			want: `
				0s #1 LISTEN>SYN_RECV
				9us #1 SYN_RECV>ESTABLISHED
				1ms #1 ESTABLISHED>CLOSE_WAIT in 991us
				2ms #1 CLOSE_WAIT>CLOSE in 1ms EPIPE
				2ms #1 closed passive by remote rst/peer EPIPE [SYN_RECV=? ESTABLISHED=991us CLOSE_WAIT=1ms] total 2ms
			`,
		},
	} {
		t.Run(s.name, s.run)
	}
}

// The table "How did it close?".
func TestHow(t *testing.T) {
	toClose := func(old events.State, opts ...opt) []events.Record {
		var r []events.Record
		switch old {
		case SYNSENT:
			r = opensActive(0, a, 1)[:2]
		default:
			r = opensActive(0, a, 1)
		}
		path := map[events.State][]events.State{
			CW: {EST, CW}, LASTACK: {EST, CW, LASTACK}, FW1: {EST, FW1}, FW2: {EST, FW1, FW2}, CLOSING: {EST, FW1, CLOSING},
		}[old]
		for n := 1; n < len(path); n++ {
			o := []opt{out, cookie(1)}
			if path[n] == FW1 || path[n] == LASTACK {
				o = append(o, curl)
			}
			r = append(r, tr(int64(n+1)*ms, a, path[n-1], path[n], o...))
		}
		r = append(r, tr(10*ms, a, old, CLOSE, append([]opt{out, cookie(1)}, opts...)...))
		return append(r, tick(2*sec))
	}
	const task = events.FlagLocked | events.FlagHasSocket
	for _, tt := range []struct {
		name  string
		old   events.State
		opts  []opt
		want  events.Closed
		errno uint16
	}{
		{"peer's RST in ESTABLISHED", EST, []opt{errno(errConnReset)},
			events.Closed{How: events.HowRST, Reset: events.ResetPeer, Closer: events.SideRemote}, errConnReset},
		{"peer's RST in CLOSE_WAIT", CW, []opt{errno(errPipe)},
			events.Closed{How: events.HowRST, Reset: events.ResetPeer, Closer: events.SideRemote}, errPipe},
		{"peer's RST after our FIN: the FIN was first", FW1, []opt{errno(errConnReset)},
			events.Closed{How: events.HowRST, Reset: events.ResetPeer, Closer: events.SideLocal}, errConnReset},
		{"peer's RST in LAST_ACK", LASTACK, []opt{errno(errConnReset)},
			events.Closed{How: events.HowRST, Reset: events.ResetPeer, Closer: events.SideRemote}, errConnReset},
		{"refused", SYNSENT, []opt{errno(errConnRefused)},
			events.Closed{How: events.HowRefused, Reset: events.ResetPeer, Closer: events.SideRemote}, errConnRefused},
		{"no answer to the SYN", SYNSENT, []opt{errno(110)},
			events.Closed{How: events.HowTimeout, Closer: events.SideNone}, 110},
		{"ICMP's error at the timeout", EST, []opt{errno(113)},
			events.Closed{How: events.HowTimeout, Closer: events.SideNone}, 113},
		{"ICMP's port unreachable at the timeout", EST, []opt{errno(errConnRefused)},
			events.Closed{How: events.HowTimeout, Closer: events.SideNone}, errConnRefused},
		{"timeout of a FIN", FW1, []opt{errno(110), flags(orphan)},
			events.Closed{How: events.HowTimeout, Closer: events.SideLocal}, 110},
		{"timeout in LAST_ACK", LASTACK, []opt{errno(110), flags(orphan)},
			events.Closed{How: events.HowTimeout, Closer: events.SideRemote}, 110},
		{"ss -K", EST, []opt{errno(errConnAborted), by(99, "ss"), flags(held)},
			events.Closed{How: events.HowAbort, Reset: events.ResetOther, Closer: events.SideLocal, ClosedBy: events.Process{PID: 99, Comm: "ss"}}, errConnAborted},
		{"ss -K in SYN_SENT: no RST", SYNSENT, []opt{errno(errConnAborted), by(99, "ss")},
			events.Closed{How: events.HowAbort, Closer: events.SideNone, ClosedBy: events.Process{PID: 99, Comm: "ss"}}, errConnAborted},
		{"close with unread data", EST, []opt{curl, flags(task), rx(5)},
			events.Closed{How: events.HowRST, Reset: events.ResetUnread, Closer: events.SideLocal, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"SO_LINGER 0", EST, []opt{curl, flags(task | events.FlagLinger0), rx(0)},
			events.Closed{How: events.HowRST, Reset: events.ResetLinger0, Closer: events.SideLocal, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"unread data comes before SO_LINGER 0", EST, []opt{curl, flags(task | events.FlagLinger0), rx(5)},
			events.Closed{How: events.HowRST, Reset: events.ResetUnread, Closer: events.SideLocal, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"a FIN alone is not unread data", CW, []opt{curl, flags(task | events.FlagLinger0 | finRecvd), rx(1)},
			events.Closed{How: events.HowRST, Reset: events.ResetLinger0, Closer: events.SideRemote, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"a FIN and a byte are", CW, []opt{curl, flags(task | events.FlagLinger0 | finRecvd), rx(2)},
			events.Closed{How: events.HowRST, Reset: events.ResetUnread, Closer: events.SideRemote, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"disconnect by connect(AF_UNSPEC)", EST, []opt{curl, flags(task), rx(0)},
			events.Closed{How: events.HowRST, Reset: events.ResetOther, Closer: events.SideLocal, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"the listener closes over a child in its backlog", EST, []opt{rx(5)},
			events.Closed{How: events.HowRST, Reset: events.ResetOther, Closer: events.SideLocal}, 0},
		{"LAST_ACK", LASTACK, []opt{flags(orphan)},
			events.Closed{How: events.HowFIN, Closer: events.SideRemote}, 0},
		{"close while connecting", SYNSENT, []opt{curl, flags(held)},
			events.Closed{How: events.HowAbort, Closer: events.SideNone, ClosedBy: events.Process{PID: 7, Comm: "curl"}}, 0},
		{"an orphan in FIN_WAIT1 without memory", FW1, []opt{flags(orphan)},
			events.Closed{How: events.HowAbort, Reset: events.ResetOther, Closer: events.SideLocal}, 0},
		{"SO_LINGER 0 in FIN_WAIT2 after shutdown", FW2, []opt{curl, flags(task | events.FlagLinger0), rx(0)},
			events.Closed{How: events.HowRST, Reset: events.ResetLinger0, Closer: events.SideLocal}, 0},
		{"TCP_LINGER2 < 0 in FIN_WAIT2", FW2, []opt{curl, flags(events.FlagLocked | orphan), rx(0)},
			events.Closed{How: events.HowRST, Reset: events.ResetOther, Closer: events.SideLocal}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := &recorder{}
			table := New(Config{}, got)
			for _, r := range toClose(tt.old, tt.opts...) {
				table.Add(&r)
			}
			if len(got.closed) != 1 || table.Len() != 0 {
				t.Fatalf("%d accounts, %d living; want 1 and 0", len(got.closed), table.Len())
			}
			c := got.closed[0]
			wantBy := tt.want.ClosedBy
			if tt.old != EST && tt.old != CW && tt.old != SYNSENT {
				wantBy = events.Process{PID: 7, Comm: "curl"} // its FIN
			}
			if c.How != tt.want.How || c.Reset != tt.want.Reset || c.Closer != tt.want.Closer ||
				c.ClosedBy != wantBy || c.Err != tt.errno || !c.Exact || c.TimeWaitEnd != 0 || c.TimeWaitOverflow {
				t.Errorf("got how=%v reset=%v closer=%v closed_by=%v err=%v exact=%v tw=%v overflow=%v\nwant how=%v reset=%v closer=%v closed_by=%v err=%v exact",
					c.How, c.Reset, c.Closer, c.ClosedBy, c.Err, c.Exact, c.TimeWaitEnd, c.TimeWaitOverflow,
					tt.want.How, tt.want.Reset, tt.want.Closer, wantBy, tt.errno)
			}
			if owner := c.Owner.PID; owner != 7 {
				t.Errorf("owner: got %d, want 7", owner)
			}
			last := got.transitions[len(got.transitions)-1]
			if last.Old != tt.old || last.New != CLOSE || last.TS != 10*ms || last.Err != tt.errno {
				t.Errorf("last transition: %s", got.lines[len(got.lines)-2])
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	for _, s := range []scenario{
		{
			name: "a port is known after the transition: held, with its own time",
			records: seq(recs(tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)), tick(2*sec)), recs(
				rec(events.KindConnect, 2*sec+us, a, out, pid(7, "curl"), cookie(1)))),
			want:   `0s #1 10.0.0.1:40000>10.0.0.2:80 CLOSE>SYN_SENT connect=7/curl`,
			living: 1, verbose: true,
		},
		{
			name:  "without connects the next record tells the port",
			hooks: HooksPoll,
			records: recs(
				tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)),
				tr(3*us, a, SYNSENT, CLOSE, out, errno(errConnRefused), cookie(1))),
			want: `
				0s #1 10.0.0.1:40000>10.0.0.2:80 CLOSE>SYN_SENT connect=7/curl
				3us #1 10.0.0.1:40000>10.0.0.2:80 SYN_SENT>CLOSE in 3us connect=7/curl ECONNREFUSED
				3us #1 10.0.0.1:40000>10.0.0.2:80 closed active by remote refused/peer connect=7/curl ECONNREFUSED [SYN_SENT=3us] total 3us
			`,
			verbose: true,
		},
		{
			name:  "or a walk",
			hooks: HooksPoll,
			records: recs(
				tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)),
				begin(sec), seen(sec+us, a, SYNSENT, out, cookie(1)), end(sec+ms)),
			want:   `0s #1 10.0.0.1:40000>10.0.0.2:80 CLOSE>SYN_SENT connect=7/curl`,
			living: 1, verbose: true,
		},
		{
			name:    "a black hole that no walk came by",
			hooks:   HooksPoll,
			records: recs(tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)), tick(2*sec), tick(3*sec)),
			want:    `0s #1 10.0.0.1:0>10.0.0.2:80 CLOSE>SYN_SENT connect=7/curl`,
			living:  1, verbose: true,
		},
		{
			name:  "a bound socket need not wait where nothing tells of the connect",
			hooks: HooksPoll,
			records: recs(
				tr(0, a, CLOSE, SYNSENT, out, curl, cookie(1))),
			want:   `0s #1 CLOSE>SYN_SENT connect=7/curl`,
			living: 1,
		},
		{
			name: "no port to be had: EADDRNOTAVAIL, nobody's close",
			records: recs(
				tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)),
				tr(9*us, a, SYNSENT, CLOSE, noPort, curl, flags(held), cookie(1))),
			want: `
				0s #1 CLOSE>SYN_SENT connect=7/curl
				9us #1 SYN_SENT>CLOSE in 9us connect=7/curl EADDRNOTAVAIL
				9us #1 closed active by none abort connect=7/curl EADDRNOTAVAIL [SYN_SENT=9us] total 9us
			`,
		},
		{
			name: "a child has its addresses with the next record, and not its listener's cookie",
			records: recs(
				tr(0, a, CLOSE, LISTEN, flow(any4, "0.0.0.0:0"), nginx, cookie(50)),
				tr(ms, b, LISTEN, SYNRECV, func(r *events.Record) { r.Local = addrPort(any4) }),
				tick(2*ms),
				tr(3*ms, b, SYNRECV, EST, inward, srtt(9), cookie(51))),
			want: `
				0s #1 0.0.0.0:80>0.0.0.0:0 CLOSE>LISTEN listen=8/nginx
				1ms #2 10.0.0.2:80>10.0.0.1:40000 LISTEN>SYN_RECV
				3ms #2 10.0.0.2:80>10.0.0.1:40000 SYN_RECV>ESTABLISHED in 9us
			`,
			living: 2, verbose: true,
		},
		{
			name:    "a child whose family the filter does not want never gets one",
			records: recs(tr(0, b, LISTEN, SYNRECV), tick(2*sec), tick(4*sec)),
		},
		{
			name: "an address used again after a close that was not seen: the cookie tells",
			records: seq(opensActive(0, a, 1), recs(
				tr(sec, a, EST, CW, flow("10.0.0.1:40001", srv), cookie(2)), tick(2*sec))),
			want: openActive + `
				1s #2 ESTABLISHED>CLOSE_WAIT
				1s #1 ESTABLISHED>CLOSE connect=7/curl ~
				1s #1 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 1s ~
			`,
			living: 1,
		},
		{
			name: "without cookies the ports tell",
			records: seq(opensActive(0, a, 0), recs(
				tr(sec, a, EST, CW, flow("10.0.0.1:40001", srv)), tick(2*sec))),
			want: openActive + `
				1s #2 ESTABLISHED>CLOSE_WAIT
				1s #1 ESTABLISHED>CLOSE connect=7/curl ~
				1s #1 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 1s ~
			`,
			living: 1,
		},
		{
			name: "or the remote end",
			records: seq(opensActive(0, a, 0), recs(
				tr(sec, a, EST, CW, flow("10.0.0.1:40000", "10.9.9.9:80")), tick(2*sec))),
			want: openActive + `
				1s #2 ESTABLISHED>CLOSE_WAIT
				1s #1 ESTABLISHED>CLOSE connect=7/curl ~
				1s #1 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 1s ~
			`,
			living: 1,
		},
		{
			name:    "or the beginning of another life",
			records: seq(opensActive(0, a, 0), opensActive(sec, a, 0), recs(tick(2*sec))),
			want: openActive + `
				1s #2 CLOSE>SYN_SENT connect=7/curl
				1001ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				1s #1 ESTABLISHED>CLOSE connect=7/curl ~
				1s #1 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 1s ~
			`,
			living: 1,
		},
		{
			name: "a record in front of everything known",
			records: recs(
				tr(sec, a, EST, FW1, out, curl, cookie(1)),
				tr(2*sec, a, FW1, CLOSE, out, errno(110), cookie(1)),
				tr(3*sec, b, CW, CLOSE, inward, errno(errPipe), cookie(2))),
			want: `
				1s #1 ESTABLISHED>FIN_WAIT1 close=7/curl
				2s #1 FIN_WAIT1>CLOSE in 1s close=7/curl ETIMEDOUT
				2s #1 closed unknown by local timeout close=7/curl closed_by=7/curl ETIMEDOUT [ESTABLISHED=? FIN_WAIT1=1s] total 1s ~
				3s #2 CLOSE_WAIT>CLOSE EPIPE
				3s #2 closed unknown by remote rst/peer EPIPE [CLOSE_WAIT=?] total ? ~
			`,
		},
		{
			name: "a step was not seen",
			records: seq(opensActive(0, a, 1), recs(
				tr(sec, a, CW, LASTACK, out, curl, cookie(1)),
				tr(2*sec, a, LASTACK, CLOSE, out, cookie(1)))),
			want: openActive + `
				1s #1 CLOSE_WAIT>LAST_ACK connect=7/curl ~
				2s #1 LAST_ACK>CLOSE in 1s connect=7/curl
				2s #1 closed active by remote fin connect=7/curl closed_by=7/curl [SYN_SENT=1ms ESTABLISHED=? CLOSE_WAIT=? LAST_ACK=1s] total 2s ~
			`,
		},
		{
			name: "the same state twice is no transition",
			records: seq(opensActive(0, a, 1), recs(
				tr(sec, a, EST, EST, out, cookie(1)), tr(sec, b, CLOSE, CLOSE))),
			want: openActive, living: 1,
		},
		{
			name: "link-local with its interface, in IPv6",
			records: recs(tr(0, a, EST, CW, flow("[fe80::1%3]:1", "[fe80::2%3]:2")),
				tr(0, b, EST, CW, flow("[2001:db8::1]:1", "[2001:db8::2]:2"))),
			want: `
				0s #1 [fe80::1%3]:1>[fe80::2%3]:2 ESTABLISHED>CLOSE_WAIT
				0s #2 [2001:db8::1]:1>[2001:db8::2]:2 ESTABLISHED>CLOSE_WAIT
			`,
			living: 2, verbose: true,
		},
	} {
		t.Run(s.name, s.run)
	}
}

// What identifies a connection is carried through to every line.
func TestCarriedThrough(t *testing.T) {
	got := &recorder{}
	table := New(Config{}, got)
	for _, r := range seq(opensPassive(0, a, 77), recs(
		tr(ms, a, EST, CW, inward, cookie(77), cgroup(4242, 1000), flags(events.FlagMPTCP)),
		tr(2*ms, a, CW, LASTACK, inward, nginx, cookie(77), cgroup(4242, 33)),
		tr(3*ms, a, LASTACK, CLOSE, inward, cookie(77), cgroup(4242, 33)))) {
		table.Add(&r)
	}
	c := got.closed[0].Conn
	want := events.Conn{ID: 1, Cookie: 77, NetNS: testNS, Family: 4, Local: addrPort(srv), Remote: addrPort(cli),
		Owner: events.Process{PID: 8, Comm: "nginx"}, OwnerSrc: events.OwnerAccept, UID: 33, CgroupID: 4242, MPTCP: true}
	if c != want {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if got.transitions[0].Cookie != 77 || got.transitions[0].Family != 4 {
		t.Errorf("the held transition lacks what came after it: %+v", got.transitions[0].Conn)
	}
}

func TestOwner(t *testing.T) {
	passive := opensPassive(0, a, 1)
	for _, s := range []scenario{
		{
			name: "fork: the child that closes is the holder",
			records: seq(passive, recs(
				tr(sec, a, EST, FW1, inward, by(9, "worker"), flags(held), cookie(1)))),
			want: openPassive + `
				1s #1 ESTABLISHED>FIN_WAIT1 in 999998us close=9/worker
			`,
			living: 1,
		},
		{
			name: "shutdown by one, exit of another: the first is the closer",
			records: seq(passive, recs(
				tr(sec, a, EST, FW1, inward, nginx, flags(held), cookie(1)),
				tr(2*sec, a, FW1, FW2, inward, flags(held), cookie(1)),
				tr(3*sec, a, FW2, CLOSE, inward, by(9, "worker"), flags(held|events.FlagLinger0), rx(0), cookie(1)))),
			want: openPassive + `
				1s #1 ESTABLISHED>FIN_WAIT1 in 999998us accept=8/nginx
				2s #1 FIN_WAIT1>FIN_WAIT2 in 1s accept=8/nginx
				3s #1 FIN_WAIT2>CLOSE in 1s accept=8/nginx
				3s #1 closed passive by local rst/linger0 accept=8/nginx closed_by=8/nginx [SYN_RECV=500us ESTABLISHED=999998us FIN_WAIT1=1s FIN_WAIT2=1s] total 3000498us
			`,
		},
		{
			name: "ss -K kills and does not own",
			records: seq(passive, recs(
				tr(sec, a, EST, CLOSE, inward, by(9, "ss"), errno(errConnAborted), flags(held), cookie(1)))),
			want: openPassive + `
				1s #1 ESTABLISHED>CLOSE in 999998us accept=8/nginx ECONNABORTED
				1s #1 closed passive by local abort/other accept=8/nginx closed_by=9/ss ECONNABORTED [SYN_RECV=500us ESTABLISHED=999998us] total 1000498us
			`,
		},
		{
			name: "never accepted: nobody's, not the listener's",
			records: seq(recs(tr(0, b, CLOSE, LISTEN, flow(any4, "0.0.0.0:0"), nginx)), recs(
				tr(ms, a, LISTEN, SYNRECV),
				tr(ms+us, a, SYNRECV, EST, inward, srtt(5)),
				tr(sec, a, EST, CLOSE, inward),
				tr(sec+us, b, LISTEN, CLOSE, flow(any4, "0.0.0.0:0"), nginx))),
			want: `
				0s #1 CLOSE>LISTEN listen=8/nginx
				1ms #2 LISTEN>SYN_RECV
				1001us #2 SYN_RECV>ESTABLISHED in 5us
				1s #2 ESTABLISHED>CLOSE in 998999us
				1s #2 closed passive by local rst/other [SYN_RECV=5us ESTABLISHED=998999us] total 999004us
				1000001us #1 LISTEN>CLOSE in 1000001us listen=8/nginx
			`,
		},
		{
			name: "a descriptor tells the owner where none is known",
			records: seq(passive[:2], recs(
				rec(events.KindHoldersBegin, sec, 0),
				holds(sec+us, a, pid(20, "php"), cookie(1)),
				holds(sec+us, a, pid(21, "php"), cookie(1)),
				rec(events.KindHoldersEnd, sec+ms, 0),
				tr(2*sec, a, EST, CW, inward, cookie(1)))),
			want: openPassive + `
				2s #1 ESTABLISHED>CLOSE_WAIT in 1999998us scan=20/php
			`,
			living: 1,
		},
		{
			name: "passed on: the one process that holds it now",
			records: seq(passive, recs(
				rec(events.KindHoldersBegin, sec, 0),
				holds(sec+us, a, pid(20, "php"), cookie(1)),
				holds(sec+2*us, a, pid(20, "php"), cookie(1)),
				rec(events.KindHoldersEnd, sec+ms, 0),
				tr(2*sec, a, EST, CW, inward, cookie(1)))),
			want: openPassive + `
				2s #1 ESTABLISHED>CLOSE_WAIT in 1999998us scan=20/php
			`,
			living: 1,
		},
		{
			name: "held by its owner too: the owner stays",
			records: seq(passive, recs(
				rec(events.KindHoldersBegin, sec, 0),
				holds(sec+us, a, pid(20, "php"), cookie(1)),
				holds(sec+us, a, pid(8, "nginx"), cookie(1)),
				rec(events.KindHoldersEnd, sec+ms, 0),
				tr(2*sec, a, EST, CW, inward, cookie(1)))),
			want: openPassive + `
				2s #1 ESTABLISHED>CLOSE_WAIT in 1999998us accept=8/nginx
			`,
			living: 1,
		},
		{
			name: "held by two others: which of them cannot be told",
			records: seq(passive, recs(
				rec(events.KindHoldersBegin, sec, 0),
				holds(sec+us, a, pid(20, "php"), cookie(1)),
				holds(sec+us, a, pid(21, "php"), cookie(1)),
				rec(events.KindHoldersEnd, sec+ms, 0),
				tr(2*sec, a, EST, CW, inward, cookie(1)))),
			want: openPassive + `
				2s #1 ESTABLISHED>CLOSE_WAIT in 1999998us accept=8/nginx
			`,
			living: 1,
		},
		{
			name: "a descriptor of another socket at the same address",
			records: seq(passive[:2], recs(
				rec(events.KindHoldersBegin, sec, 0),
				holds(sec+us, a, pid(20, "php"), cookie(99)),
				rec(events.KindHoldersEnd, sec+ms, 0),
				tr(2*sec, a, EST, CW, inward, cookie(1)))),
			want: openPassive + `
				2s #1 ESTABLISHED>CLOSE_WAIT in 1999998us
			`,
			living: 1,
		},
		{
			name: "an accept of a connection that nothing else told of",
			records: recs(
				rec(events.KindAccept, ms, a, inward, pid(8, "nginx"))),
		},
	} {
		t.Run(s.name, s.run)
	}
}
