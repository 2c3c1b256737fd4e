/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Knobs: set by user space before the load. Being constant then, they let the
 * verifier drop what is switched off, helpers that the kernel lacks included.
 */
#ifndef TCPTRACE_KNOBS_H
#define TCPTRACE_KNOBS_H

#include "kernel.h"

/* The running kernel has, for tracing programs, bpf_get_socket_cookie (5.12,
 * c5dbb89fc2ac "bpf: Expose bpf_get_socket_cookie to tracing programs") and
 * bpf_get_current_task_btf (5.11, 3ca1032ab7ab). */
const volatile bool have_typed_helpers = false;

/* Parameters of inet_csk_accept: 4, or 2 from 6.10. */
const volatile __u8 inet_csk_accept_params = 4;

/* Length of a jiffy in ns (TICK_NSEC). */
const volatile __u64 jiffy_ns = 4000000;

/* Filters. What they cannot decide yet (a port or an address that is not set)
 * passes: user space filters exactly, the kernel side only prunes. */
const volatile __u8 filter_family = 0;    /* 4 or 6; 0: both */
const volatile __u32 filter_one_netns = 0; /* inode; 0: not one */
const volatile bool filter_netns = false; /* several: map netns_wanted */
const volatile bool filter_ports = false; /* map ports_wanted */
const volatile bool filter_lport = false;
const volatile bool filter_rport = false;
const volatile bool filter_port = false;

/* States whose transitions (from or to) are wanted, bit s for state s; 0: all.
 * Used by consumers that need no history. */
const volatile __u32 filter_states = 0;

/* There are programs that stand in for those that are passed over (nested.h). */
const volatile bool guard_nesting = false;

/* The kernel counts what it passes over: recursion_misses (5.12, 9ed9e9ba2337 "bpf: Count
 * the number of times recursion was prevented"). */
const volatile bool kernel_counts_misses = false;

/* And several of them on each hook, told apart by bpf_get_attach_cookie. */
const volatile bool deep_nesting = false;

/* Sockets that each of these programs remembers: 2 to the power of this. */
const volatile __u8 sight_bits = 6;

/* The process that walks (thread group id; 0: do not care). While a walk looks at
 * a file it holds a reference, and if its owner closes it just then, the walk's
 * process closes the socket: that says nothing about who did. */
const volatile __u32 walking_tgid = 0;

/* States that a walk over sockets reports, bit s for state s; 0: all. */
const volatile __u32 walk_states = 0;

#endif
