/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * From a hook to the ring: filter, reserve, count what found no room.
 */
#ifndef TCPTRACE_EMIT_H
#define TCPTRACE_EMIT_H

#include "identity.h"
#include "kernel.h"
#include "knobs.h"
#include "maps.h"
#include "records.h"

static __always_inline bool port_wanted(__u16 lport, __u16 rport)
{
	const struct port_bits *l, *r;
	__u32 lkey = lport >> 6, rkey = rport >> 6;
	__u64 lbit = 1ULL << (lport & 63), rbit = 1ULL << (rport & 63);

	l = bpf_map_lookup_elem(&ports_wanted, &lkey);
	r = bpf_map_lookup_elem(&ports_wanted, &rkey);
	if (!l || !r)
		return true;
	if (filter_lport && lport && !(l->local & lbit))
		return false;
	if (filter_rport && rport && !(r->remote & rbit))
		return false;
	if (filter_port && lport && rport && !((l->either & lbit) | (r->either & rbit)))
		return false;
	return true;
}

/*
 * Do the filters let this socket through, as far as they can decide? addressed:
 * its addresses are its own already. Nothing is read that no filter asks for: the
 * knobs are constants when the verifier looks.
 */
static __always_inline bool wanted(struct sock_common *skc, __u16 lport, bool addressed,
				   const bool probe)
{
	if (filter_one_netns || filter_netns) {
		struct net *net;
		__u32 netns;

		LOAD(net, skc->skc_net.net);
		LOAD(netns, net->ns.inum);
		if (filter_one_netns && netns != filter_one_netns)
			return false;
		if (filter_netns && !bpf_map_lookup_elem(&netns_wanted, &netns))
			return false;
	}
	if (filter_family && addressed) {
		__u8 family = load_family(skc, probe);

		if (family && family != filter_family)
			return false;
	}
	if (filter_ports) {
		__be16 dport;

		LOAD(dport, skc->skc_dport);
		if (!port_wanted(lport, bpf_ntohs(dport)))
			return false;
	}
	return true;
}

static __always_inline void count_lost(void)
{
	__sync_fetch_and_add(&lost_records, 1);
}

/*
 * A program that stands in finds no room. It may stand in for one that was not passed
 * over after all, so that it counts nothing where the kernel has counted the one that
 * was.
 */
static __always_inline bool counted_elsewhere(__u16 flags)
{
	return kernel_counts_misses && (flags & RECORD_NESTED);
}

/* Room for one record in the ring, zeroed, with its kind, flags and time; or NULL, and
 * the record that finds no room is counted. The caller submits it. */
static __always_inline struct record *reserve(__u8 kind, __u16 flags)
{
	struct record *r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);

	if (!r) {
		if (!counted_elsewhere(flags))
			count_lost();
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->ts_ns = bpf_ktime_get_ns();
	r->kind = kind;
	r->flags = flags;
	return r;
}

/* What a handler returns where reserve found no room: false if it has counted in place
 * of the kernel. */
static __always_inline bool lost_is_news(__u16 flags)
{
	return !(flags & RECORD_NESTED) || counted_elsewhere(flags);
}

/*
 * The kernel wakes the reader only when it has caught up (the ring's own rule with
 * no flag set). The reader lets records gather after a wakeup before it drains the
 * ring, so that a storm costs a few wakeups a second and a quiet machine none.
 */
static __always_inline void submit(struct record *r)
{
	bpf_ringbuf_submit(r, 0);
}

#endif
