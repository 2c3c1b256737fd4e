//go:build linux

package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/vmtest/internal/kernel"
	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// recorder writes down what the handler is told.
type recorder struct{ events []string }

func (r *recorder) add(format string, args ...any) error {
	r.events = append(r.events, fmt.Sprintf(format, args...))
	return nil
}

func (r *recorder) Booted(h proto.Hello) error { return r.add("booted %s", h.Release) }
func (r *recorder) Started(i int) error        { return r.add("started %d", i) }
func (r *recorder) Output(i int, stderr bool, b []byte) error {
	return r.add("output %d %t %s", i, stderr, b)
}
func (r *recorder) Exited(i int, e proto.Exit) error { return r.add("exited %d %d", i, e.Code) }
func (r *recorder) Note(string) error                { return r.add("note") }

// fakeQEMU puts a shell script in QEMU's place: it sends the frames, says
// something on the console, and goes on with the commands.
func fakeQEMU(t *testing.T, frames []byte, commands string) Config {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	framesFile := filepath.Join(bin, "frames")
	if err := os.WriteFile(framesFile, frames, 0o644); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nprintf '[1.0] first\\r\\n[2.0] Kernel panic\\r\\n' > '%s/console.log'\ncat '%s'\n%s\n", dir, framesFile, commands)
	if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(AccelEnv, "tcg")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Kernel: &kernel.Kernel{Arch: "amd64", Image: "vmlinuz"}, Init: exe, Memory: "1G", CPUs: 2, Dir: dir,
		Commands: []proto.Command{{Args: []string{"/prog"}}},
	}
}

func frame(t proto.Type, v any) []byte {
	payload, ok := v.([]byte)
	if !ok && v != nil {
		var err error
		if payload, err = json.Marshal(v); err != nil {
			panic(err)
		}
	}
	return proto.AppendFrame(nil, proto.Frame{Type: t, Payload: payload})
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

var (
	hello = frame(proto.TypeHello, proto.Hello{Release: "6.12"})
	start = frame(proto.TypeStart, nil)
	exit3 = frame(proto.TypeExit, proto.Exit{Code: 3})
	done  = frame(proto.TypeDone, nil)
)

func TestRun(t *testing.T) {
	c := fakeQEMU(t, join([]byte("noise"), hello, frame(proto.TypeNote, []byte("x")), start,
		frame(proto.TypeStdout, []byte("out")), frame(proto.TypeHeartbeat, nil), frame(proto.TypeStderr, []byte("err")), exit3,
		frame(proto.TypeFile, proto.File{Name: "a/b", Size: 5}), frame(proto.TypeData, []byte("hel")), frame(proto.TypeData, []byte("lo")), done),
		// A guest that does not switch off is ended all the same.
		"exec sleep 600")
	var r recorder
	if err := Run(t.Context(), c, &r); err != nil {
		t.Fatal(err)
	}
	want := []string{"booted 6.12", "note", "started 0", "output 0 false out", "output 0 true err", "exited 0 3"}
	if !reflect.DeepEqual(r.events, want) {
		t.Errorf("got %q, want %q", r.events, want)
	}
	if got, err := os.ReadFile(filepath.Join(OutDir(c.Dir), "a/b")); err != nil || string(got) != "hello" {
		t.Errorf("file: got %q, %v; want hello", got, err)
	}
	if _, err := os.Stat(c.initrd()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the initramfs is left behind: %v", err)
	}
}

func TestFailures(t *testing.T) {
	for _, test := range []struct {
		name     string
		frames   []byte
		commands string
		change   func(*Config)
		want     string
		boots    int // hello or the death before it
	}{
		{"crash in a test", join(hello, start), "", nil, "the kernel crashed", 1},
		{"crash inside a frame", join(hello, start, exit3[:9]), "", nil, "the kernel crashed", 1},
		{"crash before init", nil, "", nil, "did not reach init: the VM ended", 0},
		{"hang before init", nil, "exec sleep 600", func(c *Config) { c.boot = 200 * time.Millisecond }, "no word from init", 0},
		{"hang later", hello, "exec sleep 600", func(c *Config) { c.silence = 200 * time.Millisecond }, "no sign of life", 1},
		{"too long", hello, "exec sleep 600", func(c *Config) { c.Timeout = 500 * time.Millisecond }, "no end after 500ms", 1},
		{"qemu's error", nil, "echo 'no such device' >&2; exit 1", nil, "qemu-system-x86_64: exit status 1: no such device", 0},
		{"guest's error", join(hello, frame(proto.TypeFatal, []byte("no proc"))), "exec sleep 600", nil, "guest: no proc", 1},
		{"corrupt line", join(hello, []byte("console noise")), "exec sleep 600", nil, "corrupt frame", 1},
		{"short file", join(hello, frame(proto.TypeFile, proto.File{Name: "x", Size: 9}), done), "exec sleep 600", nil, "9 bytes short", 1},
		{"file outside", join(hello, frame(proto.TypeFile, proto.File{Name: "../x", Size: 9})), "exec sleep 600", nil, "not below", 1},
		{"data without file", join(hello, frame(proto.TypeData, []byte("x"))), "exec sleep 600", nil, "data without a file", 1},
		{"unknown command", join(hello, proto.AppendFrame(nil, proto.Frame{Type: proto.TypeStart, Command: 1})), "exec sleep 600", nil, "command 1 of 1", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := fakeQEMU(t, test.frames, test.commands)
			if test.change != nil {
				test.change(&c)
			}
			var r recorder
			err := Run(t.Context(), c, &r)
			var crash *CrashError
			if !errors.As(err, &crash) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want a crash with %q", err, test.want)
			}
			if want := []string{"[1.0] first", "[2.0] Kernel panic"}; !reflect.DeepEqual(crash.Console, want) {
				t.Errorf("console: got %q, want %q", crash.Console, want)
			}
			booted, notes := 0, 0
			for _, e := range r.events {
				switch e {
				case "booted 6.12":
					booted++
				case "note":
					notes++
				}
			}
			// Only a kernel that never ran a test is booted again.
			if wantNotes := (1 - test.boots) * (bootTries - 1); booted != test.boots || notes != wantNotes {
				t.Errorf("got %d boots and %d notes of another try, want %d and %d", booted, notes, test.boots, wantNotes)
			}
		})
	}
}

