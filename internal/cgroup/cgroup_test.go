//go:build linux

package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hierarchy returns the mount point. Root has one and may make cgroups in it, on a
// machine of cgroup version 1 as well.
func hierarchy(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("making cgroups needs root: run make test-unit")
	}
	mount, err := Mount()
	if err != nil {
		t.Fatal(err)
	}
	return mount
}

func newChild(t *testing.T, mount string) *Child {
	t.Helper()
	c, err := NewChild(mount, "tcptrace-test-"+strings.ReplaceAll(t.Name(), "/", "-"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPath(t *testing.T) { testPath(t, hierarchy(t)) }

func TestPathDetached(t *testing.T) {
	hierarchy(t)
	mount, err := detached()
	if err != nil {
		t.Fatal(err)
	}
	testPath(t, mount)
}

func testPath(t *testing.T, mount string) {
	c := newChild(t, mount)
	byHandle, err := OpenPaths(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer byHandle.Close()
	walked, err := OpenPaths(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer walked.Close()
	walked.walk()
	for name, p := range map[string]*Paths{"by handle": byHandle, "walked": walked} {
		if got := p.Path(c.ID); got != c.Path {
			t.Errorf("%s: path %q, want %q", name, got, c.Path)
		}
		if got := p.Path(0); got != "" {
			t.Errorf("%s: id 0 has the path %q", name, got)
		}
		if got := p.Path(1 << 60); got != "" {
			t.Errorf("%s: an id of nothing has the path %q", name, got)
		}
		if got := p.Path(1); got != "/" {
			t.Errorf("%s: the root has the path %q", name, got)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := byHandle.Path(c.ID); got != c.Path {
		t.Errorf("a cgroup that is gone is forgotten: %q", got)
	}
	fresh, err := OpenPaths(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if got := fresh.Path(c.ID); got != "" {
		t.Errorf("a cgroup that is gone has the path %q", got)
	}
}

// A command runs inside, its child too, and what outlives it comes back out.
func TestChild(t *testing.T) { testChild(t, hierarchy(t)) }

func TestChildDetached(t *testing.T) {
	hierarchy(t)
	mount, err := detached()
	if err != nil {
		t.Fatal(err)
	}
	testChild(t, mount)
}

func testChild(t *testing.T, mount string) {
	c := newChild(t, mount)
	cmd := exec.Command("sh", "-c", "cat /proc/self/cgroup; sleep 60 >/dev/null 2>&1 & echo $!; exit")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: c.FD()}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	orphan := lines[len(lines)-1]
	defer exec.Command("kill", orphan).Run()
	if !strings.Contains(string(out), "0::"+c.Path+"\n") {
		t.Errorf("the command ran in %s", out)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mount, c.Path)); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left behind: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		b, err := os.ReadFile("/proc/" + orphan + "/cgroup")
		if err != nil {
			t.Fatalf("the process that outlived the command is gone: %v", err)
		}
		if !strings.Contains(string(b), c.Path) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the process that outlived the command is in %s", b)
		}
	}
}

func TestMounted(t *testing.T) {
	const v1 = "24 23 0:22 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
	for text, want := range map[string]string{
		v1 + "35 24 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n": "/sys/fs/cgroup/unified",
		"35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n":                                "/sys/fs/cgroup",
		`35 24 0:30 / /odd\040place\134x rw - cgroup2 cgroup rw` + "\n":                       `/odd place\x`,
	} {
		path := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := mounted(path); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(path, []byte(v1), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := mounted(path); !errors.Is(err, ErrNoCgroup2) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestMemoryLimit(t *testing.T) {
	mount := t.TempDir()
	for path, max := range map[string]string{"a": "8192\n", "a/b": "max\n", "a/b/c": "16384\n", "d": "max\n"} {
		if err := os.MkdirAll(filepath.Join(mount, path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, path, "memory.max"), []byte(max), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		own  string
		want uint64 // 0: none
	}{
		{"/", 0}, {"/a", 8192}, {"/a/b", 8192}, {"/a/b/c", 8192}, {"/d", 0}, {"/d/gone", 0}, {"/../a", 8192},
	} {
		if got, ok := memoryLimit(mount, tc.own); got != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: got %d, %v, want %d", tc.own, got, ok, tc.want)
		}
	}
	// In a container its own limit is at the root.
	if err := os.WriteFile(filepath.Join(mount, "memory.max"), []byte("4096\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, ok := memoryLimit(mount, "/a/b"); got != 4096 || !ok {
		t.Errorf("got %d, %v", got, ok)
	}
}
