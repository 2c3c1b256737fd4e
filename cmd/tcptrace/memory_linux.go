package main

import (
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/cgroup"
)

// memoryAvailable returns the bytes of memory that this process can have at most:
// the machine's, or what its cgroup is limited to; 0: not known.
func memoryAvailable() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	memory := uint64(info.Totalram) * uint64(info.Unit)
	if mount := cgroupMount(); mount != "" {
		if limit, ok := cgroup.MemoryLimit(mount); ok {
			memory = min(memory, limit)
		}
	}
	return memory
}
