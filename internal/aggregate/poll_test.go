package aggregate

import (
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// pollTimeWait: the peer's FIN ends FIN_WAIT2 at 600 ms; a socket of TIME_WAIT
// begins.
func pollTimeWait() []events.Record {
	return seq(opensPoll(0, a, 1), recs(
		tr(10*ms, a, EST, FW1, out, curl, flags(held), cookie(1)),
		tr(11*ms, a, FW1, FW2, out, flags(held), cookie(1)),
		tr(600*ms, a, FW2, CLOSE, out, flags(held|finRecvd), cookie(1))))
}

// pollHidden: an orphan goes to a timewait socket in FIN_WAIT2 at 12 ms.
func pollHidden() []events.Record {
	return seq(toFinWait2(opensPoll(0, a, 1)), recs(
		tr(12*ms, a, FW2, CLOSE, out, curl, flags(orphan), cookie(1))))
}

// empty is a walk that meets nothing.
func empty(ts int64) []events.Record { return recs(begin(ts), endCount(ts+ms, 0)) }

// meets is a walk that meets the timewait socket w with that much time left.
func meets(ts int64, s events.State, left int64, ck uint64) []events.Record {
	return recs(begin(ts), seen(ts+us, w, s, out, timer(left), cookie(ck)), endCount(ts+ms, 0))
}

func TestPoll(t *testing.T) {
	closedTW := ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=`
	for _, s := range []scenario{
		{
			name:    "nothing is said before a walk",
			records: pollTimeWait(), want: inFinWait2, living: 1,
		},
		{
			name:    "a walk shows it: the transition's own time; then it runs out",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1), meets(2*sec, TW, 58600*ms-us, 1), empty(61*sec)),
			want: inTimeWait + `
				61s #1 TIME_WAIT>CLOSE in 60400ms connect=7/curl ~
				61s #1 closed active by local fin tw=expired ` + local + closedTW + `60400ms] total 61s ~`,
		},
		{
			name:    "without cookies the addresses join them",
			records: seq(strip(pollTimeWait()), strip(meets(sec, TW, 59600*ms-us, 0))),
			want:    inTimeWait, living: 1,
		},
		{
			name:    "the walk under way met it before the close was told",
			records: seq(pollTimeWait()[:4], recs(begin(599*ms), seen(600*ms-us, w, TW, out, timer(60*sec), cookie(1))), pollTimeWait()[4:], recs(endCount(601*ms, 0))),
			want:    inTimeWait, living: 1,
		},
		{
			name:    "restarted: it lasts longer",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1), meets(30*sec, TW, 59*sec, 1), meets(61*sec, TW, 28*sec, 1), empty(90*sec)),
			want: inTimeWait + `
				90s #1 TIME_WAIT>CLOSE in 89400ms connect=7/curl ~
				90s #1 closed active by local fin tw=expired ` + local + closedTW + `89400ms] total 90s ~`,
		},
		{
			name:    "ended early, nobody knows why",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1), empty(2*sec)),
			want: inTimeWait + `
				2s #1 TIME_WAIT>CLOSE in 1400ms connect=7/curl ~
				2s #1 closed active by local fin tw=unknown ` + local + closedTW + `1400ms] total 2s ~`,
		},
		{
			name: "ended early for a younger connection",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1), opensPoll(1500*ms, b, 2),
				recs(begin(2*sec), seen(2*sec+us, b, EST, out, cookie(2)), endCount(2*sec+ms, 0))),
			want: inTimeWait + `
				1500ms #2 CLOSE>SYN_SENT connect=7/curl
				1501ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				1500ms #1 TIME_WAIT>CLOSE in 900ms connect=7/curl ~
				1500ms #1 closed active by local fin tw=reused ` + local + closedTW + `900ms] total 1500ms ~`,
			living: 1,
		},
		{
			name:    "ended before any walk saw it",
			records: seq(pollTimeWait(), empty(sec)),
			want: inTimeWait + `
				1s #1 TIME_WAIT>CLOSE in 400ms connect=7/curl ~
				1s #1 closed active by local fin tw=unknown ` + local + closedTW + `400ms] total 1s ~`,
		},
		{
			name: "ended before any walk saw it, for a younger connection",
			records: seq(pollTimeWait(), opensPoll(700*ms, b, 2),
				recs(begin(sec), seen(sec+us, b, EST, out, cookie(2)), endCount(sec+ms, 0))),
			want: inFinWait2 + `
				700ms #2 CLOSE>SYN_SENT connect=7/curl
				701ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
				700ms #1 TIME_WAIT>CLOSE in 100ms connect=7/curl ~
				700ms #1 closed active by local fin tw=reused ` + local + closedTW + `100ms] total 700ms ~`,
			living: 1,
		},
		{
			name: "the younger one is in TIME_WAIT itself by then",
			records: seq(pollTimeWait(), opensPoll(700*ms, b, 2), recs(
				tr(710*ms, b, EST, FW1, out, curl, cookie(2)),
				tr(711*ms, b, FW1, FW2, out, flags(held), cookie(2)),
				tr(712*ms, b, FW2, CLOSE, out, flags(held|finRecvd), cookie(2))),
				meets(sec, TW, 59712*ms-us, 2)),
			want: inFinWait2 + `
				700ms #2 CLOSE>SYN_SENT connect=7/curl
				701ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				710ms #2 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				711ms #2 FIN_WAIT1>FIN_WAIT2 in 1ms connect=7/curl
				600ms #1 FIN_WAIT2>TIME_WAIT in 589ms connect=7/curl
				700ms #1 TIME_WAIT>CLOSE in 100ms connect=7/curl ~
				700ms #1 closed active by local fin tw=reused ` + local + closedTW + `100ms] total 700ms ~
				712ms #2 FIN_WAIT2>TIME_WAIT in 1ms connect=7/curl`,
			living: 1,
		},
		{
			name: "the same, without cookies and in the same address as the one before",
			records: seq(strip(pollTimeWait()), meets(sec, TW, 59600*ms-us, 0), strip(opensPoll(1100*ms, b, 2)), strip(recs(
				tr(1110*ms, b, EST, FW1, out, curl),
				tr(1111*ms, b, FW1, FW2, out, flags(held)),
				tr(1112*ms, b, FW2, CLOSE, out, flags(held|finRecvd)))),
				meets(2*sec, TW, 59112*ms-us, 0)),
			want: inTimeWait + `
				1100ms #2 CLOSE>SYN_SENT connect=7/curl
				1101ms #2 SYN_SENT>ESTABLISHED in 1ms connect=7/curl
				1110ms #2 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				1111ms #2 FIN_WAIT1>FIN_WAIT2 in 1ms connect=7/curl
				1100ms #1 TIME_WAIT>CLOSE in 500ms connect=7/curl ~
				1100ms #1 closed active by local fin tw=reused ` + local + closedTW + `500ms] total 1100ms ~
				1112ms #2 FIN_WAIT2>TIME_WAIT in 1ms connect=7/curl`,
			living: 1,
		},
		{
			name:    "no room: as many as the kernel counted",
			records: seq(empty(ms), pollTimeWait(), recs(begin(sec), endCount(sec+ms, 1))),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>CLOSE in 589ms connect=7/curl
				600ms #1 closed active by local fin overflow ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms] total 600ms`,
		},
		{
			name: "no room, counted by the walk that was under way at the close",
			records: seq(pollTimeWait()[:4], recs(begin(599*ms), seen(599*ms, a, FW2, out, rx(0), flags(held), cookie(1))),
				pollTimeWait()[4:], recs(endCount(601*ms, 1)), empty(sec)),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>CLOSE in 589ms connect=7/curl
				600ms #1 closed active by local fin overflow ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms] total 600ms`},
		{
			name:    "it cannot be told whether there was room",
			records: seq(pollTimeWait(), recs(begin(sec), endCount(sec+ms, -1))),
			want: inFinWait2 + `
				600ms #1 FIN_WAIT2>CLOSE in 589ms connect=7/curl ~
				600ms #1 closed active by local fin tw=unknown ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms] total 600ms ~`,
		},
		{
			name:    "hidden FIN_WAIT2: nothing is said until TIME_WAIT, whose timer tells the beginning",
			records: seq(pollHidden(), meets(sec, FW2, 59*sec, 1), meets(2*sec, TW, 59500*ms-us, 1)),
			want: inFinWait2 + `
				1500ms #1 FIN_WAIT2>TIME_WAIT in 1489ms connect=7/curl`,
			living: 1,
		},
		{
			name:    "hidden FIN_WAIT2, over before a walk",
			records: seq(pollHidden(), meets(sec, TW, 59500*ms-us, 1)),
			want: inFinWait2 + `
				500ms #1 FIN_WAIT2>TIME_WAIT in 489ms connect=7/curl`,
			living: 1,
		},
		{
			name:    "hidden FIN_WAIT2 ended by tcp_fin_timeout",
			records: seq(pollHidden(), meets(sec, FW2, 4*sec, 1), empty(5100*ms)),
			want: inFinWait2 + `
				5100ms #1 FIN_WAIT2>CLOSE in 5089ms connect=7/curl ~
				5100ms #1 closed active by local timeout ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=5089ms] total 5100ms ~`,
		},
		{
			name:    "hidden FIN_WAIT2 gone early",
			records: seq(pollHidden(), meets(sec, FW2, 4*sec, 1), empty(2*sec)),
			want: inFinWait2 + `
				2s #1 FIN_WAIT2>CLOSE in 1989ms connect=7/curl ~
				2s #1 closed active by local ? ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=1989ms] total 2s ~`,
		},
		{
			name:    "hidden FIN_WAIT2 that no walk saw",
			records: seq(pollHidden(), empty(sec)),
			want: inFinWait2 + `
				1s #1 FIN_WAIT2>CLOSE in 989ms connect=7/curl ~
				1s #1 closed active by local ? ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=989ms] total 1s ~`,
		},
		{
			name:    "a walk that had begun before proves nothing",
			records: seq(recs(begin(ms)), pollTimeWait(), recs(endCount(601*ms, 0))),
			want:    inFinWait2, living: 1,
		},
		{
			name: "an abort in FIN_WAIT2 needs no walk",
			records: seq(pollTimeWait()[:4], recs(
				tr(20*ms, a, FW2, CLOSE, out, curl, flags(held|events.FlagLinger0), rx(0), cookie(1)))),
			want: inFinWait2 + `
				20ms #1 FIN_WAIT2>CLOSE in 9ms connect=7/curl
				20ms #1 closed active by local rst/linger0 ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=9ms] total 20ms`,
		},
		{
			name: "an abort in CLOSING looks like TIME_WAIT, and is none",
			records: seq(opensPoll(0, a, 1), recs(
				tr(10*ms, a, EST, FW1, out, curl, cookie(1)),
				tr(11*ms, a, FW1, CLOSING, out, flags(held|finRecvd), cookie(1)),
				tr(20*ms, a, CLOSING, CLOSE, out, curl, flags(held|finRecvd|events.FlagLinger0), rx(1), cookie(1))),
				empty(sec)),
			want: openActive + `
				10ms #1 ESTABLISHED>FIN_WAIT1 in 9ms connect=7/curl
				11ms #1 FIN_WAIT1>CLOSING in 1ms connect=7/curl
				20ms #1 CLOSING>CLOSE in 9ms connect=7/curl
				20ms #1 closed active by both rst/linger0 ` + local + ` [` + upToFinWait2 + ` CLOSING=9ms] total 20ms`,
		},
		{
			name:    "no walk ever comes: after the longest time it is over",
			records: seq(pollTimeWait(), recs(tick(60*sec), tick(66*sec))),
			want: inTimeWait + `
				60600ms #1 TIME_WAIT>CLOSE in 60s connect=7/curl ~
				60600ms #1 closed active by local fin tw=unknown ` + local + closedTW + `60s] total 60600ms ~`,
		},
		{
			name: "the namespace is not walked any more: it has ended",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1),
				recs(rec(events.KindScanBegin, 2*sec, 0, in(5)), rec(events.KindScanEnd, 2*sec+us, 0, in(5)),
					rec(events.KindScanBegin, 3*sec, 0, in(5)), rec(events.KindScanEnd, 3*sec+us, 0, in(5)),
					rec(events.KindScanBegin, 4*sec, 0, in(5)), rec(events.KindScanEnd, 4*sec+us, 0, in(5)),
					rec(events.KindScanBegin, 5*sec, 0, in(5)))),
			want: inTimeWait + `
				4s #1 TIME_WAIT>CLOSE in 3400ms connect=7/curl ~
				4s #1 closed active by local fin tw=unknown ` + local + closedTW + `3400ms] total 4s ~`,
		},
		{
			name: "a connection that the kernel side's filter cut off goes with the next walk",
			records: recs(
				tr(0, a, CLOSE, SYNSENT, noPort, curl, cookie(1)), begin(sec), endCount(sec+us, 0)),
		},
	} {
		s.hooks = HooksPoll
		t.Run(s.name, s.run)
	}
}

