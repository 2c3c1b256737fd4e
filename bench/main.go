//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside is the first argument of the bench in its own mount namespace.
const inside = "inside"

func init() {
	// Pdeathsig is sent when the thread ends that started the child.
	runtime.LockOSThread()
}

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	var status *exec.ExitError
	if errors.As(err, &status) {
		os.Exit(status.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 || args[0] != inside {
		return enter(args)
	}
	args = args[1:]
	switch {
	case len(args) == 1 && args[0] == "load":
		return serveLoad(in, out)
	case len(args) == 2 && args[0] == "leak":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return serveLeak(n, in, out)
	}
	return measure(args, out)
}

// enter starts the bench again in a new mount namespace.
func enter(args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("not root: BPF and network namespaces need it")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{inside}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS,
	}
	return cmd.Run()
}

// bench is one run.
type bench struct {
	tcptrace string
	pairs    int
	spell    time.Duration  // length of one run of the load
	dir      string         // scratch, in memory
	results  string         // directory of the results
	tools    *regexp.Regexp // names of those to measure
	tracefs  error          // why there is none

	ss, tcpstates, bpftrace string // paths, empty where not to be had
	hasSummary              bool

	report report
}

var parts = []struct {
	name string
	run  func(*bench) error
}{
	{"throughput", (*bench).throughput},
	{"kernel-time", (*bench).kernelTime},
	{"first-answer", (*bench).firstAnswer},
	{"quiet", (*bench).quiet},
	{"growth", (*bench).growth},
}

func measure(args []string, out io.Writer) (err error) {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("run", ".", "run the parts that match the `regexp`")
	tools := flags.String("tools", ".", "of throughput and kernel-time: only the tools that match the `regexp`")
	seconds := flags.Float64("seconds", 2, "length of one run of the load, `seconds`")
	flags.IntVar(&b.pairs, "pairs", 7, "pairs of runs with and without a tracer")
	flags.StringVar(&b.results, "out", "dist/bench", "`directory` of the results")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || b.pairs < 1 || *seconds <= 0 {
		return errors.New("want the path of tcptrace, at least one pair, and seconds above 0")
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if b.tools, err = regexp.Compile(*tools); err != nil {
		return err
	}
	b.spell = time.Duration(*seconds * float64(time.Second))
	if b.tcptrace, err = filepath.Abs(flags.Arg(0)); err != nil {
		return err
	}
	if err := b.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	b.find()
	if err := b.describe(); err != nil {
		return err
	}
	ran := false
	for _, p := range parts {
		if !wanted.MatchString(p.name) {
			continue
		}
		ran = true
		b.say("%s ...", p.name)
		if err := newNetwork(); err != nil {
			return err
		}
		if err := p.run(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if !ran {
		return fmt.Errorf("no part matches %q", *only)
	}
	return b.write(out)
}

// prepare makes the mount namespace fit: mounts that nobody else sees, tracefs for the
// peers, and room in memory for what tools write.
func (b *bench) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "tcptrace-bench-"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", b.dir, "tmpfs", 0, "size=75%"); err != nil {
		return errors.Join(fmt.Errorf("mount a tmpfs: %w", err), os.Remove(b.dir))
	}
	if _, err := os.Stat("/sys/kernel/tracing/events"); err != nil {
		b.tracefs = unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "")
	}
	if _, err := os.Stat("/sys/kernel/debug/tracing/events"); err != nil && b.tracefs == nil {
		// Where older tools look; not all need it.
		_ = unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "")
	}
	return nil
}

func (b *bench) cleanUp() error {
	return errors.Join(unix.Unmount(b.dir, unix.MNT_DETACH), os.Remove(b.dir))
}

// newNetwork puts the thread, and the children that it starts, into a network namespace
// in which no part before has left a socket.
func newNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// say tells the one who waits what is being done.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// note keeps what the reader of the results must know, and says it.
func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.report.Notes = append(b.report.Notes, text)
	b.say("%s", text)
}
