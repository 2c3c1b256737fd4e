//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The hooks, one SEC each. Every tier uses the transition and the walks; fentry and
 * kprobe are two ways to the same functions, of which user space loads one.
 */
#include "kernel.h"
#include "knobs.h"
#include "maps.h"
#include "nested.h"
#include "process.h"
#include "records.h"
#include "timewait.h"
#include "transition.h"
#include "walk.h"

/* bpf2go finds the record's type through this. */
const struct record *unused_record __attribute__((unused));

/* Every tier. */

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int old, int new)
{
	if (guard_nesting) {
		hold_cpu();
		note_sight(NESTED_TRANSITION, sk, old << 8 | new);
	}
	handle_transition(sk, old, new, 0);
	if (guard_nesting)
		release_cpu();
	return 0;
}

/* Only with guard_nesting. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(nested_inet_sock_set_state, struct sock *sk, int old, int new)
{
	hold_cpu();
	if (passed_over(ctx, NESTED_TRANSITION, sk, old << 8 | new) &&
	    !handle_transition(sk, old, new, RECORD_NESTED))
		count_unwanted();
	release_cpu();
	return 0;
}

SEC("iter/tcp")
int dump_tcp(struct bpf_iter__tcp *ctx)
{
	return walk_tcp(ctx);
}

SEC("iter/task_file")
int dump_task_file(struct bpf_iter__task_file *ctx)
{
	return walk_task_file(ctx);
}

/* Every tier, with a traced command. */

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	handle_fork(parent, child);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(sched_process_free, struct task_struct *task)
{
	handle_free(task);
	return 0;
}

/* Tier fentry. */

SEC("fentry/tcp_connect")
int BPF_PROG(fentry_tcp_connect, struct sock *sk)
{
	hold_cpu();
	note_sight(NESTED_CONNECT, sk, 0);
	handle_connect(sk, 0, false);
	release_cpu();
	return 0;
}

SEC("fentry/tcp_connect")
int BPF_PROG(nested_tcp_connect, struct sock *sk)
{
	hold_cpu();
	if (passed_over(ctx, NESTED_CONNECT, sk, 0) &&
	    !handle_connect(sk, RECORD_NESTED, false))
		count_unwanted();
	release_cpu();
	return 0;
}

SEC("fentry/security_sock_graft")
int BPF_PROG(fentry_security_sock_graft, struct sock *sk)
{
	hold_cpu();
	note_sight(NESTED_ACCEPT, sk, 0);
	handle_accept(sk, 0, false);
	release_cpu();
	return 0;
}

SEC("fentry/security_sock_graft")
int BPF_PROG(nested_security_sock_graft, struct sock *sk)
{
	hold_cpu();
	if (passed_over(ctx, NESTED_ACCEPT, sk, 0) &&
	    !handle_accept(sk, RECORD_NESTED, false))
		count_unwanted();
	release_cpu();
	return 0;
}

SEC("fexit/inet_twsk_alloc")
int BPF_PROG(fexit_inet_twsk_alloc, struct sock *sk, struct inet_timewait_death_row *dr, int state,
	     struct inet_timewait_sock *tw)
{
	hold_cpu();
	note_sight(NESTED_TIMEWAIT_ALLOC, sk, state);
	handle_timewait_alloc(sk, state, tw, 0, false);
	release_cpu();
	return 0;
}

SEC("fexit/inet_twsk_alloc")
int BPF_PROG(nested_inet_twsk_alloc, struct sock *sk, struct inet_timewait_death_row *dr, int state,
	     struct inet_timewait_sock *tw)
{
	hold_cpu();
	if (passed_over(ctx, NESTED_TIMEWAIT_ALLOC, sk, state) &&
	    !handle_timewait_alloc(sk, state, tw, RECORD_NESTED, false))
		count_unwanted();
	release_cpu();
	return 0;
}

/*
 * rearm is a bool in the kernel. A trampoline of 5.10 stores one byte of it and leaves
 * the others as they were on the stack (save_regs, arch/x86/net/bpf_jit_comp.c): as
 * a bool here it would be true whenever any of them is not zero.
 */
SEC("fentry/__inet_twsk_schedule")
int BPF_PROG(fentry___inet_twsk_schedule, struct inet_timewait_sock *tw, int timeo, __u8 rearm)
{
	if (!rearm)
		return 0;
	hold_cpu();
	note_sight(NESTED_TIMEWAIT_SCHEDULE, tw, 0);
	handle_timewait_schedule(tw, timeo, 0, false);
	release_cpu();
	return 0;
}

