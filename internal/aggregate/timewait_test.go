package aggregate

import (
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// toFinWait2 opens at 0 and closes: FIN_WAIT2 since 11 ms, an orphan.
func toFinWait2(open []events.Record) []events.Record {
	return seq(open, recs(
		tr(10*ms, a, EST, FW1, out, curl, flags(held), cookie(1)),
		tr(11*ms, a, FW1, FW2, out, flags(orphan), cookie(1))))
}

// toTimeWait goes on to TIME_WAIT at 600 ms, at address w.
func toTimeWait() []events.Record {
	return seq(toFinWait2(opensActive(0, a, 1)), recs(
		alloc(11*ms+us, a, w, FW2, out, cookie(1)),
		tr(11*ms+2*us, a, FW2, CLOSE, out, curl, flags(orphan), cookie(1)),
		schedule(600*ms, w, TW, 60*sec, out, cookie(1))))
}

const (
	inFinWait2 = openActive + `
		10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
		11ms #1 FIN_WAIT1>FIN_WAIT2 in 1ms connect=7/curl
	`
	inTimeWait = inFinWait2 + `
		600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
	`
	upToFinWait2 = `SYN_SENT=1ms ESTABLISHED=9ms FIN_WAIT1=1ms`
	local        = `connect=7/curl closed_by=7/curl`
)

func TestTimeWaitEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  []events.Record
		at   string // time of the end
		in   string
		want string
	}{
		{"expired", recs(destroy(61*sec, w, TW, -400*ms, out, cookie(1))), "61s", "60400ms", "expired"},
		{"expired, to the jiffy", recs(destroy(61*sec, w, TW, 9*ms, out)), "61s", "60400ms", "expired"},
		{"expired right behind a segment", recs(destroy(61*sec, w, TW, 0, out, flags(bySegment))), "61s", "60400ms", "expired"},
		{"an RST", recs(destroy(sec, w, TW, 59*sec, out, flags(bySegment|events.FlagSegmentRST))), "1s", "400ms", "reset"},
		{"a new SYN", recs(destroy(sec, w, TW, 59*sec, out, flags(bySegment|events.FlagSegmentSYN))), "1s", "400ms", "reused"},
		{"ss -K", recs(destroy(sec, w, TW, 59*sec, out, pid(99, "ss"))), "1s", "400ms", "killed"},
		{"its namespace ends", recs(destroy(sec, w, TW, 59*sec, out)), "1s", "400ms", "killed"},
		{"restarted by a FIN sent again", recs(schedule(10*sec, w, TW, 60*sec, out), destroy(71*sec, w, TW, -ms, out)), "71s", "70400ms", "expired"},
	} {
		t.Run(tt.name, (&scenario{
			records: seq(toTimeWait(), tt.end),
			want: inTimeWait + tt.at + ` #1 TIME_WAIT>CLOSE in ` + tt.in + ` connect=7/curl
				` + tt.at + ` #1 closed active by local fin tw=` + tt.want + ` ` + local +
				` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=` + tt.in + `] total ` + tt.at,
		}).run)
	}
}

func TestTimeWaitReusedByConnect(t *testing.T) {
	reuse := func(p uint32, remote string, ns uint32) []events.Record {
		return recs(
			tr(sec, b, CLOSE, SYNSENT, flow("10.0.0.1:0", remote), by(p, "wget"), cookie(2), in(ns)),
			destroy(sec+us, w, TW, 59*sec, out, pid(7, "wget")),
			rec(events.KindConnect, sec+2*us, b, flow(cli, remote), pid(p, "wget"), cookie(2), in(ns)))
	}
	end := func(why string) string {
		return inTimeWait + `
			1000001us #1 TIME_WAIT>CLOSE in 400001us connect=7/curl
			1000001us #1 closed active by local fin tw=` + why + ` ` + local +
			` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=400001us] total 1000001us
			1s #2 CLOSE>SYN_SENT connect=`
	}
	for _, s := range []scenario{
		{name: "same process and remote end", records: seq(toTimeWait(), reuse(7, srv, testNS)), want: end("reused") + "7/wget", living: 1},
		{name: "another process", records: seq(toTimeWait(), reuse(6, srv, testNS)), want: end("killed") + "6/wget", living: 1},
		{name: "another remote end", records: seq(toTimeWait(), reuse(7, "10.0.0.3:80", testNS)), want: end("killed") + "7/wget", living: 1},
		{name: "another namespace", records: seq(toTimeWait(), reuse(7, srv, 5)), want: end("killed") + "7/wget", living: 1},
		{
			name: "a bound port", living: 1, want: end("reused") + "7/wget",
			records: seq(toTimeWait(), recs(
				tr(sec, b, CLOSE, SYNSENT, out, by(7, "wget"), cookie(2)),
				destroy(sec+us, w, TW, 59*sec, out, pid(7, "wget")),
				rec(events.KindConnect, sec+2*us, b, out, pid(7, "wget"), cookie(2)))),
		},
	} {
		t.Run(s.name, s.run)
	}
}

