//go:build linux

// Package machine runs a guest in QEMU: it packs the initramfs, boots the
// kernel, and hands on what the guest's init reports.
package machine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/tcptrace/tcptrace/vmtest/internal/cpio"
	"github.com/tcptrace/tcptrace/vmtest/internal/kernel"
	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// AccelEnv overrides the choice between kvm and tcg.
const AccelEnv = "VMTEST_ACCEL"

// Copy is a file or folder of the host that the guest gets.
type Copy struct{ Host, Guest string }

// Config describes one run of one guest.
type Config struct {
	Kernel   *kernel.Kernel
	Init     string // the program that becomes the guest's init
	Memory   string // QEMU's -m
	CPUs     int    // 0: as many as work, at most 2
	Copies   []Copy
	Commands []proto.Command
	Timeout  time.Duration // of the whole run; 0: none
	Dir      string        // takes initramfs, console.log and out/; exists

	boot, silence time.Duration // tests' own limits; 0: bootLimit, silenceLimit
}

// Handler is told what happens in the guest, in order and from one goroutine.
// An error ends the VM.
type Handler interface {
	Booted(proto.Hello) error
	Started(command int) error
	Output(command int, stderr bool, b []byte) error
	Exited(command int, e proto.Exit) error
	Note(text string) error
}

// Limits of patience, wide enough for emulation on a busy machine.
const (
	bootLimit    = 2 * time.Minute
	silenceLimit = 90 * time.Second // the guest's heart beats every 2 s
	exitLimit    = 10 * time.Second // from the end of QEMU's output to its own
	bootTries    = 3
)

// errNoInit: the kernel died or hung before init reported. It is the only
// failure that is tried again: no test has run.
var errNoInit = errors.New("the kernel did not reach init")

// arch is how one architecture is emulated.
type arch struct {
	qemu, pkg string
	machine   []string
	console   string
	serial    string // the guest's device of the second line
	frames    []string
	emulated  string   // the processor, where it is emulated
	kvm       []string // modules, any of which means that KVM is usable
}

var arches = map[string]arch{
	"amd64": {
		qemu: "qemu-system-x86_64", pkg: "qemu-system-x86",
		console: "ttyS0", serial: "/dev/ttyS1",
		frames: []string{"-serial", "chardev:frames"},
		// QEMU before 8.0 computes the flags of cmpxchg16b from those of some earlier
		// instruction (helper_cmpxchg16b): an interrupt before the next one that sets
		// them saves bits that no processor has, and the kernel dies of a double fault
		// behind the allocator's cmpxchg16b. Seen in one of some thirty long runs.
		emulated: "qemu64,-cx16",
		kvm:      []string{"kvm_intel", "kvm_amd"},
	},
	"arm64": {
		qemu: "qemu-system-aarch64", pkg: "qemu-system-arm",
		machine: []string{"-M", "virt"},
		console: "ttyAMA0", serial: "/dev/ttyS0",
		// The board has one port; the second is a PCI card.
		frames:   []string{"-device", "pci-serial,chardev=frames"},
		emulated: "max",
		kvm:      []string{"kvm"},
	},
}

// Arches lists what this package can emulate.
const Arches = "amd64, arm64"

// Check reports what is missing to run guests of the architecture.
func Check(name string) error {
	a, ok := arches[name]
	if !ok {
		return fmt.Errorf("architecture %q: want one of %s", name, Arches)
	}
	if _, err := exec.LookPath(a.qemu); err != nil {
		return fmt.Errorf("%s not found: install it with apt-get install %s", a.qemu, a.pkg)
	}
	return nil
}

// accelerator chooses KVM only where it can work. /dev/kvm alone proves
// nothing: it opens on machines whose nested virtualisation is off, where QEMU
// then aborts rather than falls back.
func (a arch) accelerator(name, hostArch, sysModule, dev string) (string, error) {
	switch forced := os.Getenv(AccelEnv); forced {
	case "kvm", "tcg":
		return forced, nil
	case "":
	default:
		return "", fmt.Errorf("%s=%q: want kvm or tcg", AccelEnv, forced)
	}
	if name != hostArch {
		return "tcg", nil
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return "tcg", nil
	}
	f.Close()
	for _, module := range a.kvm {
		if _, err := os.Stat(filepath.Join(sysModule, module)); err == nil {
			return "kvm", nil
		}
	}
	return "tcg", nil
}

