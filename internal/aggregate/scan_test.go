package aggregate

import (
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// What was there before the start, in each state.
func TestSnapshot(t *testing.T) {
	snap := func(s events.State, opts ...opt) []events.Record {
		return recs(begin(100*sec), seen(100*sec, a, s, append([]opt{out, cookie(1)}, opts...)...), end(100*sec+ms))
	}
	for _, s := range []scenario{
		{
			name:    "CLOSE_WAIT: at least since the FIN came",
			records: seq(snap(CW, timer(30*sec), rx(0)), recs(tr(101*sec, a, CW, LASTACK, out, curl, cookie(1)), tr(102*sec, a, LASTACK, CLOSE, out, cookie(1)))),
			want: `
				101s #1 CLOSE_WAIT>LAST_ACK in>=30990ms close=7/curl
				102s #1 LAST_ACK>CLOSE in 1s close=7/curl
				102s #1 closed unknown by remote fin close=7/curl closed_by=7/curl [CLOSE_WAIT=30990ms LAST_ACK=1s] total 31990ms ~
			`,
		},
		{
			name:    "ESTABLISHED: at least since the walk",
			records: seq(snap(EST, timer(30*sec), rx(0)), recs(tr(101*sec, a, EST, FW1, out, curl, cookie(1)))),
			want:    `101s #1 ESTABLISHED>FIN_WAIT1 in>=1s close=7/curl`, living: 1,
		},
		{
			name:    "SYN_SENT",
			records: seq(snap(SYNSENT), recs(tr(101*sec, a, SYNSENT, CLOSE, out, errno(110), cookie(1)))),
			want: `
				101s #1 SYN_SENT>CLOSE in>=1s ETIMEDOUT
				101s #1 closed unknown by none timeout ETIMEDOUT [SYN_SENT=1s] total 1s ~
			`,
		},
		{
			name:    "SYN_RECV, a full socket",
			records: seq(snap(SYNRECV), recs(tr(101*sec, a, SYNRECV, EST, out, srtt(1), cookie(1)))),
			want:    `101s #1 SYN_RECV>ESTABLISHED in>=1s`, living: 1,
		},
		{
			name:    "FIN_WAIT1: local",
			records: seq(snap(FW1, rx(0)), recs(tr(101*sec, a, FW1, CLOSE, out, errno(110), cookie(1)))),
			want: `
				101s #1 FIN_WAIT1>CLOSE in>=1s ETIMEDOUT
				101s #1 closed unknown by local timeout ETIMEDOUT [FIN_WAIT1=1s] total 1s ~
			`,
		},
		{
			name: "FIN_WAIT2, a full socket: local",
			records: seq(snap(FW2, rx(0), flags(held)), recs(
				alloc(101*sec, a, w, TW, out, cookie(1)), tr(101*sec, a, FW2, CLOSE, out, cookie(1)), destroy(161*sec, w, TW, 0, out))),
			want: `
				101s #1 FIN_WAIT2>TIME_WAIT in>=1s
				161s #1 TIME_WAIT>CLOSE in 60s
				161s #1 closed unknown by local fin tw=expired [FIN_WAIT2=1s TIME_WAIT=60s] total 61s ~
			`,
		},
		{
			name:    "FIN_WAIT2, a timewait socket",
			records: seq(snap(FW2, timer(50*sec)), recs(schedule(101*sec, a, TW, 60*sec, out), destroy(161*sec, a, TW, 0, out))),
			want: `
				101s #1 FIN_WAIT2>TIME_WAIT in>=1s
				161s #1 TIME_WAIT>CLOSE in 60s
				161s #1 closed unknown by local fin tw=expired [FIN_WAIT2=1s TIME_WAIT=60s] total 61s ~
			`,
		},
		{
			name:    "TIME_WAIT: since 60 s before its timer ends",
			records: seq(snap(TW, timer(40*sec)), recs(destroy(140*sec, a, TW, 0, out))),
			want: `
				140s #1 TIME_WAIT>CLOSE in 60s
				140s #1 closed unknown by unknown fin tw=expired [TIME_WAIT=60s] total 60s
			`,
		},
		{
			name:    "CLOSING: both",
			records: seq(snap(CLOSING, rx(1)), recs(tr(101*sec, a, CLOSING, CLOSE, out, errno(110), cookie(1)))),
			want: `
				101s #1 CLOSING>CLOSE in>=1s ETIMEDOUT
				101s #1 closed unknown by both timeout ETIMEDOUT [CLOSING=1s] total 1s ~
			`,
		},
		{
			name:    "LAST_ACK: remote",
			records: seq(snap(LASTACK, rx(0)), recs(tr(101*sec, a, LASTACK, CLOSE, out, cookie(1)))),
			want: `
				101s #1 LAST_ACK>CLOSE in>=1s
				101s #1 closed unknown by remote fin [LAST_ACK=1s] total 1s ~
			`,
		},
		{
			name:    "LISTEN, held by a process",
			records: seq(snap(LISTEN), recs(holds(100*sec+2*ms, a, pid(8, "nginx"), cookie(1)), tr(101*sec, a, LISTEN, CLOSE, out, nginx, cookie(1)))),
			want:    `101s #1 LISTEN>CLOSE in>=1s scan=8/nginx`,
		},
		{
			name:    "request sockets and closed ones are no connections",
			records: seq(snap(events.NewSynRecv), snap(CLOSE), snap(events.BoundInactive)),
		},
		{
			name: "known from records already: the walk adds nothing, whatever its times",
			records: seq(opensActive(0, a, 1), recs(begin(sec), seen(sec+us, a, EST, out, rx(0), cookie(1)), end(sec+ms)),
				recs(tr(2*sec, a, EST, CW, out, cookie(1)))),
			want: openActive + `2s #1 ESTABLISHED>CLOSE_WAIT in 1999ms connect=7/curl`, living: 1,
		},
		{
			name: "younger than the walk's record: the table wins",
			records: seq(opensActive(0, a, 1), recs(
				begin(sec), tr(sec+2*us, a, EST, CW, out, cookie(1)),
				seen(sec+us, a, EST, out, rx(0), cookie(1)), end(sec+ms),
				tr(2*sec, a, CW, LASTACK, out, curl, cookie(1)))),
			want: openActive + `
				1000002us #1 ESTABLISHED>CLOSE_WAIT in 999002us connect=7/curl
				2s #1 CLOSE_WAIT>LAST_ACK in 999998us connect=7/curl
			`, living: 1,
		},
		{
			name: "the walk read a state that its record's time is before: the transition comes",
			records: seq(opensActive(0, a, 1), recs(
				begin(sec), seen(sec+us, a, CW, out, rx(1), cookie(1)),
				tr(sec+2*us, a, EST, CW, out, cookie(1)), end(sec+ms))),
			want: openActive + `1000002us #1 ESTABLISHED>CLOSE_WAIT in 999002us connect=7/curl`, living: 1,
		},
		{
			name: "the same for a connection that the walk made known",
			records: recs(
				begin(sec), seen(sec, a, CW, out, rx(1), cookie(1)),
				tr(sec+2*us, a, EST, CW, out, cookie(1)), end(sec+ms),
				tr(2*sec, a, CW, LASTACK, out, curl, cookie(1))),
			want: `
				1000002us #1 ESTABLISHED>CLOSE_WAIT in>=2us
				2s #1 CLOSE_WAIT>LAST_ACK in 999998us close=7/curl
			`, living: 1,
		},
		{
			name: "the kernel tells of a state before it stores it: the walk read the one before",
			records: seq(opensActive(0, a, 1), recs(
				begin(sec), tr(sec+us, a, EST, CW, out, cookie(1)),
				seen(sec+2*us, a, EST, out, rx(0), cookie(1)), end(sec+ms),
				tr(2*sec, a, CW, LASTACK, out, curl, cookie(1)))),
			want: openActive + `
				1000001us #1 ESTABLISHED>CLOSE_WAIT in 999001us connect=7/curl
				2s #1 CLOSE_WAIT>LAST_ACK in 999999us connect=7/curl
			`, living: 1,
		},
		{
			name: "and for the beginning of its life",
			records: recs(
				begin(sec), seen(sec, a, EST, out, rx(0), cookie(1)),
				tr(sec+us, a, CLOSE, SYNSENT, noPort, curl, cookie(1)),
				rec(events.KindConnect, sec+2*us, a, out, pid(7, "curl"), cookie(1)),
				tr(sec+3*us, a, SYNSENT, EST, out, cookie(1)), end(sec+ms),
				tr(2*sec, a, EST, CLOSE, out, errno(errConnReset), cookie(1))),
			want: `
				1000001us #1 CLOSE>SYN_SENT connect=7/curl
				1000003us #1 SYN_SENT>ESTABLISHED in 2us connect=7/curl
				2s #1 ESTABLISHED>CLOSE in 999997us connect=7/curl ECONNRESET
				2s #1 closed active by remote rst/peer connect=7/curl ECONNRESET [SYN_SENT=2us ESTABLISHED=999997us] total 999999us
			`,
		},
		{
			name: "and for a timewait socket, met before its beginning was told",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				begin(500*ms), seen(600*ms-us, w, TW, out, timer(60*sec), cookie(1)),
				alloc(600*ms, a, w, TW, out, cookie(1)), tr(600*ms, a, FW2, CLOSE, out, cookie(1)), end(601*ms))),
			want: inTimeWait, living: 1,
		},
		{
			name: "every record of a life after the snapshot is exact again",
			records: seq(snap(EST, rx(0)), recs(tr(101*sec, a, EST, CLOSE, out, errno(errConnReset), cookie(1))), opensActive(200*sec, a, 2),
				recs(tr(201*sec, a, EST, CLOSE, out, errno(errConnReset), cookie(2)))),
			want: `
				101s #1 ESTABLISHED>CLOSE in>=1s ECONNRESET
				101s #1 closed unknown by remote rst/peer ECONNRESET [ESTABLISHED=1s] total 1s ~
				200s #2 CLOSE>SYN_SENT connect=7/curl
				200001ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				201s #2 ESTABLISHED>CLOSE in 999ms connect=7/curl ECONNRESET
				201s #2 closed active by remote rst/peer connect=7/curl ECONNRESET [SYN_SENT=1ms ESTABLISHED=999ms] total 1s
			`,
		},
	} {
		t.Run(s.name, s.run)
	}
}

