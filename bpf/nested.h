/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The kernel runs a program once per CPU at a time and passes over what comes to it
 * meanwhile (prog->active). That is what a softirq brings within 300 ns, and, where
 * programs can be preempted, whatever other tasks do there until the preempted one
 * goes on: fentry programs on a preemptible kernel, and programs on tracepoints since
 * SRCU protects these.
 *
 * Preemption is switched off while they work, where the kernel lets programs do that
 * (6.10, fc7566ad0a82 "bpf: Introduce bpf_preempt_[disable,enable] kfuncs"); the few
 * instructions before are left.
 *
 * And such a hook has several programs. Each notes what it is about to report. A later
 * one reports what no earlier one has noted: they were passed over. It repeats what
 * stood there until another task's event took its place; user space drops that. Where
 * programs cannot be preempted there are two. Where they can there are three: a
 * preempted program is passed over until its task goes on, which may be long after,
 * and in that time the next one can be preempted as well.
 */
#ifndef TCPTRACE_NESTED_H
#define TCPTRACE_NESTED_H

#include "kernel.h"
#include "knobs.h"
#include "maps.h"

/* By the address of the socket, so that what a softirq brings between two programs of a
 * hook seldom takes the place of what the first one noted. */
static __always_inline volatile struct sight *sight_of(__u32 hook, __u32 level, const void *sk)
{
	__u32 key = 0;
	volatile __u64 *address = bpf_map_lookup_elem(&sight_address, &key);

	if (!address)
		return 0;
	*address = (__u64)sk;
	key = (level * NESTED_HOOKS + hook) << sight_bits |
	      (*address * 0x9e3779b97f4a7c15ULL) >> (64 - sight_bits);
	return bpf_map_lookup_elem(&last_seen, &key);
}

/* Of the first program. */
static __always_inline void note_sight(__u32 hook, const void *sk, __u32 what)
{
	volatile struct sight *last = sight_of(hook, 0, sk);

	if (!last)
		return;
	last->sk = (__u64)sk;
	last->what = what;
}

/*
 * Of a later program: were all in front of it passed over? The last one of the hook takes
 * away what they noted: a socket that gets the same address would else be taken for this
 * one.
 */
static __always_inline bool passed_over(void *ctx, __u32 hook, const void *sk, __u32 what)
{
	/* The second program has no cookie. */
	__u64 level = (deep_nesting ? bpf_get_attach_cookie(ctx) : 0) ?: 1;
	bool final = !deep_nesting || level == NESTED_LEVELS - 1;
	volatile struct sight *last;
	bool news = true;

#pragma unroll
	for (__u32 l = 0; l < NESTED_LEVELS; l++) {
		if (l > level || (l == level && final))
			break;
		last = sight_of(hook, l, sk);
		if (!last)
			break;
		if (l == level) {
			last->sk = (__u64)sk;
			last->what = what;
		} else if (last->sk == (__u64)sk && last->what == what) {
			news = false;
			if (final)
				last->sk = 0;
		}
	}
	return news;
}

static __always_inline void count_unwanted(void)
{
	__sync_fetch_and_add(&unwanted_events, 1);
}

extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

static __always_inline void hold_cpu(void)
{
	if (bpf_preempt_disable)
		bpf_preempt_disable();
}

static __always_inline void release_cpu(void)
{
	if (bpf_preempt_enable)
		bpf_preempt_enable();
}

#endif