// args is QEMU's command line.
func (c Config) args(a arch, accel string) []string {
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"}
	args = append(args, a.machine...)
	if accel == "kvm" {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		// Multi-threaded emulation fails about once in a hundred boots
		// ("Oops: int3" while the kernel patches its own text).
		args = append(args, "-accel", "tcg,thread=single", "-cpu", a.emulated)
		// The guest's clock counts instructions, 1 ns for each, and leaps to the
		// next timer when all processors are idle: a host that is slow or busy does
		// not make what runs in there late, and a wait costs nothing.
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	// oops=panic: a kernel bug ends the VM instead of hiding behind the next
	// test.
	cmdline := "console=" + a.console + " panic=-1 reboot=t oops=panic cryptomgr.notests"
	if accel != "kvm" && c.cpus(accel) == 1 {
		// Each time that the guest sets a timer of high resolution, the emulator wakes
		// its other thread and shares a lock with it: a third of the time. With two
		// processors the tick alone makes the guest slower.
		cmdline += " highres=off nohz=off"
	}
	args = append(args,
		"-smp", fmt.Sprint(c.cpus(accel)), "-m", c.Memory,
		"-kernel", c.Kernel.Image, "-initrd", c.initrd(), "-append", cmdline,
		"-chardev", "file,id=console,path="+escape(c.console()), "-serial", "chardev:console",
		"-chardev", "stdio,id=frames,signal=off",
	)
	return append(args, a.frames...)
}

// cpus is the number of the guest's processors. QEMU before 8.1, counting instructions,
// gives a processor only what the one in front of it leaves of the time until the next
// timer. Kernels before 6.5 wait for a processor to start in a loop that leaves nothing,
// for ever.
func (c Config) cpus(accel string) int {
	var major, minor int
	switch _, err := fmt.Sscanf(c.Kernel.Release, "%d.%d", &major, &minor); {
	case c.CPUs != 0:
		return c.CPUs
	case accel == "kvm" || err == nil && (major > 6 || major == 6 && minor >= 5):
		return 2
	default:
		return 1
	}
}

// escape doubles commas, as QEMU's option lists want it.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

func (c Config) initrd() string  { return filepath.Join(c.Dir, "initramfs") }
func (c Config) console() string { return filepath.Join(c.Dir, "console.log") }

// Run boots the guest, lets it run all commands, and ends it. The error is of
// the machine: a kernel that crashes, hangs or takes too long. How the commands
// fared is the handler's to judge.
func Run(ctx context.Context, c Config, h Handler) error {
	a := arches[c.Kernel.Arch]
	if err := Check(c.Kernel.Arch); err != nil {
		return err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no end after %v", c.Timeout))
		defer cancel()
	}
	if err := c.pack(a); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	defer os.Remove(c.initrd())
	accel, err := a.accelerator(c.Kernel.Arch, runtime.GOARCH, "/sys/module", "/dev/kvm")
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := c.once(ctx, a, accel, h)
		if !errors.Is(err, errNoInit) || try == bootTries || ctx.Err() != nil {
			return err
		}
		if err := h.Note(fmt.Sprintf("%v; trying again", err)); err != nil {
			return err
		}
	}
}

// pack writes the initramfs.
func (c Config) pack(a arch) (err error) {
	f, err := os.Create(c.initrd())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	job := proto.Job{Hostname: "vmtest", Serial: a.serial, Seed: make([]byte, 64), Time: time.Now(), Commands: c.Commands}
	if _, err := rand.Read(job.Seed); err != nil {
		return err
	}
	w := cpio.NewWriter(f)
	steps := []func() error{
		func() error { return w.Copy("/init", c.Init) },
		func() error { return w.Char("/dev/console", 5, 1) }, // init's own stdio, before devtmpfs
		func() error { return w.Symlink("/var/run", "/run") },
		func() error { return w.Bytes("/etc/passwd", 0o644, []byte(passwd)) },
		func() error { return w.Bytes("/etc/group", 0o644, []byte(group)) },
		func() error { return w.Bytes("/etc/hosts", 0o644, []byte(hosts)) },
	}
	for _, path := range c.Kernel.ModulePaths() {
		guest := proto.ModuleDir + "/" + filepath.Base(path)
		job.Modules = append(job.Modules, guest)
		steps = append(steps, func() error { return w.Copy(guest, path) })
	}
	for _, cp := range c.Copies {
		steps = append(steps, func() error { return w.Copy(cp.Guest, cp.Host) })
	}
	steps = append(steps, func() error {
		text, err := json.Marshal(job)
		if err != nil {
			return err
		}
		return w.Bytes(proto.JobPath, 0o600, text)
	}, w.Close)
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\nnogroup:x:65534:\n"
	hosts  = "127.0.0.1 localhost vmtest\n::1 localhost\n"
)

