//go:build linux

// Package guest is the init of a test VM: it makes a usable system out of a
// kernel and an initramfs, runs the commands of the job file, and sends their
// output to the host in frames.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// Wanted reports whether this process is the init of a test VM.
func Wanted() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat(proto.JobPath)
	return err == nil
}

// Run is the whole life of the guest. It does not return.
func Run() {
	err := run()
	if err != nil {
		// The console: the host shows its tail.
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
	}
	unix.Sync()
	// With reboot=t on the command line and -no-reboot in QEMU this ends the
	// VM at once. A return would panic the kernel, which ends it too.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1)
}

func run() error {
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return fmt.Errorf("boot time: %w", err)
	}
	var job proto.Job
	text, err := os.ReadFile(proto.JobPath)
	if err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if err := json.Unmarshal(text, &job); err != nil {
		return fmt.Errorf("job %s: %w", proto.JobPath, err)
	}
	tty, err := openSerial(job.Serial)
	if err != nil {
		return err
	}
	host := &link{w: tty}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	if err := host.sendJSON(proto.TypeHello, 0, proto.Hello{
		Release: unix.ByteSliceToString(name.Release[:]),
		Uptime:  time.Duration(up.Nano()),
	}); err != nil {
		return err
	}
	stop := make(chan struct{})
	go host.heartbeat(stop)
	if err := setUp(job, host); err != nil {
		_ = host.send(proto.TypeFatal, 0, []byte(err.Error()))
		_ = drain(tty)
		return err
	}
	for i, c := range job.Commands {
		if err := host.command(uint16(i), c); err != nil {
			return err
		}
	}
	if err := host.files(proto.OutDir); err != nil {
		_ = host.send(proto.TypeFatal, 0, []byte(err.Error()))
		_ = drain(tty)
		return err
	}
	close(stop)
	if err := host.send(proto.TypeDone, 0, nil); err != nil {
		return err
	}
	return drain(tty)
}

type mount struct {
	source, target, kind, data string
	flags                      uintptr
	optional                   bool // a kernel without it is still a useful guest
}

var mounts = []mount{
	{source: "proc", target: "/proc", kind: "proc"},
	{source: "sys", target: "/sys", kind: "sysfs"},
	{source: "dev", target: "/dev", kind: "devtmpfs"},
	{source: "devpts", target: "/dev/pts", kind: "devpts", data: "mode=0620,ptmxmode=0666"},
	{source: "shm", target: "/dev/shm", kind: "tmpfs", data: "mode=1777"},
	{source: "tmp", target: "/tmp", kind: "tmpfs", data: "mode=1777"},
	{source: "run", target: "/run", kind: "tmpfs", data: "mode=0755"},
	{source: "cgroup2", target: "/sys/fs/cgroup", kind: "cgroup2"},
	{source: "bpf", target: "/sys/fs/bpf", kind: "bpf", data: "mode=0700"},
	{source: "tracefs", target: "/sys/kernel/tracing", kind: "tracefs", optional: true},
	{source: "debugfs", target: "/sys/kernel/debug", kind: "debugfs", optional: true},
}

