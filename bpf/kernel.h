/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The part of the kernel that tcptrace reads: types, constants and, of each
 * structure, the fields in use. preserve_access_index makes every access a CO-RE
 * relocation, so that offsets come from the running kernel's BTF; a field that is
 * not there is tested for with bpf_core_field_exists, never by version. A suffix
 * behind three underscores names the kernels that have that flavour.
 */
#ifndef TCPTRACE_KERNEL_H
#define TCPTRACE_KERNEL_H

/* libbpf's tracing header then uses the kernel's names of the registers. */
#define __VMLINUX_H__

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_ANY = 0,
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define ECONNABORTED 103
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* enum sock_flags, include/net/sock.h: bits of skc_flags. */
#define SOCK_DEAD 0
#define SOCK_DONE 1
#define SOCK_LINGER 4

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;     /* CONFIG_IPV6 */
	struct in6_addr skc_v6_rcv_saddr; /* CONFIG_IPV6 */
	atomic64_t skc_cookie;
	unsigned long skc_flags;
};

typedef struct {
	int owned;
} socket_lock_t;

typedef struct {
	__u32 val;
} kuid_t;

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

/* Until 8520e224f547 (bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode),
 * 5.15, a tagged pointer: bit 0 says that it is v1 data instead. */
struct sock_cgroup_data___pre_5_15 {
	__u64 val;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	int sk_err;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	kuid_t sk_uid;
	__u16 sk_type;
	__u16 sk_protocol;
	unsigned long sk_lingertime;
	__u8 sk_kern_sock : 1;
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct sock *sk;
	short type;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	void *icsk_ulp_data;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 write_seq;
	__u32 rcv_tstamp;
	__u32 srtt_us;
	bool is_mptcp; /* CONFIG_MPTCP */
};

struct mptcp_sock {
	struct inet_connection_sock sk;
	struct sock *first;
};

struct timer_list {
	unsigned long expires;
};

struct inet_timewait_sock {
	struct sock_common __tw_common;
	volatile unsigned char tw_substate;
	__be16 tw_sport;
	struct timer_list tw_timer;
};

struct inet_timewait_death_row;
struct sk_buff;

struct tcphdr {
	__u16 res1 : 4;
	__u16 doff : 4;
	__u16 fin : 1;
	__u16 syn : 1;
	__u16 rst : 1;
	__u16 psh : 1;
	__u16 ack : 1;
};

struct inode {
	unsigned short i_mode;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	struct task_struct *group_leader;
	char comm[16];
	void *files;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
} __attribute__((preserve_access_index));
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
} __attribute__((preserve_access_index));
struct pt_regs {
	struct user_pt_regs user_regs;
} __attribute__((preserve_access_index));
#endif

#endif