func TestAccelerator(t *testing.T) {
	dir := t.TempDir()
	sys, dev := filepath.Join(dir, "sys"), filepath.Join(dir, "kvm")
	a := arches["amd64"]
	check := func(name, want string) {
		t.Helper()
		if got, err := a.accelerator(name, "amd64", sys, dev); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	t.Setenv(AccelEnv, "")
	check("amd64", "tcg")
	if err := os.WriteFile(dev, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("amd64", "tcg") // opens, but no module stands behind it
	if err := os.MkdirAll(filepath.Join(sys, "kvm_amd"), 0o755); err != nil {
		t.Fatal(err)
	}
	check("amd64", "kvm")
	check("arm64", "tcg")
	t.Setenv(AccelEnv, "tcg")
	check("amd64", "tcg")
	t.Setenv(AccelEnv, "fast")
	if _, err := a.accelerator("amd64", "amd64", sys, dev); err == nil {
		t.Error("VMTEST_ACCEL=fast: no error")
	}
}

func TestCheck(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Check("amd64"); err == nil || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: got %v", err)
	}
	if err := Check("vax"); err == nil || !strings.Contains(err.Error(), Arches) {
		t.Errorf("unknown architecture: got %v", err)
	}
}

func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	log := "[1] fine\r\n[2] WARNING: CPU: 0 PID: 1 at x.c:3\r\n[3] BUG: sleeping function\r\n[4] debug: on\r\n"
	if err := os.WriteFile(filepath.Join(dir, "console.log"), []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []string{"[2] WARNING: CPU: 0 PID: 1 at x.c:3", "[3] BUG: sleeping function"}
	if got := Trouble(dir); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCPUs(t *testing.T) {
	for _, test := range []struct {
		release, accel string
		asked, want    int
	}{
		{"5.10.0-33-cloud-amd64", "tcg", 0, 1},
		{"6.4.1", "tcg", 0, 1},
		{"6.5.0", "tcg", 0, 2},
		{"7.2+1-cloud-amd64", "tcg", 0, 2},
		{"", "tcg", 0, 1}, // given by path
		{"5.10.0", "kvm", 0, 2},
		{"5.10.0", "tcg", 3, 3},
	} {
		c := Config{Kernel: &kernel.Kernel{Release: test.release}, CPUs: test.asked}
		if got := c.cpus(test.accel); got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
}
