/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The descendants of a process: which processes a traced command has started, as
 * records in the order of the ring, so that a socket's owner can be looked up in
 * the set that there was at that moment.
 */
#ifndef TCPTRACE_PROCESS_H
#define TCPTRACE_PROCESS_H

#include "emit.h"
#include "identity.h"

static __always_inline void emit_process(struct task_struct *task, __u8 kind, __u32 parent)
{
	struct record *r = reserve(kind, 0);

	if (!r)
		return;
	r->pid = task->tgid;
	r->fd = parent;
	load_comm(r, task);
	submit(r);
}

static __always_inline void handle_fork(struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_pid = parent->tgid, pid = child->tgid;
	__u8 one = 1;

	if (child->pid != child->tgid) /* a thread */
		return;
	if (!bpf_map_lookup_elem(&process_tree, &parent_pid))
		return;
	if (bpf_map_update_elem(&process_tree, &pid, &one, BPF_ANY))
		count_lost();
	emit_process(child, RECORD_FORK, parent_pid);
}

/* sched_process_free: reaped, its number may be given away. The exit itself is too
 * early, descriptors are closed behind it. */
static __always_inline void handle_free(struct task_struct *task)
{
	__u32 pid = task->tgid;

	if (task->pid != task->tgid)
		return;
	if (bpf_map_delete_elem(&process_tree, &pid))
		return;
	emit_process(task, RECORD_REAPED, 0);
}

#endif
