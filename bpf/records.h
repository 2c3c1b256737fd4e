/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the kernel side hands to user space: one record, one definition. bpf2go
 * generates the Go type (bpf.TcptraceRecord) from it; internal/tracer turns that
 * into events.Record.
 */
#ifndef TCPTRACE_RECORDS_H
#define TCPTRACE_RECORDS_H

/* What happened. The names are the hooks' subjects, not their addresses. */
enum record_kind {
	/* inet_sock_set_state: old -> new on the full socket sk. */
	RECORD_TRANSITION = 1,
	/* tcp_connect: the local port of a socket in SYN_SENT is now known. */
	RECORD_CONNECT = 2,
	/* security_sock_graft: the current process accepted sk. */
	RECORD_ACCEPT = 3,
	/* inet_twsk_alloc returned: sk is about to be replaced by the timewait
	 * socket peer_sk (0: none could be had), which starts in state new. */
	RECORD_TIMEWAIT_ALLOC = 4,
	/* __inet_twsk_schedule(rearm): the timewait socket sk is now in state
	 * new and its timer runs for timer_ns from ts_ns. */
	RECORD_TIMEWAIT_SCHEDULE = 5,
	/* tcp_twsk_destructor: the timewait socket sk is gone. timer_ns: what its
	 * timer had left; zero or less means that it expired. */
	RECORD_TIMEWAIT_DESTROY = 6,
	/* iter/tcp: the socket sk as it stands at ts_ns, in state new. */
	RECORD_SOCKET = 7,
	/* iter/task_file: process pid holds the socket in descriptor fd. */
	RECORD_HOLDER = 8,
	/* sched_process_fork: process fd, which is traced, started process pid. */
	RECORD_FORK = 9,
	/* sched_process_free: the traced process pid is gone. */
	RECORD_REAPED = 10,
};

enum record_flags {
	/* pid and comm are those of a user process that acted on this socket. */
	RECORD_ACTOR = 1 << 0,
	/* sk->sk_socket is set: a file (or a kernel user) stands behind it. */
	RECORD_HAS_SOCKET = 1 << 1,
	/* SOCK_DEAD: orphaned, the last descriptor is closed. */
	RECORD_ORPHAN = 1 << 2,
	/* SOCK_DONE: the peer's FIN (or RST) was received. */
	RECORD_FIN_RECEIVED = 1 << 3,
	/* SO_LINGER with a time of 0. */
	RECORD_LINGER0 = 1 << 4,
	/* sk_lock.owned: a task, not the softirq, works on the socket. */
	RECORD_LOCKED = 1 << 5,
	/* The segment that a timewait socket is handling carries RST ... */
	RECORD_SEGMENT_RST = 1 << 6,
	/* ... or SYN. Neither, yet RECORD_SEGMENT: any other. */
	RECORD_SEGMENT_SYN = 1 << 7,
	RECORD_SEGMENT = 1 << 8,
	/* rx_pending is known (a full socket in a synchronised state). */
	RECORD_PENDING_KNOWN = 1 << 9,
	/* sk is a subflow of an MPTCP connection. */
	RECORD_MPTCP = 1 << 10,
	/* timer_ns holds a time (see there). */
	RECORD_TIMER = 1 << 11,
	/* The socket belongs to the kernel (sk_kern_sock and no file). */
	RECORD_KERNEL_SOCKET = 1 << 12,
	/* By the second program on a hook; may repeat what was told already. */
	RECORD_NESTED = 1 << 13,
};

/*
 * Zero means unknown in cookie, cgroup_id, netns, pid, lport and rport.
 * Ports are in host order. Addresses are in network order: 4 bytes and 12 zeros
 * for family 4 (IPv4-mapped IPv6 included), 16 bytes for family 6.
 */
struct record {
	__u64 ts_ns;      /* CLOCK_MONOTONIC */
	__u64 sk;         /* address of the socket: identity while it lives */
	__u64 cookie;     /* socket cookie, as ss -e prints after sk: */
	__u64 cgroup_id;  /* kernfs id of the creator's cgroup */
	__u64 peer_sk;    /* TIMEWAIT_ALLOC: address of the timewait socket
			   * HOLDER, SOCKET: address of the struct socket */
	__s64 timer_ns;   /* TIMEWAIT_*, SOCKET in TIME_WAIT or timewait FIN_WAIT2:
			   * time left until the timer's expires (< 0: past it)
			   * SOCKET otherwise: least time since the last segment came */
	__u8 laddr[16];
	__u8 raddr[16];
	__u32 netns;      /* inode of the network namespace */
	__u32 pid;        /* thread group id */
	__u32 uid;        /* owner of the socket, sk_uid */
	__u32 ifindex;    /* scope of a link-local address, else 0 */
	__u32 rx_pending; /* rcv_nxt - copied_seq, a FIN counts 1 */
	__u32 tx_pending; /* write_seq - snd_una */
	__u32 srtt_us;    /* smoothed round trip time, 0 unknown */
	__u32 fd;         /* HOLDER: descriptor; FORK: the parent's pid */
	__u16 lport;
	__u16 rport;
	__u16 flags;      /* enum record_flags */
	__u16 sk_err;     /* errno at the transition, 0 none */
	__u8 kind;        /* enum record_kind */
	__u8 family;      /* 4, 6, or 0 when not known yet */
	__u8 old_state;
	__u8 new_state;
	__u8 pad[4];
	char comm[16];    /* of the thread group's leader */
};

_Static_assert(sizeof(struct record) == 144, "record layout is an interface");

#endif