func (m mount) mount() error {
	// /sys has its mount points built in, and refuses mkdir.
	if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
		return fmt.Errorf("mount point: %w", err)
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil && !m.optional {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// openSerial opens the line to the host and makes it raw: every byte counts.
func openSerial(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open serial line %s: %w", path, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("serial line %s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("serial line %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// drain waits until the last byte has left: tcdrain(3).
func drain(tty *os.File) error {
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain serial line: %w", err)
	}
	return nil
}

// setUp makes the guest look like a host as the tests expect it.
func setUp(job proto.Job, host *link) error {
	if err := seed(job.Seed); err != nil {
		return err
	}
	if time.Now().Before(job.Time) {
		ts := unix.NsecToTimespec(job.Time.UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("set time: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(job.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	for _, s := range [][2]string{
		{"fs/nr_open", "1048576"},
		{"fs/file-max", "9000000"},
		{"net/ipv4/ip_local_port_range", "32768 60999"},
	} {
		if err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, 1048576},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
	} {
		// syscall's, not unix's: it also makes Go forget the limit that it
		// would restore in children.
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	for _, path := range job.Modules {
		if err := loadModule(path); err != nil {
			if err := host.send(proto.TypeNote, 0, []byte(err.Error())); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{"/run/netns", "/dev/net", "/root", proto.OutDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	} {
		if err := os.Symlink(l[0], l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return loopbackUp()
}

// seed gives the kernel entropy from the host: without it getrandom(2) blocks
// for the first seconds after boot.
func seed(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: entropy_count in bits, buf_size in bytes, buf.
	var info struct {
		bits, size int32
		buf        [256]byte
	}
	n := copy(info.buf[:], b)
	info.bits, info.size = int32(8*n), int32(n)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("entropy: %w", errno)
	}
	return nil
}

// loadModule loads a .ko; a compressed one needs MODULE_INIT_COMPRESSED_FILE,
// introduced by b1ae6dc41eaa (module: add in-kernel support for decompressing).
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", filepath.Base(path), err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}

// link is the line to the host.
type link struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

func (l *link) send(t proto.Type, cmd uint16, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = proto.AppendFrame(l.buf[:0], proto.Frame{Type: t, Command: cmd, Payload: payload[:min(len(payload), proto.MaxPayload)]})
	if _, err := l.w.Write(l.buf); err != nil {
		return fmt.Errorf("serial line: %w", err)
	}
	return nil
}

func (l *link) sendJSON(t proto.Type, cmd uint16, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.send(t, cmd, b)
}

// heartbeat tells a slow guest from a dead one.
func (l *link) heartbeat(stop <-chan struct{}) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if l.send(proto.TypeHeartbeat, 0, nil) != nil {
				return
			}
		}
	}
}

// files sends what the commands left in dir.
func (l *link) files(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if err := l.sendJSON(proto.TypeFile, 0, proto.File{Name: rel, Size: info.Size()}); err != nil {
			return err
		}
		return l.stream(proto.TypeData, 0, io.LimitReader(f, info.Size()))
	})
}

func (l *link) stream(t proto.Type, cmd uint16, r io.Reader) error {
	buf := make([]byte, proto.MaxPayload)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := l.send(t, cmd, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// command runs one command to its end, and whatever it left behind to theirs.
// The error is of the link; how the command fared goes to the host.
func (l *link) command(i uint16, c proto.Command) error {
	if err := l.send(proto.TypeStart, i, nil); err != nil {
		return err
	}
	start := time.Now()
	exit, err := l.execute(i, c)
	if err != nil {
		// As shells do: 127 not found, 126 not executable.
		exit.Code = 126
		if errors.Is(err, fs.ErrNotExist) {
			exit.Code = 127
		}
		if err := l.send(proto.TypeStderr, i, fmt.Appendf(nil, "%s: %v\n", c.Args[0], err)); err != nil {
			return err
		}
	}
	exit.Elapsed = time.Since(start)
	return l.sendJSON(proto.TypeExit, i, exit)
}

func (l *link) execute(i uint16, c proto.Command) (proto.Exit, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return proto.Exit{}, err
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return proto.Exit{}, err
	}
	defer stdin.Close()
	var streams sync.WaitGroup
	files := []uintptr{stdin.Fd()}
	var writers []*os.File
	for _, t := range []proto.Type{proto.TypeStdout, proto.TypeStderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return proto.Exit{}, err
		}
		files = append(files, w.Fd())
		writers = append(writers, w)
		streams.Go(func() {
			defer r.Close()
			_ = l.stream(t, i, r)
		})
	}
	pid, err := syscall.ForkExec(c.Args[0], c.Args, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	for _, w := range writers {
		w.Close()
	}
	if err != nil {
		streams.Wait()
		return proto.Exit{}, err
	}
	done := make(chan struct{})
	timedOut := false
	var watchdog sync.WaitGroup
	if c.Timeout > 0 {
		watchdog.Go(func() {
			select {
			case <-done:
				return
			case <-time.After(c.Timeout):
			}
			timedOut = true
			// A Go program answers SIGQUIT with its stacks.
			_ = unix.Kill(pid, unix.SIGQUIT)
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		})
	}
	status, err := reap(pid)
	close(done)
	watchdog.Wait()
	if err != nil {
		return proto.Exit{}, err
	}
	if err := killRest(); err != nil {
		if err := l.send(proto.TypeNote, i, []byte(err.Error())); err != nil {
			return proto.Exit{}, err
		}
	} else {
		streams.Wait()
	}
	exit := proto.Exit{Code: status.ExitStatus(), TimedOut: timedOut}
	if status.Signaled() {
		exit.Code = 128 + int(status.Signal())
		exit.Signal = unix.SignalName(status.Signal())
	}
	return exit, nil
}

// reap waits for pid, and meanwhile for every orphan: init is their parent.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for %d: %w", pid, err)
		}
		if got == pid && (status.Exited() || status.Signaled()) {
			return status, nil
		}
	}
}

// killRest ends every process that the last command left, so that the next one
// begins as the first did. kill(2) with -1 spares init.
func killRest() error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill leftover processes: %w", err)
		}
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.ECHILD:
			return nil
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("wait for leftover processes: %w", err)
		case pid == 0:
			if time.Now().After(deadline) {
				return errors.New("a leftover process does not die")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
