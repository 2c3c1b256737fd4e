/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
#ifndef TCPTRACE_MAPS_H
#define TCPTRACE_MAPS_H

#include "kernel.h"
#include "records.h"

/*
 * Records on their way to user space, in the order of their reservation. Filled by
 * every hook, emptied by the reader. Full: the record is not reserved and counted
 * in lost_records. The size is set before the load.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} records SEC(".maps");

/*
 * Records that found no room, since the load. Counted up by emit.h, never reset: the
 * reader takes differences. This and unwanted_events are variables, which the reader
 * has mapped: a lookup by system call keeps all kprobe programs off its processor
 * meanwhile (bpf_disable_instrumentation), for long where it is preempted in there.
 */
__u64 lost_records = 0;

/*
 * Network namespaces to trace, by inode; read only with filter_netns. User space
 * inserts them before the attach (and sets max_entries); nobody deletes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u8);
} netns_wanted SEC(".maps");

/*
 * Ports to trace, 64 to an entry: bit p & 63 of entry p >> 6. Written by user space
 * before the attach, read only with filter_ports.
 */
struct port_bits {
	__u64 local;
	__u64 remote;
	__u64 either;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct port_bits);
} ports_wanted SEC(".maps");

/*
 * Processes whose descendants are traced, by thread group id. User space inserts
 * the first; sched_process_fork inserts children, sched_process_free deletes. Full:
 * the child is counted in lost_records.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, __u8);
} process_tree SEC(".maps");

/* Hooks with several programs: nested.h. */
enum nested_hook {
	NESTED_TRANSITION,
	NESTED_CONNECT,
	NESTED_ACCEPT,
	NESTED_TIMEWAIT_ALLOC,
	NESTED_TIMEWAIT_SCHEDULE,
	NESTED_TIMEWAIT_DESTROY,
	NESTED_HOOKS,
};

/* Programs on a hook, at most. */
#define NESTED_LEVELS 3

/*
 * What each program of each hook saw last, by level, hook and a hash of the socket
 * (sight_bits): nested.h. Written by the programs, read by those behind them. Of each CPU
 * its own; but one for all, and larger, where a task may go to another CPU between two
 * programs of a hook, or others run before it goes on (deep_nesting): user space changes
 * type and size then.
 */
struct sight {
	__u64 sk;
	__u32 what; /* happens to it */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, (NESTED_LEVELS * NESTED_HOOKS) << 6);
	__type(key, __u32);
	__type(value, struct sight);
} last_seen SEC(".maps");

/*
 * Where nested.h turns a socket's address into a number: the verifier lets no program
 * calculate with a pointer. Written and read back at once; where a softirq comes in
 * between, the socket's sight is looked for in another's place and not found.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sight_address SEC(".maps");

/*
 * Events that a second program stood in for, only to find them filtered, or no room
 * for them, since the load: the kernel counts the first program as passed over, and nothing
 * was lost, or it is in lost_records. Counted up by nested.h, never reset.
 */
__u64 unwanted_events = 0;

/*
 * The segment that a timewait socket is handling on this CPU, so that its end can
 * be laid to an RST, a SYN or neither. Overwritten by each
 * tcp_timewait_state_process, which runs with bottom halves off; read by
 * tcp_twsk_destructor, which runs inside it or right behind it.
 */
struct timewait_segment {
	__u64 tw;
	__u64 ts_ns;
	__u32 flags;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct timewait_segment);
} timewait_segments SEC(".maps");

#endif
