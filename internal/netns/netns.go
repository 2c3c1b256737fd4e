//go:build linux

// Package netns finds the network namespaces of the machine and runs functions
// inside them. It never keeps a namespace open between calls: that would keep it
// alive after its last user.
package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// NS is a network namespace and a way to it.
type NS struct {
	Inode uint32
	Path  string // a file of it: /proc/PID/ns/net or a bind mount; empty: see Socket
	Name  string // the name under /run/netns, or empty
	// Socket is a socket of the namespace, the way to it where there is no file.
	Socket Descriptor
}

// Descriptor is a descriptor of a process.
type Descriptor struct{ PID, FD uint32 }

// NamedDir is where ip-netns(8) binds namespaces.
const NamedDir = "/run/netns"

// ErrNotFound says that no such namespace is to be found.
var ErrNotFound = errors.New("no such network namespace")

// Stat returns the namespace behind a file.
func Stat(path string) (NS, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return NS{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	var sf unix.Statfs_t
	if err := unix.Statfs(path, &sf); err != nil {
		return NS{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if sf.Type != unix.NSFS_MAGIC && sf.Type != unix.PROC_SUPER_MAGIC {
		return NS{}, fmt.Errorf("%s is not a network namespace", path)
	}
	ns := NS{Inode: uint32(st.Ino), Path: path}
	if filepath.Dir(path) == NamedDir {
		ns.Name = filepath.Base(path)
	}
	return ns, nil
}

// Self returns the namespace of the calling process.
func Self() (NS, error) { return Stat("/proc/self/ns/net") }

// Resolve finds the namespace that spec names: a name under /run/netns, a path,
// inode:N, or self. The error wraps ErrNotFound where there is none.
func Resolve(spec string) (NS, error) {
	switch {
	case spec == "self":
		return Self()
	case strings.HasPrefix(spec, "inode:"):
		inode, err := strconv.ParseUint(strings.TrimPrefix(spec, "inode:"), 10, 32)
		if err != nil {
			return NS{}, fmt.Errorf("network namespace %q: the inode is not a number", spec)
		}
		all, err := List()
		if err != nil {
			return NS{}, err
		}
		if _, ok := all[uint32(inode)]; !ok {
			if err := Threads(all); err != nil {
				return NS{}, err
			}
		}
		if ns, ok := all[uint32(inode)]; ok {
			return ns, nil
		}
		return NS{}, fmt.Errorf("%w: %s", ErrNotFound, spec)
	case strings.Contains(spec, "/"):
		ns, err := Stat(spec)
		if errors.Is(err, fs.ErrNotExist) {
			return NS{}, fmt.Errorf("%w: %s", ErrNotFound, spec)
		}
		return ns, err
	default:
		ns, err := Stat(filepath.Join(NamedDir, spec))
		if errors.Is(err, fs.ErrNotExist) {
			return NS{}, fmt.Errorf("%w: %s (looked in %s)", ErrNotFound, spec, NamedDir)
		}
		return ns, err
	}
}

// List returns every namespace that a process lives in or a mount of this mount
// namespace keeps, by inode. One that only other threads than the processes'
// leaders live in is told by Threads, and the way to one that only its sockets keep
// is NS.Socket. One that is kept by nothing but a descriptor of the namespace itself
// is not found.
func List() (map[uint32]NS, error) {
	all := make(map[uint32]NS)
	add := func(path string) {
		if ns, err := Stat(path); err == nil {
			if old, ok := all[ns.Inode]; !ok || (old.Name == "" && ns.Name != "") {
				all[ns.Inode] = ns
			}
		}
	}
	add("/proc/self/ns/net")
	if err := mounts(add); err != nil {
		return nil, err
	}
	err := tasks("/proc", func(proc int, pid string) { addTask(all, proc, "/proc", pid) })
	return all, err
}

// Threads adds the namespaces that threads live in. It takes a look at each thread
// of the machine, some microseconds each.
func Threads(all map[uint32]NS) error {
	return tasks("/proc", func(proc int, pid string) {
		// The number of links is that of the threads, and two
		// (proc_task_getattr).
		var st unix.Stat_t
		if unix.Fstatat(proc, pid+"/task", &st, 0) != nil || st.Nlink <= 3 {
			return
		}
		dir := "/proc/" + pid + "/task"
		// An error is of a process that has ended meanwhile.
		_ = tasks(dir, func(task int, tid string) { addTask(all, task, dir, tid) })
	})
}

// tasks calls f with the open folder dir and the name of each process or thread in
// it.
func tasks(dir string, f func(fd int, name string)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if name[0] >= '0' && name[0] <= '9' {
			f(int(d.Fd()), name)
		}
	}
	return nil
}

// addTask adds the namespace of a process or thread in the folder dir, open as fd.
func addTask(all map[uint32]NS, fd int, dir, name string) {
	var buf [len("net:[4294967295]") + 1]byte
	n, err := unix.Readlinkat(fd, name+"/ns/net", buf[:])
	if err != nil {
		return // it is gone, or not ours to see
	}
	link := strings.TrimSuffix(strings.TrimPrefix(string(buf[:n]), "net:["), "]")
	inode, err := strconv.ParseUint(link, 10, 32)
	if err != nil {
		return
	}
	if _, ok := all[uint32(inode)]; !ok {
		all[uint32(inode)] = NS{Inode: uint32(inode), Path: dir + "/" + name + "/ns/net"}
	}
}

// mounts calls add with the mount point of every bound network namespace.
func mounts(add func(path string)) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): id parent major:minor root mountpoint ...
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			add(unescapeMount(fields[4]))
		}
	}
	return lines.Err()
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Do runs f on a thread of its own inside ns. It fails without calling f where
// the namespace is gone or the way to it leads elsewhere by now.
func Do(ns NS, f func() error) error {
	fd, err := ns.open()
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EBADF), errors.Is(err, errNoSocket):
		return fmt.Errorf("%w: inode %d", ErrNotFound, ns.Inode)
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: ns.Path, Err: err}
	}
	if uint32(st.Ino) != ns.Inode {
		return fmt.Errorf("%w: inode %d", ErrNotFound, ns.Inode)
	}
	return DoFD(fd, f)
}

