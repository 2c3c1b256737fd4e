/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Full sockets: what a transition, an accept and a walk over all sockets report.
 */
#ifndef TCPTRACE_TRANSITION_H
#define TCPTRACE_TRANSITION_H

#include "emit.h"
#include "identity.h"

static __always_inline bool has_flag(unsigned long flags, int bit)
{
	return (flags >> bit) & 1;
}

/* What a full socket's own fields tell. tp is sk, typed. */
static __always_inline void load_socket(struct record *r, struct sock *sk, struct tcp_sock *tp,
					__u8 state)
{
	unsigned long flags = sk->__sk_common.skc_flags;

	r->sk = (__u64)sk;
	r->peer_sk = (__u64)sk->sk_socket;
	r->uid = sk->sk_uid.val;
	r->cgroup_id = load_cgroup_id(sk);
	r->sk_err = sk->sk_err;
	if (r->peer_sk)
		r->flags |= RECORD_HAS_SOCKET;
	if (has_flag(flags, SOCK_DEAD))
		r->flags |= RECORD_ORPHAN;
	if (has_flag(flags, SOCK_DONE))
		r->flags |= RECORD_FIN_RECEIVED;
	if (has_flag(flags, SOCK_LINGER) && sk->sk_lingertime == 0)
		r->flags |= RECORD_LINGER0;
	if (sk->sk_lock.owned)
		r->flags |= RECORD_LOCKED;
	if (BPF_CORE_READ_BITFIELD(sk, sk_kern_sock))
		r->flags |= RECORD_KERNEL_SOCKET;
	if (bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ_BITFIELD(tp, is_mptcp))
		r->flags |= RECORD_MPTCP;
	if (state == TCP_LISTEN || state == TCP_SYN_SENT || state == TCP_CLOSE)
		return;
	r->rx_pending = tp->rcv_nxt - tp->copied_seq;
	r->tx_pending = tp->write_seq - tp->snd_una;
	r->srtt_us = tp->srtt_us >> 3;
	r->flags |= RECORD_PENDING_KNOWN;
}

/*
 * Does the current process cause this transition itself? These run under the
 * socket's lock in the context of connect, listen, close, shutdown or exit; every
 * other one runs for whatever task the softirq interrupted. The lock decides where
 * the same transition can come from both (a deferred shutdown of a socket in
 * SYN_RECV, an orphan out of memory).
 */
static __always_inline bool caused_by_current(const struct record *r)
{
	__u8 old = r->old_state;

	/* The listener's owner closes it: inet_csk_listen_stop ends what waits in
	 * the backlog, in that process, but without owning the child's lock. */
	if (!(r->flags & RECORD_LOCKED))
		return r->new_state == TCP_CLOSE &&
		       (old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT) && r->sk_err == 0 &&
		       !(r->flags & (RECORD_HAS_SOCKET | RECORD_ORPHAN));
	switch (r->new_state) {
	case TCP_SYN_SENT:
	case TCP_LISTEN:
		return old == TCP_CLOSE;
	case TCP_FIN_WAIT1:
		return old == TCP_ESTABLISHED || old == TCP_SYN_RECV;
	case TCP_LAST_ACK:
		return old == TCP_CLOSE_WAIT;
	case TCP_CLOSE:
		if (old == TCP_LISTEN)
			return true;
		return old != TCP_LAST_ACK && (r->sk_err == 0 || r->sk_err == ECONNABORTED);
	}
	return false;
}

static __always_inline bool state_wanted(__u8 old, __u8 new)
{
	return !filter_states || ((1U << old | 1U << new) & filter_states);
}

/*
 * This and the other handlers return whether the filters let the event through, and
 * of a second program whether it is not counted as lost already: what the first one
 * missed the kernel counts, so that it must not count twice.
 */
static __always_inline bool handle_transition(struct sock *sk, int old, int new, __u16 flags)
{
	/* Up to 6.12 at least, the child of a listener still carries the listener's
	 * cookie and addresses here. */
	bool child = old == TCP_LISTEN && new == TCP_SYN_RECV;
	struct tcp_sock *tp;
	struct record *r;
	__u16 lport;

	if (sk->sk_protocol != IPPROTO_TCP || !state_wanted(old, new))
		return false;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return false;
	sk = &tp->inet_conn.icsk_inet.sk; /* see full_socket */
	/* inet_put_port clears skc_num before the transition to CLOSE is told;
	 * inet_sport stays. */
	lport = sk->__sk_common.skc_num;
	if (!lport)
		lport = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	if (!wanted(&sk->__sk_common, lport, !child, false))
		return false;
	r = reserve(RECORD_TRANSITION, flags);
	if (!r)
		return lost_is_news(flags);
	r->old_state = old;
	r->new_state = new;
	load_common(r, &sk->__sk_common, false);
	r->lport = lport;
	load_socket(r, sk, tp, old);
	if (child) {
		r->family = 0;
	} else {
		r->cookie = sk->__sk_common.skc_cookie.counter;
		/* Nobody has asked for it yet: this makes it. */
		if (!r->cookie && have_typed_helpers)
			r->cookie = bpf_get_socket_cookie(sk);
	}
	if (caused_by_current(r))
		load_actor(r);
	submit(r);
	return true;
}

/* A TCP socket to which a task does something that has no transition. */
static __always_inline bool handle_socket(struct sock *sk, __u8 kind, __u16 flags, const bool probe)
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
	r = reserve(kind, flags);
	if (!r)
		return lost_is_news(flags);
	r->sk = (__u64)sk;
	load_common(r, &sk->__sk_common, probe);
	LOAD(r->new_state, sk->__sk_common.skc_state);
	LOAD(r->uid, sk->sk_uid.val);
	LOAD(r->cookie, sk->__sk_common.skc_cookie.counter);
	load_actor(r);
	submit(r);
	return true;
}

static __always_inline bool handle_connect(struct sock *sk, __u16 flags, const bool probe)
{
	return handle_socket(sk, RECORD_CONNECT, flags, probe);
}

/*
 * security_sock_graft runs for every accept of any family. An MPTCP connection is
 * accepted as its parent socket, whose first subflow is the TCP connection.
 */
static __always_inline bool handle_accept(struct sock *sk, __u16 flags, const bool probe)
{
	unsigned short family;
	__u16 protocol, type;

	LOAD(family, sk->__sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return false;
	LOAD(type, sk->sk_type);
	LOAD(protocol, sk->sk_protocol);
	if (type != SOCK_STREAM)
		return false;
	if (protocol == IPPROTO_MPTCP) {
		struct mptcp_sock *msk = (struct mptcp_sock *)sk;

		if (!bpf_core_field_exists(msk->first)) /* CONFIG_MPTCP */
			return false;
		sk = BPF_CORE_READ(msk, first);
		return sk && handle_socket(sk, RECORD_ACCEPT, flags, true);
	}
	return handle_socket(sk, RECORD_ACCEPT, flags, probe);
}

#endif
