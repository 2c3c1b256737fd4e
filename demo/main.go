//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the demo shows, and how long it leaves the reader to look at it.
const (
	connections = 3
	talkFor     = 2 * time.Second // connections stay in ESTABLISHED
	leakFor     = 3 * time.Second // ... and in CLOSE_WAIT
	// Where TIME_WAIT is found by a look each second, one must fall into it.
	closedFor   = 1500 * time.Millisecond
	readyWithin = 15 * time.Second
)

func init() {
	// Pdeathsig is sent when the thread ends that started the child, and a
	// namespace is the thread's: main must stay on the first one.
	runtime.LockOSThread()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var err error
	switch filepath.Base(os.Args[0]) {
	case serverName:
		err = serve(os.Stdin, os.Stdout)
	case clientName:
		err = talk(os.Stdin, os.Stdout)
	default:
		err = run(ctx, os.Args[1:])
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s: error: %v\n", filepath.Base(os.Args[0]), err)
		stop()
		os.Exit(1)
	}
}

// run shows the leak with the tcptrace at args[0]; the rest is passed to it.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want the path of tcptrace as the first argument")
	}
	if os.Geteuid() != 0 {
		return errors.New("not root: BPF and network namespaces need it")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	scratch, err := os.MkdirTemp("", "tcptrace-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	var server, client *actor
	err = inNewNamespace(func() error {
		if server, err = startActor(ctx, serverName); err != nil {
			return err
		}
		client, err = startActor(ctx, clientName)
		return err
	})
	defer server.end()
	defer client.end()
	if err != nil {
		return err
	}

	ready := filepath.Join(scratch, "ready")
	shown := append([]string{"--netns", fmt.Sprintf("/proc/%d/ns/net", client.pid())}, args[1:]...)
	say("$ tcptrace %s", strings.Join(shown, " "))
	tracer := command(ctx, args[0], append([]string{"--ready-file", ready}, shown...)...)
	tracer.Stdout, tracer.Stderr = os.Stdout, os.Stderr
	// It takes its hooks down and flushes on SIGINT.
	tracer.Cancel = func() error { return tracer.Process.Signal(unix.SIGINT) }
	tracer.WaitDelay = 2 * time.Second
	if err := tracer.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- tracer.Wait()
		close(ended)
	}()
	defer func() {
		cancel()
		for range ended {
		}
	}()
	if err := waitFor(ctx, ready, ended); err != nil {
		return err
	}

	addr, err := server.ask("listen")
	if err != nil {
		return err
	}
	if _, err := client.ask("connect " + addr); err != nil {
		return err
	}
	if err := pause(ctx, talkFor); err != nil {
		return err
	}
	say("# the client (pid %d) closes its %d connections,", client.pid(), connections)
	say("# %s (pid %d) keeps its ends of them open", serverName, server.pid())
	if _, err := client.ask("close"); err != nil {
		return err
	}
	if err := pause(ctx, leakFor); err != nil {
		return err
	}
	say("# %s ends, and the kernel closes what it leaked", serverName)
	server.end()
	if err := pause(ctx, closedFor); err != nil {
		return err
	}
	if err := tracer.Process.Signal(unix.SIGINT); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("tcptrace: %w", err)
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// command prepares a child that dies with the demo, in whatever way that ends.
func command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// inNewNamespace runs f in a network namespace of its own, whose loopback is up.
func inNewNamespace(f func() error) (err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the first namespace: %w", back))
		}
	}()
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return f()
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

// waitFor returns when the file is there. ended tells of a tracer that will not
// make it any more.
func waitFor(ctx context.Context, file string, ended <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("tcptrace was not ready within %v", readyWithin))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case err := <-ended:
			if err == nil {
				return errors.New("tcptrace ended at once")
			}
			return fmt.Errorf("tcptrace ended at once: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// actor is a child that does what it is asked, a line at a time, and answers each
// with a line. It ends with its stdin.
type actor struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startActor(ctx context.Context, name string) (*actor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &actor{cmd: command(ctx, self)}
	a.cmd.Args[0] = name
	a.cmd.Stderr = os.Stderr
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.stdout = bufio.NewReader(stdout)
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *actor) pid() int { return a.cmd.Process.Pid }

func (a *actor) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(a.stdin, line); err != nil {
		return "", fmt.Errorf("%s: %w", a.cmd.Args[0], err)
	}
	answer, err := a.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: no answer to %q: %w", a.cmd.Args[0], line, err)
	}
	return strings.TrimSpace(answer), nil
}

// end ends the child, and may be called again, or on none. How the child takes it
// is of no interest.
func (a *actor) end() {
	if a == nil || a.cmd.ProcessState != nil {
		return
	}
	a.stdin.Close()
	_ = a.cmd.Wait()
}