func TestKprobe(t *testing.T) {
	const aborted = inFinWait2 + `
		12ms #1 FIN_WAIT2>CLOSE in 1ms connect=7/curl
		12ms #1 closed active by local rst/other connect=7/curl closed_by=7/curl [SYN_SENT=1ms ESTABLISHED=9ms FIN_WAIT1=1ms FIN_WAIT2=1ms] total 12ms`
	abort := seq(toFinWait2(opensPoll(0, a, 1)), recs(
		tr(12*ms, a, FW2, CLOSE, out, curl, flags(orphan), cookie(1))))
	for _, s := range []scenario{
		{
			name:    "a close that may begin a timewait socket waits for a walk",
			records: seq(pollTimeWait(), recs(tick(sec))), want: inFinWait2, living: 1,
		},
		{
			name:    "the walk finds it",
			records: seq(pollTimeWait(), recs(tick(sec)), meets(2*sec, TW, 58600*ms-us, 1), recs(tick(3*sec))),
			want:    inTimeWait + "\n3s lost 1 of 1 since 1s", living: 1,
		},
		{
			name:    "its end was passed over",
			records: seq(pollTimeWait(), meets(sec, TW, 59600*ms-us, 1), recs(tick(2*sec)), empty(62*sec), recs(tick(63*sec))),
			want: inTimeWait + "\n2s lost 1 of 1 since ?" + `
				62s #1 TIME_WAIT>CLOSE in 61400ms connect=7/curl ~
				62s #1 closed active by local fin tw=expired ` + local + ` [` + upToFinWait2 + ` FIN_WAIT2=589ms TIME_WAIT=61400ms] total 62s ~
				63s lost 1 of 2 since 2s`,
		},
		{
			name: "the end of the trace does not wait", records: abort, flush: true,
			want: aborted,
		},
		{
			name: "the walk does not find it: there was none", records: seq(abort, recs(tick(500*ms)), empty(sec)),
			want: aborted,
		},
	} {
		s.hooks = HooksKprobe
		t.Run(s.name, s.run)
	}
}

// strip takes the cookies away, as kernels before 5.12 do.
func strip(records []events.Record) []events.Record {
	records = append([]events.Record(nil), records...)
	for i := range records {
		records[i].Cookie = 0
	}
	return records
}
