package owner

import "golang.org/x/sys/unix"

// bootOffset reads the two clocks close to each other.
func bootOffset() (int64, error) {
	var mono, boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return 0, err
	}
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return 0, err
	}
	return boot.Nano() - mono.Nano(), nil
}

// isProcFS reports whether path is a process file system, and no fixture tree.
func isProcFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}
