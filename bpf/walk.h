/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What there is already: every TCP socket of a network namespace (iter/tcp) and
 * every descriptor of a TCP socket on the machine (iter/task_file), written as
 * records into the iterator's file.
 */
#ifndef TCPTRACE_WALK_H
#define TCPTRACE_WALK_H

#include "identity.h"
#include "timewait.h"
#include "transition.h"

static __always_inline __u64 walk_cookie(struct sock_common *skc)
{
	__u64 cookie = skc->skc_cookie.counter;

	if (!cookie && have_typed_helpers)
		cookie = bpf_get_socket_cookie(skc);
	return cookie;
}

static __always_inline bool walk_wanted(__u8 state)
{
	if (state == TCP_NEW_SYN_RECV)
		state = TCP_SYN_RECV;
	return !walk_states || ((1U << (state & 31)) & walk_states);
}

/*
 * CLOCK_MONOTONIC less the jiffies' time, the least seen so far. The kernel moves
 * jiffies on by whole ticks of that clock (tick_do_update_jiffies64), so that the
 * true distance is constant; but it does so late where the processor with that duty
 * gets no time, up to tens of ms on a busy virtual machine, and what is read then is
 * too much. Written by any walk; where two race, the greater may stay until the next
 * socket.
 */
__s64 jiffies_origin_ns = 0x7fffffffffffffffLL;

static __always_inline void sample_jiffies(void)
{
	/* First: later, it could be ahead of the clock. */
	__s64 jiffies = (__s64)(bpf_jiffies64() * jiffy_ns);
	__s64 origin = (__s64)bpf_ktime_get_ns() - jiffies;

	if (origin < jiffies_origin_ns)
		jiffies_origin_ns = origin;
}

static __always_inline int write_record(struct bpf_iter_meta *meta, struct record *r)
{
	/* No room: the iterator hands the buffer over and comes back to the same
	 * socket. */
	bpf_seq_write(meta->seq, r, sizeof(*r));
	return 0;
}

static __always_inline int walk_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct inet_timewait_sock *tw;
	struct record r = {};
	__u32 jiffies;
	struct tcp_sock *tp;

	if (!skc)
		return 0;
	sample_jiffies();
	/* Before the state is read: what is told later than this was not seen. */
	r.ts_ns = bpf_ktime_get_ns();
	r.kind = RECORD_SOCKET;
	r.uid = ctx->uid;
	tp = bpf_skc_to_tcp_sock(skc);
	if (tp) {
		struct sock *sk = &tp->inet_conn.icsk_inet.sk;

		r.new_state = sk->__sk_common.skc_state;
		if (!walk_wanted(r.new_state))
			return 0;
		load_common(&r, &sk->__sk_common, false);
		if (!r.lport) /* bound and unbound again, or closing */
			r.lport = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
		load_socket(&r, sk, tp, r.new_state);
		r.cookie = walk_cookie(skc);
		if (r.new_state == TCP_LISTEN) {
			r.rx_pending = sk->sk_ack_backlog;
			r.tx_pending = sk->sk_max_ack_backlog;
			r.flags |= RECORD_PENDING_KNOWN;
		} else if (tp->rcv_tstamp) {
			/* Both count ticks begun: less by one, it is never too long. */
			jiffies = (__u32)bpf_jiffies64() - tp->rcv_tstamp;
			r.timer_ns = (__s64)(jiffies ? jiffies - 1 : 0) * (__s64)jiffy_ns;
			r.flags |= RECORD_TIMER;
		}
		return write_record(ctx->meta, &r);
	}
	/* The state tells the kind, and probes read it: bpf_skc_to_tcp_timewait_sock
	 * and bpf_skc_to_tcp_request_sock compare skc_prot with tcp_prot, which is
	 * another in the children of an MPTCP listener. */
	r.sk = (__u64)skc;
	switch (skc->skc_state) {
	case TCP_TIME_WAIT:
		tw = (struct inet_timewait_sock *)skc;
		r.new_state = BPF_CORE_READ(tw, tw_substate);
		if (!walk_wanted(r.new_state))
			return 0;
		load_common(&r, skc, false);
		/* Copied from the full socket; 0 where nobody asked for it then. */
		r.cookie = skc->skc_cookie.counter;
		/* By the clock, not by jiffies as they are now. */
		r.timer_ns = (__s64)(BPF_CORE_READ(tw, tw_timer.expires) * jiffy_ns) + jiffies_origin_ns -
			     (__s64)r.ts_ns;
		r.flags |= RECORD_TIMER;
		return write_record(ctx->meta, &r);
	case TCP_NEW_SYN_RECV:
		r.new_state = TCP_NEW_SYN_RECV;
		if (!walk_wanted(r.new_state))
			return 0;
		load_common(&r, skc, false);
		return write_record(ctx->meta, &r);
	}
	return 0;
}

static __always_inline int walk_task_file(struct bpf_iter__task_file *ctx)
{
	/* Loaded once: after the test for NULL a second load would not be known to
	 * be the same. */
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct record r = {};
	struct task_struct *leader;
	struct socket *socket;
	unsigned short family;
	struct sock *sk;

	if (!task || !file)
		return 0;
	if ((file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	/* Threads share their leader's table, unless they have unshared it. */
	leader = task->group_leader;
	if (task->pid != task->tgid && task->files == leader->files)
		return 0;
	socket = file->private_data;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	r.old_state = 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	switch (BPF_CORE_READ(sk, sk_protocol)) {
	case IPPROTO_MPTCP:
		r.flags |= RECORD_MPTCP;
		break;
	case IPPROTO_TCP:
		break;
	default:
		return 0;
	}
	r.ts_ns = bpf_ktime_get_ns();
	r.kind = RECORD_HOLDER;
	r.sk = (__u64)sk;
	r.peer_sk = (__u64)socket;
	r.cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	r.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	r.new_state = BPF_CORE_READ(sk, __sk_common.skc_state);
	r.uid = BPF_CORE_READ(sk, sk_uid.val);
	r.pid = task->tgid;
	r.fd = ctx->fd;
	load_comm(&r, leader);
	return write_record(ctx->meta, &r);
}

#endif
