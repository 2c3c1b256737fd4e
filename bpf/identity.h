/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Who: addresses, ports, namespace and cookie of a socket, and the process that
 * acts on it.
 *
 * Programs that get typed pointers (tp_btf, fentry, fexit, iterators) load fields
 * directly; kprobes must copy them. The constant argument probe chooses.
 */
#ifndef TCPTRACE_IDENTITY_H
#define TCPTRACE_IDENTITY_H

#include "kernel.h"
#include "knobs.h"
#include "records.h"

#define LOAD(dst, src)                                                   \
	do {                                                             \
		if (probe)                                               \
			bpf_core_read(&(dst), sizeof(dst), &(src));      \
		else                                                     \
			(dst) = (src);                                   \
	} while (0)

/*
 * The same socket, by a pointer that the verifier does not trust. Of one that it trusts,
 * as of the arguments of tp_btf, fentry and fexit, it looks up each pointer field by a
 * name, up to four times through all of the kernel's types (btf_nested_type_is_trusted,
 * from 6.3): 0.3 ms a time, and 25 of the 30 ms in which a program was loaded. NULL for
 * what is no full TCP socket.
 */
static __always_inline struct sock *full_socket(struct sock *sk, const bool probe)
{
	struct tcp_sock *tp;

	if (probe)
		return sk;
	tp = bpf_skc_to_tcp_sock(sk);
	return tp ? &tp->inet_conn.icsk_inet.sk : 0;
}

/* ::ffff:0:0/96, RFC 4291 section 2.5.5.2. */
static __always_inline bool is_mapped(const __be32 a[4])
{
	return a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_unspecified(const __be32 a[4])
{
	return (a[0] | a[1] | a[2] | a[3]) == 0;
}

/* fe80::/10, RFC 4291 section 2.5.6. */
static __always_inline bool is_link_local(const __be32 a[4])
{
	return (a[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline void load_in6(__be32 dst[4], const struct in6_addr *src, const bool probe)
{
	LOAD(dst[0], src->in6_u.u6_addr32[0]);
	LOAD(dst[1], src->in6_u.u6_addr32[1]);
	LOAD(dst[2], src->in6_u.u6_addr32[2]);
	LOAD(dst[3], src->in6_u.u6_addr32[3]);
}

/* A dual-stack socket that talks IPv4 has both addresses mapped; one that is about
 * to connect may have :: as its own still. */
static __always_inline bool talks_ipv4(const __be32 l[4], const __be32 r[4])
{
	return is_mapped(r) || (is_mapped(l) && is_unspecified(r));
}

/* 4, 6 or 0 (neither), as a user sees it: IPv4-mapped IPv6 is IPv4. */
static __always_inline __u8 load_family(struct sock_common *skc, const bool probe)
{
	unsigned short family;
	__be32 l[4], r[4];

	LOAD(family, skc->skc_family);
	if (family == AF_INET)
		return 4;
	if (family != AF_INET6 || !bpf_core_field_exists(skc->skc_v6_daddr))
		return 0;
	load_in6(l, &skc->skc_v6_rcv_saddr, probe);
	load_in6(r, &skc->skc_v6_daddr, probe);
	return talks_ipv4(l, r) ? 4 : 6;
}

/*
 * Family, addresses, remote port, namespace of any kind of TCP socket, and its
 * local port in host order as far as skc_num has it. r is zeroed before.
 */
static __always_inline void load_common(struct record *r, struct sock_common *skc, const bool probe)
{
	__be32 *laddr = (__be32 *)r->laddr, *raddr = (__be32 *)r->raddr;
	unsigned short family;
	struct net *net;
	__be16 dport;

	LOAD(family, skc->skc_family);
	LOAD(dport, skc->skc_dport);
	LOAD(r->lport, skc->skc_num);
	r->rport = bpf_ntohs(dport);
	LOAD(net, skc->skc_net.net);
	LOAD(r->netns, net->ns.inum);

	if (family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		load_in6(laddr, &skc->skc_v6_rcv_saddr, probe);
		load_in6(raddr, &skc->skc_v6_daddr, probe);
		if (talks_ipv4(laddr, raddr)) {
			laddr[0] = is_mapped(laddr) ? laddr[3] : 0;
			raddr[0] = is_mapped(raddr) ? raddr[3] : 0;
			laddr[1] = laddr[2] = laddr[3] = 0;
			raddr[1] = raddr[2] = raddr[3] = 0;
			r->family = 4;
			return;
		}
		if (is_link_local(laddr) || is_link_local(raddr))
			LOAD(r->ifindex, skc->skc_bound_dev_if);
		r->family = 6;
	} else if (family == AF_INET) {
		LOAD(laddr[0], skc->skc_rcv_saddr);
		LOAD(raddr[0], skc->skc_daddr);
		r->family = 4;
	}
}

/* kernfs id of the cgroup that created the socket: the inode of its directory. */
static __always_inline __u64 load_cgroup_id(struct sock *sk)
{
	struct sock_cgroup_data *data = &sk->sk_cgrp_data;
	struct cgroup *cgroup;

	if (bpf_core_field_exists(data->cgroup)) {
		return sk->sk_cgrp_data.cgroup->kn->id;
	} else {
		struct sock_cgroup_data___pre_5_15 *old = (void *)data;
		__u64 val = BPF_CORE_READ(old, val);

		if (val & 1)
			return 0;
		cgroup = (struct cgroup *)(val & ~3ULL);
		return BPF_CORE_READ(cgroup, kn, id);
	}
}

static __always_inline void load_comm(struct record *r, struct task_struct *leader)
{
	bpf_probe_read_kernel_str(r->comm, sizeof(r->comm), &leader->comm);
}

/*
 * The process that acts on the socket: the current one, named as ps names it (by
 * the leader of its thread group). A kernel thread is nobody's process, and the
 * one that walks acts for others.
 */
static __always_inline void load_actor(struct record *r)
{
	struct task_struct *task, *leader;

	if (have_typed_helpers) {
		task = bpf_get_current_task_btf();
		if (task->flags & PF_KTHREAD)
			return;
		if (walking_tgid && (__u32)task->tgid == walking_tgid)
			return;
		r->pid = task->tgid;
		if (task->pid == task->tgid)
			bpf_get_current_comm(r->comm, sizeof(r->comm));
		else
			load_comm(r, task->group_leader);
	} else {
		task = (struct task_struct *)bpf_get_current_task();
		if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
			return;
		r->pid = BPF_CORE_READ(task, tgid);
		if (walking_tgid && r->pid == walking_tgid) {
			r->pid = 0;
			return;
		}
		leader = BPF_CORE_READ(task, group_leader);
		load_comm(r, leader);
	}
	r->flags |= RECORD_ACTOR;
}

#endif
