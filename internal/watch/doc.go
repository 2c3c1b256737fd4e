// Package watch owns the answer to "who holds these sockets, for how long and
// why": it keeps the sockets that sit in the watched states, joins them with the
// processes that hold them, and ranks the processes.
//
// Store is a pure function of events.Record: no clock, no I/O. What it needs to
// know of a process (command line, limits, cgroup) it asks of Processes, once for
// each Snapshot.
package watch