// once is one boot.
func (c Config) once(ctx context.Context, a arch, accel string, h Handler) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, a.qemu, c.args(a, accel)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C is for us; we end QEMU
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", a.qemu, err)
	}
	boot, silence := cmp.Or(c.boot, bootLimit), cmp.Or(c.silence, silenceLimit)
	limit := time.AfterFunc(boot, func() { cancel(fmt.Errorf("no word from init after %v", boot)) })
	defer func() { limit.Stop() }()
	s := session{c: c, h: h, alive: func() { limit.Reset(silence) }}
	s.onHello = func() {
		limit.Stop()
		limit = time.AfterFunc(silence, func() { cancel(fmt.Errorf("hangs: no sign of life for %v", silence)) })
	}
	err = s.read(out)
	cause := context.Cause(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// QEMU is about to end; its own status tells why.
		limit.Reset(exitLimit)
	} else {
		cancel(nil)
	}
	waitErr := cmd.Wait()
	switch {
	case s.done && err == nil:
		return nil
	case cause != nil:
		err = cause
	case waitErr == nil:
		// panic=-1 and -no-reboot: a crash ends QEMU in good order.
		err = errors.New("the VM ended before its work did: the kernel crashed")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%s: %w: %s", a.qemu, waitErr, bytes.TrimSpace(complaint.Bytes()))
	}
	if !s.booted {
		err = fmt.Errorf("%w: %w", errNoInit, err)
	}
	return &CrashError{Err: err, Console: Tail(c.console(), 40)}
}

// CrashError is a VM that did not come to its end.
type CrashError struct {
	Err     error
	Console []string // the last lines of the kernel's log
}

func (e *CrashError) Error() string { return e.Err.Error() }
func (e *CrashError) Unwrap() error { return e.Err }

// session follows the frames of one boot.
type session struct {
	c              Config
	h              Handler
	alive, onHello func()
	booted, done   bool
	file           *os.File // that is being received
	left           int64
}

func (s *session) read(r io.Reader) error {
	defer func() {
		if s.file != nil {
			s.file.Close()
		}
	}()
	frames := proto.NewReader(r)
	for !s.done {
		f, err := frames.Next()
		if err != nil {
			return err
		}
		if s.booted {
			s.alive()
		}
		if err := s.frame(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) frame(f proto.Frame) error {
	cmd := int(f.Command)
	switch f.Type {
	case proto.TypeStart, proto.TypeStdout, proto.TypeStderr, proto.TypeExit:
		if cmd >= len(s.c.Commands) {
			return fmt.Errorf("%w: command %d of %d", proto.ErrCorrupt, cmd, len(s.c.Commands))
		}
	}
	switch f.Type {
	case proto.TypeHello:
		var hello proto.Hello
		if err := json.Unmarshal(f.Payload, &hello); err != nil {
			return fmt.Errorf("guest's hello: %w", err)
		}
		s.booted = true
		s.onHello()
		return s.h.Booted(hello)
	case proto.TypeHeartbeat:
		return nil
	case proto.TypeStart:
		return s.h.Started(cmd)
	case proto.TypeStdout, proto.TypeStderr:
		return s.h.Output(cmd, f.Type == proto.TypeStderr, f.Payload)
	case proto.TypeExit:
		var e proto.Exit
		if err := json.Unmarshal(f.Payload, &e); err != nil {
			return fmt.Errorf("guest's exit report: %w", err)
		}
		return s.h.Exited(cmd, e)
	case proto.TypeNote:
		return s.h.Note(string(f.Payload))
	case proto.TypeFile:
		return s.open(f.Payload)
	case proto.TypeData:
		return s.receive(f.Payload)
	case proto.TypeFatal:
		return fmt.Errorf("guest: %s", f.Payload)
	case proto.TypeDone:
		if s.left != 0 {
			return fmt.Errorf("file from the guest is %d bytes short", s.left)
		}
		s.done = true
		return nil
	}
	return fmt.Errorf("%w: type %d", proto.ErrCorrupt, f.Type)
}

func (s *session) open(payload []byte) error {
	var file proto.File
	if err := json.Unmarshal(payload, &file); err != nil {
		return fmt.Errorf("guest's file: %w", err)
	}
	if !filepath.IsLocal(file.Name) {
		return fmt.Errorf("guest's file %q: not below its folder", file.Name)
	}
	if s.left != 0 {
		return fmt.Errorf("file from the guest is %d bytes short", s.left)
	}
	path := filepath.Join(OutDir(s.c.Dir), file.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			return err
		}
		s.file = nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	s.file, s.left = f, file.Size
	return nil
}

func (s *session) receive(b []byte) error {
	if int64(len(b)) > s.left {
		return fmt.Errorf("%w: data without a file", proto.ErrCorrupt)
	}
	s.left -= int64(len(b))
	_, err := s.file.Write(b)
	return err
}

// OutDir is where files from the guest's proto.OutDir arrive.
func OutDir(dir string) string { return filepath.Join(dir, "out") }

// Tail returns the last n lines of a file, or none.
func Tail(path string, n int) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	text := strings.TrimRight(strings.ReplaceAll(string(b), "\r", ""), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}

var kernelTrouble = regexp.MustCompile(`(?m)^.*(?:WARNING: |BUG: |INFO: task .* blocked|rcu: INFO: ).*$`)

// Trouble returns the lines of the kernel's log that report a fault of its own,
// such as a test may have provoked without ending the VM.
func Trouble(dir string) []string {
	b, err := os.ReadFile(filepath.Join(dir, "console.log"))
	if err != nil {
		return nil
	}
	return kernelTrouble.FindAllString(strings.ReplaceAll(string(b), "\r", ""), -1)
}