SEC("fentry/__inet_twsk_schedule")
int BPF_PROG(nested___inet_twsk_schedule, struct inet_timewait_sock *tw, int timeo, __u8 rearm)
{
	if (!rearm)
		return 0;
	hold_cpu();
	if (passed_over(ctx, NESTED_TIMEWAIT_SCHEDULE, tw, 0) &&
	    !handle_timewait_schedule(tw, timeo, RECORD_NESTED, false))
		count_unwanted();
	release_cpu();
	return 0;
}

SEC("fentry/tcp_timewait_state_process")
int BPF_PROG(fentry_tcp_timewait_state_process, struct inet_timewait_sock *tw, struct sk_buff *skb,
	     struct tcphdr *th)
{
	handle_timewait_segment(tw, BPF_CORE_READ_BITFIELD(th, syn), BPF_CORE_READ_BITFIELD(th, rst));
	return 0;
}

SEC("fentry/tcp_twsk_destructor")
int BPF_PROG(fentry_tcp_twsk_destructor, struct sock *sk)
{
	hold_cpu();
	note_sight(NESTED_TIMEWAIT_DESTROY, sk, 0);
	handle_timewait_destroy((struct inet_timewait_sock *)sk, 0, true);
	release_cpu();
	return 0;
}

SEC("fentry/tcp_twsk_destructor")
int BPF_PROG(nested_tcp_twsk_destructor, struct sock *sk)
{
	hold_cpu();
	if (passed_over(ctx, NESTED_TIMEWAIT_DESTROY, sk, 0) &&
	    !handle_timewait_destroy((struct inet_timewait_sock *)sk, RECORD_NESTED, true))
		count_unwanted();
	release_cpu();
	return 0;
}

/* For kernels without CONFIG_SECURITY_NETWORK: sees no accept that was waiting
 * before the attach. */
SEC("fexit/inet_csk_accept")
int fexit_inet_csk_accept(__u64 *ctx)
{
	struct sock *sk;

	/* The return value stands behind the parameters. Each load keeps its own
	 * constant offset: the verifier refuses a computed one. */
	if (inet_csk_accept_params == 2) {
		sk = (struct sock *)ctx[2];
		barrier_var(sk);
	} else {
		sk = (struct sock *)ctx[4];
		barrier_var(sk);
	}
	if (sk)
		handle_accept(sk, 0, true);
	return 0;
}

/* Tier kprobe. */

SEC("kprobe/tcp_connect")
int BPF_KPROBE(kprobe_tcp_connect, struct sock *sk)
{
	handle_connect(sk, 0, true);
	return 0;
}

SEC("kprobe/security_sock_graft")
int BPF_KPROBE(kprobe_security_sock_graft, struct sock *sk)
{
	handle_accept(sk, 0, true);
	return 0;
}

SEC("kretprobe/inet_csk_accept")
int BPF_KRETPROBE(kretprobe_inet_csk_accept, struct sock *sk)
{
	if (sk)
		handle_accept(sk, 0, true);
	return 0;
}

/*
 * A kretprobe would have to carry sk from the entry to the return, past softirqs
 * that do the same on the same task. So the entry reports an attempt (tw 0), and
 * the hash dance that follows a success reports the timewait socket.
 */
SEC("kprobe/inet_twsk_alloc")
int BPF_KPROBE(kprobe_inet_twsk_alloc, struct sock *sk, struct inet_timewait_death_row *dr, int state)
{
	handle_timewait_alloc(sk, state, 0, 0, true);
	return 0;
}

/* inet_twsk_hashdance_schedule from 6.11 (b334b924c9b7), inet_twsk_hashdance before:
 * user space names the one that there is. */
SEC("kprobe/inet_twsk_hashdance")
int BPF_KPROBE(kprobe_inet_twsk_hashdance, struct inet_timewait_sock *tw, struct sock *sk)
{
	handle_timewait_alloc(sk, BPF_CORE_READ(tw, tw_substate), tw, 0, true);
	return 0;
}

SEC("kprobe/__inet_twsk_schedule")
int BPF_KPROBE(kprobe___inet_twsk_schedule, struct inet_timewait_sock *tw, int timeo, bool rearm)
{
	if (rearm)
		handle_timewait_schedule(tw, timeo, 0, true);
	return 0;
}

SEC("kprobe/tcp_timewait_state_process")
int BPF_KPROBE(kprobe_tcp_timewait_state_process, struct inet_timewait_sock *tw, struct sk_buff *skb,
	       struct tcphdr *th)
{
	handle_timewait_segment(tw, BPF_CORE_READ_BITFIELD_PROBED(th, syn),
				BPF_CORE_READ_BITFIELD_PROBED(th, rst));
	return 0;
}

SEC("kprobe/tcp_twsk_destructor")
int BPF_KPROBE(kprobe_tcp_twsk_destructor, struct sock *sk)
{
	handle_timewait_destroy((struct inet_timewait_sock *)sk, 0, true);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
