package e2e

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of include/uapi/linux/sched.h.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// spawning is what spawnAs reaches by addresses: memory that stays where it is.
var spawning struct {
	sync.Mutex
	args cloneArgs
	pid  int32
}

// spawnAs starts a program under a process number of the caller's choice: clone3's
// set_tid, 49cb2fc42ce4 (fork: extend clone3() to support setting a PID), Linux 5.5.
func spawnAs(pid int, argv, env []string) error {
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	environ, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	spawning.Lock()
	defer spawning.Unlock()
	spawning.pid = int32(pid)
	spawning.args = cloneArgs{exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&spawning.pid))), setTIDSize: 1}
	// No other thread may have descriptors open that the program would inherit.
	syscall.ForkLock.Lock()
	got, errno := spawn(unsafe.Pointer(&spawning.args), unsafe.Pointer(args[0]), unsafe.Pointer(&args[0]), unsafe.Pointer(&environ[0]))
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(args)
	runtime.KeepAlive(environ)
	if errno != 0 {
		return fmt.Errorf("clone3: %w", errno)
	}
	if int(got) != pid {
		return fmt.Errorf("clone3: made process %d", got)
	}
	return nil
}

// spawn forks and executes. As in forkHolder, the child must not allocate or call
// anything but the kernel.
//
//go:norace
func spawn(args, path, argv, env unsafe.Pointer) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(args), unsafe.Sizeof(cloneArgs{}), 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_EXECVE, uintptr(path), uintptr(argv), uintptr(env))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