func (ns NS) open() (int, error) {
	if ns.Path == "" {
		return ofSocket(ns.Socket)
	}
	fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: ns.Path, Err: err}
	}
	return fd, nil
}

// DoFD is Do for an open descriptor of a namespace.
func DoFD(fd int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread stays home: its namespace is what /proc shows
			// to be the process'. While it waits here, another one is taken.
			result <- DoFD(fd, f)
			runtime.UnlockOSThread()
			return
		}
		result <- visit(fd, f)
	}()
	return <-result
}

// visit runs f in the namespace of fd. The caller has locked the thread; it is
// unlocked once it is home again. One that ended in the namespace would be found by
// Threads, as the way into it, a moment longer.
func visit(fd int, f func() error) error {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return &fs.PathError{Op: "open", Path: "/proc/thread-self/ns/net", Err: err}
	}
	defer unix.Close(home)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	// A thread that cannot go home stays locked, and ends with its goroutine.
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// siocGSKNS is SIOCGSKNS of include/uapi/linux/sockios.h: the network namespace
// of a socket, as a descriptor.
const siocGSKNS = 0x894C

// errNoSocket says that a descriptor is none of a socket, or not any more.
var errNoSocket = errors.New("no socket")

// ofSocket opens the network namespace of the socket that a process holds. It needs
// Linux 5.6 (pidfd_getfd) and CAP_SYS_PTRACE; the caller closes the result. Should
// the process close the socket meanwhile, it is closed here.
func ofSocket(d Descriptor) (int, error) {
	pidfd, err := unix.PidfdOpen(int(d.PID), 0)
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", d.PID, err)
	}
	defer unix.Close(pidfd)
	sock, err := unix.PidfdGetfd(pidfd, int(d.FD), 0)
	if err != nil {
		return -1, fmt.Errorf("copy descriptor %d of process %d: %w", d.FD, d.PID, err)
	}
	defer unix.Close(sock)
	fd, err := unix.IoctlRetInt(sock, siocGSKNS)
	if errors.Is(err, unix.ENOTTY) {
		return -1, errNoSocket
	}
	if err != nil {
		return -1, fmt.Errorf("namespace of descriptor %d of process %d: %w", d.FD, d.PID, err)
	}
	return fd, nil
}
