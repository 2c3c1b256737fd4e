// Package owner owns the lookups about processes: command line, limits, descriptors
// and cgroup from /proc, and what the path of a cgroup tells of the service,
// container or pod; and the local ports of a network namespace from its sysctls.
//
// It reads under roots that the caller gives, so that a fixture tree can replace
// the machine. What may not be read is unknown, never an error; Notes says once
// what was missing.
package owner
