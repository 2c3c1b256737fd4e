package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What /proc and the cgroup hierarchy tell differs between machines: here tcptrace
// runs where they are mounted otherwise.

// privateMounts as exit status makes this binary a program that mounts in a mount
// namespace of its own what its first argument names, and runs the others there.
const privateMounts = "private-mounts"

// Kinds of mounts.
const (
	hidepid = "hidepid" // and the program is not root's and may not trace processes
	cgroup1 = "cgroup1"
)

func inPrivateMounts(args []string) error {
	runtime.LockOSThread() // the children are made by the thread that has the mounts
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The binary may lie where only root can go.
	exe, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer exe.Close()
	cmd := exec.Command("/proc/self/fd/3", args[2:]...)
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	switch args[0] {
	case hidepid:
		if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid=2"); err != nil {
			return fmt.Errorf("mount proc: %w", err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
			AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN},
		}
		// For 5.10, which charges BPF to RLIMIT_MEMLOCK.
		if have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err == nil && have == 1 {
			cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, unix.CAP_SYS_RESOURCE)
		}
	case cgroup1:
		const root = "/sys/fs/cgroup"
		for unix.Unmount(root, unix.MNT_DETACH) == nil {
		}
		if err := errors.Join(unix.Mount("tmpfs", root, "tmpfs", 0, ""), os.Mkdir(root+"/systemd", 0o755),
			unix.Mount("cgroup", root+"/systemd", "cgroup", 0, cgroup1Options)); err != nil {
			return fmt.Errorf("mount cgroup: %w", err)
		}
	default:
		return fmt.Errorf("no such mounts: %s", args[0])
	}
	return cmd.Run()
}

// lookIn is look where other things are mounted; it returns what was said on stderr.
func lookIn(t *testing.T, mounts, states string, args ...string) (*answer, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{mounts, tcptrace, "--watch", states, "--once", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), envExit+"="+privateMounts)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var list []*answer
	if err := answers(&stdout, func(a *answer) { list = append(list, a) }); err != nil || len(list) != 1 {
		t.Fatalf("%d answers, %v", len(list), err)
	}
	return list[0], stderr.String()
}

// TestHidepid: where /proc hides the processes of others, the sockets and who holds
// them are the same, the rest is unknown, and a note says so.
func TestHidepid(t *testing.T) {
	const note = "tcptrace: warning: /proc hides other processes (hidepid): their command lines, limits and units are not known\n"
	leaking(t, "hidepid", func(t *testing.T, c *C) {
		list := c.allReasons(c.Proc("cli"), "one", "two", "three")
		c.arrive(t, len(list), list)
		hidden := map[*ProcID]*ProcID{}
		hide := func(h holding) holding {
			if hidden[h.p] == nil {
				hidden[h.p] = &ProcID{h.p.PID, h.p.Comm, unknownUID}
			}
			return holding{hidden[h.p], h.fds}
		}
		for _, l := range list {
			l.early = true
			for i, h := range l.holders {
				l.holders[i] = hide(h)
			}
			if l.listener != nil {
				h := hide(*l.listener)
				l.listener = &h
			}
		}
		check := func(way string, a *answer) {
			t.Helper()
			c.checkSockets(t, way, a, list)
			counts := map[int]int{}
			for _, g := range a.groups {
				if g.PID == nil || !slices.ContainsFunc(list, func(l *leaked) bool { return l.names(*g.PID) }) {
					continue
				}
				counts[*g.PID] = g.Count
				if g.UID != nil || g.Cmdline != nil || g.NofileSoft != nil || g.OpenFDs != nil || g.Unit != nil {
					t.Errorf("%s: what /proc hides is known: %+v", way, g)
				}
			}
			for p := range hidden {
				want := 0
				for _, l := range list {
					want += num(l.names(p.PID))
				}
				if counts[p.PID] != want {
					t.Errorf("%s: %d sockets of %s, want %d", way, counts[p.PID], p, want)
				}
			}
		}
		a, said := lookIn(t, hidepid, "close_wait", "--netns", c.NS.Name(), "--hooks", "poll")
		check("by name", a)
		sameAsKernel(t, "by name", a, "close_wait", c.NS)
		if said != note {
			t.Errorf("stderr: %q, want %q", said, note)
		}
		if !inVM {
			return // the whole machine is not the test's
		}
		// A namespace to which only descriptors lead, and these may not be had.
		closed := c.NewNS("closed")
		c.outside(t, closed)
		if err := closed.Hide(); err != nil {
			t.Fatal(err)
		}
		a, said = lookIn(t, hidepid, "close_wait")
		check("whole machine", a)
		for _, want := range []string{note, fmt.Sprintf("tcptrace: warning: network namespace %d is not looked into: ", closed.Inode())} {
			if strings.Count(said, want) != 1 {
				t.Errorf("stderr: %q, want once %q", said, want)
			}
		}
		for _, s := range a.sockets {
			if s.NetNS == closed.Inode() {
				t.Errorf("the namespace was looked into: %s", s.key())
			}
		}
	})
}