func TestLoss(t *testing.T) {
	for _, s := range []scenario{
		{
			name:    "told, with the time up to which all is known",
			records: recs(tick(sec), lostRecords(2*sec, 3), lostRecords(3*sec, 4)),
			want: `
				2s lost 3 of 3 since 1s
				3s lost 4 of 7 since 2s
			`,
		},
		{
			name: "a ghost is removed, a state corrected, an unknown one added, the right ones left",
			records: seq(opensActive(0, a, 1), opensActive(2*ms, b, 2), opensActive(4*ms, w, 3), recs(
				lostRecords(sec, 5),
				begin(sec+ms),
				seen(sec+2*ms, b, CW, out, rx(0), timer(100*ms), cookie(2)),
				seen(sec+2*ms, w, EST, out, rx(0), cookie(3)),
				seen(sec+2*ms, 0xd00, EST, out, rx(0), cookie(4)),
				end(sec+3*ms),
				tr(2*sec, w, EST, CLOSE, out, errno(errConnReset), cookie(3)),
				tr(2*sec, b, CW, CLOSE, out, errno(errPipe), cookie(2)))),
			want: openActive + `
				2ms #2 CLOSE>SYN_SENT connect=7/curl
				3ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				4ms #3 CLOSE>SYN_SENT connect=7/curl
				5ms #3 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				1s lost 5 of 5 since ?
				1002ms #2 ESTABLISHED>CLOSE_WAIT connect=7/curl ~
				1001ms #1 ESTABLISHED>CLOSE connect=7/curl ~
				1001ms #1 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 1001ms ~
				1003ms resync corrected 1 removed 1 added 1
				2s #3 ESTABLISHED>CLOSE in 1995ms connect=7/curl ECONNRESET
				2s #3 closed active by remote rst/peer connect=7/curl ECONNRESET [SYN_SENT=1ms ESTABLISHED=1995ms] total 1996ms
				2s #2 CLOSE_WAIT>CLOSE in>=1088ms connect=7/curl EPIPE
				2s #2 closed active by remote rst/peer connect=7/curl EPIPE [SYN_SENT=1ms ESTABLISHED=? CLOSE_WAIT=1088ms] total 1998ms ~
			`,
			living: 1,
		},
		{
			name: "a walk that had begun before the loss does not make up for it",
			records: seq(opensActive(0, a, 1), recs(
				begin(10*ms), seen(11*ms, a, EST, out, rx(0), cookie(1)), lostRecords(12*ms, 1), end(13*ms),
				begin(20*ms), seen(21*ms, a, EST, out, rx(0), cookie(1)), end(23*ms))),
			want: openActive + `
				12ms lost 1 of 1 since ?
				23ms resync corrected 0 removed 0 added 0
			`,
			living: 1,
		},
		{
			name: "what no program ran for is noticed, and told once",
			records: seq(opensActive(0, a, 1), recs(
				tr(12*ms, a, CW, LASTACK, out, cookie(1)), tick(1000*ms), tick(2000*ms))),
			want: openActive + `
				12ms #1 CLOSE_WAIT>LAST_ACK connect=7/curl ~
				1s lost 1 of 1 since ?
			`,
			living: 1,
		},
		{
			name: "what no program ran for is part of a loss that is told at once",
			records: seq(opensActive(0, a, 1), recs(
				tr(12*ms, a, CW, LASTACK, out, cookie(1)), lostRecords(13*ms, 1), tick(1000*ms))),
			want: openActive + `
				12ms #1 CLOSE_WAIT>LAST_ACK connect=7/curl ~
				13ms lost 1 of 1 since ?
			`,
			living: 1,
		},
		{
			name: "every namespace must have been walked",
			records: seq(opensActive(0, a, 1), recs(
				tr(2*ms, b, EST, CW, out, cookie(5), in(77)),
				lostRecords(12*ms, 1),
				begin(20*ms), seen(21*ms, a, EST, out, rx(0), cookie(1)), end(23*ms),
				rec(events.KindScanBegin, 24*ms, 0, in(77)), rec(events.KindScanEnd, 25*ms, 0, in(77)))),
			want: openActive + `
				2ms #2 ESTABLISHED>CLOSE_WAIT
				12ms lost 1 of 1 since ?
				24ms #2 CLOSE_WAIT>CLOSE ~
				24ms #2 closed unknown by remote ? [ESTABLISHED=? CLOSE_WAIT=?] total 22ms ~
				25ms resync corrected 0 removed 1 added 0
			`,
			living: 1,
		},
		{
			name: "a namespace that has ended does not keep the others waiting, nor its ghosts",
			records: seq(recs(begin(0), end(us), rec(events.KindScanBegin, 2*us, 0, in(77)), rec(events.KindScanEnd, 3*us, 0, in(77)),
				rec(events.KindHoldersBegin, 4*us, 0), rec(events.KindHoldersEnd, 5*us, 0),
				tr(2*ms, b, EST, CW, out, cookie(5), in(77)), lostRecords(12*ms, 1),
				begin(20*ms), end(23*ms), rec(events.KindHoldersBegin, 24*ms, 0), rec(events.KindHoldersEnd, 25*ms, 0))),
			want: `
				2ms #1 ESTABLISHED>CLOSE_WAIT
				12ms lost 1 of 1 since ?
				20ms #1 CLOSE_WAIT>CLOSE ~
				20ms #1 closed unknown by remote ? [ESTABLISHED=? CLOSE_WAIT=?] total 18ms ~
				25ms resync corrected 0 removed 1 added 0
			`,
		},
		{
			name: "a connection that became a timewait socket unseen is one still",
			records: seq(opensActive(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, cookie(1)),
				lostRecords(sec, 5),
				begin(2*sec), seen(2*sec+us, w, TW, out, timer(59*sec-us), cookie(1)), end(2*sec+ms),
				destroy(62*sec, w, TW, 0, out, cookie(1)))),
			want: openActive + `
				10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				1s lost 5 of 5 since ?
				1s #1 FIN_WAIT1>TIME_WAIT connect=7/curl ~
				2001ms resync corrected 1 removed 0 added 0
				62s #1 TIME_WAIT>CLOSE in 61s connect=7/curl
				62s #1 closed active by local fin tw=expired ` + local + ` [SYN_SENT=1ms ESTABLISHED=9ms FIN_WAIT1=? TIME_WAIT=61s] total 62s ~
			`,
		},
		{
			name: "the close without its timewait socket, and then a loss: a walk decides",
			records: seq(toFinWait2(opensActive(0, a, 1)), recs(
				tr(600*ms, a, FW2, CLOSE, out, flags(orphan|finRecvd), cookie(1)),
				lostRecords(601*ms, 1), tick(602*ms),
				begin(sec), seen(sec+us, w, TW, out, timer(59600*ms-us), cookie(1)), end(sec+ms))),
			want: inFinWait2 + `
				601ms lost 1 of 1 since ?
				600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
				1001ms resync corrected 0 removed 0 added 0
			`,
			living: 1,
		},
		{
			name: "the end of a TIME_WAIT was lost",
			records: seq(toTimeWait(), recs(
				lostRecords(61*sec, 1), begin(62*sec), end(62*sec+ms))),
			want: inTimeWait + `
				61s lost 1 of 1 since ?
				62s #1 TIME_WAIT>CLOSE in 61400ms connect=7/curl ~
				62s #1 closed active by local fin tw=expired ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=61400ms] total 62s ~
				62001ms resync corrected 0 removed 1 added 0
			`,
		},
		{
			name: "the peer's FIN was lost",
			records: seq(toTimeWait()[:7], recs(
				lostRecords(sec, 1), begin(2*sec), seen(2*sec+us, w, TW, out, timer(59500*ms-us), cookie(1)), end(2*sec+ms),
				destroy(61500*ms, w, TW, 0, out))),
			want: inFinWait2 + `
				1s lost 1 of 1 since ?
				1500ms #1 FIN_WAIT2>TIME_WAIT connect=7/curl ~
				2001ms resync corrected 1 removed 0 added 0
				61500ms #1 TIME_WAIT>CLOSE in 60s connect=7/curl
				61500ms #1 closed active by local fin tw=expired ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=? TIME_WAIT=60s] total 61500ms ~
			`,
		},
		{
			name: "a listener that is gone",
			records: recs(
				tr(0, a, CLOSE, LISTEN, flow(any4, "0.0.0.0:0"), nginx, cookie(9)),
				lostRecords(sec, 1), begin(2*sec), end(2*sec+ms)),
			want: `
				0s #1 CLOSE>LISTEN listen=8/nginx
				1s lost 1 of 1 since ?
				2s #1 LISTEN>CLOSE listen=8/nginx ~
				2001ms resync corrected 0 removed 1 added 0
			`,
		},
		{
			name: "the connect alone is left of an opening",
			records: recs(
				rec(events.KindConnect, ms, a, out, pid(7, "curl"), cookie(1)),
				tr(2*ms, a, SYNSENT, CLOSE, out, errno(errConnRefused), cookie(1))),
			want: `
				2ms #1 SYN_SENT>CLOSE in>=1ms connect=7/curl ECONNREFUSED
				2ms #1 closed active by remote refused/peer connect=7/curl ECONNREFUSED [SYN_SENT=1ms] total 1ms ~
			`,
		},
		{
			name: "a full socket in a walk where the table has a timewait socket, and the reverse",
			records: seq(toTimeWait(), opensActive(sec, b, 2), recs(
				lostRecords(2*sec, 9), begin(3*sec),
				seen(3*sec, w, EST, flow("10.0.0.1:1", srv), rx(0), cookie(3)),
				seen(3*sec, b, TW, out, timer(59*sec), cookie(4)),
				end(3*sec+ms))),
			want: inTimeWait + `
				1s #2 CLOSE>SYN_SENT connect=7/curl
				1001ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				2s lost 9 of 9 since ?
				3s #1 TIME_WAIT>CLOSE in 2400ms connect=7/curl ~
				3s #1 closed active by local fin tw=unknown ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=2400ms] total 3s ~
				3s #2 ESTABLISHED>CLOSE connect=7/curl ~
				3s #2 closed active by unknown ? connect=7/curl [SYN_SENT=1ms ESTABLISHED=?] total 2s ~
				3001ms resync corrected 0 removed 2 added 2
			`,
			living: 2,
		},
	} {
		t.Run(s.name, s.run)
	}
}

// A child of which only the making was told before a loss: what is at its address
// seconds later is taken for another connection, of which nothing is claimed.
func TestLostChild(t *testing.T) {
	for _, hooks := range []Hooks{HooksFull, HooksPoll} {
		s := scenario{
			hooks: hooks,
			records: seq(recs(tr(sec, a, LISTEN, SYNRECV), lostRecords(2*sec, 9)),
				recs(begin(3*sec), seen(3*sec, a, EST, out, cookie(1)), end(3*sec+ms), tr(4*sec, a, EST, CW, out, cookie(1)))),
			want: `
				2s lost 9 of 9 since ?
				3001ms resync corrected 0 removed 0 added 1
				4s #2 ESTABLISHED>CLOSE_WAIT in>=1s
			`,
			living: 1,
		}
		s.run(t)
	}
}