// An orphan in FIN_WAIT2 lives in a timewait socket too.
func TestFinWait2Ends(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  events.Record
		want string
	}{
		{"tcp_fin_timeout", destroy(sec, w, FW2, -ms, out, cookie(1)), "timeout"},
		{"an RST", destroy(sec, w, FW2, 4*sec, out, flags(bySegment|events.FlagSegmentRST)), "rst/peer"},
		{"data after close", destroy(sec, w, FW2, 4*sec, out, flags(bySegment)), "rst/other"},
		{"a SYN after close", destroy(sec, w, FW2, 4*sec, out, flags(bySegment|events.FlagSegmentSYN)), "rst/other"},
		{"ss -K", destroy(sec, w, FW2, 4*sec, out, pid(99, "ss")), "abort"},
	} {
		t.Run(tt.name, (&scenario{
			records: seq(toTimeWait()[:7], recs(tt.end)),
			want: inFinWait2 + `1s #1 FIN_WAIT2>CLOSE in 989ms connect=7/curl
				1s #1 closed active by local ` + tt.want + ` ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=989ms] total 1s`,
		}).run)
	}
}

func TestNoTimeWaitSocket(t *testing.T) {
	for _, s := range []scenario{
		{
			name: "no bucket for TIME_WAIT",
			records: seq(opensActive(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, flags(held), cookie(1)),
				tr(11*ms, a, FW1, FW2, out, flags(held), cookie(1)),
				alloc(20*ms, a, 0, TW, out, cookie(1)),
				tr(20*ms, a, FW2, CLOSE, out, flags(held|finRecvd), cookie(1)))),
			want: inFinWait2 + `
				20ms #1 FIN_WAIT2>CLOSE in 9ms connect=7/curl
				20ms #1 closed active by local fin overflow ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=9ms] total 20ms`,
		},
		{
			name: "no bucket for an orphan's FIN_WAIT2",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				alloc(11*ms, a, 0, FW2, out, cookie(1)),
				tr(11*ms, a, FW2, CLOSE, out, flags(orphan), cookie(1)))),
			want: inFinWait2 + `
				11ms #1 FIN_WAIT2>CLOSE in 0s connect=7/curl
				11ms #1 closed active by local abort overflow ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=0s] total 11ms`,
		},
		{
			name: "an attempt and then the socket, as kprobes tell it",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				alloc(600*ms, a, 0, TW, out, cookie(1)),
				alloc(600*ms, a, w, TW, out, cookie(1)),
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)))),
			want: inTimeWait, living: 1,
		},
		{
			name: "changed places with the close: the socket",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)),
				alloc(600*ms+us, a, w, TW, out, cookie(1)),
				tick(sec))),
			want: inTimeWait, living: 1,
		},
		{
			name: "changed places with the close: none",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)),
				alloc(600*ms+us, a, 0, TW, out, cookie(1)),
				tick(sec))),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>CLOSE in 589ms connect=7/curl
				600ms #1 closed active by local fin overflow ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms] total 600ms`,
		},
		{
			name: "none was asked for: the end of the trace decides as a tick does",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan), cookie(1)))),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>CLOSE in 589ms connect=7/curl
				600ms #1 closed active by local rst/other ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms] total 600ms`,
			flush: true,
		},
		{
			name: "a timewait socket in an address whose last one was not seen to end",
			records: seq(toTimeWait(), opensActive(sec, b, 2), recs(
				tr(2*sec, b, EST, FW1, out, curl, cookie(2)),
				tr(3*sec, b, FW1, FW2, out, flags(orphan), cookie(2)),
				alloc(4*sec, b, w, TW, out, cookie(2)))),
			want: inTimeWait + `
				1s #2 CLOSE>SYN_SENT connect=7/curl
				1001ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				2s #2 ESTABLISHED>FIN_WAIT1 in 999ms connect=7/curl
				3s #2 FIN_WAIT1>FIN_WAIT2 in 1s connect=7/curl
				4s #1 TIME_WAIT>CLOSE in 3400ms connect=7/curl ~
				4s #1 closed active by local fin tw=unknown ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=3400ms] total 4s ~
				4s #2 FIN_WAIT2>TIME_WAIT in 1s connect=7/curl
			`,
			living: 1,
		},
		{
			name: "the address of the full socket has a new one before its close was told",
			records: seq(toTimeWait()[:6], opensActive(sec, a, 2), recs(
				tr(2*sec, a, EST, CLOSE, out, errno(errConnReset), cookie(2)))),
			want: inFinWait2 + `
				1s #2 CLOSE>SYN_SENT connect=7/curl
				1001ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				2s #2 ESTABLISHED>CLOSE in 999ms connect=7/curl ECONNRESET
				2s #2 closed active by remote rst/peer connect=7/curl ECONNRESET [SYN_SENT=1ms ESTABLISHED=999ms] total 1s
			`,
			living: 1,
		},
	} {
		t.Run(s.name, s.run)
	}
}

