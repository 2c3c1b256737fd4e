/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Timewait sockets: what TIME_WAIT and an orphan's FIN_WAIT2 really are. No
 * transition tells of them (net/ipv4/inet_timewait_sock.c, tcp_minisocks.c).
 */
#ifndef TCPTRACE_TIMEWAIT_H
#define TCPTRACE_TIMEWAIT_H

#include "emit.h"
#include "identity.h"

static __always_inline void load_timewait(struct record *r, struct inet_timewait_sock *tw,
					  const bool probe)
{
	r->sk = (__u64)tw;
	load_common(r, &tw->__tw_common, probe);
	LOAD(r->new_state, tw->tw_substate);
	LOAD(r->cookie, tw->__tw_common.skc_cookie.counter);
}

static __always_inline bool timewait_wanted(struct inet_timewait_sock *tw, const bool probe)
{
	__u16 lport;

	LOAD(lport, tw->__tw_common.skc_num);
	return wanted(&tw->__tw_common, lport, true, probe);
}

/* Time that the socket's timer has left, to the jiffy; negative: past. */
static __always_inline __s64 timewait_left(struct inet_timewait_sock *tw, const bool probe)
{
	unsigned long expires;

	LOAD(expires, tw->tw_timer.expires);
	return (__s64)(expires - bpf_jiffies64()) * (__s64)jiffy_ns;
}

/* inet_twsk_alloc(sk, dr, state) returned tw. */
static __always_inline bool handle_timewait_alloc(struct sock *sk, int state,
						  struct inet_timewait_sock *tw, __u16 flags,
						  const bool probe)
{
	struct record *r;
	__u16 protocol, lport;

	LOAD(protocol, sk->sk_protocol);
	if (protocol != IPPROTO_TCP)
		return false;
	sk = full_socket(sk, probe);
	if (!sk)
		return false;
	LOAD(lport, sk->__sk_common.skc_num);
	if (!wanted(&sk->__sk_common, lport, true, probe))
		return false;
	r = reserve(RECORD_TIMEWAIT_ALLOC, flags);
	if (!r)
		return lost_is_news(flags);
	r->sk = (__u64)sk;
	r->peer_sk = (__u64)tw;
	load_common(r, &sk->__sk_common, probe);
	LOAD(r->cookie, sk->__sk_common.skc_cookie.counter);
	r->new_state = state;
	submit(r);
	return true;
}

/* __inet_twsk_schedule(tw, timeo, rearm): the timer is set anew. */
static __always_inline bool handle_timewait_schedule(struct inet_timewait_sock *tw, int timeo,
						     __u16 flags, const bool probe)
{
	struct record *r;

	if (!timewait_wanted(tw, probe))
		return false;
	r = reserve(RECORD_TIMEWAIT_SCHEDULE, flags);
	if (!r)
		return lost_is_news(flags);
	load_timewait(r, tw, probe);
	r->timer_ns = (__s64)timeo * (__s64)jiffy_ns;
	r->flags |= RECORD_TIMER;
	submit(r);
	return true;
}

/* tcp_timewait_state_process(tw, skb, th, ...) begins. */
static __always_inline void handle_timewait_segment(struct inet_timewait_sock *tw, bool syn, bool rst)
{
	struct timewait_segment *segment;
	__u32 zero = 0;

	segment = bpf_map_lookup_elem(&timewait_segments, &zero);
	if (!segment)
		return;
	segment->tw = (__u64)tw;
	segment->ts_ns = bpf_ktime_get_ns();
	segment->flags = RECORD_SEGMENT | (syn ? RECORD_SEGMENT_SYN : 0) | (rst ? RECORD_SEGMENT_RST : 0);
}

/* A segment that ends a timewait socket does so within microseconds. */
#define SEGMENT_FRESH_NS 50000000ULL

/* tcp_twsk_destructor(tw). */
static __always_inline bool handle_timewait_destroy(struct inet_timewait_sock *tw, __u16 flags,
						    const bool probe)
{
	struct timewait_segment *segment;
	struct record *r;
	__u32 zero = 0;

	if (!timewait_wanted(tw, probe))
		return false;
	r = reserve(RECORD_TIMEWAIT_DESTROY, flags);
	if (!r)
		return lost_is_news(flags);
	load_timewait(r, tw, probe);
	r->timer_ns = timewait_left(tw, probe);
	r->flags |= RECORD_TIMER;
	segment = bpf_map_lookup_elem(&timewait_segments, &zero);
	if (segment && segment->tw == (__u64)tw) {
		if (r->ts_ns - segment->ts_ns < SEGMENT_FRESH_NS)
			r->flags |= segment->flags;
		segment->tw = 0;
	}
	/* Ended early and by no segment: by the current task, a connect with
	 * tcp_tw_reuse or ss -K. */
	if (r->timer_ns > 0 && !(r->flags & RECORD_SEGMENT))
		load_actor(r);
	submit(r);
	return true;
}

#endif