// names reports whether the process is shown with the socket.
func (l *leaked) names(pid int) bool {
	return l.listener != nil && l.listener.p.PID == pid || slices.ContainsFunc(l.holders, func(h holding) bool { return h.p.PID == pid })
}

// cgroup1Options are of the hierarchy in which systemd names its units on a machine of
// cgroup version 1.
const cgroup1Options = "none,name=systemd"

// TestCgroup1: on a machine of cgroup version 1 the unit and the container of a
// process are known by its path in the hierarchy of the service manager.
func TestCgroup1(t *testing.T) {
	if !inVM {
		t.Skip("makes a hierarchy of cgroups of the machine; the guests of the VM matrix have one to spare")
	}
	dir := filepath.Join(t.TempDir(), "cgroup1")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("cgroup", dir, "cgroup", 0, cgroup1Options)); err != nil {
		t.Fatalf("mount a hierarchy of cgroup version 1: %v", err)
	}
	container := strings.Repeat("0123456789abcdef", 4)
	paths := []struct{ path, kind, name string }{
		{"/system.slice/leaky.service", "systemd", "leaky.service"},
		{"/docker/" + container, "docker", container},
	}
	for _, p := range paths {
		if err := os.MkdirAll(dir+p.path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // when the processes have ended
		for _, p := range paths {
			for path := p.path; path != "/"; path = filepath.Dir(path) {
				if err := os.Remove(dir + path); err != nil {
					t.Error(err)
				}
			}
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	leaking(t, "cgroup1", func(t *testing.T, c *C) {
		cli := c.Proc("cli")
		var list []*leaked
		units := map[int]int{}
		for i, p := range paths {
			srv := c.OwnProc("srv")
			if err := os.WriteFile(dir+p.path+"/cgroup.procs", fmt.Append(nil, srv.id.PID), 0); err != nil {
				t.Fatal(err)
			}
			units[srv.id.PID] = i
			list = append(list, c.drained(cli, c.Listen(srv), c.N)...)
		}
		c.arrive(t, len(list), list)
		for _, l := range list {
			l.early = true
		}
		a, said := lookIn(t, cgroup1, "close_wait", "--netns", c.NS.Name(), "--hooks", "poll")
		if said != "" {
			t.Errorf("stderr: %s", said)
		}
		checkLeaks(t, "cgroup1", a, list)
		for _, g := range a.groups {
			i, ok := units[*g.PID]
			if !ok {
				continue
			}
			want := paths[i]
			if u := g.Unit; u == nil || orNull(u.Kind) != want.kind || orNull(u.Name) != want.name || orNull(u.Path) != want.path {
				t.Errorf("the unit of process %d is %+v, want %+v", *g.PID, u, want)
			}
		}
	})
}
