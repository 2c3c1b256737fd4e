//go:build linux

package smoke

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("SMOKE_ORPHAN") != "" {
		// Outlives the test binary and holds its output, for init to end.
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func inGuest(t *testing.T) {
	t.Helper()
	if os.Getenv("VMTEST") == "" {
		t.Skip("tests the guest of a VM: run it through vmtest")
	}
}

func TestMounts(t *testing.T) {
	inGuest(t)
	for path, want := range map[string]int64{
		"/proc":               unix.PROC_SUPER_MAGIC,
		"/sys":                unix.SYSFS_MAGIC,
		"/dev/pts":            unix.DEVPTS_SUPER_MAGIC,
		"/tmp":                unix.TMPFS_MAGIC,
		"/run":                unix.TMPFS_MAGIC,
		"/var/run":            unix.TMPFS_MAGIC,
		"/sys/fs/bpf":         unix.BPF_FS_MAGIC,
		"/sys/fs/cgroup":      unix.CGROUP2_SUPER_MAGIC,
		"/sys/kernel/tracing": unix.TRACEFS_MAGIC,
		"/sys/kernel/debug":   unix.DEBUGFS_MAGIC,
	} {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil {
			t.Errorf("%s: %v", path, err)
		} else if int64(fs.Type) != want {
			t.Errorf("%s: file system %#x, want %#x", path, fs.Type, want)
		}
	}
	for _, path := range []string{"/sys/kernel/btf/vmlinux", "/dev/net/tun", "/dev/ptmx", "/dev/fd/0", "/run/netns"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestLimits(t *testing.T) {
	inGuest(t)
	for _, l := range []struct {
		name     string
		resource int
		want     uint64
	}{
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, 1048576},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY},
	} {
		var got unix.Rlimit
		if err := unix.Getrlimit(l.resource, &got); err != nil {
			t.Fatal(err)
		}
		if got.Cur != l.want || got.Max != l.want {
			t.Errorf("%s: got %d/%d, want %d", l.name, got.Cur, got.Max, l.want)
		}
	}
	for name, want := range map[string]string{
		"fs/nr_open":                   "1048576",
		"net/ipv4/ip_local_port_range": "32768\t60999",
		"kernel/hostname":              "vmtest",
	} {
		got, err := os.ReadFile("/proc/sys/" + name)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	inGuest(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

func TestModules(t *testing.T) {
	inGuest(t)
	text, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"inet_diag", "tcp_diag", "tun", "veth", "sch_netem"} {
		if !bytes.Contains(append([]byte("\n"), text...), []byte("\n"+name+" ")) {
			t.Errorf("%s is not loaded", name)
		}
	}
}

// A namespace as ip-netns(8) makes it, with a TUN device in it.
func TestNetNSAndTUN(t *testing.T) {
	inGuest(t)
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked, so that it ends with its namespace.
		done <- func() error {
			if err := lockedNetNS("/run/netns/smoke"); err != nil {
				return err
			}
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			req, err := unix.NewIfreq("smoke0")
			if err != nil {
				return err
			}
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName("smoke0"); err == nil {
		t.Error("smoke0 is in the first namespace")
	}
	if err := unix.Unmount("/run/netns/smoke", unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

// Without the host's seed this blocks for seconds after boot.
func TestEntropy(t *testing.T) {
	inGuest(t)
	start := time.Now()
	if _, err := io.ReadFull(rand.Reader, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		t.Fatal(err)
	}
	t.Logf("random bytes after %v, %.1fs after the kernel's start", time.Since(start), time.Duration(up.Nano()).Seconds())
	if year := time.Now().Year(); year < 2026 {
		t.Errorf("the clock says %d", year)
	}
}

func TestTestdata(t *testing.T) {
	inGuest(t)
	got, err := os.ReadFile(filepath.Join("testdata", "word"))
	if want := "smoke\n"; err != nil || string(got) != want {
		t.Errorf("testdata/word: got %q, %v; want %q", got, err, want)
	}
}

func TestOutputFile(t *testing.T) {
	inGuest(t)
	file := filepath.Join(os.Getenv("VMTEST_OUT"), "smoke", "zeros")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, 100_003), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A process that daemonises keeps the pipes of its parent's output open; init
// must end it with the test binary, or the package would not end.
func TestOrphan(t *testing.T) {
	inGuest(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SMOKE_ORPHAN=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(cmd.Process.Pid, 0); errors.Is(err, unix.ESRCH) {
		t.Error("the orphan did not start")
	}
}