// What was lost in front of, or between, the records of a timewait socket.
func TestTimeWaitMended(t *testing.T) {
	for _, s := range []scenario{
		{
			name: "nothing before the socket: its close tells the state before",
			records: recs(
				alloc(sec, a, w, TW, out, cookie(1)),
				tr(sec+us, a, FW2, CLOSE, out, flags(finRecvd), cookie(1)),
				destroy(61*sec, w, TW, 0, out, cookie(1))),
			want: `
				1s #1 FIN_WAIT2>TIME_WAIT ~
				61s #1 TIME_WAIT>CLOSE in 60s
				61s #1 closed unknown by local fin tw=expired [FIN_WAIT2=? TIME_WAIT=60s] total 60s ~
			`,
		},
		{
			name: "the closing was lost in ESTABLISHED",
			records: seq(opensActive(0, a, 1), recs(
				alloc(sec, a, w, TW, out, cookie(1)),
				tr(sec+us, a, CLOSING, CLOSE, out, flags(finRecvd), cookie(1)),
				destroy(61*sec, w, TW, 0, out, cookie(1)))),
			want: openActive + `
				1s #1 CLOSING>TIME_WAIT connect=7/curl ~
				61s #1 TIME_WAIT>CLOSE in 60s connect=7/curl
				61s #1 closed active by both fin tw=expired connect=7/curl [SYN_SENT=1ms ESTABLISHED=? CLOSING=? TIME_WAIT=60s] total 61s ~
			`,
		},
		{
			name: "the peer's FIN was lost: the timer tells when it came",
			records: seq(toTimeWait()[:7], recs(
				destroy(sec, w, TW, 59500*ms, out, flags(bySegment|events.FlagSegmentRST), cookie(1)))),
			want: inFinWait2 + `
				500ms #1 FIN_WAIT2>TIME_WAIT in 489ms connect=7/curl ~
				1s #1 TIME_WAIT>CLOSE in 500ms connect=7/curl
				1s #1 closed active by local fin tw=reset ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=489ms TIME_WAIT=500ms] total 1s ~
			`,
		},
		{
			name:    "the end of nobody's TIME_WAIT",
			records: recs(destroy(100*sec, w, TW, 0, out, cookie(1))),
		},
		{
			name: "the socket's record was lost, and the end was not",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)),
				lostRecords(601*ms, 1),
				tick(sec),
				destroy(60600*ms, w, TW, 0, out, cookie(1)))),
			want: inFinWait2 + `
				601ms lost 1 of 1 since ?
				600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
				60600ms #1 TIME_WAIT>CLOSE in 60s connect=7/curl
				60600ms #1 closed active by local fin tw=expired ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=60s] total 60600ms
			`,
		},
		{
			name: "the socket's record was missed without a word, and the end was not",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)),
				tick(sec), tick(2*sec),
				destroy(60600*ms, w, TW, 0, out, cookie(1)))),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
				60600ms #1 TIME_WAIT>CLOSE in 60s connect=7/curl
				60600ms #1 closed active by local fin tw=expired ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=60s] total 60600ms
			`,
		},
		{
			name:    "a restart of nobody's TIME_WAIT",
			records: recs(schedule(sec, w, TW, 60*sec, out)),
		},
	} {
		t.Run(s.name, s.run)
	}
}

func TestRestartsAreCounted(t *testing.T) {
	table := New(Config{}, &recorder{})
	for _, r := range seq(toTimeWait(), recs(schedule(sec, w, TW, 60*sec, out), schedule(2*sec, w, TW, 60*sec, out))) {
		table.Add(&r)
	}
	if got := table.Stats().TimeWaitRestarts; got != 2 {
		t.Errorf("restarts: got %d, want 2", got)
	}
	table.Each(func(i *Info) bool {
		if i.State != TW || i.Since != 600*ms || !i.SinceExact || i.Expires != 62*sec || !i.TimeWait {
			t.Errorf("got %+v, want TIME_WAIT since 600ms that expires at 62s", i)
		}
		return true
	})
}
