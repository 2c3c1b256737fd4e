//go:build linux

package smoke

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// lockedNetNS moves the calling goroutine's thread, which it locks, into a new
// network namespace and gives that a name.
func lockedNetNS(path string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}
